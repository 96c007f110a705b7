"""Which run is which: the parameters that determine a result, their hash, and data sets known without being loaded.

The hash covers the model, its version, the loop's version, the data, the seed, the device kind, and those switches and
training settings that differ from the defaults. A new switch with a default therefore names the same runs as before.
The versions stand for the defaults and for what the code makes of them: whoever changes either raises the version
(`VERSION` of the model's class, `VERSION` of msa_lib.train.loop; tests/defaults.json holds what each version means).

A store remembers the content of each data set it has runs on (`data/*.json`: the files with sizes and times, their
fingerprint). So results can be read when the files are gone, and files that did not change are not loaded to be named.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from msa_lib import data as data_package
from msa_lib import reference
from msa_lib.data import REAL, Dataset, files_of, load_dataset, short_name, split_options
from msa_lib.models import MODELS
from msa_lib.reference import REFERENCES, SWITCHES
from msa_lib.switches import checked
from msa_lib.train import TrainConfig, loop
from msa_lib.train.state import write_atomically

if TYPE_CHECKING:
    from msa_lib.runs.store import Run

SETTLED = 2.0  # seconds; a file changed more recently could change again without another time


def parameters(run: Run, store: Path | None = None, remember: bool = False) -> dict:
    """Everything that determines the result, in plain JSON; the defaults of today are written out.

    Loads the data unless `store` knows them; `remember` writes into the store what it did not know. Raises ValueError
    for a wrong name or value, FileNotFoundError if the data are neither there nor known.
    """
    common = {"model": run.model, "versions": versions(run.model)}
    switches = asdict(checked(configs(run.model)["switches"], dict(run.switches), f"{run.model} switch"))
    if run.model in REFERENCES:
        return common | {"data": _content(run, store, remember), "seed": 0, "switches": switches}
    if "switches" in run.train:
        raise ValueError("Switches of a model belong in Run.switches, not in Run.train.")
    settings = asdict(checked(TrainConfig, dict(run.train), "training setting"))
    settings.pop("switches")
    device = torch.device(run.device).type
    trained_text = switches.get("bert", "precomputed") != "precomputed"
    common |= {"data": _content(run, store, remember, trained_text), "seed": int(run.seed)}
    return _plain(common | {"switches": switches, "train": settings, "device": device})


def run_id(params: Mapping) -> str:
    """The name of a run: a hash of what differs from the defaults, and of the versions that stand for these."""
    told = dict(params)
    for part, config in configs(params["model"]).items():
        usual = defaults(config)
        told[part] = {k: v for k, v in params[part].items() if k not in usual or v != usual[k]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def versions(model: str) -> dict[str, int]:
    """Versions of the code that a run of `model` goes through."""
    if model in REFERENCES:
        return {"model": reference.VERSION}
    return {"model": getattr(MODELS.get(model), "VERSION", 1), "loop": loop.VERSION}


def configs(model: str) -> dict[str, type]:
    """The dataclasses that hold the defaults of a run's parameters. Raises ValueError naming the right models."""
    if model in REFERENCES:
        return {"switches": SWITCHES[model]}
    if model not in MODELS:
        raise ValueError(f"No model {model!r}: expected one of {', '.join([*MODELS, *REFERENCES])}.")
    return {"switches": MODELS[model].Config, "train": TrainConfig}


def defaults(config: type) -> dict:
    """The defaults of a Config in plain JSON; fields that have none, and a mapping of other switches, are left out."""
    return _plain({f.name: f.default for f in fields(config) if f.default is not MISSING})


def confirm(stored: Mapping, asked: Mapping, folder: Path) -> None:
    """Raises ValueError if a stored run was made with another default than today's under the same version."""
    for part in ("switches", "train"):
        for name, value in stored.get(part, {}).items():
            if asked[part].get(name, MISSING) != value:
                today = f"is {asked[part][name]!r}" if name in asked[part] else "does not exist"
                raise ValueError(
                    f"The run {folder} was made with {name}={value!r}, which {today} today under the same version: "
                    f"expected a new VERSION of {stored['model'] if part == 'switches' else 'msa_lib.train'}."
                )


def completed(params: Mapping) -> dict:
    """Stored parameters with the switches and settings that came later, at their defaults, so that rows compare."""
    model = params["model"]
    if model not in (*MODELS, *REFERENCES) or params["versions"] != versions(model):
        return dict(params)
    parts = {part: defaults(config) | params[part] for part, config in configs(model).items()}
    return {**params, **parts}


def dataset_of(name: str, root: str | None) -> Dataset:
    """`load_dataset`, loaded once as long as the files stay the same."""
    return loaded(name, root, _stamp(name, root))


@lru_cache(maxsize=2)
def loaded(name: str, root: str | None, stamp: tuple) -> Dataset:
    return load_dataset(name, root)


def _plain(content: Mapping) -> dict:
    return json.loads(json.dumps(content, allow_nan=False))


# What a store knows of data


def _content(run: Run, store: Path | None, remember: bool, encoder: bool = False) -> dict:
    """Name, fingerprint, label scale (and text encoder) of the data; from the store if it knows these very files."""
    content = dict(_described(run, store, remember))
    name = content.pop("encoder")
    return content | {"encoder": name} if encoder else content  # its weights are where training starts


def _described(run: Run, store: Path | None, remember: bool) -> dict:
    known = [] if store is None else _known(run, store)
    try:
        stamp = _stamp(run.data, run.root)
    except FileNotFoundError as missing:
        return _remembered(run, known, missing)
    reader = _reader()
    for record in known:
        if stamp and record["reader"] == reader and record["stamp"] == [list(file) for file in stamp]:
            return record["data"]
    dataset = loaded(run.data, run.root, stamp)
    data = {"name": short_name(run.data), "fingerprint": dataset.fingerprint, "scale": dataset.scale}
    data["encoder"] = dataset.encoder
    if remember and stamp and store is not None:
        settled = _stamp(run.data, run.root) == stamp and time.time() - max(file[3] for file in stamp) / 1e9 > SETTLED
        record = {"data": data, "asked": _asked(run), "stamp": stamp if settled else None, "reader": reader}
        folder = _records(run, store)
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]  # another scale is another content, too
        write_atomically(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    return data


def _known(run: Run, store: Path) -> list[dict]:
    """The records of what a name has held; a damaged one is as good as none."""
    records = []
    for path in _records(run, store).glob("*.json"):
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(path.read_text())
            record["data"]["encoder"]  # not there in records of an older form
            records.append({name: record[name] for name in ("data", "stamp", "reader")})
    return records


def _remembered(run: Run, known: list[dict], missing: FileNotFoundError) -> dict:
    """What the data were when they were there, if that can be only one thing."""
    if not known:
        raise missing
    if len(known) > 1:
        contents = ", ".join(sorted(record["data"]["fingerprint"] for record in known))
        raise FileNotFoundError(
            f"{missing} The store has runs on {len(known)} contents of {run.data} ({contents}): without the "
            f"files, which is meant cannot be told."
        )
    return known[0]["data"]


def _records(run: Run, store: Path) -> Path:
    """Folder for the contents that one name has had."""
    return Path(store) / "data" / hashlib.sha256(json.dumps(_asked(run)).encode()).hexdigest()[:16]


def _asked(run: Run) -> list[str]:
    """Where the data are looked for, the same from any working directory: [root or empty, name or path]."""
    base, _ = split_options(run.data)
    if base in REAL:
        return ["" if run.root is None else os.path.abspath(run.root), run.data]
    return ["", os.path.abspath(os.path.join(run.root or "", run.data))]


def _stamp(name: str, root: str | None) -> tuple[tuple[str, int, int, int, int], ...]:
    """Path, size, time of writing, time of change and inode of each file of the data; empty for planted data."""
    facts = ((os.path.abspath(path), path.stat()) for path in files_of(name, root))
    return tuple((path, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for path, s in facts)


@lru_cache(maxsize=1)
def _reader() -> str:
    """Hash of the code that reads data: after a change the same file can have another content."""
    digest = hashlib.sha256()
    for path in sorted(Path(data_package.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
