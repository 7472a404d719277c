"""What a run has found (:mod:`rankwise.strategies.choice`): the trial whose configuration is trained anew at the end.

Katib's ``currentOptimalTrial`` (:func:`rankwise.local.status.best_trial`) is the best value of the objective. Another
trial is found where the search keeps bounds, weighs costs or trains with several seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.local.experiment import Experiment
from rankwise.local.records import Condition, TrialRecord
from rankwise.local.status import trial_value
from rankwise.space.trial import Trial, TrialState
from rankwise.strategies.choice import aims_of, leader

STATES = {
    Condition.CREATED: TrialState.PENDING,
    Condition.RUNNING: TrialState.PENDING,
    Condition.INTERRUPTED: TrialState.PENDING,
    Condition.SUCCEEDED: TrialState.SUCCEEDED,
    Condition.FAILED: TrialState.FAILED,
    Condition.METRICS_UNAVAILABLE: TrialState.UNAVAILABLE,
    Condition.EARLY_STOPPED: TrialState.EARLY_STOPPED,
}


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: the trial that stands for it, and its objective (the mean, where there are several seeds)."""

    trial: TrialRecord
    value: float


def metrics_of(experiment: Experiment, record: TrialRecord) -> dict[str, float]:
    """Every finite metric of a trial under its metric strategy."""
    strategies = experiment.metric_strategies
    return {s.name: v for s in record.summaries if (v := s.value(strategies[s.name])) is not None}


def found_trial(experiment: Experiment, records: Sequence[TrialRecord]) -> Found | None:
    """What the search has found up to now; None where it has found nothing.

    Args:
        experiment: whose settings say what is looked for.
        records: its trials in the order of suggestion.
    """
    trials = [
        Trial(
            record.name,
            record.assignments,
            STATES[record.condition],
            trial_value(experiment, record),
            metrics_of(experiment, record),
        )
        for record in records
    ]
    best = leader(trials, aims_of(experiment.algorithm_settings, experiment.objective))
    return None if best is None else Found(records[best.row], best.value)
