"""What a search has found, against definitions written out anew."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.space.trial import Goal, Objective, Trial, TrialState
from rankwise.strategies.choice import Aims, Leader, aims_of, keeps_bounds, leader, leaders, tried
from rankwise.strategies.goals import read_goals
from rankwise.strategies.seeds import best_configuration

METRICS = ("seconds", "peak_memory_bytes")
NUMBERS = st.floats(-1e3, 1e3).map(lambda value: round(value, 2))
POSITIVE = st.floats(0.01, 1e3).map(lambda value: round(value, 2))


@st.composite
def histories(draw: st.DrawFn, every_cost: bool = False) -> list[Trial]:
    """Trials of few configurations with seeds, some failed; costs are missing now and then."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abc"), st.sampled_from(["0", "1", "2"]), st.none() | NUMBERS, POSITIVE, POSITIVE,
                st.booleans(),
            ),
            max_size=12,
        )
    )  # fmt: skip
    trials = []
    for i, (choice, seed, value, seconds, memory, has_memory) in enumerate(rows):
        metrics = {"seconds": seconds}
        if every_cost or has_memory:
            metrics["peak_memory_bytes"] = memory
        state = TrialState.FAILED if value is None else TrialState.SUCCEEDED
        assignments = {"choice": choice, "seed": seed}
        trials.append(Trial(f"t{i}", assignments, state, value, metrics if value is not None else {}))
    return trials


def objective(goal: Goal = Goal.MINIMIZE) -> Objective:
    return Objective("loss", goal, additional_metrics=METRICS)


def aims(goal: Goal = Goal.MINIMIZE, **settings: str) -> Aims:
    found = aims_of(settings, objective(goal))
    assert found.problem == ""
    return found


@given(histories(), st.sampled_from(Goal))
def test_without_goals_it_is_the_earliest_of_the_best_values(trials: list[Trial], goal: Goal) -> None:
    values = [trial.value for trial in trials if trial.value is not None]
    found = leader(trials, aims(goal))
    if not values:
        assert found is None
        return
    best = min(values) if goal is Goal.MINIMIZE else max(values)
    assert found is not None
    assert (found.row, found.value) == (next(i for i, trial in enumerate(trials) if trial.value == best), best)


@given(histories(every_cost=True), POSITIVE)
def test_under_bounds_it_is_the_best_of_those_that_keep_them(trials: list[Trial], bound: float) -> None:
    within = [t for t in trials if t.value is not None and t.metrics["peak_memory_bytes"] <= bound]
    found = leader(trials, aims(constraints=f"peak_memory_bytes<={bound!r}"))
    assert (found is None) == (not within)
    if found is not None:
        assert trials[found.row] in within
        assert found.value == min(t.value for t in within if t.value is not None)


def test_a_trial_that_is_not_known_to_keep_a_bound_is_not_chosen() -> None:
    measured = {"seconds": 1.0, "peak_memory_bytes": 5.0}
    trials = [
        Trial("unknown", {}, TrialState.SUCCEEDED, 1.0, {"seconds": 1.0}),
        Trial("within", {}, TrialState.SUCCEEDED, 2.0, measured),
        Trial("also", {}, TrialState.SUCCEEDED, 3.0, measured),
        Trial("beyond", {}, TrialState.SUCCEEDED, 0.0, {"seconds": 1.0, "peak_memory_bytes": 7.0}),
    ]
    wanted = aims(constraints="peak_memory_bytes<=6")
    assert keeps_bounds(wanted.goals, trials) == [None, True, True, False]
    found = leader(trials, wanted)
    assert found is not None
    assert trials[found.row].name == "within"
    # A bound on what most trials do not report does not count, or nothing could ever be found.
    rare = [trials[0], trials[0], trials[1], trials[3]]
    assert keeps_bounds(wanted.goals, rare) == [True] * 4


@given(histories(every_cost=True), st.sampled_from(Goal), st.floats(0.01, 100), st.floats(0, 2))
def test_with_a_cost_weight_it_is_the_least_f(trials: list[Trial], goal: Goal, weight: float, beta: float) -> None:
    wanted = aims(goal, cost_weight=repr(weight), cost_memory=repr(beta))
    valued = [trial for trial in trials if trial.value is not None]
    found = leader(trials, wanted)
    assert (found is None) == (not valued)
    if found is None:
        return
    references = {name: statistics.median(t.metrics[name] for t in valued) for name in METRICS}

    def f(trial: Trial) -> float:
        assert trial.value is not None
        cost = sum(w * trial.metrics[n] / references[n] for n, w in zip(METRICS, (1.0, beta), strict=True) if w > 0)
        return (trial.value if goal is Goal.MINIMIZE else -trial.value) + weight * cost

    # Two sums of the same numbers in another order differ by a few roundings of the largest term, at most some 1e7.
    assert found.rank == pytest.approx(min(map(f, valued)), rel=1e-12, abs=1e-8)
    assert f(trials[found.row]) == pytest.approx(found.rank, rel=1e-12, abs=1e-8)


@given(histories(), st.sampled_from(Goal))
def test_with_seeds_it_is_what_the_strategy_takes_for_the_best(trials: list[Trial], goal: Goal) -> None:
    found = leader(trials, aims(goal, seed_parameter="seed"))
    theirs = best_configuration(trials, objective(goal), "seed")
    assert (found is None) == (theirs is None)
    if found is not None and theirs is not None:
        assert (trials[found.row], found.value) == (theirs.trial, theirs.value)


def test_a_lucky_training_does_not_win_against_a_mean_that_is_known() -> None:
    # In a the seeds differ by 1, so that b, a single training which is better by 0.05, may be luck.
    rows = [("a", 0.5), ("a", 1.5), ("a", 1.0), ("b", 0.95), ("c", 3.0), ("d", 2.9), ("e", 3.1)]
    trials = [
        Trial(f"t{i}", {"choice": choice, "seed": str(i)}, TrialState.SUCCEEDED, value)
        for i, (choice, value) in enumerate(rows)
    ]
    found = leader(trials, aims(seed_parameter="seed"))
    assert found == Leader(0, 1.0, 1.0)


def test_seeds_bounds_and_costs_together() -> None:
    def made(name: str, choice: str, value: float, seconds: float) -> Trial:
        return Trial(name, {"choice": choice, "seed": name}, TrialState.SUCCEEDED, value, {"seconds": seconds})

    trials = [made("a1", "a", 1.0, 10.0), made("a2", "a", 1.2, 30.0), made("b1", "b", 2.0, 10.0)]
    trials += [made("b2", "b", 2.2, 10.0), made("c1", "c", 2.1, 2.0), made("c2", "c", 2.1, 2.0)]
    # Means over seeds: a 1.1 at 20 s, b 2.1 at 10 s, c 2.1 at 2 s.
    for settings, name in (
        ({}, "a1"),
        ({"constraints": "seconds<=15"}, "b1"),
        ({"constraints": "seconds<=5"}, "c1"),
        ({"cost_weight": "10"}, "c1"),
        ({"cost_weight": "10", "constraints": "seconds>=5"}, "b1"),
    ):
        found = leader(trials, aims(seed_parameter="seed", **settings))
        assert found is not None
        assert trials[found.row].name == name, settings
    assert leader(trials, aims(seed_parameter="seed", constraints="seconds<=1")) is None


@given(histories(), st.sampled_from(["", "seed"]), st.sampled_from(Goal))
def test_what_was_found_by_a_trial_is_what_the_trials_up_to_it_say(trials: list[Trial], seed: str, goal: Goal) -> None:
    wanted = aims(goal, seed_parameter=seed)
    assert leaders(trials, wanted) == [leader(trials[: i + 1], wanted) for i in range(len(trials))]


@given(histories(), st.sampled_from(["", "seed"]))
def test_every_trial_belongs_to_one_configuration(trials: list[Trial], seed: str) -> None:
    found = tried(trials, aims(seed_parameter=seed))
    assert sorted(i for one in found for i in one.rows) == list(range(len(trials)))
    assert all(one.row in one.rows and trials[one.row].name == one.trial.name for one in found)
    assert all(one.trainings == sum(trials[i].value is not None for i in one.rows) for one in found)
    if seed:
        assert all("seed" not in one.trial.assignments for one in found)
    else:
        assert [one.trial for one in found] == trials


def test_spellings_of_one_configuration_are_one() -> None:
    values = [("3e-4", "0", 1.0), ("0.0003", "1", 3.0), ("0.001", "0", 1.5)]
    trials = [
        Trial(f"t{i}", {"rate": rate, "seed": seed}, TrialState.SUCCEEDED, value)
        for i, (rate, seed, value) in enumerate(values)
    ]
    found = tried(trials, aims(seed_parameter="seed"))
    assert [one.rows for one in found] == [(0, 1), (2,)]
    best = leader(trials, aims(seed_parameter="seed"))
    assert best is not None
    assert trials[best.row].name == "t2"


def test_settings_that_mean_something_else_leave_the_objective_alone() -> None:
    found = aims_of({"constraints": "anything goes", "alpha": "1"}, objective())
    assert found.is_objective_alone
    assert "constraints: got 'anything goes'" in found.problem
    assert not aims(constraints="seconds<=3").is_objective_alone
    assert not aims(cost_weight="1").is_objective_alone
    assert not aims(seed_parameter="seed").is_objective_alone
    assert aims(pareto="seconds").is_objective_alone
    assert aims().goals == read_goals({}, objective())


def test_the_default_is_found_with_any_seed() -> None:
    wanted = aims(seed_parameter="seed", cost_weight="1", default_configuration='{"choice": "a", "seed": "0"}')
    assert wanted.goals.default == {"choice": "a"}
