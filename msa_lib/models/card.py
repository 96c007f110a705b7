"""What a model file says about its model beside the network: the card, recipes, and where it can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

from msa_lib import MODALITIES
from msa_lib.data import Dataset


@dataclass(frozen=True)
class Card:
    """Where a model comes from, and how much of it is the paper's.

    fidelity  specified: the paper (or its code) fixes everything that matters | completed: the equations are the
              paper's, we filled the gaps | partial: some of what the paper has is not here
    """

    paper: str
    fidelity: Literal["specified", "completed", "partial"]
    specified: str  # what the paper states
    ours: str  # what it does not, in words
    choices: tuple[str, ...]  # the switches of the model's Config whose default is ours


def all_but(config: type, *names: str) -> tuple[str, ...]:
    """The switches of a Config without the given ones."""
    if unknown := set(names) - {f.name for f in fields(config)}:
        raise ValueError(f"{config.__name__} has no switch {', '.join(sorted(unknown))}.")
    return tuple(f.name for f in fields(config) if f.name not in names)


class Stated(NamedTuple):
    """A value of a recipe and where it stands; "ours" if nowhere."""

    value: Any
    source: str


Recipe = Mapping[str, Stated]  # settings of training or model, by name


def settings(recipe: Recipe) -> dict[str, Any]:
    """A recipe without its sources."""
    return {name: stated.value for name, stated in recipe.items()}


def lacking(dataset: Dataset, letters: str) -> str:
    """Which of the modalities `letters` the data set has not, as a sentence; empty if it has them all."""
    here = zip("tav", MODALITIES, dataset.available, strict=True)
    missing = [name for letter, name, available in here if letter in letters and not available]
    return f"It needs {' and '.join(missing)}, which {dataset.name} lacks." if missing else ""
