"""What the trials measured, read with the goals of their search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.costs import (
    cost,
    cost_aware_value,
    counted,
    dual_by_trial,
    front_points,
    is_feasible,
    pick,
    priced,
    reference_costs,
    same,
    violations,
)
from rankwise.strategies.dual import dual_ascent
from rankwise.strategies.goals import Goals, parse_constraints, read_goals
from support.spaces import untimed

METRICS = ("seconds", "peak_memory_bytes", "energy_joules", "rouge1")
LOSS = Objective("loss", Goal.MINIMIZE, additional_metrics=METRICS)
QUALITY = Objective("bleu", Goal.MAXIMIZE, additional_metrics=METRICS)


def trial(value: float | None, rank: str = "4", state: TrialState | None = None, **metrics: float) -> Trial:
    ended = TrialState.FAILED if value is None else TrialState.SUCCEEDED
    return Trial(f"{rank} {value} {metrics}", {"rank": rank}, state or ended, value, metrics)


def goals(objective: Objective = LOSS, **settings: str) -> Goals:
    return read_goals(settings, objective)


def test_the_cost_is_counted_in_the_default_configurations() -> None:
    aim = goals(cost_weight="0.1", cost_memory="2", default_configuration='{"rank": 8}')
    trials = [
        trial(1.0, "4", seconds=10, peak_memory_bytes=3e9),
        trial(2.0, "8.0", seconds=20, peak_memory_bytes=4e9),
        trial(2.0, "8", seconds=40, peak_memory_bytes=4e9),
        trial(None, "8", seconds=1e6),
    ]
    references = reference_costs(aim, trials)
    # The median of the default configuration's own trials, those with a value.
    assert references.costs == {"seconds": 30.0, "peak_memory_bytes": 4e9}
    assert references.of_default == {"seconds", "peak_memory_bytes"}
    assert cost(aim, references, trials[0]) == pytest.approx(10 / 30 + 2 * 3 / 4)
    assert cost_aware_value(aim, references, trials[0]) == pytest.approx(1.0 + 0.1 * (10 / 30 + 2 * 3 / 4))
    assert cost_aware_value(aim, references, trials[3]) is None


def test_without_a_default_that_was_measured_the_median_is_the_unit() -> None:
    for aim in (goals(cost_weight="1"), goals(cost_weight="1", default_configuration='{"rank": 64}')):
        references = reference_costs(aim, [trial(1.0, seconds=s) for s in (1.0, 4.0, 10.0)])
        assert references.costs == {"seconds": 4.0}
        assert not references.of_default


def test_a_maximized_quality_and_a_cost_pull_in_opposite_directions() -> None:
    aim = goals(QUALITY, cost_weight="2")
    trials = [trial(30.0, seconds=10.0), trial(30.0, seconds=20.0)]
    references = reference_costs(aim, trials)
    cheap, dear = (cost_aware_value(aim, references, one) for one in trials)
    assert (cheap, dear) == (pytest.approx(-30 + 2 * 10 / 15), pytest.approx(-30 + 2 * 20 / 15))


def test_a_term_that_is_not_reported_is_left_out_for_all() -> None:
    aim = goals(cost_weight="1", cost_energy="1")
    trials = [trial(float(i), seconds=2.0, **({"energy_joules": 5.0} if i == 0 else {})) for i in range(4)]
    references = reference_costs(aim, trials)
    assert references.left_out == ("energy_joules",)
    assert [cost(aim, references, one) for one in trials] == [1.0] * 4, "that of the first has no energy either"
    nothing = [trial(1.0), trial(2.0)]
    references = reference_costs(aim, nothing)
    assert references.left_out == ("seconds", "energy_joules")
    assert cost(aim, references, nothing[0]) is None
    assert cost_aware_value(aim, references, nothing[1]) == 2.0, "L itself where no cost counts"


def test_a_trial_that_lacks_a_term_that_counts_has_no_value() -> None:
    aim = goals(cost_weight="1")
    trials = [trial(1.0, seconds=2.0), trial(1.0, seconds=2.0), trial(0.0)]
    references = reference_costs(aim, trials)
    assert references.left_out == ()
    assert [cost_aware_value(aim, references, one) for one in trials] == [2.0, 2.0, None]


def test_costs_that_are_none() -> None:
    aim = goals(cost_weight="1")
    zero = [trial(1.0, seconds=0.0), trial(2.0, seconds=0.0)]
    assert reference_costs(aim, zero).left_out == ("seconds",), "nothing can be divided by it"
    negative = [trial(1.0, seconds=-1.0), trial(1.0, seconds=3.0), trial(1.0, seconds=3.0)]
    assert cost(aim, reference_costs(aim, negative), negative[0]) is None
    huge = [trial(1.0, seconds=1e-300), trial(1.0, seconds=1e-300), trial(1.7e308, seconds=1e300)]
    value = cost_aware_value(aim, reference_costs(aim, huge), huge[2])
    assert value is not None
    assert math.isfinite(value)


def test_counted_needs_more_than_half() -> None:
    two = [trial(1.0, seconds=1.0), trial(1.0)]
    assert counted(["seconds"], two, LOSS) == ([], ["seconds"])
    assert counted(["seconds"], [*two, trial(1.0, seconds=1.0), trial(None)], LOSS) == (["seconds"], [])
    assert counted(["seconds"], [trial(None)], LOSS) == (["seconds"], []), "before any value all count"


def test_feasible_broken_or_not_known() -> None:
    aim = goals(constraints="peak_memory_bytes<=8GB, rouge1>=0.3")
    assert is_feasible(aim, trial(1.0, peak_memory_bytes=8e9, rouge1=0.3)) is True
    assert is_feasible(aim, trial(1.0, peak_memory_bytes=8.1e9)) is False
    assert is_feasible(aim, trial(1.0, peak_memory_bytes=7e9)) is None
    assert is_feasible(aim, trial(None, peak_memory_bytes=7e9, rouge1=0.4)) is None
    assert is_feasible(goals(), trial(1.0)) is True
    assert violations(aim, trial(1.0, peak_memory_bytes=10e9)) == (pytest.approx(0.25), None)
    bounded = goals(QUALITY, constraints="bleu>=20")
    assert [is_feasible(bounded, trial(value)) for value in (19.0, 20.0)] == [False, True]


def test_the_dual_history_ends_where_the_ascent_over_all_trials_does() -> None:
    aim = goals(constraints="seconds<=10, rouge1>=0.3, peak_memory_bytes<=1")
    trials = [
        trial(None),
        trial(1.0, seconds=20.0, rouge1=0.4),
        trial(0.5, rouge1=0.4),
        trial(2.0, seconds=8.0, rouge1=0.4),
        trial(None),
    ]
    known = priced(aim, trials)
    assert (known.rows, known.columns, known.left_out) == ((1, 3), (0, 1), ("peak_memory_bytes",))
    prices, bounds = dual_by_trial(aim, trials)
    assert np.isnan(prices[0]).all()
    assert np.isnan(bounds[0])
    assert np.isnan(prices[:, 2]).all(), "a bound that does not count has no price"
    path = dual_ascent(known.values, known.violations)
    np.testing.assert_array_equal(prices[-1, :2], path.prices)
    assert bounds[-1] == path.bound[-1] <= 2.0
    np.testing.assert_array_equal(prices[2], prices[1])
    assert prices[3, 0] > 0
    assert prices[3, 1] == 0


def test_front_points_turn_what_is_maximized() -> None:
    aim = goals(pareto="seconds, rouge1:maximize")
    found = front_points(aim, [trial(1.0, seconds=2.0, rouge1=0.4), trial(3.0, seconds=4.0), trial(None, seconds=1.0)])
    np.testing.assert_array_equal(found, [[1.0, 2.0, -0.4], [3.0, 4.0, np.nan], [np.nan] * 3])
    assert front_points(aim, []).shape == (0, 3)


def test_the_best_within_a_budget() -> None:
    trials = [
        trial(1.0, peak_memory_bytes=9e9),
        trial(2.0, peak_memory_bytes=7e9),
        trial(0.1),
        trial(2.0, peak_memory_bytes=1e9),
    ]
    below = parse_constraints("peak_memory_bytes<=8GB")
    assert pick(trials, LOSS, below) == 1
    assert pick(trials, QUALITY, below) == 1
    assert pick(trials, LOSS, []) == 2
    assert pick(trials, LOSS, parse_constraints("peak_memory_bytes<=1kB")) is None


def test_configurations_are_the_same_whatever_their_spelling() -> None:
    assert same({"a": "3e-4", "b": "x"}, {"b": "x", "a": "0.0003"})
    assert not same({"a": "1"}, {"a": "1", "b": "1"})
    assert not same({"a": "1"}, {"a": "1 "[:1] + ".5"})


finite = st.floats(allow_nan=False, allow_infinity=False)


@untimed
@given(st.lists(st.tuples(finite, finite | st.none(), finite | st.none()), max_size=6))
def test_any_metrics(rows: list[tuple[float, float | None, float | None]]) -> None:
    aim = goals(cost_weight="3", cost_energy="1", constraints="seconds<=1, energy_joules>=-2")
    trials = [
        trial(value, **{k: v for k, v in (("seconds", s), ("energy_joules", e)) if v is not None})
        for value, s, e in rows
    ]
    references = reference_costs(aim, trials)
    values = [cost_aware_value(aim, references, one) for one in trials]
    assert all(value is None or math.isfinite(value) for value in values)
    if references.costs:
        assert all(reference > 0 for reference in references.costs.values())
    reverse = trials[::-1]
    assert reference_costs(aim, reverse) == references
    prices, _ = dual_by_trial(aim, trials)
    assert prices.shape == (len(trials), 2)
    assert not np.isinf(prices).any()
