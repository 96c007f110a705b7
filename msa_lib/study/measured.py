"""What the figures are drawn from: small tables, measured on the trained networks of a page.

Each function takes what `shown.shown` returned, with the store that the runs are in, and gives name -> frame. These
tables are what the reference run keeps of a network, which is itself too large to commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from msa_lib import MODALITIES, runs
from msa_lib.models import MODELS
from msa_lib.models.dsrf import FACTORS
from msa_lib.reference import fit_ridge, pooled_features
from msa_lib.study import corruption, probes
from msa_lib.study.shown import Shown
from msa_lib.train import predict

ROUTED = ("full", "literal votes")  # the rows of `figure_routing` that route
EXTRAS = ("couplings", "uncertainty", "factor_weight", "factors", "H")


def contributions(page: Shown) -> dict[str, pd.DataFrame]:
    """samples: seed, sample, contribution of each modality (Eq. 3), dominant (0 to 2, Eq. 4), prediction."""
    parts = []
    for run in page.runs:
        found = runs.predictions(run, page.store)
        frame = pd.DataFrame(found["contribution"], columns=list(MODALITIES)).astype(float)
        frame = frame.assign(dominant=found["dominant"], prediction=found["predictions"].astype(float))
        parts.append(frame.rename_axis("sample").reset_index().assign(seed=run.seed))
    return {"samples": pd.concat(parts, ignore_index=True).round(4)}


def routing(page: Shown, device: str = "cpu") -> dict[str, pd.DataFrame]:
    """What DSRF routes, doubts and separates on the test split.

    couplings  row, seed, iteration, factor, capsule, coupling: mean over samples and modalities
    entropy    row, seed, iteration, factor, entropy (nats): of a factor's coupling over the capsules
    spread     row, seed, factor, deviation of a coupling between samples in the last iteration
    factors    seed, modality, factor, uncertainty, weight: means over samples, row `full`
    probes     seed, modality, vector, target, score, control, skill; only where the truth is planted
    noise      seed, modality, level, factor, weight: of the modality that gets noisy
    doubt      seed, modality, factor, with_error, with_noise: rank correlation of the uncertainty with the size of the
               network's error and with the planted noise level of its modality
    """
    test, here = page.data.to(device).test, [m for m in range(3) if page.data.available[m]]
    names = ("couplings", "entropy", "spread", "factors", "probes", "noise", "doubt")
    found: dict[str, list] = {name: [] for name in names}
    for run in page.runs:
        if run.label not in ROUTED:
            continue
        network = runs.network(run, page.store)
        seen = predict(network, test, 128, EXTRAS)
        for name, lines in _couplings(seen["couplings"][:, :, here]).items():
            found[name].append(lines.assign(row=run.label, seed=run.seed))
        if run.label == "full":
            found["factors"].append(_factors(seen, here).assign(seed=run.seed))
            found["doubt"].append(_doubt(seen, page, here).assign(seed=run.seed))
            found["probes"].append(_probes(seen, page, here).assign(seed=run.seed))
            found["noise"].append(_weights_under_noise(network, page, here, device).assign(seed=run.seed))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def robustness(
    page: Shown, device: str = "cpu", kinds: Sequence[str] = ("noise", "missing"), constant: bool = False
) -> dict[str, pd.DataFrame]:
    """curves: row, seed, kind, modality, level, mae, corr of every network, and of ridge, under corrupted tests.

    With `constant` also of the label mean, which nothing can corrupt.
    """
    ridge, mean = fit_ridge(page.data), float(page.data.train.labels.mean())
    trained = [run for run in page.runs if run.model in MODELS]
    networks = [runs.network(run, page.store) for run in trained]
    predictors = [lambda split, net=net: predict(net, split, 128, ())["predictions"] for net in networks]
    predictors.append(lambda split: ridge.predict(pooled_features(split)))
    predictors += [lambda split: np.full(len(split), mean)] if constant else []
    found = corruption.curves(predictors, page.data.to(device), kinds=kinds)
    names, seeds = [*(run.label for run in trained), "ridge", "label mean"], [*(run.seed for run in trained), 0, 0]
    found["row"], found["seed"] = found["predictor"].map(names.__getitem__), found["predictor"].map(seeds.__getitem__)
    return {"curves": found.drop(columns="predictor")}


def _couplings(c: np.ndarray) -> dict[str, pd.DataFrame]:
    """The tables of c [N,T_r,M,F,K]."""
    entropy = -(c * np.log(c + 1e-12)).sum(-1).mean((0, 2))  # [T_r,F]
    return {
        "couplings": _long(c.mean((0, 2)), "coupling", iteration=None, factor=FACTORS, capsule=None),
        "entropy": _long(entropy, "entropy", iteration=None, factor=FACTORS),
        "spread": _long(c[:, -1].std(0).mean((0, 2)), "deviation", factor=FACTORS),
    }


def _factors(seen: Mapping[str, np.ndarray], here: list[int]) -> pd.DataFrame:
    names = [MODALITIES[m] for m in here]
    table = _long(seen["uncertainty"][:, here].mean(0), "uncertainty", modality=names, factor=FACTORS)
    return table.assign(weight=seen["factor_weight"][:, here].mean(0).ravel().astype(float))


def _doubt(seen: Mapping[str, np.ndarray], page: Shown, here: list[int]) -> pd.DataFrame:
    error, lines = pd.Series(np.abs(seen["predictions"] - seen["labels"])), []
    noise = page.data.test.truth.get("noise")
    for m, f in ((m, f) for m in here for f in range(len(FACTORS))):
        u = pd.Series(seen["uncertainty"][:, m, f])
        line = {"modality": MODALITIES[m], "factor": FACTORS[f], "with_error": u.corr(error, "spearman")}
        level = np.nan if noise is None else u.corr(pd.Series(noise[:, m].numpy()), "spearman")
        lines.append(line | {"with_noise": level})
    return pd.DataFrame(lines)


def _probes(seen: Mapping[str, np.ndarray], page: Shown, here: list[int]) -> pd.DataFrame:
    truth = {name: value.numpy() for name, value in page.data.test.truth.items()}
    parts = [pd.DataFrame(columns=["modality", "vector", "target", "score", "control", "skill"])]
    for m in here if truth else ():
        wanted = probes.planted_targets(truth, seen["labels"], m)
        vectors = {f: seen["factors"][:, m, i] for i, f in enumerate(FACTORS)} | {"H": seen["H"][:, m]}
        for name, x in vectors.items():
            parts.append(probes.probe(x, wanted).assign(vector=name, modality=MODALITIES[m]))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _weights_under_noise(network, page: Shown, here: list[int], device: str) -> pd.DataFrame:
    test, parts = page.data.to(device).test, []
    for m in here:
        scale = corruption.deviation(page.data.train, m).to(device)
        for level in (0.0, *corruption.LEVELS):
            seen = predict(network, corruption.noisy(test, m, level, scale), 128, ("factor_weight",))
            table = _long(seen["factor_weight"][:, m].mean(0), "weight", factor=FACTORS)
            parts.append(table.assign(modality=MODALITIES[m], level=level))
    return pd.concat(parts, ignore_index=True)


def _long(values: np.ndarray, name: str, **axes) -> pd.DataFrame:
    """An array as a long table, a column per axis; an axis without names is counted from 1."""
    names = [range(1, n + 1) if given is None else given for given, n in zip(axes.values(), values.shape, strict=True)]
    index = pd.MultiIndex.from_product(names, names=list(axes))
    return pd.Series(values.ravel().astype(float), index, name=name).reset_index()
