"""Trials as types: states that contradict their values cannot be made."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.space import Goal, Objective, Trial, TrialState, parse_finite
from support.spaces import untimed


def test_better_follows_the_goal() -> None:
    low, high = Objective("loss", Goal.MINIMIZE), Objective("rouge1", Goal.MAXIMIZE)
    assert low.better(1.0, 2.0)
    assert not low.better(2.0, 1.0)
    assert high.better(2.0, 1.0)
    assert not high.better(1.0, 1.0)


@pytest.mark.parametrize("text", ["", "unavailable", "nan", "NaN", "inf", "-inf", "1e999", "0.5.1", "one"])
def test_what_is_no_finite_number_is_missing(text: str) -> None:
    assert parse_finite(text) is None


@untimed
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_are_values(value: float) -> None:
    assert parse_finite(repr(value)) == value


@untimed
@given(st.sampled_from(TrialState), st.none() | st.floats())
def test_a_trial_exists_exactly_where_state_and_value_agree(state: TrialState, value: float | None) -> None:
    may_have = state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)
    must_have = state is TrialState.SUCCEEDED
    if value is None and not must_have:
        assert Trial("t", {}, state, value).value is None
    elif value is not None and math.isfinite(value) and may_have:
        assert Trial("t", {}, state, value).value == value
    else:
        with pytest.raises(ValueError, match="trial 't': "):
            Trial("t", {}, state, value)


@untimed
@given(st.sampled_from([None, 1.5]), st.floats())
def test_a_standard_error_needs_a_value_and_is_finite_and_not_negative(value: float | None, error: float) -> None:
    if value is not None and 0 <= error < math.inf:
        assert Trial("t", {}, TrialState.EARLY_STOPPED, value, standard_error=error).standard_error == error
    else:
        with pytest.raises(ValueError, match=r"trial 't': (without a value|standard error must be)"):
            Trial("t", {}, TrialState.EARLY_STOPPED, value, standard_error=error)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"loss_standard_error": 0.25}, 0.25),
        ({"loss_standard_error": 0.0}, 0.0),
        ({"loss_standard_error": -0.25}, None),
        ({"loss_standard_error": math.inf}, None),
        ({"loss_standard_error": math.nan}, None),
        ({"loss": 0.25, "rouge1_standard_error": 0.25}, None),
    ],
)
def test_the_standard_error_is_an_additional_metric(metrics: dict[str, float], expected: float | None) -> None:
    assert Objective("loss", Goal.MINIMIZE).standard_error(metrics) == expected


def test_only_pending_trials_are_unfinished() -> None:
    assert [state for state in TrialState if not state.is_finished] == [TrialState.PENDING]
