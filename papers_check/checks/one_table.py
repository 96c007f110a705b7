"""Each table against itself: rows, columns and numbers that cannot stand beside each other, or hardly.

Each check yields one item per thing examined: a finding, or None where nothing is wrong.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd

from papers_check.checks import label_counts as labels
from papers_check.checks.finding import Finding, new_finding
from papers_check.printed import arithmetic
from papers_check.printed.cells import load_reported
from papers_check.printed.papers import NAMES
from papers_check.printed.rows import METRICS, Row, column, rows, slug, tables

NEAR_CORR = 0.02  # rows this close in Corr are neighbours
FAR_MAE = 0.10  # a MAE this much (relative) from its neighbours' median is out of order


def findings() -> list[Finding]:
    """What does not fit within a table, in either paper."""
    return [item for item in examine(rows(), load_reported()) if item is not None]


def examined() -> int:
    """How many cells, rows, columns and pairs were examined."""
    return sum(1 for _ in examine(rows(), load_reported()))


def examine(printed: list[Row], cells: pd.DataFrame) -> Iterator[Finding | None]:
    """All checks of this module; `printed` are the result rows, `cells` also holds the table of data set sizes."""
    for row in printed:
        yield from out_of_range(row)
        yield from finer_above_coarser(row)
    for group in tables(printed).values():
        yield from identical_rows(group)
        yield from exchanged_columns(group)
        yield from changing_precision(group)
        yield from accuracy_far_from_f1(group)
        yield padded_zeros(group)
    for dataset in NAMES:
        yield from mae_out_of_order([row for row in printed if row.dataset == dataset])
    yield from own_rows_agree(printed)
    yield from sizes(cells)


def out_of_range(row: Row) -> Iterator[Finding | None]:
    """Accuracies and F1 in [0, 100], correlations in [-1, 1], MAE no larger than the label scale; one item per cell."""
    for (metric, side), text in row.cells.items():
        low, high = {"corr": (-1, 1), "mae": (0, 2 * labels.RANGE[row.dataset])}.get(metric, (0, 100))
        if low <= float(text) <= high:
            yield None
            continue
        yield new_finding(
            "out-of-range",
            f"{row.paper}-arithmetic-out-of-range-{row.slug}-{slug(column(metric, side))}",
            row.where,
            row.quote((metric, side)),
            f"outside {low} to {high}",
            "outside the range of the score",
            f"{column(metric, side)} cannot leave the range from {low} to {high}.",
            "cells",
        )


def finer_above_coarser(row: Row) -> Iterator[Finding | None]:
    """An accuracy over merged classes is never below the one over the classes it merges."""
    for coarse, fine in (("acc5", "acc7"), ("acc3", "acc5")):
        pair = [(coarse, ""), (fine, "")]
        if not all(key in row.cells for key in pair):
            continue
        if arithmetic.coarser_possible(*(row.cells[key] for key in pair)):
            yield None
            continue
        yield new_finding(
            "class-order",
            f"{row.paper}-arithmetic-class-order-{row.slug}-{coarse}-{fine}",
            row.where,
            row.quote(*pair),
            f"{METRICS[coarse]} is below {METRICS[fine]}",
            "the coarser accuracy is below the finer one",
            f"A clip in the right one of {fine[-1]} classes is in the right one of the {coarse[-1]} they merge into.",
            "cells",
        )


def identical_rows(group: list[Row]) -> Iterator[Finding | None]:
    """Two rows of one table that coincide in every cell, at least three; one item per pair of rows."""
    for first, second in combinations(group, 2):
        if len(first.cells) < 3 or first.cells != second.cells:
            yield None
            continue
        yield new_finding(
            "equal-rows",
            f"{first.paper}-duplicate-table{first.table}-{first.dataset}-{slug(second.name)}-{slug(first.name)}",
            f"Table {first.table}, {NAMES[first.dataset]}, rows {first.name} and {second.name}",
            f"{first.name}: {first.quote()}; {second.name}: {second.quote()}",
            f"all {len(first.cells)} cells are equal",
            "two methods, one row of numbers",
            f"Compare the two rows: the same {len(first.cells)} numbers to the last digit.",
            "cells",
        )


def exchanged_columns(group: list[Row]) -> Iterator[Finding | None]:
    """Two cells of one row, each far outside its own column and at home in the other's; one item per pair of cells.

    Far is half of what the other rows span, at home a quarter: a best or worst row lies outside, too, but not that far.
    """
    for row in group:
        for a, b in combinations(row.cells, 2):
            others = [other for other in group if other is not row and {a, b} <= set(other.cells)]
            if len(others) < 4 or a[0] == b[0]:
                continue
            spans = {key: _span([float(other.cells[key]) for other in others]) for key in (a, b)}
            here, there = float(row.cells[a]), float(row.cells[b])
            far = _beyond(here, spans[a]) > 0.5 and _beyond(there, spans[b]) > 0.5
            if not far or _beyond(there, spans[a]) > 0.25 or _beyond(here, spans[b]) > 0.25:
                yield None
                continue
            ranges = ", ".join(f"{column(*key)} {spans[key][0]:g} to {spans[key][1]:g}" for key in (a, b))
            columns = f"{slug(column(*a))}-{slug(column(*b))}"
            yield new_finding(
                "exchanged-columns",
                f"{row.paper}-swap-table{row.table}-{row.dataset}-{slug(row.name)}-{columns}",
                row.where,
                row.quote(a, b),
                f"the other {len(others)} rows span {ranges}; exchanged, both cells fit",
                f"{column(*a)} and {column(*b)} fit only exchanged",
                f"{column(*a)} {row.cells[a]} and {column(*b)} {row.cells[b]} are far outside what the other rows "
                "have, and fit once they change places.",
                "cells",
            )


def _span(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _beyond(value: float, span: tuple[float, float]) -> float:
    """How far a value lies outside a span, in lengths of the span."""
    out = max(span[0] - value, value - span[1], 0.0)
    return out / (span[1] - span[0]) if out else 0.0


def changing_precision(group: list[Row]) -> Iterator[Finding | None]:
    """Columns whose cells show different numbers of decimals; one item per column, one finding per table."""
    mixed = {}
    for key in dict.fromkeys(key for row in group for key in row.cells):
        shown = {row.name: arithmetic.decimals_of(row.cells[key]) for row in group if key in row.cells}
        fewer = [name for name, k in shown.items() if k < max(shown.values())]
        if fewer:
            mixed[key] = fewer
        else:
            yield None
    if mixed:
        first = group[0]
        names = list(dict.fromkeys(name for fewer in mixed.values() for name in fewer))
        cells = {row.name: row.quote(*(key for key in mixed if row.name in mixed[key])) for row in group}
        yield new_finding(
            "precision",
            f"{first.paper}-reference-precision-table{first.table}-{first.dataset}",
            f"Table {first.table}, {NAMES[first.dataset]}",
            "; ".join(f"{name} {cells[name]}" for name in names),
            f"fewer decimals than the rest of the column in {sum(map(len, mixed.values()))} cells of "
            f"{len(names)} rows: {', '.join(names)}",
            "precision changes within a column",
            "Cells of one column show different numbers of decimals: differences between them are known only to the "
            "coarser one.",
            "cells",
        )


def padded_zeros(group: list[Row]) -> Finding | None:
    """Rows of two-decimal percentages that all end in 0, three or more of them."""
    padded = []
    for row in group:
        evened = row.evened()
        if any(len(text) < len(row.cells[key]) for key, text in evened.items()):
            padded.append((row.name, [row.cells[key] for key in evened]))
    if not padded:
        return None
    first = group[0]
    return new_finding(
        "precision",
        f"{first.paper}-reference-padded-zeros-table{first.table}-{first.dataset}",
        f"Table {first.table}, {NAMES[first.dataset]}",
        "; ".join(f"{name} {' '.join(texts)}" for name, texts in padded),
        f"{len(padded)} rows in which every percentage ends in 0: {', '.join(name for name, _ in padded)}",
        "a second decimal that is a zero throughout",
        "The sources print one decimal and the table adds a zero: small differences to these rows are uncertain by "
        "0.05.",
        "cells",
    )


def accuracy_far_from_f1(group: list[Row]) -> Iterator[Finding | None]:
    """An F1 a point or more below its accuracy where no other row of the table is half as far; one item per pair."""
    for side in SIDES_OF_F1:
        pairs = {row.name: row for row in group if {("acc2", side), ("f1", side)} <= set(row.cells)}
        gaps = {n: float(row.cells["acc2", side]) - float(row.cells["f1", side]) for n, row in pairs.items()}
        for name, gap in gaps.items():
            others = [other for key, other in gaps.items() if key != name]
            if not 1 <= gap <= 50 or len(others) < 4 or 2 * max(others) >= gap:
                yield None
                continue
            row = pairs[name]
            acc, f1 = row.cells["acc2", side], row.cells["f1", side]
            yield new_finding(
                "f1-far-below",
                f"{row.paper}-arithmetic-f1-far-below-accuracy-{row.slug}",
                row.where,
                row.quote(("acc2", side), ("f1", side)),
                f"F1 is {gap:.2f} below the accuracy, in the other {len(others)} rows at most {max(others):.2f} below. "
                + _one_sided(row, side),
                "out of line with the column",
                f"Accuracy {acc} with F1 {f1} needs predictions that lean heavily to one class.",
                "cells",
            )


SIDES_OF_F1 = ("has0", "non0", "")


def _one_sided(row: Row, side: str) -> str:
    """How one-sided predictions must be for this accuracy and F1: share called positive against the labels' share."""
    counts = labels.class_counts(row.dataset, f"acc2_{side}" if side else "acc2")
    p, q = counts[1], counts[0]
    right = round(float(row.cells["acc2", side]) * (p + q) / 100)
    tp = np.arange(max(0, right - q), min(p, right) + 1)
    score = 100 * arithmetic.weighted_f1(tp, p, right - tp, q)
    distance = np.abs(score - float(row.cells["f1", side]))
    near = np.flatnonzero(distance <= distance.min() + 0.1)
    called = sorted({int(2 * tp[k] + q - right) for k in near})  # tp + (q - tn), where tn = right - tp
    return f"One run with both calls about {' or '.join(map(str, _ends(called)))} of {p + q} clips positive; {p} are."


def _ends(numbers: list[int]) -> list[int]:
    """One number for each cluster of numbers close together."""
    groups = np.split(np.array(numbers), np.flatnonzero(np.diff(numbers) > 20) + 1)
    return [int(np.median(group)) for group in groups]


def mae_out_of_order(printed: list[Row]) -> Iterator[Finding | None]:
    """Rows of one data set (both papers) whose MAE is too large for their Corr; one item per row.

    The rows with nearly the same Corr have a median MAE, and this row's is more than a tenth above it.
    """
    pairs = {}
    for row in printed:
        if {("mae", ""), ("corr", "")} <= set(row.cells):
            pairs.setdefault((row.paper, row.name, row.cells["mae", ""], row.cells["corr", ""]), row)
    mae = np.array([float(key[2]) for key in pairs])
    corr = np.array([float(key[3]) for key in pairs])
    for k, row in enumerate(pairs.values()):
        near = (np.arange(len(pairs)) != k) & (np.abs(corr - corr[k]) <= NEAR_CORR)
        median = float(np.median(mae[near])) if near.sum() >= 3 else mae[k]
        if mae[k] <= (1 + FAR_MAE) * median:
            yield None
            continue
        yield new_finding(
            "mae-against-corr",
            f"{row.paper}-arithmetic-mae-against-corr-{row.slug}",
            row.where,
            row.quote(("mae", ""), ("corr", "")),
            f"of all {NAMES[row.dataset]} rows of both papers {near.sum()} others have Corr within {NEAR_CORR} of it: "
            f"MAE {mae[near].min():.3f} to {mae[near].max():.3f}, median {median:.3f}",
            "stands out from the rows with the same Corr",
            "Rows of one test set with nearly the same Corr have nearly the same MAE in these tables, this one apart.",
            "cells",
        )


def own_rows_agree(printed: list[Row]) -> Iterator[Finding | None]:
    """The paper's own row, printed again in a later table: one item per cell printed twice."""
    own: dict[tuple[str, str, tuple[str, str]], tuple[str, Row]] = {}
    for row in (row for row in printed if row.own):
        for key, text in row.cells.items():
            before, first = own.setdefault((row.paper, row.dataset, key), (text, row))
            if first is row:
                continue
            if before == text:
                yield None
                continue
            yield new_finding(
                "own-rows",
                f"{row.paper}-conflict-own-row-{row.slug}-{slug(column(*key))}",
                f"{first.where}; {row.where}",
                f"{column(*key)} {before} and {text}",
                "the same result has two values",
                "one result, two values",
                "The full model on one data set is printed in both tables and should be one number.",
                "cells",
            )


def sizes(cells: pd.DataFrame) -> Iterator[Finding | None]:
    """The printed data set sizes: do they add up, and are they those of the real label tables; one item per number."""
    table = cells[cells["metric"].isin(["train", "valid", "test", "total"])]
    for (paper, number, dataset), group in table.groupby(["paper", "table", "dataset"], sort=False):
        printed = {m: int(v.replace(",", "")) for m, v in zip(group["metric"], group["value"], strict=True)}
        real = {split: int(labels.load_values(dataset, split)[1].sum()) for split in labels.SPLITS}
        real["total"] = sum(real.values())
        for name, value in printed.items():
            total = sum(printed[split] for split in labels.SPLITS) if name == "total" else value
            if value == real[name] == total:
                yield None
                continue
            yield new_finding(
                "sizes",
                f"{paper}-conflict-size-table{number}-{dataset}-{name}",
                f"Table {number}, {NAMES[dataset]}",
                f"{name} {value:,}",
                f"the real label table has {real[name]:,}; the printed splits add up to {total:,}",
                "does not add up",
                "Count the printed splits, or the rows of the public label table.",
                "cells",
            )
