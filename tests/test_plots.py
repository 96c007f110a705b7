"""What figures say by their marks and colours, and what a page says of runs that were cut short."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from msa_lib.study import plots
from msa_lib.study.shown import Shown


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def filled(figure) -> list[float]:
    """The leads that are drawn as full dots."""
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    return [x for line in marks if line.get_markerfacecolor() == "black" for x in line.get_xdata()]


def test_a_lead_is_filled_where_the_word_is_said_not_where_its_own_interval_leaves_0_out():
    found = pd.DataFrame({"row": ["a", "b", "c"], "lead": [0.3, 0.1, -0.2], "low": [0.2, 0.05, -0.5],
                          "high": [0.4, 0.15, 0.1], "says": ["ahead", "undecided", "undecided"]})  # fmt: skip
    assert filled(plots.leads(found, "x", "MAE", False)) == [0.3]
    assert filled(plots.leads(found.drop(columns="says"), "x", "MAE", False)) == [0.3, 0.1]


def test_models_and_ridge_have_one_colour_whatever_stands_beside_them():
    few, many = plots.row_colours(["ridge", "DSRF"]), plots.row_colours(["a", "DSRF", "b", "ridge", "AMSGFN", "c"])
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(many)


def page(best: list[float], epochs: list[float]) -> Shown:
    runs = range(len(best))
    rows = pd.DataFrame({"run": runs, "best_epoch": best, "epochs": epochs, "selection": "val_mae"})
    rows = pd.concat([rows, rows.assign(metric="corr"), rows[:1].assign(run="ridge", selection="")])
    return Shown("a page", "data", None, None, [], rows, 1, "quick", "", 0, "")


def test_runs_that_kept_their_last_epoch_are_counted_once_each():
    said = page([12, 7, 12], [12, 12, 12]).unfinished()
    assert said == " 2 of 3 runs kept the last of 12 epochs and might have gone on improving."
    assert page([3, 5], [12, 12]).unfinished() == ""
    assert page([np.nan], [np.nan]).unfinished() == ""


def test_unequal_sizes_are_said_where_networks_are_compared():
    labels = ["full", "full (larger)", "dtn", "mult", "mult (larger)", "tfn", "ridge"]
    rows = pd.DataFrame({"label": labels, "selection": ["val_mae"] * 6 + [""]})
    rows["model"] = ["amsgfn", "amsgfn", "dtn", "mult", "mult", "tfn", "ridge"]
    rows["n_parameters"] = [25_540, 94_208, 1, 9.1e6, 1e8, 17_001, 5]
    shown = Shown("amsgfn_table2_mosi", "data", None, None, [], rows, 1, "quick", "", 0, "")
    assert shown.unequal() == (
        " Parameters: AMSGFN 26 k, AMSGFN (larger) 94 k; of 2 baselines 17 k to 9.1 M, median 4.6 M: a lead of one "
        "network over another is one of sizes, too."
    )  # dtn is partial: compared with nothing
    assert Shown("amsgfn_table2_mosi", "data", None, None, [], rows[:1], 1, "quick", "", 0, "").unequal() == ""
