"""The two papers against each other: one method, one data set, and two printed values; or one value in two places.

Each check yields one item per thing examined: a finding, or None where nothing is wrong.
"""

from collections.abc import Iterator
from itertools import combinations, product

from papers_check import PAPERS, arithmetic
from papers_check.finding import Finding
from papers_check.papers import COMPARISONS, METHODS, NAMES, TITLES
from papers_check.rows import Row, column, rows, slug


def findings() -> list[Finding]:
    """What the two papers print differently, and what coincides where it should not."""
    return [item for item in examine(rows()) if item is not None]


def checked() -> int:
    """How many methods, tables and pairs of rows were compared."""
    return sum(1 for _ in examine(rows()))


def examine(found: list[Row]) -> Iterator[Finding | None]:
    """All checks of this module over the comparison tables, every two papers side by side."""
    found = [row for row in found if (row.paper, row.table) in COMPARISONS]
    for dataset in NAMES:
        papers = [[row for row in found if row.paper == paper and row.dataset == dataset] for paper in PAPERS]
        for pair in combinations(filter(None, papers), 2):
            for first, second in product(*pair):
                if method(first) == method(second) and not first.own:
                    yield two_values(first, second)
                elif not first.own and not second.own:
                    yield one_row_two_methods(first, second)
            yield two_best(*pair)
        for ours in filter(None, papers):
            if theirs := [row for row in found if row.dataset == dataset and row.paper != ours[0].paper]:
                yield stronger_baselines(ours, theirs)
    yield mixed_sources(found)


def _pair(first: Row, second: Row) -> str:
    """The two papers at the end of an id, where they are not the first two."""
    return "" if (first.paper, second.paper) == PAPERS[:2] else f"-{first.paper}-{second.paper}"


def method(row: Row) -> str:
    """A method's name without spelling: "MuT" and "Mult" are one."""
    known = METHODS.get((row.paper, row.name))
    return known.method if known else slug(row.name)


def agree(a: str, b: str) -> bool:
    """Whether two printed numbers can be roundings of one: 85.1 and 85.10 can, 78.3 and 78.38 cannot."""
    (low_a, high_a), (low_b, high_b) = arithmetic.interval(a), arithmetic.interval(b)
    return low_a <= high_b and low_b <= high_a


def better(metric: str, a: str, b: str) -> bool:
    """Whether printed a is a better score than printed b."""
    return float(a) < float(b) if metric == "mae" else float(a) > float(b)


def two_values(first: Row, second: Row) -> Finding | None:
    """One method on one data set in both papers: the cells that differ, and whether two merely changed places."""
    shared = [key for key in first.cells if key in second.cells]
    differ = [key for key in shared if not agree(first.cells[key], second.cells[key])]
    if not differ:
        return None
    where = f"{TITLES[first.paper]} {first.where}; {TITLES[second.paper]} {second.where}"
    quote = "; ".join(f"{TITLES[row.paper]}: {row.quote(*differ)}" for row in (first, second))
    if len(differ) == 2:
        a, b = differ
        if agree(first.cells[a], second.cells[b]) and agree(first.cells[b], second.cells[a]):
            return Finding(
                id="-".join(("both-swap", first.dataset, *map(slug, (first.name, column(*a), column(*b)))))
                + _pair(first, second),
                kind="swap",
                paper="both",
                where=where,
                quote=quote,
                computed=f"the same two numbers, exchanged; the other {len(shared) - 2} cells of the row agree",
                verdict=f"{column(*a)} and {column(*b)} exchanged in one of the papers",
                severity="medium",
                explanation=f"Both papers print the same two numbers for {first.name}, in opposite columns; the "
                "rest of the row is equal, so one of them has exchanged the columns.",
            )
    steps = [abs(float(first.cells[key]) - float(second.cells[key])) for key in differ]
    scaled = [step if key[0] not in ("mae", "corr") else 100 * step for key, step in zip(differ, steps, strict=True)]
    last_digit = max(scaled) < 0.15
    worst = differ[scaled.index(max(scaled))]
    return Finding(
        id=f"both-conflict-{first.dataset}-{slug(first.name)}{_pair(first, second)}",
        kind="conflict",
        paper="both",
        where=where,
        quote=quote,
        computed=f"{len(differ)} of {len(shared)} shared cells differ, most in {column(*worst)}: "
        f"{first.cells[worst]} against {second.cells[worst]}",
        verdict="conflicts in the last digit" if last_digit else "conflicts",
        severity="note" if last_digit else "low",
        explanation="One method on one test set has two values: "
        + (
            "a truncated copy would do it."
            if last_digit
            else "they come from different sources or runs, or one is wrong."
        ),
    )


def one_row_two_methods(first: Row, second: Row) -> Finding | None:
    """Two different methods, one in each paper, with at least three accuracies or F1 and every shared cell equal."""
    shared = [key for key in first.cells if key in second.cells]
    if len(shared) < 4 or not all(agree(first.cells[key], second.cells[key]) for key in shared):
        # A single cell may be a truncated copy; it must not hide the others.
        off = [key for key in shared if not agree(first.cells[key], second.cells[key])]
        if len(shared) < 4 or len(off) > 1 or abs(float(first.cells[off[0]]) - float(second.cells[off[0]])) >= 0.1:
            return None
    return Finding(
        id=f"both-duplicate-{first.dataset}-{slug(first.name)}-{slug(second.name)}{_pair(first, second)}",
        kind="duplicate",
        paper="both",
        where=f"{TITLES[first.paper]} {first.where}; {TITLES[second.paper]} {second.where}",
        quote=f"{first.name}: {first.quote(*shared)}; {second.name}: {second.quote(*shared)}",
        computed=f"{len(shared)} shared cells are equal, one at most up to a dropped digit",
        verdict="coincides to the last digit",
        severity="low",
        explanation=f"{TITLES[first.paper]} has for {first.name} what {TITLES[second.paper]} has for {second.name}.",
    )


def stronger_baselines(ours: list[Row], theirs: list[Row]) -> Finding | None:
    """Baselines in other papers' tables that beat this paper's best baseline, or its own model."""
    own = next(row for row in ours if row.own)
    lines, overtaken, halved = [], False, False
    for key, value in own.cells.items():
        metric = key[0]
        mine = [row.cells[key] for row in ours if not row.own and key in row.cells]
        other = [(row.cells[key], row.name) for row in theirs if not row.own and key in row.cells]
        if not mine or not other:
            continue
        best = _best(metric, [(text, "") for text in mine])[0]
        rival, name = _best(metric, other)
        if not better(metric, rival, best) or agree(rival, best):
            continue
        beats = better(metric, rival, value)
        overtaken |= beats
        gains = [abs(float(value) - float(text)) for text in (best, rival)]
        halved |= 2 * gains[1] < gains[0]
        digits = 3 if metric in ("mae", "corr") else 2
        left = "own model behind" if beats else f"gain {gains[1]:.{digits}f} instead of {gains[0]:.{digits}f}"
        lines.append(f"{column(*key)} {rival} ({name}) against {best} here and {value} own: {left}")
    if not lines:
        return None
    sources = dict.fromkeys(f"{TITLES[row.paper]} Table {row.table}" for row in theirs)
    return Finding(
        id=f"{own.paper}-conflict-stronger-baselines-table{own.table}-{own.dataset}",
        kind="conflict",
        paper=own.paper,
        where=f"Table {own.table}, {NAMES[own.dataset]}",
        quote=f"own row: {own.quote()}",
        computed=f"baselines printed in {', '.join(sources)}: {'; '.join(lines)}",
        verdict="not the best baseline",
        severity="high" if overtaken else "medium" if halved else "low",
        explanation="The other paper prints stronger baselines for the same test set, some for methods this table also "
        "has: the gain over the best baseline depends on which printed number of a baseline one takes.",
    )


def _best(metric: str, values: list[tuple[str, str]]) -> tuple[str, str]:
    chosen = min if metric == "mae" else max
    return chosen(values, key=lambda item: float(item[0]))


def two_best(first: list[Row], second: list[Row]) -> Finding | None:
    """The two papers' own rows on one data set; both are called the state of the art."""
    a, b = (next(row for row in group if row.own) for group in (first, second))
    wins = {row.paper: [] for row in (a, b)}
    for key in a.cells:
        if key in b.cells and a.cells[key] != b.cells[key]:
            winner = a if better(key[0], a.cells[key], b.cells[key]) else b
            wins[winner.paper].append(column(*key))
    shared = [key for key in a.cells if key in b.cells]
    return Finding(
        id=f"both-reference-two-best-{a.dataset}{_pair(a, b)}",
        kind="reference",
        paper="both",
        where="; ".join(f"{TITLES[row.paper]} {row.where}" for row in (a, b)),
        quote="; ".join(f"{TITLES[row.paper]}: {row.quote(*shared)}" for row in (a, b)),
        computed="; ".join(f"{TITLES[paper]} better in {', '.join(names) or 'none'}" for paper, names in wins.items()),
        verdict="cannot both be the best",
        severity="note",
        explanation="Both papers call their row the state of the art on this test set; neither mentions the other.",
    )


def mixed_sources(found: list[Row]) -> Finding | None:
    """Methods whose row is that of the other paper on one data set and another one on the next.

    Of the first two papers, whose captions were read for the explanation.
    """
    verdicts: dict[str, dict[str, bool | None]] = {}
    names = {}
    for first, second in product(
        *([row for row in found if row.paper == paper and not row.own] for paper in PAPERS[:2])
    ):
        if first.dataset == second.dataset and method(first) == method(second):
            shared = [key for key in first.cells if key in second.cells]
            equal = sum(agree(first.cells[key], second.cells[key]) for key in shared)
            alike = True if equal >= len(shared) - 1 else False if 4 * equal <= len(shared) else None
            verdicts.setdefault(method(first), {})[first.dataset] = alike
            names.setdefault(method(first), {})[first.dataset] = f"{equal}/{len(shared)}"
    mixed = [name for name, equal in verdicts.items() if {True, False} <= set(equal.values())]
    if not mixed:
        return None
    shown = [f"{name} ({', '.join(f'{NAMES[d]} {k}' for d, k in names[name].items())})" for name in mixed]
    return Finding(
        id="both-reference-mixed-sources",
        kind="reference",
        paper="both",
        where="AMSGFN Tables 2 to 4; DSRF Tables 1 and 2",
        quote="; ".join(shown),
        computed=f"cells that both papers print alike for these {len(mixed)} methods: nearly all on one data set, few "
        "or none on another",
        verdict="sources are mixed and not stated",
        severity="low",
        explanation="AMSGFN marks no source for any baseline row. On one data set its numbers are those DSRF "
        "attributes to Mao et al. (2022) or to re-runs, on another they are not: one method's row changes origin "
        "between tables.",
    )
