"""The papers as data, and everything that judges numbers against them.

    printed/  what the papers print: titles, tables, cells, rows; exact decimals
    judge/    what may be said of a printed number beside our runs, and how often that is wrong
    checks/   what can be said without training: claims, gaps, arithmetic, literature; a finding per fact
    show/     the report page, the pages of the findings, figures

Arrows point one way, printed <- judge <- checks <- show. The data lie beside: `reported/` holds every cell the papers
print in a table, and so on. This package imports neither torch nor msa_lib: what joins it to our runs is a table of
result rows.
"""

import os
import sys

if sys.argv[:1] == ["-m"] and sys.path[:1] == [os.getcwd()] and not os.path.isdir("papers_check"):
    del sys.path[0]  # `python -m papers_check`: a file json.py in the working folder is nobody's module

from papers_check.printed.cells import COLUMNS, REPORTED, load_reported
from papers_check.printed.papers import METHODS, PAPERS, TABLES

__all__ = ["COLUMNS", "METHODS", "PAPERS", "REPORTED", "TABLES", "load_reported"]
