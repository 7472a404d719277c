"""Trainings of one configuration, told as one trial."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.configurations import Configuration, configurations, mean, turned

LOSS = Objective("loss", Goal.MINIMIZE)
S, E, F, U, P = (
    TrialState.SUCCEEDED,
    TrialState.EARLY_STOPPED,
    TrialState.FAILED,
    TrialState.UNAVAILABLE,
    TrialState.PENDING,
)


def made(*states: TrialState, values: tuple[float, ...] = (1.0, 2.0, 6.0)) -> Configuration:
    """One training for each state; those that may have a value get the next one."""
    left = iter(values)
    trials = tuple(
        Trial(f"t{i}", {"rank": "8"}, state, next(left) if state in (S, E) else None) for i, state in enumerate(states)
    )
    return Configuration({"rank": "8"}, trials)


@pytest.mark.parametrize(
    ("states", "expected", "value"),
    [
        ((S,), S, 1.0),
        ((S, S, S), S, 3.0),
        ((S, E), S, 1.5),
        ((E, E), E, 1.5),
        ((P,), P, None),
        ((P, P), P, None),
        ((S, P), S, 1.0),
        ((F,), F, None),
        ((U,), F, None),
        ((F, P), F, None),
        ((S, F), S, 1.0),  # as often as not: its value counts
        ((S, S, F), S, 1.5),
        ((S, F, U), F, None),  # more often than not: failed
        ((S, F, F, P), F, None),
    ],
)
def test_states_together(states: tuple[TrialState, ...], expected: TrialState, value: float | None) -> None:
    trial = made(*states).as_trial(LOSS, None)
    assert (trial.state, trial.value) == (expected, value)
    assert trial.assignments == {"rank": "8"}
    assert trial.name == "t0"


def test_metrics_are_averaged_over_the_trainings_with_a_value() -> None:
    trials = (
        Trial("a", {}, S, 1.0, {"loss": 1.0, "seconds": 10.0, "loss_standard_error": 0.3}),
        Trial("b", {}, S, 3.0, {"loss": 3.0, "seconds": 20.0, "bleu": 4.0, "loss_standard_error": 0.1}),
        Trial("c", {}, F, None, {"seconds": 1000.0}),
    )
    told = Configuration({}, trials).as_trial(LOSS, 0.7)
    assert told.metrics == {"loss": 2.0, "seconds": 15.0, "bleu": 4.0}
    assert told.standard_error == 0.7


def test_trials_are_grouped_without_their_seed_in_the_order_of_their_first() -> None:
    points = [("1e-3", "0"), ("2e-3", "0"), ("0.001", "1"), ("1e-3", "1")]
    trials = [Trial(f"t{i}", {"lr": lr, "seed": seed}, S, float(i)) for i, (lr, seed) in enumerate(points)]
    by_text = configurations(trials, "seed")
    assert [(one.assignments, one.values) for one in by_text] == [
        ({"lr": "1e-3"}, (0.0, 3.0)),
        ({"lr": "2e-3"}, (1.0,)),
        ({"lr": "0.001"}, (2.0,)),
    ]
    by_number = configurations(trials, "seed", key=lambda point: float(point["lr"]))
    assert [one.values for one in by_number] == [(0.0, 2.0, 3.0), (1.0,)]
    assert [len(one.trials) for one in configurations(trials, "")] == [1, 1, 1, 1]


def test_values_are_turned_for_a_maximum() -> None:
    assert turned(made(S, S), LOSS) == [1.0, 2.0]
    assert turned(made(S, S), Objective("gain", Goal.MAXIMIZE)) == [-1.0, -2.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6))
def test_means_are_finite_and_between_the_values(values: list[float]) -> None:
    found = mean(values)
    assert math.isfinite(found)
    # A sum that is rounded once and a quotient that is: two units in the last place.
    slack = 4 * max(math.ulp(max(values)), math.ulp(min(values)))
    assert min(values) - slack <= found <= max(values) + slack
