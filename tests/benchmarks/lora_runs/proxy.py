"""What a part of the training data says about the whole of it, and what seeds do to either.

    python -m benchmarks.lora_runs.proxy [TASK ...]      (from tests/; all shipped tables when no task is named)

Prints two Markdown tables. The first, from the parts fidelity and sobol (the latter is the 10 % proxy): over the
configurations that were trained on both, the rank correlation of the validation losses on a part of the data with
those on all of it, the regret on all data of the configuration that the part would choose and of the best of the
three that it ranks first, and the cost of a run as a part of the cost on all data. The second, from the part repeat
with its runs of seed 0 in sobol: the spread over seeds beside that over configurations, and the rank correlation
between two seeds, which no proxy can be expected to pass.

Notation
    n       configurations that have both results
    regret  (loss on all data of the chosen one − best) / (median − best) among the n; 0 has chosen the best
    cost    processor seconds of a run, its evaluation included: the validation and test sets are as large for 1 % as
            for 100 %, so small parts cost more than their share

A diverged run is worse than every finite loss, and in a regret it counts as the worst finite loss. Intervals are
percentiles of the bootstrap over configurations: how far other configurations of this space would be, on the same
task, with the same examples. Draws without a figure (all chosen equal) are left out. A draw
repeats configurations, so that its three may be one: the upper ends of the three's regret are rather too high.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.lora_runs.table import TASKS, VALUES, Run, load
from benchmarks.search.regret import RESAMPLES, Estimate, interval

Array = NDArray[np.float64]
FRACTIONS = (0.01, 0.05, 0.1, 0.25)
"""Parts of the training data that are compared with all of it."""
FEWEST = 4
"""With fewer configurations a correlation says nothing."""
FINALISTS = 3
"""Configurations of the proxy that are trained on all data, where more than the best one is."""
NOT_MEASURED = "not measured"


def spearman(a: Array, b: Array) -> float:
    """Rank correlation of two series (n,), equal values share their mean rank; NaN where all of one are equal."""
    x, y = (rankdata(series) - (len(a) + 1) / 2 for series in (a, b))
    norm = math.sqrt((x @ x) * (y @ y))
    return float(x @ y) / norm if norm else math.nan


def kendall(a: Array, b: Array) -> float:
    """Kendall's tau-b of two series (n,); NaN where all of one are equal."""
    x, y = (np.sign(ranks[:, None] - ranks) for ranks in (rankdata(a), rankdata(b)))  # (n, n); ranks: inf − inf is NaN
    norm = math.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum()) / norm if norm else math.nan


def choice_regret(proxy: Array, full: Array, finalists: int = 1) -> float:
    """Regret on all data of the best of the configurations that are best on the proxy; NaN without a gap.

    Args:
        proxy, full: losses (n,); infinite for a diverged run.
        finalists: so many configurations are taken from the proxy, of equal ones the first.
    """
    finite = full[np.isfinite(full)]
    if not len(finite):
        return math.nan
    held = np.minimum(full, finite.max())
    gap = float(np.median(held)) - float(held.min())
    chosen = np.argsort(proxy, kind="stable")[:finalists]
    return (float(held[chosen].min()) - float(held.min())) / gap if gap > 0 else math.nan


def bootstrap(figure: Callable[..., float], *series: Array, resamples: int = RESAMPLES) -> Estimate | None:
    """A figure with its interval over resampled configurations; None where it has no value.

    Args:
        figure: of the series.
        series: one row for each configuration; all are resampled alike.  # (n, ...) each
        resamples: of the bootstrap; seed 0.
    """
    value = figure(*series)
    drawn = np.random.default_rng(0).integers(0, len(series[0]), (resamples, len(series[0])))
    draws = np.array([figure(*(values[at] for values in series)) for at in drawn])
    return None if math.isnan(value) else interval(value, draws[~np.isnan(draws)])


def _key(run: Run) -> tuple[str, ...]:
    return tuple(run.config[name] for name in VALUES)


def _loss(run: Run) -> float:
    return math.inf if run.loss is None else run.loss


def by_fraction(runs: Sequence[Run]) -> dict[float, dict[tuple[str, ...], Run]]:
    """Runs of seed 0 of the parts sobol and fidelity: part of the data -> configuration -> run.

    A run belongs to the listed part of the data that is nearest by ratio (51 of 5,120 examples are 1 %).
    """
    parts = (*FRACTIONS, 1.0)
    found: dict[float, dict[tuple[str, ...], Run]] = {part: {} for part in parts}
    for run in runs:
        if run.part in ("sobol", "fidelity") and run.seed == 0:
            found[min(parts, key=lambda part: abs(math.log(part / run.fraction)))][_key(run)] = run
    return found


def fidelity_lines(task: str, runs: Sequence[Run], resamples: int = RESAMPLES) -> list[str]:
    """Lines of the first table, one for each part of the data."""
    found = by_fraction(runs)
    lines = []
    for part in FRACTIONS:
        both = sorted(found[part].keys() & found[1.0].keys(), key=lambda key: found[1.0][key].position)
        if len(both) < FEWEST:
            lines.append(f"| {task} | {part:.0%} | {len(both)} | {' | '.join([NOT_MEASURED] * 5)} |")
            continue
        proxy = np.array([_loss(found[part][key]) for key in both])  # (n,)
        full = np.array([_loss(found[1.0][key]) for key in both])  # (n,)
        best_of = partial(choice_regret, finalists=FINALISTS)
        figures: tuple[Callable[..., float], ...] = (spearman, kendall, choice_regret, best_of)
        cells = [_text(bootstrap(figure, proxy, full, resamples=resamples)) for figure in figures]
        seconds = [sum(found[size][key].seconds for key in both) for size in (part, 1.0)]
        cells.append(f"{seconds[0] / len(both):.1f} of {seconds[1] / len(both):.1f} s ({seconds[0] / seconds[1]:.0%})")
        lines.append(f"| {task} | {part:.0%} | {len(both)} | {' | '.join(cells)} |")
    return lines


def repeated(runs: Sequence[Run]) -> Array:
    """Losses of the repeated configurations with the seeds that all of them have; infinite for a diverged run.

    Returns:
        (n, seeds).
    """
    own = {_key(run) for run in runs if run.part == "repeat"}
    losses: dict[tuple[str, ...], dict[int, float]] = {key: {} for key in own}
    for run in runs:
        if run.part == "repeat" or (run.part == "sobol" and _key(run) in own):
            losses[_key(run)][run.seed] = _loss(run)
    seeds = set.intersection(*({*of} for of in losses.values())) if losses else set()
    rows = [[losses[key][seed] for seed in sorted(seeds)] for key in sorted(own)]
    return np.array(rows).reshape(len(own), len(seeds))


def between_seeds(figure: Callable[[Array, Array], float], losses: Array) -> float:
    """Mean over all pairs of seeds of a rank correlation between their losses (n, seeds)."""
    return float(np.mean([figure(losses[:, i], losses[:, j]) for i, j in combinations(range(losses.shape[1]), 2)]))


def seed_line(task: str, runs: Sequence[Run], resamples: int = RESAMPLES) -> str:
    """The line of the second table."""
    losses = repeated(runs)
    finite = losses[np.isfinite(losses).all(axis=1)]  # configurations with a diverged seed have no spread
    if len(finite) < FEWEST or losses.shape[1] < 2:
        return f"| {task} | {len(losses)} | {losses.shape[1]} | {' | '.join([NOT_MEASURED] * 5)} |"
    within = finite.std(axis=1, ddof=1)  # (n,)
    spreads = (math.sqrt(np.mean(within**2)), np.median(within), finite.mean(axis=1).std(ddof=1))
    cells = [f"{spread:.3g}" for spread in spreads]
    ceilings = (
        bootstrap(partial(between_seeds, figure), losses, resamples=resamples) for figure in (spearman, kendall)
    )
    cells += [_text(ceiling) for ceiling in ceilings]
    return f"| {task} | {len(losses)} | {losses.shape[1]} | {' | '.join(cells)} |"


def _text(estimate: Estimate | None) -> str:
    return NOT_MEASURED if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def tables(runs: Mapping[str, Sequence[Run]], resamples: int = RESAMPLES) -> str:
    """Both tables of some tasks."""
    lines = [
        "| task | data | n | Spearman | Kendall | regret of choosing by it | of its best three "
        "| core seconds a run, of all data's |",
        "|---|--:|--:|---|---|---|---|---|",
    ]
    for task, own in runs.items():
        lines += fidelity_lines(task, own, resamples)
    lines += [
        "",
        "| task | configurations | seeds | standard deviation between seeds | its median | between configurations "
        "| Spearman of two seeds | Kendall of two seeds |",
        "|---|--:|--:|--:|--:|--:|---|---|",
        *(seed_line(task, own, resamples) for task, own in runs.items()),
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help="names of shipped tables, or files TASK.csv.gz")
    named = parser.parse_args(argv).tasks
    files = {Path(name).name.removesuffix(".csv.gz"): Path(name) if name.endswith(".gz") else None for name in named}
    print(tables({task: load(task, path) for task, path in files.items()}))


if __name__ == "__main__":
    main()
