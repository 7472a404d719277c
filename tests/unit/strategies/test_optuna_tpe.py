"""Optuna's TPE: the study that it is shown, and that what it answers is what Optuna itself would."""

from __future__ import annotations

import importlib.util
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem
from rankwise.space import Goal, Objective, ParameterText, Trial, TrialState, parse_space
from rankwise.strategies import optuna_tpe
from rankwise.strategies.base import Suggestions, SuggestRequest, seed_of
from rankwise.strategies.optuna_tpe import OPTIONS, OptunaTPE

LOSS = Objective("loss", Goal.MINIMIZE)
STUDY = parse_space(
    [
        ParameterText("learning_rate", "double", "1e-5", "1e-3", distribution="logUniform"),
        ParameterText("batch_size", "discrete", list=("8", "16", "32")),
        ParameterText("epochs", "discrete", list=("2", "3", "4")),
        ParameterText("dropout", "discrete", list=("0.1", "0.2", "0.3", "0.4", "0.5", "0.6")),
        ParameterText("rank", "discrete", list=("4", "8", "16")),
        ParameterText("alpha", "discrete", list=("16", "32", "64")),
    ]
)
"""The space of the T5 summarization study."""
THEIRS: dict[str, Any] = {
    "learning_rate": FloatDistribution(1e-5, 1e-3, log=True),
    "batch_size": IntDistribution(8, 32, log=True),
    "epochs": IntDistribution(2, 4),
    "dropout": FloatDistribution(0.1, 0.6),
    "rank": IntDistribution(4, 16, log=True),
    "alpha": IntDistribution(16, 64, log=True),
}
"""The same space as a user of Optuna would write it."""


def loss(point: Mapping[str, str]) -> float:
    """Least where the study found its best configuration; dropout hardly matters."""
    rate = math.log10(float(point["learning_rate"]) / 3.21e-4)
    return rate**2 + 0.2 * math.log2(float(point["rank"]) / 8) ** 2 + 0.05 * (float(point["dropout"]) - 0.1)


def tried(n: int, seed: int = 0) -> list[Trial]:
    points = STUDY.sobol(n, seed)
    return [Trial(f"t{i}", point, TrialState.SUCCEEDED, loss(point)) for i, point in enumerate(points)]


def ask(trials: Sequence[Trial], count: int = 1, experiment: str = "t5", **settings: str) -> Suggestions:
    return OptunaTPE().suggest(request_for(trials, count, experiment, **settings))


def request_for(trials: Sequence[Trial], count: int = 1, experiment: str = "t5", **settings: str) -> SuggestRequest:
    return SuggestRequest(experiment, STUDY, LOSS, settings, tuple(trials), count, len(trials))


def theirs(trials: Sequence[Trial], request: SuggestRequest, multivariate: bool) -> dict[str, float]:
    """What Optuna's own sampler answers, in a study that is laid out by hand."""
    states = {
        TrialState.SUCCEEDED: OptunaState.COMPLETE,
        TrialState.FAILED: OptunaState.PRUNED,
        TrialState.PENDING: OptunaState.RUNNING,
    }
    seed = seed_of(request, OPTIONS.parse(request.settings), f"estimator {len(trials)}") % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the argument weights
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=multivariate, n_startup_trials=0, weights=lambda n: np.ones(n)
        )
    study = optuna.create_study(sampler=sampler)
    for state in (TrialState.SUCCEEDED, TrialState.FAILED, TrialState.PENDING):
        ordered = sorted((t for t in trials if t.state is state), key=lambda t: repr(STUDY.key(t.assignments)))
        for trial in ordered:
            params = {
                name: int(text) if isinstance(THEIRS[name], IntDistribution) else float(text)
                for name, text in trial.assignments.items()
            }
            study.add_trial(create_trial(state=states[state], value=trial.value, params=params, distributions=THEIRS))
    asked: dict[str, float] = study.ask(THEIRS).params
    return asked


@pytest.mark.parametrize("multivariate", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_it_answers_what_optunas_own_sampler_answers(multivariate: bool, seed: int) -> None:
    trials = tried(24, seed)
    trials[3:6] = [replace(trial, state=TrialState.FAILED, value=None) for trial in trials[3:6]]
    trials[9:11] = [replace(trial, state=TrialState.PENDING, value=None) for trial in trials[9:11]]
    settings = {"multivariate": "on" if multivariate else "off", "random_state": str(seed)}
    answer = ask(trials, **settings)
    assert answer.fallback is None
    (ours,) = answer.assignments
    expected = theirs(trials, request_for(trials, **settings), multivariate)
    # The learning rate is a range: it is taken as it is. The others are the values of their lists that lie nearest.
    assert float(ours["learning_rate"]) == expected["learning_rate"]
    for name in ("batch_size", "epochs", "rank", "alpha"):
        listed = [float(text) for text in STUDY.parameters[STUDY.names.index(name)].values or ()]
        scale = math.log if name != "epochs" else float
        assert float(ours[name]) == min(listed, key=lambda value: abs(scale(value) - scale(expected[name])))
    assert abs(float(ours["dropout"]) - expected["dropout"]) <= 0.05 + 1e-12


def test_a_search_comes_closer_than_chance() -> None:
    """Thirty trials, ten of them a Sobol sequence, against thirty random ones, over ten searches each."""
    ends, by_chance = [], []
    for seed in range(10):
        trials: list[Trial] = []
        for i in range(30):
            (point,) = ask(trials, experiment=f"e{seed}").assignments
            trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, loss(point)))
        ends.append(min(trial.value or 0.0 for trial in trials))
        generator = np.random.default_rng(seed)
        by_chance.append(min(loss(point) for point in STUDY.at(generator.random((30, STUDY.dimension)))))
    differences = np.array(by_chance) - np.array(ends)
    # Ten paired differences: their mean lies above 0 by more than two of its standard errors.
    assert differences.mean() > 2 * differences.std(ddof=1) / math.sqrt(10)


def test_the_sobol_sequence_comes_first() -> None:
    first = ask([], count=10).assignments
    assert ask(tried(3), count=7).details["observations"] == 3
    trials = [Trial(f"t{i}", point, TrialState.PENDING) for i, point in enumerate(first[:9])]
    assert ask(trials).assignments == first[9:]
    # A third of a short search, two at least; a setting decides otherwise.
    short = replace(request_for([]), count=2, max_trials=6)
    assert optuna_tpe._startup(short, OPTIONS.parse({})) == 2
    assert optuna_tpe._startup(replace(short, max_trials=15), OPTIONS.parse({})) == 5
    assert optuna_tpe._startup(replace(short, max_trials=100), OPTIONS.parse({})) == 10
    assert optuna_tpe._startup(short, OPTIONS.parse({"startup_trials": "4"})) == 4


def test_a_running_trial_keeps_others_away() -> None:
    """The constant liar: with its first answers running, Optuna proposes something else."""
    trials = tried(20)
    (first,) = ask(trials).assignments
    batch = ask(trials, count=4).assignments
    assert batch[0] == first
    assert len({STUDY.key(point) for point in batch}) == 4


def test_order_and_names_of_trials_do_not_matter() -> None:
    trials = tried(30)
    trials[2] = replace(trials[2], state=TrialState.FAILED, value=None)
    first = ask(trials, count=3).assignments
    shuffled = [replace(trial, name=f"x{i}") for i, trial in enumerate(trials)]
    random.Random(1).shuffle(shuffled)
    assert ask(shuffled, count=3).assignments == first


def test_only_what_a_pool_holds_is_suggested() -> None:
    trials = tried(15)
    pool = STUDY.sobol(40, seed=5)
    request = replace(request_for(trials, count=6), pool=pool)
    answer = OptunaTPE().suggest(request)
    assert {STUDY.key(point) for point in answer.assignments} <= set(pool.keys)
    assert answer.repeated == 0
    begun = OptunaTPE().suggest(replace(request, trials=(), issued=0, count=40))
    assert {STUDY.key(point) for point in begun.assignments} == set(pool.keys)


def test_a_tried_proposal_moves_to_the_nearest_untried_configuration() -> None:
    """On eleven points with ten tried, the last one is left, wherever Optuna looks."""
    space = parse_space([ParameterText("x", "int", "0", "10")])
    trials = [Trial(f"t{x}", {"x": str(x)}, TrialState.SUCCEEDED, abs(x - 2.2)) for x in range(11) if x != 7]
    answer = OptunaTPE().suggest(SuggestRequest("e", space, LOSS, {}, tuple(trials), 1, 10))
    assert answer.assignments == ({"x": "7"},)
    assert answer.repeated == 0


def test_with_no_time_left_the_sequence_goes_on() -> None:
    answer = OptunaTPE().suggest(replace(request_for(tried(20), count=2), deadline=Deadline(0.0)))
    assert len(answer.assignments) == 2
    assert (answer.fallback, answer.reason) == ("the Sobol sequence went on: there was no time left", "time")


def test_when_optuna_fails_the_sequence_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(optuna.samplers, "TPESampler", broken)
    trials = tried(20)
    answer = ask(trials, count=3)
    assert answer.fallback == "the Sobol sequence went on: Optuna failed with RuntimeError"
    assert answer.reason == "fit"
    known = {STUDY.key(trial.assignments) for trial in trials}
    assert len({STUDY.key(point) for point in answer.assignments} - known) == 3


def test_without_optuna_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    problem = Problem(
        "spec.algorithm.algorithmName",
        "optuna-tpe",
        "an algorithm whose packages are installed here; this one needs Optuna: pip install 'rankwise[local]'",
    )
    assert OptunaTPE().validate(STUDY, LOSS, {}) == [problem]
    with pytest.raises(InvalidInput, match="this one needs Optuna"):
        ask(tried(3))


def test_optunas_logging_and_warnings_are_left_alone() -> None:
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ask(tried(30), count=2)
    assert optuna.logging.get_verbosity() == before
    assert caught == []


def test_spellings_of_a_value_are_that_value() -> None:
    space = parse_space([ParameterText("x", "double", "0", "0.3", "0.1"), ParameterText("y", "double", "0", "1")])
    points = list(space.sobol(16, 0))
    trials = [Trial(f"t{i}", point, TrialState.SUCCEEDED, float(point["y"])) for i, point in enumerate(points)]
    spelled = {"0.1": "0.10000000000000003", "0.2": "2e-1"}
    other = [
        replace(trial, assignments={**trial.assignments, "x": spelled.get(point["x"], point["x"])})
        for trial, point in zip(trials, points, strict=True)
    ]
    assert any(a.assignments != b.assignments for a, b in zip(trials, other, strict=True))
    first, second = (
        OptunaTPE().suggest(SuggestRequest("e", space, LOSS, {}, tuple(told), 2, 16)).assignments
        for told in (trials, other)
    )
    assert first == second
