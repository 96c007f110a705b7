"""Relations between rows: does A beat B in our runs as printed?

Everything here takes what `verdicts.judge` returns. Relations may be read from synthetic data, where printed numbers
may not; every line says which it rests on.

Fixed before any run. The interval: seed by seed (paired) where both rows are one model trained with the same seeds, so
that they share initial values and the order of batches; Welch's everywhere else. It does not look at the correlation
that was observed, which would inflate the error (`calibration.pairing`). The margin of "no effect larger than X" is the
printed gap. Both are adjusted by Holm over the different comparisons of a column: two readings that are the same runs
are one test.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal

import numpy as np
import pandas as pd

from papers_check.judge import intervals
from papers_check.judge.intervals import ALPHA
from papers_check.judge.verdicts import COLUMN, FLOOR, LOWER_IS_BETTER, NOT_ATTEMPTED, best_reading, printed_rows
from papers_check.printed.papers import METHODS, by_construction, is_own

HOLDS, UNDECIDED, NO_EFFECT, REVERSED = "holds", "undecided", "no effect larger than X", "reversed"
CONSTRUCTED = ", by construction"  # on planted data, after the word
RELATIONS = (HOLDS, UNDECIDED, NO_EFFECT, REVERSED, NOT_ATTEMPTED)
# Of the readings of one printed relation; against it speaks only what all of them say.
BEST_FIRST = (HOLDS, UNDECIDED, NOT_ATTEMPTED, NO_EFFECT, REVERSED)


@dataclass(frozen=True)
class Relation:
    """ "Better beats worse" in our runs; gaps in the unit of the values, positive where `better` is the better one."""

    better: str
    worse: str
    claimed_gap: float  # as printed; NaN if the claim is no number
    gap: float
    low: float  # interval of the gap
    high: float
    interval: str  # which: "paired" or "Welch"
    correlation: float  # of the pairs over seeds; NaN where there are none
    p: float
    smallest_effect: float  # that these seeds would show in 80 % of cases, the other tests of the column allowed for
    margin: float  # X: the printed gap
    p_margin: float  # that the gap is smaller than X, either way
    margin_seeds: float  # fewest seeds with which that could pass, at our spread
    probability: float  # that a run of `better` beats one of `worse`
    n_better: int
    n_worse: int
    scope: str  # "real data", "synthetic data" or ""
    claimed_inside: bool | None  # whether the claimed gap lies in the interval; None if it cannot be asked
    verdict: str
    reason: str


def compare(
    a: Sequence[float],
    b: Sequence[float],
    higher: bool = True,
    synthetic: bool = False,
    names: tuple[str, str] = ("A", "B"),
    claimed_gap: float = np.nan,
    half: float = 0.0,
    alpha: float = ALPHA,
    paired: bool = False,
    tests: int = 1,
    adjusted: tuple[float, float] | None = None,
) -> Relation:
    """The claim "A is better than B" from the runs of both, one value per seed; `higher`: larger values are better.

    paired     whether the values of both are in the order of the same seeds and to be taken in pairs
    half       the rounding half-width of one printed value; a printed gap carries two
    tests      how many different comparisons are judged together; `adjusted` are then the p values, of no gap and of
               a gap within the margin, that decide instead of this comparison's own

    Below `FLOOR` seeds on either side nothing is decided.
    """
    n_a, n_b = len(a), len(b)
    scope = "synthetic data" if synthetic else "real data"
    if min(n_a, n_b) == 0:
        missing = " and ".join(name for name, n in zip(names, (n_a, n_b), strict=True) if n == 0)
        nothing = dict.fromkeys(("gap", "low", "high", "correlation", "p", "smallest_effect", "p_margin"), np.nan)
        nothing |= {"margin": claimed_gap, "margin_seeds": np.nan, "probability": np.nan, "interval": ""}
        counts = {"n_better": n_a, "n_worse": n_b, "scope": "", "claimed_inside": None}
        return Relation(*names, claimed_gap, **nothing, **counts, verdict=NOT_ATTEMPTED, reason=f"no runs of {missing}")
    sign = 1 if higher else -1
    found = intervals.gap_of(np.multiply(sign, a), np.multiply(sign, b), paired)
    low, high = found.interval(alpha)
    p, p_margin = found.p(), found.p_within(claimed_gap)
    inside = None
    if not (synthetic or np.isnan(claimed_gap) or np.isnan(low)):
        inside = bool(low - 2 * half <= claimed_gap <= high + 2 * half)
    # One pair of runs spreads as the gap does: its deviation is the error times the root of the number of seeds.
    spread = found.error * np.sqrt(min(n_a, n_b))
    needed = np.nan
    if claimed_gap > 0 and not np.isnan(spread):
        needed = intervals.seeds_for_equivalence(claimed_gap, spread, alpha=alpha)
    decisive, within = (p, p_margin) if adjusted is None else adjusted
    if min(n_a, n_b) < FLOOR:
        verdict, reason = UNDECIDED, f"{min(n_a, n_b)} seeds; a verdict needs {FLOOR}"
    elif decisive < alpha:
        verdict, reason = (HOLDS, "the gap is not 0") if found.gap > 0 else (REVERSED, "the gap is negative")
    elif within < alpha:
        verdict, reason = NO_EFFECT, f"any gap is smaller than {claimed_gap:g}, the printed one"
    else:
        more = f" even with a gap of 0, it takes about {needed:.0f}" if np.isfinite(needed) else " with any number"
        reach = f"; that it is smaller than {claimed_gap:g} cannot be shown by {min(n_a, n_b)} seeds,{more}"
        verdict, reason = UNDECIDED, "the gap could be 0" + (reach if needed > min(n_a, n_b) else "")
    numbers = {
        "gap": found.gap,
        "low": low,
        "high": high,
        "correlation": found.correlation,
        "p": p,
        "smallest_effect": found.smallest_effect(alpha / tests),
        "margin": claimed_gap,
        "p_margin": p_margin,
        "margin_seeds": needed,
        "probability": intervals.probability_better(a, b, higher),
    }
    return Relation(
        *names, claimed_gap, **{name: float(value) for name, value in numbers.items()}, interval=found.kind,
        n_better=n_a, n_worse=n_b, scope=scope, claimed_inside=inside, verdict=verdict, reason=f"{scope}: {reason}",
    )  # fmt: skip


def relations(judged: pd.DataFrame, alpha: float = ALPHA) -> pd.DataFrame:
    """The relations each table prints between the paper's own row and every other one, column by column.

    judged: from `verdicts.judge`, or `judged_tables.assemble`, whose readings are compared within one condition at a
    time (see `condition`). One line per pair of printed numbers that differ, and per reading: `COLUMN`, the fields of
    `Relation`, printed_better and printed_worse (rows as printed), test (lines of a column with one number are one
    comparison), p_holm and p_margin_holm (over the different ones), by_construction (why the relation holds on planted
    data whatever a paper's mechanisms do, or "").
    """
    lines = []
    judged = judged.assign(printed_row=printed_rows(judged))
    for key, cells in judged[judged["reported"] != ""].groupby(list(COLUMN), sort=False):
        calls = _calls(cells, dict(zip(COLUMN, key, strict=True)), alpha)
        tests = {}  # a pair of our rows, whichever printed ones they stand for
        numbers = [tests.setdefault(call["pair"], len(tests)) for call in calls]
        plain = [compare(**call["given"], tests=max(1, len(tests))) for call in calls]
        margins = [line.margin for line in plain]
        p = _holm_once([line.p for line in plain], numbers)
        p_margin = _holm_once([line.p_margin for line in plain], list(zip(numbers, margins, strict=True)))
        for call, number, *adjusted in zip(calls, numbers, p, p_margin, strict=True):
            found = compare(**call["given"], tests=len(tests), adjusted=tuple(adjusted))
            if call["withheld"]:
                found = replace(found, reason=call["withheld"])
            more = {"test": number, "p_holm": adjusted[0], "p_margin_holm": adjusted[1]}
            lines.append(dict(zip(COLUMN, key, strict=True)) | asdict(found) | call["line"] | more)
    names = [field.name for field in fields(Relation)]
    extra = ["printed_better", "printed_worse", "by_construction", "test", "p_holm", "p_margin_holm"]
    return pd.DataFrame(lines, columns=[*COLUMN, *names, *extra])


def _calls(cells: pd.DataFrame, column: dict[str, str], alpha: float) -> list[dict]:
    """The comparisons of one column: arguments of `compare`, the pair of our labels, and what else the line says."""
    higher = column["metric"] not in LOWER_IS_BETTER
    lines = cells.to_dict("records")
    own = [line for line in lines if is_own(column["paper"], line["printed_row"])]
    if len({line["printed_row"] for line in own}) != 1:
        return []
    known = [line.get("reading", "") for line in own]
    calls = []
    for ours in own:
        for other in (line for line in lines if line["printed_row"] != ours["printed_row"]):
            if Decimal(ours["reported"]) == Decimal(other["reported"]):
                continue
            if condition(other.get("reading", ""), known) != ours.get("reading", ""):
                continue
            ahead = (Decimal(ours["reported"]) > Decimal(other["reported"])) == higher
            a, b = (ours, other) if ahead else (other, ours)
            withheld = a.get("withheld", "") or b.get("withheld", "")
            apart = withheld or (a["synthetic"] != b["synthetic"] and a["n"] and b["n"])
            known_row = METHODS.get((column["paper"], other["printed_row"]))
            role = known_row.role if known_row and (a["synthetic"] or b["synthetic"]) else ""
            given = {
                "a": () if apart else a["values"],
                "b": () if apart else b["values"],
                "higher": higher,
                "synthetic": a["synthetic"],
                "names": (a["row"], b["row"]),
                "claimed_gap": float(abs(Decimal(a["reported"]) - Decimal(b["reported"]))),
                "half": 0.5 * 10.0 ** -int(ours["decimals"]),
                "alpha": alpha,
                "paired": same_seeds(a, b),
            }
            said = {"printed_better": a["printed_row"], "printed_worse": b["printed_row"]}
            said["by_construction"] = by_construction(role)
            pair = frozenset((a["label"], b["label"]))
            calls.append({"given": given, "pair": pair, "line": said, "withheld": withheld})
    return calls


def same_seeds(a: dict, b: dict) -> bool:
    """Whether two rows are to be taken in pairs: one model, trained with the same seeds."""
    return len(a["seeds"]) > 0 and a["seeds"] == b["seeds"] and a["model"] == b["model"]


def condition(reading: str, own: Sequence[str]) -> str:
    """Which of the own row's readings a reading belongs to: the one it is, or begins with before a colon.

    A row read in one way only, or in ways that the own row has not, was run under the first of the own row's readings.
    """
    return next((name for name in own if reading == name or (name and reading.startswith(f"{name}: "))), own[0])


def _holm_once(p: Sequence[float], tests: Sequence) -> np.ndarray:
    """Holm over the different tests; lines of one test share its adjusted p."""
    once = {}
    for test, value in zip(tests, p, strict=True):
        once.setdefault(test, value)
    adjusted = dict(zip(once, intervals.holm(list(once.values())), strict=True))
    return np.array([adjusted[test] for test in tests])


def printed_relations(compared: pd.DataFrame) -> pd.DataFrame:
    """One line per printed relation: its most favourable reading, and how many `readings` it has."""
    return best_reading(compared, [*COLUMN, "printed_better", "printed_worse"], BEST_FIRST)


def differences(values: pd.DataFrame, reference: str, alpha: float = ALPHA) -> pd.DataFrame:
    """Differences to the column `reference` of one model's rows (index: seeds, columns: labels), as text.

    The interval is the one that decides relations: paired where both have the same seeds, else Welch's. Columns row,
    minus <reference>, interval, how, correlation, smallest effect (seen in 80 % of cases), seeds.
    """
    lines = []
    for label in values.columns.drop(reference):
        a, b = values[label].dropna(), values[reference].dropna()
        found = intervals.gap_of(a.to_numpy(), b.to_numpy(), paired=a.index.equals(b.index))
        low, high = found.interval(alpha)
        known = not np.isnan(low)
        lines.append(
            {
                "row": label,
                f"minus {reference}": f"{found.gap:+.3f}",
                f"{100 * (1 - alpha):g} % interval": f"{low:+.3f} .. {high:+.3f}" if known else "–",
                "how": found.kind,
                "correlation": "–" if np.isnan(found.correlation) else f"{found.correlation:+.2f}",
                "smallest effect": f"{found.smallest_effect(alpha):.3f}" if known else "–",
                "seeds": min(len(a), len(b)),
            }
        )
    return pd.DataFrame(lines)
