"""Which configurations a model scores: all of a finite space, a covering sample and local steps elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.space import Candidates, ParameterType, SearchSpace

Key = tuple[Hashable, ...]

CENTRES = 5
"""How many of the best configurations are searched around."""
STEPS = 40
"""Local candidates around each of them."""
STEP_SIZES = (0.01, 0.03, 0.1, 0.3)
"""Standard deviations of a local step, in units of the parameter's range, from polishing to exploring."""


@dataclass(frozen=True)
class CandidateSet:
    """Configurations that a model can be asked about.

    Attributes:
        points: different configurations, tried ones among them.  # (m, D)
        covering: the first so many cover the space, the others are local steps.
    """

    points: Candidates
    covering: int

    def untried(self, tried: Collection[Key]) -> NDArray[np.intp]:
        """Indices of the points whose key is not among ``tried``."""
        if not tried:
            return np.arange(len(self.points))
        return np.array([i for i, key in enumerate(self.points.keys) if key not in tried], dtype=np.intp)


def candidate_set(
    space: SearchSpace, limit: int, samples: int, centres: NDArray[np.float64], seed: int
) -> CandidateSet:
    """The candidates for a space.

    Args:
        space: search space.
        limit: a finite space of at most this many configurations is enumerated.
        samples: points of a Sobol sequence that stand for any other space.
        centres: positions of the best configurations, in a defined order, for local steps.  # (c, D)
        seed: of the sequence and the steps.
    """
    if space.size is not None and space.size <= limit:
        points = space.enumerate()
        return CandidateSet(points, len(points))
    covering = space.candidates(samples, seed)
    if len(centres) == 0:
        return CandidateSet(covering, len(covering))
    local = space.at(_local_steps(space, centres[:CENTRES], seed))
    both = space.at(np.concatenate([covering.units, local.units]))
    # The sample has no duplicates: whatever is dropped is a local step.
    return CandidateSet(both.take(both.first_occurrences()), len(covering))


def _local_steps(space: SearchSpace, centres: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Positions (c * STEPS, D) near the centres: each step changes one parameter or a few."""
    generator = np.random.default_rng(seed)
    rows = np.repeat(centres, STEPS, axis=0)  # (r, D)
    sizes = np.resize(STEP_SIZES, len(rows))[:, None]  # (r, 1)
    changed = generator.random(rows.shape) < max(0.3, 1 / space.dimension)
    forced = generator.integers(0, space.dimension, len(rows))
    changed[np.arange(len(rows)), forced] = True
    stepped = rows + sizes * generator.standard_normal(rows.shape)
    # Reflected at the bounds: clipping would pile the steps up there.
    stepped = 1.0 - np.abs(1.0 - np.abs(stepped) % 2.0)
    # A category has no neighbours.
    categorical = [parameter.type is ParameterType.CATEGORICAL for parameter in space.parameters]
    stepped = np.where(categorical, generator.random(rows.shape), stepped)
    return np.where(changed, stepped, rows)
