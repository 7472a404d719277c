"""An initial design that begins where good configurations are expected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankwise.space import Candidates, SearchSpace
from rankwise.strategies.knowledge import Knowledge, Source
from rankwise.strategies.sequence import PointSequence

DESIGN_POINTS = 4096
"""Points of the space among which the design is drawn; all of a smaller space."""
SHARPNESS = 2.0
"""Log density per standard deviation of the scores."""


class PlausibleSequence(PointSequence):
    """The most plausible configuration, then others drawn with probability in proportion to their plausibility.

    Draws without replacement by the Gumbel trick: the order of log density plus independent Gumbel noise. The
    plausibility is exp of the sum of the sources' normal scores, so that a source that gives only an order has a scale.
    Afterwards, or where no source knows anything, a Sobol sequence.

    Args:
        space: search space.
        seed: fixes the draws.
        sources: what is known.
    """

    def __init__(self, space: SearchSpace, seed: int, sources: Sequence[Source]) -> None:
        super().__init__(space, seed)
        points = space.candidates(DESIGN_POINTS, seed)
        scores = Knowledge(sources, points).columns(points)  # (m, k)
        if scores.shape[1] == 0:
            self._ordered = points.take(np.zeros(0, dtype=np.int64))
            return
        log_density = SHARPNESS * scores.mean(axis=1)
        noise = np.random.default_rng(seed).gumbel(size=len(points))
        # The first one is the most plausible of all; among equals the noise decides.
        first = int(np.lexsort((-noise, -log_density))[0])
        order = np.argsort(-(log_density + noise), kind="stable")
        self._ordered = points.take(np.concatenate([[first], order[order != first]]))

    def stream(self, n: int) -> Candidates:
        head = self._ordered.take(np.arange(min(n, len(self._ordered))))
        rest = n - len(head)
        if rest == 0:
            return head
        return self.space.at(np.concatenate([head.units, self.space.sobol(rest, self.seed).units]))
