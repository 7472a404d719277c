"""Multi-objective acquisition over a finite matrix of candidates: expected hypervolume improvement.

Notation::

    m       metrics of the front; smaller is better in every column here, larger in BoTorch's
    j       metrics with bounds that are no metric of the front
    r       reference point (m,): what is worse in a metric adds nothing
    X       rows of configurations (n, d); the process of an output sees the first columns of them
    P       pending configurations and those just chosen

The score of a candidate is the log of the expected improvement of the hypervolume that the front dominates up to r,
with the noise of the observations integrated over: qLogNEHVI (Daulton et al. 2021, "Parallel Bayesian optimization of
multiple noisy objectives with expected hypervolume improvement"; Ament et al. 2023 for the logarithm), as BoTorch has
it, with a fixed Sobol sampler. Bounds are BoTorch's constraints on the sampled outputs; the probability of success is
multiplied in, for a failed trial improves nothing.

An evaluation costs a thousand times what a posterior mean does. So candidates are first scored by a cheap stand-in, the
improvement of the hypervolume by their lower confidence bounds, and qLogNEHVI sees the best of them
(:data:`SHORTLIST`, fewer where there are many cells). Tens of thousands of candidates take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
from botorch.models.gpytorch import GPyTorchModel
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood
from gpytorch.models import ExactGP
from linear_operator import to_linear_operator
from numpy.typing import NDArray
from torch import Tensor

from rankwise.deadline import Deadline
from rankwise.surrogate.gaussian_process import FittedSurrogate

SAMPLES = 64
"""Quasi-random draws of the outputs, a power of two as the Sobol sequence wants it."""
SHORTLIST = 1024
"""Candidates that are scored with qLogNEHVI, at most."""
LEAST_SHORTLIST = 128
BASELINE = 48
"""Observed configurations that may be on the front, at most: every draw has a front of its own over them. For three
metrics and more :data:`SMALL_BASELINE`, since the cells of a front grow with the power of their number."""
SMALL_BASELINE = 20
PENDING = 24
"""Pending configurations that are counted in, at most."""
OPTIMISM = 2.0
"""Deviations below the mean of the stand-in's lower confidence bounds."""
_NUGGET = 1e-6
"""Variance added to every row: two configurations are never so equal that their joint covariance has no factor."""
_ELEMENTS = 1 << 22
"""Numbers of one chunk of scores (32 MiB)."""
_WORK = 1 << 26
"""Draws × cells × metrics × candidates of one pass, at most: some seconds."""


@dataclass(frozen=True)
class Output:
    """One modelled metric, on its standardized scale, smaller is better in a front's.

    Attributes:
        surrogate: its process, conditioned on the trials that report it.
        rows: these trials' rows.  # (k, d)
        variances: known noise variances of their outcomes, beside the process's own; None for 0.  # (k,)
        lower, upper: bounds on the same scale; infinite where there is none.
    """

    surrogate: FittedSurrogate
    rows: NDArray[np.float64]
    variances: NDArray[np.float64] | None = None
    lower: float = -np.inf
    upper: float = np.inf

    def posterior(self, X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Mean (m,) and variance (m,) at rows X (m, d)."""
        return self.surrogate.posterior(X[:, : self.surrogate.Z.shape[1]])


class Twin(ExactGP, GPyTorchModel):  # type: ignore[misc]  # gpytorch and botorch ship no types
    """A fitted output as a model of BoTorch's; the hyperparameters are the fitted ones and stay."""

    _num_outputs = 1

    def __init__(self, output: Output) -> None:
        process = output.surrogate.model
        noise = process.noise.detach().expand(len(output.rows)).clone()  # (k,)
        if output.variances is not None:
            noise = noise + torch.as_tensor(output.variances, dtype=torch.float64)
        rows = torch.tensor(np.asarray(output.rows, dtype=np.float64))
        super().__init__(rows, output.surrogate.y, FixedNoiseGaussianLikelihood(noise))
        self.process = process
        self.columns = output.surrogate.Z.shape[1]
        self.eval()

    def forward(self, X: Tensor) -> MultivariateNormal:  # noqa: N803
        """Prior of the latent function at rows X (…, m, d)."""
        Z = X[..., : self.columns]  # noqa: N806
        nugget = _NUGGET * torch.eye(Z.shape[-2], dtype=Z.dtype)
        return MultivariateNormal(self.process.mean(Z), to_linear_operator(self.process.covariance(Z, Z) + nugget))


class FrontSearch:
    """Chooses configurations that are expected to enlarge a front.

    Args:
        front: outputs of the m metrics, m ≥ 2.
        bounded: outputs of further metrics that have bounds.
        reference: r, on the outputs' scales.  # (m,)
        observed: rows of different configurations that were measured.  # (n, d)
        pending: rows of pending ones.  # (p, d)
        seed: of the quasi-random draws.
        deadline: after it, no further chunk of candidates is scored.
    """

    def __init__(
        self,
        front: Sequence[Output],
        bounded: Sequence[Output],
        reference: NDArray[np.float64],
        observed: NDArray[np.float64],
        pending: NDArray[np.float64],
        seed: int,
        deadline: Deadline,
    ) -> None:
        self._front, self._bounded = tuple(front), tuple(bounded)
        self._reference, self._seed, self._deadline = reference, seed, deadline
        self._observed = self._may_be_on_front(observed)
        self._pending = pending[:PENDING]
        with torch.no_grad():
            self._model = ModelListGP(*(Twin(output) for output in (*self._front, *self._bounded))).eval()

    def _may_be_on_front(self, observed: NDArray[np.float64]) -> NDArray[np.float64]:
        """The observed rows with the best lower confidence bounds, in their order.

        BoTorch's own pruning draws from torch's global generator: a suggestion has to be a pure function."""
        limit = BASELINE if len(self._front) == 2 else SMALL_BASELINE
        if len(observed) <= limit:
            return observed
        hopes = self._optimistic(observed)  # (n, m)
        best = np.argsort(-stand_in(hopes, hopes[:0], self._reference), kind="stable")[:limit]
        return observed[np.sort(best)]

    def _optimistic(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Lower confidence bounds (k, m) of rows X (k, d)."""
        columns = []
        for output in self._front:
            mean, variance = output.posterior(X)
            columns.append(mean - OPTIMISM * np.sqrt(variance))
        return np.stack(columns, axis=1)

    def shortlist(self, candidates: NDArray[np.float64], log_weight: NDArray[np.float64]) -> NDArray[np.intp]:
        """Numbers of the candidates (k, d) by the stand-in, best first; ``log_weight`` (k,) as for :meth:`choose`."""
        means = np.stack([output.posterior(self._observed)[0] for output in self._front], axis=1)  # (n, m)
        scores = stand_in(self._optimistic(candidates), means, self._reference)
        return np.argsort(-(scores + log_weight), kind="stable")

    def choose(
        self,
        candidates: NDArray[np.float64],
        count: int,
        log_weight: NDArray[np.float64],
        log_kept: NDArray[np.float64],
    ) -> list[int]:
        """Choose candidates one after the other, each knowing the pending ones and those chosen before.

        Args:
            candidates: rows.  # (k, d)
            count: how many to choose, at most k.
            log_weight: log probability of success of each.  # (k,)
            log_kept: log probability that each keeps the bounds; for the shortlist alone.  # (k,)

        Returns:
            Indices of ``count`` different candidates; equal scores go to the earlier one of the shortlist.
        """
        if count == 0:
            return []
        ranked = self.shortlist(candidates, log_weight + log_kept)
        chosen: list[int] = []
        for i in range(count):
            if self._deadline.expired:
                # What is left is answered by the stand-in.
                return chosen + [int(k) for k in ranked if int(k) not in set(chosen)][: count - i]
            acquisition = self._acquisition(np.concatenate([self._pending, candidates[chosen]]))
            cells = int(acquisition.get_buffer("cell_lower_bounds").shape[-2])
            size = max(LEAST_SHORTLIST, min(SHORTLIST, _WORK // (SAMPLES * cells * len(self._front))))
            short = np.array([k for k in ranked[: size + len(chosen)] if int(k) not in set(chosen)], dtype=np.intp)
            scores = self._scores(acquisition, candidates[short], cells) + log_weight[short]
            chosen.append(int(short[int(np.argmax(np.nan_to_num(scores, nan=-np.inf)))]))
        return chosen

    def _acquisition(self, pending: NDArray[np.float64]) -> logei.qLogNoisyExpectedHypervolumeImprovement:
        m = len(self._front)
        # BoTorch would compile C++ here, where it finds a compiler: seconds of a request, and other roundings than on a
        # machine without.
        logei._load_attempted = True
        with torch.no_grad():
            return logei.qLogNoisyExpectedHypervolumeImprovement(
                self._model,
                torch.tensor(-self._reference),
                torch.tensor(self._observed),
                sampler=SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=self._seed),
                objective=WeightedMCMultiOutputObjective(
                    weights=-torch.ones(m, dtype=torch.float64), outcomes=list(range(m))
                ),
                constraints=self._constraints() or None,
                X_pending=torch.tensor(pending) if len(pending) else None,
                prune_baseline=False,
            )

    def _constraints(self) -> list[Callable[[Tensor], Tensor]]:
        """Functions of samples (…, m + j) that are at most 0 where a bound is kept."""

        def beyond(place: int, end: float, sign: float) -> Callable[[Tensor], Tensor]:
            return lambda samples: sign * (samples[..., place] - end)

        found: list[Callable[[Tensor], Tensor]] = []
        for place, output in enumerate((*self._front, *self._bounded)):
            found += [beyond(place, output.upper, 1.0)] if np.isfinite(output.upper) else []
            found += [beyond(place, output.lower, -1.0)] if np.isfinite(output.lower) else []
        return found

    def _scores(
        self,
        acquisition: logei.qLogNoisyExpectedHypervolumeImprovement,
        X: NDArray[np.float64],  # noqa: N803
        cells: int,
    ) -> NDArray[np.float64]:
        """Scores (k,) of rows X (k, d); −∞ for those that the deadline leaves out."""
        rows = max(len(output.rows) for output in (*self._front, *self._bounded)) + len(acquisition.X_baseline) + 1
        size = max(1, _ELEMENTS // max(rows**2, SAMPLES * cells * len(self._front)))
        scores = np.full(len(X), -np.inf)
        with torch.no_grad():
            for i in range(0, len(X), size):
                scores[i : i + size] = acquisition(torch.tensor(X[i : i + size]).unsqueeze(1)).numpy()
                if self._deadline.expired:
                    break
        return scores


def stand_in(
    points: NDArray[np.float64], front: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of the hypervolume that each point alone adds to a front, smaller is better.

    Where a point adds nothing, its distance from adding something says how little: such scores lie below all others
    and are ordered by how far a point is beyond the reference, or the front.

    Args:
        points: (k, m).
        front: points that dominate already; n ≥ 0.  # (n, m)
        reference: (m,).

    Returns:
        (k,), finite.
    """
    partitioning = FastNondominatedPartitioning(torch.tensor(-reference), Y=torch.tensor(-front))
    low, high = (bounds.numpy() for bounds in partitioning.get_hypercell_bounds())  # (c, m) both
    added = np.zeros(len(points))
    behind = np.full(len(points), np.inf)
    for i in range(len(low)):
        reach = np.minimum(-points, high[i]) - low[i]  # (k, m)
        added += np.clip(reach, 0.0, None).prod(1)
        behind = np.minimum(behind, np.clip(-reach, 0.0, None).max(1))
    with np.errstate(divide="ignore"):
        scores: NDArray[np.float64] = np.where(added > 0, np.log(added), _NOTHING - behind)
    return scores


_NOTHING = -1e3
"""Score of a point that adds nothing but lies on the edge: the log of less than any volume."""
