"""From the ids of samples to their videos, and validation samples taken by whole videos.

Clips of one video share speaker, room and topic; a validation or test set that shares videos with training measures
something else. Which part of an id names the video is decided from all ids of a file together (`reading_of`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

NUMBER = r"\d+(?:[.:]\d+)*s?"  # 7, 0007, 10.25, 00:10.5, 7s
GAP = r"[_/#:|,\s-]+"
BRACKET = re.compile(r"(.+?)\s*[\[({][^\])}]*[\])}]")
ONE = re.compile(rf"(.+?)(?:{GAP}|\.(?=\d+$))(?:(?:clip|segment|seg|utterance|utt|sent)[_-]?)?{NUMBER}", re.IGNORECASE)
TWO = re.compile(rf"(.+?){GAP}({NUMBER}){GAP}({NUMBER})")
THREE = re.compile(rf"(.+?){GAP}{NUMBER}{GAP}{NUMBER}{GAP}{NUMBER}")
REVERSED = re.compile(r"\d+_(.*\D.*)")
FILE = re.compile(r"\.(mp4|avi|mkv|flv|webm|mov|wav|mp3|npy|txt|pt)$", re.IGNORECASE)
OWN = 0.9  # share of samples alone in their video from which an id is taken to hold more than video and clip


class Reading(NamedTuple):
    """How the ids of a file are read: the form, the video of an id, and what a reader must know (or "")."""

    form: str
    video: Callable[[str], str]
    doubt: str = ""


def video_of(sample: str) -> str:
    """The video of an id `video$_$clip` or `video_clip` on its own; an id without either is its own video."""
    return sample.split("$_$")[0] if "$_$" in sample else sample.rpartition("_")[0] or sample


def reading_of(samples: Sequence[str]) -> Reading:
    """The form of the ids of a file, from all of them together.

    In order: `video$_$clip`; `video[clip]`; `video_start_end`, if all ids end in two numbers and what stands before
    the last one names (nearly) every sample alone, as video and start do; `video_clip`. Where ids could be read both
    ways the coarser reading is taken, which never puts two clips of a video on two sides, and the doubt is said.
    """
    names = [FILE.sub("", s) for s in samples]
    n, marked = len(names), sum("$_$" in s for s in names)

    def holds(pattern: re.Pattern) -> bool:
        return all(map(pattern.fullmatch, names))

    def count(pattern: re.Pattern) -> int:
        return len({_by(pattern)(s) for s in names})

    if marked:
        doubt = f"only {marked:,} of {n:,} ids have the form video$_$clip" if marked < n else ""
        return Reading("video$_$clip", video_of, doubt)
    if holds(BRACKET):
        return Reading("video[clip]", _by(BRACKET))
    if holds(TWO):
        alone, coarse, rising = count(ONE), count(TWO), all(map(_rises, names))
        if coarse >= OWN * n and holds(THREE) and 1 < count(THREE) < n:
            return Reading("video_clip_start_end", _by(THREE))
        if 1 < coarse < alone and (alone >= OWN * n or (rising and alone > n / 2)):
            sure = alone == n and rising
            doubt = "" if sure else "the ids end in two numbers, which may also be a video's own and a clip"
            return Reading("video_start_end", _by(TWO), doubt)
    if holds(ONE):
        return Reading("video_clip", _by(ONE))
    if holds(REVERSED) and count(REVERSED) < n:
        return Reading("clip_video", _by(REVERSED), "the ids begin with a number and end in a name")
    split = sum("_" in s for s in names)
    doubt = f"only {split:,} of {n:,} ids hold an underscore before a clip" if 0 < split < n else ""
    return Reading("video_clip" if split else "names without a clip", video_of, doubt)


def _by(pattern: re.Pattern) -> Callable[[str], str]:
    """The video of an id as the first group of `pattern`."""

    def video(sample: str) -> str:
        match = pattern.fullmatch(FILE.sub("", sample))
        return match[1] if match else video_of(sample)

    return video


def _rises(sample: str) -> bool:
    """Whether the two numbers at the end of an id are a start and a later end."""
    _, start, end = TWO.fullmatch(sample).groups()
    return _seconds(start) < _seconds(end)


def _seconds(number: str) -> float:
    """7 -> 7.0, 7.25s -> 7.25, 01:10.5 -> 70.5; the second dot of 1.2.3 counts for nothing."""
    total = 0.0
    for part in number.rstrip("s").split(":"):
        whole, _, decimals = part.partition(".")
        total = 60 * total + float(f"{whole}.{decimals.replace('.', '')}")
    return total


def sample_ids(part: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of a part's samples; numbered where the file has none."""
    if "ids" in fields:
        return tuple(fields["ids"])
    return tuple(f"{part}{i:06d}" for i in range(len(fields["labels"])))


def videos(parts: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], Reading]:
    """The video of each sample of each part, and how the ids were read.

    A column of video names is taken as it is; samples without ids count as videos of their own.
    """
    known = [i for s, fields in parts.items() if "ids" in fields for i in sample_ids(s, fields)]
    reading = reading_of(known) if known else Reading("there are no ids", str)
    if all("video" in fields for fields in parts.values()):
        reading = Reading("a column of video names", str)
    named = {}
    for s, fields in parts.items():
        own = sample_ids(s, fields)
        column = fields.get("video", list(map(reading.video, own)) if "ids" in fields else own)
        named[s] = np.array([str(v) for v in column], dtype=object)
    return named, reading


def doubts(named: Mapping[str, np.ndarray], reading: Reading) -> list[str]:
    """What a reader must know before trusting a cut by video; empty if it can be trusted."""
    alone = all(len(set(v.tolist())) == len(v) for v in named.values()) and sum(map(len, named.values())) > 1
    said = [f"{reading.doubt}: they are read as {reading.form}."] if reading.doubt else []
    if alone:
        said.append(
            f"every sample counts as a video of its own ({reading.form}): clips of one video may stand on both sides "
            f"of a cut by video, and nothing here can show it."
        )
    return said


def shared(named: Mapping[str, Collection[str]], what: str = "videos") -> list[str]:
    """Which parts hold the same videos (or clips), a sentence each pair: a test on them flatters."""
    said = []
    for a, b in combinations(named, 2):
        if both := sorted(set(named[a]) & set(named[b])):
            said.append(f"{a} and {b} share {len(both):,} {what} (first: {both[0]}).")
    return said


def take(names: np.ndarray, share: float, where: str) -> tuple[np.ndarray, int]:
    """[N] video names -> [N] bool, True for whole videos of at least `share` of the samples, and how many videos."""
    sizes = Counter(names.tolist())
    taken: set[str] = set()
    size = 0
    for name in sorted(sizes, key=lambda v: hashlib.sha256(v.encode()).digest())[: len(sizes) - 1]:
        if size >= share * len(names):
            break
        taken.add(name)
        size += sizes[name]
    if not taken:
        raise ValueError(
            f"{where}: the samples are all of one video ({names[0]}), so no validation videos can be taken out; "
            f"expected a valid part, or ids or a video_id that name the videos."
        )
    return np.array([v in taken for v in names.tolist()]), len(taken)
