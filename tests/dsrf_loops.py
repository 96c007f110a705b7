"""Eqs. 1-17 of DSRF one sample at a time, in plain loops and double precision: what test_dsrf.py compares with."""

from __future__ import annotations

import math

import numpy as np
import torch
from test_losses import slow_contrast, slow_independence, slow_printed
from toy import Loops

from msa_lib.data import Batch, Dataset
from msa_lib.models.dsrf import AMB, CTX, DSRF, EMO, NOI


def softmax(x) -> np.ndarray:
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return x @ y / math.sqrt((x @ x) * (y @ y))


class Reference(Loops):
    """The paper's equations, sharing nothing with the network but its weights."""

    def __init__(self, network: DSRF, dataset: Dataset) -> None:
        super().__init__(network)
        self.b0 = network.routing.b0.double().numpy() if hasattr(getattr(network, "routing", None), "b0") else None
        self.draws = network.draws.double().numpy() if hasattr(network, "draws") else None
        self.range, self.classes = (3, 7) if dataset.scale == "mosi" else (1, 11)

    def bank(self, name: str, m: int, x: np.ndarray) -> np.ndarray:
        for i in range(3):
            if f"{name}.weight.{i}" not in self.w:
                return x
            x = np.maximum(x, 0) if i else x
            x = x @ self.w[f"{name}.weight.{i}"][m] + self.w[f"{name}.bias.{i}"][m]
        return x

    def p_e(self, m: int, x: np.ndarray) -> np.ndarray:
        return self.linear("P_e", x) if self.c.emo_head == "shared" else self.bank("P_e", m, x)

    # distributions: bins, a normal one, or a number

    def _normal(self, raw: np.ndarray) -> tuple[float, float]:
        return raw[0], math.log1p(math.exp(raw[1])) + 1e-3

    def kl(self, p: np.ndarray, q: np.ndarray) -> float:
        if self.c.head == "point":
            return (p[0] - q[0]) ** 2
        if self.c.head == "gauss":
            (m, v), (n, w) = self._normal(p), self._normal(q)
            return math.log(math.sqrt(w / v)) + (v + (m - n) ** 2) / (2 * w) - 0.5
        return sum(a * math.log(a / b) for a, b in zip(softmax(p), softmax(q), strict=True))

    def entropy(self, raw: np.ndarray) -> float:
        if self.c.head == "point":
            return 0.0
        if self.c.head == "gauss":
            return 0.5 * math.log(2 * math.pi * math.e * self._normal(raw)[1])
        return -sum(p * math.log(p) for p in softmax(raw))

    def vagueness(self, raw: np.ndarray) -> float:
        if self.c.head == "gauss":
            return math.exp(self.entropy(raw)) / (2 * self.range)
        return self.entropy(raw) / math.log(self.classes)

    def cost(self, raw: np.ndarray, y: float) -> float:
        """Task loss of one vector of raw outputs."""
        if self.c.head == "point":
            return abs(raw[0] - y)
        if self.c.head == "gauss":
            mean, variance = self._normal(raw)
            return 0.5 * math.log(2 * math.pi * variance) + (y - mean) ** 2 / (2 * variance)
        place = (min(max(y, -self.range), self.range) + self.range) / (2 * self.range) * (self.classes - 1)
        low = min(int(place), self.classes - 2)
        p = softmax(raw)
        loss = -(1 - place + low) * math.log(p[low]) - (place - low) * math.log(p[low + 1])
        return loss + (abs(self.predict(raw) - y) if self.c.ce_plus_l1 else 0)

    def predict(self, raw: np.ndarray) -> float:
        if self.c.head in ("point", "gauss"):
            return raw[0]
        step = 2 * self.range / (self.classes - 1)
        return sum(p * (k * step - self.range) for k, p in enumerate(softmax(raw)))

    # 3.3 to 3.6

    def sequence(self, batch: Batch, i: int, m: int) -> list[np.ndarray]:
        """C^m: convolution plus positions; no steps where the modality is absent."""
        c, n, out = self.c, int(batch.lengths[i, m]), []
        if "tav"[m] not in c.modalities:
            return [np.zeros(c.d)] * n if c.missing == "zero_fill" else []
        x, W = batch.features[m][i].double().numpy(), self.w[f"features.proj.{m}.weight"]
        W = W[..., None] if W.ndim == 2 else W  # [d,D,kernel]
        for t in range(n):
            v = self.w[f"features.proj.{m}.bias"].copy()
            for k in range(W.shape[2]):
                if 0 <= (source := t + k - W.shape[2] // 2) < n:
                    v += W[:, :, k] @ x[source]
            if c.pos == "sin":
                v += [(math.cos if j % 2 else math.sin)(t / 10000 ** ((j - j % 2) / c.d)) for j in range(c.d)]
            elif c.pos == "learned":
                v += self.w["features.position"][t]
            out.append(v)
        return out

    def block(self, name: str, x: list) -> list:
        x = [
            self.norm(f"{name}.norm1", v + a) for v, a in zip(x, self.attention(f"{name}.attention", x, x), strict=True)
        ]
        return [self.norm(f"{name}.norm2", v + self.ffn(f"{name}.ffn", v)) for v in x]

    def factors(self, m: int, H: np.ndarray) -> list[np.ndarray]:
        if self.c.hsf == "copy":
            return list(self.linear("factors", H).reshape(4, -1))
        if self.c.hsf == "wide":
            return list(self.bank("factors", m, H).reshape(4, -1))
        e = self.mlp("factors.emotion", H)
        seen = np.concatenate([H, e]) if self.c.ctx_input == "h_plus_e" else H
        return [e, *(self.bank(f"factors.{k}", m, x) for k, x in (("context", seen), ("ambiguity", H), ("noise", H)))]

    def route(self, m: int, R: list) -> tuple[list, np.ndarray]:
        """Eqs. 8-10."""
        c, W = self.c, self.w["routing.W"]
        W = W[m] if c.caps_share == "per_modality" else W
        v = [[R[i] @ (W[i, k] if c.votes == "per_capsule" else W[i]) for k in range(c.K)] for i in range(4)]
        b = self.b0.copy()
        for _ in range(c.T_r):
            coupling, u = np.array([softmax(b[i]) for i in range(4)]), []
            for k in range(c.K):
                s = sum(coupling[i, k] * v[i][k] for i in range(4))
                u.append((s @ s) / (1 + s @ s) * s / math.sqrt(s @ s))
            b = b + [[v[i][k] @ u[k] for k in range(c.K)] for i in range(4)]
        return u, coupling

    def uncertainty(self, m: int, R: list) -> np.ndarray:
        e, context, a, n = R
        after = [e]
        if self.c.perturb == "gauss":
            after = [e + a + self.c.sigma * a.std() * draw for draw in self.draws]
        u_e = np.mean([self.kl(self.p_e(m, e + a), self.p_e(m, x)) for x in after])
        u_c = self.kl(self.p_e(m, e), self.p_e(m, e + context))
        if self.c.unc_scale == "literal":
            return np.array([u_e, u_c, self.entropy(self.p_e(m, a)), math.sqrt(n @ n)])
        return np.array([u_e, u_c, self.vagueness(self.p_e(m, a)), math.sqrt(n @ n / self.c.d)])

    def fuse(self, slots: list, there: list[int]) -> np.ndarray:
        """Eq. 16."""
        if self.c.fuse == "concat":
            return self.mlp("fuse.mix", np.concatenate(slots))
        tokens = [self.linear("fuse.mix", slots[m]) for m in there]
        if self.c.fuse == "transformer":
            return np.mean(self.block("fuse.block", tokens), 0)
        weights = softmax([self.linear("fuse.score", np.tanh(t))[0] for t in tokens])
        return sum(w * t for w, t in zip(weights, tokens, strict=True))

    def __call__(self, batch: Batch, i: int) -> dict:
        """Sample i of the batch; absent modalities are zeros."""
        c = self.c
        conv = [self.sequence(batch, i, m) for m in range(3)]
        there, zero = [m for m in range(3) if conv[m]], np.zeros(c.d)
        H, R, hhat, rhat = [zero] * 3, [[zero] * 4] * 3, [zero] * 3, [zero] * 3
        coupling, uncertainty, weight = np.zeros((3, 4, c.K)), np.zeros((3, 4)), np.zeros((3, 4))
        for m in there:
            x = conv[m]
            for layer in range(c.n_layers):
                x = self.block(f"encoders.{'tav'[m]}.{layer}", x)
            H[m] = {"last": x[-1], "first": x[0], "mean": np.mean(x, 0)}[c.readout]
        width = c.d if c.hsf == "bypass" or c.fuse_input != "usf_plus_recon" else 2 * c.d
        if c.hsf != "bypass":
            shares = {m: self.factors(m, H[m]) for m in there}
            for m in there:
                R[m] = shares[m]
                if c.routing == "on":
                    capsules, coupling[m] = self.route(m, R[m])
                else:
                    capsules = [np.mean(R[m], 0)] if c.routing == "mean" else R[m]
                hhat[m] = self.bank("rebuild", m, np.concatenate(capsules))  # Eq. 11
                if c.fuse_input == "recon_factors":
                    shares[m] = capsules
            for m in there:
                S = shares[m]
                if c.usf != "on":
                    weight[m] = 0.25
                    rhat[m] = np.mean(S, 0) if c.usf == "mean" else S[EMO] + 0.5 * (S[CTX] + S[AMB])
                    continue
                raw = self.uncertainty(m, S)
                similar = sum(cosine(S[AMB], shares[n][AMB]) for n in there if n != m)
                added = {"amb_only": [0, 0, 1, 0], "all": [1] * 4, "none": [0] * 4}[c.calib]
                uncertainty[m] = raw + c.lam * similar * np.array(added)  # Eq. 15
                weight[m] = softmax(-(uncertainty[m] if c.att_source == "calibrated" else raw))
                u = uncertainty[m] if c.gate_source == "calibrated" else raw
                g = 1 / (1 + np.exp(-self.linear("gate", u[[CTX, AMB]])))
                r13 = sum(w * r for w, r in zip(weight[m], S, strict=True))  # Eq. 13
                r14 = S[EMO] + g * (S[CTX] + S[AMB])  # Eq. 14
                rhat[m] = {"both": (r13 + r14) / 2, "eq13": r13, "eq14": r14}[c.usf_form]
        slots = []
        for m in range(3):
            slot = H[m] if c.hsf == "bypass" else np.concatenate([rhat[m], hhat[m]])[:width]
            slots.append(self.w["absent"][m] if c.absent == "learned" and m not in there else slot)
        raw = self.linear("P_final", self.fuse(slots, there))
        shown = {"prediction": self.predict(raw), "factors": R, "coupling": coupling, "uncertainty": uncertainty}
        shown |= {"factor_weight": weight, "reconstruction": hhat, "fused_factors": rhat}
        return {"raw": raw, "H": H, "conv": conv, "there": there, "shown": {k: np.array(v) for k, v in shown.items()}}

    # losses

    def context(self, batch: Batch, i: int, m: int, sample: dict) -> np.ndarray:
        steps, raw = sample["conv"][m], batch.features[m][i, : batch.lengths[i, m]].double().numpy()
        wide = np.zeros(max(x.shape[-1] for x in batch.features))
        wide[: raw.shape[1]] = raw.mean(0)
        targets = {"mean_conv": np.mean(steps, 0), "H": sample["H"][m], "window": np.mean(steps[-5:], 0)}
        return (targets | {"raw_mean": wide})[self.c.ctx_target]

    def losses(self, batch: Batch, samples: list[dict]) -> dict[str, float]:
        c, labels = self.c, batch.labels.tolist()
        places = [(i, m) for i, sample in enumerate(samples) for m in sample["there"]]
        R = np.array([sample["shown"]["factors"] for sample in samples])
        terms = {"task": np.mean([self.cost(s["raw"], y) for s, y in zip(samples, labels, strict=True)])}
        whole = terms["task"]
        vectors, here = torch.tensor(R), torch.zeros(len(samples), 3, dtype=torch.bool)
        for place in places:
            here[place] = True

        def squares(gap: np.ndarray) -> float:
            return gap @ gap if c.norm_sum else (gap @ gap) / len(gap)

        if c.hsf == "on":
            if c.emo_agg == "mean_factor":
                middle = [np.mean([R[i, m, EMO] for m in s["there"]], 0) for i, s in enumerate(samples)]
                per_sample = [
                    [self.cost(self.p_e(m, middle[i]), labels[i]) for m in s["there"]] for i, s in enumerate(samples)
                ]
                terms["emo"] = np.mean([np.mean(costs) for costs in per_sample])
            else:
                terms["emo"] = np.mean([self.cost(self.p_e(m, R[i, m, EMO]), labels[i]) for i, m in places])
            if c.mi_label == "supcon":
                group = batch.labels.round()[:, None].expand(-1, 3)
                terms["emo"] += float(slow_contrast(vectors[:, :, EMO], group, here, c.tau, True, "mean"))
            gaps = [
                self.bank("factors.decoder", m, R[i, m, CTX]) - self.context(batch, i, m, samples[i]) for i, m in places
            ]
            terms["ctx"] = np.mean([squares(gap) for gap in gaps])
            if c.indep != "none":
                terms["orth"] = slow_independence(vectors[:, :, [EMO, CTX, AMB, NOI]], here, c.indep)
            amb = []
            for i, m in places:
                e, a = R[i, m, EMO], R[i, m, AMB]
                distance = 1 - cosine(a, e) if c.dist == "cos" else math.sqrt((a - e) @ (a - e))
                p = softmax(a)
                spread = {"feature": -(p @ np.log(p)), "predictive": self.entropy(self.p_e(m, a)), "none": 0}
                amb.append(max(0, c.margin - distance) - c.w_H * spread[c.amb_entropy])
            terms["amb"] = np.mean(amb)
            if c.noise_cl != "none":
                arguments = (here, c.tau, c.mask_self, c.cl_reduction)
                if c.noise_cl == "text":
                    noise = slow_contrast(vectors[:, :, NOI], torch.arange(3).expand(len(R), 3), *arguments)
                else:
                    noise = slow_printed(vectors[:, :, NOI], *arguments)
                terms["noise"] = float(noise)
            weights = {"emo": c.w_emo, "ctx": c.w_ctx, "orth": c.w_orth, "amb": c.w_amb, "noise": c.w_noise}
            whole += sum(weight * terms.get(name, 0) for name, weight in weights.items())
        if c.hsf != "bypass":
            if c.keep_rec:
                gaps = [samples[i]["shown"]["reconstruction"][m] - samples[i]["H"][m] for i, m in places]
                terms["dri"] = np.mean([squares(gap) for gap in gaps])
                whole += c.w_dri * terms["dri"] * (2 if c.sfr_loss == "dri_twice" else 1)
            if c.usf == "on" and c.sfr_loss == "usf":
                fused = [self.p_e(m, samples[i]["shown"]["fused_factors"][m]) for i, m in places]
                emotions = [self.p_e(m, R[i, m, EMO]) for i, m in places]
                doubt = np.mean([self.entropy(p) for p in fused])
                divergence = np.mean([self.kl(p, q) for p, q in zip(fused, emotions, strict=True)])
                terms["usf"] = divergence + c.w_ent * doubt * (1 if c.usf_entropy == "literal" else -1)  # Eq. 17
                whole += c.w_usf * terms["usf"]
        return terms | {"total": whole}
