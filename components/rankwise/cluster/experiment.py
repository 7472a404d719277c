"""What an Experiment in the cluster says, read leniently.

Katib has accepted it, so nothing is refused here that a report can do without: a parameter of a kind that Rankwise
does not search, an annotation that is wrong, a status that is not there yet. What was left out is said in ``notes``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.cluster.objects import Object
from rankwise.errors import InvalidInput, Problem
from rankwise.local.annotations import read_default_configuration
from rankwise.report.facts import AlgorithmFacts, ConditionFacts, ParameterFacts
from rankwise.report.sources import parameter_facts
from rankwise.space import Goal, Objective, ParameterText, SearchSpace
from rankwise.space.parsing import parse_parameters


@dataclass(frozen=True, slots=True)
class ClusterExperiment:
    """An Experiment as its API server tells it.

    Attributes:
        name, namespace, uid: of its metadata.
        objective: what is optimized.
        strategies: metric -> ``min``, ``max`` or ``latest``, the objective's metric first.
        algorithm: name and settings.
        max_trials: ``maxTrialCount``; None without a limit.
        conditions: its own conditions.
        ended: the condition that ended it, ``Succeeded`` or ``Failed``; None while it goes on.
        started, completed: of its status.
        optimal: name of ``status.currentOptimalTrial``; "" while there is none.
        counted: ``status.trials``.
        deleting: whether it is being deleted.
        parameters: the spec's parameters, raw.
        annotations: of its metadata.
    """

    name: str
    namespace: str
    uid: str
    objective: Objective
    strategies: Mapping[str, str]
    algorithm: AlgorithmFacts
    max_trials: int | None
    conditions: tuple[ConditionFacts, ...]
    ended: ConditionFacts | None
    started: dt.datetime | None
    completed: dt.datetime | None
    optimal: str
    counted: int
    deleting: bool
    parameters: tuple[ParameterText, ...]
    annotations: Mapping[str, str]


def read_experiment(document: Object) -> ClusterExperiment:
    """Read the object of the API server.

    Raises:
        InvalidInput: it is no Experiment, or has no objective.
    """
    if document.get("kind") != "Experiment":
        raise InvalidInput([Problem("kind", str(document.get("kind")), "Experiment")])
    metadata, spec, status = (mapping(document.get(part)) for part in ("metadata", "spec", "status"))
    objective, strategies = _objective(mapping(spec.get("objective")))
    algorithm = mapping(spec.get("algorithm"))
    settings = pairs(algorithm.get("algorithmSettings"))
    conditions = tuple(_condition(item) for item in items(status.get("conditions")))
    ended = next((c for c in conditions if c.type in ("Succeeded", "Failed") and c.status == "True"), None)
    maximum = spec.get("maxTrialCount")
    return ClusterExperiment(
        name=str(metadata.get("name", "")),
        namespace=str(metadata.get("namespace", "")),
        uid=str(metadata.get("uid", "")),
        objective=objective,
        strategies=strategies,
        algorithm=AlgorithmFacts(str(algorithm.get("algorithmName", "")), settings),
        max_trials=maximum if isinstance(maximum, int) else None,
        conditions=conditions,
        ended=ended,
        started=time(status.get("startTime")),
        completed=time(status.get("completionTime")) if ended else None,
        optimal=str(mapping(status.get("currentOptimalTrial")).get("bestTrialName") or ""),
        counted=int(status.get("trials") or 0),
        deleting="deletionTimestamp" in metadata,
        parameters=tuple(_parameter_text(item) for item in items(spec.get("parameters"))),
        annotations={key: str(value) for key, value in mapping(metadata.get("annotations")).items()},
    )


def _objective(spec: Mapping[str, Any]) -> tuple[Objective, dict[str, str]]:
    metric = str(spec.get("objectiveMetricName") or "")
    try:
        goal = Goal(spec.get("type"))
    except ValueError:
        raise InvalidInput([Problem("spec.objective.type", str(spec.get("type")), "minimize or maximize")]) from None
    if not metric:
        raise InvalidInput([Problem("spec.objective.objectiveMetricName", "", "the name of a metric")])
    additional = tuple(str(name) for name in spec.get("additionalMetricNames") or ())
    # Katib's webhook writes the strategies into the spec; these are what it takes where they are not given.
    strategies = dict.fromkeys((metric, *additional), "max" if goal is Goal.MAXIMIZE else "min")
    for name, value in pairs(spec.get("metricStrategies")).items():
        if value in ("min", "max", "latest"):
            strategies[name] = value
    target = spec.get("goal")
    return Objective(metric, goal, None if target is None else float(target), additional), strategies


def _condition(item: Mapping[str, Any]) -> ConditionFacts:
    return ConditionFacts(
        type=str(item.get("type", "")),
        status=str(item.get("status", "")),
        reason=str(item.get("reason", "")),
        message=str(item.get("message", "")),
        since=time(item.get("lastTransitionTime")),
    )


def _parameter_text(item: Mapping[str, Any]) -> ParameterText:
    space = mapping(item.get("feasibleSpace"))
    bounds = {key: str(space.get(key) or "") for key in ("min", "max", "step", "distribution")}
    return ParameterText(
        str(item.get("name", "")),
        str(item.get("parameterType", "")),
        list=tuple(str(value) for value in space.get("list") or ()),
        **bounds,
    )


def parameters_of(
    experiment: ClusterExperiment, tried: Sequence[Mapping[str, str]]
) -> tuple[tuple[ParameterFacts, ...], dict[str, str] | None, list[str]]:
    """The search space, the default configuration, and notes on what of them could not be read.

    A parameter that Rankwise cannot read, or that only the trials have (as in a search for architectures), is shown as
    a category of the values that it is said to have or took.

    Args:
        experiment: the Experiment.
        tried: assignments of the trials.
    """
    facts: dict[str, ParameterFacts] = {}
    notes: list[str] = []
    known = []
    for text in experiment.parameters:
        read, problems = parse_parameters([text], text.name)
        if read and not problems:
            known += list(read)
            facts[text.name] = parameter_facts(read[0])
            continue
        values = text.list or _taken(text.name, tried)
        wrong = "; ".join(f"{p.path.rpartition('.')[2]} {p.value!r} is not {p.allowed}" for p in problems)
        notes.append(f"Parameter {text.name} is shown as a category: {wrong}.")
        if values:
            facts[text.name] = ParameterFacts(text.name, "categorical", values=values)
    for name in sorted({name for assignments in tried for name in assignments} - facts.keys()):
        facts[name] = ParameterFacts(name, "categorical", values=_taken(name, tried))
        if name not in {text.name for text in experiment.parameters}:
            notes.append(f"Parameter {name} stands in the trials but not in the Experiment.")
    default: dict[str, str] | None = None
    if len(known) == len(facts) and known:
        problems = []
        default = read_default_configuration(experiment.annotations, SearchSpace(known), problems)
        notes += [f"The default configuration is left out: {problem}." for problem in problems]
    return tuple(facts.values()), default, notes


def _taken(name: str, tried: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Values that the trials took: numbers ascending, then texts."""
    values = {assignments[name] for assignments in tried if name in assignments}

    def key(value: str) -> tuple[bool, float, str]:
        try:
            number = float(value)
        except ValueError:
            return True, 0.0, value
        return number != number, number, value

    return tuple(sorted(values, key=key))


# ------------------------------------------------------------------------------------------- fields of an object


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one: Go leaves out what is empty."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def pairs(value: object) -> dict[str, str]:
    """A list of ``{name, value}`` as a mapping."""
    return {str(item.get("name", "")): str(item.get("value", "")) for item in items(value)}


def time(value: object) -> dt.datetime | None:
    """A time of Kubernetes; None for what is none."""
    try:
        found = dt.datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None
