"""The ordinary Gaussian process on the numbers of a configuration: baseline, fallback and partner of the deep kernel.

Matérn-5/2 with one lengthscale per dimension (ARD) and BoTorch's dimension-scaled priors: a dimension without effect
gets a long lengthscale and drops out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.space import ParameterType, SearchSpace
from rankwise.surrogate.fit import minimize, representative
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.noise import noise_likelihood

FIT_STEPS = 50
"""L-BFGS-B iterations: more change a suggestion little, since the posterior is flat near its top."""
FURTHER_LENGTHSCALES = (0.3, 1.0)
"""Starts of further attempts, after the mode of the prior, when an attempt fails numerically."""


def numeric_features(
    space: SearchSpace, units: NDArray[np.float64], parameters: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Unit-cube positions as inputs of a Gaussian process.

    A number keeps its position: the search space has already put it on the scale of its distribution, and distances
    mean something. Categories have no order, so that each becomes a column of its own with 1/√2 for "is it": any two
    categories then are at distance 1.

    Args:
        space: search space.
        units: (m, D).
        parameters: which to take, by number; None for all.

    Returns:
        (m, q), q ≥ D.
    """
    columns: list[NDArray[np.float64]] = [np.zeros((len(units), 0))]
    for j in range(space.dimension) if parameters is None else parameters:
        parameter = space.parameters[j]
        table = parameter.table
        if parameter.type is ParameterType.CATEGORICAL and table is not None and len(table.values) > 2:
            hot = table.indices(units[:, j])[:, None] == np.arange(len(table.values))  # (m, k)
            columns.append(hot / math.sqrt(2))
        else:
            columns.append(units[:, j : j + 1])
    return np.concatenate(columns, axis=1)


def identity(X: NDArray[np.floating]) -> Tensor:  # noqa: N803
    """The rows (m, q) themselves as float64 features."""
    return torch.tensor(np.asarray(X, dtype=np.float64))


def maximize_posterior(
    model: GaussianProcess,
    Z: Tensor,  # noqa: N803
    y: Tensor,
    steps: int,
    deadline: Deadline,
    variances: Tensor | None = None,
) -> None:
    """Fit a process's hyperparameters to their maximum a posteriori, in place.

    Args:
        model: the process.
        Z: features (n, q).
        y: standardized outcomes (n,).
        steps: L-BFGS-B iterations.
        deadline: the fit stops when it comes.
        variances: known noise variances of the outcomes, beside the fitted one; None for nothing.  # (n,)

    Raises:
        FitError: no attempt gave a finite likelihood.
    """

    def shorter(lengthscale: float) -> None:
        kernel = model.covar_module
        kernel.lengthscale = torch.full_like(kernel.lengthscale, lengthscale)

    starts = [lambda: None, *(lambda value=value: shorter(value) for value in FURTHER_LENGTHSCALES)]
    minimize(model, lambda: model.loss(Z, y, variances), starts, steps, deadline)


def fit_numeric(
    X: NDArray[np.float64],  # noqa: N803
    y: NDArray[np.float64],
    steps: int = FIT_STEPS,
    deadline: Deadline | None = None,
    variances: NDArray[np.float64] | None = None,
) -> FittedSurrogate:
    """Fit the ordinary Gaussian process.

    Args:
        X: rows (n, q) of :func:`numeric_features`, n ≥ 0. Repeated rows are repeated observations.
        y: outcomes (n,), standardized, smaller is better. With fewer than two observations the hyperparameters stay at
            the modes of their priors.
        steps: L-BFGS-B iterations.
        deadline: the fit stops when it comes.
        variances: known noise variances of the outcomes, beside the fitted one; None for nothing.  # (n,)

    Raises:
        FitError: the fit failed numerically in every attempt.
    """
    q = X.shape[1]
    model = GaussianProcess(matern_kernel(q), noise_likelihood(X, y, variances))
    if len(y) >= 2:
        rows = representative(y)
        known = None if variances is None else torch.tensor(variances[rows])
        maximize_posterior(model, identity(X[rows]), torch.tensor(y[rows]), steps, deadline or Deadline.never(), known)
    return FittedSurrogate(model, identity, X, y, variances)
