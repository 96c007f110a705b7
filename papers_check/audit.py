"""All checks that need no training, in one list: collected, printed worst first, and kept as one small file each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from papers_check.finding import KINDS, PAPERS, SEVERITIES, Finding, by_severity
from papers_check.papers import TITLES as PAPER_TITLES

FINDINGS = Path(__file__).parent / "findings"
# Each module has `findings()` and `checked()`.
MODULES = ("claims", "gaps", "checklist", "external", "within", "possible", "between", "equations")
TITLES = PAPER_TITLES | {"both": "both papers"}

# Gaps whose effect an equation finding shows by computation: one finding says both.
SHOWN_BY = {
    "amsgfn-gap-argmax": "amsgfn-arithmetic-eq4-no-gradient",
    "amsgfn-gap-nce-form": "amsgfn-missing-eq18-nce",
    "amsgfn-gap-ntxent": "amsgfn-conflict-eq1-named-loss",
    "amsgfn-gap-pair-weights": "amsgfn-missing-eq2-alignment-scale",
    "amsgfn-gap-positions": "amsgfn-arithmetic-order-blind",
    "amsgfn-gap-readout": "amsgfn-missing-eq16-readout",
    "dsrf-gap-ambiguity-entropy": "dsrf-arithmetic-eq5-ambiguity-entropy",
    "dsrf-gap-calibration": "dsrf-arithmetic-eq15-calibration-cancels",
    "dsrf-gap-head": "dsrf-missing-eq16-softmax-mae",
    "dsrf-gap-independence": "dsrf-arithmetic-eq3-orthogonality",
    "dsrf-gap-noise-loss": "dsrf-conflict-eq6-noise-contrast",
    "dsrf-gap-reconstruction-use": "dsrf-conflict-eq11-unused-reconstruction",
    "dsrf-gap-two-formulas": "dsrf-conflict-eq13-two-fusions",
    "dsrf-gap-uncertainty-scale": "dsrf-arithmetic-noise-norm",
    "dsrf-gap-usf-entropy-sign": "dsrf-conflict-eq17-entropy-sign",
    "dsrf-gap-votes": "dsrf-arithmetic-eq8-equal-capsules",
}


def collect() -> tuple[list[Finding], dict[str, tuple[int, int]]]:
    """Every finding, worst first, and per module how many things were checked and how many findings they gave.

    Raises ValueError where two findings have one id.
    """
    found, counts = [], {}
    for name in MODULES:
        module = import_module(f"papers_check.{name}")
        here = module.findings()
        counts[name] = (module.checked(), len(here))
        found += here
    return by_severity(merged(found)), counts


def merged(found: list[Finding], shown_by: dict[str, str] = SHOWN_BY) -> list[Finding]:
    """The findings without the gaps that another one shows; what we chose for the gap is added to that one."""
    twice = [name for name, count in Counter(finding.id for finding in found).items() if count > 1]
    if twice:
        raise ValueError(f"finding id {twice[0]!r} occurs twice: expected every id once")
    by_id = {finding.id: finding for finding in found}
    for gap, equation in shown_by.items():
        if gap in by_id and equation in by_id:
            choice = by_id.pop(gap).computed
            by_id[equation] = replace(by_id[equation], computed=f"{by_id[equation].computed}; {choice}")
    return list(by_id.values())


# --- as text ----------------------------------------------------------------------------------------------------------


def summary(found: list[Finding], counts: dict[str, tuple[int, int]]) -> str:
    """What was checked and found: per module, then per kind and severity."""
    lines = [f"{'checked by':<12}{'things':>8}{'findings':>10}"]
    lines += [f"{name:<12}{checked:>8}{number:>10}" for name, (checked, number) in counts.items()]
    lines += ["", f"{'kind':<12}" + "".join(f"{severity:>8}" for severity in SEVERITIES)]
    table = Counter((finding.kind, finding.severity) for finding in found)
    for kind in KINDS:
        if any(table[kind, severity] for severity in SEVERITIES):
            lines.append(f"{kind:<12}" + "".join(f"{table[kind, severity] or '–':>8}" for severity in SEVERITIES))
    totals = Counter(finding.severity for finding in found)
    lines.append(f"{'all':<12}" + "".join(f"{totals[severity]:>8}" for severity in SEVERITIES))
    return "\n".join(lines)


def text(found: Iterable[Finding], full: Iterable[str] = ("high", "medium")) -> str:
    """The findings in the order given: the severities in `full` with everything they say, the rest on a line each."""
    blocks = []
    for finding in found:
        head = f"[{finding.severity}] {finding.id}: {finding.verdict}"
        if finding.severity not in full:
            blocks.append(head)
            continue
        where = f"{TITLES[finding.paper]}, {finding.where}"
        body = (where, f"printed:  {finding.quote}", f"computed: {finding.computed}", finding.explanation)
        blocks.append("\n    ".join((f"\n{head}", *body)))
    return "\n".join(blocks)


# --- as files ---------------------------------------------------------------------------------------------------------


def pages(found: list[Finding]) -> dict[str, str]:
    """File name -> Markdown: one page per finding and the index."""
    return {"README.md": _index(found)} | {f"{finding.id}.md": _page(finding) for finding in found}


def write(found: list[Finding], folder: Path = FINDINGS) -> None:
    """Make `folder` hold exactly the pages of `found`; other Markdown files in it are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages(found)
    for path in folder.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, page in made.items():
        (folder / name).write_text(page, encoding="utf-8")


def stale(found: list[Finding], folder: Path = FINDINGS) -> list[str]:
    """The names of pages in `folder` that are missing, left over, or differ from what `found` gives."""
    made = pages(found)
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))


def _page(finding: Finding) -> str:
    return f"""# {finding.id}

- paper: {TITLES[finding.paper]}
- where: {_plain(finding.where)}
- kind: {finding.kind}
- verdict: **{_plain(finding.verdict)}**
- severity: {finding.severity}

Printed:

```text
{finding.quote.strip()}
```

Computed: {_plain(finding.computed)}

{_plain(finding.explanation)}
"""


def _index(found: list[Finding]) -> str:
    totals = Counter(finding.severity for finding in found)
    papers = Counter(finding.paper for finding in found)
    parts = [
        "# Findings",
        "Made by `python -m papers_check --write`; edit the checks, not these pages. Each finding can be verified by "
        "hand with the paper at hand. A finding says what is printed and what can be computed from it, not why.",
        f"{len(found)} findings: " + ", ".join(f"{totals[severity]} {severity}" for severity in SEVERITIES) + "; "
        "" + ", ".join(f"{papers[paper]} on {TITLES[paper]}" for paper in PAPERS) + ".",
        "high: a conclusion or a headline number is touched. medium: a number or a comparison is wrong or cannot be "
        "checked. low: a slip. note: for information.",
    ]
    for severity in SEVERITIES:
        chosen = [finding for finding in found if finding.severity == severity]
        if chosen:
            rows = [f"| [{f.id}]({f.id}.md) | {_plain(f.where)} | {_plain(f.verdict)} |" for f in chosen]
            parts.append("\n".join([f"## {severity}\n", "| finding | where | verdict |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _plain(words: str) -> str:
    """Text that Markdown shows as it is."""
    for mark in "\\`*_|<>[]$":
        words = words.replace(mark, "\\" + mark)
    return words
