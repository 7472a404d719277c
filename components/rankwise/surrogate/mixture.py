"""How far each model is trusted: weights of an average of models, earned on the observations.

A deep kernel over language vectors and an ordinary process on the numbers disagree most when there are few
observations, and neither is always the better one. Their predictive distributions are averaged with weights
proportional to exp(Σ log p(yᵢ | others)), the leave-one-out predictive densities of all observations: pseudo Bayesian
model averaging (Geisser & Eddy 1979; Yao et al. 2018, section 2). A model that is confident and wrong loses its weight
within a few observations; models that predict equally well share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

NEGLIGIBLE = 0.01
"""A model of less weight is left out: it would cost time and change nothing."""
FIRST_EVIDENCE = 4
"""Fewer observations say nothing of a model that was fitted to them: the weights are equal."""


class Judged(Protocol):
    """A fitted model that can be asked how well it predicts its own observations."""

    def leave_one_out(self) -> NDArray[np.float64]:
        """Log predictive density (n,) of each observation given the others."""
        ...


def earned_weights(surrogates: Sequence[Judged], observations: int) -> NDArray[np.float64]:
    """Weights of models (k,) that sum to 1; those that do not count are exactly 0.

    Args:
        surrogates: fitted to the same outcomes.
        observations: how many outcomes.
    """
    if observations < FIRST_EVIDENCE:
        return np.full(len(surrogates), 1.0 / len(surrogates))
    evidence = np.array([s.leave_one_out().sum() for s in surrogates])  # (k,)
    evidence = np.where(np.isnan(evidence) | np.isposinf(evidence), -np.inf, evidence)
    if not np.isfinite(evidence).any():
        return np.full(len(surrogates), 1.0 / len(surrogates))
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    weights[weights < NEGLIGIBLE] = 0.0
    normalized: NDArray[np.float64] = weights / weights.sum()
    return normalized
