"""A Gaussian process that begins with what is known: knowledge as its prior mean, with trust that is earned.

Notation::

    u       (q,)    the configuration's numbers, as :mod:`rankwise.surrogate.numeric` has them
    ρ       (k,)    scores of k sources of knowledge (rules, the user's belief, earlier searches, …); larger is better
    b       (k,)    how far each is trusted, b ≥ 0
    m(x)            c − Σ bₖ ρₖ(x), the prior mean of the standardized, smaller-is-better outcome

Every source only has to rank configurations: its scores come as the normal quantiles of their ranks over the space
(``rankwise.strategies.knowledge.NormalScores``), so that with b = 1 a source would explain the outcomes as well as
their own ranks do. b is fitted with the kernel's hyperparameters under a normal prior on b ≥ 0, centred on
:data:`TRUST`. Before any trial the search thus follows its sources; a source that contradicts the trials loses its
weight within a few of them, since the marginal likelihood pays for every residual it causes; and where it is right in
the large, the process models only what it leaves. Adding to the acquisition instead (πBO, Hvarfner et al. 2022) forgets
by a fixed schedule, whether the belief was right or wrong.
"""

from __future__ import annotations

import numpy as np
import torch
from gpytorch.constraints import Interval
from gpytorch.priors import NormalPrior
from numpy.typing import NDArray
from torch import Tensor, nn

from rankwise.deadline import Deadline
from rankwise.surrogate.fit import representative
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.numeric import FIT_STEPS, identity, maximize_posterior

TRUST = 0.5
"""Weight of a source before anything was measured."""
TRUST_SPREAD = 0.3
"""Standard deviation of that weight's prior."""
MOST_TRUST = 2.0


class InformedProcess(GaussianProcess):
    """A process over rows [u | ρ]: the kernel sees u, the mean sees ρ.

    Args:
        dimensions: q.
        sources: k.
    """

    def __init__(self, dimensions: int, sources: int) -> None:
        super().__init__(matern_kernel(dimensions))
        self.dimensions = dimensions
        trust = torch.full((sources,), TRUST, dtype=torch.float64)
        self.register_parameter("trust", nn.Parameter(trust))
        self.register_constraint("trust", Interval(0.0, MOST_TRUST, transform=None))
        self.register_prior("trust_prior", NormalPrior(TRUST, TRUST_SPREAD).double(), "trust")

    def mean(self, Z: Tensor) -> Tensor:  # noqa: N803
        mean: Tensor = self.constant - Z[:, self.dimensions :] @ self.trust
        return mean

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:  # noqa: N803
        return super().covariance(A[:, : self.dimensions], B[:, : self.dimensions])

    def variance(self, Z: Tensor) -> Tensor:  # noqa: N803
        return super().variance(Z[:, : self.dimensions])


def fit_informed(
    X: NDArray[np.float64],  # noqa: N803
    y: NDArray[np.float64],
    sources: int,
    steps: int = FIT_STEPS,
    deadline: Deadline | None = None,
    variances: NDArray[np.float64] | None = None,
) -> FittedSurrogate:
    """Fit the informed process.

    Args:
        X: rows [u | ρ] (n, q + k), n ≥ 0.
        y: outcomes (n,), standardized, smaller is better.
        sources: k ≥ 0.
        steps: L-BFGS-B iterations.
        deadline: the fit stops when it comes.
        variances: known noise variances of the outcomes, beside the fitted one; None for nothing.  # (n,)

    Raises:
        FitError: the fit failed numerically in every attempt.
    """
    model = InformedProcess(X.shape[1] - sources, sources)
    if len(y) >= 2:
        rows = representative(y)
        known = None if variances is None else torch.tensor(variances[rows])
        maximize_posterior(model, identity(X[rows]), torch.tensor(y[rows]), steps, deadline or Deadline.never(), known)
    return FittedSurrogate(model, identity, X, y, variances)


def trust_in_sources(surrogate: FittedSurrogate) -> list[float]:
    """b (k,) of a surrogate of :func:`fit_informed`."""
    model = surrogate.model
    trust: list[float] = model.trust.detach().tolist() if isinstance(model, InformedProcess) else []
    return trust
