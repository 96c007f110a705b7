"""The study: which notebooks there are and what they show (`pages`), on which data (`standins`), with which runs
(`rows`), and where their results come from (`shown`: the store, or the committed `reference_run`); what there is of
the printed tables (`tables`); what stands around a table (`captions`, `label_tables`, `plots`); what figures are drawn
from (`measured`, with `probes`, `corruption` and `retrained`); one sample seen by networks (`explore`, `sample_plots`).

`batch` runs all of it, `renewal` makes the reference run again, `judging` sets results beside what is printed;
`msa_lib.notebooks` executes one notebook so that success means success.
"""

from msa_lib.study.captions import NOTEBOOKS, caption, command, first_samples, folder, headline
from msa_lib.study.label_tables import split_labels, split_sizes
from msa_lib.study.pages import FIRST_SEED, PAGES, SCALES, amount
from msa_lib.study.rows import left_out, runs_of
from msa_lib.study.shown import Shown, every_table, reference_seeds, shown, table_of
from msa_lib.study.standins import data_of, expect_data, places, sized, stands_in
from msa_lib.study.tables import not_judged_because, table_rows

__all__ = [
    "FIRST_SEED", "NOTEBOOKS", "PAGES", "SCALES", "Shown", "amount", "caption", "command",
    "data_of", "every_table", "expect_data", "first_samples", "folder", "headline", "left_out",
    "not_judged_because", "places", "reference_seeds", "runs_of", "shown", "sized", "split_labels",
    "split_sizes", "stands_in", "table_of", "table_rows",
]  # fmt: skip
