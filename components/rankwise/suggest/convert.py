"""Katib's messages to the types of :mod:`rankwise.space`, and back.

An enum value that this version does not know is a mistake of the input, never skipped: Katib's own services log an
unknown parameter type and go on with a parameter that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rankwise.errors import InvalidInput, Problem
from rankwise.katib_api import api_pb2
from rankwise.space.parameter import Distribution, ParameterText, ParameterType
from rankwise.space.search_space import SearchSpace
from rankwise.space.trial import Goal, Objective, Trial, TrialState, parse_finite
from rankwise.suggest.naming import is_of_other_scope

Number = TypeVar("Number")
"""An enum of the wire: a plain int at run time, where any number may arrive."""

_TYPES = {
    api_pb2.DOUBLE: ParameterType.DOUBLE,
    api_pb2.INT: ParameterType.INT,
    api_pb2.DISCRETE: ParameterType.DISCRETE,
    api_pb2.CATEGORICAL: ParameterType.CATEGORICAL,
}
_DISTRIBUTIONS = {
    api_pb2.UNIFORM: Distribution.UNIFORM,
    api_pb2.LOG_UNIFORM: Distribution.LOG_UNIFORM,
    api_pb2.NORMAL: Distribution.NORMAL,
    api_pb2.LOG_NORMAL: Distribution.LOG_NORMAL,
}
_GOALS = {api_pb2.MINIMIZE: Goal.MINIMIZE, api_pb2.MAXIMIZE: Goal.MAXIMIZE}
_STATES = {
    api_pb2.TrialStatus.CREATED: TrialState.PENDING,
    api_pb2.TrialStatus.RUNNING: TrialState.PENDING,
    api_pb2.TrialStatus.SUCCEEDED: TrialState.SUCCEEDED,
    api_pb2.TrialStatus.KILLED: TrialState.FAILED,
    api_pb2.TrialStatus.FAILED: TrialState.FAILED,
    api_pb2.TrialStatus.METRICSUNAVAILABLE: TrialState.UNAVAILABLE,
    api_pb2.TrialStatus.EARLYSTOPPED: TrialState.EARLY_STOPPED,
    # Katib's word for a trial whose last condition it cannot name: the trial is there, without a result so far.
    api_pb2.TrialStatus.UNKNOWN: TrialState.PENDING,
}
_CONDITIONS = {
    TrialState.PENDING: api_pb2.TrialStatus.RUNNING,
    TrialState.SUCCEEDED: api_pb2.TrialStatus.SUCCEEDED,
    TrialState.FAILED: api_pb2.TrialStatus.FAILED,
    TrialState.UNAVAILABLE: api_pb2.TrialStatus.METRICSUNAVAILABLE,
    TrialState.EARLY_STOPPED: api_pb2.TrialStatus.EARLYSTOPPED,
}


# --- messages -> domain -----------------------------------------------------------------------------------------------


def parameter_texts(spec: api_pb2.ExperimentSpec) -> list[ParameterText]:
    """The parameters as raw text; what is wrong with them is for ``parse_space`` to say.

    A type or distribution that is unknown becomes ``unknown (<number>)``, which ``parse_space`` refuses by name.
    """
    return [
        ParameterText(
            name=parameter.name,
            type=_word(_TYPES, parameter.parameter_type),
            min=parameter.feasible_space.min,
            max=parameter.feasible_space.max,
            step=parameter.feasible_space.step,
            list=tuple(parameter.feasible_space.list),
            distribution=""
            if parameter.feasible_space.distribution == api_pb2.DISTRIBUTION_UNSPECIFIED
            else _word(_DISTRIBUTIONS, parameter.feasible_space.distribution),
        )
        for parameter in spec.parameter_specs.parameters
    ]


def _word(table: Mapping[Number, ParameterType] | Mapping[Number, Distribution], number: Number) -> str:
    known = table.get(number)
    return f"unknown ({number})" if known is None else known.value


def objective(spec: api_pb2.ExperimentSpec) -> Objective:
    """The objective. A goal of 0 counts as not given: the wire cannot tell the two apart.

    Raises:
        InvalidInput: no direction, no metric, or a goal that is not finite.
    """
    message = spec.objective
    problems: list[Problem] = []
    if (goal := _GOALS.get(message.type)) is None:
        given = "" if message.type == api_pb2.UNKNOWN else f"unknown ({message.type})"
        problems.append(Problem("spec.objective.type", given, "minimize or maximize"))
    if not message.objective_metric_name:
        problems.append(Problem("spec.objective.objectiveMetricName", "", "the name of the metric to optimize"))
    if not math.isfinite(message.goal):
        problems.append(Problem("spec.objective.goal", str(message.goal), "a finite number"))
    if problems or goal is None:
        raise InvalidInput(problems)
    return Objective(
        metric=message.objective_metric_name,
        goal=goal,
        target=message.goal or None,
        additional_metrics=tuple(message.additional_metric_names),
    )


def settings(algorithm: api_pb2.AlgorithmSpec, path: str) -> dict[str, str]:
    """The algorithm's settings by name.

    Raises:
        InvalidInput: a setting is given twice.
    """
    result: dict[str, str] = {}
    problems: list[Problem] = []
    for setting in algorithm.algorithm_settings:
        if setting.name in result:
            problems.append(Problem(f"{path}.{setting.name}", setting.value, "each setting once"))
        result[setting.name] = setting.value
    if problems:
        raise InvalidInput(problems)
    return result


@dataclass(frozen=True, slots=True)
class TrialsRead:
    """Trials of a request.

    Attributes:
        trials: those of this search, sorted by name, whatever order they came in.
        foreign: names of trials that were left out: of another namespace, or not of this search space.
    """

    trials: tuple[Trial, ...]
    foreign: tuple[str, ...]


def trials(
    messages: Iterable[api_pb2.Trial],
    space: SearchSpace,
    aim: Objective,
    *,
    experiment: str = "",
    scope: str | None = None,
) -> TrialsRead:
    """The trials that belong to this search.

    Args:
        messages: in any order.
        space: a trial whose assignments it does not contain is foreign.
        aim: whose metric gives a trial its value, and whose ``error_metric`` the value's standard error.
        experiment: the Experiment's name.
        scope: see :func:`rankwise.suggest.naming.trial_name`; None: names tell nothing.

    Raises:
        InvalidInput: a trial's condition is a number that this version does not know.
    """
    read: list[Trial] = []
    foreign: list[str] = []
    problems: list[Problem] = []
    for message in messages:
        assignments = _assignments(message.spec.parameter_assignments.assignments)
        if message.status.condition not in _STATES:
            path = f"trials[{message.name}].status.condition"
            problems.append(Problem(path, str(message.status.condition), "a condition of Katib v0.19 (0 to 7)"))
        elif (
            assignments is None
            or not space.contains(assignments)
            or (scope is not None and is_of_other_scope(message.name, experiment, scope))
        ):
            foreign.append(message.name)
        else:
            read.append(_trial(message, assignments, aim))
    if problems:
        raise InvalidInput(problems)
    read.sort(key=lambda trial: (trial.name, sorted(trial.assignments.items())))
    return TrialsRead(tuple(read), tuple(sorted(foreign)))


def _assignments(messages: Sequence[api_pb2.ParameterAssignment]) -> dict[str, str] | None:
    """Name -> text value; None when a name comes twice."""
    result = {message.name: message.value for message in messages}
    return result if len(result) == len(messages) else None


def _trial(message: api_pb2.Trial, assignments: dict[str, str], aim: Objective) -> Trial:
    state = _STATES[message.status.condition]
    metrics: dict[str, float] = {}
    for metric in message.status.observation.metrics:
        if (number := parse_finite(metric.value)) is not None:
            metrics[metric.name] = number
    value = metrics.get(aim.metric)
    if state is TrialState.SUCCEEDED and value is None:
        state = TrialState.UNAVAILABLE
    if state not in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED):
        value = None
    error = None if value is None else aim.standard_error(metrics)
    return Trial(message.name, assignments, state, value, metrics, error)


# --- domain -> messages -----------------------------------------------------------------------------------------------


def assignment_messages(assignments: Mapping[str, str], names: Sequence[str]) -> list[api_pb2.ParameterAssignment]:
    """One message a parameter, in the order of ``names``."""
    return [api_pb2.ParameterAssignment(name=name, value=assignments[name]) for name in names]


def parameter_message(text: ParameterText) -> api_pb2.ParameterSpec:
    """A parameter as Katib's controller sends it.

    Raises:
        InvalidInput: the type or the distribution has no number on the wire.
    """
    types = {kind.value: number for number, kind in _TYPES.items()}
    distributions = {kind.value: number for number, kind in _DISTRIBUTIONS.items()}
    problems: list[Problem] = []
    if text.type not in types:
        problems.append(Problem(f"{text.name}.parameterType", text.type, ", ".join(types)))
    if text.distribution and text.distribution not in distributions:
        problems.append(Problem(f"{text.name}.feasibleSpace.distribution", text.distribution, ", ".join(distributions)))
    if problems:
        raise InvalidInput(problems)
    return api_pb2.ParameterSpec(
        name=text.name,
        parameter_type=types[text.type],
        feasible_space=api_pb2.FeasibleSpace(
            max=text.max,
            min=text.min,
            list=text.list,
            step=text.step,
            distribution=distributions.get(text.distribution, api_pb2.DISTRIBUTION_UNSPECIFIED),
        ),
    )


def objective_message(aim: Objective) -> api_pb2.ObjectiveSpec:
    """An objective as Katib's controller sends it."""
    return api_pb2.ObjectiveSpec(
        type=api_pb2.MINIMIZE if aim.goal is Goal.MINIMIZE else api_pb2.MAXIMIZE,
        goal=0.0 if aim.target is None else aim.target,
        objective_metric_name=aim.metric,
        additional_metric_names=aim.additional_metrics,
    )


def experiment_message(
    name: str,
    parameters: Sequence[ParameterText],
    aim: Objective,
    algorithm: str,
    algorithm_settings: Mapping[str, str] | None = None,
    *,
    parallel_trials: int = 0,
    max_trials: int | None = None,
) -> api_pb2.Experiment:
    """An Experiment as Katib's controller sends it; for clients of the service such as the local engine."""
    return api_pb2.Experiment(
        name=name,
        spec=api_pb2.ExperimentSpec(
            parameter_specs=api_pb2.ExperimentSpec.ParameterSpecs(parameters=map(parameter_message, parameters)),
            objective=objective_message(aim),
            algorithm=api_pb2.AlgorithmSpec(
                algorithm_name=algorithm,
                algorithm_settings=[
                    api_pb2.AlgorithmSetting(name=key, value=value) for key, value in (algorithm_settings or {}).items()
                ],
            ),
            parallel_trial_count=parallel_trials,
            max_trial_count=max_trials or 0,
        ),
    )


def trial_message(trial: Trial, aim: Objective) -> api_pb2.Trial:
    """A trial as Katib's controller sends it."""
    metrics = dict(trial.metrics)
    if trial.value is not None:
        metrics[aim.metric] = trial.value
    if trial.standard_error is not None:
        metrics[aim.error_metric] = trial.standard_error
    return api_pb2.Trial(
        name=trial.name,
        spec=api_pb2.TrialSpec(
            objective=objective_message(aim),
            parameter_assignments=api_pb2.TrialSpec.ParameterAssignments(
                assignments=assignment_messages(trial.assignments, tuple(trial.assignments))
            ),
        ),
        status=api_pb2.TrialStatus(
            condition=_CONDITIONS[trial.state],
            observation=api_pb2.Observation(
                metrics=[api_pb2.Metric(name=name, value=repr(value)) for name, value in metrics.items()]
            ),
        ),
    )
