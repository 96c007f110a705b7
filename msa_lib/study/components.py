"""The rows of the papers' tables of components (AMSGFN Table 6, DSRF Table 3), their controls, and rows that take back
one of our readings each, trained until they have converged on the ordinary planted data of those tables.

As many samples as MOSI has; every seed draws its own data, which all rows of that seed share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from msa_lib.data.oracle import ceilings
from msa_lib.data.planted import recipe_of
from msa_lib.models import MODELS
from msa_lib.runs import Run
from msa_lib.study import effects, mechanisms
from msa_lib.study.effects import PairedGap, convergence, judged, pairs
from msa_lib.study.mechanisms import MEASURED, SIZES, TRAIN, places, those
from msa_lib.study.pages import ABLATION_ROWS, ADAM, COMPONENT_ROWS, CONTROL_DETAIL, CONTROL_ROWS, PAGES

ROWS = Path(__file__).parent / "components.csv"  # of the committed reference runs
WHICH = ["data", "model", "arm"]
COLUMNS = [*WHICH, *MEASURED]


@dataclass(frozen=True)
class Group:
    """Rows of one page, each with the row that it changes one thing of: one family of simultaneous intervals."""

    page: str
    rows: Mapping[str, str]  # label -> label of what it is compared with

    @property
    def data(self) -> str:
        return f"planted-{PAGES[self.page].dataset}"

    def settings(self, label: str) -> tuple[str, Mapping]:
        """Model of a row; its switches, and training settings among them."""
        return (PAGES[self.page].rows | PAGES[self.page].detail)[label]


SPACE = ("shared space downstream", "w/o CCAM, downstream")
TABLE_3 = ABLATION_ROWS[1 : ABLATION_ROWS.index("no_rec_loss") + 1]
DSRF_CONTROLS = (
    "no_usf (g=1/2)", "no_usf (matched scale)", "told uncertainty", "no_routing (concat)", "no_routing, no_rec_loss",
    "one iteration", "wide vector", "random roles", "no factor losses", "no L_emo", "no L_ctx", "no L_amb", "no L_n",
    "no independence",
)  # fmt: skip
DSRF_PRINT = (
    "gradient through r_e", "gradient through the routing", "gradient into H of Eq. 12",
    "gradient into uncertainties", "no stop-gradients", "literal uncertainties", "sums in Eqs. 2 and 12",
    "sign of Eq. 17", "w_usf = 1", "literal Eq. 17", *ADAM, "literal votes", "literal Eq. 6", "literal Eq. 15",
    "Eq. 13 only", "Eq. 14 only", "literal fusion input",
)  # fmt: skip


def _against_full(page: str, labels: Sequence[str]) -> Group:
    return Group(page, dict.fromkeys((label for label in labels if label != "full"), "full"))


_SIX, _THREE = "amsgfn_table6_components", "dsrf_table3_ablation"
GROUPS: dict[str, Group] = {
    "AMSGFN, components": _against_full(_SIX, COMPONENT_ROWS),
    "DSRF, components": _against_full(_THREE, TABLE_3),
    "AMSGFN, readings": Group(_SIX, dict(zip(SPACE, ("full", SPACE[0]), strict=True))),
    "DSRF, readings": _against_full(_THREE, DSRF_PRINT),
    "AMSGFN, controls": _against_full(_SIX, [row for row in (*CONTROL_ROWS, *CONTROL_DETAIL) if row not in SPACE]),
    "DSRF, controls": _against_full(_THREE, DSRF_CONTROLS),
}
NAMES = list(GROUPS)


def runs_of(names: Sequence[str], seeds: int, scale: str, draws: int = 0) -> list[Run]:
    """The runs of the groups `names`, each once, seed by seed: stopped at any time, all rows have as many seeds.

    `draws` > 0: instead, so many draws of the data with `seeds` training seeds each, for the two variances.
    """
    groups = sorted(those(names, GROUPS, "group of rows"), key=lambda group: group.data)  # data are drawn once
    found: dict[tuple, Run] = {}
    for draw, seed in places(seeds, scale, draws):
        for group in groups:
            for label in dict.fromkeys((*group.rows.values(), *group.rows)):
                found[group.data, label, draw, seed] = _run(group, label, draw, seed, scale)
    return list(found.values())


def _run(group: Group, label: str, draw: int | str, seed: int, scale: str) -> Run:
    model, own = group.settings(label)
    training = {name: value for name, value in own.items() if name == "optimiser"}
    switches = MODELS[model].SMALL | {name: value for name, value in own.items() if name not in training}
    data = f"{group.data}?{SIZES[scale]}&seed={draw}"
    return Run(model, data, seed, switches, TRAIN[scale] | training, label=label)


def rows_of(runs: Sequence[Run], store: str | Path) -> pd.DataFrame:
    """What the store holds of `runs`, one row each (`COLUMNS`)."""
    return mechanisms.measured(runs, store, WHICH, lambda run: (run.data.partition("?")[0], run.model, run.label))


def ceiling_table() -> pd.DataFrame:
    """MAE that is left at each level of knowledge on the data of the groups, by oracle."""
    data = dict.fromkeys(group.data for group in GROUPS.values())
    lines = [{level: error.mean() for level, error in ceilings(recipe_of(name)).items()} for name in data]
    return pd.DataFrame(lines, index=pd.Index(data, name="data")).reset_index()


def variance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`effects.variance_table` of rows with several seeds on each of several draws."""
    named = rows.rename(columns={"data": "design"}).assign(control="positive")
    return effects.variance_table(named).rename(columns={"design": "data"})


def table(rows: pd.DataFrame, gap_of: Callable[..., PairedGap], margin: float) -> pd.DataFrame:
    """One line per row of the groups: its MAE, that of the row it is compared with, the gap of the two over the seeds
    that both have, and the word. `largest share`: of the epochs allowed, the latest epoch that a run of either kept.

    `rows`: as `rows_of`; `gap_of(a, b, paired=True)` takes the gap of two arrays.
    """
    words = {"helps": "worse", "harms": "better"}
    shares = _largest_shares(rows)
    lines = []
    for name, group in GROUPS.items():
        there = rows[rows["data"] == group.data]
        for label, other in group.rows.items():
            theirs, base = pairs(there, label, other)
            line = {"group": name, "row": label, "against": other, "seeds": len(base)}
            if len(base):
                line |= {"mae": theirs.mean(), "other": base.mean()}
                line |= {"largest share": max(shares[group.data, arm] for arm in (label, other))}
            if len(base) > 1:
                effect = judged(gap_of(theirs, base, paired=True), margin, len(group.rows))._asdict()
                line |= effect | {"word": words.get(effect["word"], effect["word"])}
            lines.append(line)
    columns = ["group", "row", "against", "seeds", "mae", "other", "gain", "low", "high", "smallest", "word"]
    return pd.DataFrame(lines).reindex(columns=[*columns, "largest share"])


def _largest_shares(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    kept = convergence(rows, TRAIN["full"]["epochs"], ("data", "arm"))
    return dict(zip(zip(kept["data"], kept["arm"], strict=True), kept["largest share"], strict=True))


def answers(found: pd.DataFrame) -> list[str]:
    """One sentence per group of a `table`: which rows are worse, better, the same within the margin, and what is open.

    Intervals stand beside what is decided; each has the number of seeds, and so of draws of the data.
    """
    said = []
    for name, part in found.groupby("group", sort=False):
        known = part.dropna(subset=["word"])
        if known.empty:
            said.append(f"{name}: undecided for want of seeds.")
            continue
        told = []
        for word in sorted(known["word"].unique(), key=lambda word: (word != "worse", word)):
            lines = known[known["word"] == word].to_dict("records")
            rows = [_told(line) if word in ("worse", "better") else line["row"] for line in lines]
            told.append(f"{word}: {', '.join(rows)}")
        seeds = "/".join(map(str, sorted(known["seeds"].unique())))
        said.append(
            f"{name} ({seeds} seeds and draws, smallest visible {known['smallest'].median():.3f} at the median row): "
            f"{'; '.join(told)}."
        )
    return said


def _told(line: Mapping) -> str:
    against = "" if line["against"] == "full" else f" against {line['against']}"
    return f"{line['row']}{against} {line['gain']:+.3f} ({line['low']:+.3f} to {line['high']:+.3f})"
