"""How an Experiment stands, in one line."""

from __future__ import annotations

from typing import Any

from rankwise.cluster.experiment import items, mapping, pairs
from rankwise.cluster.objects import Object

_ENDINGS = (
    ("trialsSucceeded", "succeeded"),
    ("trialsEarlyStopped", "stopped early"),
    ("trialsFailed", "failed"),
    ("trialsKilled", "killed"),
    ("trialMetricsUnavailable", "without metrics"),
)
"""Katib's counts of trials that have ended; the last one's name lacks its s."""


def ended(experiment: Object) -> str | None:
    """``Succeeded`` or ``Failed`` once the Experiment has ended; None before."""
    for condition in items(mapping(experiment.get("status")).get("conditions")):
        if condition.get("type") in ("Succeeded", "Failed") and condition.get("status") == "True":
            return str(condition["type"])
    return None


def progress_line(experiment: Object) -> str:
    """Counts of trials and the best one so far."""
    spec, status = mapping(experiment.get("spec")), mapping(experiment.get("status"))
    counts = [(int(status.get(key) or 0), word) for key, word in _ENDINGS]
    done = sum(count for count, _ in counts)
    most = spec.get("maxTrialCount")
    words = ", ".join(f"{count} {word}" for count, word in counts if count)
    line = f"{done}{f' of {most}' if most else ''} trials have ended" + (f" ({words})" if words else "")
    if running := int(status.get("trialsRunning") or 0):
        line += f", {running} running"
    return line + _best(spec, mapping(status.get("currentOptimalTrial")))


def _best(spec: Any, optimal: Any) -> str:
    name = optimal.get("bestTrialName")
    if not name:
        return ""
    metric = str(mapping(spec.get("objective")).get("objectiveMetricName") or "")
    strategies = pairs(mapping(spec.get("objective")).get("metricStrategies"))
    values = {str(m.get("name")): m for m in items(mapping(optimal.get("observation")).get("metrics"))}
    value = values.get(metric, {}).get(strategies.get(metric, "latest"), "")
    parameters = ", ".join(f"{key}={text}" for key, text in pairs(optimal.get("parameterAssignments")).items())
    return f"; best {metric}={value} by {name} ({parameters})"
