"""Our result rows as `verdicts.judge` needs them: checked, and looked up by label, printed data set and metric."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from papers_check.judge import intervals
from papers_check.judge.side_by_side import ROW_COLUMNS
from papers_check.printed.units import is_percent

ORACLE = "test_oracle"  # the selection rule that only measures what choosing on the test set is worth
SETTINGS = ("fingerprint", "model", "switches", "train", "selection")  # one row of a table is one setting


class OurRuns:
    """Result rows, checked and looked up by label, printed data set and metric, in the printed unit."""

    def __init__(self, rows: pd.DataFrame, datasets: Mapping[str, str], deterministic: Collection[str]) -> None:
        self.deterministic = set(deterministic)
        self.cells: dict[tuple[str, str], pd.DataFrame] = {}
        self.datasets: dict[str, set[str]] = {}
        needed = (*ROW_COLUMNS, "synthetic", "selection")
        if rows.empty:
            return
        if absent := [name for name in needed if name not in rows.columns]:
            raise ValueError(f"result rows lack {', '.join(absent)}: expected the columns {', '.join(needed)}")
        if wrong := sorted(set(rows["status"].map(str)) - {"done", "failed"}):
            raise ValueError(f"result rows have status {wrong[0]!r}: expected done or failed")
        name = rows["dataset"] if "dataset" in rows.columns else pd.Series("", index=rows.index)
        planted = rows["synthetic"].astype(bool) | name.str.startswith("planted")
        printed = name.map(lambda text: datasets.get(text, text.split("?")[0].removeprefix("planted-")))
        rows = rows.assign(value=rows["value"].astype(float), printed=printed, synthetic=planted)
        rows = rows[(rows["split"] == "test") | (rows["status"] == "failed")]
        percent = rows["metric"].map(is_percent)
        outside = rows[percent & ~rows["value"].between(0, 1) & rows["value"].notna()]
        if len(outside):
            label, metric, value = outside.iloc[0][["label", "metric", "value"]]
            raise ValueError(f"result rows of {label!r} have {metric} = {value:g}: expected a fraction in [0, 1]")
        rows["value"] = rows["value"] * np.where(percent, 100, 1)
        for key, part in rows.groupby(["label", "printed"], sort=False):
            real = part[~part["synthetic"]]
            self.cells[key] = part if real.empty else real
            self._check(key[0], self.cells[key])
            self.datasets.setdefault(key[0], set()).add(key[1])

    def _check(self, label: str, part: pd.DataFrame) -> None:
        for _, one in part.groupby(part["selection"] == ORACLE):
            for setting in SETTINGS:
                if setting in one.columns and one[setting].nunique() > 1:
                    raise ValueError(f"result rows of {label!r} mix {setting}: expected one setting per row of a table")
            seeds = one.drop_duplicates(["seed", "status"]).duplicated("seed")
            if seeds.any() or one[one["status"] == "done"].duplicated(["seed", "metric"]).any():
                raise ValueError(f"result rows of {label!r} hold a seed twice: expected one run per label and seed")

    def of(self, label: str, dataset: str, metric: str) -> dict:
        """Values of the seeds, their summary and context; `why` says what is missing where there is no value."""
        part = self.cells.get((label, dataset), self.cells.get((label, "")))
        nothing = {"synthetic": False, "selection": "", "commit": "", "failed": 0, "undefined": 0, "oracle": ()}
        if part is None:
            others = ", ".join(sorted(self.datasets.get(label, ())))
            why = f"no run of this row on {dataset}" + (f", only on {others}" if others else "")
            return (
                nothing
                | dict(zip(("mean", "sd", "n"), intervals.mean_sd_n(()), strict=True))
                | {"values": (), "seeds": (), "model": "", "why": why}
            )
        chosen = part["selection"] == ORACLE
        main, failed = part[~chosen], part[~chosen & (part["status"] == "failed")]
        scored = main[(main["metric"] == metric) & (main["status"] == "done")].sort_values("seed", kind="stable")
        values = scored["value"].to_numpy()
        oracle = part.loc[chosen & (part["metric"] == metric) & (part["status"] == "done"), "value"].to_numpy()
        kept = values[np.isfinite(values)]
        seeds = scored.loc[np.isfinite(values), "seed"].tolist()
        mean, sd, n = intervals.mean_sd_n(kept)
        lost = failed["seed"].nunique(dropna=False)
        why = "no validation-selected run of this row" if main.empty else f"no run of this row has {metric}"
        if len(values):
            why = f"{metric} is undefined in all {len(values)} runs"
        elif lost:
            causes = "; ".join(failed["reason"].astype(str).unique()) if "reason" in failed.columns else ""
            why = f"all {lost} runs failed" + (f": {causes}" if causes else "")
        return nothing | {
            "values": tuple(kept.tolist()),
            "seeds": tuple(seeds),
            "model": str(part["model"].iloc[0]) if "model" in part.columns else "",
            "mean": mean,
            "sd": 0.0 if n == 1 and label in self.deterministic else sd,
            "n": n,
            "synthetic": bool(part["synthetic"].iloc[0]),
            "selection": "" if main.empty else str(main["selection"].iloc[0]),
            "commit": ", ".join(sorted(set(main["commit"].dropna().map(str)))) if "commit" in main.columns else "",
            "failed": lost,
            "undefined": len(values) - n,
            "oracle": tuple(oracle[np.isfinite(oracle)].tolist()),
            "why": why,
        }
