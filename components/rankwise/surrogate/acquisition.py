"""Acquisition over a finite matrix of candidates: which configurations to try next.

Notation::

    f       latent objective, smaller is better;  μ, σ its posterior mean and standard deviation at a row
    f*      best plug-in value: the least posterior mean at an observed configuration (a noisy minimum would be too low)
    w       weights of the models that are averaged (one model: w = 1)
    p(x)    probability that a trial of x ends with a value
    q(x)    probability that x keeps the bounds of the search; 1 without any
    P       pending configurations and those just chosen

Expected improvement EI(x) = E[max(f* − f(x), 0)] is linear in the predictive distribution. Of a mixture of models it is
therefore exactly Σ w EI, and with failures exactly p(x) Σ w EI (a failed trial improves nothing). LogEI is its
logarithm (Ament et al. 2023), computed so that candidates hundreds of σ away still compare.

**Constraints** multiply with q(x) (Schonlau et al. 1998; Gardner et al. 2014), and f* is the best mean at an observed
configuration that is known to keep the bounds. Where there is none yet, any feasible configuration is a gain: f* is
then the worst observed mean, so that the score is led by log q(x), and among equally feasible candidates by the
objective. BoTorch does the same with its "infeasible cost" in the noisy variants. A fantasy lowers f* only where it is
likelier than not to be feasible.

**Batches and pending trials** are counted in by sequential greedy choice with fantasies (Snoek et al. 2012, section
3.2; Wilson et al. 2018): f at P is integrated over with a few quasi-random draws from its joint posterior. Given a
draw, the posterior at every candidate and its EI against the improved f* are closed forms; only the integral over P is
Monte Carlo. The conditioning is a rank-one update per member of P. This equals sequentially optimized qLogEI, with
less variance than drawing f(x) too. UCB takes GP-BUCB instead (Desautels et al. 2014): P shrinks σ and leaves μ, which
needs no draws.

EI of a candidate can only fall when others are chosen before it (EI as a set function is submodular), and σ can only
shrink: the second and later members of a batch are sought among the best :data:`SHORTLIST` of the first scores.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition.analytic import _ei_helper, _log_ei_helper
from botorch.utils.sampling import draw_sobol_normal_samples
from numpy.typing import NDArray
from torch import Tensor

from rankwise.surrogate.gaussian_process import MIN_VARIANCE, RowPosterior, Surrogate

FANTASIES = 16
"""Quasi-random draws of the objective at pending configurations."""
SHORTLIST = 4096
"""Candidates among which later members of a batch are sought."""
KNOWN_VARIANCE = 1e-8
"""A row with less latent variance is known already: conditioning on it changes nothing but rounding."""
MAX_DRAWS_DIMENSION = 1000
"""Pending configurations beyond this many are conditioned on at their mean: a Sobol sequence that long is slow."""


class AcquisitionKind(enum.Enum):
    """Names as in the option ``acquisition``."""

    LOGEI = "logei"
    EI = "ei"
    UCB = "ucb"


@dataclass(frozen=True)
class Member:
    """One model of the mixture and its view of the same configurations.

    Attributes:
        weight: > 0; the weights of all members sum to 1.
        surrogate: fitted model.
        candidates: rows of all candidates.  # (m, d)
        observed: rows of the measured configurations.  # (n, d)
        pending: rows of the pending ones.  # (p, d)
    """

    weight: float
    surrogate: Surrogate
    candidates: NDArray[np.floating]
    observed: NDArray[np.floating]
    pending: NDArray[np.floating]


@dataclass(frozen=True)
class Feasible:
    """What is known of the bounds of a search.

    Attributes:
        observed: whether the observed configurations are known to keep them.  # (n,)
        candidates: log q of all candidates.  # (m,)
        pending: log q of the pending ones.  # (p,)
    """

    observed: NDArray[np.bool_]
    candidates: NDArray[np.float64]
    pending: NDArray[np.float64]


LIKELY = math.log(0.5)
"""Log probability from which a configuration is taken for a feasible one."""


class _Conditioned:
    """Posterior of one member over rows, conditioned on fantasies at some of them."""

    def __init__(self, weight: float, rows: RowPosterior, best: float, samples: int) -> None:
        self.log_weight = math.log(weight)
        self.rows = rows
        self.mean = rows.mean.unsqueeze(-1).repeat(1, samples)  # (m, s)
        self.variance = rows.variance.clone()  # (m,)
        self.best = torch.full((samples,), best, dtype=torch.float64)  # (s,)
        self._updates: list[tuple[Tensor, float]] = []

    def condition(self, row: int, z: Tensor, feasible: bool = True) -> None:
        """Condition on f[row] = μ + σ z, z (s,): the posterior of every row given these values.

        They may improve on f* only where the row is taken for a feasible one."""
        variance = float(self.variance[row])
        if variance <= KNOWN_VARIANCE:
            return
        column = self.rows.covariance(row)  # (m,)
        for update, size in self._updates:
            column = column - update * (float(update[row]) / size)
        value = self.mean[row] + math.sqrt(variance) * z  # (s,)
        self.mean = self.mean + torch.outer(column / variance, value - self.mean[row])
        self.variance = (self.variance - column.square() / variance).clamp_min(MIN_VARIANCE)
        if feasible:
            self.best = torch.minimum(self.best, value)
        self._updates.append((column, variance))


def _log_ei(states: Sequence[_Conditioned]) -> Tensor:
    """Log of the expected improvement (m,), averaged over models and fantasies."""
    terms = []
    for state in states:
        sigma = state.variance.sqrt().unsqueeze(-1)  # (m, 1)
        log_ei = _log_ei_helper((state.best - state.mean) / sigma) + sigma.log()  # (m, s)
        terms.append(torch.logsumexp(log_ei, -1) - math.log(state.mean.shape[1]) + state.log_weight)
    return torch.logsumexp(torch.stack(terms), 0)


def _ei(states: Sequence[_Conditioned]) -> Tensor:
    """Expected improvement (m,), averaged over models and fantasies; 0 far away from f*."""
    total = torch.zeros(len(states[0].mean), dtype=torch.float64)
    for state in states:
        sigma = state.variance.sqrt().unsqueeze(-1)  # (m, 1)
        ei = (_ei_helper((state.best - state.mean) / sigma) * sigma).clamp_min(0.0)  # (m, s)
        total += ei.mean(-1) * math.exp(state.log_weight)
    return total


def _ucb(states: Sequence[_Conditioned], beta: float) -> Tensor:
    """−μ + √β σ (m,) of the mixture's first two moments."""
    weights = [math.exp(state.log_weight) for state in states]
    means = [state.mean.mean(-1) for state in states]  # each (m,)
    mean = sum((w * m for w, m in zip(weights, means, strict=True)), torch.zeros_like(means[0]))
    second = sum(
        (w * (s.variance + m.square()) for w, s, m in zip(weights, states, means, strict=True)),
        torch.zeros_like(mean),
    )
    return -mean + math.sqrt(beta) * (second - mean.square()).clamp_min(MIN_VARIANCE).sqrt()


def mixture_mean(members: Sequence[Member], rows: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Posterior mean (m,) of the mixture; ``rows`` holds each member's view (m, d) of the same configurations."""
    means = [member.weight * member.surrogate.posterior(view)[0] for member, view in zip(members, rows, strict=True)]
    total: NDArray[np.float64] = np.sum(means, axis=0)
    return total


def select(
    members: Sequence[Member],
    count: int,
    *,
    kind: AcquisitionKind = AcquisitionKind.LOGEI,
    beta: float = 4.0,
    log_success: NDArray[np.float64] | None = None,
    feasible: Feasible | None = None,
    seed: int = 0,
) -> list[int]:
    """Choose candidates one after the other, each knowing the pending ones and those chosen before.

    Args:
        members: models, each with its view of the same m candidates, n observed and p pending configurations.
        count: how many to choose, at most m.
        kind: acquisition function.
        beta: weight of the variance in UCB.
        log_success: log probability of success of each candidate (m,); None for certain success.
        feasible: what is known of the bounds; None where there are none.
        seed: of the quasi-random draws.

    Returns:
        Indices of ``count`` different candidates; equal scores go to the lower index.

    Raises:
        ValueError: ``count`` exceeds the number of candidates, or there is no member.
    """
    total = len(members[0].candidates) if members else 0
    if not 0 <= count <= total:
        raise ValueError(f"count must be between 0 and {total}, the number of candidates, got {count}")
    if count == 0:
        return []
    pending = len(members[0].pending)
    scorer = _Scorer(kind, beta, members, None if feasible is None else feasible.observed)
    success = np.zeros(total) if log_success is None else log_success  # (m,)
    likely = np.ones(total + pending, dtype=bool)  # (m + p,)
    if feasible is not None:
        success = success + feasible.candidates
        likely = np.concatenate([feasible.candidates, feasible.pending]) >= LIKELY
    first = scorer.score([m.surrogate.rows(m.candidates) for m in members], success)  # (m,)
    if count == 1 and pending == 0:
        return [int(np.argmax(first))]
    # A stable sort keeps the lower index first among equals.
    short = np.sort(np.argsort(-first, kind="stable")[: max(SHORTLIST, count)])  # (k,)
    rows = [m.surrogate.rows(np.concatenate([m.candidates[short], m.pending])) for m in members]
    likely = likely[np.concatenate([short, total + np.arange(pending)])]
    chosen = _greedy(scorer, rows, success[short], likely, count, pending, seed)
    return [int(short[i]) for i in chosen]


class _Scorer:
    """Score of rows under one acquisition function; larger is better.

    ``feasible`` (n,) says which observed configurations may be the best one; None: all."""

    def __init__(
        self,
        kind: AcquisitionKind,
        beta: float,
        members: Sequence[Member],
        feasible: NDArray[np.bool_] | None = None,
    ) -> None:
        self.kind = kind
        self.beta = beta
        self.weights = [m.weight for m in members]
        observed = mixture_mean(members, [m.observed for m in members])  # (n,)
        self.worst = float(observed.max()) if len(observed) else 0.0
        eligible = observed if feasible is None else observed[feasible]
        self.best = float(eligible.min()) if len(eligible) else self.worst

    def states(self, rows: Sequence[RowPosterior], samples: int) -> list[_Conditioned]:
        return [_Conditioned(w, r, self.best, samples) for w, r in zip(self.weights, rows, strict=True)]

    def score(self, rows: Sequence[RowPosterior], log_success: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.score_states(self.states(rows, 1), log_success)

    def score_states(self, states: Sequence[_Conditioned], log_success: NDArray[np.float64]) -> NDArray[np.float64]:
        """(k,) for the first k = len(log_success) rows."""
        k = len(log_success)
        if self.kind is AcquisitionKind.LOGEI:
            scores = _log_ei(states)[:k].numpy() + log_success
        elif self.kind is AcquisitionKind.EI:
            scores = _ei(states)[:k].numpy() * np.exp(log_success)
        else:
            # A failed trial is worth as much as the worst measured one.
            success = np.exp(log_success)
            scores = success * _ucb(states, self.beta)[:k].numpy() - (1.0 - success) * self.worst
        return np.nan_to_num(scores, nan=-np.inf, posinf=np.finfo(np.float64).max, neginf=-np.inf)


def _greedy(
    scorer: _Scorer,
    rows: Sequence[RowPosterior],
    log_success: NDArray[np.float64],
    likely: NDArray[np.bool_],
    count: int,
    pending: int,
    seed: int,
) -> list[int]:
    """Greedy batch over rows of k = len(log_success) candidates, followed by the pending configurations.

    ``likely`` (k + p,) says which of them are taken for feasible ones."""
    k = len(log_success)
    samples = 1 if scorer.kind is AcquisitionKind.UCB else FANTASIES
    steps = pending + count - 1
    z = torch.zeros((steps, samples), dtype=torch.float64)  # zeros: UCB leaves the mean where it is
    if samples > 1 and steps:
        dimension = min(steps, MAX_DRAWS_DIMENSION)
        z[:dimension] = draw_sobol_normal_samples(dimension, samples, dtype=torch.float64, seed=seed).T
    states = scorer.states(rows, samples)
    with torch.no_grad():
        for step in range(pending):
            for state in states:
                state.condition(k + step, z[step], bool(likely[k + step]))
        chosen: list[int] = []
        available = np.ones(k, dtype=bool)
        for i in range(count):
            scores = np.where(available, scorer.score_states(states, log_success), -np.inf)
            # Where every score is −∞ (EI underflows), the first candidate still free is taken.
            best = int(np.argmax(scores)) if np.isfinite(scores).any() else int(np.argmax(available))
            chosen.append(best)
            available[best] = False
            if i + 1 < count:
                for state in states:
                    state.condition(best, z[pending + i], bool(likely[best]))
    return chosen
