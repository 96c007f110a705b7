"""How often the verdicts are wrong: measured by simulation, and on real runs split into "the paper" and "ours".

A false alarm is a true match that is flagged, a miss a real shift that is not. Three ways to flag are counted, as
shares of splits or draws:
    flagged_known_m  p < alpha where the number of runs behind the printed mean is known: nominal rate alpha
    depends          not compatible for every m, but for some (p_inf < alpha <= p_1)
    incompatible     outside whatever was averaged (p_1 < alpha)
and `not_reproduced`, the word of `verdicts.verdict_word`, which needs five seeds and comes after "best of M".

    python -m papers_check.judge.calibration FOLDER [--out DIR]    makes noise/ again from the logs (a minute)
"""

import argparse
from collections.abc import Sequence
from itertools import combinations, pairwise, permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from papers_check.judge import intervals, power
from papers_check.judge.intervals import ALPHA
from papers_check.judge.seed_noise import (
    NOISE,
    POOL,
    claimed_gains,
    epoch_selection,
    load_runs,
    long,
    pools,
    seed_noise,
    tuning,
)
from papers_check.judge.verdicts import LOWER_IS_BETTER, NOT_REPRODUCED, verdict_word
from papers_check.printed.units import is_percent

KINDS = ("normal", "accuracy", "collapse")
OUTCOMES = ["flagged_known_m", "compatible", "depends", "incompatible", "not_reproduced"]
SHIFTS = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)  # in standard deviations over seeds
SEED_SPLITS = ((2, 1), (3, 1), (2, 2), (4, 1), (3, 2))  # five seeds cannot be split further
SEARCH_SPLITS = ((3, 1), (3, 3), (5, 1), (5, 5), (10, 1), (10, 5), (10, 10))
GAPS = (0, 1, 2, 3, 4, 6, 10, np.inf)  # bins for real shifts


def outcomes(ours: np.ndarray, printed: np.ndarray, m: int, half, higher=True) -> dict[str, np.ndarray]:
    """Which of `OUTCOMES` hold, [draws] each. ours: [draws, n], a column per seed; printed: [draws], means of m runs.

    `half` and `higher`, the rounding and whether larger is better, are one value or one per draw.
    """
    n = ours.shape[1]
    mean, sd = ours.mean(axis=1), ours.std(axis=1, ddof=1)
    sd = np.where(ours.min(axis=1) == ours.max(axis=1), 0.0, sd)
    p_1, p_m, p_inf = (intervals.p_value(printed, mean, sd, n, k, half) for k in (1, m, np.inf))
    words = verdict_word(n, p_1, p_inf, np.nan, intervals.best_of(printed, mean, sd, n, half, higher))
    flags = (p_m < ALPHA, p_inf >= ALPHA, (p_inf < ALPHA) & (p_1 >= ALPHA), p_1 < ALPHA, words == NOT_REPRODUCED)
    return dict(zip(OUTCOMES, flags, strict=True))


def _half(metric: str) -> float:
    """Rounding as the papers print: two decimals of a percentage, three of MAE and Corr."""
    return 0.005 if is_percent(metric) else 0.0005


# --- (a) by simulation ----------------------------------------------------------------------------------------------


def draw(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Runs of mean about 0 and seed noise 1.

    normal     what the formulas assume
    accuracy   counts: whole items out of many, two items to a standard deviation, so that runs often tie
    collapse   one run in ten fails to train and lands ten standard deviations lower
    """
    z = generator.standard_normal(shape)
    if kind == "normal":
        return z
    if kind == "accuracy":
        return np.round(2 * z) / 2
    if kind == "collapse":
        return z - 10 * (generator.random(shape) < 0.1)
    raise ValueError(f"unknown kind of runs {kind!r}: expected one of {', '.join(KINDS)}")


def simulate(
    kinds: Sequence[str] = KINDS,
    n: Sequence[int] = (3, 5, 10),
    m: Sequence[int] = (1, 5, 10),
    shifts: Sequence[float] = SHIFTS,
    halves: Sequence[float] = (0.005,),
    draws: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Outcomes by simulation: columns kind, n, m, shift, half, draws, `OUTCOMES`, flagged_without_half.

    `n` of our seeds, `m` runs behind the printed mean, which is `shift` standard deviations higher and rounded to units
    of 2 * `half`; flagged_without_half is what flagged_known_m becomes if the rounding is forgotten.
    """
    generator = np.random.default_rng(seed)
    lines = []
    for kind, n_, m_, shift, half in product(kinds, n, m, shifts, halves):
        offset = 2 * half * generator.random((draws, 1))  # where the grid of rounding lies
        ours = draw(kind, (draws, n_), generator) + offset
        mean = (draw(kind, (draws, m_), generator) + offset).mean(axis=1) + shift
        printed = np.round(mean / (2 * half)) * 2 * half if half else mean
        shares = [flag.mean() for flag in outcomes(ours, printed, m_, half).values()]
        naive = outcomes(ours, printed, m_, 0.0)["flagged_known_m"].mean()
        lines.append((kind, n_, m_, shift, half, draws, *shares, naive))
    return pd.DataFrame(lines, columns=["kind", "n", "m", "shift", "half", "draws", *OUTCOMES, "flagged_without_half"])


def common_rules(
    n: Sequence[int] = (3, 5, 10), m: Sequence[int] = (1, 5), draws: int = 20_000, seed: int = 0
) -> pd.DataFrame:
    """Share of true matches that rules in common use accept (normal runs); it should be 1 - alpha.

    Columns n, m, prediction_interval (ours), mean_interval (95 % interval of our mean), one_sd, two_sd (ddof 0), range.
    """
    generator = np.random.default_rng(seed)
    lines = []
    for n_, m_ in product(n, m):
        ours, printed = generator.standard_normal((draws, n_)), generator.standard_normal((draws, m_)).mean(axis=1)
        mean, gap = ours.mean(axis=1), np.abs(printed - ours.mean(axis=1))
        sd, sd_0 = ours.std(axis=1, ddof=1), ours.std(axis=1)
        inside = (printed >= ours.min(axis=1)) & (printed <= ours.max(axis=1))
        rules = [intervals.p_value(printed, mean, sd, n_, k) >= ALPHA for k in (m_, np.inf)]
        rules += [gap <= sd_0, gap <= 2 * sd_0, inside]
        lines.append((n_, m_, *(float(rule.mean()) for rule in rules)))
    columns = ["n", "m", "prediction_interval", "mean_interval", "one_sd", "two_sd", "range"]
    return pd.DataFrame(lines, columns=columns)


def many_cells(
    cells: Sequence[int] = (1, 10, 40), n: int = 5, m: int = 5, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Chance that a table of independent true matches contains a flag: raw, after Holm, and the share flagged by BH.

    Columns cells, any_raw, any_holm (both with m known), any_bh, any_holm_m_1 (what `judge` uses, m unknown).
    """
    generator = np.random.default_rng(seed)
    lines = []
    for count in cells:
        ours = generator.standard_normal((draws, count, n))
        printed = generator.standard_normal((draws, count, m)).mean(axis=2)
        p_m, p_1 = (intervals.p_value(printed, ours.mean(axis=2), ours.std(axis=2, ddof=1), n, k) for k in (m, 1))
        # Holm rejects anything exactly when the smallest p is below alpha / cells.
        by_bh = (stats.false_discovery_control(p_m, axis=1) < ALPHA).any(axis=1)
        shares = (p_m < ALPHA).any(axis=1), (p_m < ALPHA / count).any(axis=1), by_bh, (p_1 < ALPHA / count).any(axis=1)
        lines.append((count, *(float(share.mean()) for share in shares)))
    return pd.DataFrame(lines, columns=["cells", "any_raw", "any_holm", "any_bh", "any_holm_m_1"])


# --- (b) on real runs -----------------------------------------------------------------------------------------------


def splits(runs: int, n: int, m: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Ways to take n runs as ours and m others as the paper's: [ways, n + m] indices; of many, `most` at random."""
    if runs > 8:
        return generator.permuted(np.tile(np.arange(runs), (most, 1)), axis=1)[:, : n + m]
    ways = [
        (*ours, *theirs)
        for ours in combinations(range(runs), n)
        for theirs in combinations([i for i in range(runs) if i not in ours], m)
    ]
    return np.array(ways)


def matches(scores: pd.DataFrame, shifts: Sequence[float] = SHIFTS, most: int = 200, seed: int = 0) -> pd.DataFrame:
    """Real runs of one pool split into ours and the paper's, and the paper's moved by `shifts` standard deviations.

    scores: from `seed_noise.long`. One line per pool, metric, n, m and shift: `POOL`, metric, n, m, shift, splits,
    `OUTCOMES` (shares). Pools of kind "seeded" have five seeds of one configuration, so n + m is at most 5; those of
    kind "tune" are the trials of a random search, exchangeable and so a true match too, but far from normal: a stress
    test. The standard deviation is that of the pool; the shift goes up in one half of the splits and down in the other.
    """
    generator = np.random.default_rng(seed)
    parts = []
    for kind, ways, least in (("seeded", SEED_SPLITS, 5), ("tune", SEARCH_SPLITS, 20)):
        members = [(key, pool["value"].to_numpy()) for key, pool in pools(scores, kind, least)]
        for n, m in ways if members else ():
            draws = [x[splits(len(x), n, m, most, generator)] for _, x in members]  # [ways, n + m] each
            lengths = [len(part) for part in draws]
            line, every = np.repeat(np.arange(len(members)), lengths), np.concatenate(draws)
            sd = np.array([x.std(ddof=1) for _, x in members])[line]
            half = np.array([_half(key[-1]) for key, _ in members])[line]
            higher = np.array([key[-1] not in LOWER_IS_BETTER for key, _ in members])[line]
            sign = np.where(np.concatenate([np.arange(length) for length in lengths]) % 2, -1, 1)
            for shift in shifts:
                moved = every[:, n:].mean(axis=1) + sign * shift * sd
                printed = np.round(moved / (2 * half)) * 2 * half
                flags = pd.DataFrame(outcomes(every[:, :n], printed, m, half, higher)).groupby(line).mean()
                names = pd.DataFrame([key for key, _ in members], columns=[*POOL, "metric"])
                parts.append(names.assign(n=n, m=m, shift=shift, splits=lengths).join(flags))
    if not parts:
        raise ValueError("no pool of five seeds and no search of twenty trials: expected at least one to split")
    return pd.concat(parts, ignore_index=True)


def model_shifts(scores: pd.DataFrame, m: Sequence[int] = (1, 3, 5)) -> pd.DataFrame:
    """A real shift: our runs are of one model, the printed mean is of another on the same data and metric.

    Five seeds are ours, the mean of m of the other's five is printed. One line per ordered pair, metric and m: dataset,
    train_mode, metric, ours, theirs (models), m, gap (of the two means, in the root mean square of their standard
    deviations over seeds), `OUTCOMES` (shares over the ways to choose m). Models may be equally good: look at `gap`.
    """
    columns: dict[tuple, list[tuple[str, np.ndarray]]] = {}
    for (_, dataset, model, mode, _, metric), pool in pools(scores, "seeded", 5):
        columns.setdefault((dataset, mode, metric), []).append((model, pool["value"].to_numpy()[:5]))
    pairs = []
    for column, members in columns.items():
        for (model, a), (other, b) in permutations(members, 2):
            spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
            if model != other and spread > 0:
                pairs.append((*column, model, other, abs(a.mean() - b.mean()) / spread, a, b))
    if not pairs:
        raise ValueError("no two models with five seeds on the same data and metric: expected at least one pair")
    names = pd.DataFrame(pairs, columns=["dataset", "train_mode", "metric", "ours", "theirs", "gap", "a", "b"])
    ours, theirs = np.stack(names.pop("a")), np.stack(names.pop("b"))
    parts = []
    for m_ in m:
        ways = np.array(list(combinations(range(theirs.shape[1]), m_)))
        line = np.repeat(np.arange(len(names)), len(ways))
        half = names["metric"].map(_half).to_numpy()[line]
        higher = ~names["metric"].isin(LOWER_IS_BETTER).to_numpy()[line]
        printed = np.round(theirs[:, ways].mean(axis=2).ravel() / (2 * half)) * 2 * half
        flags = pd.DataFrame(outcomes(ours[line], printed, m_, half, higher)).groupby(line).mean()
        parts.append(names.assign(m=m_).join(flags))
    return pd.concat(parts, ignore_index=True)


def words_on_searches(scores: pd.DataFrame, m: Sequence[int] = (1, 2, 3, 4, 5), most: int = 200) -> pd.DataFrame:
    """`power.called` on the trials of public random searches: five are ours, the mean of m others is printed.

    A shift is in standard deviations of the search, and counts as better or worse than ours as the metric has it. Only
    these pools are large enough for five against up to five; they are far from normal, a stress test.
    """
    generator = np.random.default_rng(0)
    members = [(key[-1], pool["value"].to_numpy()) for key, pool in pools(scores, "tune", 20)]
    lines = []
    for m_ in m:
        draws = [x[splits(len(x), 5, m_, most, generator)] for _, x in members]
        line, every = np.repeat(np.arange(len(members)), [len(part) for part in draws]), np.concatenate(draws)
        sd = np.array([x.std(ddof=1) for _, x in members])[line]
        half = np.array([_half(metric) for metric, _ in members])[line]
        higher = np.array([metric not in LOWER_IS_BETTER for metric, _ in members])[line]
        for word, sign in (("better", 1), ("worse", -1)):
            towards = np.where(higher, sign, -sign) * sd
            share = []
            for shift in power.GRID:
                printed = np.round((every[:, 5:].mean(axis=1) + shift * towards) / (2 * half)) * 2 * half
                share.append(power.not_reproduced(every[:, :5], printed, half, higher).mean())
            rates_here = power.rates_of(np.array(share), power.GRID)
            lines.append(("public searches", 5, m_, word, 1, *rates_here))
    return pd.DataFrame(lines, columns=power.CALLED)


def rates(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means of `OUTCOMES` over the lines of `matches` or `model_shifts`, each counting the same, and their number."""
    groups = frame.groupby(list(by), observed=True, sort=True)
    return groups[OUTCOMES].mean().assign(lines=groups.size()).reset_index()


def by_gap(shifts: pd.DataFrame) -> pd.DataFrame:
    """`rates` of `model_shifts` by the size of the gap, in bins `GAPS`, and m."""
    labels = [f"{low} to {high:g}" if np.isfinite(high) else f"over {low}" for low, high in pairwise(GAPS)]
    return rates(shifts.assign(gap=pd.cut(shifts["gap"], GAPS, labels=labels, include_lowest=True)), ["gap", "m"])


# --- the committed summaries ----------------------------------------------------------------------------------------


def summaries(folder: Path | str) -> dict[str, pd.DataFrame]:
    """Everything in `noise/`, from the logs in `folder` (`runs.csv.gz`, `epochs.csv.gz`)."""
    runs = load_runs(folder)
    epochs = pd.read_csv(Path(folder) / "epochs.csv.gz", low_memory=False)
    scores = long(runs)
    noise = seed_noise(scores)
    return {
        "seeds": noise,
        "tuning": tuning(scores),
        "epochs": epoch_selection(runs, epochs),
        "gains": claimed_gains(noise),
        "matches": rates(matches(scores), ["kind", "n", "m", "shift"]),
        "models": by_gap(model_shifts(scores)),
        "simulated": simulate(),
        "words": pd.concat([power.called(), words_on_searches(scores)], ignore_index=True),
        "reproduced": power.wrongly_reproduced(),
        "pairing": power.pairing(),
        "correlations": power.seed_correlations(scores),
    }


def write(folder: Path | str, out: Path | str = NOISE) -> None:
    """The summaries as CSV, five significant digits: enough to read, and the same on every machine."""
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, frame in summaries(folder).items():
        frame.to_csv(Path(out) / f"{name}.csv", index=False, float_format="%.5g")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m papers_check.judge.calibration", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", help="where runs.csv.gz and epochs.csv.gz are")
    parser.add_argument("--out", default=str(NOISE), help="where the CSV files go (default: the package's noise/)")
    options = parser.parse_args(arguments)
    write(options.folder, options.out)
    print(f"Wrote {', '.join(sorted(path.name for path in Path(options.out).glob('*.csv')))} to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
