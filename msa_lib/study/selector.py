"""What AMSGFN's selector learns (Eqs. 3-5), on planted data whose dominant modality is known: by rule of selection,
over training, where text dominates more or less often, where a second modality contradicts, and what its gate does.

Every seed draws its own data; all rows of a level and seed share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import mutual_info_score, roc_auc_score

from msa_lib.data.planted import drawn_by
from msa_lib.models import MODELS
from msa_lib.runs import Run, predictions
from msa_lib.runs.identity import dataset_of
from msa_lib.study import mechanisms
from msa_lib.study.effects import PairedGap, judged, pairs
from msa_lib.study.mechanisms import MEASURED, TEXT, TRAIN, data_of, places, those

ROWS = Path(__file__).parent / "selector.csv"  # of the committed runs
WHICH = ["question", "level", "arm"]
SEEN = ["named", "scored", "information", "majority", "doubt", "opening", "opening on decoys", "auc"]
COLUMNS = [*WHICH, *MEASURED, *SEEN]

# Rules of Eq. 4: arm -> switches. All compute s and weigh the modalities by it (Eq. 5), the fixed ones too, so that s
# can do what p is there for; with s = 1 there is no such weight, and only choosing p is left.
RULES: dict[str, Mapping] = {
    "hard": {},
    "straight-through": {"select": "st"},
    "Gumbel": {"select": "gumbel"},
    "soft": {"select": "soft"},
    "argmin": {"select": "argmin"},
    "random": {"select": "random"},
    "oracle": {"select": "oracle"},
    "always text": {"select": "fixed:t"},
    "always audio": {"select": "fixed:a"},
    "always vision": {"select": "fixed:v"},
    "straight-through, s = 1": {"select": "st", "scores": "ones"},
    "oracle, s = 1": {"select": "oracle", "scores": "ones"},
    "always text, s = 1": {"select": "fixed:t", "scores": "ones"},
}
LEARNED = ("hard", "straight-through", "Gumbel", "soft")
FIXED = "always text"  # what choosing is compared with
EPOCHS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class Question:
    """Arms on data: level -> (design, control, further options). `epochs`: stopped after so many, as levels."""

    arms: Mapping[str, Mapping]
    levels: Mapping[str, tuple[str, str, str]]
    epochs: Sequence[int] = ()
    base: Mapping = field(default_factory=dict)


def _selection(control: str = "positive", **options: str) -> tuple[str, str, str]:
    return "selection", control, "".join(f"&{name}={value}" for name, value in options.items())


def _some(*names: str) -> dict[str, Mapping]:
    return {name: RULES[name] for name in names}


QUESTIONS: dict[str, Question] = {
    "rules": Question(RULES, {"cue visible": _selection(), "cue hidden": _selection("negative")}),
    "training": Question(_some(*LEARNED), {"cue visible": _selection()}, EPOCHS),
    "shares": Question(
        _some("hard", "oracle", FIXED),
        {
            "text in 0.90": _selection(shares="0.9,0.05,0.05"),
            "text in 0.60": _selection(),
            "text in 0.34": _selection(shares="0.34,0.33,0.33"),
        },
    ),
    "conflict": Question(
        {"hard": {}, "w/o CCAM": MODELS["amsgfn"].VARIANTS["w/o CCAM"]},
        {
            "conflict in 0.0": _selection(conflict="0.0"),
            "conflict in 0.2": _selection(),
            "conflict in 0.5": _selection(conflict="0.5"),
        },
    ),
    "gate": Question({"hard": {}}, {c: ("gate", c, "") for c in mechanisms.CONTROLS}, base=TEXT),
}
NAMES = list(QUESTIONS)


def runs_of(names: Sequence[str], seeds: int, scale: str, draws: int = 0) -> list[Run]:
    """The runs of the questions `names`, seed by seed: stopped at any time, all rows have as many seeds.

    The label of a run is "question: level: arm". Runs that two questions share are trained once.
    """
    if draws:
        raise ValueError("The selector's runs draw their own data, each seed once; expected no --draws.")
    asked = dict(zip(names, those(names, QUESTIONS, "question"), strict=True))
    return [
        _run(f"{name}: {level}: {arm}", scale, draw, seed, question.base | switches, *options)
        for draw, seed in places(seeds, scale)
        for name, question in asked.items()
        for level, options in _levels(question)
        for arm, switches in question.arms.items()
    ]


def _levels(question: Question) -> list[tuple[str, tuple]]:
    """Name of a level -> its data, and the epoch after which training stops (0: when it has converged)."""
    if not question.epochs:
        return [(level, (*data, 0)) for level, data in question.levels.items()]
    return [(f"epoch {epoch}", (*data, epoch)) for data in question.levels.values() for epoch in question.epochs]


def _run(label, scale, draw, seed, switches, design, control, options, epoch) -> Run:
    name, _, rest = data_of(design, control, scale, draw).rpartition("&seed=")
    train = TRAIN[scale] | ({"epochs": epoch, "selection": "last"} if epoch else {})
    data = f"{name}{options}&seed={rest}"
    return Run("amsgfn", data, seed, MODELS["amsgfn"].SMALL | dict(switches), train, label=label)


def rows_of(runs: Sequence[Run], store: str | Path) -> pd.DataFrame:
    """What the store holds of `runs`, one row each (`COLUMNS`); the columns `SEEN` are those of `seen`."""
    lines = []
    for run in runs:
        line = mechanisms.measured([run], store, WHICH, lambda run: tuple(run.label.split(": ")))
        if len(line):
            truth = dataset_of(drawn_by(run.data, run.seed), None).test.truth
            known = {name: truth[name].numpy() for name in ("dominant", "match") if name in truth}
            lines.append(line.iloc[0].to_dict() | seen(predictions(run, store), known))
    return pd.DataFrame(lines, columns=COLUMNS)


def seen(outputs: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What the outputs of a run on the test split say beside the planted truth.

    named        share of samples whose p (Eq. 4) is the planted dominant modality
    scored       the same of the largest s (Eq. 3): what the scorer says, whatever the rule does with it
    information  mutual information of the largest s and the planted dominant modality, as a share of its entropy
    majority     share of samples of the most frequent planted dominant modality
    doubt        mean entropy of s, nats
    opening, opening on decoys    mean gate (Eq. 10), where the auxiliaries tell something and where they mislead
    auc          area under the ROC curve of the gate for telling the two apart; 0.5 is chance
    """
    s, dominant = outputs["contribution"].astype(float), truth["dominant"]
    found = {"doubt": float(-(s * np.log(s + 1e-12)).sum(1).mean())}
    if len(np.unique(dominant)) > 1:
        share = np.bincount(dominant, minlength=3) / len(dominant)
        entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
        found |= {
            "named": float((outputs["dominant"] == dominant).mean()),
            "scored": float((s.argmax(1) == dominant).mean()),
            "information": float(mutual_info_score(dominant, s.argmax(1)) / entropy),
            "majority": float(share.max()),
        }
    if "match" in truth:
        gate, telling = outputs["gate"].astype(float).mean(1), truth["match"]
        found["opening"] = float(gate[telling].mean())
        if not telling.all():
            found["opening on decoys"] = float(gate[~telling].mean())
            found["auc"] = float(roc_auc_score(telling, gate))
    return found


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the questions, their levels and arms; in a CSV file they are sorted by name."""
    places = [(name, level, arm) for name, q in QUESTIONS.items() for level, _ in _levels(q) for arm in q.arms]
    order = {place: k for k, place in enumerate(places)}
    found = [order[place] for place in zip(rows["question"], rows["level"], rows["arm"], strict=True)]
    return rows.assign(order=found).sort_values(["order", "seed"], ignore_index=True).drop(columns="order")


def gains(
    rows: pd.DataFrame, question: str, against: str, gap_of: Callable[..., PairedGap], margin: float
) -> pd.DataFrame:
    """Per level and arm: by how much its test MAE is below that of the arm `against`, seed by seed, with the word.

    Intervals hold for all arms of a level together (Bonferroni).
    """
    lines = []
    own = rows[rows["question"] == question]
    for level, part in own.groupby("level", sort=False):
        arms = part["arm"].unique()
        for arm in arms:
            theirs, base = pairs(part, arm, against)
            line = {"level": level, "arm": arm, "seeds": len(base), "MAE": theirs.mean() if len(base) else np.nan}
            if arm != against and len(base) > 1:
                line |= judged(gap_of(base, theirs, paired=True), margin, len(arms) - 1)._asdict()
            lines.append(line)
    return pd.DataFrame(lines, columns=["level", "arm", "seeds", "MAE", "gain", "low", "high", "smallest", "word"])


def over_seeds(rows: pd.DataFrame, question: str, columns: Sequence[str]) -> pd.DataFrame:
    """Means over seeds of some of `SEEN`, by level and arm, in the order of the question."""
    own = rows[rows["question"] == question]
    return own.groupby(["level", "arm"], sort=False)[list(columns)].mean()


# What is said of each question: its arm, against which other, in words.
SAID = (
    ("rules", "hard", FIXED, f"Choosing, against {FIXED}"),
    ("rules", "oracle", FIXED, f"The planted choice, against {FIXED}"),
    ("rules", "straight-through, s = 1", f"{FIXED}, s = 1", "A trained choice where nothing is weighed (s = 1)"),
    ("rules", "oracle, s = 1", f"{FIXED}, s = 1", "The planted choice there"),
    ("shares", "hard", FIXED, "Choosing, by how often text dominates"),
    ("conflict", "hard", "w/o CCAM", "Alignment"),
)


def answers(rows: pd.DataFrame, gap_of: Callable[..., PairedGap], margin: float) -> list[str]:
    """What the rows say to each question, a sentence each; nothing of what they do not hold."""
    said = []
    named = over_seeds(rows, "rules", ["named", "majority"])
    for level in (level for level, arm in named.index if arm == "hard"):
        share, majority = named.loc[(level, "hard")]
        said.append(
            f"{level[0].upper()}{level[1:]}, the selector names the planted dominant modality in {share:.3f} of the "
            f"samples; always the most frequent one: {majority:.3f}."
        )
    for question, arm, against, what in SAID:
        found = gains(rows, question, against, gap_of, margin)
        lines = found[(found["arm"] == arm) & found["word"].notna()].to_dict("records")
        if lines:
            told = [f"{n['level']} {n['gain']:+.3f} ({n['low']:+.3f} to {n['high']:+.3f}), {n['word']}" for n in lines]
            said.append(f"{what}: {'; '.join(told)}.")
    gate = rows[(rows["question"] == "gate") & rows["auc"].notna()]
    if len(gate):
        opened, closed, auc = gate[["opening", "opening on decoys", "auc"]].mean()
        said.append(
            f"The gate is open by {opened:.3f} where auxiliaries tell something and by {closed:.3f} where they mislead "
            f"(AUC {auc:.2f})."
        )
    return said
