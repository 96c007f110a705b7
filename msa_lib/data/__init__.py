"""Data sets by name or path: `load_dataset`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl

from msa_lib.data import degraded
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
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"The options of {base} are {query!r}; expected NAME=VALUE, several joined by &.") from None
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"The option {twice[0]} of {base} is given twice, in {query!r}; expected each once.")
    return base, dict(pairs)


def yes_or_no(options: dict[str, str], key: str, base: str) -> bool | None:
    """Takes the option `key` out of `options`: True for yes, False for no, None if it is not given."""
    value = options.pop(key, None)
    if value not in (None, "yes", "no"):
        raise ValueError(f"The option {key}={value!r} of {base}: expected yes or no.")
    return None if value is None else value == "yes"


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

    Real names look under `root` (their packed form, `<name>.packed`, first; aligned=yes or aligned=no chooses). Options
    follow a question mark, as in a web address: "planted?cue=hidden&train=200", "pooled.npz?split=split_bclstm",
    "mosi?aligned=no"; those of a file are in `readers.read`. Any data set takes standardise=yes: features by the mean
    and deviation of the training steps (the papers do not say), and train_share=0.5 or label_noise=0.5: poorer training
    data (`degraded`). One with token ids takes encoder=PATH: where the text encoder lies that they are for (a folder or
    hub id), if not under its name. One with text takes planted_av=A,V, with av_cue and av_seed: audio and vision are
    planted, and tell as much of the label as is asked (semi.py).

    Raises ValueError or FileNotFoundError with one sentence naming what is missing and what was expected.
    """
    from msa_lib.data import semi

    base, options = split_options(name)
    wanted = yes_or_no(options, "standardise", base)
    encoder, recipe = options.pop("encoder", None), semi.taken(options)
    poorer = {key: options.pop(key) for key in degraded.OPTIONS if key in options}
    with readable(base):
        dataset = _load(base, root, options)
    if encoder is not None:
        if not encoder or dataset.train.tokens is None:
            reason = f"{base} has no token ids" if encoder else "its value is empty"
            raise ValueError(f"The option encoder of {base} names the text encoder of its token ids; {reason}.")
        dataset = replace(dataset, encoder=encoder)
    if recipe:
        dataset = semi.plant(dataset, recipe)
    dataset = degraded.by_options(dataset, poorer)
    return standardised(dataset) if wanted else dataset


@contextmanager
def readable(base: str) -> Iterator[None]:
    """Turns an error of the system (no permission, a name too long) into one sentence, a ValueError."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{error.filename or base} cannot be read: {error.strerror or error}.") from None


def _load(base: str, root: str | Path | None, options: dict[str, str]) -> Dataset:
    from msa_lib.data import planted, readers

    if base in PLANTED:
        return planted.load(base, options)
    path = _place(base, root, options)
    if base in REAL:
        return with_note(readers.read(path, options, name=base), _which(base, path, root))
    return readers.read(path, options)


def _place(base: str, root: str | Path | None, options: dict[str, str]) -> Path:
    """The file or folder of data that are not planted, which must exist."""
    if base in REAL:
        return locate(base, root, options)
    path = Path(base) if root is None else Path(root) / base
    if not path.exists():
        known = (*PLANTED, *REAL)
        beside = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = get_close_matches(base.lower(), known, 1) or get_close_matches(str(path), beside, 1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise FileNotFoundError(
            f"No data set {base!r}: expected one of {', '.join(known)}, or the path of an existing file{hint}"
        )
    if path.is_dir() and not (path / "meta.json").exists():
        raise FileNotFoundError(_no_data_in(path))
    return path


def files_of(name: str, root: str | Path | None = None) -> list[Path]:
    """The files that `load_dataset` reads for a name, none for planted data; raises FileNotFoundError as it does."""
    base, options = split_options(name)
    if base in PLANTED:
        return []
    with readable(base):
        path = _place(base, root, options)
        return sorted(path.iterdir()) if path.is_dir() else [path]


def with_note(dataset: Dataset, note: str) -> Dataset:
    return replace(dataset, notes=(*dataset.notes, note)) if note else dataset


def locate(name: str, root: str | Path | None, options: dict[str, str]) -> Path:
    """The file or packed folder of a real set under `root`; takes its own option, `aligned`, out of `options`.

    A packed folder answers to aligned=yes or no only if its content is so.
    """
    aligned = yes_or_no(options, "aligned", name)
    if root is None:
        raise FileNotFoundError(f"{name} needs root=, the folder that holds {REAL[name][0]}.")
    root, packed = Path(root), f"{name}.packed"
    choices = [packed, *REAL[name]]
    fitting = [c for c in choices if aligned is None or c == packed or ("unaligned" in c) != aligned]
    for choice in fitting:
        if (root / choice).exists() and (choice != packed or aligned in (None, _is_aligned(root / choice))):
            return root / choice
    kind = {None: "", True: "aligned", False: "unaligned"}[aligned]
    files = [c for c in fitting if c != packed]
    expected = f"expected {' or '.join(files)}" if files else f"the field has only {' and '.join(REAL[name])}"
    others = [c for c in choices if (root / c).exists()]
    found = f"; there is {' and '.join(others)}, not {kind}" if others else _there(root)
    raise FileNotFoundError(f"No {f'{kind} {name}'.strip()} under {root}: {expected}{found}.")


def _is_aligned(folder: Path) -> bool:
    """Whether all modalities of a packed data set have one length in each sample."""
    from msa_lib.data import pack

    dataset = pack.load(folder)
    have = [m for m, there in enumerate(dataset.available) if there]
    return all(bool((s.lengths[:, have] == s.lengths[:, have[:1]]).all()) for s in dataset.splits.values())


def _which(name: str, path: Path, root: str | Path | None) -> str:
    """A note on what stands for a real set where that is not the file one expects first."""
    if path == Path(root) / REAL[name][0]:
        return ""
    return f"{name} is read from {path.relative_to(root)}."


def _there(folder: Path) -> str:
    """What a folder holds, for a message."""
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if not p.name.startswith("."))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"; {folder} holds {', '.join(names[:8]) or 'nothing'}{more}"


def _no_data_in(folder: Path) -> str:
    """Why a folder is no data set: it holds real sets by name, or nothing that is looked for."""
    names = [name for name, files in REAL.items() if any((folder / f).exists() for f in (f"{name}.packed", *files))]
    if names:
        return f"{folder} is a folder of data sets ({', '.join(names)}), not one: name it, with the folder as the root."
    looked = ", ".join(f for files in REAL.values() for f in files)
    return f"{folder} is no packed data set (no meta.json) and holds none of {looked}{_there(folder)}."
