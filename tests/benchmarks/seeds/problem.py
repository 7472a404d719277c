"""A table of real LoRA runs as a search whose trainings have a seed.

What is real: the configurations and their losses, each measured once (twelve of them with five seeds). What is
simulated: the seeds. No table has several seeds for every configuration, so a training's value is drawn::

    value(c, s) = μ_c + k · σ(μ_c) · z_{c,s},      z standard normal

μ_c is the measured loss (the mean over five seeds where there are five), which counts as the true mean. σ(μ) is the
standard deviation between seeds: its logarithm is interpolated over μ between the twelve repeated configurations and
constant beyond them. It is 0.01 to 0.34 below a loss of 3 and 1.2 at 7.3: what is bad is also uncertain. k = 1 is noise
of the measured size. Real deviations have heavier tails than normal ones (one of the five seeds of the third best is 2
of its standard deviations off).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.lora_runs.table import Run, load, search_space
from rankwise.space import Candidates, ParameterText, SearchSpace, parse_space

TASK = "minilm-section"
"""The only table with repeated runs."""
SEED = "seed"
HIDDEN = 0.2
"""Part of the table that each search does not see: searches that begin alike would repeat each other."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Configurations with their true means and the spread of one training.

    Attributes:
        configs: parameter name -> text.
        means: μ.  # (n,)
        deviations: σ(μ).  # (n,)
    """

    configs: tuple[Mapping[str, str], ...]
    means: Array
    deviations: Array


def table_of(runs: Iterable[Run]) -> Table:
    """The configurations of the parts sobol and repeat.

    Raises:
        ValueError: fewer than two configurations were run with several seeds.
    """
    losses: dict[tuple[str, ...], list[float]] = {}
    configs: dict[tuple[str, ...], Mapping[str, str]] = {}
    for run in runs:
        if run.part in ("sobol", "repeat") and run.loss is not None:
            key = tuple(run.config.values())
            configs.setdefault(key, run.config)
            losses.setdefault(key, []).append(run.loss)
    means = np.array([np.mean(values) for values in losses.values()])
    repeated = sorted((float(np.mean(v)), float(np.std(v, ddof=1))) for v in losses.values() if len(v) > 1)
    if len(repeated) < 2:
        raise ValueError(f"{len(repeated)} configurations have several seeds; two at least are needed")
    at, spread = np.array(repeated).T
    return Table(tuple(configs.values()), means, np.exp(np.interp(means, at, np.log(spread))))


def load_table() -> Table:
    """The shipped one."""
    return table_of(load(TASK))


def seeded_space(seeds: int) -> SearchSpace:
    """The table's space with a seed parameter of so many values."""
    (seed,) = parse_space([ParameterText(SEED, "int", "0", str(seeds - 1))]).parameters
    return SearchSpace([*search_space().parameters, seed])


class World:
    """What one search may find: a part of the table, with values that are fixed for every configuration and seed.

    Args:
        table: where it comes from.
        number: of the search; decides what is hidden and what the seeds give, the same for every method.
        multiple: k.
        seeds: of each configuration.

    Attributes:
        space: with the seed parameter.
        pool: all configurations with all seeds.
        best: the least true mean.
    """

    def __init__(self, table: Table, number: int, multiple: float, seeds: int) -> None:
        generator = np.random.default_rng([number, 1])
        n = len(table.configs)
        kept = np.sort(generator.permutation(n)[: round((1 - HIDDEN) * n)])
        z = generator.standard_normal((n, seeds))
        self.space = seeded_space(seeds)
        self._place = {tuple(table.configs[i].values()): i for i in kept.tolist()}
        self._means = table.means
        self._values = table.means[:, None] + multiple * table.deviations[:, None] * z  # (n, s)
        self.best = float(table.means[kept].min())
        points = [{**table.configs[i], SEED: str(s)} for i in kept.tolist() for s in range(seeds)]
        self.pool: Candidates = self.space.at(self.space.encode(points))

    def _index(self, point: Mapping[str, str]) -> int:
        return self._place[tuple(text for name, text in point.items() if name != SEED)]

    def train(self, point: Mapping[str, str]) -> float:
        """The value of one training."""
        return float(self._values[self._index(point), int(point[SEED])])

    def regret(self, point: Mapping[str, str]) -> float:
        """How much worse a configuration's true mean is than the best one's."""
        return float(self._means[self._index(point)]) - self.best
