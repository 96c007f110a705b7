"""The reference run: result rows of the default study, committed, so that notebooks show numbers when merely opened.

`reference/rows.csv.gz` holds a line per run: what determines it (model, data, seed, the switches and settings that
differ from the defaults), the versions and the data fingerprint it was made with, its scores on the test split and its
validation MAE, unrounded. `reference/meta.json` says which study it is of. `reference/<page>.json.gz` holds the small
tables that a figure was drawn from.

Runs are found by what was asked for, so that rows made by older code are shown, and `differences` says what changed.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import pandas as pd

from msa_lib.data import short_name
from msa_lib.models import MODELS
from msa_lib.runs import Run, rows_of
from msa_lib.runs.identity import configs, defaults, parameters, run_id, versions
from msa_lib.runs.store import result_in
from msa_lib.train.state import write_atomically

FOLDER = Path(__file__).resolve().parents[2] / "reference"
RENEW = "make reference"
KEY = ("model", "data", "seed", "switches", "train")  # which run was asked for
FACTS = (
    "run",
    "version",
    "fingerprint",
    "scale",
    "synthetic",
    "status",
    "reason",
    "best_epoch",
    "epochs",
    "n_parameters",
)
KEPT = {"test": None, "valid": ("mae",)}  # scores that are stored, by split; None: all
SPLIT = ": "  # between split and metric, in the name of a column


def meta(folder: Path = FOLDER) -> dict:
    """Which study the reference run is of: data, scale, seeds (of each page: its rows, baselines), commit, command,
    machine, date. {} if there is none."""
    path = folder / "meta.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def seeds_of(page: str, folder: Path = FOLDER) -> tuple[int, int]:
    """How many seeds the reference run has of a page: of its rows, of baselines beside a paper's; 0, 0 if none."""
    return tuple(meta(folder).get("pages", {}).get(page, (0, 0)))


def said(page: str = "", folder: Path = FOLDER) -> str:
    """Which reference run it is, a sentence; with a page, of what it has of that. The commits are in meta.json."""
    known = meta(folder)
    own, few = seeds_of(page, folder) if page else (known["seeds"], known["baseline_seeds"])
    of = f"{known['scale']} scale, {own} seed{'s' * (own != 1)}"
    if few != own:
        of += f", baselines {few}"
    return f"Reference run ({of}; {known['date']})."


def covers(page: str, runs: Sequence[Run], scale: str, folder: Path = FOLDER) -> bool:
    """Whether the reference run has this page on this data, at this scale and with so many seeds (and on a CPU)."""
    known = meta(folder)
    if not known or scale != known["scale"]:
        return False
    networks = [run for run in runs if run.model in MODELS]
    last = known["first_seed"] + seeds_of(page, folder)[0]
    return all(run.root is None and short_name(run.data) in known["data"] for run in runs) and all(
        run.seed < last and run.device == "cpu" for run in networks
    )


def find(runs: Sequence[Run], folder: Path = FOLDER) -> pd.DataFrame:
    """Result rows of those `runs` that the reference run has, as `runs.finished` gives them; perhaps none."""
    known = _lines(folder)
    rows = []
    for run in runs:
        if (line := known.get(key_of(run))) is not None:
            rows += [{"label": run.label or run.model} | row for row in rows_of(_result(line))]
    return pd.DataFrame(rows)


def differences(runs: Sequence[Run], fingerprints: Mapping[str, str], folder: Path = FOLDER) -> list[str]:
    """What of `runs` the reference run lacks or has from other code or data, a sentence each; none: it is of today.

    `fingerprints`: name of the data -> their content today. A row counts as there when it has its first seed.
    """
    known, first = _lines(folder), meta(folder).get("first_seed")
    found: dict[str, set[str]] = {}
    for run in runs:
        line, of = known.get(key_of(run)), run.label or run.model
        if line is None:
            if run.model not in MODELS or run.seed == first:
                found.setdefault("not in the reference run", set()).add(of)
            continue
        if line["version"] != _version(run.model):
            then = f"made with version {line['version']} of {run.model}, today's is {_version(run.model)}"
            found.setdefault(then, set()).add(of)
        if line["fingerprint"] != fingerprints[run.data]:
            then = f"made on other content of {short_name(run.data)} ({line['fingerprint']})"
            found.setdefault(then, set()).add(of)
    return [f"{', '.join(sorted(of))}: {what}." for what, of in found.items()]


def tables(page: str, folder: Path = FOLDER) -> dict[str, pd.DataFrame]:
    """The small tables that the figures of a page were drawn from: name -> frame. {} if there are none."""
    path = folder / f"{page}.json.gz"
    if not path.exists():
        return {}
    stored = json.loads(gzip.decompress(path.read_bytes()))
    return {name: pd.DataFrame(columns["data"], columns=columns["columns"]) for name, columns in stored.items()}


def write(runs: Sequence[Run], store: str | Path, about: Mapping, folder: Path = FOLDER) -> int:
    """Write what `store` holds of `runs` to `folder`, the same bytes for the same results; -> how many runs.

    `about` goes into meta.json, beside the commits that the runs were made at. Raises ValueError if a run is missing,
    or if it is not on planted data: the numbers of real data are their reader's, and are not committed.
    """
    lines, commits = {}, set()
    for run in runs:
        params = parameters(run, Path(store))
        result = result_in(Path(store).resolve() / run_id(params), params)
        if result is None:
            raise ValueError(
                f"{store} has no finished run of {run.label or run.model}, seed {run.seed}: train it first."
            )
        if not result["synthetic"]:
            raise ValueError(
                f"{short_name(run.data)} is no planted data set; expected planted data in a reference run."
            )
        lines[key_of(run)] = _line(run, result)
        commits.add(json.loads((Path(result["folder"]) / "env.json").read_text())["commit"])
    frame = pd.DataFrame([lines[key] for key in sorted(lines, key=str)])
    first = [*KEY, *FACTS]
    frame = frame[[*first, *(name for name in frame if name not in first)]]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "rows.csv.gz", gzip.compress(frame.to_csv(index=False).encode(), 9, mtime=0))
    names = {short_name(run.data): parameters(run, Path(store))["data"]["fingerprint"] for run in runs}
    content = {
        **about,
        "commit": ", ".join(sorted(filter(None, commits))),
        "runs": len(frame),
        "data": dict(sorted(names.items())),
    }
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    write_atomically(folder / "meta.json", f"{{\n{lines}\n}}\n".encode())
    _lines.cache_clear()
    return len(frame)


def write_tables(page: str, named: Mapping[str, pd.DataFrame], folder: Path = FOLDER) -> None:
    """Write the tables that a page's figures are drawn from; numbers to six digits, more than a picture can show."""

    def plain(value):
        if isinstance(value, float):
            return None if value != value else float(f"{value:.6g}")
        return value.item() if hasattr(value, "item") else value

    content = {
        name: {"columns": list(frame), "data": [[plain(v) for v in line] for line in frame.itertuples(index=False)]}
        for name, frame in named.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, separators=(",", ":")) + "\n"
    write_atomically(folder / f"{page}.json.gz", gzip.compress(text.encode(), 9, mtime=0))


# --- a line per run ---------------------------------------------------------------------------------------------------


def key_of(run: Run) -> tuple[str, str, int, str, str]:
    """What was asked for, without the defaults, the versions and the content of the data."""
    usual = {part: defaults(config) for part, config in configs(run.model).items()}
    told = {
        part: {k: v for k, v in sorted(given.items()) if k not in usual.get(part, {}) or v != usual[part][k]}
        for part, given in (("switches", run.switches), ("train", run.train))
    }
    seed = run.seed if run.model in MODELS else 0
    return run.model, short_name(run.data), seed, json.dumps(told["switches"]), json.dumps(told["train"])


def _version(model: str) -> str:
    return ", ".join(f"{part} {number}" for part, number in versions(model).items())


def _line(run: Run, result: Mapping) -> dict:
    params = result["params"]
    version = ", ".join(f"{part} {number}" for part, number in params["versions"].items())
    line = dict(zip(KEY, key_of(run), strict=True)) | {"version": version}
    line |= {"fingerprint": params["data"]["fingerprint"]}
    line |= {name: result[name] for name in FACTS if name not in line}
    for split, kept in KEPT.items():
        for metric, value in result["metrics"].get(split, {}).items():
            if not metric.endswith(("_k", "_n")) and (kept is None or metric in kept):
                line[f"{split}{SPLIT}{metric}"] = "nan" if value is None else value
    return line


def _result(line: Mapping) -> dict:
    """A line as `runs.rows_of` takes a stored result: `rows_of` fills the defaults in."""
    metrics: dict[str, dict] = {}
    for name, value in line.items():
        split, colon, metric = name.partition(SPLIT)
        if colon and value != "":
            metrics.setdefault(split, {})[metric] = float(value)
    train = json.loads(line["train"])
    if line["model"] in MODELS:
        train.setdefault("selection", configs(line["model"])["train"]().selection)
    params = {
        "model": line["model"],
        "versions": {part: int(n) for part, n in (text.split() for text in line["version"].split(", "))},
        "data": {"name": line["data"], "fingerprint": line["fingerprint"], "scale": line["scale"]},
        "seed": int(line["seed"]),
        "switches": json.loads(line["switches"]),
        "train": train,
        "device": "cpu",
    }
    numbers = {
        name: int(float(line[name])) if line[name] else None for name in ("best_epoch", "epochs", "n_parameters")
    }
    facts = {"synthetic": line["synthetic"] == "True", "status": line["status"], "reason": line["reason"]}
    return {"params": params, "metrics": metrics, "folder": line["run"], **facts, **numbers}


@lru_cache(maxsize=2)
def _lines(folder: Path) -> dict[tuple, dict]:
    """key -> line, all texts; no lines if there is no reference run."""
    path = folder / "rows.csv.gz"
    if not path.exists():
        return {}
    text = gzip.decompress(path.read_bytes()).decode()
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    return {
        (line["model"], line["data"], int(line["seed"]), line["switches"], line["train"]): line
        for line in frame.to_dict("records")
    }
