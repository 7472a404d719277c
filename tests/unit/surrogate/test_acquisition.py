"""Acquisition against BoTorch's, against Monte Carlo and against refitting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from botorch.acquisition import ExpectedImprovement, LogExpectedImprovement, UpperConfidenceBound
from botorch.exceptions.warnings import NumericsWarning
from botorch.models import SingleTaskGP

from rankwise.surrogate import acquisition
from rankwise.surrogate.acquisition import AcquisitionKind, Member, mixture_mean, select
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.numeric import identity

X = np.random.default_rng(0).random((12, 2))
Y = np.sin(5 * X[:, 0]) + X[:, 1]
CANDIDATES = np.random.default_rng(1).random((300, 2))
NONE = np.zeros((0, 2))


def model(length: float = 0.4) -> GaussianProcess:
    process = GaussianProcess(matern_kernel(2))
    process.covar_module.lengthscale = length
    process.likelihood.noise = 0.01
    return process


def member(
    weight: float = 1.0, length: float = 0.4, pending: np.ndarray = NONE, candidates: np.ndarray = CANDIDATES
) -> Member:
    return Member(weight, FittedSurrogate(model(length), identity, X, Y), candidates, X, pending)


def scores(members: list[Member], kind: AcquisitionKind, beta: float = 4.0) -> np.ndarray:
    scorer = acquisition._Scorer(kind, beta, members)
    rows = [one.surrogate.rows(one.candidates) for one in members]
    return scorer.score(rows, np.zeros(len(members[0].candidates)))


def test_scores_are_botorchs() -> None:
    process = model()
    twin = SingleTaskGP(
        torch.tensor(X),
        torch.tensor(Y).unsqueeze(-1),
        likelihood=process.likelihood,
        covar_module=process.covar_module,
        mean_module=process.mean_module,
        outcome_transform=None,
    ).eval()
    batch = torch.tensor(CANDIDATES).unsqueeze(1)  # (m, 1, d)
    best = twin.posterior(torch.tensor(X)).mean.min().item()
    with pytest.warns(NumericsWarning, match="LogExpectedImprovement"):
        plain = ExpectedImprovement(twin, best, maximize=False)
    with torch.no_grad():
        log_ei = LogExpectedImprovement(twin, best, maximize=False)(batch).numpy()
        ei = plain(batch).numpy()
        ucb = UpperConfidenceBound(twin, beta=2.5, maximize=False)(batch).numpy()
    np.testing.assert_allclose(scores([member()], AcquisitionKind.LOGEI), log_ei, atol=1e-6)
    np.testing.assert_allclose(scores([member()], AcquisitionKind.EI), ei, atol=1e-8)
    np.testing.assert_allclose(scores([member()], AcquisitionKind.UCB, 2.5), ucb, atol=1e-6)


def test_log_ei_tells_hopeless_candidates_apart_where_ei_is_zero() -> None:
    near = np.concatenate([X[[int(np.argmax(Y))]], X[[int(np.argsort(Y)[-2])]]])
    one = member(candidates=near, length=2.0)
    one.surrogate.model.likelihood.noise = 1e-4  # type: ignore[attr-defined]
    sure = Member(1.0, FittedSurrogate(one.surrogate.model, identity, X, Y), near, X, NONE)  # type: ignore[attr-defined]
    ei, log_ei = scores([sure], AcquisitionKind.EI), scores([sure], AcquisitionKind.LOGEI)
    assert (ei == 0).all()
    assert np.isfinite(log_ei).all()
    assert log_ei[0] != log_ei[1]


def test_the_improvement_of_a_mixture_is_the_weighted_sum() -> None:
    weights, lengths = (0.3, 0.7), (0.2, 0.8)
    members = [member(w, length) for w, length in zip(weights, lengths, strict=True)]
    best = mixture_mean(members, [X, X]).min()
    expected = np.zeros(len(CANDIDATES))
    for w, one in zip(weights, members, strict=True):
        mean, variance = one.surrogate.posterior(CANDIDATES)
        draws = np.random.default_rng(0).standard_normal(4000)
        expected += w * np.maximum(best - (mean[:, None] + np.sqrt(variance)[:, None] * draws), 0).mean(1)
    actual = scores(members, AcquisitionKind.EI)
    # Standard error of 4,000 draws of an improvement with sd < 1: 1/sqrt(4000) = 0.016; three of them.
    np.testing.assert_allclose(actual, expected, atol=0.05)
    np.testing.assert_allclose(np.exp(scores(members, AcquisitionKind.LOGEI)), actual, atol=1e-9)


@pytest.mark.parametrize("kind", AcquisitionKind)
def test_the_best_score_is_chosen(kind: AcquisitionKind) -> None:
    assert select([member()], 1, kind=kind) == [int(np.argmax(scores([member()], kind)))]


@pytest.mark.parametrize("kind", AcquisitionKind)
def test_a_batch_is_distinct_spread_and_begins_with_the_best(kind: AcquisitionKind) -> None:
    chosen = select([member()], 6, kind=kind, seed=1)
    assert len(set(chosen)) == 6
    assert chosen[0] == select([member()], 1, kind=kind)[0]
    best_six = np.argsort(-scores([member()], kind))[:6]

    def nearest(indices: np.ndarray | list[int]) -> float:
        return min(np.linalg.norm(CANDIDATES[a] - CANDIDATES[b]) for a, b in itertools.combinations(indices, 2))

    assert nearest(chosen) > nearest(best_six)


def test_pending_configurations_count_like_members_of_the_batch() -> None:
    first, second = select([member()], 2, seed=0)
    # The same draw is used for the first fantasy, so the answers are equal.
    assert select([member(pending=CANDIDATES[[first]])], 1, seed=0) == [second]


def test_fantasies_integrate_over_the_pending_values() -> None:
    """E[improvement beyond the pending one], against plain Monte Carlo over the joint posterior."""
    candidates = CANDIDATES[:40]
    one = member(candidates=np.concatenate([candidates, CANDIDATES[50:51]]))
    rows = one.surrogate.rows(one.candidates)
    best = mixture_mean([one], [X]).min()
    scorer = acquisition._Scorer(AcquisitionKind.EI, 4.0, [one])
    samples = 512
    (state,) = scorer.states([rows], samples)
    normal = torch.distributions.Normal(0.0, 1.0)
    state.condition(40, normal.icdf((torch.arange(samples, dtype=torch.float64) + 0.5) / samples))
    actual = scorer.score_states([state], np.zeros(40))
    covariance = np.stack([rows.covariance(i).numpy() for i in range(41)])
    covariance = (covariance + covariance.T) / 2 + 1e-10 * np.eye(41)
    draws = np.random.default_rng(0).multivariate_normal(rows.mean.numpy(), covariance, size=40_000)
    threshold = np.minimum(best, draws[:, 40:])
    gains = np.maximum(threshold - draws[:, :40], 0)
    # Five standard errors of the Monte Carlo side, and 1e-4 for the 512-point rule.
    tolerance = 5 * gains.std(0) / np.sqrt(len(gains)) + 1e-4
    assert (np.abs(actual - gains.mean(0)) < tolerance).all()


def test_ucb_counts_pending_ones_as_if_they_had_their_mean() -> None:
    pending = CANDIDATES[:3]
    one = member()
    chosen = select([member(pending=pending)], 1, kind=AcquisitionKind.UCB)
    # GP-BUCB by definition: condition on the means (the latent value, so with hardly any noise) and score again.
    rows = one.surrogate.rows(np.concatenate([CANDIDATES, pending]))
    variance = rows.variance.numpy().copy()
    cross = np.stack([rows.covariance(300 + i).numpy() for i in range(3)])
    inner = cross[:, 300:]
    variance[:300] -= np.einsum("im,im->m", cross[:, :300], np.linalg.solve(inner, cross[:, :300]))
    expected = -rows.mean.numpy()[:300] + 2.0 * np.sqrt(np.maximum(variance[:300], 1e-10))
    assert chosen == [int(np.argmax(expected))]


@pytest.mark.parametrize("kind", AcquisitionKind)
def test_a_likely_failure_is_avoided(kind: AcquisitionKind) -> None:
    favourite = select([member()], 1, kind=kind)[0]
    log_success = np.zeros(len(CANDIDATES))
    log_success[favourite] = np.log(0.01)
    assert select([member()], 1, kind=kind, log_success=log_success) != [favourite]
    # The same probability everywhere changes nothing for improvements.
    if kind is not AcquisitionKind.UCB:
        assert select([member()], 1, kind=kind, log_success=np.full(len(CANDIDATES), -3.0)) == [favourite]


def test_the_shortlist_gives_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = select([member()], 4, seed=2)
    monkeypatch.setattr(acquisition, "SHORTLIST", 60)
    assert select([member()], 4, seed=2) == whole


def test_counts() -> None:
    assert select([member()], 0) == []
    assert sorted(select([member(candidates=CANDIDATES[:5])], 5)) == list(range(5))
    with pytest.raises(ValueError, match="count must be between 0 and 5, the number of candidates, got 6"):
        select([member(candidates=CANDIDATES[:5])], 6)
    with pytest.raises(ValueError, match="count must be between 0 and 0"):
        select([], 1)


def test_pending_configurations_that_equal_each_other_or_a_candidate() -> None:
    pending = np.concatenate([CANDIDATES[:2], CANDIDATES[:2], X[:1]])
    assert len(set(select([member(pending=pending)], 3))) == 3


def test_more_pending_than_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acquisition, "MAX_DRAWS_DIMENSION", 2)
    assert len(set(select([member(pending=CANDIDATES[:5])], 3))) == 3


def test_without_observations_a_batch_spreads() -> None:
    blank = Member(1.0, FittedSurrogate(model(), identity, NONE, np.zeros(0)), CANDIDATES, NONE, NONE)
    chosen = select([blank], 4)
    distances = [np.linalg.norm(CANDIDATES[a] - CANDIDATES[b]) for a, b in itertools.combinations(chosen, 2)]
    assert min(distances) > 0.3
