"""The probability that a configuration fails: diverges, runs out of memory, reports nothing.

A Gaussian process on the labels "failed" (1) and "has a value" (0): least-squares classification (Rasmussen & Williams
2006, section 6.5). Its mean far away from all trials is a fixed prior rate of failures, so that one failure speaks for
its neighbourhood only, and a search in which everything failed moves away from what it tried. One lengthscale per
dimension lets it learn that failures go with, say, the learning rate alone.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.surrogate.fit import representative
from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.numeric import FIT_STEPS, identity, maximize_posterior

PRIOR_RATE = 0.1
"""Probability of failure where nothing is known: about one training in ten diverges in a wide LoRA space."""
LABEL_SCALE = 0.5
"""Labels are divided by it, so that a balanced set of them has variance 1, as the priors expect."""
MAX_PROBABILITY = 0.99
"""A region is never given up for good: what failed may have failed for another reason."""


class FailureModel:
    """Probability of failure over unit-cube rows.

    Args:
        ok: rows of trials with a value.  # (n, D)
        failed: rows of trials that ended without.  # (k, D)
        steps: L-BFGS-B iterations.
        deadline: the fit stops when it comes.
    """

    def __init__(
        self,
        ok: NDArray[np.float64],
        failed: NDArray[np.float64],
        steps: int = FIT_STEPS,
        deadline: Deadline | None = None,
    ) -> None:
        self._surrogate: FittedSurrogate | None = None
        if len(failed) == 0:
            return
        X = np.concatenate([ok, failed])  # (n + k, D)  # noqa: N806
        labels = np.concatenate([np.zeros(len(ok)), np.ones(len(failed))])
        y = (labels - PRIOR_RATE) / LABEL_SCALE  # (n + k,)
        model = _model(X.shape[1])
        chosen = representative(-y)
        try:
            maximize_posterior(model, identity(X[chosen]), torch.tensor(y[chosen]), steps, deadline or Deadline.never())
        except FitError:
            model = _model(X.shape[1])
        self._surrogate = FittedSurrogate(model, identity, X, y)

    def log_success(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log probability (m,) of a value at rows (m, D); zeros when no trial has failed."""
        if self._surrogate is None:
            return np.zeros(len(units))
        mean, _ = self._surrogate.posterior(units)
        failure = np.clip(PRIOR_RATE + LABEL_SCALE * mean, 0.0, MAX_PROBABILITY)
        log_success: NDArray[np.float64] = np.log1p(-failure)
        return log_success


def _model(dimension: int) -> GaussianProcess:
    model = GaussianProcess(matern_kernel(dimension))
    model.mean_module.raw_constant.requires_grad_(False)
    return model
