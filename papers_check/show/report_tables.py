"""What the report shows of one printed table: each cell and relation as texts, ready for the template."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from papers_check.checks import audit
from papers_check.checks.finding import Finding
from papers_check.judge import relations, verdicts
from papers_check.judge.judged_tables import MARKS, PART, JudgedTables
from papers_check.judge.side_by_side import ours_text
from papers_check.printed.papers import NAMES, PAPERS, is_own
from papers_check.printed.rows import METRICS, column

MEANINGS = {
    verdicts.REPRODUCED: "inside our interval, and shown to be within the margin, however many runs were averaged",
    verdicts.COMPATIBLE: "inside our interval however many runs were averaged; being close is not shown",
    verdicts.FEW_RUNS: "inside only if the paper averaged few runs",
    verdicts.BEST_OF: "outside for a single run, inside for the best of M runs",
    verdicts.TEST_SELECTION: "inside only if the epoch is chosen on the test set",
    verdicts.SMALL_DIFFERENCE: "outside for every number of runs, yet within the margin of our mean",
    verdicts.NOT_REPRODUCED: "outside for every number of runs, the number of cells of the table allowed for",
    verdicts.NOT_ATTEMPTED: "no runs, or too few for a verdict; the reason stands beside it",
    verdicts.SYNTHETIC: "our runs are on synthetic data, so that no printed number can be judged by them",
    relations.HOLDS: "the row that is printed as better is better in our runs, more than chance would have it",
    relations.UNDECIDED: "neither a gap nor its absence is shown, or there are fewer than five seeds",
    relations.NO_EFFECT: "any gap in our runs is smaller than X, the printed gap, either way",
    relations.REVERSED: "the row that is printed as better is worse in our runs, more than chance would have it",
}
TABLE = re.compile(r"Tables? (\d+)(?: (and|to) (\d+))?")


def table_shown(key: tuple, cells: pd.DataFrame, judged: JudgedTables, found: Sequence[Finding]) -> dict:
    """What is shown of one printed table and data set: cells with runs, relations, our other rows, cells without."""
    paper, table, _ = key
    # A row is shown as a whole only if nothing can be said about any cell of it; else each cell has its line.
    silent = (
        ((cells["n"] == 0) & (cells["failed"] == 0) & (cells["verdict"] == verdicts.NOT_ATTEMPTED))
        .groupby(cells["row"])
        .transform("all")
    )
    compared = judged.relations[_is(judged.relations, key)]
    # A reading without runs is shown beside one that has some.
    names = ["metric", "side", "printed_better", "printed_worse"]
    compared = compared.merge(compared.loc[compared["verdict"] != verdicts.NOT_ATTEMPTED, names].drop_duplicates())
    order = {row: place for place, row in enumerate(cells["row"].unique())}
    lines = sorted(compared.to_dict("records"), key=lambda line: order[_other(line)])
    best = verdicts.printed_cells(cells)
    chosen = best.set_index(["printed_row", "metric", "side"])[["row", "verdict", "readings"]].to_dict("index")
    once = [
        line["row"] == chosen[line["printed_row"], line["metric"], line["side"]]["row"]
        for line in cells.to_dict("records")
    ]
    cells = cells.assign(once=once)
    with_runs = cells[~silent]
    run = [run for run in runs_shown(judged) if all(run[name] == value for name, value in zip(PART, key, strict=True))]
    whole_table = judged.cells[(judged.cells["paper"] == paper) & (judged.cells["table"] == table)]
    columns = list(dict.fromkeys(zip(whole_table["metric"], whole_table["side"], strict=True)))  # in printed order
    decimals = {(line["metric"], line["side"]): line["decimals"] for line in cells.to_dict("records")}
    place = f"{paper}-{table}"
    extras = judged.extras[_is(judged.extras, key)]
    marks = extras["fidelity"].map(lambda word: MARKS.get(word, "")).astype(str)
    return {
        "name": table_name(dict(zip(PART, key, strict=True))),
        "slug": slug_of(key),
        "paper": paper,
        "place": place,
        "run": run[0] if run else None,
        "synthetic": bool(with_runs["synthetic"].any()),
        "judged": [
            _cell(line, chosen[line["printed_row"], line["metric"], line["side"]])
            for line in with_runs.to_dict("records")
        ],
        "word_counts": _words(best.loc[best["row"].isin(with_runs["row"]), "verdict"]),
        "relations": [_relation(line, decimals) for line in lines],
        "relation_tests": int(sum(part["test"].nunique() for _, part in compared.groupby(["metric", "side"]))),
        "relation_counts": _relation_words(compared),
        "extras": _wide(extras.assign(label=extras["label"] + marks), "label", "ours", columns),
        "marked": bool(marks.any()) or bool(cells["fidelity"].isin(MARKS).any()),
        "silent": _wide(cells[silent], "row", "reported", columns),
        "silent_cells": cells[silent].groupby("row")["once"].sum().to_dict(),
        "reasons": cells[silent].groupby("row")["reason"].first().to_dict(),
        "findings": [finding for finding in found if place in places(finding.where, finding.paper)],
    }


def _cell(line: Mapping, best: Mapping) -> dict:
    """A line of cells; `best` is what its printed cell comes to over all readings."""
    k, real = line["decimals"], not line["synthetic"]
    ours = ours_text(line | {"ours": line["mean"], "column_decimals": k})
    return {
        "row": line["row"] + MARKS.get(line["fidelity"], ""),
        "column": _column(line["metric"], line["side"]),
        "printed": line["reported"],
        "ours": ours,
        "n": line["n"],
        "values": " ".join(_number(value, k) for value in line["values"]) if line["n"] > 1 else "",
        "one": _interval(line["pi_1_low"], line["pi_1_high"], k),
        "many": _interval(line["pi_inf_low"], line["pi_inf_high"], k),
        "detectable": f"{_number(line['mdd_1'], k)} / {_number(line['mdd_inf'], k)}" if line["mdd_1"] >= 0 else "",
        "needed": _needed(line),
        "verdict": line["verdict"],
        "reason": line["reason"] if real or line["verdict"] != verdicts.SYNTHETIC else "",
        "of_cell": f"{best['verdict']}, over its {best['readings']} readings" if best["readings"] > 1 else "",
        "counts": int(line["once"]),
        "truncated": line["verdict_truncated"] if line["verdict_truncated"] != line["verdict"] else "",
    }


def _needed(line: Mapping) -> str:
    """Seeds with which equivalence could pass, if one run was printed, five were averaged, or the value were exact."""
    counts = [line[f"equivalence_seeds_{m}"] for m in ("1", "5", "inf")]
    return " / ".join(f"{n:.0f}" if np.isfinite(n) else "never" for n in counts) if not np.isnan(counts[-1]) else ""


def _other(line: Mapping) -> str:
    """The row of a relation that is not the paper's own."""
    return line["worse"] if is_own(line["paper"], line["printed_better"]) else line["better"]


def _relation(line: Mapping, decimals: Mapping[tuple[str, str], int]) -> dict:
    k = decimals[line["metric"], line["side"]]
    return {
        "better": line["better"],
        "worse": line["worse"],
        "column": _column(line["metric"], line["side"]),
        "claimed": _number(line["claimed_gap"], k),
        "inside": {True: "yes", False: "no"}.get(line["claimed_inside"], ""),
        "gap": _number(line["gap"], k, sign=True),
        "interval": _interval(line["low"], line["high"], k, sign=True),
        "how": line["interval"] + (f", r = {line['correlation']:.2f}" if line["correlation"] >= -1 else ""),
        "smallest": _number(line["smallest_effect"], k),
        "margin": _number(line["margin"], k),
        "reason": "" if line["verdict"] in (relations.HOLDS, relations.REVERSED) else line["reason"].partition(": ")[2],
        "by_construction": line["by_construction"],
        "p": "below 0.001" if line["p_holm"] < 0.001 else _number(line["p_holm"], 3),
        "n": f"{line['n_better']} / {line['n_worse']}",
        "p_margin": "below 0.001" if line["p_margin_holm"] < 0.001 else _number(line["p_margin_holm"], 3),
        "verdict": line["verdict"],
    }


def _wide(cells: pd.DataFrame, name: str, value: str, order: Sequence[tuple[str, str]]) -> dict:
    """{"columns": names, "rows": [(row, texts)]}: a line per row, an empty text where there is nothing."""
    texts = {tuple(key): text for *key, text in cells[[name, "metric", "side", value]].to_numpy()}
    columns = [one for one in order if one in {key[1:] for key in texts}]
    rows = [(row, [texts.get((row, *one), "") for one in columns]) for row in cells[name].unique()]
    return {"columns": [_column(*one) for one in columns], "rows": rows}


def places(where: str, paper: str) -> set[str]:
    """The tables a text names, as "amsgfn-2": "Tables 2 to 4" is three; with both papers each part names its own."""
    found = set()
    for part in where.split(";"):
        own = next((name for name in PAPERS if part.strip().startswith(audit.SUBJECT_TITLES[name])), paper)
        for first, word, last in TABLE.findall(part):
            numbers = range(int(first), int(last) + 1) if word == "to" else {int(first), int(last or first)}
            found |= {f"{own}-{number}" for number in numbers}
    return found


# --- texts ------------------------------------------------------------------------------------------------------------


def runs_shown(judged: JudgedTables) -> list[dict]:
    """The lines of `JudgedTables.runs` with a name for the table and short words for the seeds."""
    return [
        line | {"name": table_name(line), "seeds": _seeds(line["seeds"])} for line in judged.runs.to_dict("records")
    ]


def _seeds(text: str) -> str:
    """ "3 (1111 to 1113)" for seeds in a row, "2 (1, 5)" for others."""
    seeds = [int(seed) for seed in text.split(", ") if seed]
    in_a_row = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"{len(seeds)} ({f'{seeds[0]} to {seeds[-1]}' if in_a_row else text})" if seeds else ""


def _words(words: pd.Series) -> str:
    """ "3 compatible, 1 not reproduced", in the order of the vocabulary."""
    counts = words.value_counts()
    return ", ".join(f"{counts[word]} {word}" for word in MEANINGS if word in counts)


def _relation_words(compared: pd.DataFrame) -> str:
    """The counts of the words, a relation with readings once, and how often the better row is ahead at all."""
    once = relations.printed_relations(compared)
    made = once["by_construction"] != ""
    text = _words(once.loc[~made, "verdict"])
    if made.any():
        text += f"{'; ' if text else ''}by construction of the planted data: {_words(once.loc[made, 'verdict'])}"
    text += f"; in our runs, too, the better row is ahead in {(once['gap'] > 0).sum()} of {len(once)}"
    paired = once["correlation"].dropna()
    text += f"; median correlation over seeds {paired.median():.2f}" if len(paired) else ""
    few = int((once[["n_better", "n_worse"]].min(axis=1) < verdicts.FLOOR).sum())
    return text + (f"; {few} with fewer than {verdicts.FLOOR} seeds, which decide nothing" if few else "")


def _is(frame: pd.DataFrame, key: tuple) -> pd.Series:
    return (frame[list(PART)] == list(key)).all(axis=1)


def table_name(line: Mapping) -> str:
    dataset = f", {NAMES[line['dataset']]}" if line["dataset"] else ""
    return f"{audit.SUBJECT_TITLES[line['paper']]} Table {line['table']}{dataset}"


def slug_of(key: Sequence[str]) -> str:
    return "-".join(part for part in key if part)


def _column(metric: str, side: str) -> str:
    return column(metric, side) if metric in METRICS else metric


def _number(value: float, decimals: int, sign: bool = False) -> str:
    if np.isnan(value):
        return ""
    # Adding zero turns the -0.0 of a tiny negative number into 0.0.
    return f"{round(float(value), decimals) + 0.0:{'+' if sign else ''}.{decimals}f}"


def _interval(low: float, high: float, decimals: int, sign: bool = False) -> str:
    return "" if np.isnan(low) else f"{_number(low, decimals, sign)} to {_number(high, decimals, sign)}"
