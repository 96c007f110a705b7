"""Data sets by name or path: `load_dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl

from msa_lib.data.dataset import Batch, Dataset, Split, standardised

__all__ = ["Batch", "Dataset", "Split", "files_of", "load_dataset", "short_name", "split_options"]

# Where the field's archives keep their files (thuiar/MMSA); the first that exists is taken.
REAL = {
    "mosi": ("MOSI/Processed/aligned_50.pkl", "MOSI/Processed/unaligned_50.pkl"),
    "mosei": ("MOSEI/Processed/aligned_50.pkl", "MOSEI/Processed/unaligned_50.pkl"),
    "sims": ("SIMS/Processed/unaligned_39.pkl",),
    "simsv2": ("SIMSv2/Processed/sims_unaligned.pkl", "SIMSv2/Processed/unaligned.pkl"),
}
PLANTED = ("planted", "planted-mosi", "planted-mosei", "planted-sims", "planted-simsv2")


def split_options(name: str) -> tuple[str, dict[str, str]]:
    """ "planted?cue=hidden&seed=3" -> ("planted", {"cue": "hidden", "seed": "3"})."""
    base, _, query = str(name).partition("?")
    return base, dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))


def short_name(name: str) -> str:
    """A data set's name without the folders of this machine: "/x/a.pkl?label=1" -> "a.pkl?label=1"."""
    base, query, options = str(name).partition("?")
    shown = "&".join(
        f"encoder={Path(part.partition('=')[2]).name}" if part.startswith("encoder=") else part
        for part in options.split("&")
    )
    return Path(base).name + query + shown


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """A data set by name ("planted", "mosi", ...) or by the path of a file or packed folder.

    Real names look under `root` (their packed form, `<name>.packed`, first). Options follow a question mark, as in a
    web address: "planted?cue=hidden&train=200", "pooled.npz?split=split_bclstm", "mosi?aligned=no". Any data set takes
    standardise=yes: features by the mean and deviation of the training steps (the papers do not say). One with token
    ids takes encoder=PATH: where the text encoder lies that they are for (a folder or hub id), if not under its name.

    Raises ValueError or FileNotFoundError with one sentence naming what is missing and what was expected.
    """
    base, options = split_options(name)
    if (wanted := options.pop("standardise", "no")) not in ("yes", "no"):
        raise ValueError(f"The option standardise={wanted!r} of {base}: expected yes or no.")
    encoder = options.pop("encoder", None)
    dataset = _load(base, root, options)
    if encoder is not None:
        if not encoder or dataset.train.tokens is None:
            reason = f"{base} has no token ids" if encoder else "its value is empty"
            raise ValueError(f"The option encoder of {base} names the text encoder of its token ids; {reason}.")
        dataset = replace(dataset, encoder=encoder)
    return standardised(dataset) if wanted == "yes" else dataset


def _load(base: str, root: str | Path | None, options: dict[str, str]) -> Dataset:
    from msa_lib.data import planted, readers

    if base in PLANTED:
        return planted.load(base, options)
    path = _place(base, root, options)
    return readers.read(path, options, name=base) if base in REAL else readers.read(path, options)


def _place(base: str, root: str | Path | None, options: dict[str, str]) -> Path:
    """The file or folder of data that are not planted, which must exist."""
    if base in REAL:
        return locate(base, root, options)
    path = Path(base) if root is None else Path(root) / base
    if not path.exists():
        known = ", ".join((*PLANTED, *REAL))
        raise FileNotFoundError(f"No data set {base!r}: expected one of {known}, or the path of an existing file.")
    return path


def files_of(name: str, root: str | Path | None = None) -> list[Path]:
    """The files that `load_dataset` reads for a name, none for planted data; raises FileNotFoundError as it does."""
    base, options = split_options(name)
    if base in PLANTED:
        return []
    path = _place(base, root, options)
    return sorted(path.iterdir()) if path.is_dir() else [path]


def locate(name: str, root: str | Path | None, options: dict[str, str]) -> Path:
    """The file or packed folder of a real set under `root`; takes its own option, `aligned`, out of `options`."""
    if root is None:
        raise FileNotFoundError(f"{name} needs root=, the folder that holds {REAL[name][0]}.")
    choices = [f"{name}.packed", *REAL[name]]
    aligned = options.pop("aligned", None)
    if aligned is not None:
        choices = [c for c in choices if c.endswith(".pkl") and ("unaligned" in c) == (aligned == "no")]
    for choice in choices:
        if (Path(root) / choice).exists():
            return Path(root) / choice
    raise FileNotFoundError(f"No {name} under {root}: expected one of {', '.join(choices)}.")
