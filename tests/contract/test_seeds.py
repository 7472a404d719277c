"""Strategies over several seeds keep every promise of a strategy, with one seed and with more."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.strategy_contract import LOSS, StrategyContract, Subject
from contract.test_strategies import QUICK, registered
from rankwise.errors import Problem
from rankwise.space import Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from rankwise.strategies.base import Strategy, Suggestions, SuggestRequest
from rankwise.strategies.options import OptionTable
from support.spaces import spaces, untimed

SEED = "chance"
ONE_SEED = parse_space([ParameterText(SEED, "discrete", list=("7",))]).parameters


@dataclass
class OneSeed:
    """A strategy whose every space gets a seed parameter with one value: it must be the strategy itself."""

    strategy: Strategy

    @property
    def name(self) -> str:
        return self.strategy.name

    @property
    def options(self) -> OptionTable:
        return self.strategy.options

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        return self.strategy.validate(_extended(space), objective, {**settings, "seed_parameter": SEED})

    def suggest(self, request: SuggestRequest) -> Suggestions:
        trials = (
            replace(trial, assignments={**trial.assignments, SEED: "7.0"})
            if request.space.contains(trial.assignments)
            else trial
            for trial in request.trials
        )
        answer = self.strategy.suggest(
            replace(
                request,
                space=_extended(request.space),
                trials=tuple(trials),
                settings={**request.settings, "seed_parameter": SEED},
            )
        )
        assert all(point[SEED] == "7" for point in answer.assignments)
        without = ({k: v for k, v in point.items() if k != SEED} for point in answer.assignments)
        return replace(answer, assignments=tuple(without))


def _extended(space: SearchSpace) -> SearchSpace:
    return SearchSpace([*space.parameters, *ONE_SEED])


SUBJECTS: dict[str, tuple[str, Mapping[str, str], bool]] = {
    "sobol": ("sobol", {}, False),
    "language-bo, numeric": ("language-bo", {**QUICK, "surrogate": "numeric"}, True),
}


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    algorithm, settings, learns = SUBJECTS[request.param]
    return Subject(lambda: OneSeed(registered()[algorithm]), settings, learns)


class TestOneSeed(StrategyContract):
    """The suite, with a seed parameter that has one value."""


# ------------------------------------------------------------------------------------------------------- several seeds


def with_seeds(space: SearchSpace, count: int) -> SearchSpace:
    (seed,) = parse_space([ParameterText(SEED, "int", "0", str(count - 1))]).parameters
    return SearchSpace([*space.parameters, seed])


@untimed
@given(data=st.data())
def test_any_space_any_trials_any_seeds(data: st.DataObject) -> None:
    values = data.draw(st.integers(1, 4))
    space = with_seeds(data.draw(spaces(max_dimension=2)), values)
    n = data.draw(st.integers(0, 10))
    points = list(space.candidates(max(n, 1), data.draw(st.integers(0, 3))))[:n]
    finite = st.floats(allow_nan=False, allow_infinity=False)
    trials = []
    for i, point in enumerate(points):
        state = data.draw(st.sampled_from(list(TrialState)))
        value = data.draw(finite) if state is TrialState.SUCCEEDED else None
        trials.append(Trial(f"t{i}", point, state, value))
    count = data.draw(st.integers(0, 5))
    settings = {
        "seed_parameter": SEED,
        "seeds": data.draw(st.sampled_from(["", *map(str, range(1, values + 1))])),
        "racing": data.draw(st.sampled_from(["", "on", "off"])),
    }
    algorithm = data.draw(st.sampled_from(["sobol", "random"]))
    issued = data.draw(st.integers(0, 20))
    subject = Subject(lambda: registered()[algorithm])
    answer = subject.ask(space, trials, count=count, issued=issued, **settings)
    assert len(answer.assignments) == count
    assert all(space.contains(point) for point in answer.assignments)
    known = {space.key(trial.assignments) for trial in trials}
    given_now = [space.key(point) for point in answer.assignments]
    repeated = count - len(set(given_now) - known)
    assert answer.repeated == repeated
    assert repeated == (0 if space.size is None else max(0, count - (space.size - len(known))))
    shuffled = [replace(trial, name=f"other-{i}") for i, trial in enumerate(trials)]
    random.Random(0).shuffle(shuffled)
    assert subject.ask(space, shuffled, count=count, issued=issued, **settings).assignments == answer.assignments


@pytest.mark.parametrize("racing", ["on", "off"])
@pytest.mark.parametrize("algorithm", ["sobol", "language-bo", "optuna-tpe"])
def test_a_whole_space_with_its_seeds_is_used_up_before_anything_is_repeated(algorithm: str, racing: str) -> None:
    space = parse_space([ParameterText("x", "int", "1", "3"), ParameterText(SEED, "discrete", list=("1", "2", "5"))])
    settings = {"seed_parameter": SEED, "racing": racing, "seeds": "2"}
    if algorithm == "language-bo":
        settings |= {**QUICK, "surrogate": "numeric"}
    subject = Subject(lambda: registered()[algorithm], settings)
    trials: list[Trial] = []
    for i in range(9):
        (point,) = subject.ask(space, trials, count=1, issued=i).assignments
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, float(point["x"]) + 0.01 * i))
    assert len({space.key(trial.assignments) for trial in trials}) == 9
    after = subject.ask(space, trials, count=2, issued=9, objective=LOSS)
    assert after.repeated == 2
