"""Every printed row against what scores can be on the real test sets at all: `arithmetic` applied to the tables.

Each check yields one item per thing examined: a finding, or None where nothing is wrong.
"""

from collections.abc import Iterator

import numpy as np

from papers_check.checks import label_counts as labels
from papers_check.checks.finding import Finding, new_finding
from papers_check.printed import arithmetic
from papers_check.printed.papers import NAMES
from papers_check.printed.rows import Row, column, rows, slug

RUNS = 10  # numbers of averaged runs that are tried
USUAL = frozenset(range(1, 6))  # the field averages up to five

# What the labels under an accuracy are called, by (range of the labels, class).
_CLASS_WORDS = {("acc2_has0", 0): "negative", ("acc2_has0", 1): "non-negative", ("acc2_non0", 0): "negative"}
_CLASS_WORDS |= {("acc2_non0", 1): "positive", ("acc2", 0): "not positive", ("acc2", 1): "positive"}


def findings() -> list[Finding]:
    """What no predictions give, or a constant prediction beats, in either paper."""
    return [item for item in examine(rows()) if item is not None]


def examined() -> int:
    """How many rows, pairs and cells were examined."""
    return sum(1 for _ in examine(rows()))


def examine(printed: list[Row]) -> Iterator[Finding | None]:
    """All checks of this module over any rows."""
    # A row printed again in a later table of the same paper says nothing new.
    seen, fresh = set(), []
    for row in printed:
        key = (row.paper, row.dataset, tuple(row.cells.items()))
        if not (row.own and any(key[:2] == old[:2] and set(key[2]) <= set(old[2]) for old in seen)):
            fresh.append(row)
        seen.add(key)
    for row in fresh:
        yield from f1_beside_accuracy(row)
        yield zero_labels(row)
        yield below_constant(row)
        yield from mae_floors(row)
    for paper in dict.fromkeys(row.paper for row in fresh):
        yield from runs_of([row for row in fresh if row.own and row.paper == paper])


# --- how many runs ----------------------------------------------------------------------------------------------------


def accuracy_cells(row: Row) -> list[tuple[str, int]]:
    """The printed accuracies of a row, zeros evened out, with the samples each is over."""
    return [(text, samples(row.dataset, *key)) for key, text in row.evened().items() if key[0].startswith("acc")]


def samples(dataset: str, metric: str, side: str = "") -> int:
    """How many test samples a printed accuracy is over."""
    return sum(labels.class_counts(dataset, f"{metric}_{side}" if side else metric).values())


def runs_of(own: list[Row]) -> Iterator[Finding | None]:
    """The numbers of averaged runs that could give the accuracies of a paper's own rows (GRIM); one item per row.

    The finding is one per paper: no number of runs up to five gives all accuracies of some row, or of all rows.
    """
    own = [row for row in own if accuracy_cells(row)]
    lines, left_out = [], False
    for row in own:
        fits = allowed(accuracy_cells(row))
        few = bool(USUAL & frozenset.union(*fits.values()))
        left_out |= not few
        shown = ", ".join(f"{text} of {n}" for text, n in accuracy_cells(row))
        lines.append(f"{NAMES[row.dataset]}: {shown} clips: {_said(fits)}")
        yield from [None] if few else []
    together = allowed([cell for row in own for cell in accuracy_cells(row)])
    if not own or (not left_out and USUAL & frozenset.union(*together.values())):
        yield None
        return
    every = [cell for row in own for cell in accuracy_cells(row)]
    text, n = next((cell for cell in every if not arithmetic.grim(*cell)), every[0])
    below = int(float(text) * n / 100)
    near = " and ".join(f"{c}/{n} = {100 * c / n:.3f}" for c in (below, below + 1))
    yield new_finding(
        "runs",
        f"{own[0].paper}-arithmetic-runs",
        "; ".join(row.where for row in own),
        "\n".join(f"{NAMES[row.dataset]} " + row.quote(*_accuracies(row)) for row in own),
        f"m = 1 to {RUNS} averaged runs tried; all {sum(len(accuracy_cells(row)) for row in own)} accuracies together: "
        f"{_said(together)}",
        "not one run, and no number of runs up to five fits all rows",
        f"An accuracy is a whole number of right clips: {near}, so one run cannot print {text}; a mean of m runs is a "
        "whole number divided by n times m. The paper states no number of runs.",
        "cells",
        lines,
    )


def allowed(cells: list[tuple[str, int]]) -> dict[str, frozenset[int]]:
    """The numbers of averaged runs up to `RUNS` that can print all cells (text, samples), by how they were rounded."""
    return {
        "rounded": arithmetic.possible_runs(cells, RUNS),
        "cut off": arithmetic.possible_runs(cells, RUNS, rule="truncate"),
        "runs rounded first": arithmetic.possible_runs(cells, RUNS, run_decimals=2),
    }


def _said(fits: dict[str, frozenset[int]]) -> str:
    return "; ".join(f"{', '.join(map(str, sorted(m))) or 'none'} ({how})" for how, m in fits.items())


def _accuracies(row: Row) -> list[tuple[str, str]]:
    return [key for key in row.cells if key[0].startswith("acc")]


# --- accuracy and F1 --------------------------------------------------------------------------------------------------


def f1_beside_accuracy(row: Row) -> Iterator[Finding | None]:
    """Weighted F1 against Acc-2, for any predictions and any number of runs; one item per pair printed."""
    pairs = list(_f1_pairs(row))
    broken = [pair for pair, possible in pairs if not possible]
    yield from [None] * (len(pairs) - len(broken))
    if broken:
        yield _f1_finding(row, broken)


def _f1_pairs(row: Row) -> Iterator[tuple[tuple[str, str, str, int, int], bool]]:
    """(side, Acc-2, F1, positives, negatives) of every pair printed, and whether it is possible."""
    evened = row.evened()
    for metric, side in evened:
        if metric != "f1" or ("acc2", side) not in row.cells:
            continue
        counts = labels.class_counts(row.dataset, f"acc2_{side}" if side else "acc2")
        acc, f1, p, q = evened["acc2", side], evened["f1", side], counts[1], counts[0]
        yield (side, acc, f1, p, q), arithmetic.f1_possible(acc, f1, p, q, run_decimals=2)


def _f1_finding(row: Row, broken: list[tuple[str, str, str, int, int]]) -> Finding:
    parts = []
    for side, acc, f1, p, q in broken:
        largest = arithmetic.f1_limits(acc, p, q, slack=0.005)[1]
        swapped = arithmetic.f1_possible(acc, f1, p, q, swapped=True, run_decimals=2)
        order = "possible" if swapped else "not possible either"
        parts.append(f"beside {column('acc2', side)} {acc} weighted F1 is at most {largest:.2f}, printed {f1} (labels "
                     f"and predictions exchanged: {order})")  # fmt: skip
    side, acc, f1, p, q = broken[0]
    right, best = _best_table(acc, p, q)
    return new_finding(
        "f1-above-accuracy",
        f"{row.paper}-arithmetic-f1-above-accuracy-{row.slug}",
        row.where,
        row.quote(*(key for side, *_ in broken for key in (("acc2", side), ("f1", side)))),
        "; ".join(parts),
        "not the weighted F1 of these labels, if called with the labels first",
        f"Of {p} + {q} test clips in the two classes let {right} be right, {100 * right / (p + q):.2f} %: whichever "
        f"they are, F1 weighted by the labels is at most {best:.2f}.",
        "cells",
    )


def _best_table(acc: str, p: int, q: int) -> tuple[int, float]:
    """The whole number of right answers nearest to an accuracy, and the largest weighted F1 (percent) they allow."""
    right = round(float(acc) * (p + q) / 100)
    tp = np.arange(max(0, right - q), min(p, right) + 1)
    return right, 100 * float(arithmetic.weighted_f1(tp, p, right - tp, q).max())


# --- the slash, constants, floors -------------------------------------------------------------------------------------


def zero_labels(row: Row) -> Finding | None:
    """The two accuracies of a slash against the number of zero labels."""
    if ("acc2", "has0") not in row.cells or ("acc2", "non0") not in row.cells:
        return None
    has0, non0 = row.cells["acc2", "has0"], row.cells["acc2", "non0"]
    n, kept = samples(row.dataset, "acc2", "has0"), samples(row.dataset, "acc2", "non0")
    if arithmetic.zeros_possible(has0, non0, n, kept):
        return None
    low, high = arithmetic.zeros_right(has0, non0, n, kept)
    return new_finding(
        "zero-labels",
        f"{row.paper}-arithmetic-zero-labels-{row.slug}",
        row.where,
        f"Acc-2 {has0}/{non0}",
        f"{low:.1f} to {high:.1f} of {n - kept} zero-label clips called non-negative",
        "the two sides of the slash do not fit together",
        f"{has0} % of {n} less {non0} % of {kept} is the number of zero-label clips counted as right; it "
        f"lies between 0 and {n - kept} unless some nonzero label is predicted exactly 0.",
        "cells",
    )


def below_constant(row: Row) -> Finding | None:
    """Scores worse than the best constant prediction on the real test labels."""
    worse = []
    for (metric, side), text in row.cells.items():
        name = f"{metric}_{side}" if side else metric
        low, high = (float(end) for end in arithmetic.interval(text))
        if metric == "mae" and low > labels.best_constant_mae(row.dataset):
            worse.append(((metric, side), f"MAE {labels.best_constant_mae(row.dataset):.3f}"))
        elif name in labels.metrics_of(row.dataset):
            best, count, n = labels.majority(row.dataset, name)
            if high < 100 * count / n:
                always = f"always {_CLASS_WORDS.get((name, best), f'class {best}')}, {count}/{n}"
                worse.append(((metric, side), f"{column(metric, side)} {100 * count / n:.2f} ({always})"))
    if not worse:
        return None
    return new_finding(
        "below-constant",
        f"{row.paper}-arithmetic-below-constant-{row.slug}",
        row.where,
        row.quote(*(key for key, _ in worse)),
        "a constant prediction reaches " + ", ".join(text for _, text in worse),
        "below a constant prediction",
        f"Giving every {NAMES[row.dataset]} test clip the same answer, whatever the input, scores better "
        f"than {'these cells' if len(worse) > 1 else 'this cell'}.",
        "cells",
    )


def mae_floors(row: Row) -> Iterator[Finding | None]:
    """MAE against the least error its accuracies and its correlation allow; one item per pair."""
    if ("mae", "") not in row.cells:
        return
    values, counts = labels.load_values(row.dataset)
    printed = row.cells["mae", ""]
    floors = {}
    for (metric, side), text in row.cells.items():
        name = f"{metric}_{side}" if side else metric
        if metric == "corr":
            floors["Corr", text] = arithmetic.mae_floor_from_corr(text, values, counts, labels.RANGE[row.dataset])
        elif name in labels.metrics_of(row.dataset):
            kept = labels.class_of(row.dataset, name, values) != -99
            way = np.where(kept, distance_to_other_class(row.dataset, name, values), np.inf)[kept]
            share = counts[kept].sum() / counts.sum()
            floors[column(metric, side), text] = share * arithmetic.mae_floor(text, values[kept], counts[kept], way)
    for (name, text), floor in floors.items():
        if float(arithmetic.interval(printed)[1]) >= floor:
            yield None
            continue
        yield new_finding(
            "mae-floor",
            f"{row.paper}-arithmetic-mae-floor-{row.slug}-{slug(name)}",
            row.where,
            f"MAE {printed}, {name} {text}",
            f"MAE is at least {floor:.3f} beside this {name}",
            "smaller than the other score allows",
            "Each wrong class costs at least the way to the nearest other class; summed over the fewest "
            "possible wrong answers on the real labels, that is more than the printed MAE.",
            "cells",
        )


def distance_to_other_class(dataset: str, metric: str, values: np.ndarray) -> np.ndarray:
    """How far each label value [K] is from the nearest value of another class of an accuracy, as an infimum."""
    bound = labels.RANGE[dataset]
    line = np.round(np.linspace(-bound - 1, bound + 1, 4001), 6)
    classes, own = labels.class_of(dataset, metric, line), labels.class_of(dataset, metric, values)
    # Zero is left out of the non0 labels but is a prediction like any other: not positive.
    classes = np.where(classes == -99, 0, classes)
    step = line[1] - line[0]
    gaps = np.where(classes[None] != own[:, None], np.abs(values[:, None] - line[None]), np.inf).min(1)
    return np.maximum(gaps - step, 0)
