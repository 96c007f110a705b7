"""The numbers behind the pictures: one small table per figure of `pictures`, from the printed cells and the summaries.

Points are percentage points for accuracies and F1, and hundredths for MAE and Corr, so that one axis can hold them all.
"""

import textwrap
from collections.abc import Iterable
from decimal import Decimal

import numpy as np
import pandas as pd

from papers_check.checks import equations, one_table, score_limits
from papers_check.checks import label_counts as labels
from papers_check.checks.finding import GROUPS, SEVERITIES, Finding
from papers_check.judge.verdicts import LOWER_IS_BETTER
from papers_check.printed import arithmetic
from papers_check.printed.papers import ABLATIONS, METHODS, NAMES, PAPERS, TITLES
from papers_check.printed.rows import METRICS, Row, column, tables
from papers_check.printed.units import is_percent
from papers_check.show import finding_pages

STATES = ("excluded", "only if runs were rounded first", "possible")


def points(metric: str, value):
    """A score or a difference in points: percent as it is, MAE and Corr times 100."""
    return value if is_percent(metric) else 100 * value


def overview(found: Iterable[Finding]) -> pd.DataFrame:
    """How many findings there are: index group, columns severity, worst first; groups without any are left out."""
    pairs = pd.DataFrame([(finding.group, finding.severity) for finding in found], columns=["group", "severity"])
    table = pd.crosstab(pairs["group"], pairs["severity"])
    table = table.reindex(index=list(GROUPS), columns=list(SEVERITIES), fill_value=0)
    return table[table.sum(axis=1) > 0].rename_axis(columns=None)


def readable(found: Iterable[Finding], width: int = 112) -> str:
    """The findings in full, as `finding_pages.text` has them, no line longer than `width`."""
    lines = finding_pages.text(found, full=SEVERITIES).splitlines()
    # Under the text of "printed:" and "computed:", and under the first letter of all else.
    heads = ("    printed:", "    cleared?", "    computed:", "              ")
    pads = [" " * (14 if line.startswith(heads) else 4) for line in lines]
    pairs = zip(lines, pads, strict=True)
    return "\n".join(textwrap.fill(line, width, subsequent_indent=pad) for line, pad in pairs).strip("\n")


def runs_allowed(found: list[Row]) -> pd.DataFrame:
    """Which numbers of averaged runs each accuracy of the papers' own rows allows (GRIM).

    Columns paper, cell (`all of them` comes last), m, state (one of `STATES`). The printed mean is taken to be rounded;
    with a mean cut off instead, no m gives all accuracies of either paper.
    """
    lines = []
    for paper in dict.fromkeys(row.paper for row in found):
        own = [row for row in found if row.paper == paper and row.own and (paper, row.table) not in ABLATIONS]
        cells = {}
        for row in own:
            names = [key for key in row.evened() if key[0].startswith("acc")]
            for key, (text, n) in zip(names, score_limits.accuracy_cells(row), strict=True):
                cells[f"{NAMES[row.dataset]} {column(*key)} {text} of {n}"] = [(text, n)]
        cells["all of them"] = [cell for part in cells.values() for cell in part]
        for name, part in cells.items():
            exact = arithmetic.possible_runs(part, score_limits.RUNS)
            slack = arithmetic.possible_runs(part, score_limits.RUNS, run_decimals=2)
            for m in range(1, score_limits.RUNS + 1):
                lines.append((paper, name, m, STATES[2 if m in exact else 1 if m in slack else 0]))
    return pd.DataFrame(lines, columns=["paper", "cell", "m", "state"])


def f1_pairs(found: list[Row]) -> pd.DataFrame:
    """Every printed pair of Acc-2 and weighted F1, and what can stand beside that accuracy at most.

    Columns paper, table, dataset, side, row, acc, f1, half (how far rounding can move F1 - Acc-2), most (largest F1
    for an accuracy of just that value), above (it by more than rounding:
    `arithmetic.f1_possible`). An own row printed again in an ablation is not shown again.
    """
    lines = []
    for row in found:
        again = row.own and (row.paper, row.table) in ABLATIONS
        for (metric, side), f1 in () if again else row.evened().items():
            if metric != "f1" or ("acc2", side) not in row.cells:
                continue
            acc, (p, q) = row.evened()["acc2", side], _sizes(row.dataset, side)
            # Half a unit of each, and a hundredth in case runs were rounded before averaging.
            half = sum(0.5 * 10.0 ** -arithmetic.decimals_of(text) for text in (acc, f1)) + 0.01
            above = not arithmetic.f1_possible(acc, f1, p, q, run_decimals=2)
            most = float(f1_limit(row.dataset, side, np.array([float(acc)]))[0])
            where = row.paper, row.table, row.dataset, side, row.name
            lines.append((*where, float(acc), float(f1), half, most, above))
    columns = ["paper", "table", "dataset", "side", "row", "acc", "f1", "half", "most", "above"]
    return pd.DataFrame(lines, columns=columns)


def f1_limit(dataset: str, side: str, accuracies: np.ndarray) -> np.ndarray:
    """The largest weighted F1 [N] beside exact accuracies [N], percent, for any predictions and number of runs."""
    p, q = _sizes(dataset, side)
    return np.array([arithmetic.f1_limits(f"{accuracy:.6f}", p, q)[1] for accuracy in accuracies])


def _sizes(dataset: str, side: str) -> tuple[int, int]:
    counts = labels.class_counts(dataset, f"acc2_{side}" if side else "acc2")
    return counts[1], counts[0]


def mae_and_corr(found: list[Row], dataset: str) -> pd.DataFrame:
    """MAE and Corr of every row on a data set, both papers, rows printed twice once.

    Columns paper, table, row, mae, corr, odd: whether `one_table` finds the pair out of order or exchanged.
    """
    rows = [row for row in found if row.dataset == dataset and {("mae", ""), ("corr", "")} <= set(row.cells)]
    flagged = {(item.paper, item.where) for item in one_table.mae_out_of_order(rows) if item}
    frame = pd.DataFrame(
        [(r.paper, r.table, r.name, float(r.cells["mae", ""]), float(r.cells["corr", ""]), r.where) for r in rows],
        columns=["paper", "table", "row", "mae", "corr", "where"],
    )
    for group in tables(rows).values():
        swaps = (
            item for item in one_table.exchanged_columns(group) if item and item.verdict.startswith("MAE and Corr")
        )
        flagged |= {(item.paper, item.where) for item in swaps}
    frame["odd"] = [key in flagged for key in zip(frame["paper"], frame["where"], strict=True)]
    return frame.drop(columns="where").drop_duplicates(["paper", "row", "mae", "corr"], ignore_index=True)


def against_constant(found: list[Row]) -> pd.DataFrame:
    """The ablations of modalities beside the best constant prediction on the real test labels.

    Columns paper, table, dataset, row, metric, side, value, constant, below (whatever the rounding). Of the ablations
    with rows that remove modalities; Acc-2 and MAE.
    """
    fewer = {key for key, known in METHODS.items() if known.role == "modalities"}
    without = {(row.paper, row.table) for row in found if (row.paper, row.name) in fewer}
    lines = []
    for row in found:
        for (metric, side), text in row.cells.items():
            if (row.paper, row.table) not in without or metric not in ("acc2", "mae"):
                continue
            low, high = (float(end) for end in arithmetic.interval(text))
            if metric == "mae":
                constant = labels.best_constant_mae(row.dataset)
                below = low > constant
            else:
                _, count, n = labels.majority(row.dataset, f"{metric}_{side}")
                constant, below = 100 * count / n, high < 100 * count / n
            where = row.paper, row.table, row.dataset, row.name
            lines.append((*where, metric, side, float(text), constant, below))
    columns = ["paper", "table", "dataset", "row", "metric", "side", "value", "constant", "below"]
    return pd.DataFrame(lines, columns=columns)


def drops(found: list[Row]) -> pd.DataFrame:
    """What each ablation loses against the full model, in points, positive where the full model is better.

    Columns paper, table, row, column, drop, wrong (the ablation is better as printed).
    """
    lines = []
    for key in sorted(ABLATIONS):
        group = [row for row in found if (row.paper, row.table) == key]
        full = [row for row in group if row.own]
        for row in (row for row in group if not row.own and full):
            for cell in (cell for cell in full[0].cells if cell in row.cells):
                sign = -1 if cell[0] in LOWER_IS_BETTER else 1
                drop = float(sign * (Decimal(full[0].cells[cell]) - Decimal(row.cells[cell])))
                lines.append((*key, row.name, column(*cell), points(cell[0], drop), drop < 0))
    return pd.DataFrame(lines, columns=["paper", "table", "row", "column", "drop", "wrong"])


def capsules(iterations: int = 3, width: int = 16, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Eqs. 8 to 10 of DSRF on random votes: reading -> couplings [iterations, 4, 4], capsules [4, width]."""
    rng = np.random.default_rng(seed)
    own, shared = rng.normal(size=(4, 4, width)), rng.normal(size=(4, width))
    readings = {"as printed, v_i": np.repeat(shared[:, None], 4, 1), "one vote per capsule, v_ik": own}
    return {
        name: (
            np.stack([equations.route(votes, i)[0] for i in range(1, iterations + 1)]),
            equations.route(votes, iterations)[1],
        )
        for name, votes in readings.items()
    }


# --- seed noise -------------------------------------------------------------------------------------------------------


def comparisons(gains: pd.DataFrame) -> pd.DataFrame:
    """The lines of `seed_noise.claimed_gains` that compare with other methods, with the name of the `column`."""
    keys = zip(gains["paper"], gains["table"].astype(str), strict=True)
    kept = gains[[key not in ABLATIONS for key in keys]]
    kept = kept.sort_values(["paper", "dataset", "metric", "side"], key=_printed_order, ignore_index=True)
    names = [column(*cell) for cell in kept[["metric", "side"]].itertuples(index=False, name=None)]
    return kept.assign(column=names)


def _printed_order(values: pd.Series) -> pd.Series:
    """Papers, data sets and metrics in the order in which we show them, for `sort_values`."""
    known = [*PAPERS, *NAMES, *METRICS]
    return values.map(known.index) if set(values) <= set(known) else values


EFFECTS = (
    "seed: SD",
    "seed: best of five",
    "tuning: ten trials",
    "trial chosen on test",
    "epoch chosen on validation",
    *(f"gain, {title}" for title in TITLES.values()),
)


def effects(noise: pd.DataFrame, tuning: pd.DataFrame, epochs: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """Everything that moves a score, in points, one line per model: columns dataset, score, effect, model, value.

    From the summaries of `seed_noise`: pools of five seeds, none collapsed; searches of ten trials; what the best epoch
    is worth on the validation set itself; last, the gains the two papers print. `score`: such as acc2_non0.
    """
    five = noise[(noise["seeds"] == 5) & (noise["collapsed"] == 0)]
    parts = [
        _effect(EFFECTS[0], five, "sd"),
        _effect(EFFECTS[1], five, "best_seed"),
        _effect(EFFECTS[2], tuning, "tuning_gain"),
        _effect(EFFECTS[3], tuning, "test_selection"),
        _effect(EFFECTS[4], epochs, "gain_mean"),
    ]
    there = comparisons(gains)
    there = there.assign(score=(there["metric"] + "_" + there["side"]).str.strip("_"), model=there["runner_up"])
    for paper, name in zip(PAPERS, EFFECTS[5:], strict=True):
        part = there[there["paper"] == paper].drop(columns="metric").rename(columns={"score": "metric"})
        parts.append(_effect(name, part, "gain"))
    return pd.concat(parts, ignore_index=True)


def _effect(name: str, frame: pd.DataFrame, value: str) -> pd.DataFrame:
    scaled = [points(metric, number) for metric, number in zip(frame["metric"], frame[value], strict=True)]
    part = frame[["dataset", "metric", "model"]].assign(effect=name, value=scaled)
    return part.rename(columns={"metric": "score"})[["dataset", "score", "effect", "model", "value"]]


def normal_pools(kind: str, pools: int, size: int, seed: int = 0) -> pd.DataFrame:
    """Pools of `size` normal runs in the shape of `seed_noise.long`, to be split by `calibration.matches` as real ones.

    Five seeds of a pool are few: a shift in units of the pool's own SD is harder to see than one in units of the true
    SD, so a curve for comparison has to go through the same splits.
    """
    values = np.random.default_rng(seed).standard_normal((pools, size)).ravel()
    line = np.repeat(np.arange(pools), size)
    frame = pd.DataFrame({"value": values, "seed": np.tile(np.arange(size), pools), "model": line})
    return frame.assign(kind=kind, dataset="", train_mode="", config="", metric="corr", run=np.arange(len(frame)))


def flag_rates(simulated: pd.DataFrame, real: pd.DataFrame, normal: pd.DataFrame) -> pd.DataFrame:
    """How often a cell is flagged, m known: columns kind ("seeded" or "tune"), source, n, m, shift, flagged.

    `real` from `calibration.rates` of `matches` on the public runs, `normal` the same of `normal_pools`, `simulated`
    from `calibration.simulate`: of it the runs that collapse, shown beside the searches. A shift of 0 is a true match,
    so `flagged` is the false-alarm rate; at any other shift a miss is what is not flagged.
    """
    parts = [
        real.assign(source="public runs"),
        normal.assign(source="normal runs, split the same way"),
        simulated[simulated["kind"] == "collapse"].assign(source="one run in ten collapses", kind="tune"),
    ]
    frame = pd.concat(parts, ignore_index=True).rename(columns={"flagged_known_m": "flagged"})
    columns = ["kind", "source", "n", "m", "shift", "flagged"]
    return frame[columns].sort_values(columns[:-1], ignore_index=True)
