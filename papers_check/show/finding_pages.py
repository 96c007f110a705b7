"""The findings as text for a terminal, and as the small Markdown files of `findings/`."""

import html
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from papers_check.checks import gaps
from papers_check.checks.audit import OPEN, PRINTED, SUBJECT_TITLES, SURVIVES, grouped, key_facts, located
from papers_check.checks.finding import GROUPS, SEVERITIES, SUBJECTS, Finding
from papers_check.printed.papers import DATA, PAPERS

FINDINGS = DATA / "findings"


# --- as text ----------------------------------------------------------------------------------------------------------


def counts_text(items: list[Finding], counts: Mapping[str, tuple[int, int]]) -> str:
    """What was examined and found: per module, then per group and severity."""
    lines = [f"{'checked by':<12}{'things':>8}{'marked':>10}"]
    lines += [f"{name:<12}{examined:>8}{number:>10}" for name, (examined, number) in counts.items()]
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
        body = (item.title, located(item), *printed, cleared, f"computed: {item.computed}")
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
        f"{_plain(located(item))} · severity: {item.severity} · group: {item.group}",
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
    rows = [f"| {f.place} | [{_plain(f.title)}]({f.id}.md) | {_plain(located(f))} | {f.severity} |"
            for f in key_facts(items)]  # fmt: skip
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
        "" + ", ".join(f"{papers[paper]} on {SUBJECT_TITLES[paper]}" for paper in SUBJECTS) + ".",
        "\n".join(["## The facts that matter most\n", "| | fact | where | severity |", "|---|---|---|---|", *rows]),
    ]
    for group, chosen in grouped(items).items():
        if group == OPEN:
            continue
        lines = [f"| [{_plain(f.title)}]({f.id}.md) | {_plain(located(f))} | {f.severity} |"
                 for f in chosen]  # fmt: skip
        parts.append(
            "\n".join([f"## {group.capitalize()}\n", "| finding | where | severity |", "|---|---|---|", *lines])
        )
    tables = [f"- [{SUBJECT_TITLES[paper]}]({item.id}.md): {_plain(item.computed)}" for paper in PAPERS
              for item in items if item.group == OPEN and item.paper == paper]  # fmt: skip
    parts.append("\n".join(["## Open choices\n", *tables]))
    return "\n\n".join(parts) + "\n"


def _plain(words: str) -> str:
    """Text that Markdown shows as it is, without backslashes."""
    words = html.escape(words, quote=False).replace("\n", " ")
    for mark in "\\`*|$":
        words = words.replace(mark, f"&#{ord(mark)};")
    return words
