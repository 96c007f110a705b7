"""A toy per kind of public recipe, each beside its arithmetic in numpy (`HANDS`); see test_procedure.py.

Every toy learns a line on the mean of text, by gradient steps that can be written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from msa_lib.models.parts.layers import Output, masked_mean
from msa_lib.train.procedure import Procedure

LR, SEED = 0.1, 5
SETTINGS = {"lr": LR, "weight_decay": 0.0, "clip": 0.0, "batch_size": 6, "epochs": 4, "selection": "last"}


@dataclass(frozen=True)
class NoSwitches:
    pass


class Line(nn.Module):
    """y = w x + b, all zero at first."""

    Config, VARIANTS, RECORD = NoSwitches, {"full": {}}, ()

    def __init__(self, dataset, c) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.zeros(1, 3)), nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        x = masked_mean(batch.text, batch.masks[0])
        return Output(x @ self.w[0] + self.b, {"x": x})

    def loss(self, batch, output):
        task = (output.prediction - batch.labels).square().mean()
        return {"task": task, "total": task + 0.0 * self.w.sum()}


class Hand:
    """The same in numpy: pooled features [N,3], labels [N], the batches of each epoch, the parameters p = (w, b)."""

    def __init__(self, data) -> None:
        self.data, self.shuffle = data, torch.Generator().manual_seed(SEED)
        self.x, self.y = self.arrays(data.train)
        self.p, self.memory = np.zeros(4), {}

    @staticmethod
    def arrays(split):
        text, n = split.text.double().numpy(), split.lengths[:, 0].numpy()
        return np.stack([row[:k].mean(0) for row, k in zip(text, n, strict=True)]), split.labels.double().numpy()

    def epoch(self):
        return [b.index.numpy() for b in self.data.train.batches(6, self.shuffle, drop_last=True)]

    def epochs(self):
        return [self.epoch() for _ in range(SETTINGS["epochs"])]

    def steps(self):
        return [i for epoch in self.epochs() for i in epoch]

    def predict(self, x):
        return x @ self.p[:3] + self.p[3]

    def gradient(self, i, y=None) -> np.ndarray:
        """Of the mean squared error on the samples i."""
        error = self.predict(self.x[i]) - (self.y if y is None else y)[i]
        return 2 * np.append(error @ self.x[i], error.sum()) / len(i)


class SGD(Procedure):
    def optimiser(self, groups):
        return torch.optim.SGD(groups)


# Optimisers, accumulation, clipping, schedules, groups


class Adam(Procedure):
    """With L2 in the gradient, as torch's Adam has it, on the weights and not on the bias."""

    def groups(self):
        return [group | {"weight_decay": 0.5 * bool(group["params"][0].ndim > 1)} for group in super().groups()]

    def optimiser(self, groups):
        return torch.optim.Adam(groups, fused=True)


def adam(hand: Hand) -> None:
    m = v = np.zeros(4)
    for t, i in enumerate(hand.steps(), 1):
        g = hand.gradient(i) + np.array([0.5, 0.5, 0.5, 0]) * hand.p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        hand.p = hand.p - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


class RMSprop(Procedure):
    def optimiser(self, groups):
        return torch.optim.RMSprop(groups)


def rmsprop(hand: Hand) -> None:
    v = np.zeros(4)
    for i in hand.steps():
        g = hand.gradient(i)
        v = 0.99 * v + 0.01 * g * g
        hand.p = hand.p - LR * g / (np.sqrt(v) + 1e-8)


class Accumulation(SGD):
    every = 2


def accumulation(hand: Hand) -> None:
    """Three batches per epoch: one step down the sum of two gradients, the third is dropped."""
    for a, b, _ in hand.epochs():
        hand.p = hand.p - LR * (hand.gradient(a) + hand.gradient(b))


class ClipByValue(SGD):
    every = 2

    def clip(self, optimiser):
        nn.utils.clip_grad_value_(self.network.parameters(), 0.3)


def clip_by_value(hand: Hand) -> None:
    """After every backward: what was summed is clipped again."""
    for a, b, _ in hand.epochs():
        hand.p = hand.p - LR * (hand.gradient(a).clip(-0.3, 0.3) + hand.gradient(b)).clip(-0.3, 0.3)


class Plateau(SGD):
    def __init__(self, *args):
        super().__init__(*args)
        self.optimisers["main"].param_groups[0]["lr"] = 1.5  # too high, so that it has something to do
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
        self.schedules["main"] = plateau(self.optimisers["main"], factor=0.1, patience=0, threshold=0)

    def groups(self):
        return [{"params": list(self.network.parameters()), "lr": LR}]

    def end_epoch(self, record, score):
        self.schedules["main"].step(record["valid"]["mae"])


def plateau(hand: Hand) -> None:
    x, y = hand.arrays(hand.data.valid)
    rates, best = [1.5], np.inf
    for epoch in hand.epochs():
        for i in epoch:
            hand.p = hand.p - rates[-1] * hand.gradient(i)
        mae = np.abs(hand.predict(x) - y).mean()
        rates.append(rates[-1] * (1 if mae < best else 0.1))
        best = min(best, mae)
    assert len(set(rates)) > 1


class WarmUp(SGD):
    """Per step: linear over one epoch from 0, then a cosine to 0 at the end."""

    def __init__(self, *args):
        super().__init__(*args)
        total = self.steps * self.config.epochs
        self.schedules["main"] = get_cosine_schedule_with_warmup(self.optimisers["main"], self.steps, total)

    def after_step(self, batch, output):
        self.schedules["main"].step()


def warm_up(hand: Hand) -> None:
    for t, i in enumerate(hand.steps()):
        rate = t / 3 if t < 3 else (1 + np.cos(np.pi * (t - 3) / 9)) / 2
        hand.p = hand.p - LR * rate * hand.gradient(i)


class Groups(SGD):
    """Own rates and decays, as a recipe names them."""

    def groups(self):
        net = self.network
        return [{"params": [net.w], "lr": 0.05, "weight_decay": 0.3}, {"params": [net.b], "lr": 0.2}]


def groups(hand: Hand) -> None:
    for i in hand.steps():
        hand.p = hand.p - np.array([0.05, 0.05, 0.05, 0.2]) * (hand.gradient(i) + np.append(0.3 * hand.p[:3], 0))


# Passes, memory, stages, several networks


class TwoPasses(SGD):
    """MMIM's shape: a pass of one batch that trains a bound alone, then one that adds a term with the batch before."""

    def __init__(self, network, *args):
        super().__init__(network, *args)
        self.optimisers["bound"] = torch.optim.SGD([network.b], lr=0.3)

    def groups(self):
        return [{"params": [self.network.w], "lr": LR}]

    def begin_epoch(self, epoch):
        self.memory["last"] = torch.zeros(())

    def passes(self, epoch, shuffle):
        for _, batches in super().passes(epoch, shuffle):
            yield "bound", islice(batches, 1)
        yield from super().passes(epoch, shuffle)

    def step(self, batch, name):
        if name == "main":
            return super().step(batch, name)
        gap = self.network(batch).prediction.mean() - 1.0
        self.descend(gap.square(), "bound")
        return {"gap": gap}

    def loss(self, batch, output):
        change = (output.prediction.mean() - self.memory["last"]).square()
        terms = super().loss(batch, output)
        return {**terms, "change": change, "total": terms["total"] + change}

    def after_step(self, batch, output):
        self.memory["last"] = output.prediction.mean()


def two_passes(hand: Hand) -> None:
    for _ in range(SETTINGS["epochs"]):
        first = hand.epoch()[0]
        hand.p[3] -= 0.3 * 2 * (hand.predict(hand.x[first]).mean() - 1)
        last = 0.0
        for i in hand.epoch():
            mean = hand.predict(hand.x[i]).mean()
            g = hand.gradient(i)[:3] + 2 * (mean - last) * hand.x[i].mean(0)
            hand.p, last = hand.p - LR * np.append(g, 0), mean
    hand.memory["last"] = np.float64(last)


class LabelMemory(SGD):
    """Self-MM's shape: a label per training sample moves to a mean over all samples, from the second epoch on."""

    def __init__(self, *args):
        super().__init__(*args)
        labels = self.dataset.train.labels
        self.memory |= {"label": labels.clone(), "seen": torch.zeros_like(labels)}

    def begin_epoch(self, epoch):
        self.epoch = epoch

    def loss(self, batch, output):
        return {"total": (output.prediction - self.memory["label"][batch.index]).square().mean()}

    def after_step(self, batch, output):
        label, seen, n = self.memory["label"], self.memory["seen"], self.epoch
        if n > 1:
            high = label > 0
            centre = torch.where(high, seen, 0).sum() / high.sum()  # of the batches before
            new = (batch.labels + output.prediction - centre) / 2
            label[batch.index] = (n - 1) / (n + 1) * label[batch.index] + 2 / (n + 1) * new
        seen[batch.index] = output.prediction


def label_memory(hand: Hand) -> None:
    label, seen = hand.y.copy(), 0 * hand.y
    for n, epoch in enumerate(hand.epochs(), 1):
        for i in epoch:
            guess = hand.predict(hand.x[i])
            hand.p = hand.p - LR * hand.gradient(i, label)
            if n > 1:
                new = (hand.y[i] + guess - seen[label > 0].mean()) / 2
                label[i] = (n - 1) / (n + 1) * label[i] + 2 / (n + 1) * new
            seen[i] = guess
    hand.memory |= {"label": label, "seen": seen}


class Stages(SGD):
    """KuDA's and ICCN's shape: two epochs train the weights by a loss of their own, then they are frozen."""

    first_epoch = 3

    def __init__(self, network, *args):
        super().__init__(network, *args)
        self.optimisers["first"] = torch.optim.SGD([network.w], lr=0.2, momentum=0.9)

    def begin_epoch(self, epoch):
        if epoch == self.first_epoch:
            self.network.w.requires_grad_(False)

    def passes(self, epoch, shuffle):
        for name, batches in super().passes(epoch, shuffle):
            yield name if epoch >= self.first_epoch else "first", batches

    def step(self, batch, name):
        if name == "main":
            return super().step(batch, name)
        gap = (self.network(batch).extras["x"] @ self.network.w[0] - 2 * batch.labels).square().mean()
        self.descend(gap, "first")
        return {"gap": gap}


def stages(hand: Hand) -> None:
    velocity = np.zeros(3)
    for n, epoch in enumerate(hand.epochs(), 1):
        for i in epoch:
            if n < 3:
                error = hand.x[i] @ hand.p[:3] - 2 * hand.y[i]
                velocity = 0.9 * velocity + 2 * error @ hand.x[i] / len(i)
                hand.p[:3] -= 0.2 * velocity
            else:
                hand.p[3] -= LR * hand.gradient(i)[3]


class Adversary(SGD):
    """Two optimisers in one step: a companion learns to tell the label from w x, the network to hide it."""

    def __init__(self, network, *args):
        super().__init__(network, *args)
        self.companions["judge"] = judge = nn.Linear(1, 1, bias=False).to(network.w.device)
        nn.init.constant_(judge.weight, 0.5)
        self.optimisers["judge"] = torch.optim.SGD(judge.parameters(), lr=0.05)

    def judged(self, batch, feature):
        return (self.companions["judge"](feature[:, None])[:, 0] - batch.labels).square().mean()

    def step(self, batch, name):
        output = self.network(batch)
        feature = output.extras["x"] @ self.network.w[0]
        judge = self.judged(batch, feature.detach())
        self.descend(judge, "judge")
        terms = self.loss(batch, output)
        total = terms["total"] - 0.2 * self.judged(batch, feature)  # by the judge after its step
        self.descend(total)
        return {"task": terms["task"], "judge": judge, "total": total}


def adversary(hand: Hand) -> None:
    c = 0.5
    for i in hand.steps():
        x, y, feature = hand.x[i], hand.y[i], hand.x[i] @ hand.p[:3]
        c -= 0.05 * 2 * ((c * feature - y) * feature).mean()
        hide = 2 * c * ((c * feature - y) @ x) / len(i)
        hand.p = hand.p - LR * (hand.gradient(i) - 0.2 * np.append(hide, 0))
    hand.memory["judge"] = c


class CompanionSamples(SGD):
    """DashFusion's shape: every odd epoch each training sample gets another one, which a term of the loss refers to."""

    def begin_epoch(self, epoch):
        if epoch % 2:
            batches = self.dataset.train.batches(self.config.batch_size)
            x = torch.cat([self.network(batch).extras["x"] for batch in batches])
            self.memory["other"] = (x @ x.T * (2 - epoch)).argmax(1)

    def loss(self, batch, output):
        other = self.dataset.train.batch(self.memory["other"][batch.index], trim=False)
        apart = (output.prediction - self.network(other).prediction).square().mean()
        return {"apart": apart, "total": super().loss(batch, output)["total"] + apart}


def companion_samples(hand: Hand) -> None:
    for n, epoch in enumerate(hand.epochs(), 1):
        other = (hand.x @ hand.x.T * (1 if n < 3 else -1)).argmax(1)
        for i in epoch:
            gap = hand.x[i] - hand.x[other[i]]
            hand.p = hand.p - LR * (hand.gradient(i) + np.append(2 * (gap @ hand.p[:3]) @ gap / len(i), 0))
    hand.memory["other"] = other


HANDS = {
    Adam: adam, RMSprop: rmsprop, Accumulation: accumulation, ClipByValue: clip_by_value, Plateau: plateau,
    WarmUp: warm_up, Groups: groups, TwoPasses: two_passes, LabelMemory: label_memory, Stages: stages,
    Adversary: adversary, CompanionSamples: companion_samples,
}  # fmt: skip
TOYS = {kind.__name__: type(kind.__name__, (Line,), {"Procedure": kind}) for kind in HANDS}
