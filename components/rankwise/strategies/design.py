"""An initial design that begins where good configurations are expected, and spreads there.

The first point is the most plausible one. The next ones lie among the plausible points, each as far as possible from
those before (maximin, Johnson et al. 1990): three points that teach something of the whole region where the optimum is
expected, instead of three draws next to each other. Further ones are drawn with probability in proportion to their
plausibility, so that in the end every configuration has its turn. Where nothing is known a Sobol sequence does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rankwise.space import Candidates, SearchSpace
from rankwise.strategies.features import Features
from rankwise.strategies.knowledge import Knowledge, Source
from rankwise.strategies.sequence import Key, PointSequence

DESIGN_POINTS = 4096
"""Points of the space among which the design is drawn; all of a smaller space."""
PLAUSIBLE = 0.3
"""Part of the configurations that count as plausible: the best by what is known."""
SPREAD_POINTS = 16
"""So many points are spread; later ones are drawn."""
SHARPNESS = 2.0
"""Log density per standard deviation of the scores."""


class PlausibleSequence(PointSequence):
    """The most plausible configuration, others spread among the plausible ones, then draws (see the module's text).

    Draws are without replacement by the Gumbel trick: the order of log density plus independent Gumbel noise. The
    plausibility is exp of the sources' normal scores, so that a source that gives only an order has a scale.
    Afterwards, or where no source knows anything, a Sobol sequence.

    Args:
        space: search space.
        seed: fixes the draws.
        sources: what is known.
    """

    def __init__(self, space: SearchSpace, seed: int, sources: Sequence[Source]) -> None:
        super().__init__(space, seed)
        self._sources = sources

    @cached_property
    def _ordered(self) -> Candidates:
        # When it is asked for: most requests come after the initial design.
        points = self.space.candidates(DESIGN_POINTS, self.seed)
        knowledge = Knowledge(self._sources, points)
        order = _plausible_order(knowledge, points, self.seed) if len(knowledge) else np.zeros(0, dtype=np.int64)
        return points.take(order)

    def stream(self, n: int) -> Candidates:
        head = self._ordered.take(np.arange(min(n, len(self._ordered))))
        rest = n - len(head)
        if rest == 0:
            return head
        return self.space.at(np.concatenate([head.units, self.space.sobol(rest, self.seed).units]))


class PoolSequence(PointSequence):
    """All configurations of a pool, the plausible ones first, in a random order where nothing is known.

    Args:
        pool: different configurations.
        seed: fixes the draws.
        sources: what is known.
    """

    def __init__(self, pool: Candidates, seed: int, sources: Sequence[Source]) -> None:
        super().__init__(pool.space, seed)
        self._pool = pool
        self._sources = sources

    @cached_property
    def _ordered(self) -> Candidates:
        return self._pool.take(_plausible_order(Knowledge(self._sources, self._pool), self._pool, self.seed))

    def stream(self, n: int) -> Candidates:
        return self._ordered.take(np.arange(min(n, len(self._ordered))))

    def first(self, n: int) -> list[tuple[Key, dict[str, str]]]:
        points = self.stream(n)
        return list(zip(points.keys, points, strict=True))


class LedSequence(PointSequence):
    """A given configuration first, then another sequence without it.

    Args:
        point: of the sequence's space; its texts stay as they are.
        then: what follows.
    """

    def __init__(self, point: Mapping[str, str], then: PointSequence) -> None:
        super().__init__(then.space, then.seed)
        self._point = dict(point)
        self._then = then

    def stream(self, n: int) -> Candidates:
        return self._then.stream(n)

    def first(self, n: int) -> list[tuple[Key, dict[str, str]]]:
        key = self.space.key(self._point)
        rest = [(other, point) for other, point in self._then.first(n) if other != key]
        return [(key, dict(self._point)), *rest][:n]


def _plausible_order(knowledge: Knowledge, points: Candidates, seed: int) -> NDArray[np.int64]:
    """Numbers of all points (m,) in the order of the design."""
    noise = np.random.default_rng(seed).gumbel(size=len(points))
    if not len(knowledge) or not len(points):
        return np.argsort(-noise, kind="stable")
    log_density = SHARPNESS * knowledge.columns(points).mean(axis=1)  # (m,)
    # The first one is the most plausible of all; among equals the noise decides.
    ranked = np.lexsort((-noise, -log_density))  # (m,)
    plausible = ranked[: max(SPREAD_POINTS, math.ceil(PLAUSIBLE * len(points)))]
    head = plausible[_maximin(Features(points, knowledge).numbers(points.take(plausible)), SPREAD_POINTS)]
    order = np.argsort(-(log_density + noise), kind="stable")
    return np.concatenate([head, order[~np.isin(order, head)]])


def _maximin(rows: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """At most ``count`` different rows: the first, then each time the one farthest from all before.  # rows (p, q)"""
    chosen = [0]
    distance = np.full(len(rows), np.inf)
    while len(chosen) < min(count, len(rows)):
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(1))
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return np.array(chosen, dtype=np.intp)
