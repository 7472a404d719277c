"""What every strategy promises. A strategy joins by a fixture ``subject`` (see ``test_strategies.py``).

Spaces of every kind × bounds, exact count, no repetition, determinism, pending, failed, unavailable, foreign trials,
restart, exhaustion, direction.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from rankwise.strategies.base import Strategy, Suggestions, SuggestRequest
from support.spaces import spaces

LOSS = Objective("loss", Goal.MINIMIZE)

DOUBLES = {
    name: (ParameterText("x", "double", "0.001", "10", distribution=name),)
    for name in ("uniform", "logUniform", "normal", "logNormal")
}
SPACES: dict[str, tuple[ParameterText, ...]] = {
    **{f"double {name}": texts for name, texts in DOUBLES.items()},
    "double, no distribution": (ParameterText("x", "double", "-1", "1"), ParameterText("y", "double", "0", "1e-6")),
    "stepped double": (ParameterText("x", "double", "0.1", "4.9", "0.2"), ParameterText("y", "double", "1", "2", ".5")),
    "int": (ParameterText("x", "int", "-20", "20"),),
    "int logUniform with step": (ParameterText("x", "int", "1", "4096", "3", distribution="logUniform"),),
    "discrete": (ParameterText("x", "discrete", list=("8", "1", "64", "16", "1e-3", "0.5", "2", "4", "32", "128")),),
    "categorical": (
        ParameterText("x", "categorical", list=("q", "v", "q,v", "all linear", "é", "MLP")),
        ParameterText("y", "categorical", list=("linear", "cosine")),
    ),
    "mixed": (
        ParameterText("rank", "discrete", list=("1", "2", "4", "8", "16", "32")),
        ParameterText("learning_rate", "double", "1e-6", "1e-2", distribution="logUniform"),
        ParameterText("schedule", "categorical", list=("linear", "cosine", "constant")),
        ParameterText("steps", "int", "10", "1000", "10"),
    ),
    "finite, big": (
        ParameterText("rank", "discrete", list=("1", "2", "4", "8", "16", "32", "64", "128", "256")),
        ParameterText("alpha_ratio", "discrete", list=("0.5", "1", "2", "4", "8", "16", "32", "64", "128")),
        ParameterText("dropout", "double", "0", "0.3", "0.05"),
        ParameterText("batch_size", "discrete", list=("2", "4", "8", "16", "32", "64", "128", "256")),
        ParameterText("learning_rate", "discrete", list=tuple(f"{k}e-4" for k in range(1, 11))),
    ),
    "too big to enumerate": tuple(ParameterText(f"x{i}", "int", "1", "1000000") for i in range(4)),
}
TINY = parse_space((ParameterText("a", "int", "1", "3"), ParameterText("b", "categorical", list=("u", "v"))))
ONE_POINT = parse_space((ParameterText("a", "discrete", list=("7",)),))
MIXED = parse_space(SPACES["mixed"])


@dataclass
class Subject:
    """A strategy under test.

    Attributes:
        make: builds the strategy anew, as a restarted process would.
        settings: quick ``algorithmSettings``.
        learns: whether results change its suggestions.
        metrics: further metrics that its trials report.
    """

    make: Callable[[], Strategy]
    settings: Mapping[str, str] = field(default_factory=dict)
    learns: bool = True
    metrics: tuple[str, ...] = ()

    def aim(self, objective: Objective) -> Objective:
        """The objective, with the further metrics."""
        return replace(objective, additional_metrics=self.metrics)

    def measured(self, space: SearchSpace, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """The trials; those of the space that have a value report the further metrics, too: costs, greater than 0."""
        return tuple(
            replace(trial, metrics={name: cost_of(space, trial, i) for i, name in enumerate(self.metrics)})
            if self.metrics and trial.value is not None and space.contains(trial.assignments)
            else trial
            for trial in trials
        )

    def ask(
        self,
        space: SearchSpace,
        trials: Sequence[Trial] = (),
        count: int = 1,
        issued: int | None = None,
        objective: Objective = LOSS,
        experiment: str = "an-experiment",
        **settings: str,
    ) -> Suggestions:
        """Ask a strategy that was just built."""
        request = SuggestRequest(
            experiment=experiment,
            space=space,
            objective=self.aim(objective),
            settings={**self.settings, **settings},
            trials=self.measured(space, trials),
            count=count,
            issued=len(trials) if issued is None else issued,
        )
        return self.make().suggest(request)


def value_of(space: SearchSpace, assignments: Mapping[str, str]) -> float:
    """A smooth loss with its least value in the middle of the first parameter."""
    units = space.encode([assignments])[0]
    return float(((units - 0.4) ** 2).sum() + 0.1 * units[0])


def cost_of(space: SearchSpace, trial: Trial, i: int) -> float:
    """A cost that grows with the parameters, each time with another one the most."""
    units = space.encode([trial.assignments])[0]
    return 1.0 + float(units.sum()) + float(units[i % len(units)])


def tried(space: SearchSpace, n: int, seed: int = 3) -> list[Trial]:
    """n different succeeded trials (fewer in a smaller space)."""
    points = space.candidates(n, seed)
    return [Trial(f"trial-{i}", point, TrialState.SUCCEEDED, value_of(space, point)) for i, point in enumerate(points)][
        :n
    ]


def in_every_state(space: SearchSpace) -> list[Trial]:
    """Trials in all states, two of one configuration, and foreign ones."""
    succeeded = tried(space, 12)
    states = [
        TrialState.SUCCEEDED,
        TrialState.EARLY_STOPPED,
        TrialState.FAILED,
        TrialState.UNAVAILABLE,
        TrialState.PENDING,
        TrialState.SUCCEEDED,
    ]
    trials = []
    for i, trial in enumerate(succeeded):
        state = states[i % len(states)]
        has_value = state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)
        trials.append(replace(trial, state=state, value=trial.value if has_value else None))
    trials.append(Trial("stopped-without-value", succeeded[-1].assignments, TrialState.EARLY_STOPPED))
    trials.append(replace(trials[0], name="same-again", value=(trials[0].value or 0.0) + 0.01))
    trials.append(Trial("foreign-names", {"nobody": "1"}, TrialState.SUCCEEDED, -1e9))
    trials.append(Trial("foreign-value", dict.fromkeys(space.names, "no value"), TrialState.SUCCEEDED, -1e9))
    return trials


def keys(space: SearchSpace, assignments: Sequence[Mapping[str, str]]) -> list[tuple[object, ...]]:
    return [space.key(point) for point in assignments]


def check(space: SearchSpace, answer: Suggestions, trials: Sequence[Trial], count: int) -> None:
    """Everything that holds for every answer."""
    assert len(answer.assignments) == count
    for point in answer.assignments:
        assert space.contains(point), f"{point} is not in {space}"
    known = {space.key(trial.assignments) for trial in trials if space.contains(trial.assignments)}
    suggested = keys(space, answer.assignments)
    untried = None if space.size is None else space.size - len(known)
    fresh = count if untried is None else min(count, untried)
    assert answer.repeated == count - fresh
    assert len(set(suggested[:fresh])) == fresh, "a configuration was suggested twice"
    assert not known & set(suggested[:fresh]), "a tried configuration was suggested"


class StrategyContract:
    """The suite. Subclass it and define a fixture ``subject`` that gives a :class:`Subject`."""

    @pytest.mark.parametrize("kind", SPACES)
    def test_answers_are_new_and_valid_in_every_kind_of_space(self, subject: Subject, kind: str) -> None:
        space = parse_space(SPACES[kind])
        trials = in_every_state(space)
        answer = subject.ask(space, trials, count=3)
        check(space, answer, trials, 3)
        assert answer.fallback is None
        assert answer.details["ignored"] == 2
        # The same from another object, with the trials in another order and under other names.
        shuffled = [replace(trial, name=f"other-{i}") for i, trial in enumerate(trials)]
        random.Random(1).shuffle(shuffled)
        assert subject.ask(space, shuffled, count=3, issued=len(trials)).assignments == answer.assignments

    @pytest.mark.parametrize("kind", SPACES)
    def test_the_first_request_has_no_trials(self, subject: Subject, kind: str) -> None:
        space = parse_space(SPACES[kind])
        check(space, subject.ask(space, count=4), (), 4)

    def test_name_is_one_that_katib_takes(self, subject: Subject) -> None:
        name = subject.make().name
        assert name.replace("-", "").isalnum()
        assert name == name.lower()

    @pytest.mark.parametrize("count", [0, 1, 7, 25])
    def test_exactly_as_many_as_asked_for(self, subject: Subject, count: int) -> None:
        trials = in_every_state(MIXED)
        check(MIXED, subject.ask(MIXED, trials, count=count), trials, count)

    @pytest.mark.parametrize("state", [TrialState.PENDING, TrialState.FAILED, TrialState.UNAVAILABLE])
    def test_trials_without_any_value_so_far(self, subject: Subject, state: TrialState) -> None:
        trials = [replace(trial, state=state, value=None) for trial in tried(MIXED, 8)]
        check(MIXED, subject.ask(MIXED, trials, count=3), trials, 3)

    @pytest.mark.parametrize("n", [1, 2])
    def test_few_observations(self, subject: Subject, n: int) -> None:
        trials = tried(MIXED, n)
        check(MIXED, subject.ask(MIXED, trials, count=2, issued=10), trials, 2)

    @pytest.mark.parametrize("values", [[0.5] * 9, [1e6, *[0.1] * 8], [-1e300, 1e300, *[0.0] * 7], [5e-324] * 9])
    def test_any_finite_value_is_taken(self, subject: Subject, values: list[float]) -> None:
        trials = [replace(trial, value=value) for trial, value in zip(tried(MIXED, 9), values, strict=True)]
        answer = subject.ask(MIXED, trials, count=2)
        check(MIXED, answer, trials, 2)
        assert answer.fallback is None

    def test_one_configuration_many_times(self, subject: Subject) -> None:
        point = tried(MIXED, 1)[0]
        trials = [replace(point, name=f"seed-{i}", value=1.0 + 0.01 * i) for i in range(10)]
        check(MIXED, subject.ask(MIXED, trials, count=2), trials, 2)

    def test_foreign_trials_change_nothing(self, subject: Subject) -> None:
        ours = tried(MIXED, 8)
        foreign = [
            Trial("a", {"x": "1"}, TrialState.SUCCEEDED, -1e6),
            Trial("b", {**ours[0].assignments, "more": "1"}, TrialState.FAILED),
            Trial("c", {**ours[0].assignments, "rank": "3"}, TrialState.SUCCEEDED, 0.0),
            Trial("d", {}, TrialState.PENDING),
        ]
        with_them = subject.ask(MIXED, [*foreign, *ours], count=2, issued=8)
        assert with_them.assignments == subject.ask(MIXED, ours, count=2, issued=8).assignments
        assert with_them.details["ignored"] == len(foreign)

    def test_other_spellings_of_a_tried_configuration_are_known(self, subject: Subject) -> None:
        space = parse_space((ParameterText("lr", "discrete", list=("1e-3", "2e-3", "5e-3")),))
        trials = [
            Trial("a", {"lr": "0.001"}, TrialState.SUCCEEDED, 1.0),
            Trial("b", {"lr": "5e-03"}, TrialState.SUCCEEDED, 2.0),
        ]
        answer = subject.ask(space, trials, count=1)
        assert answer.assignments == ({"lr": "2e-3"},)
        assert answer.repeated == 0

    def test_a_whole_tiny_space_is_searched_before_anything_is_repeated(self, subject: Subject) -> None:
        assert TINY.size == 6
        trials: list[Trial] = []
        for i in range(6):
            answer = subject.ask(TINY, trials, count=1, issued=i)
            check(TINY, answer, trials, 1)
            point = answer.assignments[0]
            trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, value_of(TINY, point)))
        assert len({TINY.key(trial.assignments) for trial in trials}) == 6
        after = subject.ask(TINY, trials, count=4, issued=6)
        check(TINY, after, trials, 4)
        assert after.repeated == 4
        assert len(set(keys(TINY, after.assignments))) == 4, "the repeats themselves differ while they can"

    def test_more_are_asked_for_than_the_space_has(self, subject: Subject) -> None:
        trials = tried(TINY, 4)
        answer = subject.ask(TINY, trials, count=9)
        check(TINY, answer, trials, 9)
        assert answer.repeated == 7
        assert len(subject.ask(ONE_POINT, count=5).assignments) == 5

    def test_pending_configurations_alone_can_exhaust_a_space(self, subject: Subject) -> None:
        trials = [replace(trial, state=TrialState.PENDING, value=None) for trial in tried(TINY, 6)]
        answer = subject.ask(TINY, trials, count=2)
        check(TINY, answer, trials, 2)
        assert answer.repeated == 2

    def test_maximizing_is_minimizing_the_negative(self, subject: Subject) -> None:
        trials = in_every_state(MIXED)
        negated = [replace(trial, value=None if trial.value is None else -trial.value) for trial in trials]
        gain = Objective("gain", Goal.MAXIMIZE)
        assert (
            subject.ask(MIXED, negated, count=3, objective=gain).assignments
            == subject.ask(MIXED, trials, count=3).assignments
        )

    def test_results_count_if_it_learns(self, subject: Subject) -> None:
        trials = tried(MIXED, 10)
        upside_down = [replace(trial, value=-(trial.value or 0.0)) for trial in trials]
        same = subject.ask(MIXED, trials, 2).assignments == subject.ask(MIXED, upside_down, 2).assignments
        assert same is not subject.learns

    def test_another_experiment_searches_elsewhere(self, subject: Subject) -> None:
        first = subject.ask(MIXED, count=3, experiment="one").assignments
        assert first != subject.ask(MIXED, count=3, experiment="two").assignments
        assert (
            subject.ask(MIXED, count=3, experiment="one", random_state="5").assignments
            == subject.ask(MIXED, count=3, experiment="two", random_state="5").assignments
        )

    def test_a_design_goes_on_where_it_stopped(self, subject: Subject) -> None:
        whole = subject.ask(MIXED, count=4, issued=0).assignments
        trials: list[Trial] = []
        stepwise = []
        for i in range(4):
            (point,) = subject.ask(MIXED, trials, count=1, issued=i).assignments
            stepwise.append(point)
            trials.append(Trial(f"t{i}", point, TrialState.PENDING))
        assert tuple(stepwise) == whole
        # Suggested, and not yet created: the trials are absent, the number of suggestions tells.
        assert subject.ask(MIXED, (), count=2, issued=2).assignments == whole[2:]

    def test_an_absurd_number_of_issued_suggestions(self, subject: Subject) -> None:
        check(MIXED, subject.ask(MIXED, count=2, issued=2**31 - 1), (), 2)
        check(TINY, subject.ask(TINY, count=2, issued=2**31 - 1), (), 2)

    def test_late_requests_are_answered(self, subject: Subject) -> None:
        trials = in_every_state(MIXED)
        request = SuggestRequest(
            "an-experiment",
            MIXED,
            subject.aim(LOSS),
            subject.settings,
            subject.measured(MIXED, trials),
            3,
            len(trials),
            None,
            Deadline(0.0),
        )
        check(MIXED, subject.make().suggest(request), trials, 3)

    def test_wrong_settings_are_all_reported(self, subject: Subject) -> None:
        bad = {"random_state": "-1", "randomstate": "3"}
        with pytest.raises(InvalidInput, match=r"random_state: got '-1'; allowed: a whole number from 0 to") as caught:
            subject.ask(MIXED, **bad)
        assert [problem.path for problem in caught.value.problems] == [
            "spec.algorithm.algorithmSettings.random_state",
            "spec.algorithm.algorithmSettings.randomstate",
        ]
        assert "did you mean random_state?" in caught.value.problems[1].allowed
        assert subject.make().validate(MIXED, LOSS, bad) == list(caught.value.problems)

    def test_empty_settings_are_the_defaults(self, subject: Subject) -> None:
        strategy = subject.make()
        empty = {option.name: "" for option in strategy.options}
        assert strategy.validate(MIXED, LOSS, empty) == []
        parsed = strategy.options.parse(empty)
        assert dict(parsed) == {option.name: option.default for option in strategy.options}

    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_space_and_any_trials(self, subject: Subject, data: st.DataObject) -> None:
        space = data.draw(spaces(max_dimension=3))
        n = data.draw(st.integers(0, 6))
        points = list(space.candidates(max(n, 1), data.draw(st.integers(0, 3))))[:n]
        finite = st.floats(allow_nan=False, allow_infinity=False)
        trials = []
        for i, point in enumerate(points):
            state = data.draw(st.sampled_from(list(TrialState)))
            value = data.draw(finite) if state is TrialState.SUCCEEDED else None
            trials.append(Trial(f"t{i}", point, state, value))
        count = data.draw(st.integers(1, 3))
        answer = subject.ask(space, trials, count=count, issued=data.draw(st.integers(0, 20)))
        assert len(answer.assignments) == count
        assert all(space.contains(point) for point in answer.assignments)
        known = set(keys(space, [trial.assignments for trial in trials]))
        fresh = keys(space, answer.assignments[: count - answer.repeated])
        assert len(set(fresh)) == len(fresh)
        assert not known & set(fresh)
        if space.size is not None:
            assert len(fresh) == min(count, space.size - len(known))


def encode_answer(answer: Suggestions) -> str:
    """The configurations as JSON, to compare answers of different processes."""
    return json.dumps(list(answer.assignments), sort_keys=True)
