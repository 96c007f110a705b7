"""All checks that need no training, in one list: collected, one finding per fact, printed, and kept as small files.

Three layers: the facts that matter most (`place` in innocent/), the other findings in groups, and one table of open
choices per paper.
"""

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from papers_check import PAPERS as STUDIED
from papers_check import controls, gaps
from papers_check.claims import NOTHING_PRINTED
from papers_check.finding import GROUPS, PAPERS, SEVERITIES, Finding, by_severity, found, judged
from papers_check.papers import TITLES as PAPER_TITLES

FINDINGS = Path(__file__).parent / "findings"
# Each module has `findings()` and `checked()`.
MODULES = ("claims", "gaps", "checklist", "external", "within", "possible", "between", "equations", "margins")
TITLES = PAPER_TITLES | {"both": "both papers"}
SURVIVES = {
    "yes": "The finding stands under every reading listed.",
    "no": "One of these readings clears it; the finding is listed for information.",
    "unknown": "Whether one of these readings holds cannot be told from the paper.",
}
PRINTED = {"words": "Printed", "cells": "Printed (list of cells)", "nothing": "Printed"}
OPEN = "open choices"  # the group whose pages are tables of gaps


def collect() -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """Every finding, worst first, and per module how many things were checked and how many places it marked.

    Raises ValueError where two findings have one id, or one has no innocent reading.
    """
    items, counts = [], {}
    for name in MODULES:
        module = import_module(f"papers_check.{name}")
        here = module.findings()
        counts[name] = (module.checked(), len(here))
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
        target = judged(item.check, item.id)["part_of"].format(paper=item.paper)
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
    return found(
        first.check,
        target,
        "; ".join(dict.fromkeys(_where(item, target).partition(", row ")[0] for item in members)),
        first.quote if one else "\n".join(dict.fromkeys(quotes)),
        first.computed if one else f"{len(members)} places, a line each",
        first.verdict if len(verdicts) == 1 else judged(first.check, target)["title"] or "; ".join(verdicts),
        first.explanation if one else f"For the first: {first.explanation}",
        "cells" if cells else first.quoted,
    )


def _where(item: Finding, target: str) -> str:
    return _place(item) if target.startswith("both-") else item.where


def _place(item: Finding) -> str:
    """Paper and place; of both papers the place names each."""
    return item.where if item.paper == "both" else f"{TITLES[item.paper]}, {item.where}"


def _line(item: Finding, target: str) -> str:
    return f"{_where(item, target)}: {item.computed}"


def facts(items: Iterable[Finding]) -> list[Finding]:
    """The facts that matter most, in their order."""
    return sorted((item for item in items if item.place), key=lambda item: item.place)


def grouped(items: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The other findings by group, worst first within each; groups without any are left out."""
    rest = [item for item in items if not item.place]
    groups = {group: by_severity(item for item in rest if item.group == group) for group in GROUPS}
    return {group: part for group, part in groups.items() if part}


# --- as text ----------------------------------------------------------------------------------------------------------


def summary(items: list[Finding], counts: Mapping[str, tuple[int, int]]) -> str:
    """What was checked and found: per module, then per group and severity."""
    lines = [f"{'checked by':<12}{'things':>8}{'marked':>10}"]
    lines += [f"{name:<12}{checked:>8}{number:>10}" for name, (checked, number) in counts.items()]
    lines += ["", f"{'findings':<26}" + "".join(f"{severity:>8}" for severity in SEVERITIES)]
    table = Counter((item.group, item.severity) for item in items)
    for group in GROUPS:
        if any(table[group, severity] for severity in SEVERITIES):
            lines.append(f"{group:<26}" + "".join(f"{table[group, severity] or '–':>8}" for severity in SEVERITIES))
    totals = Counter(item.severity for item in items)
    lines.append(f"{'all':<26}" + "".join(f"{totals[severity]:>8}" for severity in SEVERITIES))
    return "\n".join(lines)


def text(items: Iterable[Finding], full: Iterable[str] = ("high", "medium")) -> str:
    """The findings in the order given: the severities in `full` with everything they say, the rest on a line each."""
    blocks = []
    for item in items:
        head = f"[{item.severity}] {item.id}: {item.verdict}"
        if item.severity not in full:
            blocks.append(head)
            continue
        printed = [f"printed:  {line}" for line in item.quote.splitlines()]
        cleared = f"cleared?  {item.innocent_reading} {SURVIVES[item.survives]}"
        body = (item.title, _place(item), *printed, cleared, f"computed: {item.computed}")
        more = [f"          {line}" for line in item.instances]
        blocks.append("\n    ".join((f"\n{head}", *body, *more, item.explanation, item.control)))
    return "\n".join(blocks)


# --- as files ---------------------------------------------------------------------------------------------------------


def pages(items: list[Finding]) -> dict[str, str]:
    """File name -> Markdown: one page per finding and the index."""
    return {"README.md": _index(items)} | {f"{item.id}.md": _page(item) for item in items}


def write(items: list[Finding], folder: Path = FINDINGS) -> None:
    """Make `folder` hold exactly the pages of `items`; other Markdown files in it are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages(items)
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, page in made.items():
        (folder / name).write_text(page, encoding="utf-8")


def stale(items: list[Finding], folder: Path = FINDINGS) -> list[str]:
    """The names of pages in `folder` that are missing, left over, or differ from what `items` gives."""
    made = pages(items)
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def _page(item: Finding) -> str:
    parts = [
        f"# {_plain(item.title)}",
        f"{_plain(_place(item))} · severity: {item.severity} · group: {item.group}",
    ]
    if item.quoted != "nothing":
        parts += [f"{PRINTED[item.quoted]}:", f"```text\n{item.quote.strip()}\n```"]
    parts += [
        f"What would clear the authors: {_plain(item.innocent_reading)} {SURVIVES[item.survives]}",
        f"Computed: {_plain(item.computed)}",
    ]
    if item.instances:
        parts.append("\n".join(f"- {_plain(line)}" for line in item.instances))
    parts += [f"Verdict: **{_plain(item.verdict)}**", _plain(item.explanation), f"Control: {_plain(item.control)}"]
    if item.group == OPEN:
        parts.append(_gap_table(item.paper))
    return "\n\n".join(parts) + "\n"


def _gap_table(paper: str) -> str:
    head = ["| item | where | printed | could mean | our choice | switch |", "|---|---|---|---|---|---|"]
    return "\n".join(head + ["| " + " | ".join(_plain(cell) for cell in line) + " |" for line in gaps.table(paper)])


def _index(items: list[Finding]) -> str:
    totals = Counter(item.severity for item in items)
    papers = Counter(item.paper for item in items)
    rows = [f"| {f.place} | [{_plain(f.title)}]({f.id}.md) | {_plain(_place(f))} | {f.severity} |"
            for f in facts(items)]  # fmt: skip
    parts = [
        "# Findings",
        "Made by `python -m papers_check --write`; edit the checks and `papers_check/innocent`, not these pages. A "
        "finding says what is printed, what would clear the authors, and what can be computed; never why a number is "
        "as it is. The papers were read as text: rows, bold type and dashes can get lost on the way from the page to "
        "the text, so look at the printed page before relying on anything that is said to be absent.",
        "high: holds under every reading listed, needs nothing but the paper or a source read here, and changes a "
        "conclusion. medium: the same for a printed result or equation. low: a slip, or only possible, or resting on a "
        "source not read here. note: for information. One function of the data in `innocent/` decides.",
        f"{len(items)} findings: " + ", ".join(f"{totals[severity]} {severity}" for severity in SEVERITIES) + "; "
        "" + ", ".join(f"{papers[paper]} on {TITLES[paper]}" for paper in PAPERS) + ".",
        "\n".join(["## The facts that matter most\n", "| | fact | where | severity |", "|---|---|---|---|", *rows]),
    ]
    for group, chosen in grouped(items).items():
        if group == OPEN:
            continue
        lines = [f"| [{_plain(f.title)}]({f.id}.md) | {_plain(_place(f))} | {f.severity} |"
                 for f in chosen]  # fmt: skip
        parts.append(
            "\n".join([f"## {group.capitalize()}\n", "| finding | where | severity |", "|---|---|---|", *lines])
        )
    tables = [f"- [{TITLES[paper]}]({item.id}.md): {_plain(item.computed)}" for paper in STUDIED
              for item in items if item.group == OPEN and item.paper == paper]  # fmt: skip
    parts.append("\n".join(["## Open choices\n", *tables]))
    return "\n\n".join(parts) + "\n"


def _plain(words: str) -> str:
    """Text that Markdown shows as it is, without backslashes."""
    words = html.escape(words, quote=False).replace("\n", " ")
    for mark in "\\`*|$":
        words = words.replace(mark, f"&#{ord(mark)};")
    return words
