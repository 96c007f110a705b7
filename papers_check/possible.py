"""Every printed row against what scores can be on the real test sets at all: `arithmetic` applied to the tables.

Each check yields one item per thing examined: a finding, or None where nothing is wrong.
"""

from collections.abc import Iterator

import numpy as np

from papers_check import arithmetic
from papers_check import label_counts as labels
from papers_check.finding import Finding
from papers_check.papers import NAMES
from papers_check.rows import Row, column, rows, slug, tables

RUNS = 10  # numbers of averaged runs that are tried
USUAL = frozenset(range(1, 6))  # the field averages up to five
INNOCENT = "Other test sets, per-batch averages or more runs would explain it; the paper states none of them."

# What the labels under an accuracy are called, by (range of the labels, class).
_CLASS_WORDS = {("acc2_has0", 0): "negative", ("acc2_has0", 1): "non-negative", ("acc2_non0", 0): "negative"}
_CLASS_WORDS |= {("acc2_non0", 1): "positive", ("acc2", 0): "not positive", ("acc2", 1): "positive"}


def findings() -> list[Finding]:
    """What is arithmetically impossible, or below a constant prediction, in either paper."""
    return [item for item in examine(rows()) if item is not None]


def checked() -> int:
    """How many rows, pairs and cells were examined."""
    return sum(1 for _ in examine(rows()))


def examine(found: list[Row]) -> Iterator[Finding | None]:
    """All checks of this module over any rows."""
    # A row printed again in a later table of the same paper says nothing new.
    seen, fresh = set(), []
    for row in found:
        key = (row.paper, row.dataset, tuple(row.cells.items()))
        if not (row.own and any(key[:2] == old[:2] and set(key[2]) <= set(old[2]) for old in seen)):
            fresh.append(row)
        seen.add(key)
    for row in fresh:
        yield runs_behind(row)
        yield from f1_beside_accuracy(row)
        yield zero_labels(row)
        yield below_constant(row)
        yield from mae_floors(row)
    for group in tables(found).values():
        yield single_runs(group)
    for paper in dict.fromkeys(row.paper for row in fresh):
        yield one_number_of_runs([row for row in fresh if row.own and row.paper == paper])


# --- how many runs ----------------------------------------------------------------------------------------------------


def accuracy_cells(row: Row) -> list[tuple[str, int]]:
    """The printed accuracies of a row, zeros evened out, with the samples each is over."""
    return [(text, samples(row.dataset, *key)) for key, text in row.evened().items() if key[0].startswith("acc")]


def samples(dataset: str, metric: str, side: str = "") -> int:
    """How many test samples a printed accuracy is over."""
    return sum(labels.class_counts(dataset, f"{metric}_{side}" if side else metric).values())


def runs_behind(row: Row) -> Finding | None:
    """The numbers of averaged runs that could give all accuracies of a row (GRIM); the paper's own rows only."""
    cells = accuracy_cells(row)
    if not row.own or not cells:
        return None
    exact = arithmetic.possible_runs(cells, RUNS)
    cut = arithmetic.possible_runs(cells, RUNS, rule="truncate")
    slack = arithmetic.possible_runs(cells, RUNS, run_decimals=2)
    few = USUAL & (exact | cut | slack)
    if 1 in few:
        return None
    text, n = next(((text, n) for text, n in cells if not arithmetic.grim(text, n)), cells[0])
    below = int(float(text) * n / 100)
    near = " and ".join(f"{c}/{n} = {100 * c / n:.3f}" for c in (below, below + 1))
    return Finding(
        id=f"{row.paper}-arithmetic-runs-{row.slug}",
        kind="arithmetic",
        paper=row.paper,
        where=row.where,
        quote=row.quote(*(key for key in row.cells if key[0].startswith("acc"))),
        computed=f"{', '.join(f'{text} of {n}' for text, n in cells)} test clips; of m = 1 to {RUNS} averaged runs, "
        f"these can give all: {_set(exact)} (rounded), {_set(cut)} (truncated), {_set(slack)} (runs rounded first)",
        verdict="not a single run" if few else "arithmetically impossible for 1 to 5 runs",
        severity="note" if few else "medium",
        explanation=f"An accuracy is a whole number of right clips: {near}, so one run cannot print {text}; means of "
        f"several runs leave the m listed. The paper states no number of runs. {INNOCENT}",
    )


def one_number_of_runs(own: list[Row]) -> Finding | None:
    """The number of runs that could be behind all own rows of a paper: what each row leaves, intersected."""
    cells = [cell for row in own for cell in accuracy_cells(row)]
    if len({row.dataset for row in own}) < 2:
        return None
    left = {
        "rounded": arithmetic.possible_runs(cells, RUNS),
        "truncated": arithmetic.possible_runs(cells, RUNS, rule="truncate"),
        "runs rounded first": arithmetic.possible_runs(cells, RUNS, run_decimals=2),
    }
    if USUAL & frozenset.union(*left.values()):
        return None
    return Finding(
        id=f"{own[0].paper}-arithmetic-runs-all-tables",
        kind="arithmetic",
        paper=own[0].paper,
        where="; ".join(row.where for row in own),
        quote="; ".join(f"{NAMES[row.dataset]} {' '.join(_printed(row))}" for row in own),
        computed=f"of m = 1 to {RUNS} averaged runs, these can give all {len(cells)} accuracies: "
        + ", ".join(f"{_set(numbers)} ({how})" for how, numbers in left.items()),
        verdict="no one number of runs up to 5 fits all tables",
        severity="note",
        explanation="If every own row is the mean of one number of runs on the standard test sets, that number is "
        f"among those listed; one that passes is a hypothesis, one that fails is excluded. {INNOCENT}",
    )


def single_runs(group: list[Row]) -> Finding | None:
    """Rows of one table whose accuracies are all whole counts of one run, beside rows where that is impossible."""
    cells = {row.name: accuracy_cells(row) for row in group}
    cells = {name: found for name, found in cells.items() if len(found) > 2 and all(_tells(*cell) for cell in found)}
    single = [name for name, found in cells.items() if arithmetic.possible_runs(found, 1)]
    several = [name for name in cells if name not in single]
    if not single or not several:
        return None
    first = cells[single[0]]
    counted = ", ".join(f"{text} = {arithmetic.grim(text, n)[0]}/{n}" for text, n in first)
    luck = float(np.prod([n / 10.0 ** (2 + arithmetic.decimals_of(text)) for text, n in first]))
    return Finding(
        id=f"{group[0].paper}-arithmetic-single-runs-table{group[0].table}-{group[0].dataset}",
        kind="arithmetic",
        paper=group[0].paper,
        where=f"Table {group[0].table}, {NAMES[group[0].dataset]}",
        quote="; ".join(f"{row.name} {' / '.join(_printed(row))}" for row in group if row.name in single),
        computed=f"{len(single)} of {len(cells)} rows consist of whole counts of one run, as a row of arbitrary "
        f"numbers would with probability {luck:.1g}; no single run can give {', '.join(several)}",
        verdict="single runs beside averages",
        severity="medium",
        explanation=f"{single[0]}: {counted}, all exact. Numbers of one run and means of several stand in one column, "
        "unmarked, and differences between them are compared.",
    )


def _printed(row: Row) -> list[str]:
    return [text for (metric, _), text in row.cells.items() if metric.startswith("acc")]


def _tells(text: str, n: int) -> bool:
    # GRIM says little unless the steps of 100 / n are much wider than the printed ones.
    return 100 / n > 4 * 10.0 ** -arithmetic.decimals_of(text)


def _set(numbers: frozenset[int]) -> str:
    return "{" + ", ".join(map(str, sorted(numbers))) + "}" if numbers else "none"


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
        order = f"labels and predictions exchanged: {'possible' if swapped else 'impossible too'}"
        parts.append(f"beside {column('acc2', side)} {acc} at most F1 {largest:.2f}, printed {f1} ({order})")
    side, acc, f1, p, q = broken[0]
    right, best = _best_table(acc, p, q)
    share = 100 * right / (p + q)
    excess = arithmetic.interval(f1)[0] - arithmetic.interval(acc)[1]
    return Finding(
        id=f"{row.paper}-arithmetic-f1-above-accuracy-{row.slug}",
        kind="arithmetic",
        paper=row.paper,
        where=row.where,
        quote=row.quote(*(key for side, *_ in broken for key in (("acc2", side), ("f1", side)))),
        computed="; ".join(parts),
        verdict="arithmetically impossible as weighted F1",
        severity="high" if row.own else "medium" if row.name.startswith("w/o") else "low",
        explanation=f"Of {p} + {q} test clips in the two classes let {right} be right, {share:.2f} %: whichever they "
        f"are, weighted F1 is at most {best:.2f}, {best - share:.2f} above; printed is at least {excess:.2f} above. "
        "Which F1 is meant is not stated; the field's code weights it, and so do the rows quoted from it. With labels "
        "and predictions exchanged, as some public code calls the function, it is not so bounded.",
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
    return Finding(
        id=f"{row.paper}-arithmetic-zero-labels-{row.slug}",
        kind="arithmetic",
        paper=row.paper,
        where=row.where,
        quote=f"Acc-2 {has0}/{non0}",
        computed=f"{low:.1f} to {high:.1f} of {n - kept} zero-label clips called non-negative",
        verdict="arithmetically impossible as described",
        severity="medium",
        explanation=f"{has0} % of {n} less {non0} % of {kept} is the number of zero-label clips counted as right; it "
        f"lies between 0 and {n - kept} unless some nonzero label is predicted exactly 0.",
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
    return Finding(
        id=f"{row.paper}-arithmetic-below-constant-{row.slug}",
        kind="arithmetic",
        paper=row.paper,
        where=row.where,
        quote=row.quote(*(key for key, _ in worse)),
        computed="a constant prediction reaches " + ", ".join(text for _, text in worse),
        verdict="below a constant prediction",
        severity="medium",
        explanation=f"Giving every {NAMES[row.dataset]} test clip the same answer, whatever the input, scores better "
        f"than {'these cells' if len(worse) > 1 else 'this cell'}: it says little about what the input contributes.",
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
        yield Finding(
            id=f"{row.paper}-arithmetic-mae-floor-{row.slug}-{slug(name)}",
            kind="arithmetic",
            paper=row.paper,
            where=row.where,
            quote=f"MAE {printed}, {name} {text}",
            computed=f"MAE is at least {floor:.3f} beside this {name}",
            verdict="arithmetically impossible as described",
            severity="medium",
            explanation="Each wrong class costs at least the way to the nearest other class; summed over the fewest "
            "possible wrong answers on the real labels, that is more than the printed MAE.",
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
