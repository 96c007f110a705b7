"""Planted data: synthetic samples whose dominant modality, noise levels, conflicts and contexts are known.

A recipe (`Planted`) becomes a `Dataset` (`generate`). Everything below is per sample, m runs over text, audio, vision:

    s             ~ N(0,1), the sentiment as a normal score; the label is the same quantile of the real set's labels
    p             the dominant modality, drawn from `shares`
    nu_m          noise level: U(clear) for p, U(noisy) for the others; with probability 2 `conflict` one of the others
                  is the rival, U(rival): nearly as clear as p
    sign_m        1; -1 for half of the rivals. These contradict p: the conflict flag
    z_m           = (sign_m s + nu_m eps_m) / sqrt(1 + nu_m^2), the evidence of m, exactly N(0,1) whatever nu and sign
    X_m[t]        = d^1/2 (0.6 gain_t z_m u_m + 0.45 c_m[context] + 0.4 q_m w_m) + 0.5 frame noise of variance 1

u_m, w_m and the axes of c_m are orthonormal, drawn once per modality; q_m in [-1,1] is the quality cue, a linear
function of -log nu_m, and 0 when the cue is hidden. Gains are positive on a random half of the valid steps and average
1 over the valid steps, so the masked mean of X_m gives z_m, context and cue linearly. Padding is exactly zero.

Why so: each z_m alone is N(0,1), so nothing in one modality (sign, size, energy, higher moments) tells its noise
level, dominance or conflict; only the cue does, and the agreement between modalities. Rivals agree as often as they
contradict, so a low noise level does not give a conflict away either. Lengths, contexts, gains, ids and order are drawn
apart from all that.

Expected MAE of the default recipe (MOSI labels): the constant 1.37; the best use of audio alone 1.07, of text alone
0.67, of the mean of the three z 0.74 (without noise levels, text alone is better), of all three z without the cue 0.57;
of all three with the cue, not knowing who contradicts, 0.24; knowing the whole truth 0.23 (`oracle.oracle_prediction`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr, ndtri

from msa_lib import MODALITIES
from msa_lib.data.dataset import SPLITS, Dataset, Split

SCALES = {"mosi": "mosi", "mosei": "mosi", "sims": "sims", "simsv2": "sims"}  # label set -> label scale
CLIPS_PER_VIDEO = 10
EVIDENCE, CONTEXT, CUE, FRAME = 0.6, 0.45, 0.4, 0.5  # standard deviation of each part of X, per entry
DIRECTIONS, ORACLE = 0, 4  # random streams; 1, 2, 3 are train, valid, test
DESIGN_NAMES = ("selection", "fusion", "gate", "alignment", "factors", "ambiguity", "uncertainty", "hops")


@dataclass(frozen=True)
class Planted:
    """A recipe for planted data. Raises ValueError, one sentence, for values that make no sense."""

    seed: int = 0
    train: int = 600  # samples
    valid: int = 200
    test: int = 400
    labels: str = "mosi"  # whose label distribution: mosi, mosei, sims, simsv2
    dims: tuple[int, int, int] = (32, 12, 16)  # feature size of text, audio, vision
    steps: tuple[int, int, int] = (24, 24, 24)  # padded length of text, audio, vision
    aligned: bool = True  # one length for all three; else audio and vision are proportional to text, within 20 %
    fill: float = 0.31  # average share of the steps that is valid: 15.4 of 50, as in MOSI's transcripts
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2)  # how often text, audio, vision is dominant
    clear: tuple[float, float] = (0.1, 0.3)  # range of the noise level of the dominant modality
    rival: tuple[float, float] = (0.4, 0.8)  # of a rival
    noisy: tuple[float, float] = (1.0, 3.0)  # of all others
    conflict: float = 0.2  # share of samples in which a rival contradicts; as many have a rival that agrees
    contexts: int = 6
    cue: str = "visible"  # whether the features show the noise level: visible, hidden; of design=selection
    design: str = "selection"  # the mechanism that has a job: selection, or one of `designs.DESIGNS`
    control: str = "positive"  # positive, or negative: the same design with nothing in it that the mechanism can use

    def __post_init__(self) -> None:
        need, hold = 2 + (self.contexts + 1) // 2, f"to hold evidence, cue and {self.contexts} contexts"
        checks = (
            (self.seed >= 0, "seed", "a whole number >= 0"),
            *((getattr(self, split) >= 1, split, "at least 1 sample") for split in SPLITS),
            (self.labels in SCALES, "labels", f"one of {', '.join(SCALES)}"),
            (self.contexts >= 1, "contexts", "at least 1"),
            (len(self.dims) == 3 and min(self.dims) >= need, "dims", f"three sizes of at least {need} ({hold})"),
            (len(self.steps) == 3 and min(self.steps) >= 1, "steps", "three lengths of at least 1"),
            (not self.aligned or len(set(self.steps)) == 1, "steps", "equal for aligned data (or aligned=no)"),
            (0 < self.fill <= 1, "fill", "in (0, 1]"),
            (
                len(self.shares) == 3 and min(self.shares) >= 0 and abs(sum(self.shares) - 1) < 1e-6,
                "shares",
                "three shares that sum to 1",
            ),
            *((0 < r[0] <= r[1] < np.inf, k, "low,high with 0 < low <= high") for k, r in self._ranges.items()),
            (0 <= self.conflict <= 0.5, "conflict", "in [0, 0.5]"),
            (self.cue in ("visible", "hidden"), "cue", "visible or hidden"),
            (self.design in DESIGN_NAMES, "design", f"one of {', '.join(DESIGN_NAMES)}"),
            (self.control in ("positive", "negative"), "control", "positive or negative"),
        )
        for good, name, expected in checks:
            if not good:
                raise ValueError(f"The planted recipe has {name}={getattr(self, name)!r}; expected {expected}.")
        if unused := self._unused():
            raise ValueError(
                f"The planted recipe has {unused}={getattr(self, unused)!r}, of no use to design={self.design}; "
                f"expected it to be left out."
            )

    def _unused(self) -> str:
        """An option that this design has no use for and that was set nevertheless."""
        usual = {f.name: f.default for f in fields(self)}
        own = () if self.design == "selection" else ("shares", "clear", "rival", "noisy", "conflict", "contexts", "cue")
        return next((name for name in own if getattr(self, name) != usual[name]), "")

    @property
    def _ranges(self) -> dict[str, tuple[float, float]]:
        return {"clear": self.clear, "rival": self.rival, "noisy": self.noisy}


PRESETS = {
    "planted": Planted(),
    "planted-mosi": Planted(labels="mosi", dims=(768, 5, 20), steps=(50, 50, 50)),
    "planted-mosei": Planted(labels="mosei", dims=(768, 74, 35), steps=(50, 50, 50)),
    "planted-sims": Planted(labels="sims", dims=(768, 33, 709), steps=(39, 400, 55), aligned=False),
    "planted-simsv2": Planted(labels="simsv2", dims=(768, 25, 177), steps=(50, 925, 232), aligned=False),
}


def recipe_of(name: str, options: Mapping[str, str] | None = None) -> Planted:
    """The recipe behind a name such as "planted-mosi?cue=hidden&shares=0.4,0.3,0.3"; `options` override the name's.

    Options are the fields of `Planted` as text: lists with commas, yes or no. Raises ValueError for any other.
    """
    from msa_lib.data import split_options

    base, own = split_options(name)
    if base not in PRESETS:
        raise ValueError(f"No planted data {base!r}: expected one of {', '.join(PRESETS)}.")
    texts = {**own, **(options or {})}
    defaults = asdict(PRESETS[base])
    for key in texts:
        if key not in defaults:
            raise ValueError(f"{base} has no option {key!r}: expected one of {', '.join(defaults)}.")
    return replace(PRESETS[base], **{key: _parse(key, text, defaults[key]) for key, text in texts.items()})


def drawn_by(name: str, seed: int) -> str:
    """The data of a run of this seed: "planted?seed=run" means that each run draws its own, by its own seed, and so
    does "PATH?planted_av=0.3&av_seed=run" (semi.py). Any other name stays as it is.
    """
    from msa_lib.data import split_options

    base, options = split_options(name)
    draws = ("seed",) * (base in PRESETS) + ("av_seed",) * ("planted_av" in options)
    if not any(options.get(key) == "run" for key in draws):
        return name
    told = {key: str(seed) if key in draws and text == "run" else text for key, text in options.items()}
    return f"{base}?" + "&".join(f"{key}={text}" for key, text in told.items())


def _parse(key: str, text: str, default):
    """Text to a value of the default's type."""
    if (key, text) == ("seed", "run"):
        raise ValueError("Option seed='run' stands for the seed of each run, and here is no run: expected a number.")
    try:
        if isinstance(default, bool):
            return {"yes": True, "no": False}[text]
        if isinstance(default, tuple):
            return tuple(type(old)(part) for old, part in zip(default, text.split(","), strict=True))
        return type(default)(text)
    except (ValueError, KeyError):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        expected = "yes or no" if isinstance(default, bool) else f"something like {key}={shown}"
        raise ValueError(f"Option {key}={text!r} is not understood: expected {expected}.") from None


def load(name: str, options: Mapping[str, str] | None = None) -> Dataset:
    """The planted data set of a preset, with options (see `recipe_of`), which become part of its name."""
    options = options or {}
    full = name + ("?" if options else "") + "&".join(f"{key}={text}" for key, text in options.items())
    return generate(recipe_of(name, options), full)


def generate(recipe: Planted, name: str = "planted") -> Dataset:
    """The data set of a recipe. Equal recipes give equal bits.

    Splits share their directions and nothing else; a smaller split is the beginning of a larger one; a hidden cue
    changes only the features.
    """
    changed = {f.name: getattr(recipe, f.name) for f in fields(recipe) if getattr(recipe, f.name) != f.default}
    note = "Synthetic (planted) data: no number on them may be compared with a printed one."
    how = f"Recipe: {', '.join(f'{key}={value}' for key, value in changed.items()) or 'the default'}."
    return Dataset(
        name,
        *(_split(recipe, split) for split in SPLITS),
        scale=SCALES[recipe.labels],
        synthetic=True,
        notes=(note, how),
    )


def facts(recipe: Planted, split: str) -> dict[str, np.ndarray]:
    """All that is decided of a split's N samples before any feature: what `Split.truth` holds, labels and lengths.

    signal [N] s; labels [N]; dominant [N] p; noise [N,M] nu; rival [N], -1 none; conflict [N] bool;
    conflict_modality [N], -1 none; evidence [N,M] z; quality [N,M] q; context [N]; lengths [N,M];
    unimodal_labels [N,M], the quantile of z_m in the label distribution.
    """
    return draw(recipe, 1 + SPLITS.index(split), getattr(recipe, split))


def draw(recipe: Planted, stream: int, n: int) -> dict[str, np.ndarray]:
    """The facts of `n` samples from one of the random streams."""
    if recipe.design != "selection":
        return designs.draw(recipe, stream, n)
    # One row of uniform numbers per sample: so the first samples do not depend on how many follow.
    uniform = np.maximum(rng_of(recipe, stream, 0).random((n, 15)), 2.0**-54)
    (u_signal, u_dominant, u_rival, u_which, u_sign, u_context, u_length) = uniform[:, :7].T
    u_noise, u_eps, u_jitter = uniform[:, 7:10], uniform[:, 10:13], uniform[:, 13:15]

    signal = ndtri(u_signal)
    dominant = _pick(u_dominant, recipe.shares)
    other = (dominant + 1 + (u_which >= 0.5)) % 3
    rival = np.where(u_rival < 2 * recipe.conflict, other, -1)
    conflict = (rival >= 0) & (u_sign < 0.5)
    conflict_modality = np.where(conflict, rival, -1)

    role = 2 - 2 * (np.arange(3) == dominant[:, None]) - (np.arange(3) == rival[:, None])  # 0 clear, 1 rival, 2 noisy
    low, high = np.array(list(recipe._ranges.values()))[role].transpose(2, 0, 1)
    noise = low + (high - low) * u_noise
    sign = np.where(np.arange(3) == conflict_modality[:, None], -1.0, 1.0)
    evidence = (sign * signal[:, None] + noise * ndtri(u_eps)) / np.sqrt(1 + noise**2)

    return {
        "signal": signal,
        "labels": labels_of(recipe.labels, u_signal),
        "dominant": dominant,
        "noise": noise,
        "rival": rival,
        "conflict": conflict,
        "conflict_modality": conflict_modality,
        "evidence": evidence,
        "quality": _quality(recipe, noise),
        "context": np.minimum((u_context * recipe.contexts).astype(np.int64), recipe.contexts - 1),
        "lengths": lengths_of(recipe, u_length, u_jitter),
        "unimodal_labels": labels_of(recipe.labels, ndtr(evidence)),
    }


def rng_of(recipe: Planted, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(recipe.seed, spawn_key=key)))


def _pick(uniform: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Uniform numbers -> index, drawn from the shares; an index of share 0 never comes up."""
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, side="right")


def _quality(recipe: Planted, noise: np.ndarray) -> np.ndarray:
    """-log nu, scaled to [-1,1] over the recipe's ranges; 1 is clearest. Zeros when the cue is hidden."""
    if recipe.cue == "hidden" or recipe.control == "negative":
        return np.zeros_like(noise)
    bounds = np.log([bound for limits in recipe._ranges.values() for bound in limits])
    middle, half = (bounds.max() + bounds.min()) / 2, (bounds.max() - bounds.min()) / 2
    return (middle - np.log(noise)) / (half or 1.0)


def lengths_of(recipe: Planted, u_length: np.ndarray, u_jitter: np.ndarray) -> np.ndarray:
    """[N,M] valid steps. Log-normal like MOSI's transcripts (mean 15.4, 95 % at most 32 tokens), cut at the padding."""
    spread = 0.53
    share = recipe.fill * np.exp(spread * ndtri(u_length) - spread**2 / 2)
    text = np.clip(np.rint(share * recipe.steps[0]), min(3, recipe.steps[0]), recipe.steps[0])
    if recipe.aligned:
        return np.repeat(text.astype(np.int64)[:, None], 3, axis=1)
    others = text[:, None] * np.array(recipe.steps[1:]) / recipe.steps[0] * (0.8 + 0.4 * u_jitter)
    return np.column_stack([text, np.clip(np.rint(others), 1, recipe.steps[1:])]).astype(np.int64)


@cache
def label_counts(labels: str) -> tuple[np.ndarray, np.ndarray]:
    """The label values of a real set, ascending, and how many clips carry each; all splits together."""
    with (Path(__file__).parent / "label_counts.csv").open(newline="") as file:
        rows = [(float(row["value"]), int(row["count"])) for row in csv.DictReader(file) if row["labels"] == labels]
    values, counts = zip(*rows, strict=True)
    return np.array(values), np.array(counts)


def labels_of(labels: str, quantile: np.ndarray) -> np.ndarray:
    """Quantiles in (0,1) -> labels of the real distribution."""
    values, counts = label_counts(labels)
    return values[np.searchsorted(np.cumsum(counts)[:-1] / counts.sum(), quantile, side="right")]


def _directions(recipe: Planted, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of modality m, float32: evidence [D], cue [D], one per context [contexts,D].

    Contexts 2i and 2i+1 are the two ends of axis i: six fit in three dimensions, each linearly separable from the rest.
    """
    axes = (recipe.contexts + 1) // 2
    q = axes_of(recipe, m, 2 + axes)
    ends = np.stack([q[2:], -q[2:]], axis=1).reshape(2 * axes, -1)
    return q[0], q[1], ends[: recipe.contexts]


def axes_of(recipe: Planted, m: int, k: int) -> np.ndarray:
    """[k,D] float32, orthonormal: what modality m can say."""
    q, r = np.linalg.qr(rng_of(recipe, DIRECTIONS, m).standard_normal((recipe.dims[m], k)))
    return (q * np.sign(np.diag(r))).T.astype(np.float32)


def features(recipe: Planted, stream: int, m: int, known: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N,T,D] float32 of modality m. Only valid steps are computed; the arithmetic is element by element in float32,
    and the frame noise uniform, so that the bits do not depend on the machine's linear algebra."""
    length, steps, dim = known["lengths"][:, m], recipe.steps[m], recipe.dims[m]
    evidence, cue, contexts = _directions(recipe, m)
    valid = np.arange(steps) < length[:, None]
    scale = np.float32(np.sqrt(dim))

    x = rng_of(recipe, stream, 2, m).random((length.sum(), dim), dtype=np.float32)
    x -= np.float32(0.5)
    x *= np.float32(FRAME * np.sqrt(12))
    gained = _gains(rng_of(recipe, stream, 1, m), length, valid) * known["evidence"][:, m, None]
    x += gained[valid].astype(np.float32)[:, None] * (evidence * (scale * np.float32(EVIDENCE)))
    constant = contexts[known["context"]] * (scale * np.float32(CONTEXT))
    constant += known["quality"][:, m].astype(np.float32)[:, None] * (cue * (scale * np.float32(CUE)))
    x += np.repeat(constant, length, axis=0)

    out = np.zeros((len(length), steps, dim), dtype=np.float32)
    out[valid] = x
    return out


def _gains(rng: np.random.Generator, length: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """[N,T], zero on half of the valid steps (rounded down) and on padding; the mean over the valid steps is 1."""
    order, size = rng.random((len(length), 2, valid.shape[1])).transpose(1, 0, 2)
    rank = np.where(valid, order, 2.0).argsort(1).argsort(1)
    gains = np.where(rank < (length[:, None] + 1) // 2, 0.5 + size, 0.0)
    return gains * (length / gains.sum(1))[:, None]


def _split(recipe: Planted, split: str) -> Split:
    known = facts(recipe, split)
    stream = 1 + SPLITS.index(split)
    made = features if recipe.design == "selection" else designs.features
    drawn = {name: torch.from_numpy(made(recipe, stream, m, known)) for m, name in enumerate(MODALITIES)}
    position = np.arange(len(known["labels"]))
    video = (stream - 1) * 100_000 + position // CLIPS_PER_VIDEO
    truth = {key: value for key, value in known.items() if key not in ("labels", "lengths", "unimodal_labels")}
    return Split(
        **drawn,
        lengths=torch.from_numpy(known["lengths"]),
        labels=torch.from_numpy(known["labels"].astype(np.float32)),
        ids=tuple(f"planted{v:06d}$_${c}" for v, c in zip(video, position % CLIPS_PER_VIDEO, strict=True)),
        unimodal_labels=torch.from_numpy(known["unimodal_labels"].astype(np.float32)),
        raw_text=_sentences(known["evidence"][:, 0], known["context"]),
        truth={k: torch.from_numpy(v.astype(np.float32) if v.dtype.kind == "f" else v) for k, v in truth.items()},
    )


def _sentences(evidence: np.ndarray, context: np.ndarray) -> tuple[str, ...]:
    """What the text says, in words; for people to read, no model sees it."""
    tones = ("very negative", "rather negative", "neutral", "rather positive", "very positive")
    tone = np.digitize(evidence, (-1.2, -0.3, 0.3, 1.2))
    pairs = enumerate(zip(tone, context, strict=True))
    return tuple(f"[planted {i}] {tones[t]} words; context {c}" for i, (t, c) in pairs)


from msa_lib.data import designs  # noqa: E402  it builds on the above
