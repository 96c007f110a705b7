"""Which data stand in the place of each printed set, and what of them is missing."""

from __future__ import annotations

from pathlib import Path

from msa_lib.data import PLANTED, REAL, Dataset, locate, split_options
from msa_lib.data.check import SIZES
from msa_lib.runs.identity import dataset_of
from msa_lib.study.pages import PAGES, SHORTER, scale_of


def data_of(page: str, data: str, scale: str) -> tuple[str, str | None]:
    """(name, root) of the data set a notebook uses when the study is asked to run on `data`.

    `data` is "planted" (then the planted stand-in of the page's own set), another planted name, a file or packed
    folder (then every notebook uses it), or a folder that holds the real sets: then each notebook takes its own, and
    one that shows nothing printed for its set takes the first there is. Options after '?' stay with the name.
    """
    own = PAGES[page].dataset
    place = _data_for(own, data, scale)
    if place[1] and PAGES[page].any_set and _absence(*place):
        others = (_data_for(real, data, scale) for real in REAL if real != own)
        return next((other for other in others if not _absence(*other)), place)
    return place


def places(page: str, data: str, scale: str) -> tuple[dict[str, tuple[str, str | None]], list[str]]:
    """What stands in for each printed data set of a page, {printed: (name, root)}, and a sentence for each without.

    One data set for a page of two printed ones stands in for the one it is taken for (`stands_in`).
    """
    own = PAGES[page]
    found = {printed: _data_for(printed, data, scale) for printed in own.printed}
    if own.any_set:
        found = {own.dataset: data_of(page, data, scale)}
    absent = {printed: reason for printed, place in found.items() if (reason := _absence(*place))}
    there = {printed: place for printed, place in found.items() if printed not in absent}
    if len(there) == 2 and len(set(there.values())) == 1:
        place = next(iter(there.values()))
        there = {stands_in(page, place[0], dataset_of(*place)): place}
    return there, list(dict.fromkeys(absent.values()))


def stands_in(page: str, name: str, dataset: Dataset) -> str:
    """The printed data set for which a page takes `dataset`, loaded as `name`: of two the one that it is, if it is one.

    Settings and verdicts go by this, never by the name under which a file was given.
    """
    first, second = PAGES[page].dataset, PAGES[page].second
    if not second:
        return first
    if dataset.synthetic:
        return second if split_options(name)[0] == f"planted-{second}" else first
    sizes = tuple(map(len, dataset.splits.values()))
    return second if sizes[-1] == SIZES[second][-1] and sizes[-1] != SIZES[first][-1] else first


def expect_data(data: str, scale: str = "full") -> dict[str, str]:
    """Which real sets a folder holds, {name: file or what was looked for}; empty for anything that is no such folder.

    Raises FileNotFoundError with one sentence if `data` is nothing that the study could run on.
    """
    base, options = split_options(data)
    if base in PLANTED or (Path(base).exists() and not _holds_sets(base)):
        return {}
    if not Path(base).exists():
        hint = "give the folder that holds it" if base in REAL else f"expected one of {', '.join(PLANTED)}, or a path"
        raise FileNotFoundError(f"No data set {base!r}: {hint}.")
    found = {}
    for name in REAL:
        try:
            found[name] = str(locate(name, base, dict(options)).relative_to(base))
        except FileNotFoundError as missing:
            found[name] = str(missing)
    if all(_absence(name + data[len(base) :], base) for name in REAL):
        files = ", ".join(choices[0] for choices in REAL.values())
        parent = Path(base).resolve().parent
        above = any(not _absence(name, str(parent)) for name in REAL)
        hint = f"; its parent {parent} holds one" if above else ""
        raise FileNotFoundError(f"No data set under {base}: expected {files}, or a packed <name>.packed{hint}.")
    return found


def sized(name: str, scale: str) -> str:
    """A planted name with the sizes of the scale, for a notebook's default; any other name as it is."""
    base, options = split_options(name)
    if base not in PLANTED or options:
        return name
    sizes = [scale_of(scale).sizes, SHORTER.get(base, "")] if scale_of(scale).sizes else []
    return f"{base}?{'&'.join(filter(None, sizes))}".rstrip("?")


def _data_for(real: str, data: str, scale: str) -> tuple[str, str | None]:
    base, options = split_options(data)
    if base == "planted" and not options:
        base = data = f"planted-{real}"
    if base in PLANTED:
        return sized(data, scale), None
    if _holds_sets(base):
        return real + data[len(base) :], str(Path(base).resolve())
    return (str(Path(base).resolve()) + data[len(base) :] if Path(base).exists() else data), None


def _holds_sets(base: str) -> bool:
    return Path(base).is_dir() and not (Path(base) / "meta.json").exists()


def _absence(name: str, root: str | None) -> str:
    """Why a real set is not under `root`; empty if it is. Other names are looked for where they are loaded."""
    base, options = split_options(name)
    if root is None or base not in REAL:
        return ""
    try:
        locate(base, root, options)
    except (FileNotFoundError, ValueError) as missing:
        return str(missing)
    return ""
