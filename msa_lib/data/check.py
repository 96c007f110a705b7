"""What a data file holds and what is wrong with it, before anyone trains on it: `describe` and `render`.

Looks at the arrays as they are in the file, before the reader repairs them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from msa_lib import MODALITIES
from msa_lib.data import clean, padding, readers, videos
from msa_lib.data.dataset import LABEL_RANGE, SPLITS, Dataset

SIZES = {  # train, valid, test: official counts (SIMSv2: as published with the labels)
    "mosi": (1284, 229, 686),
    "mosei": (16326, 1871, 4659),
    "sims": (1368, 456, 457),
    "simsv2": (2722, 647, 1034),
}
PUBLISHED = {  # SHA-256 in the README of thuiar/MMSA; there is none for SIMSv2
    "MOSI/Processed/unaligned_50.pkl": "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
    "MOSI/Processed/aligned_50.pkl": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
    "MOSEI/Processed/unaligned_50.pkl": "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
    "MOSEI/Processed/aligned_50.pkl": "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
    "SIMS/Processed/unaligned_39.pkl": "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f",
}
STEP = {"mosi": 1.0, "sims": 0.2}  # width of a bar in the histogram of labels


def describe(path: str | Path, root: str | Path | None = None) -> dict[str, Any]:
    """A report that JSON can hold: splits, shapes, labels, and `problems`, one sentence each.

    `path` is what `load_dataset` takes: a file, a packed folder, or a name. A file that cannot be read is a report
    with that problem; FileNotFoundError is raised when there is none.
    """
    from msa_lib.data import readable

    with readable(str(path)):
        return _describe(path, root)


def _describe(path: str | Path, root: str | Path | None) -> dict[str, Any]:
    from msa_lib.data import REAL, load_dataset, locate, split_options, yes_or_no

    base, options = split_options(str(path))
    yes_or_no(options, "standardise", base)  # what a file holds does not depend on it, nor on the encoder
    options.pop("encoder", None)
    place = None
    if base in REAL:
        place = locate(base, root, options)
    elif (Path(base) if root is None else Path(root) / base).exists():
        place = Path(base) if root is None else Path(root) / base
    report: dict[str, Any] = {"path": str(path), "kind": "planted", "notes": [], "splits": {}, "problems": []}
    if place is None or place.is_dir():
        dataset = load_dataset(str(path), root)
        report.update(kind="planted" if place is None else "packed", fingerprint=dataset.fingerprint)
        raw = _raw(dataset)
    else:
        report.update(kind="file", bytes=place.stat().st_size, sha256=_sha256(place))
        report["standard"] = next((f for f, digest in PUBLISHED.items() if digest == report["sha256"]), None)
        claimed = "/".join(place.resolve().parts[-3:])
        if report["standard"] is None and claimed in PUBLISHED:
            report["problems"].append(
                f"{claimed} is not the published file: its SHA-256 begins {report['sha256'][:12]}, "
                f"expected {PUBLISHED[claimed][:12]}."
            )
        try:
            raw = readers.read_raw(place, options)
        except ValueError as error:
            report["problems"].append(str(error))
            return report
        if base not in REAL and "/Processed/" in (known := report["standard"] or claimed):
            base = known.split("/")[0].lower()
    _examine(raw.splits, report)
    sizes = tuple(len(raw.splits[s]["labels"]) for s in SPLITS)
    if base in SIZES and sizes != SIZES[base]:
        found, expected = ("/".join(map(str, n)) for n in (sizes, SIZES[base]))
        report["problems"].append(f"The splits hold {found} samples; {base} has {expected}.")
    if report["kind"] == "file":
        try:
            dataset = readers.to_dataset(raw, place)
            raw.notes, report["fingerprint"] = list(dataset.notes), dataset.fingerprint
        except ValueError as error:
            report["problems"].append(str(error))
    notes = dict.fromkeys([*raw.notes, *report["notes"]])
    report["notes"] = [note for note in notes if note not in report["problems"]]
    return report


def _raw(dataset: Dataset) -> readers.Raw:
    """A data set as the fields of a file; modalities it lacks are left out."""
    parts: dict[str, dict[str, Any]] = {}
    for name, split in dataset.splits.items():
        part = parts[name] = {"labels": split.labels.numpy(), "ids": np.array(split.ids, dtype=object)}
        for i, m in enumerate(MODALITIES):
            if dataset.available[i]:
                part[m] = getattr(split, m).numpy()
                part[f"{m}_lengths"] = split.lengths[:, i].numpy()
        if split.tokens is not None:
            part["tokens"] = split.tokens.numpy()
        if split.raw_text is not None:
            part["raw_text"] = np.array(split.raw_text, dtype=object)
    return readers.Raw(parts, notes=list(dataset.notes))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _examine(splits: Mapping[str, dict[str, Any]], report: dict[str, Any]) -> None:
    """Fills in `splits` and `problems`."""
    say = report["problems"].append
    labels = np.concatenate([splits[s]["labels"] for s in SPLITS]).astype(float)
    scale = report["scale"] = readers.label_scale(labels[np.isfinite(labels)])
    report["problems"] += [doubt for doubt in readers.label_doubts(labels, scale) if "CLASSES" in doubt]
    missing = [m for m in MODALITIES if m not in splits["train"]]
    report["missing"] = missing
    content: dict[str, list[bytes | None]] = {}
    for s in SPLITS:
        fields = splits[s]
        part = report["splits"][s] = {
            "samples": len(fields["labels"]),
            "labels": _labels(fields["labels"], scale, s, say),
        }
        steps = {m: padding.nonzero_steps(fields[m]) for m in MODALITIES if m in fields}
        part["features"] = {m: _features(fields, m, steps[m], s, say) for m in steps}
        if "tokens" in fields:
            _mask(fields["tokens"], s, say)
        if "raw_text" in fields:
            empty = sum(not text.strip() for text in fields["raw_text"])
            if empty:
                say(f"{s}: {empty:,} transcripts are empty.")
        content[s] = _hashes(fields, steps)
    for m in MODALITIES:
        sizes = {s: splits[s][m].shape[-1] for s in SPLITS if m in splits[s]}
        if len(set(sizes.values())) > 1:
            say(f"{m} has {', '.join(f'{d} features in {s}' for s, d in sizes.items())}.")
        if m not in missing and len(sizes) < len(SPLITS):
            say(f"{m} is missing from {', '.join(s for s in SPLITS if s not in sizes)}.")
    _overlaps(splits, content, report, say)


def _labels(labels: np.ndarray, scale: str, split: str, say) -> dict[str, Any]:
    good = labels[np.isfinite(labels)].astype(float)
    if len(good) < len(labels):
        say(f"{split}: {len(labels) - len(good):,} labels are not finite.")
    if huge := int((~clean.usable(good)).sum()):
        say(f"{split}: {huge:,} labels are beyond {clean.LARGEST:g} in size; the file is refused when it is read.")
        good = good[clean.usable(good)]
    if not len(good):
        say(f"{split}: no labels.")
        return {}
    reach = LABEL_RANGE[scale]
    outside = int((np.abs(good) > reach + 1e-6).sum())
    if outside:
        say(f"{split}: {outside:,} labels lie outside [-{reach:g}, {reach:g}].")
    if good.min() == good.max():
        say(f"{split}: all labels are {good[0]:g}.")
    bars = Counter((np.rint(good / STEP[scale]) * STEP[scale] + 0.0).tolist())
    histogram = {f"{value:.3g}": count for value, count in sorted(bars.items())}
    return {
        "min": float(good.min()),
        "max": float(good.max()),
        "mean": float(good.mean()),
        "std": float(good.std()),
        "distinct": len(np.unique(good)),
        "histogram": histogram,
    }


def _features(fields: Mapping[str, Any], m: str, steps: np.ndarray, split: str, say) -> dict[str, Any]:
    """Shape, values that are not finite, constant columns and lengths of one modality."""
    x = fields[m]
    n, t, d = x.shape
    found, huge = {"NaN": 0, "+inf": 0, "-inf": 0}, 0
    low, high = np.full(d, np.inf), np.full(d, -np.inf)
    given = fields.get(f"{m}_lengths")
    if given is None and m == "text" and "tokens" in fields:
        given = fields["tokens"][:, 1].sum(-1)
    lengths = padding.last_step(steps) if given is None else given
    position = np.arange(t)
    for start in range(0, n, clean.ROWS):
        part = x[start : start + clean.ROWS]
        bad = ~np.isfinite(part)
        if bad.any():
            odd = part[bad]
            found["NaN"] += int(np.isnan(odd).sum())
            found["+inf"] += int(np.isposinf(odd).sum())
            found["-inf"] += int(np.isneginf(odd).sum())
        huge += int((np.isfinite(part) & ~clean.usable(part)).sum())
        valid = part[position < lengths[start : start + clean.ROWS, None]]
        if len(valid):  # fmin and fmax pass over NaN
            low, high = np.fmin(low, np.fmin.reduce(valid)), np.fmax(high, np.fmax.reduce(valid))
    if any(found.values()):
        what = ", ".join(f"{k:,} {name}" for name, k in found.items() if k)
        say(f"{split}: {m} holds {what} among {x.size:,} values.")
    if huge:
        say(
            f"{split}: {m} holds {huge:,} of {x.size:,} values beyond {clean.LARGEST:g} in size; no sensor gives "
            f"them and no training survives them (they are read as 0)."
        )
    constant = np.flatnonzero(~(low < high)) if n > 1 else np.empty(0, int)
    if len(constant):
        first = ", ".join(map(str, constant[:5]))
        say(f"{split}: {m} has {len(constant):,} of {d:,} columns that never change (first: {first}).")
    empty = int((~steps.any(1)).sum())
    if empty:
        say(f"{split}: {m} is all zeros in {empty:,} of {n:,} samples.")
    report = {
        "shape": [n, t, d],
        "dtype": str(x.dtype),
        **found,
        "constant_columns": constant.tolist(),
        "empty_samples": empty,
        "lengths": "given" if given is not None else "read off the last step that is not zero",
    }
    if n:
        report["length"] = {"min": int(lengths.min()), "mean": float(lengths.mean()), "max": int(lengths.max())}
    if given is not None:
        after = int((steps & (position >= given[:, None])).any(1).sum())
        faults = {
            f"lengths above its {t} steps": int((given > t).sum()),
            "negative lengths": int((given < 0).sum()),
            "lengths of 0": int((given == 0).sum()),
            "steps after the length that are not zero": after if m != "text" or "tokens" not in fields else 0,
        }
        for fault, count in faults.items():
            if count:
                say(f"{split}: {m} has {fault} in {count:,} of {n:,} samples.")
        report["nonzero_after_length"] = after
    return report


def _mask(tokens: np.ndarray, split: str, say) -> None:
    """The attention mask must be ones, then zeros; the other way round it is padded in front, which is mended."""
    broken = int((~padding.mask_starts(tokens[:, 1])[1]).sum())
    if broken:
        say(f"{split}: the attention mask of {broken:,} samples is not ones followed by zeros or the reverse.")


def _hashes(fields: Mapping[str, Any], steps: Mapping[str, np.ndarray]) -> list[bytes | None]:
    """Per sample, a hash of all features up to the last step that is not zero; None for a sample of zeros."""
    stops = {m: padding.last_step(s) for m, s in steps.items()}
    full = np.any([s.any(1) for s in steps.values()], 0) if steps else np.zeros(len(fields["labels"]), bool)
    hashes: list[bytes | None] = []
    for i in range(len(full)):
        digest = hashlib.blake2b(digest_size=16)
        for m, stop in stops.items():
            digest.update(np.ascontiguousarray(fields[m][i, : stop[i]]))
        hashes.append(digest.digest() if full[i] else None)
    return hashes


def _overlaps(splits: Mapping[str, dict[str, Any]], content: Mapping[str, list], report: dict[str, Any], say) -> None:
    """Samples that occur twice, within a split and across."""
    ids = {s: list(videos.sample_ids(s, splits[s])) for s in SPLITS}
    known = all("ids" in splits[s] or "video" in splits[s] for s in SPLITS)
    clips = {s: set(ids[s]) for s in SPLITS}
    names, reading = videos.videos(splits)
    of_videos = {s: set(names[s].tolist()) for s in SPLITS}
    if known:
        report["notes"].append(
            f"videos are known by: {reading.form} (first: {ids['train'][0]} of {names['train'][0]})."
        )
        report["notes"] += videos.doubts(names, reading)
    owner: dict[str, dict[bytes, str]] = {}
    for s in SPLITS:
        report["splits"][s]["videos"] = len(of_videos[s]) if known else None
        twice = [i for i, count in Counter(ids[s]).items() if count > 1]
        if twice:
            say(f"{s}: {len(twice):,} ids occur more than once (first: {twice[0]}).")
        owner[s] = {}
        again = []
        for i, digest in zip(ids[s], content[s], strict=True):
            if digest is not None and owner[s].setdefault(digest, i) is not i:
                again.append(f"{i} and {owner[s][digest]}")
        if again:
            say(f"{s}: {len(again):,} samples have the same features as another (first: {again[0]}).")
    for a, b in combinations(SPLITS, 2):
        for what, sets in (("clips", clips), ("videos", of_videos)):
            report["problems"] += videos.shared({s: sets[s] for s in (a, b)}, what)
        both = [digest for digest in owner[a] if digest in owner[b]]
        if both:
            first = f"{owner[a][both[0]]} and {owner[b][both[0]]}"
            say(f"{a} and {b} hold {len(both):,} samples with the same features (first: {first}).")


def render(report: Mapping[str, Any]) -> str:
    """The report as text, problems last."""
    lines = [f"{report['path']}: {report['kind']}"]
    if "sha256" in report:
        lines.append(f"  SHA-256 {report['sha256']} ({report['standard'] or 'none of the published files'})")
    if report["splits"]:
        lines.append(f"  label scale {report['scale']}, missing modalities: {', '.join(report['missing']) or 'none'}")
    for s, part in report["splits"].items():
        videos = f", {part['videos']:,} videos" if part["videos"] is not None else ""
        lines.append(f"  {s}: {part['samples']:,} samples{videos}")
        if part["labels"]:
            bars = "  ".join(f"{value}:{count}" for value, count in part["labels"]["histogram"].items())
            lines.append("    labels {min:g} to {max:g}, mean {mean:.3f}, std {std:.3f}".format(**part["labels"]))
            lines.append(f"    {bars}")
        for m, f in part["features"].items():
            n, t, d = f["shape"]
            length = "length {min} to {max}, mean {mean:.1f}".format(**f["length"]) if "length" in f else "empty"
            lines.append(f"    {m:6} [{n}, {t}, {d}] {f['dtype']}, {length} ({f['lengths']})")
    lines += [f"  note: {note}" for note in report["notes"]]
    lines += [f"  PROBLEM: {problem}" for problem in report["problems"]] or ["  no problems found"]
    return "\n".join(lines)
