"""Several seeds for each configuration: what the wrapped strategy sees, and who gets further seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from rankwise.errors import InvalidInput, Problem
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.earlier import EarlierTrials
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.options import Option, OptionTable
from rankwise.strategies.racing import measure
from rankwise.strategies.seeds import (
    OPTIONS,
    OverSeeds,
    best_configuration,
    own_settings,
    read_plan,
    strategy_settings,
    without_seeds,
)
from support.encoders import FakeEncoder

LOSS = Objective("loss", Goal.MINIMIZE)
SPACE = parse_space(
    [
        ParameterText("seed", "int", "0", "4"),
        ParameterText("rank", "discrete", list=("2", "4", "8", "16", "32", "64")),
        ParameterText("kind", "categorical", list=("a", "b")),
        ParameterText("rate", "double", "0", "1"),
    ]
)
PATH = "spec.algorithm.algorithmSettings"


class Listed:
    """Hands out ranks in order and writes down what it was asked."""

    name = "listed"
    options = OptionTable([Option("patience", int, 5, "a made-up option", low=1, high=100)])

    def __init__(self) -> None:
        self.requests: list[SuggestRequest] = []
        self.validated: list[tuple[SearchSpace, Mapping[str, str]]] = []

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        self.validated.append((space, dict(settings)))
        return [Problem("inner", "x", "y")] if settings.get("patience") == "7" else []

    def suggest(self, request: SuggestRequest) -> Suggestions:
        self.requests.append(request)
        tried = {request.space.key(trial.assignments) for trial in request.trials}
        points = [point for point in request.space.enumerate() if request.space.key(point) not in tried]
        return Suggestions(tuple(points[: request.count]), "made up", 0, {"inner": 1.0, "ignored": 0.0}, "fit")


FINITE = parse_space(
    [
        ParameterText("seed", "int", "0", "4"),
        ParameterText("rank", "discrete", list=("2", "4", "8", "16", "32", "64")),
        ParameterText("kind", "categorical", list=("a", "b")),
    ]
)


def training(rank: int, seed: int, value: float | None = None, state: TrialState | None = None) -> Trial:
    state = state or (TrialState.PENDING if value is None else TrialState.SUCCEEDED)
    return Trial(f"r{rank}s{seed}", {"seed": str(seed), "rank": str(rank), "kind": "a"}, state, value)


def ask(trials: list[Trial], count: int = 1, **settings: str) -> tuple[Suggestions, Listed]:
    inner = Listed()
    told = {"seed_parameter": "seed", **settings}
    request = SuggestRequest("e", FINITE, LOSS, told, tuple(trials), count, len(trials), 30)
    return OverSeeds(inner).suggest(request), inner


def pairs(answer: Suggestions) -> list[tuple[str, str]]:
    """Rank and seed of each suggestion."""
    return [(point["rank"], point["seed"]) for point in answer.assignments]


# ------------------------------------------------------------------------------------------------------- the settings


def test_the_options_are_the_strategys_own_and_three_more() -> None:
    names = [option.name for option in OverSeeds(Listed()).options]
    assert names == ["patience", "seed_parameter", "seeds", "racing"]
    assert {option.name: option.default for option in OPTIONS} == {"seed_parameter": "", "seeds": None, "racing": None}


def test_settings_are_split() -> None:
    settings = {"patience": "3", "seed_parameter": "seed", "racing": "off", "nonsense": "1"}
    assert own_settings(settings) == {"seed_parameter": "seed", "racing": "off"}
    assert strategy_settings(settings) == {"patience": "3", "nonsense": "1"}


@pytest.mark.parametrize(
    ("settings", "seeds", "racing"),
    [
        ({}, 3, True),
        ({"seeds": "", "racing": ""}, 3, True),
        ({"seeds": "5", "racing": "off"}, 5, False),
        ({"seeds": "1", "racing": "on"}, 1, True),
    ],
)
def test_a_plan(settings: dict[str, str], seeds: int, racing: bool) -> None:
    plan = read_plan(SPACE, {"seed_parameter": "seed", "patience": "3", **settings})
    assert plan is not None
    assert (plan.parameter, plan.values, plan.seeds, plan.racing) == (
        "seed",
        ("0", "1", "2", "3", "4"),
        seeds,
        racing,
    )
    assert plan.space.names == ("rank", "kind", "rate")


def test_the_default_is_no_more_seeds_than_there_are() -> None:
    space = parse_space([ParameterText("seed", "discrete", list=("3", "9")), ParameterText("x", "int", "1", "3")])
    plan = read_plan(space, {"seed_parameter": "seed"})
    assert plan is not None
    assert (plan.seeds, plan.values) == (2, ("3", "9"))


@pytest.mark.parametrize("settings", [{}, {"seed_parameter": ""}, {"seed_parameter": " ", "seeds": "", "racing": ""}])
def test_without_the_setting_there_is_no_plan(settings: dict[str, str]) -> None:
    assert read_plan(SPACE, settings) is None


@pytest.mark.parametrize(
    ("settings", "path", "allowed"),
    [
        ({"seed_parameter": "sed"}, "seed_parameter", "one of the int or discrete parameters seed, rank"),
        ({"seed_parameter": "kind"}, "seed_parameter", "one of the int or discrete parameters seed, rank"),
        ({"seed_parameter": "rate"}, "seed_parameter", "one of the int or discrete parameters seed, rank"),
        ({"seed_parameter": "seed", "seeds": "6"}, "seeds", "at most 5, the number of values of seed"),
        ({"seed_parameter": "seed", "seeds": "0"}, "seeds", "a whole number from 1 to 1000"),
        ({"seed_parameter": "seed", "racing": "maybe"}, "racing", "one of on, off"),
        ({"seeds": "3"}, "seeds", "only together with seed_parameter"),
        ({"racing": "on"}, "racing", "only together with seed_parameter"),
    ],
)
def test_mistakes_are_told(settings: dict[str, str], path: str, allowed: str) -> None:
    name = path
    with pytest.raises(InvalidInput) as caught:
        read_plan(SPACE, settings)
    (problem,) = caught.value.problems
    assert problem == Problem(f"{PATH}.{name}", settings[name], allowed)
    inner = Listed()
    assert OverSeeds(inner).validate(SPACE, LOSS, settings) == [problem]
    request = SuggestRequest("e", SPACE, LOSS, settings, (), 1)
    with pytest.raises(InvalidInput, match=name):
        OverSeeds(inner).suggest(request)
    assert inner.requests == []


def test_a_space_of_nothing_but_seeds_is_refused() -> None:
    space = parse_space([ParameterText("seed", "int", "0", "4")])
    with pytest.raises(InvalidInput, match="a search space that has others, too"):
        read_plan(space, {"seed_parameter": "seed"})


def test_every_mistake_is_told_at_once() -> None:
    settings = {"patience": "0", "patence": "3", "racing": "maybe", "seeds": "3"}
    problems = OverSeeds(Listed()).validate(SPACE, LOSS, settings)
    assert [problem.path.removeprefix(f"{PATH}.") for problem in problems] == ["patience", "patence", "racing", "seeds"]
    with pytest.raises(InvalidInput) as caught:
        OverSeeds(Listed()).suggest(SuggestRequest("e", SPACE, LOSS, settings, (), 1))
    assert {problem.path for problem in caught.value.problems} <= {problem.path for problem in problems}


def test_the_strategy_validates_its_own_settings_over_the_rest_of_the_space() -> None:
    inner = Listed()
    settings = {"patience": "7", "seed_parameter": "seed"}
    assert OverSeeds(inner).validate(SPACE, LOSS, settings) == [Problem("inner", "x", "y")]
    ((space, told),) = inner.validated
    assert (space.names, told) == (("rank", "kind", "rate"), {"patience": "7"})


def test_without_the_setting_the_strategy_is_asked_as_it_is() -> None:
    inner = Listed()
    trials = (training(2, 0, 1.0), training(2, 1, 1.5))
    request = SuggestRequest("e", FINITE, LOSS, {"patience": "3", "seed_parameter": ""}, trials, 2, 2, 30)
    answer = OverSeeds(inner).suggest(request)
    (asked,) = inner.requests
    assert asked == replace(request, settings={"patience": "3"})
    assert answer.details == {"inner": 1.0, "ignored": 0.0}


# --------------------------------------------------------------------------------------- what the wrapped strategy sees


def test_one_trial_for_each_configuration_without_the_seed() -> None:
    trials = [
        training(2, 0, 1.0), training(2, 1, 1.4), training(4, 0, 3.0), training(8, 0),
        training(16, 0, state=TrialState.FAILED),
        Trial("foreign", {"rank": "2", "kind": "a"}, TrialState.SUCCEEDED, -1.0),
    ]  # fmt: skip
    request = SuggestRequest("e", FINITE, LOSS, {"seed_parameter": "seed", "patience": "3"}, tuple(trials), 1, 6, 30)
    inner = without_seeds(request)
    assert inner.space.names == ("rank", "kind")
    assert inner.settings == {"patience": "3"}
    assert {t.assignments["rank"]: (t.state, t.value) for t in inner.trials} == {
        "2": (TrialState.SUCCEEDED, pytest.approx(1.2)),
        "4": (TrialState.SUCCEEDED, 3.0),
        "8": (TrialState.PENDING, None),
        "16": (TrialState.FAILED, None),
    }
    # Its own trials are 5, one was handed out that is not among them.
    assert inner.issued == 4 + 1
    errors = {t.assignments["rank"]: t.standard_error for t in inner.trials}
    np.testing.assert_allclose([errors["2"], errors["4"]], measure([[1.0, 1.4], [3.0]]).standard_errors)
    # More seeds make a surer value.
    assert errors["2"] is not None
    assert errors["4"] is not None
    assert errors["2"] < errors["4"] * 2


def test_before_anything_is_repeated_errors_are_what_the_trainings_tell() -> None:
    told = replace(training(2, 1, 1.0), standard_error=0.25)
    failed = training(2, 0, state=TrialState.FAILED)
    trials = (failed, told, training(4, 0, 2.0))
    inner = without_seeds(SuggestRequest("e", FINITE, LOSS, {"seed_parameter": "seed"}, trials, 1, 3))
    assert {t.assignments["rank"]: t.standard_error for t in inner.trials} == {"2": 0.25, "4": None}


def test_the_number_of_configurations_at_most() -> None:
    request = SuggestRequest("e", FINITE, LOSS, {"seed_parameter": "seed"}, (), 1, 0, 31)
    assert without_seeds(request).max_trials == 31
    assert without_seeds(replace(request, settings={**request.settings, "racing": "off"})).max_trials == 11
    assert without_seeds(replace(request, max_trials=None)).max_trials is None


def test_a_pool_is_one_of_configurations() -> None:
    points = [{"seed": s, "rank": r, "kind": "a"} for r, s in (("4", "3"), ("2", "1"), ("4", "0"))]
    pool = FINITE.at(FINITE.encode(points))
    request = SuggestRequest("e", FINITE, LOSS, {"seed_parameter": "seed"}, (), 1, pool=pool)
    inner = without_seeds(request).pool
    assert inner is not None
    assert list(inner) == [{"rank": "4", "kind": "a"}, {"rank": "2", "kind": "a"}]
    strategy = Listed()
    strategy.suggest = lambda asked: Suggestions(tuple(asked.pool or ())[: asked.count])  # type: ignore[method-assign, arg-type]
    answer = OverSeeds(strategy).suggest(replace(request, count=2))
    assert pairs(answer) == [("4", "0"), ("2", "1")]  # the first seeds that the pool has
    trials = (training(4, 0, 1.0), training(2, 1, 2.0))
    after = OverSeeds(strategy).suggest(
        replace(request, trials=trials, issued=2, settings={**request.settings, "racing": "off"})
    )
    assert pairs(after) == [("4", "3")]
    assert after.repeated == 0


@pytest.mark.parametrize("racing", ["on", "off"])
def test_a_pool_with_few_seeds_is_used_up_before_anything_is_repeated(racing: str) -> None:
    points = [
        {"seed": s, "rank": r, "kind": "a"} for r, s in (("4", "3"), ("2", "1"), ("4", "0"), ("8", "2"), ("16", "4"))
    ]
    pool = FINITE.at(FINITE.encode(points))
    strategy = OverSeeds(LanguageBO(FakeEncoder()))
    settings = {"seed_parameter": "seed", "surrogate": "numeric", "racing": racing}
    request = SuggestRequest("e", FINITE, LOSS, settings, (), 5, pool=pool)
    answer = strategy.suggest(request)
    assert {FINITE.key(point) for point in answer.assignments} == set(pool.keys)
    assert answer.repeated == 0
    trials: list[Trial] = []
    for i in range(5):
        (point,) = strategy.suggest(replace(request, trials=tuple(trials), count=1, issued=i)).assignments
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, float(point["rank"])))
    assert {FINITE.key(trial.assignments) for trial in trials} == set(pool.keys)


def test_what_the_strategy_says_is_passed_on() -> None:
    answer, _ = ask([training(2, 0, 1.0)], count=2, seeds="1")
    assert (answer.fallback, answer.reason) == ("made up", "fit")
    assert answer.details == {"inner": 1.0, "ignored": 0.0, "configurations": 1.0, "further_seeds": 0.0}


# ------------------------------------------------------------------------------------------------------- who gets seeds


def test_without_racing_every_configuration_gets_all_its_seeds() -> None:
    answer, inner = ask([], count=7, racing="off")
    assert pairs(answer) == [("2", "0"), ("2", "1"), ("2", "2")] * 1 + [("2", "0"), ("2", "1"), ("2", "2")] + [
        ("4", "0")
    ]
    assert [point["kind"] for point in answer.assignments] == ["a"] * 3 + ["b"] * 3 + ["a"]
    assert inner.requests[0].count == 3
    # One by one it is the same sequence, whatever has ended by then.
    trials: list[Trial] = []
    for i, expected in enumerate(answer.assignments):
        (point,) = ask(trials, racing="off")[0].assignments
        assert point == expected
        value = 1.0 if i % 2 else None
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED if value else TrialState.PENDING, value))


def test_without_racing_a_configuration_that_failed_gets_no_further_seed() -> None:
    failed = [training(2, 0, state=TrialState.FAILED), training(4, 0, 1.0)]
    answer, _ = ask(failed, count=3, racing="off")
    assert pairs(answer)[:2] == [("4", "1"), ("4", "2")]
    # As often as not is not failed.
    answer, _ = ask([training(2, 0, state=TrialState.FAILED), training(2, 1, 1.0)], racing="off")
    assert pairs(answer) == [("2", "2")]


def test_racing_gives_seeds_to_the_incumbent_and_to_open_configurations() -> None:
    clear = [training(2, 0, 1.0), training(4, 0, 3.0), training(8, 0, 4.0), training(16, 0, 5.0)]
    answer, inner = ask(clear, count=4)
    assert pairs(answer)[:2] == [("2", "1"), ("2", "2")]
    assert answer.details["further_seeds"] == 2
    assert inner.requests[0].count == 2
    near = [training(2, 0, 1.0), training(4, 0, 1.0001), training(8, 0, 4.0), training(16, 0, 5.0)]
    answer, inner = ask(near, count=4)
    assert pairs(answer) == [("2", "1"), ("2", "2"), ("4", "1"), ("4", "2")]
    assert inner.requests == []
    assert answer.fallback is None


def test_seeds_that_run_count_as_used() -> None:
    trials = [training(2, 0, 1.0), training(2, 1), training(4, 0, 9.0), training(8, 0, 10.0)]
    answer, _ = ask(trials, count=2)
    assert pairs(answer)[0] == ("2", "2")
    assert Counter(rank for rank, _ in pairs(answer))["2"] == 2  # the second: a new configuration, kind b
    assert answer.assignments[1]["kind"] == "b"


def test_before_anything_has_ended_racing_starts_configurations() -> None:
    answer, _ = ask([training(2, 0), training(4, 0)], count=2)
    assert all(point["seed"] == "0" for point in answer.assignments)
    assert len({(point["rank"], point["kind"]) for point in answer.assignments} | {("2", "a"), ("4", "a")}) == 4


def test_a_seed_that_was_used_by_somebody_is_left_out() -> None:
    answer, _ = ask([training(2, 1, 1.0), training(4, 0, 9.0), training(8, 0, 10.0)], count=2)
    assert pairs(answer) == [("2", "0"), ("2", "2")]


def test_the_other_direction() -> None:
    gain = Objective("gain", Goal.MAXIMIZE)
    trials = [training(2, 0, 1.0), training(4, 0, 3.0), training(8, 0, 9.0)]
    request = SuggestRequest("e", FINITE, gain, {"seed_parameter": "seed"}, tuple(trials), 1, 3)
    assert pairs(OverSeeds(Listed()).suggest(request)) == [("8", "1")]


# ----------------------------------------------------------------------------------------------------- the final choice


def test_the_best_configuration_is_not_the_luckiest_training() -> None:
    trials = [
        training(2, 0, 1.0), training(2, 1, 2.4), training(2, 2, 2.0),
        training(4, 0, 1.5), training(4, 1, 1.4), training(4, 2, 1.6),
        training(8, 0, 3.0), training(16, 0, 3.2),
    ]  # fmt: skip
    best = best_configuration(trials, LOSS, "seed")
    assert best is not None
    assert best.configuration.assignments == {"rank": "4", "kind": "a"}
    assert best.value == pytest.approx(1.5)
    assert best.trainings == 3
    assert best.trial.name == "r4s0"
    assert best.standard_error == pytest.approx(
        measure([[1.0, 2.4, 2.0], [1.5, 1.4, 1.6], [3.0], [3.2]]).standard_errors[1]
    )
    single = best_configuration(trials, LOSS)
    assert single is not None
    assert (single.trial.name, single.standard_error) == ("r2s0", None)


def test_a_configuration_that_fails_more_often_than_not_is_not_chosen() -> None:
    broken = [training(2, 0, 0.1), *(training(2, s, state=TrialState.FAILED) for s in (1, 2))]
    best = best_configuration([*broken, training(4, 0, 5.0)], LOSS, "seed")
    assert best is not None
    assert best.configuration.assignments["rank"] == "4"
    assert best_configuration(broken, LOSS, "seed") is None
    assert best_configuration([], LOSS, "seed") is None


def test_the_first_of_equals_is_chosen_and_its_first_training_stands_for_it() -> None:
    trials = [
        training(2, 0, state=TrialState.FAILED), training(2, 1, 1.0),
        training(4, 0, 1.0), training(8, 0, 2.0), training(16, 0, 3.0),
    ]  # fmt: skip
    best = best_configuration(trials, LOSS, "seed")
    assert best is not None
    assert best.trial.name == "r2s1"
    gain = best_configuration(trials, Objective("gain", Goal.MAXIMIZE), "seed")
    assert gain is not None
    assert gain.trial.name == "r16s0"


def test_spellings_of_a_configuration_are_one_with_a_key() -> None:
    trials = [training(2, 0, 1.0), replace(training(2, 1, 3.0), assignments={"seed": "1", "rank": "2.0", "kind": "a"})]
    by_text = best_configuration(trials, LOSS, "seed")
    by_key = best_configuration(trials, LOSS, "seed", key=lambda point: (float(point["rank"]), point["kind"]))
    assert by_text is not None
    assert by_key is not None
    assert (by_text.trainings, by_key.trainings, by_key.value) == (1, 2, 2.0)


def test_earlier_searches_are_passed_on_seeds_and_all() -> None:
    """An earlier search may have had seeds, too: what is compared are quantities that both spaces have."""
    points = list(FINITE.enumerate())
    found = EarlierTrials(
        "exp-a",
        Goal.MINIMIZE,
        tuple(points),
        tuple(float(point["rank"]) + 0.1 * int(point["seed"]) for point in points),
    )
    settings = {"seed_parameter": "seed", "surrogate": "numeric", "prior": "none", "random_state": "1"}
    request = SuggestRequest("e", FINITE, LOSS, settings, (), 1, earlier=(found,))
    assert without_seeds(request).earlier == (found,)
    strategy = OverSeeds(LanguageBO(FakeEncoder()))
    (point,) = strategy.suggest(request).assignments
    assert (point["rank"], point["seed"]) == ("2", "0")  # the most plausible one: least in the earlier search
