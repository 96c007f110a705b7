"""DMD: its size, the released code, its distillation units. What it shares with DLF is in test_crossmodal.py, its
procedure in test_dlf.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count, of_recipe, prepared, reference
from toy import close

from msa_lib.models.dmd import DMD, HETERO_REPR, PAIRS, Distillation, imitate_cosine, imitate_l1

RATES = ("text_dropout", "attn_text", "attn_audio", "attn_vision", "embed_dropout", "out_dropout")
TINY = {"d": 8, "heads": 2, "n_layers": 1, "k_text": 3, "k_audio": 2, "k_vision": 4, "accumulation": 1}
TINY |= dict.fromkeys(RATES, 0.0)
CASES = {"released": DMD.VARIANTS["as released"], "described": {"hetero_repr": "apart"}}


@pytest.mark.parametrize("case", CASES)
def test_it_gives_the_numbers_of_the_released_code(case):
    """Prediction, edges and every term in evaluation mode; the prediction after three steps without dropout."""
    ref = reference("dmd")
    network, procedure, batch = prepared("dmd", ref, TINY | CASES[case], lr=1e-3, clip=0.6, weight_decay=0.0)
    output = network.eval()(batch)
    close(output.prediction, torch.tensor(ref["prediction"]), atol=1e-5)
    for name in DMD.RECORD:
        close(output.extras[name], torch.tensor(ref[name]), atol=1e-5)
    terms = network.loss(batch, output)
    assert set(terms) == {name.partition(".")[2] for name in ref if name.startswith(f"{case}.")} - {"after"}
    for name, value in terms.items():
        close(value, torch.tensor(ref[f"{case}.{name}"], dtype=value.dtype), atol=1e-5)
    network.train()
    for _ in range(3):
        procedure.step(batch, "main")
    close(network.eval()(batch).prediction, torch.tensor(ref[f"{case}.after"]), atol=1e-4)


def layers(d: int, n: int) -> int:
    """A transformer of n layers: 4 d^2 of attention, 8 d^2 of the network, biases and norms; and a last norm."""
    return n * (12 * d * d + 13 * d) + 2 * d


def counted(dims: tuple[int, int, int], kernels: tuple[int, int, int], d: int) -> int:
    """By hand, for 50 steps."""
    steps, mlp = [50 - k + 1 for k in kernels], lambda n: 2 * (n * n + n)
    front = sum(d * k * D for k, D in zip(kernels, dims, strict=True)) + 4 * d * d + 3 * 2 * d * d
    aligns, homo = sum(L * d * d + d for L in steps), sum(2 * L * d * d + d + 2 * L * d + 1 for L in steps)
    encoders = (3 + 6) * layers(d, 4) + 3 * layers(2 * d, 4)
    shared, hetero = mlp(3 * d) + 3 * d + 1, 3 * (mlp(2 * d) + 2 * d + 1)
    fusion = 3 * (4 * d * d + 2 * d) + 9 * d * d + 3 * d + mlp(9 * d) + 9 * d + 1
    units = [2 * g + (size + 1) * g + 4 * g + 1 for size, g in ((d, 64), (2 * d, 32))]
    return front + aligns + homo + encoders + shared + hetero + fusion + sum(units)


@pytest.mark.parametrize(
    ("data", "dims", "kernels", "d"), [("mosi", (768, 5, 20), (5, 5, 5), 50), ("mosei", (768, 74, 35), (5, 1, 3), 30)]
)
def test_it_has_as_many_parameters_as_counted(data, dims, kernels, d):
    assert count("dmd", data, **of_recipe("dmd", data)) == counted(dims, kernels, d)


@torch.no_grad()
def test_a_unit_distils_each_pair_by_its_edge():
    """In loops; of the second sample audio is missing."""
    torch.manual_seed(0)
    unit, logits, reprs = Distillation(4, 5, [0.0, 0, 1, 0, 1, 0]), torch.randn(2, 3), torch.randn(2, 3, 4)
    available = torch.tensor([[True, True, True], [True, False, True]])
    edges = unit(logits, reprs)
    prior = np.exp(4.0 * np.array([0, 0, 1, 0, 1, 0])) / np.exp(4.0 * np.array([0, 0, 1, 0, 1, 0])).sum()
    z = [
        [torch.cat([unit.of_logit(logits[b, m : m + 1]), unit.of_repr(reprs[b, m])]) for m in range(3)] for b in (0, 1)
    ]
    scores = [[float(unit.edge(torch.cat([z[b][j], z[b][i]]))) / 8 for j, i in PAIRS] for b in (0, 1)]
    close(edges, torch.softmax(torch.tensor(scores), -1))
    logit = l1 = cosine = 0.0
    for k, (j, i) in enumerate(PAIRS):
        samples = [b for b in (0, 1) if available[b, i] and available[b, j]]
        weight = [float(edges[b, k]) + prior[k] for b in samples]
        logit += np.mean([w * abs(float(logits[b, j] - logits[b, i])) for w, b in zip(weight, samples, strict=True)])
        far = [float((reprs[b, j] - reprs[b, i]).abs().sum()) for b in samples]
        l1 += 10 * np.mean(np.multiply(weight, far))
        angle = [1 - float(torch.cosine_similarity(reprs[b, j], reprs[b, i], 0)) for b in samples]
        cosine += 10 * np.mean(np.multiply(weight, angle))
    for distance, expected in ((imitate_l1, l1), (imitate_cosine, cosine)):
        terms = unit.losses(logits, reprs, edges, available, distance)
        assert float(terms["repr"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["logit"]) == pytest.approx(logit, rel=1e-5)
    reg = 10 * float(((edges.mean(0).detach() - torch.tensor(prior)) ** 2).sum())
    assert float(terms["reg"]) == pytest.approx(reg, rel=1e-5)


def test_a_student_moves_toward_its_teacher_or_as_released_away_and_the_teacher_stays():
    unit, here = Distillation(4, 5, [0.0] * 6), torch.ones(3, 3, dtype=torch.bool)
    reprs = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()  # all cosines are positive
    edges = torch.zeros(3, 6)
    edges[:, PAIRS.index((0, 1))], unit.prior = 1.0, torch.zeros(6)  # only text learns, from audio
    similarity = torch.cosine_similarity(reprs[:, 0], reprs[:, 1], dim=-1).sum()
    closer = torch.autograd.grad(similarity, reprs)[0][:, 0]
    for name, sign in (("toward", 1), ("apart", -1)):
        terms = unit.losses(torch.zeros(3, 3), reprs, edges, here, HETERO_REPR[name])
        (gradient,) = torch.autograd.grad(terms["repr"], reprs)
        close(-gradient[:, 0], sign * 10 / 3 * closer)
        assert not gradient[:, 1:].any()
    assert HETERO_REPR["off"](reprs) is None
