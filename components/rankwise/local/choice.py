"""Which configuration a run chose: that of the best trial, or with several seeds the one with the best mean.

Katib's status names the best single trial (:mod:`rankwise.local.status`), also where trials differ in nothing but their
seed. What is trained on more data in the end is not what was lucky once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankwise.errors import InvalidInput
from rankwise.local.experiment import Experiment
from rankwise.local.records import Condition, TrialRecord
from rankwise.local.status import best_trial, trial_value
from rankwise.space.trial import Trial, TrialState
from rankwise.strategies.seeds import best_configuration, read_plan


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


def choose(experiment: Experiment, trials: Sequence[TrialRecord]) -> Choice | None:
    """The configuration chosen among the trials so far; None where none has a value."""
    try:
        plan = read_plan(experiment.space, experiment.algorithm_settings)
    except InvalidInput:
        # Another service than ours searched, with settings of its own: ours refuses them before the search.
        plan = None
    if plan is None:
        best = best_trial(experiment, trials)
        value = None if best is None else trial_value(experiment, best)
        return None if best is None or value is None else Choice(best, value)
    known = {trial.name: trial for trial in trials}
    told = [_told(experiment, trial) for trial in trials]
    found = best_configuration(told, experiment.objective, plan.parameter, plan.space.key)
    if found is None:
        return None
    return Choice(known[found.trial.name], found.value, found.trainings, found.standard_error)


def _told(experiment: Experiment, trial: TrialRecord) -> Trial:
    value = trial_value(experiment, trial)
    if value is None:
        state = TrialState.FAILED if trial.condition.is_finished else TrialState.PENDING
    else:
        stopped = trial.condition is Condition.EARLY_STOPPED
        state = TrialState.EARLY_STOPPED if stopped else TrialState.SUCCEEDED
    return Trial(trial.name, trial.assignments, state, value)
