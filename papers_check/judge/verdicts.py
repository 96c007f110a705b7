"""Verdicts: what our runs say about each printed cell, in a fixed vocabulary, with every number behind the word.

`judge` joins printed cells (`load_reported`) to result rows and gives one line per printed cell, a `Verdict`. The
tests are in `intervals.py`, relations between rows in `relations.py`; `calibration.py` measures how often the words are
wrong. A number of averaged runs is not known unless the paper says so; each word is taken at the end that is harder for
it: inside, and equivalent, must hold for every m, outside for every m.

Fixed before any run: alpha = 0.05; the margin of equivalence is half of the gain the paper itself prints for its own
row over the runner-up of that table, per data set, metric and side, and where it prints no gain there is no margin;
below five seeds no word beyond compatible, compatible if few runs and not attempted. Synthetic data are
never compared with a printed number.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal

import numpy as np
import pandas as pd

from papers_check.judge import intervals
from papers_check.judge.intervals import ALPHA
from papers_check.judge.our_runs import OurRuns
from papers_check.printed.papers import is_own
from papers_check.printed.units import column_decimals, our_metric

LOWER_IS_BETTER = ("mae",)
FLOOR = 5  # seeds
MOST_BEST_OF = 10  # beyond that, best of M explains anything
COUNTS = ("train", "valid", "test", "total")  # columns of a table of data sets
KEY = ("paper", "table", "dataset", "row", "metric", "side")
KEY_PRINTED = ("paper", "table", "dataset", "printed_row", "metric", "side")
COLUMN = ("paper", "table", "dataset", "metric", "side")

REPRODUCED = "reproduced"
COMPATIBLE = "compatible"
FEW_RUNS = "compatible if few runs"
BEST_OF = "compatible only as best of M"
TEST_SELECTION = "compatible only under test selection"
SMALL_DIFFERENCE = "small real difference"
NOT_REPRODUCED = "not reproduced"
NOT_ATTEMPTED = "not attempted"
SYNTHETIC = "not comparable: synthetic"
VERDICTS = (REPRODUCED, COMPATIBLE, FEW_RUNS, BEST_OF, TEST_SELECTION, SMALL_DIFFERENCE, NOT_REPRODUCED)
VERDICTS += (NOT_ATTEMPTED, SYNTHETIC)


@dataclass(frozen=True)
class Verdict:
    """One printed cell and everything its verdict rests on, in the printed unit (accuracies and F1 in percent)."""

    paper: str
    table: str
    dataset: str
    row: str
    metric: str
    side: str
    reported: str  # the printed string; empty for a dash
    decimals: int  # of the column
    direction: str  # "lower" or "higher" is better
    label: str  # our name of the row
    synthetic: bool
    selection: str
    commit: str
    n: int  # seeds with a defined value
    failed: int
    undefined: int
    values: tuple[float, ...]  # one per seed, in the order of `seeds`
    seeds: tuple[int, ...]
    model: str  # what was trained, where the rows say so
    mean: float
    sd: float  # ddof 1
    p_1: float  # compatible with a single run; with the mean of infinitely many
    p_inf: float
    m_star: float  # the largest number of averaged runs for which it is still compatible
    best_of: float
    pi_1_low: float
    pi_1_high: float
    pi_inf_low: float
    pi_inf_high: float
    mdd_1: float  # smallest detectable discrepancy if a single run was printed; if the mean of very many was
    mdd_inf: float
    margin: float
    tost_p: float  # equivalence even if a single run was printed, whose noise is that of ours
    equivalence_seeds_1: float  # fewest seeds with which it could pass, at our spread, if one run was printed,
    equivalence_seeds_5: float  # if five were averaged,
    equivalence_seeds_inf: float  # and if the printed value were exact; infinite: never
    p_1_holm: float  # over the judged cells of this table, a cell with readings counting once
    p_1_bh: float  # over all judged cells
    oracle_n: int  # the same under test selection
    oracle_mean: float
    oracle_p_1: float
    reported_is: str  # "better", "worse", "equal" (prints the same) or ""
    verdict: str
    verdict_truncated: str  # the same if the paper cut the last digit off instead of rounding
    reason: str

    def __post_init__(self) -> None:
        for verdict in (self.verdict, self.verdict_truncated):
            if verdict not in VERDICTS:
                raise ValueError(f"verdict {verdict!r}: expected one of {', '.join(VERDICTS)}")
        if self.synthetic and self.verdict not in (SYNTHETIC, NOT_ATTEMPTED):
            raise ValueError(f"{self.row} {self.metric} on synthetic data is {self.verdict!r}: expected {SYNTHETIC!r}")


# --- readings of one cell -------------------------------------------------------------------------------------------

# A word that says something against a cell needs every reading of it, so what was not attempted comes before these.
BEST_FIRST = (REPRODUCED, COMPATIBLE, FEW_RUNS, SYNTHETIC, NOT_ATTEMPTED)
BEST_FIRST += (BEST_OF, TEST_SELECTION, SMALL_DIFFERENCE, NOT_REPRODUCED)


def printed_rows(lines: pd.DataFrame) -> pd.Series:
    """The printed name of each line's row, whatever it is read as."""
    return lines["printed_row"] if "printed_row" in lines.columns else lines["row"]


def best_reading(lines: pd.DataFrame, by: Sequence[str], order: Sequence[str]) -> pd.DataFrame:
    """One line per group of `by`, in order: that with the first word of `order`; `readings` counts the lines."""
    rank = lines["verdict"].map({word: place for place, word in enumerate(order)})
    ranked = lines.assign(_rank=rank, _place=range(len(lines)))
    ranked["readings"] = ranked.groupby(list(by))["_rank"].transform("size")
    ranked["_first"] = ranked.groupby(list(by))["_place"].transform("min")
    best = ranked.sort_values(["_rank", "_place"]).drop_duplicates(list(by)).sort_values("_first")
    return best.drop(columns=["_rank", "_place", "_first"]).reset_index(drop=True)


def printed_cells(judged: pd.DataFrame) -> pd.DataFrame:
    """One line per printed cell: its most favourable reading, and how many `readings` it has.

    A cell is called not reproduced only if it is so under every reading, none of them without runs.
    """
    return best_reading(judged.assign(printed_row=printed_rows(judged)), KEY_PRINTED, BEST_FIRST)


# --- margins, fixed by what is printed ------------------------------------------------------------------------------


def gains(reported: pd.DataFrame) -> pd.DataFrame:
    """What each paper claims over the runner-up: one line per table, data set, metric and side of `reported`.

    Columns paper, table, dataset, metric, side, studied, value, runner_up, runner_up_value (printed strings), gain
    (in the printed unit, positive where the paper's own row is better, exact). Tables without such a row have no line.
    """
    lines = []
    for key, cells in reported[reported["value"] != ""].groupby(list(COLUMN), sort=False):
        ours = cells["row"].map(lambda row, paper=key[0]: is_own(paper, row))
        own, others = cells[ours], cells[~ours]
        if len(own) != 1 or others.empty:
            continue
        sign = -1 if key[3] in LOWER_IS_BETTER else 1
        _, name, text = max((sign * Decimal(text), row, text) for row, text in others[["row", "value"]].to_numpy())
        studied, value = own.iloc[0][["row", "value"]]
        lines.append((*key, studied, value, name, text, float(sign * (Decimal(value) - Decimal(text)))))
    return pd.DataFrame(lines, columns=[*COLUMN, "studied", "value", "runner_up", "runner_up_value", "gain"])


def default_margins(reported: pd.DataFrame) -> pd.DataFrame:
    """Margins of equivalence, `COLUMN` and `margin`: half of the claimed gain; none where the gain is not positive."""
    found = gains(reported)
    return found[list(COLUMN)].assign(margin=np.where(found["gain"] > 0, found["gain"] / 2, np.nan))


# --- the word -------------------------------------------------------------------------------------------------------


def verdict_word(n, p_1, p_inf, tost_p, best_of, oracle_p_1=np.nan, p_1_holm=None, alpha=ALPHA):
    """The first verdict that holds, in the order of `VERDICTS`; arrays broadcast. -> array of strings

    A cell outside for every m that is inside once the number of cells of its table is allowed for (Holm) is called
    compatible if few runs. Below `FLOOR` seeds whatever needs more of them is not attempted.
    """
    n, p_1, p_inf, tost_p, best_of, oracle_p_1 = np.broadcast_arrays(n, p_1, p_inf, tost_p, best_of, oracle_p_1)
    p_1_holm = p_1 if p_1_holm is None else p_1_holm
    with np.errstate(invalid="ignore"):
        equivalent = tost_p < alpha
        cases = (
            (np.isnan(p_inf), NOT_ATTEMPTED),
            ((p_inf >= alpha) & equivalent & (n >= FLOOR), REPRODUCED),
            (p_inf >= alpha, COMPATIBLE),
            (p_1 >= alpha, FEW_RUNS),
            (n < FLOOR, NOT_ATTEMPTED),
            ((best_of > 1) & (best_of <= MOST_BEST_OF), BEST_OF),
            (oracle_p_1 >= alpha, TEST_SELECTION),
            (equivalent, SMALL_DIFFERENCE),
            (np.broadcast_to(p_1_holm, n.shape) < alpha, NOT_REPRODUCED),
        )
    return np.select([case for case, _ in cases], [word for _, word in cases], default=FEW_RUNS)


def judge(
    reported: pd.DataFrame,
    rows: pd.DataFrame,
    labels: Mapping[str, str] | None = None,
    datasets: Mapping[str, str] | None = None,
    margins: pd.DataFrame | None = None,
    not_attempted: Mapping[str, str] | None = None,
    deterministic: Collection[str] = (),
    alpha: float = ALPHA,
    withheld: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """One line per line of `reported`, in its order; the columns are the fields of `Verdict`.

    reported       from `load_reported`, whole tables, any number of them; where a row can be read in several ways, a
                   line per reading with a `row` of its own, and `printed_row` for what is printed
    rows           results in long format: `side_by_side.ROW_COLUMNS`, `synthetic`, `selection`, and where known
                   `dataset`, `commit`, `reason` and `our_runs.SETTINGS`; fractions for accuracies and F1. Rows selected
                   by `our_runs.ORACLE` serve
                   only to ask whether test selection explains a cell, synthetic ones only where there are no real ones
    labels         printed row name -> our `label`, where the two differ
    datasets       our data set's name -> the printed one; "planted-mosi?train=48" is mosi without saying so
    margins        `COLUMN` and `margin`, in the printed unit; `default_margins(reported)` unless given
    not_attempted  printed row name -> why there are no runs of it
    deterministic  labels for which one run is all there is: compared by rounding, without an interval
    withheld       our label -> why its numbers are shown and not judged

    Raises ValueError for missing columns, an unknown status, an accuracy outside [0, 1], a seed that occurs twice and
    rows of one label that mix settings.
    """
    excuses = dict(not_attempted or {})
    if "dataset" not in rows.columns and len(rows) and reported["dataset"].nunique() > 1:
        raise ValueError("result rows do not say their dataset: expected that column, or printed cells of one data set")
    found = OurRuns(rows, datasets or {}, deterministic)
    if margins is None:
        once = reported.assign(row=printed_rows(reported)).drop_duplicates(list(KEY))
        margins = default_margins(once)
    margin = {tuple(line[:-1]): line[-1] for line in margins[[*COLUMN, "margin"]].to_numpy()}
    decimals = {key: column_decimals(part) for key, part in reported.groupby(["paper", "table", "dataset"])}

    lines = []
    keys, names = reported[list(KEY)].itertuples(index=False, name=None), printed_rows(reported)
    for key, name, text in zip(keys, names, reported["value"], strict=True):
        paper, table, dataset, row, metric, side = key
        label = (labels or {}).get(row, row)
        line = dict(zip(KEY, key, strict=True)) | found.of(label, dataset, our_metric(metric, side))
        missing = (withheld or {}).get(label, "") if line["n"] else excuses.get(row, line["why"])
        if metric in COUNTS or not text:
            missing = "a count, not the result of a run" if text else "the paper prints a dash"
        lines.append(
            line
            | {
                "reported": text,
                "decimals": decimals[paper, table, dataset][metric],
                "direction": "lower" if metric in LOWER_IS_BETTER else "higher",
                "label": label,
                "printed_row": name,
                "margin": margin.get((paper, table, dataset, metric, side), np.nan),
                "missing": missing,
            }
        )
    if not lines:
        return pd.DataFrame(columns=[field.name for field in fields(Verdict)])
    return _with_verdicts(pd.DataFrame(lines), alpha)


def _with_verdicts(cells: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """The lines of `judge` from printed strings and values: numbers, words, reasons."""
    higher = (cells["direction"] == "higher").to_numpy()
    comparable = ((cells["missing"] == "") & ~cells["synthetic"]).to_numpy()
    n, mean, sd = (np.where(comparable, cells[name], np.nan).astype(float) for name in ("n", "mean", "sd"))
    oracle = cells["oracle"].map(intervals.mean_sd_n)
    oracle_mean, oracle_sd, oracle_n = (np.array([o[i] for o in oracle], float) for i in range(3))
    margin = cells["margin"].to_numpy(float)

    def numbers(truncated: bool) -> dict[str, np.ndarray]:
        spans = [
            intervals.unrounded(text, k, truncated) if ok else (np.nan, np.nan)
            for text, k, ok in zip(cells["reported"], cells["decimals"], comparable, strict=True)
        ]
        centre, half = np.array(spans).T
        p_1, p_inf = (intervals.p_value(centre, mean, sd, n, m, half) for m in (1, np.inf))
        m_star = intervals.largest_m(centre, mean, sd, n, half, alpha)
        for i in np.flatnonzero(sd == 0):  # no interval: does our value print as theirs?
            same = intervals.rounds_to(mean[i], cells["reported"][i], cells["decimals"][i], truncated)
            p_1[i], p_inf[i], m_star[i] = float(same), float(same), np.inf if same else 0.0
        enough = comparable & (oracle_n >= FLOOR)
        oracle_p = np.where(enough, intervals.p_value(centre, oracle_mean, oracle_sd, oracle_n, 1, half), np.nan)
        ends = [intervals.prediction_interval(mean, sd, n, m, half, alpha) for m in (1, np.inf)]
        ahead = np.where(intervals.distance(centre, mean, half) <= 1e-9, 0, np.where(higher, 1, -1) * (centre - mean))
        words = np.array(["equal", "better", "worse"])[np.nan_to_num(np.sign(ahead)).astype(int)]
        return {
            "p_1": p_1,
            "p_inf": p_inf,
            "m_star": m_star,
            "best_of": intervals.best_of(centre, mean, sd, n, half, higher, alpha),
            "pi_1_low": ends[0][0],
            "pi_1_high": ends[0][1],
            "pi_inf_low": ends[1][0],
            "pi_inf_high": ends[1][1],
            "mdd_1": intervals.detectable(sd, n, 1, half, alpha),
            "mdd_inf": intervals.detectable(sd, n, np.inf, half, alpha),
            "tost_p": intervals.tost_p(centre, mean, sd, n, margin, half, m=1),
            **{f"equivalence_seeds_{m:.0f}": _seeds_needed(margin, sd, half, m) for m in (1, 5, np.inf)},
            "p_1_holm": _holm_over_cells(cells, p_1),
            "p_1_bh": bh_over_cells(cells.assign(p_1=p_1)),
            "oracle_p_1": oracle_p,
            "reported_is": np.where(np.isnan(ahead), "", words),
        }

    def verdicts(found: dict[str, np.ndarray]) -> np.ndarray:
        names = ("p_1", "p_inf", "tost_p", "best_of", "oracle_p_1", "p_1_holm")
        words = verdict_word(n, *(found[name] for name in names), alpha=alpha)
        planted = cells["synthetic"] & (cells["missing"] == "")
        return np.where(planted, SYNTHETIC, words)

    found = numbers(truncated=False)
    lines = cells.assign(**found, oracle_n=oracle_n.astype(int), oracle_mean=oracle_mean)
    lines["verdict"], lines["verdict_truncated"] = verdicts(found), verdicts(numbers(truncated=True))
    lines["reason"] = [_reason(line) for line in lines.to_dict("records")]
    names = [field.name for field in fields(Verdict)]
    return pd.DataFrame([asdict(Verdict(**line)) for line in lines[names].to_dict("records")], columns=names)


def _seeds_needed(margin: np.ndarray, sd: np.ndarray, half: np.ndarray, m: float) -> np.ndarray:
    known = ~np.isnan(margin) & ~np.isnan(sd) & ~np.isnan(half)
    lines = zip(margin, sd, half, known, strict=True)
    return np.array([intervals.seeds_for_equivalence(x, s, h, m=m) if ok else np.nan for x, s, h, ok in lines])


def _holm_over_cells(cells: pd.DataFrame, p: np.ndarray) -> np.ndarray:
    """p of each line adjusted over the cells of its table, the other cells taken at their most compatible reading.

    A cell is rejected only if every reading is, so that its readings are one test: the chance of a false rejection in
    a table stays below alpha however many readings its rows have.
    """
    adjusted = np.full(len(p), np.nan)
    cells = cells.assign(p=p)
    for lines in cells.groupby(["paper", "table"]).indices.values():
        group = cells.iloc[lines].groupby(list(KEY_PRINTED), sort=False)
        best, place = group["p"].max().to_numpy(), group.ngroup().to_numpy()
        for line, cell in zip(lines, place, strict=True):
            adjusted[line] = intervals.holm(np.where(np.arange(len(best)) == cell, p[line], best))[cell]
    return adjusted


def bh_over_cells(cells: pd.DataFrame) -> np.ndarray:
    """p_1 of each line adjusted for the share of false entries (Benjamini-Hochberg), a cell at its best reading."""
    group = cells.groupby(list(KEY_PRINTED), sort=False)
    best = intervals.benjamini_hochberg(group["p_1"].max().to_numpy())
    return best[group.ngroup().to_numpy()]


def _reason(line: Mapping) -> str:
    """One sentence behind the word."""
    verdict, n, missing = line["verdict"], line["n"], line["missing"]
    seeds = f"our {n} seeds" if n != 1 else "our only run"
    few = "one seed has no spread" if n == 1 else f"{n} seeds, outside their interval whatever was averaged"
    margin = "there is no margin to test" if np.isnan(line["margin"]) else "equivalence is not shown"
    averaged = int(line["m_star"]) if 1 <= line["m_star"] < np.inf else 0
    at_most = f"compatible if the paper averaged at most {averaged} run{'s' * (averaged > 1)}"
    by_holm = "outside for a single run taken alone, inside once the cells of this table are counted (Holm)"
    sentence = {
        REPRODUCED: f"inside the interval of {seeds} and within {line['margin']:g} of their mean",
        COMPATIBLE: f"inside the interval of {seeds} whatever was averaged; {margin}",
        FEW_RUNS: at_most if averaged else by_holm,
        BEST_OF: f"better than one run of ours would be; compatible with the best of {line['best_of']:.0f} runs",
        TEST_SELECTION: f"inside only if the epoch is chosen on the test set ({line['oracle_n']} seeds)",
        SMALL_DIFFERENCE: f"outside for every number of runs, yet within {line['margin']:g} of our mean",
        NOT_REPRODUCED: f"{line['reported_is']} than {seeds} allow, whatever was averaged (Holm)",
        NOT_ATTEMPTED: missing or f"{few}; a verdict needs {FLOOR} seeds",
        SYNTHETIC: "synthetic data: relations between rows may be read, printed numbers may not be compared with it",
    }[verdict]
    failed = f"; {line['failed']} of {n + line['failed'] + line['undefined']} runs failed" if line["failed"] else ""
    return sentence + ("" if missing or verdict == SYNTHETIC else failed)
