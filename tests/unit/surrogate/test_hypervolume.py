"""The search for a front: its models, its cheap stand-in and its scores, against BoTorch's."""

# ruff: noqa: N806 - X is a matrix, named as in the modules under test

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
from botorch.models import ModelListGP, SingleTaskGP
from botorch.utils.multi_objective.box_decompositions.non_dominated import FastNondominatedPartitioning

from rankwise.deadline import Deadline
from rankwise.strategies.pareto import hypervolume
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.hypervolume import FrontSearch, Output, Twin, stand_in
from rankwise.surrogate.informed import fit_informed
from rankwise.surrogate.numeric import identity

GENERATOR = np.random.default_rng(3)
X = GENERATOR.random((10, 2))
CANDIDATES = GENERATOR.random((150, 2))
NONE = np.zeros((0, 2))
REFERENCE = np.array([1.5, 1.5])
ONES = np.zeros(150)


def loss(rows: np.ndarray) -> np.ndarray:
    return 3 * ((rows - 0.2) ** 2).sum(1) - 1


def cost(rows: np.ndarray) -> np.ndarray:
    return 3 * ((rows - 0.8) ** 2).sum(1) - 1


def output(y: np.ndarray, rows: np.ndarray = X, noise: float = 1e-4, **bounds: float) -> Output:
    process = GaussianProcess(matern_kernel(2))
    process.covar_module.lengthscale = 0.7
    process.likelihood.noise = noise
    return Output(FittedSurrogate(process, identity, rows, y), rows, None, **bounds)


def search(
    *bounded: Output, pending: np.ndarray = NONE, seed: int = 0, deadline: Deadline | None = None, noise: float = 1e-4
) -> FrontSearch:
    front = (output(loss(X), noise=noise), output(cost(X), noise=noise))
    return FrontSearch(front, bounded, REFERENCE, X, pending, seed, deadline or Deadline.never())


def scores(found: FrontSearch, candidates: np.ndarray = CANDIDATES, pending: np.ndarray = NONE) -> np.ndarray:
    acquisition = found._acquisition(pending)
    return found._scores(acquisition, candidates, int(acquisition.get_buffer("cell_lower_bounds").shape[-2]))


def test_a_twin_has_the_posterior_of_its_process() -> None:
    rows = np.concatenate([X, GENERATOR.standard_normal((10, 1))], axis=1)
    variances = GENERATOR.random(10) * 0.1
    averaged = fit_informed(rows, loss(X), np.ones(2), None, variances)
    surrogate = averaged.surrogates[0]
    twin = Twin(Output(surrogate, rows, variances))
    new = np.concatenate([CANDIDATES, GENERATOR.standard_normal((150, 1))], axis=1)
    mean, variance = surrogate.posterior(new)
    with torch.no_grad():
        theirs = twin.posterior(torch.tensor(new).unsqueeze(1))
    # The nugget δ = 1e-6 is part of every row's variance, and of S: means change by w·δ·α to first order, variances by
    # δ (1 + w·w), with w the weights of the observations in a mean (their absolute sum is below 10 here).
    np.testing.assert_allclose(
        theirs.mean.squeeze().numpy(), mean, atol=10 * 1e-6 * float(surrogate.alpha.detach().abs().max())
    )
    np.testing.assert_allclose(theirs.variance.squeeze().numpy(), variance, atol=1e-6 * (1 + 10**2))


def test_scores_are_the_expected_improvement_of_the_hypervolume() -> None:
    found = search()
    twins = [
        SingleTaskGP(
            one.surrogate.Z,
            -one.surrogate.y.unsqueeze(-1),
            likelihood=one.surrogate.model.likelihood,
            covar_module=one.surrogate.model.covar_module,
            mean_module=one.surrogate.model.mean_module,
            outcome_transform=None,
        ).eval()
        for one in found._front
    ]
    model = ModelListGP(*twins)
    with torch.no_grad():
        best = model.posterior(torch.tensor(X)).mean
    exact = ExpectedHypervolumeImprovement(
        model, (-REFERENCE).tolist(), FastNondominatedPartitioning(torch.tensor(-REFERENCE), Y=best)
    )
    with torch.no_grad():
        expected = exact(torch.tensor(CANDIDATES).unsqueeze(1)).numpy()
    ours = np.exp(scores(found))
    # 64 quasi-random draws of an improvement whose deviation is of its own size: at most 1/√64 = 0.13 of it, and the
    # noise of the observed configurations, 1e-2 in each metric, times the front's extent of 3.
    np.testing.assert_allclose(ours, expected, rtol=0.13, atol=0.03)
    assert np.corrcoef(ours, expected)[0, 1] > 0.99


def test_the_best_score_is_chosen_and_a_batch_is_spread_over_the_front() -> None:
    found = search()
    (first,) = found.choose(CANDIDATES, 1, ONES, ONES)
    assert scores(found)[first] == scores(found).max()
    batch = found.choose(CANDIDATES, 5, ONES, ONES)
    assert batch[0] == first
    assert len(set(batch)) == 5

    def reached(chosen: list[int] | np.ndarray) -> float:
        everything = np.concatenate([X, CANDIDATES[chosen]])
        return hypervolume(np.stack([loss(everything), cost(everything)], axis=1), REFERENCE)

    assert reached(batch) > reached(np.argsort(-scores(found))[:5]), "the second best alone adds little to the best"


def test_pending_configurations_count_like_members_of_the_batch() -> None:
    first, second = search().choose(CANDIDATES, 2, ONES, ONES)
    assert search(pending=CANDIDATES[[first]]).choose(CANDIDATES, 1, ONES, ONES) == [second]


def test_no_generator_and_no_compiler_has_a_say() -> None:
    torch.manual_seed(1)
    first = search().choose(CANDIDATES, 3, ONES, ONES)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert search().choose(CANDIDATES, 3, ONES, ONES) == first
    assert torch.equal(torch.random.get_rng_state(), before)
    assert logei._C is None


def test_bounds_and_failures_keep_the_search_out() -> None:
    # The second column may be 0.5 at most; without that the front goes from (0.2, 0.2) to (0.8, 0.8).
    bound = output(2 * X[:, 1] - 1, upper=0.0)
    free = search().choose(CANDIDATES, 6, ONES, ONES)
    assert (CANDIDATES[free, 1] > 0.5).any()
    kept = search(bound).choose(CANDIDATES, 6, ONES, ONES)
    assert (CANDIDATES[kept, 1] <= 0.52).all()
    above = output(2 * X[:, 1] - 1, lower=0.0)
    assert (CANDIDATES[search(above).choose(CANDIDATES, 6, ONES, ONES), 1] >= 0.48).all()
    fails = np.where(CANDIDATES[:, 0] > 0.5, np.log(0.01), 0.0)
    assert (CANDIDATES[search().choose(CANDIDATES, 3, fails, ONES), 0] <= 0.5).all()


def test_late_it_answers_with_the_stand_in() -> None:
    found = search(deadline=Deadline(0.0))
    chosen = found.choose(CANDIDATES, 4, ONES, ONES)
    assert chosen == found.shortlist(CANDIDATES, ONES)[:4].tolist()


def test_many_observed_configurations_are_reduced_to_those_that_may_be_on_the_front() -> None:
    rows = np.random.default_rng(0).random((90, 2))
    front = (output(loss(rows), rows), output(cost(rows), rows))
    found = FrontSearch(front, (), REFERENCE, rows, NONE, 0, Deadline.never())
    assert len(found._observed) == 48
    P = np.stack([loss(found._observed), cost(found._observed)], axis=1)
    everything = np.stack([loss(rows), cost(rows)], axis=1)
    assert hypervolume(P, REFERENCE) == pytest.approx(hypervolume(everything, REFERENCE), rel=1e-3)
    (chosen,) = found.choose(CANDIDATES, 1, ONES, ONES)
    assert 0 <= chosen < 150


def test_four_metrics() -> None:
    centres = [(0.2, 0.2), (0.8, 0.8), (0.2, 0.8), (0.8, 0.2)]
    front = [output(3 * ((X - centre) ** 2).sum(1) - 1) for centre in centres]
    found = FrontSearch(front, (), np.full(4, 2.0), X, NONE, 0, Deadline.never())
    assert len(set(found.choose(CANDIDATES, 3, ONES, ONES))) == 3


def test_the_stand_in_is_the_added_hypervolume() -> None:
    front = np.stack([loss(X), cost(X)], axis=1)
    P = np.stack([loss(CANDIDATES), cost(CANDIDATES)], axis=1) - 0.2
    found = stand_in(P, front, REFERENCE)
    base = hypervolume(front, REFERENCE)
    added = np.array([hypervolume(np.concatenate([front, [point]]), REFERENCE) - base for point in P])
    gains = added > 1e-12
    assert 0 < gains.sum() < 150
    np.testing.assert_allclose(np.exp(found[gains]), added[gains], rtol=1e-6, atol=1e-12)
    assert found[~gains].max() < found[gains].min()
    # Farther behind is worse.
    far = stand_in(np.array([[2.0, 2.0], [3.0, 3.0]]), front, REFERENCE)
    assert far[0] > far[1]
    np.testing.assert_allclose(np.exp(stand_in(np.array([[0.5, 1.0]]), front[:0], REFERENCE)), [0.5])
