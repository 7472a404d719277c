"""Messages to types and back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.katib_api import api_pb2
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from rankwise.suggest import convert, naming

AIM = Objective("loss", Goal.MINIMIZE, additional_metrics=("rougeL",))
Status = api_pb2.TrialStatus

PARAMETERS = [
    ParameterText("rank", "int", min="4", max="64", step="4", distribution="uniform"),
    ParameterText("learning_rate", "double", min="1e-5", max="1e-2", distribution="logUniform"),
    ParameterText("dropout", "discrete", list=("0", "0.05", "0.10"), distribution="uniform"),
    ParameterText("variant", "categorical", list=("lora", "dora"), distribution="uniform"),
]
POINT = {"rank": "8", "learning_rate": "3e-4", "dropout": "0.10", "variant": "dora"}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return parse_space(PARAMETERS)


def trial(
    name: str = "t-1",
    point: dict[str, str] | None = None,
    condition: int = Status.SUCCEEDED,
    metrics: dict[str, str] | None = None,
) -> api_pb2.Trial:
    point = POINT if point is None else point
    return api_pb2.Trial(
        name=name,
        spec=api_pb2.TrialSpec(
            parameter_assignments=api_pb2.TrialSpec.ParameterAssignments(
                assignments=[api_pb2.ParameterAssignment(name=key, value=value) for key, value in point.items()]
            )
        ),
        status=Status(
            condition=condition,
            observation=api_pb2.Observation(
                metrics=[api_pb2.Metric(name=key, value=value) for key, value in (metrics or {}).items()]
            ),
        ),
    )


def read_one(message: api_pb2.Trial, space: SearchSpace) -> Trial:
    read = convert.trials([message], space, AIM)
    assert read.foreign == ()
    (only,) = read.trials
    return only


# --- parameters -------------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)
parameters = st.builds(
    ParameterText,
    name=words,
    type=st.sampled_from(["double", "int", "discrete", "categorical"]),
    min=words,
    max=words,
    step=words,
    list=st.lists(words, max_size=4).map(tuple),
    distribution=st.sampled_from(["", "uniform", "logUniform", "normal", "logNormal"]),
)


@given(st.lists(parameters, max_size=5))
def test_parameters_survive_the_wire_verbatim(texts: list[ParameterText]) -> None:
    message = convert.experiment_message("e", texts, AIM, "sobol")
    read = api_pb2.Experiment.FromString(message.SerializeToString())
    assert convert.parameter_texts(read.spec) == texts


def test_unknown_numbers_of_types_and_distributions_are_named() -> None:
    message = convert.experiment_message("e", PARAMETERS, AIM, "sobol")
    message.spec.parameter_specs.parameters[0].parameter_type = 0
    message.spec.parameter_specs.parameters[1].parameter_type = 17
    message.spec.parameter_specs.parameters[2].feasible_space.distribution = 9
    texts = convert.parameter_texts(message.spec)
    assert [text.type for text in texts[:2]] == ["unknown (0)", "unknown (17)"]
    assert texts[2].distribution == "unknown (9)"
    with pytest.raises(InvalidInput, match=r"unknown \(17\)") as caught:
        parse_space(texts)
    assert len(caught.value.problems) == 3


def test_words_that_have_no_number_are_refused_on_the_way_out() -> None:
    with pytest.raises(InvalidInput, match="'real'") as caught:
        convert.parameter_message(ParameterText("x", "real", distribution="beta"))
    assert [problem.path for problem in caught.value.problems] == ["x.parameterType", "x.feasibleSpace.distribution"]


def test_katibs_uniform_on_lists_is_accepted(space: SearchSpace) -> None:
    assert space.contains(POINT)


# --- objective and settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", [Goal.MINIMIZE, Goal.MAXIMIZE])
@pytest.mark.parametrize("target", [None, 0.25, -3.0])
def test_an_objective_survives_the_wire(goal: Goal, target: float | None) -> None:
    aim = Objective("rougeL", goal, target, ("loss", "bleu"))
    message = api_pb2.ObjectiveSpec.FromString(convert.objective_message(aim).SerializeToString())
    assert convert.objective(api_pb2.ExperimentSpec(objective=message)) == aim


def test_a_goal_that_is_not_set_arrives_as_0_and_is_none() -> None:
    message = api_pb2.ObjectiveSpec(type=api_pb2.MAXIMIZE, objective_metric_name="m")
    assert message.goal == 0.0
    assert convert.objective(api_pb2.ExperimentSpec(objective=message)).target is None


def test_every_mistake_of_an_objective_is_told() -> None:
    with pytest.raises(InvalidInput, match="minimize or maximize") as caught:
        convert.objective(api_pb2.ExperimentSpec(objective=api_pb2.ObjectiveSpec(goal=math.inf)))
    assert [problem.path for problem in caught.value.problems] == [
        "spec.objective.type",
        "spec.objective.objectiveMetricName",
        "spec.objective.goal",
    ]


def test_an_unknown_objective_type_is_told() -> None:
    message = api_pb2.ObjectiveSpec(type=5, objective_metric_name="m")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"unknown \(5\)"):
        convert.objective(api_pb2.ExperimentSpec(objective=message))


def test_settings_are_read_by_name_and_a_repeated_one_is_told() -> None:
    algorithm = api_pb2.AlgorithmSpec(algorithm_settings=[api_pb2.AlgorithmSetting(name="a", value="1")])
    assert convert.settings(algorithm, "p") == {"a": "1"}
    algorithm.algorithm_settings.add(name="a", value="2")
    with pytest.raises(InvalidInput, match=r"p\.a: got '2'; allowed: each setting once"):
        convert.settings(algorithm, "p")


# --- trials -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        (Status.CREATED, TrialState.PENDING),
        (Status.RUNNING, TrialState.PENDING),
        (Status.SUCCEEDED, TrialState.SUCCEEDED),
        (Status.KILLED, TrialState.FAILED),
        (Status.FAILED, TrialState.FAILED),
        (Status.METRICSUNAVAILABLE, TrialState.UNAVAILABLE),
        (Status.EARLYSTOPPED, TrialState.EARLY_STOPPED),
        (Status.UNKNOWN, TrialState.PENDING),
    ],
)
def test_conditions_become_states(space: SearchSpace, condition: int, state: TrialState) -> None:
    read = read_one(trial(condition=condition, metrics={"loss": "1.5", "rougeL": "0.3"}), space)
    assert read.state is state
    assert read.assignments == POINT
    assert read.value == (1.5 if state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED) else None)
    assert read.metrics == {"loss": 1.5, "rougeL": 0.3}


def test_every_condition_of_katib_has_a_state(space: SearchSpace) -> None:
    for value in Status.DESCRIPTOR.enum_types_by_name["TrialConditionType"].values:
        read_one(trial(condition=value.number, metrics={"loss": "1"}), space)


def test_a_condition_that_nobody_knows_is_refused_not_skipped(space: SearchSpace) -> None:
    messages = [trial("a", condition=42), trial("b"), trial("c", condition=8)]
    with pytest.raises(InvalidInput, match=r"trials\[a\]\.status\.condition: got '42'") as caught:
        convert.trials(messages, space, AIM)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("text", ["", "unavailable", "nan", "NaN", "inf", "-inf", "1e999", "1,5", "None"])
def test_a_succeeded_trial_without_a_finite_value_is_unavailable(space: SearchSpace, text: str) -> None:
    read = read_one(trial(metrics={"loss": text, "rougeL": "0.3"}), space)
    assert (read.state, read.value) == (TrialState.UNAVAILABLE, None)
    assert read.metrics == {"rougeL": 0.3}


def test_a_succeeded_trial_that_reports_only_another_metric_is_unavailable(space: SearchSpace) -> None:
    assert read_one(trial(metrics={"accuracy": "0.9"}), space).state is TrialState.UNAVAILABLE


def test_an_early_stopped_trial_may_have_no_value(space: SearchSpace) -> None:
    read = read_one(trial(condition=Status.EARLYSTOPPED, metrics={"loss": "unavailable"}), space)
    assert (read.state, read.value) == (TrialState.EARLY_STOPPED, None)


def test_trials_are_sorted_whatever_order_they_came_in(space: SearchSpace) -> None:
    messages = [trial(name, metrics={"loss": "1"}) for name in ("b", "c", "a")]
    read = convert.trials(messages, space, AIM)
    assert [one.name for one in read.trials] == ["a", "b", "c"]
    assert read == convert.trials(messages[::-1], space, AIM)


@pytest.mark.parametrize(
    "point",
    [
        {},
        {name: value for name, value in POINT.items() if name != "rank"},
        POINT | {"epochs": "3"},
        POINT | {"rank": "9"},
        POINT | {"rank": "eight"},
        POINT | {"learning_rate": "1"},
        POINT | {"variant": "LORA"},
    ],
)
def test_trials_that_are_not_of_the_space_are_foreign(space: SearchSpace, point: dict[str, str]) -> None:
    read = convert.trials([trial("theirs", point), trial("ours", metrics={"loss": "2"})], space, AIM)
    assert read.foreign == ("theirs",)
    assert [one.name for one in read.trials] == ["ours"]


def test_a_trial_that_names_a_parameter_twice_is_foreign(space: SearchSpace) -> None:
    message = trial("twice")
    message.spec.parameter_assignments.assignments.add(name="rank", value="8")
    assert convert.trials([message], space, AIM).foreign == ("twice",)


def test_trials_of_the_same_experiment_in_another_namespace_are_foreign(space: SearchSpace) -> None:
    ours = trial(naming.trial_name("e", "team-a", 0, POINT), metrics={"loss": "2"})
    theirs = trial(naming.trial_name("e", "team-b", 0, POINT), metrics={"loss": "1"})
    katibs = trial("e-x7k2m9qa", metrics={"loss": "3"})
    read = convert.trials([theirs, ours, katibs], space, AIM, experiment="e", scope="team-a")
    assert {one.name for one in read.trials} == {ours.name, katibs.name}
    assert read.foreign == (theirs.name,)
    # Without a scope, names tell nothing.
    assert len(convert.trials([theirs, ours], space, AIM, experiment="e", scope=None).trials) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.25", 0.25), ("0", 0.0), ("-0.25", None), ("", None), ("unavailable", None), ("nan", None), ("inf", None)],
)
def test_the_standard_error_is_read_from_its_metric(space: SearchSpace, text: str, expected: float | None) -> None:
    read = read_one(trial(metrics={"loss": "2", "loss_standard_error": text}), space)
    assert (read.value, read.standard_error) == (2.0, expected)
    assert read_one(trial(metrics={"loss": "2"}), space).standard_error is None
    # Without a value it is an error of nothing.
    assert read_one(trial(metrics={"loss": "nan", "loss_standard_error": text}), space).standard_error is None


@given(
    state=st.sampled_from(TrialState),
    value=st.floats(allow_nan=False, allow_infinity=False),
    other=st.floats(allow_nan=False, allow_infinity=False),
    error=st.none() | st.floats(0, allow_infinity=False),
)
def test_a_trial_survives_the_wire(state: TrialState, value: float, other: float, error: float | None) -> None:
    measured = state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)
    metrics = {"rougeL": other} | ({"loss": value} if measured else {})
    error = error if measured else None
    metrics |= {} if error is None else {"loss_standard_error": error}
    before = Trial("t", POINT, state, value if measured else None, metrics, error)
    message = api_pb2.Trial.FromString(convert.trial_message(before, AIM).SerializeToString())
    assert read_one(message, parse_space(PARAMETERS)) == before


def test_assignments_are_written_in_the_order_of_the_space(space: SearchSpace) -> None:
    shuffled = dict(reversed(POINT.items()))
    messages = convert.assignment_messages(shuffled, space.names)
    assert [(message.name, message.value) for message in messages] == list(POINT.items())
