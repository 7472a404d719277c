"""Population-based training: who goes on from whom follows from trials and notes alone, whatever happens to them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.space import Goal, Objective, ParameterText, Trial, TrialState, parse_space
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.lineage import GENERATION_LABEL, MEMBER_LABEL, PARENT_LABEL, Lineage
from rankwise.strategies.pbt import PopulationBasedTraining
from support.spaces import untimed

LOSS = Objective("loss", Goal.MINIMIZE)
SPACE = parse_space(
    (
        ParameterText("rank", "discrete", list=("4", "8", "16")),
        ParameterText("learning_rate", "double", "1e-5", "1e-1", distribution="logUniform"),
        ParameterText("dropout", "double", "0", "0.5"),
        ParameterText("variant", "categorical", list=("lora", "dora")),
    )
)
HANDED_ON = ("rank", "variant")
P = 5


@dataclass
class Run:
    """A search, trial by trial.

    Attributes:
        parents: trial -> parent's name; a trial that began anew is missing.
    """

    options: dict[str, str] = field(default_factory=lambda: {"population": str(P), "initial_design": "sobol"})
    trials: dict[str, Trial] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    objective: Objective = LOSS

    def answer(self, count: int = 1, issued: int | None = None) -> Suggestions:
        return PopulationBasedTraining().suggest(
            SuggestRequest(
                experiment="e",
                space=SPACE,
                objective=self.objective,
                settings=self.options,
                trials=tuple(self.trials.values()),
                count=count,
                issued=len(self.trials) if issued is None else issued,
                notes=self.notes,
            )
        )

    def ask(self, count: int = 1) -> list[str]:
        """Names of new trials, which run."""
        answer = self.answer(count)
        made = []
        for point, labels, note in zip(answer.assignments, answer.labels, answer.notes, strict=True):
            name = f"t{len(self.trials)}"
            self.trials[name] = Trial(name, point, TrialState.PENDING)
            self.notes[name] = note
            if PARENT_LABEL in labels:
                self.parents[name] = labels[PARENT_LABEL]
            made.append(name)
        return made

    def end(self, name: str, value: float | None, state: TrialState = TrialState.FAILED) -> None:
        """End a trial with a value, or else with a state."""
        ended = TrialState.SUCCEEDED if value is not None else state
        self.trials[name] = replace(self.trials[name], state=ended, value=value)

    def of(self, name: str) -> Lineage:
        lineage = Lineage.read(self.notes[name])
        assert lineage is not None
        return lineage

    def rate(self, name: str) -> float:
        return float(self.trials[name].assignments["learning_rate"])


def generation(run: Run, values: Mapping[int, float | None]) -> dict[int, str]:
    """Ask for P trials at once and end them; member -> trial."""
    made = {run.of(name).member: name for name in run.ask(P)}
    for member, value in values.items():
        run.end(made[member], value)
    return made


def test_members_begin_anew_and_go_on_in_turn() -> None:
    run = Run()
    first = generation(run, dict.fromkeys(range(P), 1.0))
    assert list(first) == list(range(P))
    assert run.parents == {}
    answer = run.answer(P)
    assert [labels[MEMBER_LABEL] for labels in answer.labels] == [str(member) for member in range(P)]
    assert {labels[GENERATION_LABEL] for labels in answer.labels} == {"1"}
    # Equal values: nobody is replaced, everybody goes on with the own weights and the own configuration.
    assert [labels[PARENT_LABEL] for labels in answer.labels] == list(first.values())
    assert list(answer.assignments) == [dict(run.trials[name].assignments) for name in first.values()]
    assert answer.repeated == P


def test_the_worst_takes_over_the_best_and_changes_it() -> None:
    run = Run()
    first = generation(run, {0: 1.0, 1: 5.0, 2: 2.0, 3: 3.0, 4: 4.0})
    second = generation(run, {})
    assert run.parents[second[1]] == first[0]
    for member in (0, 2, 3, 4):
        assert run.parents[second[member]] == first[member]
        assert run.trials[second[member]].assignments == run.trials[first[member]].assignments
    taken, source = run.trials[second[1]].assignments, run.trials[first[0]].assignments
    assert all(taken[name] == source[name] for name in HANDED_ON)
    assert all(taken[name] != source[name] for name in ("learning_rate", "dropout"))


def test_maximizing_turns_it_round() -> None:
    run = Run(objective=Objective("gain", Goal.MAXIMIZE))
    first = generation(run, {0: 1.0, 1: 5.0, 2: 2.0, 3: 3.0, 4: 4.0})
    second = generation(run, {})
    assert run.parents[second[0]] == first[1]


def test_the_truncated_part_is_as_large_as_said() -> None:
    run = Run({"population": "10", "truncation": "0.3", "initial_design": "sobol", "resample_probability": "0"})
    first = run.ask(10)
    for i, name in enumerate(first):
        run.end(name, float(i))
    second = run.ask(10)
    assert [run.parents[name] for name in second[:7]] == first[:7]
    assert {run.parents[name] for name in second[7:]} <= set(first[:3])
    for name in second[7:]:
        parent = run.parents[name]
        ratio = run.rate(name) / run.rate(parent)
        # Ten digits are kept; at a bound the value stays there.
        assert ratio == pytest.approx(0.8, rel=1e-9) or ratio == pytest.approx(1.2, rel=1e-9)


def test_nobody_waits_for_the_others() -> None:
    run = Run()
    first = run.ask(P)
    run.end(first[3], 1.0)
    (next_of_3,) = run.ask()
    assert (run.of(next_of_3), run.parents[next_of_3]) == (Lineage(3, 1), first[3])
    # Everybody compares with what others had after as many generations: that 3 is a generation ahead counts nothing.
    run.end(next_of_3, 0.01)
    run.end(first[0], 0.5)
    (next_of_0,) = run.ask()
    assert (run.of(next_of_0), run.parents[next_of_0]) == (Lineage(0, 1), first[0])


def test_lost_members_take_over_the_best() -> None:
    run = Run()
    first = generation(run, {0: 1.0, 1: None, 2: 2.0, 3: 3.0, 4: 4.0})
    run.end(first[2], None, TrialState.UNAVAILABLE)
    second = generation(run, {})
    assert [run.parents[second[member]] for member in (1, 2)] == [first[0]] * 2
    assert run.answer(1).details["lost"] == 0.0


def test_a_member_that_is_lost_later_does_not_come_back_to_its_own_past() -> None:
    run = Run()
    first = generation(run, dict.fromkeys(range(P), 1.0) | {0: 0.5})
    second = generation(run, dict.fromkeys(range(P), 0.4) | {3: None, 2: 0.1})
    third = generation(run, {})
    assert run.parents[third[3]] == second[2]
    assert run.parents[second[3]] == first[3]


def test_nobody_has_a_value() -> None:
    run = Run()
    generation(run, dict.fromkeys(range(P), None))
    second = generation(run, {})
    assert run.parents == {}
    points = [SPACE.key(trial.assignments) for trial in run.trials.values()]
    assert len(set(points)) == 2 * P
    assert {run.of(name).generation for name in second.values()} == {1}


def test_a_stopped_trial_with_a_value_counts() -> None:
    run = Run()
    first = generation(run, dict.fromkeys(range(P), 1.0))
    run.trials[first[4]] = replace(run.trials[first[4]], state=TrialState.EARLY_STOPPED, value=9.0)
    second = generation(run, {})
    assert run.parents[second[4]] in set(first.values()) - {first[4]}


def test_more_trials_at_once_than_members_make_more_members() -> None:
    run = Run()
    made = run.ask(P + 3)
    assert [run.of(name) for name in made] == [Lineage(member, 0) for member in range(P + 3)]
    assert run.parents == {}
    for name in made:
        run.end(name, 1.0)
    again = run.ask(P + 3)
    assert sorted(run.of(name).member for name in again) == list(range(P + 3))


def test_a_fallbacks_trial_may_be_taken_over_and_its_member_is_not_missed() -> None:
    run = Run()
    first = run.ask(P)
    del run.notes[first[2]]  # suggested by a fallback
    for name in first:
        run.end(name, 2.0)
    run.end(first[2], 1.0)
    second = run.ask(P)
    assert sorted(run.of(name).member for name in second) == list(range(P))
    child = next(name for name in second if run.of(name).member == 2)
    assert run.of(child) == Lineage(2, 1)
    assert run.parents[child] == first[2]


def test_without_any_notes_the_best_are_handed_on_all_the_same() -> None:
    run = Run()
    for name in run.ask(P):
        run.end(name, float(name[1:]))
    run.notes.clear()
    answer = run.answer(3)
    assert {labels[PARENT_LABEL] for labels in answer.labels} == {"t0"}
    assert len({SPACE.key(point) for point in answer.assignments}) == 3


def test_a_name_that_is_no_label_is_nobodys_parent() -> None:
    run = Run()
    first = run.ask(P)
    for name in first:
        run.end(name, 2.0)
    long = "x" * 64
    run.trials[long] = replace(run.trials.pop(first[0]), name=long, value=0.1)
    run.notes[long] = run.notes.pop(first[0])
    answer = run.answer(P, issued=P)
    assert long not in {labels.get(PARENT_LABEL) for labels in answer.labels}


def test_garbage_notes_are_no_error() -> None:
    run = Run()
    first = run.ask(P)
    for name in first:
        run.end(name, 1.0)
    run.notes = dict(zip(first, ("", "x", "1.", "-1.0", "1.1.1"), strict=True)) | {"nobody": "3.7"}
    assert len(run.answer(3).assignments) == 3


@pytest.mark.parametrize("lineage", [Lineage(0, 0), Lineage(7, 123), Lineage(999_999_999, 999_999_999)])
def test_a_note_is_read_as_it_was_written(lineage: Lineage) -> None:
    assert Lineage.read(lineage.note) == lineage


events = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["ok", "ok", "ok", "failed", "unavailable"]), st.floats(0, 10)),
    min_size=1,
    max_size=40,
)


@settings(untimed, max_examples=30)
@given(events, st.integers(1, 4), st.integers(0, 2**31))
def test_whatever_happens_no_member_is_lost_and_the_answer_is_one(
    happened: list[tuple[int, str, float]], parallel: int, seed: int
) -> None:
    """Trials end in any order, well or badly; requests are repeated by other processes with the trials shuffled."""
    run = Run()
    running = run.ask(parallel)
    for which, how, value in happened:
        name = running.pop(which % len(running))
        run.end(name, value if how == "ok" else None, TrialState(how) if how != "ok" else TrialState.FAILED)
        shuffled = replace_order(run, seed)
        assert shuffled.answer() == run.answer()
        running += run.ask()
        new = running[-1]
        assert SPACE.contains(run.trials[new].assignments)
        parent = run.parents.get(new)
        if parent is not None:
            assert run.trials[parent].value is not None
            assert all(run.trials[parent].assignments[n] == run.trials[new].assignments[n] for n in HANDED_ON)
    lineages = [run.of(name) for name in run.trials]
    assert len(set(lineages)) == len(lineages), "two trials are one generation of one member"
    reached = [max((one.generation for one in lineages if one.member == m), default=-1) for m in range(P)]
    assert {one.member for one in lineages} <= set(range(P))
    # Nobody falls behind by more than the others may do while it runs: whoever has the fewest generations goes first,
    # so a member whose trial has ended is at most one generation behind.
    waiting = [m for m in range(P) if all(run.of(n).member != m for n in running)]
    assert all(reached[m] >= max(reached) - 1 for m in waiting if max(reached) > 0 and reached[m] >= 0)
    # Every generation of a member but its newest has ended.
    for name in running:
        assert run.of(name).generation == reached[run.of(name).member]


def replace_order(run: Run, seed: int) -> Run:
    names = list(run.trials)
    random.Random(seed).shuffle(names)
    notes = dict(sorted(run.notes.items(), reverse=True))
    other = Run(dict(run.options), {name: run.trials[name] for name in names}, notes, run.parents, run.objective)
    assert len(other.trials) == len(run.trials)
    return other


def test_a_batch_is_what_the_requests_one_by_one_would_give() -> None:
    run = Run()
    generation(run, {0: 1.0, 1: 5.0, 2: 2.0, 3: 3.0, 4: None})
    batch = run.answer(P)
    single = Run(dict(run.options), dict(run.trials), dict(run.notes))
    names = [single.ask()[0] for _ in range(P)]
    assert [dict(single.trials[name].assignments) for name in names] == list(batch.assignments)
    assert [single.notes[name] for name in names] == list(batch.notes)


def test_two_trainings_are_never_the_same() -> None:
    """A parent with one configuration twice would be one training twice."""
    run = Run({"population": "8", "initial_design": "sobol", "truncation": "0.5"})
    made: set[tuple[object, ...]] = set()
    for _ in range(6):
        for name in run.ask(8):
            made.add((run.parents.get(name), SPACE.key(run.trials[name].assignments)))
            run.end(name, run.rate(name))
    assert len(made) == len(run.trials) == 48


def test_it_finds_a_schedule_that_no_constant_rate_is() -> None:
    """Progress of a generation is best at a rate that falls with the generations; the last best member's ancestors
    followed it down."""
    run = Run({"population": "8", "initial_design": "sobol", "resample_probability": "0.1"})
    value: dict[str, float] = {}
    for step in range(12):
        for name in run.ask(8):
            before = value.get(run.parents.get(name, ""), 10.0)
            distance = abs(run.rate(name) / (3e-3 * 0.85**step) - 1.0)
            value[name] = before - max(0.0, 1.0 - distance)
            run.end(name, value[name])
    best = min(value, key=lambda name: value[name])
    line = [best]
    while line[-1] in run.parents:
        line.append(run.parents[line[-1]])
    assert len(line) == 12
    assert run.rate(line[0]) < run.rate(line[-1])
    # The best constant rate, of any value, on the same function.
    constant = min(
        10.0 - sum(max(0.0, 1.0 - abs(rate / (3e-3 * 0.85**step) - 1.0)) for step in range(12))
        for rate in (1e-4 * 1.01**i for i in range(500))
    )
    assert value[best] < constant


@pytest.mark.parametrize(
    ("given_settings", "path"),
    [
        ({"population": "1"}, "population"),
        ({"truncation": "0.6"}, "truncation"),
        ({"factor_down": "1.1"}, "factor_down"),
        ({"factor_up": "0.9"}, "factor_up"),
        ({"resample_probability": "2"}, "resample_probability"),
        ({"initial_design": "grid"}, "initial_design"),
        ({"perturbed": "rank"}, "perturbed"),
        ({"perturbed": "variant"}, "perturbed"),
        ({"perturbed": "learning-rate"}, "perturbed"),
    ],
)
def test_wrong_settings_are_refused(given_settings: dict[str, str], path: str) -> None:
    (problem,) = PopulationBasedTraining().validate(SPACE, LOSS, given_settings)
    assert problem.path == f"spec.algorithm.algorithmSettings.{path}"
    with pytest.raises(InvalidInput, match=path):
        Run(given_settings).answer()


def test_all_mistakes_at_once() -> None:
    found = PopulationBasedTraining().validate(SPACE, LOSS, {"population": "x", "perturbed": "rank,nobody"})
    assert len(found) == 3


def test_a_space_without_anything_to_change_is_refused_beforehand() -> None:
    """A search that runs all the same (a changed Experiment) hands everything on, and never fails."""
    space = parse_space((ParameterText("rank", "int", "1", "8"), ParameterText("variant", "categorical", list=("a",))))
    (problem,) = PopulationBasedTraining().validate(space, LOSS, {})
    assert (problem.path, problem.value) == ("spec.parameters", "rank, variant")
    assert "at least one number that may change" in problem.allowed
    trials = [Trial(f"t{i}", {"rank": str(i + 1), "variant": "a"}, TrialState.SUCCEEDED, float(i)) for i in range(4)]
    request = SuggestRequest("e", space, LOSS, {"population": "4"}, tuple(trials), 2, 4)
    assert [labels[PARENT_LABEL] for labels in PopulationBasedTraining().suggest(request).labels] == ["t0", "t0"]


@pytest.mark.parametrize("design", ["plausible", "sobol", "random"])
def test_where_members_begin(design: str) -> None:
    run = Run({"population": str(P), "initial_design": design})
    points = [SPACE.key(point) for point in run.answer(P).assignments]
    assert len(set(points)) == P
    if design == "plausible":
        smaller = Run({**run.options, "model_width": "64"}).answer(P).assignments
        assert [float(point["learning_rate"]) for point in smaller] != [
            float(point["learning_rate"]) for point in run.answer(P).assignments
        ]
