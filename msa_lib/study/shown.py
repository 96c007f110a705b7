"""What a notebook shows: result rows, on which data, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import pandas as pd

from msa_lib.data import Dataset, short_name
from msa_lib.runs import Run, grid
from msa_lib.runs.identity import dataset_of
from msa_lib.study import captions, reference_run
from msa_lib.study.pages import PAGES, scale_of
from msa_lib.study.rows import runs_of
from msa_lib.study.standins import sized
from msa_lib.study.tables import fidelity, printed_table, table_rows


@dataclass(frozen=True)
class Shown:
    """One page on one data set. `store` is where its runs are; empty if the rows are those of the reference run."""

    page: str
    name: str
    root: str | None
    data: Dataset
    runs: list[Run]
    rows: pd.DataFrame
    seeds: int
    scale: str
    store: str
    stack: int
    source: str  # where the rows come from, and what is out of date about them, as sentences

    def caption(self) -> str:
        """What must stand under a table: data, seeds, spread, selection rule, command."""
        command = captions.command(self.name, self.root, self.seeds, self.scale, self.page, self.stack)
        return captions.caption(self.data, self.rows, self.scale, command, self.page)

    def picture(self, text: str) -> str:
        """The caption of a figure: what it shows, on which data, with which seeds, by which command."""
        return captions.picture(text, self.data, self.seeds, self.name, self.root, self.scale, self.page, self.stack)

    def tables(self, make: Callable[[], Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
        """What figures are drawn from: measured on the runs by `make`, or kept with the reference run.

        Raises ValueError if the reference run has the rows of the page and not its tables.
        """
        found = dict(make()) if self.store else reference_run.tables(self.page)
        if not found:
            raise ValueError(f"The reference run has no tables of {self.page}; `{reference_run.RENEW}` makes them.")
        return found

    def values(self, metric: str = "mae", split: str = "test") -> pd.DataFrame:
        """A score of the trained rows on a split: index seed, columns labels, in the order of the page."""
        rows = self.rows[(self.rows["split"] == split) & (self.rows["metric"] == metric)]
        rows = rows[rows["selection"] != ""]
        return rows.pivot(index="seed", columns="label", values="value")[list(rows["label"].unique())]

    def constants(self, metric: str = "mae") -> dict[str, float]:
        """The same of the rows that nothing random is in: ridge, label mean."""
        rows = self.rows[(self.rows["split"] == "test") & (self.rows["metric"] == metric)]
        rows = rows[rows["selection"] == ""]
        return dict(zip(rows["label"], rows["value"], strict=True))

    def alike(self, label: str) -> list[str]:
        """The rows that are the same model as `label`, trained with the same seeds: compared seed by seed."""
        models = dict(zip(self.rows["label"], self.rows["model"], strict=True))
        return [other for other, model in models.items() if other != label and model == models.get(label)]

    @property
    def partial(self) -> list[str]:
        """The baselines that lack some of what their paper has: shown, and compared with nothing."""
        there = set(self.rows["label"])
        return [label for label, word in fidelity(PAGES[self.page]).items() if word == "partial" and label in there]

    def unfinished(self) -> str:
        """For an answer: how many runs kept their last epoch, and so might have gone on improving; else nothing."""
        runs = self.rows[self.rows["selection"] != ""].drop_duplicates("run").dropna(subset="best_epoch")
        last = int((runs["best_epoch"] >= runs["epochs"]).sum())
        if not last:
            return ""
        most = int(runs["epochs"].max())
        return f" {last} of {len(runs)} runs kept the last of {most} epochs and might have gone on improving."

    def unequal(self) -> str:
        """For an answer: how many trained parameters the studied models and their baselines have; else nothing."""
        networks = self.rows[self.rows["selection"] != ""].drop_duplicates("label").dropna(subset="n_parameters")
        sizes = networks[~networks["label"].isin(self.partial)].set_index("label")["n_parameters"]
        studied = networks[networks["model"].isin(["amsgfn", "dsrf"])].set_index("label")["model"]
        others = sizes.drop([label for label in sizes.index if label in studied or label.endswith(" (larger)")])
        if others.empty or studied.empty:
            return ""
        told = ", ".join(
            f"{label.replace('full', model.upper(), 1)} {_thousands(sizes[label])}" for label, model in studied.items()
        )
        low, middle, high = (_thousands(n) for n in (others.min(), others.median(), others.max()))
        return (
            f" Parameters: {told}; of {len(others)} baselines {low} to {high}, median {middle}: a lead of one network "
            f"over another is one of sizes, too."
        )

    def where(self) -> str:
        """For a sentence: "on planted (synthetic) data (planted-mosi, 10 seeds)"; a smoke run says that it is one."""
        kind = "planted (synthetic)" if self.data.synthetic else "real"
        seeds = self.rows.loc[self.rows["selection"] != "", "seed"].nunique()
        smoke = "; a smoke run, numbers without meaning" if self.scale == "smoke" else ""
        return f"on {kind} data ({self.data.name.partition('?')[0]}, {seeds} seed{'s' * (seeds != 1)}{smoke})"


def _thousands(n: float) -> str:
    return f"{n / 1e6:.1f} M" if n >= 1e6 else f"{n / 1e3:.0f} k"


def shown(
    page: str,
    dataset: str,
    root: str = "",
    seeds: int = 0,
    scale: str = "quick",
    train: bool = False,
    store: str = "",
    jobs: int = 1,
    device: str = "cpu",
    stack: int = 0,
    only: Collection[str] | None = None,
    baseline_seeds: int = 0,
) -> Shown:
    """The rows of a page: those of the reference run where it has this data, scale and number of seeds, else trained.

    `only`: of these labels. `baseline_seeds`: of baselines, where trained; 0: as many as the scale has.
    `train` trains them in any case (what `store` holds is taken from it). Which of the two it was stands in `source`.
    0 seeds are as many as the reference run has of the page, or else as the scale has.
    """
    name, root, about = sized(dataset, scale), root or None, reference_run.meta()
    own, few = reference_run.seeds_of(page)
    seeds = seeds or own or scale_of(scale).seeds
    data = dataset_of(name, root)

    def asked(few: int | None) -> list[Run]:
        runs = runs_of(page, name, root, data, seeds, scale, device, baseline_seeds=few, stack=stack)
        return runs if only is None else [run for run in runs if run.label in only]

    if not (train or stack) and own and reference_run.covers(page, runs := asked(few), scale):
        rows, said = reference_run.find(runs), [reference_run.said(page)]
        if changed := reference_run.differences(runs, {name: data.fingerprint}):
            said += [*changed, f"`{reference_run.RENEW}` renews it."]
        return Shown(page, name, root, data, runs, rows, seeds, scale, "", stack, " ".join(said))
    store, runs = captions.folder(store), asked(baseline_seeds or None)
    rows = grid(runs, store, jobs)
    said = "Trained here."
    if not train and own:
        other = f"{about['scale']} scale, planted data, at most {own} seeds, CPU"
        said += f" The reference run ({other}) does not have {short_name(name)} at {scale} scale with {seeds} seeds"
        said += f", {stack} of them at once." if stack else "."
    return Shown(page, name, root, data, runs, rows, seeds, scale, store, stack, said)


def table_of(*halves: Shown) -> dict:
    """The printed table that a page is of beside its rows, as `study.table_rows` gives it; one part per data set."""
    page = halves[0].page
    return printed_table(page, [(half.name, half.data, half.rows) for half in halves], halves[0].scale)


def every_table(
    dataset: str, seeds: int, scale: str, train: bool, store: str, device: str = "cpu", stack: int = 0
) -> tuple[list[dict], str]:
    """`study.table_rows` of the reference run where it has this data, scale and number of seeds, else of the store.

    With `train` of the store in any case. -> the tables, and where they come from, a sentence.
    """
    about = reference_run.meta()
    held = dataset == "planted" and scale == about.get("scale") and seeds <= about.get("seeds", 0) and device == "cpu"
    if held and not train and not stack:
        return table_rows(dataset, seeds or about["seeds"], scale, None), reference_run.said()
    said = "What the store holds." if store else "There is no store: nothing of the tables is known."
    return table_rows(dataset, seeds or reference_seeds(), scale, captions.folder(store), device, stack), said


def reference_seeds() -> int:
    """How many seeds the reference run has; without one, those of its scale."""
    return reference_run.meta().get("seeds") or scale_of("quick").seeds
