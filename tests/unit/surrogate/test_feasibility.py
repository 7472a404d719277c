"""The probability of keeping bounds, and expected improvement under them, against BoTorch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import LogConstrainedExpectedImprovement
from botorch.models import ModelListGP, SingleTaskGP

from rankwise.surrogate.acquisition import AcquisitionKind, Feasible, Member, _Scorer, select
from rankwise.surrogate.feasibility import Bounds, FeasibilityModel, MetricModel
from rankwise.surrogate.gaussian_process import FittedSurrogate, GaussianProcess, matern_kernel
from rankwise.surrogate.numeric import identity

GENERATOR = np.random.default_rng(0)
X = GENERATOR.random((12, 2))
LOSS = np.sin(5 * X[:, 0]) + X[:, 1]
MEMORY = np.exp(20 + 2 * X[:, 0] + X[:, 1])
QUALITY = 0.4 - X[:, 1]
CANDIDATES = GENERATOR.random((200, 2))
NONE = np.zeros((0, 2))


def objective(pending: np.ndarray = NONE) -> Member:
    process = GaussianProcess(matern_kernel(2))
    process.covar_module.lengthscale = 0.4
    process.likelihood.noise = 0.01
    return Member(1.0, FittedSurrogate(process, identity, X, LOSS), CANDIDATES, X, pending)


def twin(surrogate: FittedSurrogate) -> SingleTaskGP:
    process = surrogate.model
    return SingleTaskGP(
        surrogate.Z,
        surrogate.y.unsqueeze(-1),
        likelihood=process.likelihood,
        covar_module=process.covar_module,
        mean_module=process.mean_module,
        outcome_transform=None,
    ).eval()


def test_the_score_is_botorchs_constrained_expected_improvement() -> None:
    memory = MetricModel(X, MEMORY, Bounds("memory", upper=2e9), steps=20)
    quality = MetricModel(X, QUALITY, Bounds("quality", lower=-0.2, upper=0.3), steps=20)
    # BoTorch keeps the bounds in single precision.
    memory.upper = float(np.float32(memory.upper))
    quality.lower, quality.upper = float(np.float32(quality.lower)), float(np.float32(quality.upper))
    model = FeasibilityModel([memory, quality])
    member = objective()
    keeps = (MEMORY <= 2e9) & (QUALITY >= -0.2) & (QUALITY <= 0.3)
    assert 0 < keeps.sum() < len(keeps)
    scorer = _Scorer(AcquisitionKind.LOGEI, 0.0, [member], keeps)
    best = member.surrogate.posterior(X)[0][keeps].min()
    assert scorer.best == best
    ours = scorer.score([member.surrogate.rows(CANDIDATES)], model.log_probability(CANDIDATES))
    assert isinstance(member.surrogate, FittedSurrogate)
    theirs = LogConstrainedExpectedImprovement(
        ModelListGP(twin(member.surrogate), twin(memory.surrogate), twin(quality.surrogate)),
        best_f=best,
        objective_index=0,
        constraints={1: (None, memory.upper), 2: (quality.lower, quality.upper)},
        maximize=False,
    )
    with torch.no_grad():
        expected = theirs(torch.tensor(CANDIDATES).unsqueeze(1)).numpy()
    # Both compute a posterior variance as a difference of numbers near 1 from a matrix of condition 1/noise = 1e4 at
    # most: they agree to 1e-16 · 1e4 = 1e-12. The logarithm of a probability z deviations away is about −z²/2, in
    # proportion to 1/variance: it agrees relatively as the least variance does, for each of the three factors.
    fitted = [member.surrogate, memory.surrogate, quality.surrogate]
    least = min(one.posterior(CANDIDATES)[1].min() for one in fitted)
    assert least > 1e-7
    np.testing.assert_allclose(ours, expected, rtol=3 * 1e-12 / least, atol=3 * 1e-12 / least)


def test_select_takes_the_best_feasible_candidate() -> None:
    memory = MetricModel(X, MEMORY, Bounds("memory", upper=2e9), steps=20)
    member = objective()
    feasible = Feasible(MEMORY <= 2e9, memory.log_probability(CANDIDATES), np.zeros(0))
    (chosen,) = select([member], 1, feasible=feasible)
    scorer = _Scorer(AcquisitionKind.LOGEI, 0.0, [member], feasible.observed)
    scores = scorer.score([member.surrogate.rows(CANDIDATES)], feasible.candidates)
    assert chosen == int(np.argmax(scores))
    truth = np.exp(20 + 2 * CANDIDATES[:, 0] + CANDIDATES[:, 1])
    batch = select([member], 8, feasible=feasible, seed=1)
    assert len(set(batch)) == 8
    assert (truth[batch] < 2.2e9).all(), "within a tenth of the bound, where 12 trials tell no more"
    assert (truth[select([member], 8, seed=1)] > 2.2e9).any(), "without it, the bound is broken"


def test_without_a_feasible_trial_feasibility_is_sought() -> None:
    memory = MetricModel(X, MEMORY, Bounds("memory", upper=5e8), steps=20)
    log_probability = memory.log_probability(CANDIDATES)
    member = objective()
    (chosen,) = select([member], 1, feasible=Feasible(np.zeros(12, dtype=bool), log_probability, np.zeros(0)))
    # The score is log q + log EI against the worst trial: q must be near the best, and decides but for that.
    assert log_probability[chosen] > np.quantile(log_probability, 0.9)
    scorer = _Scorer(AcquisitionKind.LOGEI, 0.0, [member], np.zeros(12, dtype=bool))
    assert scorer.best == scorer.worst == member.surrogate.posterior(X)[0].max()


@pytest.mark.parametrize("kind", AcquisitionKind)
def test_every_acquisition_shuns_what_breaks_a_bound(kind: AcquisitionKind) -> None:
    member = objective()
    low = CANDIDATES[:, 0] < 0.5
    log_probability = np.where(low, 0.0, math.log(1e-9))
    chosen = select([member], 5, kind=kind, feasible=Feasible(X[:, 0] < 0.5, log_probability, np.zeros(0)))
    assert low[chosen].all()


def test_a_pending_trial_that_breaks_a_bound_does_not_raise_the_bar() -> None:
    best = CANDIDATES[[int(np.argmin(objective().surrogate.posterior(CANDIDATES)[0]))]]
    small = np.less_equal(MEMORY, np.median(MEMORY))

    def scores(log_pending: float) -> np.ndarray:
        member = objective(best)
        feasible = Feasible(small, np.zeros(200), np.array([log_pending]))
        order = select([member], 200, feasible=feasible, seed=0)
        return np.argsort(order)

    # What is probably infeasible changes the posterior but not f*: another order than where it counts.
    assert (scores(math.log(0.9)) != scores(math.log(0.1))).any()


@pytest.mark.parametrize("shift", [0.0, -50.0])
def test_the_scale_is_the_logarithm_where_all_is_positive(shift: float) -> None:
    model = MetricModel(X, QUALITY + 1 + shift, Bounds("q", lower=0.9 + shift), steps=5)
    mean, _ = model.surrogate.posterior(X)
    order = np.argsort(QUALITY)
    assert np.corrcoef(np.argsort(order), mean)[0, 1] > 0.9
    logarithmic = math.log(0.9) if shift == 0 else None
    if logarithmic is not None:
        c = np.log(QUALITY + 1)
        scale = math.sqrt(c.var() + 0.25 / 12)
        assert model.lower == pytest.approx((logarithmic - c.mean()) / scale)
    assert model.upper == math.inf


def test_few_values_say_little_of_a_bound_far_away() -> None:
    one = MetricModel(X[:1], np.array([1e9]), Bounds("m", upper=2e9)).log_probability(np.array([[5.0, 5.0]]))
    many = MetricModel(X, np.linspace(0.98e9, 1.02e9, 12), Bounds("m", upper=2e9)).log_probability(
        np.array([[5.0, 5.0]])
    )
    assert 0.5 < math.exp(one[0]) < 0.99
    assert math.exp(many[0]) > math.exp(one[0])


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0],
        [1.0] * 6,
        [1e308, -1e308, 0.0],
        [5e-324, 1e308],
        [1e9, 1e9 + 1, 1e300],
    ],
)
@pytest.mark.parametrize("bounds", [(-math.inf, 1.0), (1.0, math.inf), (0.0, 1.0), (-5.0, -5.0), (-math.inf, 1e308)])
def test_any_values_and_bounds(values: list[float], bounds: tuple[float, float]) -> None:
    model = MetricModel(X[: len(values)], np.array(values), Bounds("m", *bounds), steps=5)
    found = model.log_probability(CANDIDATES)
    assert not np.isnan(found).any()
    assert (found <= 0.0).all()


def test_without_bounds_everything_is_feasible() -> None:
    assert FeasibilityModel([]).log_probability(CANDIDATES).tolist() == [0.0] * 200


def test_values_far_beyond_do_not_press_the_others_together() -> None:
    values = np.concatenate([MEMORY[:11], [1e30]])
    plain = MetricModel(X[:11], MEMORY[:11], Bounds("m", upper=2e9)).log_probability(X[:11])
    tamed = MetricModel(X, values, Bounds("m", upper=2e9)).log_probability(X[:11])
    np.testing.assert_array_equal(tamed > math.log(0.5), plain > math.log(0.5))
