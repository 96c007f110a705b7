"""The numbers behind the pictures of the facts that matter most: one small table per fact, from data and cells.

`claims/marks.csv` says where a name or symbol stands, with the words as proof: columns paper, fact, row, column, mark,
quote (without backslashes).
"""

import numpy as np
import pandas as pd

from papers_check.checks import claims, external, gain_noise
from papers_check.judge.verdicts import LOWER_IS_BETTER
from papers_check.printed.cells import load_reported
from papers_check.printed.papers import ABLATIONS, DATASETS, METHODS, NAMES, TABLES, TITLES
from papers_check.printed.rows import column, rows
from papers_check.show.picture_data import drops, points

MARKS = claims.FOLDER / "marks.csv"
# What a table can show of robustness; the last three are shown by none.
TESTS = ("scores on the standard test set", "a modality taken out", "a component taken out")
TESTS += ("noise or corrupted input", "conflicting samples", "another data set than the trained one")


def marks(fact: str) -> pd.DataFrame:
    """Where what stands: rows and columns in the order of `marks.csv`, a word, "stands" or "" per cell."""
    frame = pd.read_csv(MARKS, dtype=str, keep_default_na=False)
    frame = frame[frame["fact"] == fact]
    table = frame.assign(mark=frame["mark"].replace("", "stands")).pivot(index="row", columns="column", values="mark")
    return table.reindex(index=frame["row"].unique(), columns=frame["column"].unique()).fillna("")


def tested() -> pd.DataFrame:
    """What each result table shows: index "AMSGFN Table 2", columns `TESTS`, "stands" or ""."""
    lines = {}
    for (paper, table), kind in TABLES.items():
        if kind == "sizes":
            continue
        rows = load_reported(paper, table)["row"].unique()
        roles = {METHODS[paper, row].role for row in rows}
        shows = [True, "modalities" in roles, "component" in roles, False, False, False]
        lines[f"{TITLES[paper]} Table {table}"] = ["stands" if one else "" for one in shows]
    return pd.DataFrame.from_dict(lines, orient="index", columns=list(TESTS))


def unprinted_row(paper: str = "amsgfn", table: str = "6", dataset: str = "mosei", own: str = "Our") -> pd.DataFrame:
    """The drops of an ablation in points, and those that the text states of a row that is not printed.

    Columns row, column, drop, printed.
    """
    cells = load_reported(paper, table)
    key = ["metric", "side"]
    full = cells[cells["row"] == own].set_index(key)["value"]
    lines = []
    for row, metric, side, value in cells[["row", *key, "value"]].to_numpy():
        if row != own:
            sign = -1 if metric in LOWER_IS_BETTER else 1
            drop = sign * (float(full[metric, side]) - float(value))
            lines.append((row, column(metric, side), points(metric, drop), True))
    stated = claims.load_claims(paper).query("kind == 'drop' and expression == '' and printed != ''")
    for name, printed in stated[["id", "printed"]].to_numpy():
        metric, side = [*name.split("-")[2:], ""][:2]
        lines.append(("w/o Cor", column(metric, side), points(metric, float(printed)), False))
    return pd.DataFrame(lines, columns=["row", "column", "drop", "printed"])


def readouts(levels: int = 7, seed: int = 4) -> pd.DataFrame:
    """One class distribution over the labels of CMU-MOSI, rounded: columns label, probability; a toy, not a model."""
    bound = DATASETS["mosi"]["bound"]
    p = np.exp(np.random.default_rng(seed).normal(size=levels))
    return pd.DataFrame({"label": np.linspace(-bound, bound, levels), "probability": p / p.sum()})


def margins_in_noise() -> pd.DataFrame:
    """The printed gains over the runner-up in standard deviations over seeds: columns paper, name, gain_in_sd."""
    gains = gain_noise.comparisons()
    gains = gains[gains["gain_in_sd"].notna()]
    names = [f"{NAMES[d]} {column(m, s)}" for d, m, s in gains[["dataset", "metric", "side"]].to_numpy()]
    return gains.assign(name=names)[["paper", "name", "gain_in_sd"]].reset_index(drop=True)


def two_sources(paper: str = "amsgfn", dataset: str = "sims") -> pd.DataFrame:
    """Gains in points over the best printed baseline, and over a listed one as published: columns column, printed,
    published, printed_by, published_by."""
    gains = external.listed_gains(paper)
    gains = gains[gains["dataset"] == dataset]
    lines = []
    for line in gains.itertuples():
        sign = -1 if line.metric in LOWER_IS_BETTER else 1
        both = [points(line.metric, sign * (float(line.own) - float(v))) for v in (line.printed, line.published)]
        lines.append((column(line.metric, line.side), *both, line.printed_by, line.published_by))
    return pd.DataFrame(lines, columns=["column", "printed", "published", "printed_by", "published_by"])


def without_a_modality() -> pd.DataFrame:
    """What the rows without one modality lose, in points: `picture_data.drops` of the ablations of modalities."""
    table = drops(rows())
    places = table[["paper", "table", "row"]].to_numpy()
    kept = [METHODS[p, r].role == "modalities" and (p, t) in ABLATIONS for p, t, r in places]
    return table[np.array(kept)].reset_index(drop=True)
