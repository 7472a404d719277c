"""``language-bo`` with costs, bounds and a default configuration: its models, and what becomes of a search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.strategy_contract import MIXED, check, tried
from rankwise.errors import InvalidInput
from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.constrained import aim_at, bounds_of, order_of, unreported
from rankwise.strategies.costs import cost_aware_value, is_feasible, pick, reference_costs
from rankwise.strategies.goals import Goals, read_goals
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.random_search import RandomSearch
from rankwise.surrogate.observations import Observations, read_trials
from support.encoders import FakeEncoder
from support.goals import LOSS, made_up_search

BUDGET = 18
SEEDS = (1, 2, 3)
PLAIN = {"surrogate": "numeric", "samples": "512", "prior": "none", "initial_design": "random"}
BOUND = {"constraints": "peak_memory_bytes<=3GB"}
"""The made-up loss is least at 4.2 GB."""
QUICK = {"surrogate": "numeric", "samples": "64", "fit_steps": "3"}
DEFAULT = '{"rank": 8, "learning_rate": 3e-04, "schedule": "linear", "steps": 100}'


def goals(objective: Objective = LOSS, **given_settings: str) -> Goals:
    return read_goals(given_settings, objective)


def with_metrics(trials: list[Trial], **metrics: list[float | None]) -> list[Trial]:
    return [
        replace(trial, metrics={name: value for name, column in metrics.items() if (value := column[i]) is not None})
        for i, trial in enumerate(trials)
    ]


def seen(trials: list[Trial]) -> Observations:
    return read_trials(MIXED, LOSS, trials)


def ask(trials: list[Trial], count: int = 1, encoder: FakeEncoder | None = None, **changes: str) -> Suggestions:
    asked = {**QUICK, **changes}
    request = SuggestRequest("e", MIXED, LOSS, asked, tuple(trials), count, len(trials))
    return LanguageBO(encoder or FakeEncoder()).suggest(request)


# --- what the models are fitted to ------------------------------------------------------------------------------------


def test_the_models_see_the_cost_aware_value_with_the_errors_of_the_loss() -> None:
    aim = goals(cost_weight="0.5")
    trials = with_metrics(tried(MIXED, 5), seconds=[10.0, 20.0, None, 30.0, 40.0])
    trials = [replace(trial, standard_error=0.1) for trial in trials]
    observations = seen(trials)
    found = aim_at(aim, observations).observations
    references = reference_costs(aim, trials)
    assert references.costs == {"seconds": 25.0}
    expected = {t.name: v for t in trials if (v := cost_aware_value(aim, references, t)) is not None}
    assert len(expected) == 4, "the one that lacks the cost has no value"
    assert {t.name: v for t, v in zip(found.trials, found.values, strict=True)} == expected
    assert found.standard_errors.tolist() == [0.1] * 4
    assert found.tried == observations.tried, "it stays tried"


def test_the_models_see_the_lagrangian() -> None:
    aim = goals(constraints="seconds<=15", constraint_method="lagrangian")
    trials = with_metrics(tried(MIXED, 4), seconds=[10.0, 20.0, 30.0, 5.0])
    trials = [replace(trial, value=value) for trial, value in zip(trials, [2.0, 1.0, 0.5, 3.0], strict=True)]
    found = aim_at(aim, seen(trials))
    price = found.details["price_seconds_0"]
    assert price > 0
    for trial, value in zip(found.observations.trials, found.observations.values, strict=True):
        assert value == pytest.approx((trial.value or 0.0) + price * (trial.metrics["seconds"] / 15 - 1))
    assert found.details["dual_bound"] == pytest.approx(found.observations.values.min())
    assert found.details["dual_bound"] <= 2.0, "the best value within the bound"


def test_without_goals_nothing_changes() -> None:
    observations = seen(tried(MIXED, 4))
    assert aim_at(goals(), observations).observations is observations
    assert aim_at(goals(constraints="seconds<=1"), observations).observations is observations


def test_what_breaks_a_bound_comes_last() -> None:
    trials = with_metrics(tried(MIXED, 4), seconds=[1.0, 9.0, 9.0, None])
    trials = [replace(trial, value=value) for trial, value in zip(trials, [3.0, 1.0, 2.0, 0.0], strict=True)]
    observations = seen(trials)
    place = {trial.value: i for i, trial in enumerate(observations.trials)}
    order = order_of(goals(constraints="seconds<=5"), observations)
    assert [order[place[value]] for value in (3.0, 0.0, 1.0, 2.0)] == sorted(order)
    front = order_of(goals(pareto="seconds"), observations)
    assert {value: front[i] for value, i in place.items()} == {3.0: 0.0, 1.0: 0.0, 2.0: 1.0, 0.0: 4.0}


def test_bounds_of_one_metric_belong_together() -> None:
    (rouge, seconds) = bounds_of(goals(constraints="rouge1>=0.2, seconds<=5, rouge1<=0.4").constraints)
    assert (rouge.lower, rouge.upper) == (0.2, 0.4)
    assert (seconds.lower, seconds.upper) == (-np.inf, 5.0)


def test_the_language_model_reads_configurations_that_keep_the_bounds() -> None:
    trials = tried(MIXED, 10)
    units = MIXED.encode([trial.assignments for trial in trials])[:, 1]
    # The larger the better, and only the smaller half keeps the bound.
    trials = [replace(t, value=-float(u), metrics={"seconds": float(u)}) for t, u in zip(trials, units, strict=True)]
    large = {"surrogate": "language", "samples": "512", "language_candidates": "32", "fit_steps": "30"}
    free = ask(trials, 4, **large)
    kept = ask(trials, 4, **large, constraints="seconds<=0.5")
    assert free.fallback is None
    assert kept.fallback is None
    assert (MIXED.encode(kept.assignments)[:, 1] < 0.6).all()
    assert MIXED.encode(free.assignments)[:, 1].max() > 0.6


# --- whole searches ---------------------------------------------------------------------------------------------------


def broken(trials: list[Trial]) -> int:
    aim = goals(**BOUND)
    return sum(is_feasible(aim, trial) is False for trial in trials)


def best_kept(trials: list[Trial]) -> float:
    found = pick(trials, LOSS, goals(**BOUND).constraints)
    assert found is not None, "a search ends with something that keeps the bound"
    return trials[found].value or 0.0


@pytest.mark.parametrize(("method", "share"), [("feasibility", 0.5), ("lagrangian", 0.75)])
def test_a_bounded_search_ends_within_the_bound_with_few_violations(method: str, share: float) -> None:
    strategy = LanguageBO(FakeEncoder())
    free = [made_up_search(strategy, BUDGET, seed, **PLAIN) for seed in SEEDS]
    bounded = [made_up_search(strategy, BUDGET, seed, **PLAIN, **BOUND, constraint_method=method) for seed in SEEDS]
    # The optimum breaks the bound: a free search goes there, with most of its trials.
    assert np.mean([broken(trials) for trials in free]) > 0.7 * BUDGET
    # What is bought with a price may be on either side of a bound; a probability keeps away from it.
    assert np.mean([broken(trials) for trials in bounded]) < share * np.mean([broken(trials) for trials in free])
    assert np.mean([best_kept(trials) for trials in bounded]) < np.mean([best_kept(trials) for trials in free])
    # Random search with the same number of trials, of which a third keeps the bound anyway.
    anywhere = [made_up_search(RandomSearch(), BUDGET, seed) for seed in SEEDS]
    assert np.mean([best_kept(trials) for trials in bounded]) < np.mean([best_kept(trials) for trials in anywhere])


def test_a_cost_aware_search_finds_better_trade_offs() -> None:
    strategy = LanguageBO(FakeEncoder())
    aim = goals(cost_weight="1")
    mine = [made_up_search(strategy, BUDGET, seed, **PLAIN, cost_weight="1") for seed in SEEDS]
    free = [made_up_search(strategy, BUDGET, seed, **PLAIN) for seed in SEEDS]
    references = reference_costs(aim, [trial for trials in [*mine, *free] for trial in trials])

    def reached(searches: list[list[Trial]]) -> float:
        values = [[cost_aware_value(aim, references, trial) or np.inf for trial in trials] for trials in searches]
        return float(np.mean(np.min(values, axis=1)))

    assert reached(mine) < reached(free)

    def spent(searches: list[list[Trial]]) -> float:
        return float(np.mean([trial.metrics["seconds"] for trials in searches for trial in trials]))

    assert spent(mine) < spent(free), "cheap trials are part of what is sought"


# --- the default configuration ----------------------------------------------------------------------------------------


def test_the_default_configuration_is_the_first_trial_in_the_users_own_words() -> None:
    first = {"rank": "8", "learning_rate": "3e-04", "schedule": "linear", "steps": "100"}
    answer = ask([], 4, default_configuration=DEFAULT)
    assert answer.assignments[0] == first
    check(MIXED, answer, [], 4)
    assert answer.assignments[1:] == ask([], 3).assignments, "then the design begins"
    # It is handed out once, whatever its spelling.
    ended = [Trial("t", {**first, "learning_rate": "0.0003"}, TrialState.SUCCEEDED, 1.0)]
    later = ask(ended, 9, default_configuration=DEFAULT)
    check(MIXED, later, ended, 9)


def test_a_default_configuration_outside_of_a_pool_is_left_out() -> None:
    pool = MIXED.candidates(6, 1)
    asked = {**QUICK, "default_configuration": DEFAULT}
    request = SuggestRequest("e", MIXED, LOSS, asked, (), 6, 0, pool=pool)
    answer = LanguageBO(FakeEncoder()).suggest(request)
    assert {MIXED.key(point) for point in answer.assignments} == set(pool.keys)
    inside = MIXED.at(np.concatenate([pool.units, MIXED.encode([read_goals(asked, LOSS).default or {}])]))
    first, *_ = LanguageBO(FakeEncoder()).suggest(replace(request, pool=inside)).assignments
    assert first == read_goals(asked, LOSS).default


def test_wrong_goals_are_the_users_mistake_and_reported_with_the_others() -> None:
    strategy = LanguageBO(FakeEncoder())
    wrong = {"surrogate": "both", "cost_weight": "-1"}
    assert [p.path.rsplit(".", 1)[1] for p in strategy.validate(MIXED, LOSS, wrong)] == ["surrogate", "cost_weight"]
    wrong = {"surrogate": "both", "constraints": "speed<=1", "default_configuration": "{}"}
    paths = [p.path.removeprefix("spec.algorithm.algorithmSettings.") for p in strategy.validate(MIXED, LOSS, wrong)]
    assert paths == ["surrogate", "constraints", *(f"default_configuration.{name}" for name in MIXED.names)]
    with pytest.raises(InvalidInput, match="speed<=1"):
        ask([], constraints="speed<=1")


# --- metrics that are not there ---------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, str]] = {
    "cost": {"cost_weight": "1", "cost_energy": "2"},
    "feasibility": {"constraints": "seconds<=10, energy_joules>=1"},
    "lagrangian": {"constraints": "seconds<=10, energy_joules>=1", "constraint_method": "lagrangian"},
    "front": {"pareto": "seconds, energy_joules:maximize", "constraints": "rouge1>=0.1"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_metrics_that_no_trial_reports_are_named(kind: str) -> None:
    trials = tried(MIXED, 6)
    answer = ask(trials, 2, **SETTINGS[kind])
    check(MIXED, answer, trials, 2)
    assert answer.reason == "goals"
    assert answer.fallback is not None
    missing = "rouge1, seconds, energy_joules" if kind == "front" else "seconds, energy_joules"
    assert answer.fallback == f"the goals count without {missing}: too few trials report it"
    # Nothing of the goals is left: the objective alone is searched.
    assert answer.assignments == ask(trials, 2).assignments


def test_another_fallback_is_said_too() -> None:
    answer = ask(tried(MIXED, 6), 1, FakeEncoder(limit=3), surrogate="mixture", cost_weight="1")
    assert answer.reason == "vectors"
    assert answer.fallback is not None
    assert answer.fallback.endswith("; the goals count without seconds: too few trials report it")


@pytest.mark.parametrize("kind", SETTINGS)
def test_before_any_value_nothing_is_missing(kind: str) -> None:
    failed = [replace(trial, state=TrialState.FAILED, value=None) for trial in tried(MIXED, 5)]
    answer = ask(failed, 3, **SETTINGS[kind])
    check(MIXED, answer, failed, 3)
    assert answer.fallback is None
    assert unreported(goals(**SETTINGS[kind]), seen(failed)) == ()


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_search_in_which_every_trial_breaks_a_bound_goes_on(kind: str) -> None:
    trials = with_metrics(
        tried(MIXED, 7),
        seconds=[100.0 + i for i in range(7)],
        energy_joules=[0.1 + 0.01 * i for i in range(7)],
        rouge1=[0.01 * i for i in range(7)],
    )
    answer = ask(trials, 3, **SETTINGS[kind])
    check(MIXED, answer, trials, 3)
    assert answer.fallback is None


finite = st.floats(allow_nan=False, allow_infinity=False)
metric = st.one_of(st.none(), finite, st.floats(1e-3, 1e3), st.just(5.0))


@settings(deadline=None, max_examples=12)
@pytest.mark.parametrize("kind", SETTINGS)
@given(data=st.data())
def test_any_metrics_are_answered(kind: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 6))
    rows = [(data.draw(finite), data.draw(metric), data.draw(metric), data.draw(metric)) for _ in range(n)]
    trials = []
    for trial, (value, seconds, joules, rouge) in zip(tried(MIXED, max(n, 1))[:n], rows, strict=True):
        named = {"seconds": seconds, "energy_joules": joules, "rouge1": rouge}
        metrics = {name: number for name, number in named.items() if number is not None}
        trials.append(replace(trial, value=value, metrics=metrics))
    answer = ask(trials, 2, **SETTINGS[kind])
    check(MIXED, answer, trials, 2)
    assert answer.fallback is None or answer.reason == "goals", answer.fallback
    backwards = [replace(trial, name=f"other-{i}") for i, trial in enumerate(reversed(trials))]
    assert ask(backwards, 2, **SETTINGS[kind]).assignments == answer.assignments


def test_a_maximized_objective_has_its_bounds_in_its_own_direction() -> None:
    quality = Objective("bleu", Goal.MAXIMIZE, additional_metrics=("seconds",))
    trials = with_metrics(tried(MIXED, 4), seconds=[1.0, 2.0, 3.0, 4.0])
    observations = read_trials(MIXED, quality, trials)
    order = order_of(goals(quality, constraints="bleu>=0.5"), observations)
    kept = np.array([(trial.value or 0.0) >= 0.5 for trial in observations.trials])
    assert 0 < kept.sum() < 4
    assert order[kept].max() < order[~kept].min()
    assert order[kept].argmin() == np.array([trial.value for trial in observations.trials])[kept].argmax()
