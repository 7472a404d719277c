"""Katib's own view of the run: when an Experiment ends, and its ``status`` in Katib's form (v0.19).

The verdict is a function of the Experiment and its trials alone. So a run whose ``maxTrialCount`` was raised goes on,
and one that was stopped a moment before its end comes to the same end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise.errors import SurroundingsError
from rankwise.local.document import dump
from rankwise.local.experiment import Experiment
from rankwise.local.journal import ExperimentCondition
from rankwise.local.records import Condition, TrialRecord, utc_now
from rankwise.space.trial import Goal

_LISTS = {
    "pendingTrialList": (Condition.CREATED, Condition.INTERRUPTED),
    "runningTrialList": (Condition.RUNNING,),
    "succeededTrialList": (Condition.SUCCEEDED,),
    "failedTrialList": (Condition.FAILED,),
    "killedTrialList": (),
    "earlyStoppedTrialList": (Condition.EARLY_STOPPED,),
    "metricsUnavailableTrialList": (Condition.METRICS_UNAVAILABLE,),
}
_COUNTS = {
    "trialsPending": "pendingTrialList",
    "trialsRunning": "runningTrialList",
    "trialsSucceeded": "succeededTrialList",
    "trialsFailed": "failedTrialList",
    "trialsKilled": "killedTrialList",
    "trialsEarlyStopped": "earlyStoppedTrialList",
    "trialMetricsUnavailable": "metricsUnavailableTrialList",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an Experiment ended: ``succeeded``, Katib's reason, a sentence."""

    succeeded: bool
    reason: str
    message: str


def best_trial(experiment: Experiment, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the best value of the objective, early stopped ones among them; the earliest of equals."""
    best: tuple[float, TrialRecord] | None = None
    for trial in trials:
        value = trial_value(experiment, trial)
        if value is not None and (best is None or experiment.objective.better(value, best[0])):
            best = value, trial
    return None if best is None else best[1]


def trial_value(experiment: Experiment, trial: TrialRecord) -> float | None:
    """The objective's value under its metric strategy."""
    metric = experiment.objective.metric
    return trial.value(metric, experiment.metric_strategies[metric])


def judge(experiment: Experiment, trials: Sequence[TrialRecord]) -> Verdict | None:
    """Whether the Experiment has ended, and how; None while it goes on. Katib's rules in Katib's order."""
    best = best_trial(experiment, trials)
    target = experiment.objective.target
    if best is not None and target is not None:
        value = trial_value(experiment, best)
        if value is not None and (value <= target if experiment.objective.goal is Goal.MINIMIZE else value >= target):
            message = f"Experiment has succeeded because Objective goal has reached ({best.name}: {value:g})"
            return Verdict(True, "ExperimentGoalReached", message)
    failed = sum(trial.condition.is_failure for trial in trials)
    limit = experiment.max_failed_trial_count
    if limit is not None and failed and failed >= limit:
        message = f"Experiment has failed because max failed count has reached ({failed} of at most {limit} failed)"
        return Verdict(False, "ExperimentFailed", message)
    completed = sum(trial.condition.is_finished for trial in trials)
    if experiment.max_trial_count is not None and completed >= experiment.max_trial_count:
        message = "Experiment has succeeded because max trial count has reached"
        return Verdict(True, "ExperimentMaxTrialsReached", message)
    return None


def status(
    experiment: Experiment, trials: Sequence[TrialRecord], conditions: Sequence[ExperimentCondition], start_time: str
) -> dict[str, Any]:
    """``status`` of the Experiment as Katib's controller would write it; empty lists and zeros left out as there."""
    result: dict[str, Any] = {"startTime": start_time, "lastReconcileTime": utc_now()}
    shown = _conditions(conditions)
    result["conditions"] = shown
    if shown and shown[-1]["type"] in ("Succeeded", "Failed"):
        result["completionTime"] = shown[-1]["lastTransitionTime"]
    if trials:
        result["trials"] = len(trials)
    for field, members in _LISTS.items():
        if names := [trial.name for trial in trials if trial.condition in members]:
            result[field] = names
    for count, field in _COUNTS.items():
        if field in result:
            result[count] = len(result[field])
    best = best_trial(experiment, trials)
    if best is not None:
        result["currentOptimalTrial"] = {
            "bestTrialName": best.name,
            "parameterAssignments": [{"name": name, "value": value} for name, value in best.assignments.items()],
            "observation": {
                "metrics": [
                    {"name": metric.name, "latest": metric.latest, "max": metric.max, "min": metric.min}
                    for metric in best.summaries
                ]
            },
        }
    return result


def _conditions(events: Sequence[ExperimentCondition]) -> list[dict[str, str]]:
    """The conditions of the last life of the Experiment: one of each type, the running one false after the end."""
    shown: dict[str, dict[str, str]] = {}
    for event in events:
        if event.type == "Running":
            shown.pop("Restarting", None)
        elif event.type == "Restarting":
            for ended in ("Succeeded", "Failed"):
                shown.pop(ended, None)
        elif event.type in ("Succeeded", "Failed") and "Running" in shown:
            shown["Running"] |= {"status": "False", "lastUpdateTime": event.time, "lastTransitionTime": event.time}
        shown.pop(event.type, None)
        shown[event.type] = {
            "type": event.type,
            "status": "True",
            "reason": event.reason,
            "message": event.message,
            "lastUpdateTime": event.time,
            "lastTransitionTime": event.time,
        }
    return list(shown.values())


def write_experiment(path: Path, document: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write the Experiment with its status; a reader sees the old file or the new one, never half of one.

    Raises:
        SurroundingsError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(dump({**document, "status": dict(state)}))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SurroundingsError(
            f"{path} cannot be written: {error}. The journal beside it holds every finished trial;"
            " make room or give write access, then run the same command again"
        ) from error
