"""A search over real runs: what an optimizer may ask, what it is told, and what is left out of its sight.

A *pool* is what was measured of one task: different configurations, each with a validation loss or with "diverged".

1. An optimizer proposes a point of the space's unit cube (:class:`Dimension`: values in log scale where the space says
   so, the smallest at 0 and the largest at 1). It need not be on the space's grid.
2. The nearest measured configuration that was not tried yet is taken (Euclidean distance; between equally near ones a
   permutation decides that the seed draws). In mode ``pool`` an optimizer sees the pool's configurations, without their
   values, and chooses among them itself.
3. It is told that configuration, and its value or that it failed.

No surrogate of the table is involved: every value that an optimizer is told is one that was measured. What this costs:
a proposal moves to where somebody measured, the further the thinner the pool is; each trial's distance is recorded.

Every trial counts, initial points and failures among them.

Each seed hides another random part of a table (:meth:`Pool.seen_by`): searches that begin alike, as those do that know
where to begin, would else repeat each other, and one lucky configuration would decide a task. Regret is taken within
what is left.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.space import SearchSpace

Array = NDArray[np.float64]
PARTS = ("sobol", "dense")
"""Parts of a table that make its pool: one run for each configuration, all on as many examples."""
MODES = ("nearest", "pool")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter as an optimizer of numbers sees it.

    Attributes:
        name: of the parameter.
        low, high: its smallest and largest value.
        log: whether distances are those of the logarithms.
    """

    name: str
    low: float
    high: float
    log: bool

    def position(self, value: float) -> float:
        """Where a value lies between ``low`` (0) and ``high`` (1); values beyond them are moved to the bounds."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def value(self, position: float) -> float:
        """The inverse of :meth:`position`, within the bounds whatever rounding does."""
        if self.log:
            value = math.exp(math.log(self.low) + position * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + position * (self.high - self.low)
        return min(max(value, self.low), self.high)


def dimensions(space: SearchSpace) -> tuple[Dimension, ...]:
    """The parameters of a space as numbers.

    Raises:
        ValueError: a parameter is a category, or has a single value.
    """
    found = []
    for parameter in space.parameters:
        if parameter.low is None or parameter.high is None or parameter.low >= parameter.high:
            raise ValueError(f"parameter {parameter.name!r} is not a range of numbers")
        found.append(Dimension(parameter.name, parameter.low, parameter.high, parameter.distribution.is_log))
    return tuple(found)


def positions(dims: Sequence[Dimension], configs: Iterable[Mapping[str, str]]) -> Array:
    """Places of configurations in the unit cube.  # (n, D)"""
    rows = [[dim.position(float(config[dim.name])) for dim in dims] for config in configs]
    return np.array(rows, dtype=np.float64).reshape(-1, len(dims))


class RunLike(Protocol):
    """What is read of a run (:class:`benchmarks.lora_runs.table.Run` has it)."""

    @property
    def config(self) -> Mapping[str, str]: ...
    @property
    def status(self) -> str: ...
    @property
    def loss(self) -> float | None: ...
    @property
    def part(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def examples(self) -> int: ...


class Pool:
    """The measured configurations of one task. A value leaves it only through :meth:`reveal`, which counts.

    Args:
        name: of the task.
        space: search space.
        measured: configurations and their values; None for one that diverged. Smaller is better.
        hidden: part of the configurations that each seed hides.

    Raises:
        ValueError: a configuration is not of the space or comes twice, a value is not finite, or fewer than two
            configurations have a value.

    Attributes:
        positions: of the configurations in the unit cube.  # (n, D)
        best, median, worst: of the values that were measured (failures are not among them). For scoring only.
        fingerprint: sha256 (hex) of the configurations and values, in whatever order.
        revealed: how often each configuration's value was asked for.
    """

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        measured: Sequence[tuple[Mapping[str, str], float | None]],
        hidden: float = 0.0,
    ) -> None:
        self.name = name
        self.space = space
        self.hidden = hidden
        self.dimensions = dimensions(space)
        self.configs = tuple(dict(config) for config, _ in measured)
        keys = [space.key(config) for config in self.configs]
        if len(set(keys)) != len(keys):
            raise ValueError(f"task {name!r}: a configuration comes twice")
        self._values = tuple(value for _, value in measured)
        values = [value for value in self._values if value is not None]
        if len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"task {name!r}: at least two values are needed, all of them finite")
        self.positions = positions(self.dimensions, self.configs)
        self.positions.flags.writeable = False
        self.best, self.median, self.worst = min(values), float(np.median(values)), max(values)
        self.failed = len(self._values) - len(values)
        rows = sorted([list(map(str, key)), value] for key, value in zip(keys, self._values, strict=True))
        content = [space.fingerprint, rows, *([hidden] if hidden else [])]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self.revealed: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.configs)

    def seen_by(self, seed: int) -> Pool:
        """What one seed searches: the same for every optimizer; all of it where nothing is hidden."""
        if not self.hidden:
            return self
        kept = np.random.default_rng([seed, 1]).permutation(len(self))[: round((1 - self.hidden) * len(self))]
        return Pool(self.name, self.space, [(self.configs[i], self._values[i]) for i in np.sort(kept)])

    def reveal(self, index: int) -> float | None:
        """The value of one configuration; None when it diverged."""
        self.revealed[index] += 1
        return self._values[index]


Measured = list[tuple[Mapping[str, str], float | None]]
"""Configurations with their values; None for one that diverged."""


def measured_of(name: str, space: SearchSpace, runs: Iterable[RunLike]) -> Measured:
    """What a table's pool holds: its Sobol and dense parts, seed 0.

    A configuration of both parts is taken once, as it was measured first. A run that ended with a loss that is not
    finite counts as diverged.

    Raises:
        ValueError: runs on different numbers of examples are mixed.
    """
    chosen = [run for run in runs if run.part in PARTS and run.seed == 0]
    if len({run.examples for run in chosen}) > 1:
        raise ValueError(f"task {name!r}: the runs of the pool are on different numbers of examples")
    measured: dict[tuple[object, ...], tuple[Mapping[str, str], float | None]] = {}
    for run in chosen:
        good = run.status == "ok" and run.loss is not None and math.isfinite(run.loss)
        measured.setdefault(space.key(run.config), (run.config, run.loss if good else None))
    return list(measured.values())


@dataclass(frozen=True)
class View:
    """What an optimizer knows before its first trial.

    Attributes:
        task: name of the task.
        space: search space.
        dimensions: its parameters as numbers.
        seed: of everything random in the optimizer.
        budget: number of trials.
        configs: the pool's configurations; empty in mode ``nearest``.
        positions: their places.  # (n, D)
    """

    task: str
    space: SearchSpace
    dimensions: tuple[Dimension, ...]
    seed: int
    budget: int
    configs: tuple[dict[str, str], ...] = ()
    positions: Array = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def sees_pool(self) -> bool:
        return bool(self.configs)


def view_of(pool: Pool, seed: int, budget: int, mode: str = "nearest") -> View:
    """What an optimizer may know of a pool."""
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    if mode == "nearest":
        return View(pool.name, pool.space, pool.dimensions, seed, budget)
    configs = tuple(dict(config) for config in pool.configs)
    return View(pool.name, pool.space, pool.dimensions, seed, budget, configs, pool.positions)


@dataclass(frozen=True)
class Told:
    """One ended trial.

    Attributes:
        config: the measured configuration, which is near the proposed one.
        position: its place in the unit cube.  # (D,)
        value: its validation loss, smaller is better; None when it failed.
    """

    config: dict[str, str]
    position: Array
    value: float | None


class Optimizer(Protocol):
    """A way to search, one trial at a time."""

    def ask(self) -> Array:
        """A point of the unit cube, each coordinate in [0, 1].  # (D,)"""
        ...

    def tell(self, trial: Told) -> None:
        """What came of it."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One trial of a search.

    Attributes:
        index: which configuration of the pool.
        value: its value; None when it failed.
        distance: from the proposal to it.
        seconds: wall time of the suggestion: of ``ask``, and of ``tell``, where some optimizers fit their model.
    """

    index: int
    value: float | None
    distance: float
    seconds: float


def play(pool: Pool, optimizer: Optimizer, budget: int, seed: int) -> list[Step]:
    """A whole search of ``budget`` trials; fewer where the pool is smaller.

    Raises:
        ValueError: a proposal is not a point of the unit cube.
    """
    order = np.random.default_rng([seed, 0]).permutation(len(pool))  # place -> index: the first of equals is taken
    places = pool.positions[order]  # (n, D)
    untried = np.ones(len(pool), dtype=bool)
    steps = []
    for _ in range(min(budget, len(pool))):
        began = time.perf_counter()
        proposal = np.asarray(optimizer.ask(), dtype=np.float64)
        seconds = time.perf_counter() - began
        if proposal.shape != (places.shape[1],) or not np.all((proposal >= -1e-9) & (proposal <= 1 + 1e-9)):
            raise ValueError(f"a proposal must be a point of the unit cube, got {proposal!r}")
        distances = np.linalg.norm(places - proposal, axis=1)  # (n,)
        # Rounding must not decide between equally near ones.
        place = int(np.argmin(np.where(untried, np.round(distances, 9), np.inf)))
        untried[place] = False
        index = int(order[place])
        value = pool.reveal(index)
        began = time.perf_counter()
        optimizer.tell(Told(dict(pool.configs[index]), pool.positions[index], value))
        seconds += time.perf_counter() - began
        steps.append(Step(index, value, float(distances[place]), seconds))
    return steps
