"""The raw input of a baseline: the three sequences as the data hold them, zeros wherever there is nothing."""

from __future__ import annotations

from torch import Tensor, nn

from msa_lib.data import Batch, Dataset
from msa_lib.data.dataset import steps_mask
from msa_lib.models.card import lacking
from msa_lib.models.parts.features import LENGTH_MODE, TEXT, encoder_of
from msa_lib.models.parts.layers import masked_mean


class Inputs(nn.Module):
    """Text, audio and vision of a batch, unprojected; sizes in `dims`, most steps in `steps`. All three are needed.

    bert       precomputed (the data's text features) | frozen | finetune (an encoder over the data's tokens)
    alignment  padded: each keeps its own steps | aligned: audio and vision segment-mean-pooled onto the steps of text
    """

    def __init__(self, dataset: Dataset, bert: str = "precomputed", alignment: str = "padded") -> None:
        super().__init__()
        if reason := lacking(dataset, "tav"):
            raise ValueError(reason)
        self.dims = list(dataset.feature_dims)
        self.steps = STEPS[alignment](dataset.max_steps)
        if bert != "precomputed":
            self.text_encoder = encoder_of(dataset, bert)
            self.dims[0] = self.text_encoder.size
        self.text, self.on_one_grid = TEXT[bert], LENGTH_MODE[alignment]

    def forward(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """-> per modality x [B,T,D], 0 after its length, and mask [B,T]; a missing modality has no valid step."""
        raw = [self.text(self, batch), batch.audio, batch.vision]  # [B,T,D] each
        raw = [x.masked_fill(~mask[..., None], 0.0) for x, mask in zip(raw, batch.masks, strict=True)]
        raw, lengths = self.on_one_grid(raw, batch.lengths, 0)
        return raw, [steps_mask(lengths[:, m], x.shape[1]) for m, x in enumerate(raw)]


STEPS = {"padded": list, "aligned": lambda steps: [max(steps[0], 1)] * 3}
TEXT_VECTOR = {
    "first": lambda x, mask: x[:, 0],
    "mean": masked_mean,
}  # the token that stands for a text, or all of them
