"""Making the reference run again: train, keep rows and small tables, draw the figures, run the notebooks in place.

Everything that is committed of results comes from here, by one command (`msa reference`), which takes up where it was
interrupted: finished runs are in the store.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import pandas as pd
import torch
from PIL import Image

from msa_lib.notebooks import execute, refresh
from msa_lib.runs import Run, grid, opened
from msa_lib.runs.identity import dataset_of
from msa_lib.study import readme, reference_run
from msa_lib.study.pages import FIRST_SEED, PAGES, SCALES
from msa_lib.study.rows import runs_of
from msa_lib.study.standins import places
from msa_lib.train.state import write_atomically

DATA, SCALE = "planted", "quick"
ROOT = Path(__file__).resolve().parents[2]


def renew(
    store: str | Path = "runs", seeds: int | None = None, jobs: int = 2, say: Callable = print, root: Path = ROOT
) -> None:
    """Make the reference run, and all that is shown from it, again; as many seeds as the scale has unless said.

    Writes to reference/, figures/, notebooks/, README.md and docs/ of `root`. Raises NotebookFailed or ValueError, one
    sentence, and leaves what is not yet made as it was.
    """
    seeds = seeds or SCALES[SCALE].seeds
    store, command = opened(store), f"msa reference --seeds {seeds}"
    runs = wanted(seeds)
    grid(runs, store, jobs, "reference run")
    kept = reference_run.write(runs, store, about(seeds, command), root / "reference")
    say(f"{kept} runs are the reference run.")
    drawn = [name for name, page in PAGES.items() if page.figures and not page.on_demand]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: _draw(name, store, seeds, root), drawn))
    (root / "figures").mkdir(exist_ok=True)
    for path in sorted((store / "figures").glob("*.*")):
        shutil.copy(path, root / "figures" / path.name)
    write_atomically(root / "figures" / "README.md", figure_list(root / "figures", command).encode())
    say(f"{len(drawn)} pages drew their figures.")
    shown = [name for name, page in PAGES.items() if page.kept_seeds or not page.on_demand]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: refresh(root / "notebooks" / f"{name}.ipynb"), shown))
    readme.fill(root)
    say(f"{len(shown)} notebooks and the README show them.")


def wanted(seeds: int) -> list[Run]:
    """Every run of the reference run, each once: of the default study, and of the pages on demand that it keeps."""
    runs = {}
    for name, (own, few) in _seeds(seeds).items():
        for half, root in places(name, DATA, SCALE)[0].values():
            for run in runs_of(name, half, root, dataset_of(half, root), own, SCALE, baseline_seeds=few):
                runs.setdefault(reference_run.key_of(run), run)
    return list(runs.values())


def _seeds(seeds: int) -> dict[str, tuple[int, int]]:
    """Page with runs -> how many seeds the reference run is to have of its rows, and of baselines beside a paper's."""
    found, usual = {}, SCALES[SCALE].others or seeds
    for name, page in PAGES.items():
        own = min(seeds, page.kept_seeds) if page.on_demand else seeds
        if page.dataset and own:
            found[name] = own, own if page.on_demand else min(seeds, page.baseline_seeds or usual)
    return found


def about(seeds: int, command: str) -> dict:
    """What meta.json says of a reference run made now, here."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, CPU; torch {torch.__version__}"
    pages = _seeds(seeds)
    few = sorted({few for name, (_, few) in pages.items() if not PAGES[name].on_demand})
    return {
        "scale": SCALE, "first_seed": FIRST_SEED, "seeds": seeds, "baseline_seeds": " to ".join(map(str, few)),
        "pages": pages, "command": command, "machine": machine, "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def stale() -> list[str]:
    """What of the reference run is not of today's code and data, sentences; none if it is."""
    known = reference_run.meta()
    if not known:
        return [f"There is no reference run; `{reference_run.RENEW}` makes it."]
    runs = wanted(1)
    fingerprints = {run.data: dataset_of(run.data, run.root).fingerprint for run in runs}
    return reference_run.differences(runs, fingerprints)


def _draw(name: str, store: Path, seeds: int, root: Path) -> None:
    """Execute a page so that it saves its figures; one whose tables are kept measures them on the trained networks."""
    page, source = PAGES[name], root / "notebooks" / f"{name}.ipynb"
    networks = bool(page.rows) and page.table is None and not page.on_demand
    parameters = {"store": str(store), "seeds": seeds, "scale": SCALE} | ({"train": True} if networks else {})
    parameters |= page.renewed_with
    content = execute(source, store / "notebooks" / source.name, parameters)
    if networks:
        tables = {table: pd.DataFrame(lines) for table, lines in content["tables"].items()}
        reference_run.write_tables(name, tables, root / "reference")


def figure_list(folder: Path, command: str) -> str:
    """README of the figures, from what each picture says of itself: title, caption, data, command."""
    pictures = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            said = {"title": image.info.get("Title", path.stem), "caption": image.info.get("Description", "")}
        pictures.append(said | {"name": path.stem, "svg": path.with_suffix(".svg").exists()})
    return jinja2.Template(_LIST, trim_blocks=True, lstrip_blocks=True).render(pictures=pictures, command=command)


_LIST = """# Pictures of the reference run

Made by `{{ command }}` (or `make reference`). Each is a PNG and an SVG, and carries its title and caption in itself.
Pictures of runs are on planted data: **synthetic**. Those whose name begins with `audit_` or `noise_` need no training.

{% for one in pictures %}
## {{ one.title }}

[`{{ one.name }}.png`]({{ one.name }}.png){{ ", [`" ~ one.name ~ ".svg`](" ~ one.name ~ ".svg)" if one.svg }}
{%- if one.caption %}: {{ one.caption }}{% endif %}


![{{ one.title }}]({{ one.name }}.png)

{% endfor %}
"""
