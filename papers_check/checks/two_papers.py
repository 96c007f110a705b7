"""The two papers against each other: one method, one data set, and two printed values; or one value in two places.

Each check yields one item per thing examined: a finding, or None where nothing is wrong.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import combinations, product

from papers_check.checks.finding import Finding, new_finding
from papers_check.printed import arithmetic
from papers_check.printed.papers import COMPARISONS, METHODS, NAMES, PAPERS, TITLES
from papers_check.printed.rows import Row, column, rows, slug


def findings() -> list[Finding]:
    """What the two papers print differently, and what coincides where it should not."""
    return [item for item in examine(rows()) if item is not None]


def examined() -> int:
    """How many methods, tables and pairs of rows were compared."""
    return sum(1 for _ in examine(rows()))


def examine(printed: list[Row]) -> Iterator[Finding | None]:
    """All checks of this module over the comparison tables, every two papers side by side."""
    printed = [row for row in printed if (row.paper, row.table) in COMPARISONS]
    for dataset in NAMES:
        papers = [[row for row in printed if row.paper == paper and row.dataset == dataset] for paper in PAPERS]
        for pair in combinations(filter(None, papers), 2):
            for first, second in product(*pair):
                if method(first) == method(second) and not first.own:
                    yield two_values(first, second)
                elif not first.own and not second.own:
                    yield one_row_two_methods(first, second)
        for ours in filter(None, papers):
            if theirs := [row for row in printed if row.dataset == dataset and row.paper != ours[0].paper]:
                yield stronger_baselines(ours, theirs)
    yield mixed_sources(printed)


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
            names = f"{first.dataset}-{slug(first.name)}-{slug(column(*a))}-{slug(column(*b))}"
            return new_finding(
                "exchanged-columns",
                f"both-swap-{names}{_pair(first, second)}",
                where,
                quote,
                f"{TITLES[first.paper]} and {TITLES[second.paper]} have the same two numbers, exchanged; the other "
                f"{len(shared) - 2} cells of the row agree",
                f"{column(*a)} and {column(*b)} exchanged in one of the papers",
                f"Both papers print the same two numbers for {first.name}, in opposite columns.",
                "cells",
            )
    steps = [abs(float(first.cells[key]) - float(second.cells[key])) for key in differ]
    scaled = [step if key[0] not in ("mae", "corr") else 100 * step for key, step in zip(differ, steps, strict=True)]
    worst = differ[scaled.index(max(scaled))]
    return new_finding(
        "two-values",
        f"both-conflict-{first.dataset}-{slug(first.name)}{_pair(first, second)}",
        where,
        quote,
        f"{len(differ)} of {len(shared)} shared cells differ, most in {column(*worst)}: "
        f"{first.cells[worst]} against {second.cells[worst]}",
        "one method, one test set, two values",
        "Compare the row of the method in the two papers.",
        "cells",
    )


def one_row_two_methods(first: Row, second: Row) -> Finding | None:
    """Two different methods, one in each paper, with at least three accuracies or F1 and every shared cell equal."""
    shared = [key for key in first.cells if key in second.cells]
    if len(shared) < 4 or not all(agree(first.cells[key], second.cells[key]) for key in shared):
        # A single cell may be a truncated copy; it must not hide the others.
        off = [key for key in shared if not agree(first.cells[key], second.cells[key])]
        if len(shared) < 4 or len(off) > 1 or abs(float(first.cells[off[0]]) - float(second.cells[off[0]])) >= 0.1:
            return None
    return new_finding(
        "equal-rows",
        f"both-duplicate-{first.dataset}-{slug(first.name)}-{slug(second.name)}{_pair(first, second)}",
        f"{TITLES[first.paper]} {first.where}; {TITLES[second.paper]} {second.where}",
        f"{first.name}: {first.quote(*shared)}; {second.name}: {second.quote(*shared)}",
        f"{TITLES[first.paper]} has for {first.name} what {TITLES[second.paper]} has for {second.name}: {len(shared)} "
        "shared cells are equal, one at most up to a dropped digit",
        "two methods, one row of numbers",
        "Compare the two rows.",
        "cells",
    )


def stronger_baselines(ours: list[Row], theirs: list[Row]) -> Finding | None:
    """Baselines in other papers' tables that beat this paper's best baseline, or its own model."""
    own = next(row for row in ours if row.own)
    lines = []
    for key, value in own.cells.items():
        metric = key[0]
        mine = [(row.cells[key], row.name) for row in ours if not row.own and key in row.cells]
        other = [(row.cells[key], row.name) for row in theirs if not row.own and key in row.cells]
        if not mine or not other:
            continue
        (best, here), (rival, name) = _best(metric, mine), _best(metric, other)
        if not better(metric, rival, best) or agree(rival, best):
            continue
        gains = [f"{_gain(metric, value, text)} ({who} {text})" for text, who in ((rival, name), (best, here))]
        lines.append(f"{column(*key)} {value}: gain {gains[0]}; in its own table {gains[1]}")
    if not lines:
        return None
    other = ", ".join(dict.fromkeys(f"{TITLES[row.paper]} Table {row.table}" for row in theirs))
    return new_finding(
        "stronger-baselines",
        f"{own.paper}-conflict-stronger-baselines-table{own.table}-{own.dataset}",
        f"Table {own.table}, {NAMES[own.dataset]}",
        f"{own.name}: {own.quote()}",
        f"over the baselines of {other}: {'; '.join(lines)}",
        "gains depend on whose baseline rows are taken",
        f"Each gain is the own cell less the best baseline of {other}, then of the table itself.",
        "cells",
    )


def _gain(metric: str, own: str, other: str) -> str:
    sign = -1 if metric == "mae" else 1
    return f"{sign * (Decimal(own) - Decimal(other)):+}"


def _best(metric: str, values: list[tuple[str, str]]) -> tuple[str, str]:
    chosen = min if metric == "mae" else max
    return chosen(values, key=lambda item: float(item[0]))


def mixed_sources(printed: list[Row]) -> Finding | None:
    """Methods whose row is that of the other paper on one data set and another one on the next.

    Of the first two papers, whose captions were read for the explanation.
    """
    verdicts: dict[str, dict[str, bool | None]] = {}
    names = {}
    for first, second in product(
        *([row for row in printed if row.paper == paper and not row.own] for paper in PAPERS[:2])
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
    return new_finding(
        "mixed-sources",
        "amsgfn-literature-mixed-sources",
        "Tables 2 to 4",
        "; ".join(shown),
        f"cells that both papers print alike for these {len(mixed)} methods: nearly all on one data set, few or none "
        "on another",
        "a method's row changes its source between tables",
        "Count, per data set, the cells of a method's row that both papers print alike.",
        "cells",
    )
