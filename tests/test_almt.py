"""ALMT: its size, its attention against loops, the rate per epoch, and the released code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay import count, prepared, reference
from toy import Loops, close, dataset

from msa_lib.models import build_model
from msa_lib.models.almt import ALMT
from msa_lib.models.card import settings
from msa_lib.models.parts.rates import RATE
from msa_lib.train import fit

SMALL = {"d": 8, "tokens": 8, "heads": 2, "hidden": 8, "n_layers": 2, "fusion_layers": 2}


@pytest.mark.parametrize(("data", "parameters"), [("mosi", 2_603_649), ("mosei", 3_223_041), ("sims", 3_232_897)])
def test_it_has_as_many_parameters_as_counted(data, parameters):
    assert count("almt", data, fusion_layers=settings(ALMT.RECIPES[data])["fusion_layers"]) == parameters


class Slow(Loops):
    """One sample in double precision."""

    def read(self, query, keys, values, q, k, v, heads):
        """Attention of one query, the maps q, k, v by name."""
        out = []
        for q_h, k_h, v_h in zip(*(np.split(self.w[f"{n}.weight"], heads) for n in (q, k, v)), strict=True):
            scores = np.array([(q_h @ query) @ (k_h @ key) for key in keys]) / len(q_h) ** 0.5
            weights = np.exp(scores) / np.exp(scores).sum()
            out.append(sum(w * (v_h @ value) for w, value in zip(weights, values, strict=True)))
        return np.concatenate(out)

    def norms(self, name, xs):
        return [self.norm(name, x) for x in xs]

    def block(self, name, xs, source):
        queries, keys, values = (
            self.norms(f"{name}.norm_{n}", s) for n, s in zip("qkv", (xs, source, source), strict=True)
        )
        maps = [f"{name}.attention.{n}" for n in "qkv"]
        reads = [self.read(q, keys, values, *maps, self.c.heads) for q in queries]
        xs = [x + self.linear(f"{name}.attention.out", r) for x, r in zip(xs, reads, strict=True)]
        return [x + self.ffn(f"{name}.ffn", self.norm(f"{name}.norm", x)) for x in xs]

    def ahl(self, i, t, a, v, H):
        name, heads = f"ahl.{i}", self.c.heads
        t, a, v, H = (self.norms(f"{name}.norm_{n}", x) for n, x in zip("tavh", (t, a, v, H), strict=True))
        found = [
            self.read(q, a, a, f"{name}.q", f"{name}.k_a", f"{name}.v_a", heads)
            + self.read(q, v, v, f"{name}.q", f"{name}.k_v", f"{name}.v_v", heads)
            for q in t
        ]
        return [u + self.linear(f"{name}.out", f) for u, f in zip(H, found, strict=True)]

    def predict(self, sample):
        h = []
        for m, x in enumerate(sample):
            steps = [self.linear(f"embeddings.{m}.proj", row) for row in x]
            xs = [*self.w[f"embeddings.{m}.tokens"], *steps]
            xs = [row + p for row, p in zip(xs, self.w[f"embeddings.{m}.position"])]  # noqa: B905
            for k in range(self.c.n_layers):
                xs = self.block(f"embeddings.{m}.blocks.{k}", xs, xs)
            h.append(xs[: self.c.tokens])
        t, a, v = h
        t, H = [row + p for row, p in zip(t, self.w["position_t"], strict=True)], self.w["hyper"]
        for i in range(self.c.scales):
            t = self.block(f"language.{i - 1}", t, t) if i else t
            H = self.ahl(i, t, a, v, H)
        source = [x + p for x, p in zip([self.w["fusion.token"][0], *H], self.w["fusion.position_h"], strict=True)]
        target = [x + p for x, p in zip([self.w["fusion.token"][0], *t], self.w["fusion.position_t"], strict=True)]
        for k in range(self.c.fusion_layers):
            target = self.block(f"fusion.blocks.{k}", target, source)
        return self.linear("out", target[0])[0]


def test_it_equals_loops_over_the_valid_steps():
    torch.manual_seed(0)
    data = dataset()
    network = build_model("almt", data, **SMALL).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    batch = data.train.batch(range(3))
    slow = Slow(network)
    for i in range(3):
        sample = [x[i, :n].double().numpy() for x, n in zip(batch.features, batch.lengths[i], strict=True)]
        close(network(batch).prediction[i].double(), torch.tensor(slow.predict(sample)), atol=1e-5)


def test_rates_by_hand():
    """20 epochs, two of them rising."""
    described, released = RATE["trained"], RATE["idle"]
    assert [described(e, 2, 20) for e in (1, 2)] == [0.5, 1.0]
    assert described(20, 2, 20) == pytest.approx((1 + np.cos(np.pi * 18 / 19)) / 2)
    assert [released(e, 2, 20) for e in (1, 2, 3, 4)] == [0.0, 0.5, 1.0, 1.0]
    assert released(13, 2, 20) == pytest.approx(0.5)  # half of 18 epochs after the fourth


def test_the_first_epoch_as_released_changes_nothing():
    config = {"epochs": 1, "batch_size": 8, "selection": "last"}
    predictions = {}
    for first in ("idle", "trained"):
        torch.manual_seed(1)
        before = build_model("almt", dataset(), **SMALL)
        run = fit("almt", dataset(), {**config, "switches": {**SMALL, "first_epoch": first}}, seeds=(1,))[0]
        predictions[first] = all(
            torch.equal(a, b) for a, b in zip(before.parameters(), run.network.parameters(), strict=True)
        )
    assert predictions == {"idle": True, "trained": False}


def test_padding_is_read_as_released_only():
    data, given = dataset(), {}
    for padding in ("masked", "read"):
        torch.manual_seed(0)
        network = build_model("almt", data, **SMALL, padding=padding).eval()
        network.embeddings[1].steps += 3  # of audio, were the longest sample of the data longer
        network.embeddings[1].position.data = torch.cat([network.embeddings[1].position, torch.randn(3, 8)])
        longer = network(data.train.batch(range(4))).prediction
        network.embeddings[1].steps -= 3
        given[padding] = (longer - network(data.train.batch(range(4))).prediction).abs().max().item()
    assert given["masked"] == 0
    assert given["read"] > 1e-6


def test_the_released_code_gives_the_same():
    """Predictions, loss, rates and what four steps (the first at rate 0) make of them."""
    r = reference("almt")
    switches = {**SMALL, "padding": "read", "first_epoch": "idle"}
    network, procedure, batch = prepared("almt", r, switches, 0.6, lr=1e-3, weight_decay=1e-2, epochs=20)
    network.eval()
    with torch.no_grad():
        close(network(batch).prediction, torch.tensor(r["prediction"]), atol=1e-5)
        close(network.loss(batch, network(batch))["total"], torch.tensor(r["loss"]), atol=1e-5)
    network.train()
    rates = []
    for _ in range(20):
        rates.append(procedure.optimisers["main"].param_groups[0]["lr"])
        if len(rates) <= 4:
            procedure.step(batch, "main")
            after = network(batch).prediction
        procedure.end_epoch({}, 0.0)
    np.testing.assert_allclose(rates, r["rates"], atol=1e-12)
    close(after, torch.tensor(r["after"]), atol=1e-4)
    assert (after - torch.tensor(r["prediction"])).abs().max() > 0.01


def test_without_padding_masks_make_no_difference_to_the_released_code():
    r = reference("almt")
    r["lengths"] = np.tile([x.shape[1] for x in (r["text"], r["audio"], r["vision"])], (len(r["labels"]), 1))
    network, _, batch = prepared("almt", r, SMALL, 0.6)
    close(network.eval()(batch).prediction, torch.tensor(r["prediction"]), atol=1e-5)
