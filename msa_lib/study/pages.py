"""The study as data: which runs each notebook shows, on which data set, and how much of it at which scale.

The names of rows are ours; what a paper prints for them is in `papers_check`. The other modules here act on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msa_lib.data import split_options
from msa_lib.models import MODELS
from msa_lib.study import multiverse


@dataclass(frozen=True)
class Scale:
    """How much of the study to run. `full` takes the defaults of models and loop; the others are for small machines.

    Sizes apply to planted data only: real data are never cut. `others` bounds the seeds of baselines, except on pages
    that are shown on demand. `larger`: switches beside those of `switches`, for rows that say what size alone
    is worth, and where a model is compared with itself only; beside baselines all networks are small otherwise, for a
    lead of the larger one would be no lead of its design.
    """

    seeds: int
    cost: str
    others: int | None = None
    sizes: str = ""  # options of a planted data set
    switches: Mapping[str, Mapping] = field(default_factory=dict)  # per model
    larger: Mapping[str, Mapping] = field(default_factory=dict)
    train: Mapping = field(default_factory=dict)


SCALES: dict[str, Scale] = {
    "smoke": Scale(
        seeds=1,
        cost="seconds; numbers without meaning",
        sizes="train=48&valid=24&test=32",
        switches={name: model.SMALL for name, model in MODELS.items()},
        train={"epochs": 2, "batch_size": 16, "lr": 1e-3},
    ),
    "quick": Scale(
        seeds=5,
        cost="minutes on two cores; small models, one seed of a baseline",
        others=1,
        sizes="train=400&valid=200&test=400",
        switches={name: model.SMALL for name, model in MODELS.items()},
        larger={name: {"d": 32, "heads": 4, "n_layers": 2} for name in ("amsgfn", "dashfusion", "prisa")}
        | {"dsrf": {"d": 32, "heads": 4, "n_layers": 1}, "mods": {"d": 32, "heads": 4, "n_layers": 3}}
        | {"almt": {"d": 32, "heads": 4, "hidden": 32, "fusion_layers": 2}},
        train={"epochs": 12, "batch_size": 32, "lr": 1e-3, "bucket": 4},
    ),
    "full": Scale(seeds=5, cost="the defaults of models and loop, what a paper states; hours, or a GPU"),
}
FIRST_SEED = 1111
UNIVERSES = 12  # per model
SHORTER = {"planted-sims": "steps=39,100,55", "planted-simsv2": "steps=50,116,58"}  # audio 400, 925 steps otherwise


def amount(data: str, seeds: int | None, scale: str | None) -> tuple[int, str]:
    """Seeds and scale, defaults filled in: quick on planted data, full otherwise; as many seeds as the scale has."""
    scale = scale or ("quick" if split_options(data)[0].startswith("planted") else "full")
    default = scale_of(scale).seeds
    seeds = default if seeds is None else seeds
    if seeds < 1:
        raise ValueError(f"The number of seeds is {seeds}; expected 1 or more.")
    return seeds, scale


def scale_of(name: str):
    if name not in SCALES:
        raise ValueError(f"No scale {name!r}: expected one of {', '.join(SCALES)}.")
    return SCALES[name]


@dataclass(frozen=True)
class Page:
    """One notebook: its paper's table, the real data set it is on (empty: it needs none), label -> (model, switches).

    Training settings may stand among the switches. `detail` are rows for full scale only; `larger` are rows, label ->
    model, of the size that it has on pages without baselines, where a scale has two; `second` is the data set of the
    table's right half; `readings` say which of our labels a printed row can mean, beside those that are
    data of `papers_check`.
    `tuned`: rows that stand for printed ones; at full scale each has a twin whose text encoder is fine-tuned (`TUNED`).
    `whole`: shows the whole study and is given its data argument as it is. `figures`: saves pictures.
    `on_demand`: shown only when named: its runs are many and no printed table needs them, or it is there to play with.
    Of the reference run: `kept_seeds`, how many seeds it has of a page on demand (none: it does not have the page);
    `baseline_seeds`, how many of baselines, where not those of the scale; `renewed_with`, parameters of its
    notebook with which its tables are made.
    """

    title: str
    dataset: str
    rows: Mapping[str, tuple[str, Mapping]]
    paper: str = ""
    table: int | None = None
    detail: Mapping[str, tuple[str, Mapping]] = field(default_factory=dict)
    larger: Mapping[str, str] = field(default_factory=dict)
    second: str = ""
    readings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tuned: tuple[str, ...] = ()
    whole: bool = False
    on_demand: bool = False
    figures: bool = False
    kept_seeds: int = 0
    baseline_seeds: int | None = None
    renewed_with: Mapping = field(default_factory=dict)

    @property
    def printed(self) -> tuple[str, ...]:
        """The data sets whose printed numbers the page is about, left to right."""
        return tuple(filter(None, (self.dataset, self.second)))

    @property
    def beside_baselines(self) -> bool:
        return any(model in BASELINES for model, _ in self.rows.values())

    @property
    def any_set(self) -> bool:
        """Whether the page shows nothing printed for its data set, so that another real set serves as well."""
        return bool(self.dataset) and not (self.paper and self.rows)


def _variants(model: str, *labels: str) -> dict[str, tuple[str, Mapping]]:
    return {label: (model, MODELS[model].VARIANTS[label]) for label in labels}


# Two readings of "BERT features": frozen, as the files hold them, or an encoder that is trained along.
FROZEN, TUNED = "frozen features", "BERT fine-tuned"


def tuned_label(label: str) -> str:
    return f"{label} ({TUNED})"


OWN = ("full",)
BASELINES = {name: (name, {"bert": "precomputed"}) for name in MODELS if name not in ("amsgfn", "dsrf")}
# the nearest ones, of one width each
LARGER_BASELINES = {f"{name} (larger)": name for name in ("almt", "dashfusion", "mods", "prisa")}
REFERENCE_ROWS = {"ridge": ("ridge", {}), "label mean": ("label_mean", {})}
MODALITY_ROWS = ("T", "V", "A", "V+A", "T+V", "T+A")
COMPONENT_ROWS = ("w/o CCAM", "t-oriented", "v-oriented", "a-oriented", "w/o DMGF", "w/o DMGF (sum)",
                  "w/o DMGF (dominant only)", "w/o TB", "w/o Cor", "full")  # fmt: skip
CONTROL_ROWS = ("t-oriented, s=1", "v-oriented, s=1", "a-oriented, s=1", "random dominant", "argmin dominant",
                "oracle dominant", "w/o both contrastive", "concat MLP", "gate off", "shared space downstream",
                "w/o CCAM, downstream")  # fmt: skip
CONTROL_DETAIL = ("s=1, dynamic p", "s=1, trained p")
BESIDE_OTHERS = _variants("amsgfn", "full") | BASELINES | REFERENCE_ROWS
DSRF_ROWS = {
    "full": ("dsrf", {}),
    "full, lr 1e-3": ("dsrf", {"lr": 1e-3}),  # the printed rates are those of fine-tuning; from scratch they are slow
    "AMSGFN": ("amsgfn", {}),
    **BASELINES,
    **REFERENCE_ROWS,
}
ABLATION_ROWS = ("full", "w/o language", "w/o Audio", "w/o Visual", "w/o HSF", "w/o HSF (bypass)", "no_routing",
                 "no_usf", "no_rec_loss", "wide vector", "no factor losses", "no L_emo", "literal votes",
                 "one iteration", "literal Eq. 15", "mean readout")  # fmt: skip
ABLATION_DETAIL = ("no_routing (concat)", "no_routing, no_rec_loss", "no_usf (g=1/2)", "random roles", "no L_ctx",
                   "no L_amb", "no L_n", "no independence", "literal Eq. 6", "literal Eq. 17", "Eq. 13 only",
                   "Eq. 14 only", "literal fusion input", "head argmax", "head gauss", "head point",
                   "no_usf (matched scale)", "told uncertainty", "sign of Eq. 17", "w_usf = 1", "literal uncertainties",
                   "sums in Eqs. 2 and 12", "gradient through r_e", "gradient through the routing",
                   "gradient into H of Eq. 12", "gradient into uncertainties", "no stop-gradients")  # fmt: skip
ADAM = {"Adam with L2": ("dsrf", {"optimiser": "adam"})}  # AdamW is ours: the paper names no optimiser

PAGES: dict[str, Page] = {
    "start_here": Page("Start here: the tour", "mosi", {}),
    "sanity": Page("Sanity before any table", "mosi", {}, figures=True),
    "amsgfn_table1_datasets": Page("AMSGFN Table 1: the data sets", "mosi", {}, "amsgfn", 1, figures=True),
    "amsgfn_table2_mosi": Page(
        "AMSGFN Table 2: CMU-MOSI",
        "mosi",
        BESIDE_OTHERS,
        "amsgfn",
        2,
        larger={"full (larger)": "amsgfn"} | LARGER_BASELINES,
        tuned=(*OWN, *BASELINES),
        baseline_seeds=5,
    ),
    "amsgfn_table3_mosei": Page(
        "AMSGFN Table 3: CMU-MOSEI",
        "mosei",
        BESIDE_OTHERS,
        "amsgfn",
        3,
        larger={"full (larger)": "amsgfn"} | LARGER_BASELINES,
        tuned=(*OWN, *BASELINES),
        baseline_seeds=5,
    ),
    "amsgfn_table4_sims": Page("AMSGFN Table 4: CH-SIMS", "sims", BESIDE_OTHERS, "amsgfn", 4, tuned=(*OWN, *BASELINES)),
    "amsgfn_table5_modalities": Page(
        "AMSGFN Table 5: modalities",
        "mosei",
        _variants("amsgfn", *MODALITY_ROWS, "full")
        | {
            f"ridge {label}": ("ridge", switches)
            for label, (_, switches) in _variants("amsgfn", *MODALITY_ROWS).items()
        }
        | {"ridge full": ("ridge", {"modalities": "tav"})}
        | {"label mean": ("label_mean", {})},
        "amsgfn",
        5,
        tuned=(*MODALITY_ROWS, *OWN),
    ),
    "amsgfn_table6_components": Page(
        "AMSGFN Table 6: components",
        "mosei",
        _variants("amsgfn", *COMPONENT_ROWS, *CONTROL_ROWS) | REFERENCE_ROWS,
        "amsgfn",
        6,
        tuned=COMPONENT_ROWS,
        detail=_variants("amsgfn", *CONTROL_DETAIL),
        figures=True,
    ),
    "figure_modality_contributions": Page("Modality contributions", "mosei", _variants("amsgfn", "full"), figures=True),
    "dsrf_table1_mosi_mosei": Page(
        "DSRF Table 1: CMU-MOSI and CMU-MOSEI",
        "mosi",
        DSRF_ROWS,
        "dsrf",
        1,
        larger={"full (larger)": "dsrf", "AMSGFN (larger)": "amsgfn"} | LARGER_BASELINES,
        second="mosei",
        tuned=(*OWN, *BASELINES),
        baseline_seeds=5,
    ),
    "dsrf_table2_sims_simsv2": Page(
        "DSRF Table 2: CH-SIMS and CH-SIMS v2", "sims", DSRF_ROWS, "dsrf", 2, second="simsv2", tuned=(*OWN, *BASELINES)
    ),
    "dsrf_table3_ablation": Page(
        "DSRF Table 3: ablation",
        "mosi",
        _variants("dsrf", *ABLATION_ROWS) | REFERENCE_ROWS,
        "dsrf",
        3,
        detail=_variants("dsrf", *ABLATION_DETAIL) | ADAM,
        tuned=ABLATION_ROWS[:9],  # those that can stand for a printed row
        figures=True,
    ),
    "figure_routing": Page(
        "Routing, uncertainty and factors",
        "mosi",
        _variants("dsrf", "full", "literal votes", "no_routing"),
        figures=True,
    ),
    "baselines": Page(
        "The baselines: what they need, cost and reach",
        "mosi",
        {"AMSGFN": ("amsgfn", {}), "DSRF": ("dsrf", {})} | BASELINES | REFERENCE_ROWS,
        larger={"AMSGFN (larger)": "amsgfn", "DSRF (larger)": "dsrf"} | LARGER_BASELINES,
        baseline_seeds=5,
    ),
    "baseline_choices": Page(
        "The baselines: what hangs on the choices that are ours",
        "mosi",
        {
            f"{model}: {label}": (model, {"bert": "precomputed", **switches})
            for model in BASELINES
            for label, switches in MODELS[model].VARIANTS.items()
        }
        | REFERENCE_ROWS,
        on_demand=True,
    ),
    "multiverse": Page(
        "All open choices of the papers at once, at random",
        "mosi",
        {
            label: row
            for model, orders in multiverse.ORDERS.items()
            for label, row in multiverse.labelled(model, multiverse.at_random(model, UNIVERSES), orders).items()
        },
        on_demand=True,
        kept_seeds=1,
    ),
    "selection": Page(
        "What choosing on the test set and the best of several seeds are worth",
        "mosi",
        {
            f"{model}{mark}": (model, ({"bert": "precomputed"} if model in BASELINES else {}) | rule)
            for model in MODELS
            for mark, rule in (("", {}), (", test_oracle", {"selection": "test_oracle"}))
        }
        | REFERENCE_ROWS,
        on_demand=True,
        kept_seeds=5,
    ),
    "semi_synthetic": Page("Real text, planted audio and vision: do the mechanisms pay?", "", {}, on_demand=True),
    "components": Page("The tables of components, trained until they converge", "", {}, on_demand=True),
    "selector": Page("What AMSGFN's selector and gate learn", "", {}, figures=True),
    "speed": Page("What a training step costs", "", {}, on_demand=True),
    "paper_audit": Page("The papers audited, without training", "", {}, figures=True),
    "seed_noise": Page("Seed noise, and how far verdicts can be trusted", "", {}, figures=True),
    "report": Page("Report: every printed number, and what became of it", "", {}, whole=True),
    "planted_truth": Page("Which mechanisms help where they have a job?", "", {}, figures=True),
    "figure_robustness": Page(
        "Noisy and missing modalities",
        "mosi",
        _variants("dsrf", "full", "no_usf", "w/o HSF") | {"AMSGFN": ("amsgfn", {})},
        figures=True,
    ),
    "robustness": Page(
        "Damaged test samples, poorer training data: who loses least",
        "mosi",
        {"AMSGFN": ("amsgfn", {}), "DSRF": ("dsrf", {})} | BASELINES,
        figures=True,
        baseline_seeds=5,
        renewed_with={"retrain": "amsgfn dsrf lmf tfn self_mm", "baseline_seeds": 5},
    ),
    "explore": Page("Explore: one sample, any networks", "mosi", {}, on_demand=True),
    "one_choice": Page(
        "Each open choice of the papers, one at a time",
        "mosi",
        {
            label: row
            for model, part in multiverse.REMOVED.items()
            for label, row in multiverse.labelled(model, multiverse.one_at_a_time(model), (part,)).items()
        },
        on_demand=True,
        kept_seeds=1,
    ),
}
