"""Frames as plain text, for notebooks and the command line."""

import numpy as np
import pandas as pd

from papers_check.printed.units import MISSING


def as_text(frame: pd.DataFrame) -> str:
    """A frame as plain text in columns of fixed width, the same on every pandas version and terminal.

    Floats get six significant digits, missing values a dash; the index is shown unless it merely counts the rows.
    """
    shown = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    grid = [[str(name) for name in shown.columns]]
    grid += [[cell_text(value) for value in line] for line in shown.itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    grid.insert(1, ["-" * width for width in widths])
    padded = ("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in grid)
    return "\n".join(line.rstrip() for line in padded)


def cell_text(value: object) -> str:
    """A value as text: a dash for what is missing, floats with six significant digits."""
    if value is None or value is pd.NA or value != value:
        return MISSING
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
