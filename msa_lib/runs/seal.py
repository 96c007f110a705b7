"""Checksums of what a run left: a file that was changed after it was written is never read as a result.

They guard against damaged disks, edits by hand and files copied to the wrong place, not against forgers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILES = ("params.json", "metrics.jsonl", "predictions.npz", "weights.safetensors")  # env.json tells of the moment


def sealed(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a result.json with the checksums of the run's other files, and of itself."""
    digests = {name: _digest((folder / name).read_bytes()) for name in FILES if (folder / name).exists()}
    whole = {**content, "files": digests}
    return whole | {"checksum": _own(whole)}


def unsealed(path: Path) -> dict[str, Any]:
    """What `sealed` made, read from a file. Raises ValueError with one sentence if it is anything else."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
        if not isinstance(whole, dict) or whole.pop("checksum") != _own(whole):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(
            f"{path} is damaged or was changed after it was written, so that its numbers are not used: delete the "
            f"folder {path.parent} to run it again."
        ) from None
    return whole


def is_unsealed(path: Path) -> bool:
    """Whether a file is JSON of a run from before there were checksums."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "params" in content and not {"checksum", "run"} & set(content)


def contents(folder: Path, name: str, files: Mapping[str, str]) -> bytes:
    """The bytes of a run's file. Raises ValueError if they are not those that its result was written beside."""
    try:
        found = (folder / name).read_bytes()
    except FileNotFoundError:
        found = b""
    if _digest(found) != files.get(name):
        raise ValueError(
            f"{folder / name} is missing, damaged or was changed after it was written: delete the folder {folder} to "
            f"run it again."
        )
    return found


def _own(content: Mapping[str, Any]) -> str:
    return _digest(json.dumps(content, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice: of two values, which is meant cannot be told."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made
