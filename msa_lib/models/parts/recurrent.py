"""An LSTM that is plain tensor operations: it compiles into one graph and can be stacked over seeds, which the built-in
one cannot. Sequences need no packing and no lengths on the host, so nothing waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LSTM(nn.Module):
    """One layer, in one or both directions, with the weights of `torch.nn.LSTM` (two bias vectors; gates i, f, g, o).

    The weights of the directions are stacked [directions,...], the forward one first, and run side by side.
    """

    def __init__(self, size: int, hidden: int, bidirectional: bool = False) -> None:
        super().__init__()
        n, bound = 1 + bidirectional, hidden**-0.5
        self.weight_ih = nn.Parameter(torch.empty(n, 4 * hidden, size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(n, 4 * hidden, hidden).uniform_(-bound, bound))
        self.bias_ih = nn.Parameter(torch.empty(n, 4 * hidden).uniform_(-bound, bound))
        self.bias_hh = nn.Parameter(torch.empty(n, 4 * hidden).uniform_(-bound, bound))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x [B,T,size], mask [B,T] (True on the first steps) -> outputs [B,T,n*hidden] and final states [B,n*hidden].

        Zeros after a sample's length, and everywhere where it has none. The backward direction starts at its last step.
        """
        step, length = torch.arange(x.shape[1], device=x.device), mask.sum(-1, keepdim=True)  # [T], [B,1]
        turned = torch.where(mask, length - 1 - step, step)  # [B,T], its own inverse
        both = torch.stack([x, along_time(x, turned)][: len(self.weight_ih)])  # [n,B,T,size]
        h, _ = self.run(both)  # [n,B,T,hidden]
        last = along_time(h.transpose(0, 1).flatten(0, 1), (length - 1).clamp(min=0).repeat_interleave(len(h), 0))
        last = last.view(len(x), -1) * mask.any(-1, keepdim=True)  # [B,n*hidden]
        outputs = torch.cat([h[0], *(along_time(back, turned) for back in h[1:])], -1)  # [B,T,n*hidden]
        return outputs * mask[..., None], last

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrence from zero states, for each direction: [n,B,T,size] -> hidden and cell states, as wide."""
        bias = self.bias_ih + self.bias_hh
        drive = torch.einsum("nbti,ngi->tnbg", x, self.weight_ih) + bias[:, None]  # all steps at once
        W, outputs, cells = self.weight_hh.mT, [], []
        h = c = torch.zeros_like(drive[0, ..., : W.shape[1]])  # [n,B,hidden]
        for given in drive.unbind():
            i, f, g, o = torch.baddbmm(given, h, W).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
            cells.append(c)
        return torch.stack(outputs, 2), torch.stack(cells, 2)


class SequenceEncoder(nn.Module):
    """[B,T,size], mask [B,T] -> [B,out]: the LSTM's last states, then a linear map; zeros where there is no step."""

    def __init__(self, size: int, hidden: int, out: int, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = LSTM(size, hidden, bidirectional)
        self.linear = nn.Linear(hidden * (1 + bidirectional), out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.linear(self.lstm(x, mask)[1]) * mask.any(-1, keepdim=True)


def along_time(x: Tensor, step: Tensor) -> Tensor:
    """The steps `step` [B,T'] of x [B,T,d] -> [B,T',d]."""
    return x.gather(1, step[..., None].expand(-1, -1, x.shape[-1]))
