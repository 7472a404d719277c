"""What one Trial in the cluster says: condition, value as Katib takes it, reasons, where its results are."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankwise.cluster.experiment import ClusterExperiment, items, mapping, pairs, time
from rankwise.cluster.objects import Object
from rankwise.local.records import MetricSummary
from rankwise.space.trial import TrialState
from rankwise.suggest.naming import FALLBACK_LABEL, INDEX_LABEL

# The first that is true counts: the order in which Katib's controller sorts trials into the lists of its status.
_STATES = {
    "Killed": TrialState.FAILED,
    "Failed": TrialState.FAILED,
    "Succeeded": TrialState.SUCCEEDED,
    "EarlyStopped": TrialState.EARLY_STOPPED,
    "Running": TrialState.PENDING,
    "MetricsUnavailable": TrialState.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Where a trial's command puts its results, as far as the command tells.

    Attributes:
        namespaces: names in the store that may stand above the experiment's; None for none.
        experiment, trial: names in the store.
        store: URI of the store; "" where the command does not name it (it comes from a Secret, or there is none).
    """

    namespaces: tuple[str | None, ...]
    experiment: str
    trial: str
    store: str


@dataclass(frozen=True, slots=True)
class ClusterTrial:
    """A Trial as its API server tells it.

    Attributes:
        name: its name.
        owner: uid of the Experiment that owns it; "" where nothing does.
        created: when the object was made.
        assignments: parameter -> value text.
        condition: Katib's last word, e.g. ``Killed``; ``Created`` before it runs.
        state: the same as the rest of the house knows it.
        reported: the objective's text under its strategy, whatever the condition; None without an observation of it.
        value: the objective's finite value, for a trial that succeeded or was stopped early.
        metrics: every finite metric under its strategy.
        started, completed: of its status.
        index: which suggestion it tries, by our label; None where there is none.
        reason: the condition's own words, for a trial that ended without success; "" otherwise.
        fallback: our label's reason; "" where the suggestion is the algorithm's own choice.
        place: see :class:`ResultPlace`.
    """

    name: str
    owner: str
    created: str
    assignments: Mapping[str, str]
    condition: str
    state: TrialState
    reported: str | None
    value: float | None
    metrics: Mapping[str, float]
    started: dt.datetime | None
    completed: dt.datetime | None
    index: int | None
    reason: str
    fallback: str
    place: ResultPlace

    @property
    def seconds(self) -> float | None:
        """From Katib's start of the trial to its end: scheduling and image pulls are in it."""
        if self.started is None or self.completed is None or self.completed < self.started:
            return None
        return (self.completed - self.started).total_seconds()


def read_trial(document: Object, experiment: ClusterExperiment) -> ClusterTrial:
    """Read one object of the API server."""
    metadata, spec, status = (mapping(document.get(part)) for part in ("metadata", "spec", "status"))
    labels = {key: str(value) for key, value in mapping(metadata.get("labels")).items()}
    true = {item["type"]: item for item in items(status.get("conditions")) if item.get("status") == "True"}
    condition = next((word for word in _STATES if word in true), "Created")
    state = _STATES.get(condition, TrialState.PENDING)
    summaries = {summary.name: summary for summary in _summaries(status)}
    metric = experiment.objective.metric
    own = summaries.get(metric)
    finite = {n: v for n, s in summaries.items() if (v := s.value(experiment.strategies.get(n, "latest"))) is not None}
    if state is TrialState.SUCCEEDED and metric not in finite:
        # Katib is content with any text but "unavailable", and writes "" for a value that was NaN.
        state = TrialState.UNAVAILABLE
    valued = state in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED)
    index = labels.get(INDEX_LABEL, "")
    completed = time(status.get("completionTime")) if state.is_finished else None
    return ClusterTrial(
        name=str(metadata.get("name", "")),
        owner=_owner(metadata),
        created=str(metadata.get("creationTimestamp") or ""),
        assignments=pairs(spec.get("parameterAssignments")),
        condition=condition,
        state=state,
        reported=None if own is None else own.extract(experiment.strategies[metric]),
        value=finite.get(metric) if valued else None,
        metrics=finite,
        started=time(status.get("startTime")),
        completed=completed,
        index=int(index) if index.isascii() and index.isdigit() else None,
        reason=_reason(true.get(condition, {})) if state.is_finished and state is not TrialState.SUCCEEDED else "",
        fallback=labels.get(FALLBACK_LABEL, ""),
        place=_place(spec, experiment, str(metadata.get("name", ""))),
    )


def _summaries(status: Mapping[str, Any]) -> Iterator[MetricSummary]:
    for metric in items(mapping(status.get("observation")).get("metrics")):
        # Go leaves out an empty text, which is what a NaN becomes.
        texts = {key: str(metric.get(key, "")) for key in ("name", "latest", "min", "max")}
        yield MetricSummary(**texts)


def _owner(metadata: Mapping[str, Any]) -> str:
    owners = [item for item in items(metadata.get("ownerReferences")) if item.get("kind") == "Experiment"]
    return str(owners[0].get("uid", "")) if owners else ""


def _reason(condition: Mapping[str, Any]) -> str:
    """The condition's message; its reason too where that says more than the condition's own type."""
    message, reason = (str(condition.get(key, "")) for key in ("message", "reason"))
    _, _, more = reason.partition("Job reason: ")
    if more and more not in message:
        return f"{message} ({more})" if message else more
    return message or reason


def in_order(trials: Sequence[ClusterTrial], suggested: Sequence[str]) -> list[ClusterTrial]:
    """The trials in the order of suggestion, whatever order the server gave.

    Args:
        trials: each once.
        suggested: names in the order in which the Suggestion has them. A trial that is not among them is placed by
            its label, else after all others by the time at which it was made.
    """
    places = {name: index for index, name in enumerate(suggested)}

    def key(trial: ClusterTrial) -> tuple[float, str, str]:
        known = places.get(trial.name, trial.index)
        return (math.inf if known is None else known, trial.created, trial.name)

    return sorted(trials, key=key)


# -------------------------------------------------------------------------------------------- where results are


def _place(spec: Mapping[str, Any], experiment: ClusterExperiment, trial: str) -> ResultPlace:
    """What the flags and variables of the primary container say; they are those of ``rankwise train``."""
    container = _container(spec.get("runSpec"), str(spec.get("primaryContainerName") or ""))
    words = [str(word) for key in ("command", "args") for word in container.get(key) or ()]
    variables = pairs(container.get("env"))

    def told(flag: str, variable: str) -> str:
        """What is written there; "" where nothing is, or where only the pod's surroundings know it."""
        text = variables.get(variable, "")
        for i, word in enumerate(words):
            if word.startswith(f"{flag}="):
                text = word.partition("=")[2]
            elif word == flag and i + 1 < len(words):
                text = words[i + 1]
        return "" if "$(" in text else text

    namespace = told("--namespace", "RANKWISE_NAMESPACE")
    return ResultPlace(
        namespaces=(namespace,) if namespace else (experiment.namespace, None),
        experiment=told("--experiment", "RANKWISE_EXPERIMENT") or experiment.name,
        trial=told("--trial", "RANKWISE_TRIAL") or trial,
        store=told("--store", "RANKWISE_STORE"),
    )


def _container(template: object, name: str) -> Mapping[str, Any]:
    """The container of that name anywhere in a template: a Job, a TrainJob and a PyTorchJob keep it elsewhere each."""
    if isinstance(template, dict):
        if template.get("name") == name and ("command" in template or "args" in template):
            return template
        template = list(template.values())
    if isinstance(template, list):
        return next((found for item in template if (found := _container(item, name))), {})
    return {}
