"""DashFusion: its size, fusion and contrast against loops, companions by hand, and the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count, prepared, reference
from toy import Loops, close, dataset

from msa_lib.models import build_model
from msa_lib.models.card import settings
from msa_lib.models.dashfusion import DashFusion, DashFusionConfig, candidates, drawn, ntxent
from msa_lib.train import TrainConfig, fit

SMALL = {"d": 8, "heads": 2, "n_layers": 1, "levels": 3, "warm_up": 2}
STORED = {"d": 8, "heads": 2, "levels": 3, "warm_up": 2, "padding": "read", "companions": "ranks"}


def by_hand(dims: tuple[int, int, int], steps: tuple[int, int, int], layers: int, levels: int, d: int = 128) -> int:
    """Weights of the description; text, audio, vision."""
    norm, linear = 2 * d, lambda i, o: i * o + o
    ffn = linear(d, 2 * d) + linear(2 * d, d)
    text = dims[0] * d + d * d + norm
    encoders = sum(
        linear(D, d) + d + (T + 1) * d + layers * (4 * linear(d, d) + ffn + 2 * norm) + norm
        for D, T in zip(dims[1:], steps[1:], strict=True)
    )
    alignment = 5 * d * 2 * d + linear(2 * d, d)
    level = 4 * (3 * linear(d, d) + ffn + 2 * norm) + 7 * d * d + ffn + 2 * norm
    head = linear(4 * d, 2 * d) + linear(2 * d, d) + linear(d, 1)
    return text + encoders + alignment + levels * level + head


SIZES = {  # of the released code without the layers that it never uses
    "mosi": ((768, 5, 20), (50, 375, 500), 2, 2, 2_412_417),
    "mosei": ((768, 74, 35), (50, 500, 500), 4, 3, 3_614_081),
    "sims": ((768, 33, 709), (39, 400, 55), 2, 2, 2_450_433),
}


@pytest.mark.parametrize("data", SIZES)
def test_it_has_as_many_parameters_as_counted(data):
    sizes = {k: v for k, v in settings(DashFusion.RECIPES[data]).items() if k in ("n_layers", "levels")}
    *shape, total = SIZES[data]
    assert count("dashfusion", data, **sizes) == by_hand(*shape) == total


# Against loops


class Slow(Loops):
    """One sample in double precision: lists of vectors, valid steps only."""

    def read(self, queries, keys, q, k, v, heads, scale):
        """Attention with the maps q, k, v, which may lack a bias; `scale` divides the logits."""

        def maps(name, x):
            return self.linear(name, x) if f"{name}.bias" in self.w else self.w[f"{name}.weight"] @ x

        out = []
        for query in queries:
            parts = []
            split = [np.split(np.array([maps(n, x) for x in keys]), heads, 1) for n in (k, v)]
            for q_h, k_h, v_h in zip(np.split(maps(q, query), heads), *split, strict=True):
                weights = np.exp(k_h @ q_h / scale)
                parts.append(weights @ v_h / weights.sum())
            out.append(np.concatenate(parts))
        return out

    def block(self, name, xs, source):
        reads = self.read(xs, source, f"{name}.q", f"{name}.k", f"{name}.v", self.c.heads, self.c.d**0.5)
        xs = [x + self.norm(f"{name}.norm1", r) for x, r in zip(xs, reads, strict=True)]
        return [x + self.norm(f"{name}.norm2", self.ffn(f"{name}.ffn", x)) for x in xs]

    def gather(self, name, Q, X):
        size = (self.c.d / self.c.heads) ** 0.5
        reads = [self.read(Q, x, f"{name}.q", f"{name}.k.{m}", f"{name}.v.{m}", self.c.heads, size) for m, x in X]
        Q = [self.norm(f"{name}.norm1", q + sum(r)) for q, *r in zip(Q, *reads, strict=True)]
        return [self.norm(f"{name}.norm2", q + self.ffn(f"{name}.ffn", q)) for q in Q]

    def frames(self, name, x):
        steps = [self.w[f"{name}.cls"][0, 0], *(self.linear(f"{name}.proj", row) for row in x)]
        xs = [row + p for row, p in zip(steps, self.w[f"{name}.position"][0], strict=False)]
        for i in range(self.c.n_layers):
            reads = self.attention(f"{name}.layers.{i}.attention", xs, xs)
            xs = [self.norm(f"{name}.layers.{i}.norm1", x + r) for x, r in zip(xs, reads, strict=True)]
            xs = [self.norm(f"{name}.layers.{i}.norm2", x + self.ffn(f"{name}.layers.{i}.ffn", x)) for x in xs]
        return [self.norm(f"{name}.norm", x) for x in xs]

    @staticmethod
    def gelu(x):
        return torch.nn.functional.gelu(torch.from_numpy(x)).numpy()

    def predict(self, t, a, v):
        W = [self.w[f"project.{i}.weight"] for i in (0, 2)]
        t = [self.norm("project.4", self.gelu(W[1] @ self.gelu(W[0] @ x))) for x in t]
        a, v = self.frames("audio", a), self.frames("vision", v)
        size = (2 * self.c.d / self.c.heads) ** 0.5
        found = [
            self.read(t, x, "align.q", f"align.k_{m}", f"align.v_{m}", self.c.heads, size)
            for m, x in (("a", a), ("v", v))
        ]
        H = [x + self.linear("align.out", p + q) for x, p, q in zip(t, *found, strict=True)]
        Q, X = H, [t, v, a]
        for i in range(self.c.levels):
            Q = self.block(f"levels.{i}.own", Q, Q)[: max(1, self.c.tokens // 2**i)]
            Q = self.gather(f"levels.{i}.gather", Q, list(enumerate(X)))
            X = [self.block(f"levels.{i}.spread.{m}", x, Q) for m, x in enumerate(X)]
        y = np.concatenate([x[0] for x in (Q, *X)])
        for i in (0, 2):
            y = self.gelu(self.linear(f"head.{i}", y))
        return self.linear("head.4", y)[0]


def test_it_equals_loops_over_the_valid_steps():
    torch.manual_seed(0)
    data = dataset()
    network = build_model("dashfusion", data, **SMALL).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    batch, slow = data.train.batch(range(4)), Slow(network)
    for i in range(4):
        sample = [x[i, :n].double().numpy() for x, n in zip(batch.features, batch.lengths[i], strict=True)]
        close(network(batch).prediction[i].double(), torch.tensor(slow.predict(*sample)), atol=1e-5)


def listed(z: np.ndarray, there: np.ndarray, tau: float) -> float:
    """The contrast of one sample [4,7,d], pair by pair."""

    def alike(a, b):
        return z[a] @ z[b] / np.linalg.norm(z[a]) / np.linalg.norm(z[b]) / tau

    text = [((0, i), (m, i)) for i in range(7) for m in (1, 2)]
    positive = [*text, *(((g, 0), (g, i)) for g in range(4) for i in (1, 2))]
    negative = [((g, 0), (g, i)) for g in range(4) for i in (3, 4, 5, 6)]
    positive, negative = ([p for p in pairs if there[p[0]] and there[p[1]]] for pairs in (positive, negative))
    terms = []
    for a, b in positive:
        others = sum(np.exp(alike(c, d)) for c, d in negative if c == a)
        terms.append(-np.log(np.exp(alike(a, b)) / (np.exp(alike(a, b)) + others)))
    assert len(terms) == 22 or not there.all()
    return sum(terms) / len(terms)


def test_the_contrast_equals_a_list_of_its_pairs():
    groups, there = torch.randn(5, 4, 7, 6), torch.rand(5, 4, 7) < 0.7
    there[0], there[1, :, 0] = True, True
    there[:, 0, 0] = True
    expected = np.mean([listed(z.double().numpy(), t.numpy(), 0.5) for z, t in zip(groups, there, strict=True)])
    close(ntxent(groups, there, 0.5).double(), torch.tensor(expected))
    assert ntxent(groups, there & False, 0.5) == 0


# Companions

VECTORS = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [-1.0, 0.1]])  # in the order of likeness to 0
CLASSES = torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0])


def lists(found, i: int = 0) -> list[list[int]]:
    return [[j for j in kind if j >= 0] for kind in found[i].tolist()]


def test_candidates_by_hand():
    """Alike of the same class; unlike of another; alike of another."""
    assert lists(candidates(VECTORS, CLASSES, DashFusionConfig())) == [[2, 3], [4, 1], [1, 4]]
    near = DashFusionConfig(search_top=0.6, search_bottom=0.5)  # ranks 0-2, and -1 (2 of 5 places, one excluded)
    assert lists(candidates(VECTORS, CLASSES, near)) == [[2], [4], [1]]
    assert lists(candidates(VECTORS, CLASSES, DashFusionConfig(), most=1)) == [[2], [4], [1]]
    for block in (1, 2):
        assert torch.equal(*(candidates(VECTORS, CLASSES, DashFusionConfig(), b) for b in (block, 256)))


def test_as_released_ranks_stand_for_samples():
    """Sample 4 likes, from itself on, 3, 2, 1, 0: ranks 0 and 3 have its class, and are taken for samples 0 and 3."""
    described = lists(candidates(VECTORS, CLASSES, DashFusionConfig()), 4)
    released = lists(candidates(VECTORS, CLASSES, DashFusionConfig(companions="ranks")), 4)
    assert described == [[1], [0, 2, 3], [3, 2, 0]]
    assert released == [[0, 3], [4, 2, 1], [1, 2]]  # rank 4 of the alike is left out, as if it were sample 4 itself


def test_two_of_each_kind_are_drawn_without_repetition():
    found = torch.tensor([[[5, 6, 7, -1], [8, 9, -1, -1], [3, -1, -1, -1]]]).expand(300, -1, -1)
    draws = drawn(found)
    assert {tuple(sorted(pair)) for pair in draws[:, :2].tolist()} == {(5, 6), (5, 7), (6, 7)}
    assert {tuple(pair) for pair in draws[:, 2:4].tolist()} == {(8, 9), (9, 8)}
    assert {tuple(pair) for pair in draws[:, 4:].tolist()} == {(3, -1)}


def procedure(epochs: int = 4, **switches):
    torch.manual_seed(0)
    network = build_model("dashfusion", dataset(), **{**SMALL, **switches})
    return network.Procedure(network, dataset(), TrainConfig(batch_size=5, lr=0.1, epochs=epochs))


def test_odd_epochs_look_for_candidates_and_every_epoch_draws():
    p = procedure()
    p.begin_epoch(1)
    first = {name: value.clone() for name, value in p.memory.items()}
    with torch.no_grad():
        p.network.audio.cls.copy_(torch.randn(8))
        p.network.project[4].bias.add_(torch.randn(8))
    p.begin_epoch(2)
    assert torch.equal(p.memory["candidates"], first["candidates"])
    assert not torch.equal(p.memory["companions"], first["companions"])
    p.begin_epoch(3)
    assert not torch.equal(p.memory["candidates"], first["candidates"])
    assert p.network.training
    classes = dataset().train.labels.round()[p.memory["companions"].clamp(min=0)]  # [N,6]
    own, some = dataset().train.labels.round()[:, None], p.memory["companions"] >= 0
    assert ((classes == own) == torch.tensor([1, 1, 0, 0, 0, 0]).bool())[some].all()


def test_the_loss_adds_the_contrast_with_the_companions():
    p, data = procedure(w_contrast=0.3), dataset()
    p.network.eval()
    batch, six = data.train.batch([3, 7]), torch.tensor([[0, 1, 2, 4, 5, 6], [9, 8, -1, 1, 2, -1]])
    p.memory["companions"] = torch.zeros(20, 6, dtype=torch.long)
    p.memory["companions"][batch.index] = six
    vectors = torch.stack([p.network.contrasted(data.train.batch([i]))[0][0] for i in range(10)])  # [10,4,d]
    groups = torch.stack([torch.stack([vectors[i], *vectors[row]], 1) for i, row in zip((3, 7), six, strict=True)])
    there = torch.cat([torch.ones(2, 1), six >= 0], 1)[:, None].expand(-1, 4, -1).bool()
    output = p.network(batch)
    terms = p.loss(batch, output)
    close(terms["contrast"], ntxent(groups, there, 0.5))
    close(terms["total"], (output.prediction - batch.labels).square().mean() + 0.3 * terms["contrast"])


def test_rates_and_decays_by_hand():
    """20 samples, 4 steps per epoch: up for 8 steps, down for 8."""
    p, rates = procedure(), []
    p.begin_epoch(1)
    for _ in range(4):
        for batch in p.dataset.train.batches(5):
            rates.append(p.optimisers["main"].param_groups[0]["lr"])
            p.step(batch, "main")
    assert rates == pytest.approx([0.1 * min(t / 8, (16 - t) / 8) for t in range(16)])
    decays = {id(q): g["weight_decay"] for g in p.optimisers["main"].param_groups for q in g["params"]}
    decays = {name: decays[id(q)] for name, q in p.network.named_parameters()}
    assert all((decay == 0) == name.endswith("bias") for name, decay in decays.items())


def test_the_first_epoch_is_not_kept():
    config = {"epochs": 2, "batch_size": 8, "lr": 0.0, "lr_encoder": 0.0, "switches": SMALL}
    assert fit("dashfusion", dataset(), config, seeds=(1,))[0].best_epoch == 2


# The released code


def test_the_released_code_gives_the_same():
    """Predictions, mean vectors, both terms, rates and what three steps make of the predictions."""
    r = reference("dashfusion")
    network, p, batch = prepared("dashfusion", r, STORED, 0.6, lr=1e-3, weight_decay=1e-2, epochs=4)
    network.eval()
    p.memory["companions"] = torch.tensor(r["companions"])
    output = network(batch)
    terms = p.loss(batch, output)
    close(output.prediction, torch.tensor(r["prediction"]), atol=1e-5)
    close(output.extras["means"], torch.tensor(r["means"]), atol=1e-5)
    for name in ("task", "contrast", "total"):
        close(terms[name], torch.tensor(r[name]), atol=1e-5)
    rates = []
    for _ in range(3):
        rates.append(p.optimisers["main"].param_groups[0]["lr"])
        p.step(batch, "main")
    assert rates == pytest.approx(r["rates"].tolist())
    after = network(batch).prediction
    close(after, torch.tensor(r["after"]), atol=1e-4)
    assert (after - output.prediction).abs().min() > 0.1
    masked, _, _ = prepared("dashfusion", r, {**STORED, "padding": "masked"}, 0.6)
    gap = (masked.eval()(batch).prediction - torch.tensor(r["prediction"])).abs()
    assert gap[0] < 1e-5  # the longest sample of all
    assert gap[1:].min() > 1e-4


@pytest.mark.parametrize("data", ["mosi", "mosei", "sims"])
def test_the_released_code_finds_the_same_ranks(data):
    r = reference("dashfusion")
    search = {k: v for k, v in settings(DashFusion.RECIPES[data]).items() if k.startswith("search")}
    labels = torch.tensor(r["vector_labels"])
    classes = labels if data == "sims" else labels.round()
    found = candidates(torch.tensor(r["vectors"]), classes, DashFusionConfig(companions="ranks", **search))
    assert np.array_equal(found.numpy(), r[f"ranks_{data}"])
