"""Which configuration a run chose (:mod:`rankwise.strategies.choice`): it is trained anew in the end.

Katib's status names the best single trial (:mod:`rankwise.local.status`), also where it breaks a bound of the search,
costs more than it is worth, or was lucky with its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.local.experiment import Experiment
from rankwise.local.records import Condition, TrialRecord
from rankwise.local.status import trial_value
from rankwise.space.trial import Trial, TrialState
from rankwise.strategies.choice import aims_of, leader, tried

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
class Choice:
    """The configuration that a run chose.

    Attributes:
        trial: its first trial with a value.
        value: the objective's; the mean over its seeds where it has several.
        trainings: how many trials are behind the value.
        standard_error: of the mean; None where no configuration was trained twice, or seeds are not told apart.
    """

    trial: TrialRecord
    value: float
    trainings: int = 1
    standard_error: float | None = None


def metrics_of(experiment: Experiment, record: TrialRecord) -> dict[str, float]:
    """Every finite metric of a trial under its metric strategy."""
    strategies = experiment.metric_strategies
    return {s.name: v for s in record.summaries if (v := s.value(strategies[s.name])) is not None}


def choose(experiment: Experiment, records: Sequence[TrialRecord]) -> Choice | None:
    """The configuration chosen among the trials so far; None where none is what the search looks for.

    Args:
        experiment: whose settings say what is looked for.
        records: its trials in the order of suggestion.
    """
    trials = [_told(experiment, record) for record in records]
    aims = aims_of(experiment.algorithm_settings, experiment.objective)
    best = leader(trials, aims)
    if best is None:
        return None
    chosen = next(one for one in tried(trials, aims) if one.row == best.row)
    return Choice(records[best.row], best.value, chosen.trainings, chosen.trial.standard_error)


def _told(experiment: Experiment, record: TrialRecord) -> Trial:
    value = trial_value(experiment, record)
    state = STATES[record.condition]
    if value is None and state is TrialState.SUCCEEDED:
        state = TrialState.UNAVAILABLE
    if state not in (TrialState.SUCCEEDED, TrialState.EARLY_STOPPED):
        value = None
    return Trial(record.name, record.assignments, state, value, metrics_of(experiment, record))
