"""``language-bo`` with ``pareto``: its models, what it takes into account, and the front that it reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contract.strategy_contract import MIXED, TINY, check, keys, tried
from rankwise.deadline import Deadline
from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies import multi_objective
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.costs import front_points
from rankwise.strategies.features import Features
from rankwise.strategies.goals import Goals, Traded, read_goals
from rankwise.strategies.knowledge import Knowledge
from rankwise.strategies.landscape import NoLandscape, landscape
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.language_options import OPTIONS, reads_language
from rankwise.strategies.multi_objective import fit_front, traded_outcomes
from rankwise.strategies.pareto import hypervolume
from rankwise.strategies.random_search import RandomSearch
from rankwise.surrogate.gaussian_process import FitError
from rankwise.surrogate.observations import read_trials
from support.encoders import FakeEncoder
from support.goals import BEST, LOSS, made_up_search, measure, study_space

QUICK = {"samples": "64", "fit_steps": "20", "pareto": "seconds"}


def measured(n: int, **constant: float) -> list[Trial]:
    """Trials whose seconds fall where the loss rises, along the second parameter."""
    trials = tried(MIXED, n)
    units = MIXED.encode([trial.assignments for trial in trials])
    return [
        replace(trial, value=float(u[1]), metrics={"seconds": float(np.exp(2 - 2 * u[1])), **constant})
        for trial, u in zip(trials, units, strict=True)
    ]


def ask(trials: list[Trial], count: int = 1, deadline: Deadline | None = None, **changes: str) -> Suggestions:
    encoder = FakeEncoder(error=AssertionError("a front needs no language model"))
    request = SuggestRequest("e", MIXED, LOSS, {**QUICK, **changes}, tuple(trials), count, len(trials))
    return LanguageBO(encoder).suggest(request if deadline is None else replace(request, deadline=deadline))


def goals(**given: str) -> Goals:
    return read_goals({"pareto": "seconds", **given}, LOSS)


def test_a_front_is_searched_with_the_numbers_alone() -> None:
    trials = measured(8)
    answer = ask(trials, 3)
    check(MIXED, answer, trials, 3)
    assert answer.fallback is None
    assert "seconds_front_models" in answer.details
    assert not reads_language(OPTIONS.parse({"pareto": "seconds"}))
    request = SuggestRequest("e", MIXED, LOSS, {"pareto": "seconds"}, tuple(trials), 0)
    with pytest.raises(NoLandscape, match="the numbers alone"):
        landscape(request, FakeEncoder())


def test_costs_are_modelled_by_their_logarithm_and_qualities_as_they_are() -> None:
    values = np.array([1.0, 10.0, 100.0])
    spread = np.sqrt(1.5)
    np.testing.assert_allclose(traded_outcomes(Traded("seconds"), values), [-spread, 0, spread], atol=1e-12)
    linear = traded_outcomes(Traded("seconds"), values - 1)
    assert linear[1] - linear[0] < 0.2 * (linear[2] - linear[1]), "0 has no logarithm"
    better = traded_outcomes(Traded("rouge1", Goal.MAXIMIZE), values)
    assert better.argmin() == 2
    for extreme in ([0.0], [5e-324, 1e308], [-1e308, 1e308, 0.0], [3.0] * 4):
        y = traded_outcomes(Traded("seconds"), np.array(extreme))
        assert np.isfinite(y).all()
        assert abs(y.mean()) < 1e-9


def features() -> Features:
    reference = MIXED.candidates(64, 0)
    return Features(reference, Knowledge([], reference))


def test_each_metric_is_read_from_the_trials_that_report_it() -> None:
    trials = measured(8, energy_joules=5.0)
    trials[0] = replace(trials[0], metrics={})
    observations = read_trials(MIXED, LOSS, trials)
    front = fit_front(goals(constraints="energy_joules<=9"), observations, MIXED, features(), 3, Deadline.never())
    assert front is not None
    assert [len(output.rows) for output in (*front.outputs, *front.bounded)] == [8, 7, 7]
    lacking = [not trial.metrics for trial in observations.trials]
    assert np.isnan(front.points).any(1).tolist() == lacking
    assert front.bounded[0].upper > 0, "5 keeps a bound of 9"
    known = [replace(trial, standard_error=0.3) for trial in trials]
    noisy = fit_front(goals(), read_trials(MIXED, LOSS, known), MIXED, features(), 3, Deadline.never())
    assert noisy is not None
    assert noisy.outputs[0].variances is not None
    assert (noisy.outputs[0].variances > 0).all()


def test_without_a_second_metric_there_is_no_front() -> None:
    trials = tried(MIXED, 6)
    observations = read_trials(MIXED, LOSS, trials)
    assert fit_front(goals(), observations, MIXED, features(), 3, Deadline.never()) is None
    answer = ask(trials, 2)
    assert answer.reason == "goals"
    single = {**QUICK, "surrogate": "numeric", "pareto": ""}
    plain = LanguageBO(FakeEncoder()).suggest(SuggestRequest("e", MIXED, LOSS, single, tuple(trials), 2, 6))
    assert answer.assignments == plain.assignments


def test_pending_and_failed_trials_are_counted_in() -> None:
    trials = measured(10)
    (first,) = ask(trials).assignments
    pending = [*trials, Trial("p", first, TrialState.PENDING)]
    answer = ask(pending)
    check(MIXED, answer, pending, 1)
    # Where the learning rate is high, everything fails.
    failing = [replace(t, state=TrialState.FAILED, value=None) if (t.value or 0) > 0.5 else t for t in trials]
    assert 2 < sum(trial.value is None for trial in failing) < 8
    chosen = ask(failing, 5, samples="256").assignments
    assert (MIXED.encode(chosen)[:, 1] < 0.65).all()


def test_bounds_are_kept_on_the_front() -> None:
    trials = measured(10)
    free, kept = (
        MIXED.encode(ask(trials, 6, samples="256", **changes).assignments)[:, 1]
        for changes in ({}, {"constraints": "seconds>=2.72"})
    )
    # exp(2 − 2u) ≥ e where u ≤ 0.5.
    assert (kept < 0.55).all()
    assert (free > 0.55).any()


def test_an_exhausted_space_repeats_the_front_first() -> None:
    trials = tried(TINY, 6)
    values = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (3.0, 3.0), (4.0, 4.0), (5.0, 5.0)]
    trials = [replace(t, value=v, metrics={"seconds": s}) for t, (v, s) in zip(trials, values, strict=True)]
    request = SuggestRequest("e", TINY, LOSS, QUICK, tuple(trials), 4, 6)
    answer = LanguageBO(FakeEncoder()).suggest(request)
    assert answer.repeated == 4
    assert set(keys(TINY, answer.assignments[:3])) == set(keys(TINY, [t.assignments for t in trials[:3]]))
    assert keys(TINY, answer.assignments[3:]) == keys(TINY, [trials[3].assignments])


def test_late_and_broken_it_answers_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = measured(8)
    late = ask(trials, 3, Deadline(0.0))
    check(MIXED, late, trials, 3)
    assert late.reason == "time"

    def broken(*_: object, **__: object) -> None:
        raise FitError("planted")

    monkeypatch.setattr(multi_objective, "fit_informed", broken)
    answer = ask(trials, 3)
    check(MIXED, answer, trials, 3)
    assert answer.reason == "fit"


BUDGET = 18
SEEDS = (1, 2, 3)
REFERENCE = np.array([4.0, 8e9])


def largest() -> float:
    """Hypervolume of the true front: at every batch size and rank all other parameters are best at their own."""
    space = study_space()
    points = []
    for batch in ("8", "16", "32"):
        for rank in ("4", "8", "16"):
            loss, metrics = measure(space, {**BEST, "batch_size": batch, "rank": rank})
            points.append([loss, metrics["peak_memory_bytes"]])
    return hypervolume(np.array(points), REFERENCE)


def test_it_reaches_a_larger_hypervolume_than_random_search() -> None:
    settings = {"samples": "512", "prior": "none", "initial_design": "random", "pareto": "peak_memory_bytes"}
    aim = read_goals(settings, LOSS)

    def missing(strategy: LanguageBO | RandomSearch, **given: str) -> float:
        """Mean over the seeds of what a search lacks of the true front's hypervolume."""
        reached = [
            hypervolume(front_points(aim, made_up_search(strategy, BUDGET, seed, **given)), REFERENCE) for seed in SEEDS
        ]
        assert max(reached) <= largest()
        return largest() - float(np.mean(reached))

    assert missing(LanguageBO(FakeEncoder()), **settings) < 0.8 * missing(RandomSearch())


def test_an_objective_that_is_maximized() -> None:
    trials = [replace(trial, value=-(trial.value or 0.0)) for trial in measured(8)]
    up = Objective("bleu", Goal.MAXIMIZE, additional_metrics=("seconds",))
    request = SuggestRequest("e", MIXED, up, QUICK, tuple(trials), 2, 8)
    assert LanguageBO(FakeEncoder()).suggest(request).assignments == ask(measured(8), 2).assignments
