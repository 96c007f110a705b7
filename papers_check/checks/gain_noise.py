"""The printed gains over the best baseline of the same table, in units of the seed noise of public runs.

`noise/gains.csv` holds, per column of the result tables, the gain over the runner-up and the standard deviation over
seeds in the public training logs of MMSA (`seed_noise`).
"""

from papers_check.checks.finding import Finding, new_finding
from papers_check.judge.seed_noise import load_noise
from papers_check.printed.papers import COMPARISONS, NAMES, TITLES
from papers_check.printed.rows import column


def comparisons():
    """The lines of `noise/gains.csv` that compare with other methods."""
    gains = load_noise("gains")
    keys = zip(gains["paper"], gains["table"].astype(str), strict=True)
    return gains[[key in COMPARISONS for key in keys]]


def examined() -> int:
    """How many printed gains were set beside the noise."""
    return len(comparisons())


def findings() -> list[Finding]:
    """One finding: how many gains are below one standard deviation over seeds."""
    gains = comparisons()
    known = gains[gains["gain_in_sd"].notna()]
    small = known[known["gain_in_sd"] < 1]
    if small.empty:
        return []
    least = known.sort_values("gain_in_sd").groupby("paper", sort=False).head(3)
    lines = [
        f"{TITLES[line.paper]} {NAMES[line.dataset]} {column(line.metric, line.side)}: {line.value} and "
        f"{line.runner_up_value} ({line.runner_up}), {line.gain_in_sd:.2f} standard deviations"
        for line in least.sort_values("gain_in_sd").itertuples()
    ]
    return [
        new_finding(
            "margins",
            "both-missing-small-margins",
            "AMSGFN Tables 2 to 4; DSRF Tables 1 and 2",
            "; ".join(f"{column(line.metric, line.side)} {line.value}" for line in least.itertuples()),
            f"{len(small)} of {len(known)} gains over the runner-up are below one standard deviation over seeds in "
            f"public runs of other models on the same test sets; the smallest: {'; '.join(lines)}",
            "most margins are smaller than seed noise elsewhere",
            "Divide the gain by the standard deviation over seeds in noise/gains.csv.",
            "cells",
        )
    ]
