"""The crossmodal transformer, and what DMD and DLF share, against loops over one sample without padding."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from toy import Loops, close

from msa_lib.data.dataset import steps_mask
from msa_lib.models.parts.crossmodal import Convolutions, CrossEncoder, SelfEncoder, last
from msa_lib.models.parts.decoupled import l1, label_margin, overlap, squared_gap

D, HEADS = 6, 2


class Slow(Loops):
    """One sample, its steps as a list of vectors."""

    def __init__(self, network):
        self.w = {name: value.detach().double().numpy() for name, value in network.named_parameters()}

    def position(self, i):
        rates = [10000 ** (-k / (D // 2 - 1)) for k in range(D // 2)]
        return np.array([math.sin((i + 1) * r) for r in rates] + [math.cos((i + 1) * r) for r in rates])

    def embedded(self, xs):
        return [math.sqrt(D) * x + self.position(i) for i, x in enumerate(xs)]

    def attention(self, name, queries, keys):
        W, b, out = self.w[f"{name}.qkv.weight"], self.w[f"{name}.qkv.bias"], []
        q, k, v = ([W[i * D : (i + 1) * D] @ x + b[i * D : (i + 1) * D] for x in xs]
                   for i, xs in enumerate((queries, keys, keys)))  # fmt: skip
        for i in range(len(queries)):
            seen, read = range(min(len(keys), i + abs(len(keys) - len(queries)) + 1)), np.zeros(D)
            for part in (slice(h * D // HEADS, (h + 1) * D // HEADS) for h in range(HEADS)):
                weight = np.exp([q[i][part] @ k[j][part] / math.sqrt(D / HEADS) for j in seen])
                read[part] = sum(w * v[j][part] for w, j in zip(weight / weight.sum(), seen, strict=True))
            out.append(self.linear(f"{name}.out", read))
        return out

    def encode(self, xs, source, n_layers):
        """`source` None: over itself."""
        xs, source = self.embedded(xs), None if source is None else self.embedded(source)
        for i in range(n_layers):
            name, keys = f"layers.{i}", xs if source is None else source
            queries, keys = ([self.norm(f"{name}.norm1", x) for x in y] for y in (xs, keys))
            if keys:
                xs = [x + r for x, r in zip(xs, self.attention(f"{name}.attention", queries, keys), strict=True)]
            hidden = [np.maximum(self.linear(f"{name}.ffn.0", self.norm(f"{name}.norm2", x)), 0) for x in xs]
            xs = [x + self.linear(f"{name}.ffn.3", h) for x, h in zip(xs, hidden, strict=True)]
        return [self.norm("norm", x) for x in xs]


def sequences(lengths, width, seed):
    mask = steps_mask(torch.tensor(lengths), width)
    return torch.randn(len(lengths), width, D, generator=torch.Generator().manual_seed(seed)) * mask[..., None], mask


def stirred(network):
    torch.manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return network.eval()


@pytest.mark.parametrize("kind", [SelfEncoder, CrossEncoder])
def test_a_sample_is_encoded_by_its_own_lengths(kind):
    """Longer and shorter sources, an empty one, an empty query."""
    network = stirred(kind(D, HEADS, 2, 0.0, 0.0, 0.0, 0.0))
    (x, mask), (source, keys) = sequences((5, 3, 4, 0), 6, 2), sequences((2, 5, 0, 3), 5, 3)
    got = network(x, mask) if kind is SelfEncoder else network(x, mask, source, keys)
    for i in range(4):
        own = list(x[i][mask[i]].double().numpy())
        other = None if kind is SelfEncoder else list(source[i][keys[i]].double().numpy())
        expected = Slow(network).encode(own, other, 2)
        close(got[i][mask[i]].double(), torch.tensor(np.array(expected)).view(-1, D), atol=1e-5)
        assert not got[i][~mask[i]].any()
    close(last(got, mask)[0], got[0, 4])
    assert not last(got, mask)[3].any()


def test_a_convolution_loses_the_steps_at_the_border_but_not_the_last_one():
    network = stirred(Convolutions((2, 1, 3), 4, (3, 1, 2), 0.0))
    lengths = torch.tensor([[5, 5, 5], [2, 3, 1], [0, 1, 2]])
    masks = [steps_mask(lengths[:, m], 5) for m in range(3)]
    raw = [torch.randn(3, 5, D) * mask[..., None] for D, mask in zip((2, 1, 3), masks, strict=True)]
    X, valid = network(raw, masks)
    assert [x.shape[1] for x in X] == network.steps((5, 5, 5)) == [3, 5, 4]
    assert torch.stack([mask.sum(-1) for mask in valid], 1).tolist() == [[3, 5, 4], [1, 3, 1], [0, 1, 1]]
    for m, i in product(range(3), range(3)):
        k = network.kernels[m]
        for t in range(valid[m][i].sum()):
            close(X[m][i, t], torch.einsum("odk,kd->o", network[m].weight, raw[m][i, t : t + k]))
        assert not X[m][i][~valid[m][i]].any()


def test_losses_of_valid_steps_and_of_modalities_that_are_there():
    mask = torch.tensor([[[1, 1], [1, 0], [0, 0]], [[1, 0], [1, 1], [0, 0]]]).bool()
    s, c = torch.randn(2, 2, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    gap = cos = 0.0
    for m in range(2):  # the third has no valid step at all
        steps = [(i, t) for i, t in product(range(2), range(2)) if mask[i, m, t]]
        gap += np.mean([float(((s[i, m, t] - c[i, m, t]) ** 2).mean()) for i, t in steps])
        cosines = [float(torch.cosine_similarity(s[i, m, t], c[i, m, t], 0)) for i, t in steps]
        cos += np.mean(np.maximum(cosines, 0))
    assert float(squared_gap(s, c, mask)) == pytest.approx(gap, rel=1e-5)
    assert float(overlap(s, c, mask)) == pytest.approx(cos, rel=1e-5)
    raw, y = torch.tensor([[1.0, 2.0, 3.0], [0.0, 5.0, 9.0]]), torch.tensor([1.0, 2.0])
    close(l1(raw, y, mask.any(-1)), torch.tensor([1.0, 2.0, 0.0]))


def test_the_margin_over_all_triplets():
    generator = torch.Generator().manual_seed(4)
    Z, y = torch.randn(4, 3, 5, generator=generator), torch.tensor([1.0, -2.0, 1.0, 0.4])
    here = torch.ones(4, 3, dtype=torch.bool)
    here[0, 1] = here[1, 0] = here[1, 2] = False
    vectors = [(Z[i, m], float(y[i])) for i, m in product(range(4), range(3)) if here[i, m]]
    anchors = []
    for a, (x, label) in enumerate(vectors):
        others = [(float(torch.cosine_similarity(x, z, 0)), other) for b, (z, other) in enumerate(vectors) if b != a]
        near, far = ([o for o in others if (o[1] == label) == same] for same in (True, False))
        hinges = [max(0, 0.15 * abs(label - n[1]) - p[0] + n[0]) for p, n in product(near, far)]
        anchors += [np.mean(hinges)] if hinges else []
    assert len(anchors) < len(vectors)  # one label has a single vector left
    assert float(label_margin(Z, y, here)) == pytest.approx(np.mean(anchors), rel=1e-5)
    assert float(label_margin(Z[:1], y[:1], here[:1])) == 0
