"""Sequences of different configurations, the same in every process: initial designs, ``sobol`` and ``random``.

The i-th element is the i-th *different* configuration of a stream of points that the seed fixes. A request continues at
the number of configurations handed out so far, so that batches of any size, a repeated request and a restarted service
walk through one and the same sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Mapping

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import Problem
from rankwise.space import Candidates, Objective, SearchSpace
from rankwise.strategies.base import RANDOM_STATE, Suggestions, SuggestRequest, mistakes, seed_of
from rankwise.strategies.options import OptionTable
from rankwise.surrogate.observations import read_trials

Key = tuple[Hashable, ...]

MAX_DRAWS = 1 << 17
"""Points of the stream that are looked at. Where a finite space still has other points then (a narrow distribution
meets the same ones again and again), those follow in a random order."""
MAX_POSITION = 1 << 12
"""A request beyond this many handed-out configurations starts over; what was tried is left out all the same."""
_ENUMERABLE = 1 << 20


class PointSequence(ABC):
    """An endless stream of points of a space, and the different ones among them.

    Args:
        space: search space.
        seed: fixes the stream.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.seed = seed
        self._points: dict[Key, dict[str, str]] = {}
        self._drawn = 0

    @abstractmethod
    def stream(self, n: int) -> Candidates:
        """The first n points; some may be equal."""

    def first(self, n: int) -> list[tuple[Key, dict[str, str]]]:
        """The first n different points with their keys; fewer where the space has no more."""
        target = n if self.space.size is None else min(n, self.space.size)
        while len(self._points) < target and self._drawn < MAX_DRAWS:
            draws = min(MAX_DRAWS, max(32, 2 * self._drawn, 1 << (2 * target).bit_length()))
            drawn = self.stream(draws)
            fresh = drawn.take(np.arange(self._drawn, draws))
            for key, point in zip(fresh.keys, fresh, strict=True):
                self._points.setdefault(key, point)
            self._drawn = draws
        if len(self._points) < target and self.space.size is not None:
            self._fill(target)
        return list(self._points.items())[:target]

    def _fill(self, target: int) -> None:
        """Add points of a finite space that the stream did not meet."""
        assert self.space.size is not None  # noqa: S101 - the caller has checked
        generator = np.random.default_rng(self.seed)
        if self.space.size <= _ENUMERABLE:
            everything = self.space.enumerate()
            rest = everything.take(generator.permutation(self.space.size))
            for key, point in zip(rest.keys, rest, strict=True):
                self._points.setdefault(key, point)
            return
        while len(self._points) < target:
            # Every value is as likely as another: the distribution has had its part in the stream.
            drawn = self.space.at(_uniform_values(self.space, generator, target))
            for key, point in zip(drawn.keys, drawn, strict=True):
                self._points.setdefault(key, point)


def _uniform_values(space: SearchSpace, generator: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Positions (n, D) of values drawn uniformly from the finite parameters' tables."""
    columns = []
    for parameter in space.parameters:
        table = parameter.table
        if table is None:
            columns.append(generator.random(n))
        else:
            columns.append(table.centres[generator.integers(0, len(table.values), n)])
    return np.stack(columns, axis=1)


class SobolSequence(PointSequence):
    """Scrambled Sobol points: any stretch of them covers the space evenly."""

    def stream(self, n: int) -> Candidates:
        return self.space.sobol(n, self.seed)


class RandomSequence(PointSequence):
    """Independent draws from the parameters' distributions."""

    def stream(self, n: int) -> Candidates:
        generator = np.random.default_rng(self.seed)
        return self.space.at(generator.random((n, self.space.dimension)))  # row by row: longer draws begin alike


def continue_sequence(
    sequence: PointSequence, position: int, count: int, tried: Collection[Key]
) -> list[tuple[Key, dict[str, str]]]:
    """At most ``count`` untried points: from ``position`` on, then those before it.

    Args:
        sequence: where they come from.
        position: how many were handed out already.
        count: how many are wanted.
        tried: keys that must not be given again.

    Returns:
        Fewer than ``count`` only where the space has no further untried point.
    """
    position = position % MAX_POSITION
    points = sequence.first(position + count + len(tried))
    # The untried ones before the position come last: they are there only when somebody dropped them.
    ordered = points[position:] + points[:position]
    return [(key, point) for key, point in ordered if key not in tried][:count]


def repeat_least_tried(
    points: list[tuple[Key, dict[str, str]]], tried: Mapping[Key, int], count: int
) -> list[dict[str, str]]:
    """``count`` configurations of an exhausted space: the least often tried first, then in the given order."""
    times = [tried.get(key, 0) for key, _ in points]
    chosen: list[dict[str, str]] = []
    for _ in range(count):
        least = int(np.argmin(times))
        times[least] += 1
        chosen.append(dict(points[least][1]))
    return chosen


class SequenceStrategy(ABC):
    """A strategy that walks through a sequence and learns nothing from results.

    When the space has no untried configuration left, those that were tried least often are repeated, in the order of
    the sequence, and counted in ``repeated``.
    """

    options = OptionTable([RANDOM_STATE])

    @property
    @abstractmethod
    def name(self) -> str:
        """The ``algorithmName`` of Katib."""

    @abstractmethod
    def sequence(self, space: SearchSpace, seed: int) -> PointSequence:
        """The sequence for a space."""

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:  # noqa: ARG002
        """See :class:`rankwise.strategies.base.Strategy`."""
        return mistakes(self.options, settings)

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """See :class:`rankwise.strategies.base.Strategy`.

        Raises:
            InvalidInput: the settings are wrong.
        """
        options = self.options.parse(request.settings)
        observations = read_trials(request.space, request.objective, request.trials)
        sequence = self.sequence(request.space, seed_of(request, options))
        position = max(request.issued, observations.count)
        fresh = continue_sequence(sequence, position, request.count, observations.tried)
        chosen = [point for _, point in fresh]
        missing = request.count - len(chosen)
        if missing:
            tried = dict(observations.tried)
            for key, _ in fresh:
                tried[key] = tried.get(key, 0) + 1
            chosen += repeat_least_tried(sequence.first(len(tried)), tried, missing)
        return Suggestions(tuple(chosen), repeated=missing, details={"ignored": float(observations.ignored)})
