"""Semi-synthetic data: the text, labels, splits and videos of a data set, and audio and vision that are planted.

Any data set with text takes the option planted_av=A,V (one number for both): the correlation of audio's and of vision's
evidence with the label, from 0 (none) to 0.95. With y the label in deviations of the training labels, i a sample and m
audio or vision,

    z_im     = r_im y_i + (1 - r_im^2)^1/2 e_im,   e ~ N(0,1), drawn apart for each: the evidence; variance 1 at any r
    X_im[t]  = d^1/2 (0.6 gain_t z_im u_m + 0.45 c_m[nuisance] + 0.4 q_im w_m) + 0.5 frame noise: as in `planted.py`

on as many steps as the sample's text has (aligned, as MOSI's files are). r_im, the reliability, by av_cue:

    even     r_im = the level, in every sample; q = 0
    visible  in half of the samples min(2 level, 0.95), in the others as little as leaves the mean at the level, drawn
             for audio and vision apart; q_im = 1 or -1 says which
    hidden   as visible, but q = 0

Mean and variance of z are the same whatever r, so that with a hidden cue nothing within one modality gives its
reliability away. To weigh, select or doubt a modality by the sample pays where the cue is visible (positive control)
and can pay only by the agreement of modalities where it is hidden (negative control). What e says has nothing to do
with what text says beyond the label: the best case for fusion, not a claim about real faces and voices.

Two arms of a comparison share the draw of av_seed, and so do all levels: e, q, gains and frame noise are the same at
each. The correlation holds over the training split (up to sampling); where another split's labels spread more or less,
it is a little larger or smaller there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import ndtri

from msa_lib.data import planted
from msa_lib.data.dataset import Dataset, Split
from msa_lib.data.planted import Planted

CUES = ("even", "visible", "hidden")
MOST = 0.95  # the largest correlation of a sample's evidence with the label
DIMS = (12, 16)  # feature size of audio, vision
STREAM = 11  # of the training split; 12 and 13 are valid and test: none that planted text is drawn from
OPTIONS = ("planted_av", "av_cue", "av_seed")


@dataclass(frozen=True)
class Semi:
    """A recipe for planted audio and vision. Raises ValueError, one sentence, for values that make no sense."""

    levels: tuple[float, float]  # of audio, vision
    cue: str = "even"
    seed: int = 0

    def __post_init__(self) -> None:
        if not all(0 <= level <= MOST for level in self.levels):
            raise ValueError(f"The option planted_av={self.text} is a correlation; expected numbers from 0 to {MOST}.")
        if self.cue not in CUES:
            raise ValueError(f"The option av_cue={self.cue!r}: expected one of {', '.join(CUES)}.")

    @property
    def text(self) -> str:
        return ",".join(f"{level:g}" for level in self.levels)


def taken(options: dict[str, str]) -> Semi | None:
    """Takes what belongs to the planted audio and vision out of `options`; None if nothing is to be planted."""
    if "planted_av" not in options:
        return None
    words = options.pop("planted_av")
    try:
        numbers = [float(number) for number in words.split(",")]
        audio, vision = numbers if len(numbers) == 2 else numbers * 2
    except ValueError:
        raise ValueError(
            f"The option planted_av={words!r} is not understood: expected the correlations of audio and vision with "
            f"the label, something like planted_av=0.3,0.15, or one number for both."
        ) from None
    cue, seed = options.pop("av_cue", "even"), options.pop("av_seed", "0")
    if not seed.isdecimal():
        own = "; av_seed=run stands for the seed of each run, and here is no run" if seed == "run" else ""
        raise ValueError(f"The option av_seed={seed!r}: expected a whole number{own}.")
    return Semi((audio, vision), cue, int(seed))


def plant(dataset: Dataset, recipe: Semi) -> Dataset:
    """`dataset` with planted audio and vision in the place of its own; text, labels, ids and splits are untouched.

    The truth of each split: `av_evidence` z and `av_reliability` r, [N,2] each (audio, vision). Labels of single
    modalities are left out: they would be of other audio and vision. Raises ValueError for data without text, or
    whose training labels are all the same.
    """
    if not dataset.available[0]:
        raise ValueError(f"{dataset.name} has no text features; audio and vision are planted beside text alone.")
    labels = dataset.train.labels.double()
    mean, deviation = float(labels.mean()), float(labels.std(correction=0))
    if not deviation > 0:
        raise ValueError(f"{dataset.name} has one training label for all samples: nothing can be told of it.")
    splits = {
        name: _planted(split, recipe, STREAM + k, (split.labels.double().numpy() - mean) / deviation)
        for k, (name, split) in enumerate(dataset.splits.items())
    }
    return replace(
        dataset,
        **splits,
        name=f"{dataset.name}, planted_av={recipe.text} av_cue={recipe.cue} av_seed={recipe.seed}",
        synthetic=True,
        notes=(*_notes(dataset, recipe), *(f"of the text's own data set: {note}" for note in dataset.notes)),
        fingerprint="",
    )


def _notes(dataset: Dataset, recipe: Semi) -> list[str]:
    whose = "planted as well: no transcript stands behind them" if dataset.synthetic else f"those of {dataset.name}"
    said = [
        f"Semi-synthetic data: audio and vision are planted (correlation with the label {recipe.text}; "
        f"reliability {recipe.cue}); text, labels and splits are {whose}.",
        "No number on them may be compared with a printed one.",
    ]
    if any(dataset.available[1:]) and not dataset.synthetic:
        said.append("The audio and vision that the file has are not used.")
    if dataset.train.unimodal_labels is not None:
        said.append("Labels of single modalities are left out: they are not of the planted audio and vision.")
    return said


def facts(recipe: Semi, stream: int, y: np.ndarray) -> dict[str, np.ndarray]:
    """What is decided of samples with standardised labels `y` [N] before any feature: av_evidence and av_reliability
    [N,2], quality [N,2], nuisance [N,2]."""
    # One row of uniform numbers per sample: so the first samples do not depend on how many follow.
    uniform = np.maximum(planted.rng_of(_frame_recipe(recipe), stream, 0).random((len(y), 6)), 2.0**-54)
    u_noise, u_good, u_nuisance = uniform[:, :2], uniform[:, 2:4], uniform[:, 4:]
    level, good = np.array(recipe.levels), u_good < 0.5
    best = np.minimum(2 * level, MOST)
    r = np.broadcast_to(level, good.shape) if recipe.cue == "even" else np.where(good, best, 2 * level - best)
    return {
        "av_evidence": r * y[:, None] + np.sqrt(1 - r**2) * ndtri(u_noise),
        "av_reliability": r,
        "quality": np.where(good, 1.0, -1.0) * (recipe.cue == "visible"),
        "nuisance": (u_nuisance * Planted.contexts).astype(np.int64),
    }


def _planted(split: Split, recipe: Semi, stream: int, y: np.ndarray) -> Split:
    known = facts(recipe, stream, y)
    steps = split.text.shape[1]
    length = split.host_lengths[:, 0].clamp(min=1).numpy()  # a sample without text has a face all the same
    frames = _frame_recipe(recipe, steps)
    made = []
    for m in (1, 2):
        own = {"evidence": known["av_evidence"], "quality": known["quality"]}
        own = {name: np.column_stack([np.zeros(len(y)), value]) for name, value in own.items()}  # text is not drawn
        own |= {"context": known["nuisance"][:, m - 1], "lengths": np.repeat(length[:, None], 3, 1)}
        made.append(torch.from_numpy(planted.features(frames, stream, m, own)))
    lengths = torch.from_numpy(np.column_stack([split.host_lengths[:, 0].numpy(), length, length]))
    told = {name: torch.from_numpy(known[name].astype(np.float32)) for name in ("av_evidence", "av_reliability")}
    return replace(
        split, audio=made[0], vision=made[1], lengths=lengths, host_lengths=None, unimodal_labels=None, truth=told
    )


def _frame_recipe(recipe: Semi, steps: int = 1) -> Planted:
    """What `planted` needs to know to draw frames."""
    return Planted(seed=recipe.seed, dims=(Planted.dims[0], *DIMS), steps=(steps, steps, steps))
