"""From trials to training data, failures, and trust in models."""

# ruff: noqa: N806 - X and V are matrices, named as in the modules under test

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rankwise.deadline import Deadline
from rankwise.space import Goal, Objective, ParameterText, Trial, TrialState, parse_space
from rankwise.surrogate import failure
from rankwise.surrogate.failure import FailureModel
from rankwise.surrogate.gaussian_process import FitError
from rankwise.surrogate.mixture import earned_weights
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import (
    LARGEST_DEVIATION,
    Standardize,
    outcome_variances,
    outcomes,
    plain_outcomes,
    read_trials,
)

SPACE = parse_space((ParameterText("lr", "double", "1e-5", "1e-1", distribution="logUniform"),))
TRIALS = (
    Trial("a", {"lr": "1e-3"}, TrialState.SUCCEEDED, 0.5),
    Trial("b", {"lr": "0.001"}, TrialState.SUCCEEDED, 0.6),
    Trial("c", {"lr": "1e-2"}, TrialState.EARLY_STOPPED, 0.9),
    Trial("d", {"lr": "2e-2"}, TrialState.EARLY_STOPPED),
    Trial("e", {"lr": "1e-1"}, TrialState.FAILED),
    Trial("f", {"lr": "5e-2"}, TrialState.UNAVAILABLE),
    Trial("g", {"lr": "1e-4"}, TrialState.PENDING),
    Trial("h", {"lr": "0.0001"}, TrialState.PENDING),
    Trial("i", {"lr": "7"}, TrialState.SUCCEEDED, -9.0),
    Trial("j", {"rank": "7"}, TrialState.SUCCEEDED, -9.0),
)


def test_every_state_goes_where_it_belongs() -> None:
    read = read_trials(SPACE, Objective("loss", Goal.MINIMIZE), TRIALS)
    assert sorted(read.values) == [0.5, 0.6, 0.9]
    assert sorted(float(point["lr"]) for point in read.measured) == [0.001, 0.001, 0.01]
    assert sorted(float(point["lr"]) for point in read.failed) == [0.02, 0.05, 0.1]
    assert [float(point["lr"]) for point in read.pending] == [0.0001]
    assert read.ignored == 2
    assert read.count == 8
    assert read.tried[SPACE.key({"lr": "1e-3"})] == 2
    assert read.pending_keys == {SPACE.key({"lr": "1e-4"})}


def test_maximized_values_are_negated() -> None:
    read = read_trials(SPACE, Objective("accuracy", Goal.MAXIMIZE), TRIALS)
    assert sorted(read.values) == [-0.9, -0.6, -0.5]


def test_order_does_not_matter() -> None:
    reference = read_trials(SPACE, Objective("loss", Goal.MINIMIZE), TRIALS)
    for seed in range(5):
        shuffled = list(TRIALS)
        random.Random(seed).shuffle(shuffled)
        read = read_trials(SPACE, Objective("loss", Goal.MINIMIZE), shuffled)
        np.testing.assert_array_equal(read.values, reference.values)
        assert [SPACE.key(p) for p in read.measured] == [SPACE.key(p) for p in reference.measured]


def test_standard_errors_stay_with_their_values_whatever_order_and_names() -> None:
    aim = Objective("accuracy", Goal.MAXIMIZE)
    pairs = [(0.5, 0.1), (0.5, None), (0.5, 0.0), (0.7, 0.2), (0.6, 0.3), (0.5, 0.4)]
    trials = [
        Trial(str(i), {"lr": "1e-3" if i < 3 else "1e-2"}, TrialState.SUCCEEDED, value, standard_error=error)
        for i, (value, error) in enumerate(pairs)
    ]
    reference = read_trials(SPACE, aim, trials)
    assert sorted(zip(-reference.values, reference.standard_errors, strict=True)) == sorted(
        (value, error or 0.0) for value, error in pairs
    )
    for seed in range(10):
        shuffled = [replace(trial, name=str(random.Random(seed + i).random())) for i, trial in enumerate(trials)]
        random.Random(seed).shuffle(shuffled)
        read = read_trials(SPACE, aim, shuffled)
        np.testing.assert_array_equal(read.values, reference.values)
        np.testing.assert_array_equal(read.standard_errors, reference.standard_errors)
        assert read.measured == reference.measured


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(values=hnp.arrays(np.float64, st.integers(0, 40), elements=finite))
def test_outcomes_are_finite_standardized_and_in_order(values: np.ndarray) -> None:
    y = outcomes(values)
    assert np.isfinite(y).all()
    assert len(y) == len(values)
    assert abs(y).max(initial=0) <= np.sqrt(len(y)) + 1e-9, "what standardized values can be at most"
    ordered = y[np.argsort(values, kind="stable")]
    assert (np.diff(ordered) >= -1e-12).all()


def test_one_huge_loss_leaves_the_others_apart() -> None:
    values = np.array([2.00, 2.01, 2.02, 2.03, 2.05, 2.08, 1e6])
    y = outcomes(values)
    assert y[-1] == y.max()
    # Without the warping, the good ones would lie within 1e-7 of each other.
    assert y[3] - y[0] > 0.5
    np.testing.assert_allclose((y[1] - y[0]) / (y[3] - y[0]), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(outcomes(np.array([*values[:-1], 50.0])), y, rtol=1e-9)


def test_constant_and_single_values_are_zero() -> None:
    np.testing.assert_array_equal(outcomes(np.full(5, 3.3)), np.zeros(5))
    np.testing.assert_array_equal(outcomes(np.array([7.0])), [0.0])
    np.testing.assert_array_equal(outcomes(np.array([])), [])


def test_equal_good_values_are_told_from_a_bad_one() -> None:
    y = outcomes(np.array([1.0, 1.0, 1.0, 4.0]))
    assert y[3] > y[0] == y[1] == y[2]


# --- variances of the outcomes ----------------------------------------------------------------------------------------

values_with_errors = st.lists(st.tuples(finite, st.floats(0, allow_infinity=False)), max_size=30)


@given(pairs=values_with_errors)
@example([(0.0, 0.0), (0.0, 0.1), (1.4e308, 1.0), (0.25, 1e300)])  # apart by a denormal number after scaling
def test_variances_are_bounded_and_zero_where_nothing_is_known(pairs: list[tuple[float, float]]) -> None:
    values, errors = np.array([v for v, _ in pairs]), np.array([e for _, e in pairs])
    variances = outcome_variances(values, errors)
    assert variances.shape == values.shape
    assert ((variances >= 0) & (variances <= LARGEST_DEVIATION**2)).all()
    assert not variances[errors == 0].any()


@given(error=st.floats(1e-6, 0.015))
def test_errors_within_the_good_half_are_in_the_outcomes_units(error: float) -> None:
    values = np.array([2.00, 2.01, 2.02, 2.03, 2.05, 2.08, 1e6])
    y = outcomes(values)
    variances = outcome_variances(values, np.full(7, error))
    unit = (y[3] - y[0]) / (values[3] - values[0])
    # 2.00 and 2.01 are farther than 0.015 from the median, 2.03. Values of 2 have 16 digits, their differences of 1e-6
    # at least nine.
    np.testing.assert_allclose(variances[:2], (error * unit) ** 2, rtol=1e-6)


def test_errors_in_the_other_half_say_which_ranks_a_value_may_have() -> None:
    values = np.array([2.00, 2.01, 2.02, 2.03, 2.05, 2.08, 1e6])
    y = outcomes(values)
    variances = outcome_variances(values, np.array([0, 0, 0, 0, 0, 0.01, 1e5]))
    # 1e5 below 1e6 is a tenth of the way to the next outcome, nothing lies above: half of that.
    assert variances[6] == pytest.approx((0.1 * (y[6] - y[5]) / 2) ** 2, rel=1e-5)
    # 0.01 below 2.08 is a third of the way to 2.05; 0.01 above it is nothing on the way to 1e6.
    assert variances[5] == pytest.approx(((y[5] - y[4]) / 3 / 2) ** 2, rel=1e-5)


@given(
    values=hnp.arrays(np.int64, st.integers(0, 20), elements=st.integers(-50, 50)),
    error=st.integers(0, 100),
    unit=st.sampled_from([2.0**-8, 2.0, 2.0**40]),
)
def test_the_unit_of_the_values_does_not_matter_and_larger_errors_are_no_less(
    values: np.ndarray, error: int, unit: float
) -> None:
    errors = np.full(len(values), float(error))
    variances = outcome_variances(values.astype(float), errors)
    # A power of 2 changes no digit; an error of 0 to 100 is a deviation below 1e3, with rounding errors of some 1e-12.
    np.testing.assert_allclose(outcome_variances(values * unit, errors * unit), variances, rtol=1e-9, atol=1e-9)
    assert (outcome_variances(values.astype(float), errors + 1) >= variances - 1e-9).all()


def test_equal_values_give_no_unit_to_measure_errors_in() -> None:
    np.testing.assert_array_equal(outcome_variances(np.full(3, 7.0), np.array([0.0, 1.0, 1e9])), np.zeros(3))
    np.testing.assert_array_equal(outcome_variances(np.array([7.0]), np.array([1.0])), [0.0])


def test_standardize() -> None:
    y = np.array([1.0, 2.0, 6.0])
    scaled = Standardize.fit(y)(y)
    assert scaled.mean() == pytest.approx(0)
    assert scaled.std() == pytest.approx(1)
    assert Standardize.fit(np.full(7, 0.1)).scale == 1.0


# --- failures ---------------------------------------------------------------------------------------------------------

GRID = np.random.default_rng(0).random((40, 2))
TOO_HIGH = GRID[:, 0] > 0.7


def test_nothing_failed_nothing_is_feared() -> None:
    np.testing.assert_array_equal(FailureModel(GRID, GRID[:0]).log_success(GRID), np.zeros(40))


def test_failures_that_go_with_one_parameter_are_learned() -> None:
    model = FailureModel(GRID[~TOO_HIGH], GRID[TOO_HIGH])
    probability = 1 - np.exp(model.log_success(np.array([[0.95, 0.1], [0.95, 0.9], [0.2, 0.1], [0.2, 0.9]])))
    assert (probability[:2] > 0.7).all()
    assert (probability[2:] < 0.2).all()
    lengths = model._surrogate.model.covar_module.lengthscale.squeeze()  # type: ignore[union-attr]
    assert lengths[0] < lengths[1]


def test_when_everything_failed_the_far_is_safer_than_the_near() -> None:
    model = FailureModel(GRID[:0], np.array([[0.1, 0.1], [0.15, 0.1]]))
    near, far = model.log_success(np.array([[0.12, 0.1], [0.95, 0.95]]))
    assert near < far


def test_nothing_is_given_up_for_good() -> None:
    model = FailureModel(GRID[:0], np.repeat(GRID[:1], 50, axis=0))
    log_success = model.log_success(GRID[:1])
    assert log_success[0] >= np.log(1 - failure.MAX_PROBABILITY) - 1e-9
    assert log_success[0] < np.log(0.5)


def test_a_failing_fit_leaves_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise FitError("planted")

    monkeypatch.setattr(failure, "maximize_posterior", broken)
    log_success = FailureModel(GRID[~TOO_HIGH], GRID[TOO_HIGH]).log_success(GRID)
    assert np.isfinite(log_success).all()
    assert log_success[TOO_HIGH].mean() < log_success[~TOO_HIGH].mean()


def test_after_the_deadline_failures_still_count() -> None:
    model = FailureModel(GRID[~TOO_HIGH], GRID[TOO_HIGH], deadline=Deadline(0.0))
    log_success = model.log_success(GRID)
    assert log_success[TOO_HIGH].mean() < log_success[~TOO_HIGH].mean()


# --- trust ------------------------------------------------------------------------------------------------------------


class FakeSurrogate:
    """Predicts every observation with the same log density."""

    def __init__(self, density: float, n: int = 10) -> None:
        self.density = np.full(n, density)

    def leave_one_out(self) -> np.ndarray:
        return self.density


def weights(*densities: float, n: int = 10) -> list[float]:
    return earned_weights([FakeSurrogate(d, n) for d in densities], n).tolist()  # type: ignore[misc]


def test_weights_follow_the_evidence() -> None:
    assert weights(-1.0, -1.0) == [0.5, 0.5]
    # Ten observations, 0.1 each: e^1 to 1.
    assert weights(-1.0, -1.1)[0] == pytest.approx(np.e / (1 + np.e))
    assert weights(-1.0, -5.0) == [1.0, 0.0]
    assert weights(-1.0, np.nan) == [1.0, 0.0]
    assert weights(-np.inf, np.nan) == [0.5, 0.5]
    assert weights(-1.0, -9.0, n=3) == [0.5, 0.5], "three observations say nothing"


def test_a_model_of_noise_loses_its_weight() -> None:
    generator = np.random.default_rng(0)
    X = generator.random((30, 2))
    y = outcomes(np.sin(6 * X[:, 0]))
    good, blind = fit_numeric(X, y), fit_numeric(generator.random((30, 2)), y)
    assert earned_weights([good, blind], 30)[0] > 0.99


@pytest.mark.parametrize("values", [[], [3.0], [1.0, 1.0], [1.0, 2.0, 6.0], [-1e300, 1e300, 0.0], [1e6, 0.1, 0.2]])
def test_plain_outcomes_are_standardized_and_no_more(values: list[float]) -> None:
    y = plain_outcomes(np.array(values))
    assert np.isfinite(y).all()
    if len(set(values)) > 1:
        # Mean and deviation of a handful of numbers around 1: rounding only.
        assert abs(y.mean()) < 1e-12
        assert y.std() == pytest.approx(1.0, abs=1e-12)
        assert np.corrcoef(y, np.array(values) / max(map(abs, values)))[0, 1] == pytest.approx(1.0, abs=1e-12)
