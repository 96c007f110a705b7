"""All checks that need no training, in one list, one finding per fact. Shown by `show`.

Three layers: the facts that matter most (`place` in innocent/), the other findings in groups, and one table of open
choices per paper.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from papers_check.checks import (
    checklist,
    claims,
    controls,
    equations,
    external,
    gain_noise,
    gaps,
    one_table,
    score_limits,
    two_papers,
)
from papers_check.checks.claims import NOTHING_PRINTED
from papers_check.checks.finding import GROUPS, Finding, by_severity, innocent, new_finding
from papers_check.printed.papers import DATA, TITLES

FINDINGS = DATA / "findings"
# Each module has `findings()` and `examined()`, how many things it looked at.
MODULES = (claims, gaps, checklist, external, one_table, score_limits, two_papers, equations, gain_noise)
SUBJECT_TITLES = TITLES | {"both": "both papers"}
SURVIVES = {
    "yes": "The finding stands under every reading listed.",
    "no": "One of these readings clears it; the finding is listed for information.",
    "unknown": "Whether one of these readings holds cannot be told from the paper.",
}
PRINTED = {"words": "Printed", "cells": "Printed (list of cells)", "nothing": "Printed"}
OPEN = "open choices"  # the group whose pages are tables of gaps


def run_checks() -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """Every finding, worst first, and per module how many things it examined and how many places it marked.

    Raises ValueError where two findings have one id, or one has no innocent reading.
    """
    items, counts = [], {}
    for module in MODULES:
        here = module.findings()
        counts[module.__name__.rpartition(".")[2]] = (module.examined(), len(here))
        items += here
    lines = controls.lines()
    return by_severity(replace(item, control=lines.get(item.check, controls.NONE)) for item in merged(items)), counts


def merged(items: Iterable[Finding]) -> list[Finding]:
    """One finding per fact: those that `part_of` in innocent/ names as part of another become its instances."""
    items = list(items)
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise ValueError(f"finding id {twice[0]!r} occurs twice: expected every id once")
    kept, parts = {}, {}
    for item in items:
        target = innocent(item.check, item.id)["part_of"].format(paper=item.paper)
        if target and target != item.id:
            parts.setdefault(target, []).append(item)
        else:
            kept[item.id] = item
    for target, members in parts.items():
        whole = kept.get(target) or _whole(target, members)
        lines = [line for item in members for line in (item.instances or (_line(item, target),))]
        if target not in kept and len(members) == 1:
            lines = members[0].instances  # what it computed is said already
        computed = f"{len(lines)} places, a line each" if whole.computed == NOTHING_PRINTED else whole.computed
        kept[target] = replace(whole, computed=computed, instances=(*whole.instances, *lines))
    return list(kept.values())


def _whole(target: str, members: list[Finding]) -> Finding:
    """A finding that only gathers places: what the first of them says, under an id of its own."""
    first, one = members[0], len(members) == 1
    cells = [f"{_where(item, target)}: {item.quote}" for item in members if item.quoted == "cells"]
    quotes = cells or [item.quote for item in members]
    verdicts = dict.fromkeys(item.verdict for item in members)
    return new_finding(
        first.check,
        target,
        "; ".join(dict.fromkeys(_where(item, target).partition(", row ")[0] for item in members)),
        first.quote if one else "\n".join(dict.fromkeys(quotes)),
        first.computed if one else f"{len(members)} places, a line each",
        first.verdict if len(verdicts) == 1 else innocent(first.check, target)["title"] or "; ".join(verdicts),
        first.explanation if one else f"For the first: {first.explanation}",
        "cells" if cells else first.quoted,
    )


def _where(item: Finding, target: str) -> str:
    return located(item) if target.startswith("both-") else item.where


def located(item: Finding) -> str:
    """Paper and place; of both papers the place names each."""
    return item.where if item.paper == "both" else f"{SUBJECT_TITLES[item.paper]}, {item.where}"


def _line(item: Finding, target: str) -> str:
    return f"{_where(item, target)}: {item.computed}"


def key_facts(items: Iterable[Finding]) -> list[Finding]:
    """The facts that matter most, in their order."""
    return sorted((item for item in items if item.place), key=lambda item: item.place)


def grouped(items: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The other findings by group, worst first within each; groups without any are left out."""
    rest = [item for item in items if not item.place]
    groups = {group: by_severity(item for item in rest if item.group == group) for group in GROUPS}
    return {group: part for group, part in groups.items() if part}
