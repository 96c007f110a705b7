"""`msa tables`: all runs first, behind one progress bar; then each notebook; then an HTML index of what came out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import jinja2
from filelock import FileLock
from tqdm import tqdm

from msa_lib.models import MODELS
from msa_lib.notebooks import NotebookFailed, declared_parameters, execute
from msa_lib.runs import collect, finished, grid, opened
from msa_lib.runs.cluster import dask_executor
from msa_lib.runs.identity import dataset_of
from msa_lib.study import NOTEBOOKS, amount, expect_data, html_page, left_out, places, runs_of
from msa_lib.study.captions import words
from msa_lib.study.pages import PAGES
from msa_lib.train.state import write_atomically

_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("msa_lib.study"), autoescape=True, undefined=jinja2.StrictUndefined
)


def execute_pages(
    names: Sequence[str],
    data: str = "planted",
    seeds: int | None = None,
    scale: str | None = None,
    store: str | Path = "runs",
    jobs: int = 2,
    device: str = "cpu",
    retry_failed: bool = False,
    dask: str | None = None,
    stack: int = 0,
) -> list[dict]:
    """Execute the notebooks `names` on `data` -> one record per notebook: name, status, reason.

    Without names: all that are not `on_demand`.

    status is "done" (reason: what it had to do without), "failed" (with the reason; also where no network of the page
    could be trained), or "not attempted" (the data set is not there). All of it is said on stderr as well. Executed
    notebooks go to `<store>/notebooks`, their HTML beside them, all rows to `<store>/rows.csv`, the index to
    `<store>/index.html`. Interrupted, the same call goes on where it was: finished runs are in the store, a broken one
    has its last epoch. With `stack` so many seeds of a row train at once, where its model allows it; the notebooks are
    told, so that they show these runs. Raises FileNotFoundError for `data` that no page can use.
    """
    names = list(names) or [name for name, page in PAGES.items() if not page.on_demand]
    if unknown := [name for name in names if name not in PAGES]:
        raise ValueError(f"No table or figure {unknown[0]!r}: expected one of {', '.join(PAGES)}.")
    seeds, scale = amount(data, seeds, scale)
    for name, found in expect_data(data).items():
        print(f"{name}: {found}", file=sys.stderr)
    store = opened(store)

    outcomes = [_prepared(name, data, seeds, scale, device, stack) for name in names]
    for outcome in outcomes:
        if outcome["reason"]:
            how = "goes without" if outcome["status"] == "waiting" else outcome["status"]
            print(f"{outcome['name']}, {how}: {outcome['reason']}", file=sys.stderr)
    lacking = [outcome["reason"] for outcome in outcomes if outcome["status"] == "not attempted"]
    if lacking and len(lacking) == sum(bool(PAGES[name].dataset) for name in names):
        raise FileNotFoundError(lacking[0])
    runs = {repr((r.model, r.data, r.root, r.seed, r.switches, r.train)): r for o in outcomes for r in o["runs"]}
    networks = [run for run in runs.values() if run.model in MODELS]
    if stack and (alone := ", ".join(dict.fromkeys(run.label for run in networks if not run.train.get("stack")))):
        print(f"Not stacked, for their models cannot be, but trained seed by seed: {alone}.", file=sys.stderr)
    if runs:
        with dask_executor(dask, jobs, device) if dask else nullcontext() as executor:
            grid(list(runs.values()), store, jobs, "training", retry_failed, executor)
    for outcome in outcomes:
        _count_failures(outcome, store)

    def show(outcome: dict) -> None:
        second = {"second": outcome["second"]} if PAGES[outcome["name"]].second else {}
        parameters = {"dataset": outcome["dataset"], "root": outcome["root"], "seeds": seeds, "scale": scale}
        parameters |= {"store": str(store), "jobs": 1, "device": device, **second}
        source = NOTEBOOKS / f"{outcome['name']}.ipynb"
        declared = declared_parameters(source)  # pages without rows, or with small ones of their own, lack these
        parameters |= {name: value for name, value in (("train", True), ("stack", stack)) if name in declared}
        target = store / "notebooks" / f"{outcome['name']}.ipynb"
        target.parent.mkdir(exist_ok=True)
        try:
            with FileLock(target.with_suffix(".lock")):  # of another `msa tables` on this store
                execute(source, target, parameters)
                write_atomically(target.with_suffix(".html"), _html(target).encode())
            outcome["status"] = "failed" if outcome.pop("all failed") else "done"
        except NotebookFailed as problem:
            outcome |= {"status": "failed", "reason": str(problem)}
            print(f"{outcome['name']} failed: {problem}", file=sys.stderr)

    waiting = [outcome for outcome in outcomes if outcome["status"] == "waiting"]
    with ThreadPoolExecutor(jobs) as pool:  # each notebook has a process of its own
        for _ in tqdm(pool.map(show, waiting), desc="notebooks", unit="notebook", total=len(waiting)):
            pass
    write_atomically(store / "rows.csv", collect(store).to_csv(index=False).encode())
    command = words("tables", "", data, seeds, scale, stack)
    write_atomically(store / "index.html", _index(outcomes, command, store).encode())
    written = [path for name in ("report.html", "index.html", "rows.csv") if (path := store / name).exists()]
    print("\n".join(f"Wrote {path}" for path in written))
    counts = Counter(outcome["status"] for outcome in outcomes)
    print(f"{len(outcomes)} pages: {', '.join(f'{n} {status}' for status, n in counts.items())}.")
    return outcomes


def _prepared(name: str, data: str, seeds: int, scale: str, device: str, stack: int) -> dict:
    """The record of one page before anything is run: its data, its runs, and what it will have to do without."""
    page = PAGES[name]
    outcome = {"name": name, "status": "waiting", "reason": "", "dataset": data, "root": "", "second": "", "runs": []}
    if not page.dataset:
        return outcome
    try:
        there, missing = places(name, data, scale)
        outcome |= {"dataset": there.get(page.dataset, ("",))[0], "second": there.get(page.second, ("",))[0]}
        reasons = list(missing)
        for place in there.values():
            dataset = dataset_of(*place)
            outcome["root"] = place[1] or ""
            outcome["runs"] += runs_of(name, *place, dataset, seeds, scale, device, stack=stack)
            for reason, rows in left_out(name, dataset, scale).items():
                reasons.append(f"Left out: {', '.join(rows)}. {reason}")
        return outcome | {"status": "waiting" if there else "not attempted", "reason": " ".join(reasons)}
    except FileNotFoundError as absent:
        return outcome | {"status": "not attempted", "reason": str(absent), "runs": []}
    except (ValueError, OSError) as damaged:
        return outcome | {"status": "failed", "reason": str(damaged), "runs": []}


def _count_failures(outcome: dict, store: Path) -> None:
    """Says how many of a page's networks failed; where all did, its notebook has nothing to show of them."""
    rows = finished(outcome.pop("runs"), store)
    networks = rows[rows["model"].isin(MODELS)].drop_duplicates("run") if len(rows) else rows
    failed = networks[networks["status"] == "failed"] if len(networks) else networks
    outcome["all failed"] = 0 < len(failed) == len(networks)
    if len(failed):
        said = f"{len(failed)} of {len(networks)} networks failed (first: {failed['reason'].iloc[0]})"
        said += "; --retry-failed (make study RETRY=1) trains them again."
        outcome["reason"] = f"{outcome['reason']} {said}".strip()
        print(f"{outcome['name']}: {said}", file=sys.stderr)


def _html(notebook: Path) -> str:
    body = html_page.body_of(notebook)
    return _TEMPLATES.get_template("notebook.html.j2").render(title=PAGES[notebook.stem].title, body=body)


def _index(outcomes: list[dict], command: str, store: Path) -> str:
    """The page that links to all others, and shows the figures of the store."""
    for outcome in outcomes:
        outcome["title"] = PAGES[outcome["name"]].title
    figures = sorted(path.relative_to(store).as_posix() for path in (store / "figures").glob("*.png"))
    report = (store / "report.html").exists()
    return _TEMPLATES.get_template("index.html.j2").render(
        title="Tables and figures", outcomes=outcomes, command=command, figures=figures, report=report
    )
