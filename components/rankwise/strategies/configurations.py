"""Configurations that were trained with several seeds: their trials together, and the best of them.

A trial is one training. Where a parameter of the search space only sets a training's random seed, trials that differ in
nothing else are trainings of one configuration:

- **Value**: the mean over its trainings that gave one.
- **Failed**: more of its trainings failed than gave a value. A configuration that breaks as often as not is none to
  train on all data, whatever its lucky seeds reached; a single lost pod among three trainings is no reason to drop it.
- **Pending**: none of its trainings has ended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rankwise.space.trial import Goal, Objective, Trial, TrialState

Assignments = Mapping[str, str]


@dataclass(frozen=True)
class Configuration:
    """One configuration and all its trainings.

    Attributes:
        assignments: parameter name -> text, without the seed parameter.
        trials: its trainings, at least one, in the order in which they were given.
    """

    assignments: Assignments
    trials: tuple[Trial, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """What its trainings measured, in the objective's own direction."""
        return tuple(trial.value for trial in self.trials if trial.value is not None)

    @property
    def failures(self) -> int:
        """Trainings that ended without a value."""
        return sum(trial.state.is_finished and trial.value is None for trial in self.trials)

    @property
    def running(self) -> int:
        """Trainings that have not ended."""
        return sum(not trial.state.is_finished for trial in self.trials)

    @property
    def failed(self) -> bool:
        """Whether more trainings failed than gave a value."""
        return self.failures > len(self.values)

    @property
    def state(self) -> TrialState:
        """The state of all trainings together, see the module's text."""
        if self.failed:
            return TrialState.FAILED
        if not self.values:
            return TrialState.PENDING
        stopped = all(trial.state is TrialState.EARLY_STOPPED for trial in self.trials if trial.value is not None)
        return TrialState.EARLY_STOPPED if stopped else TrialState.SUCCEEDED

    def as_trial(self, objective: Objective, standard_error: float | None) -> Trial:
        """One trial that stands for all trainings.

        Args:
            objective: whose value it has.
            standard_error: of the mean; None where it is not known.

        Returns:
            A trial under the name of its first training, with the means of the value and of every other metric over the
            trainings that gave a value.
        """
        name, state = self.trials[0].name, self.state
        if state in (TrialState.FAILED, TrialState.PENDING):
            return Trial(name, self.assignments, state)
        measured = [trial for trial in self.trials if trial.value is not None]
        told: dict[str, list[float]] = {}
        for trial in measured:
            for metric, value in trial.metrics.items():
                if metric != objective.error_metric:  # the mean's own error is another one
                    told.setdefault(metric, []).append(value)
        metrics = {metric: mean(values) for metric, values in told.items()}
        return Trial(name, self.assignments, state, mean(self.values), metrics, standard_error)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean of finite numbers, n ≥ 1; finite whatever their size."""
    scale = max(1.0, max(abs(value) for value in values) / 1e300)
    return math.fsum(value / scale for value in values) / len(values) * scale


def configurations(
    trials: Iterable[Trial], seed_parameter: str, key: Callable[[Assignments], Hashable] | None = None
) -> list[Configuration]:
    """The trials' configurations, in the order in which each came first.

    Args:
        trials: those of one search.
        seed_parameter: name of the parameter that sets a training's seed; "" where every parameter counts.
        key: assignments without that parameter -> one identity for all spellings of a configuration; None: their texts.
    """
    found: dict[Hashable, list[Trial]] = {}
    for trial in trials:
        rest = without(trial.assignments, seed_parameter)
        found.setdefault(tuple(sorted(rest.items())) if key is None else key(rest), []).append(trial)
    return [Configuration(without(group[0].assignments, seed_parameter), tuple(group)) for group in found.values()]


def without(assignments: Assignments, seed_parameter: str) -> dict[str, str]:
    """The assignments without the seed parameter."""
    return {name: text for name, text in assignments.items() if name != seed_parameter}


def turned(configuration: Configuration, objective: Objective) -> list[float]:
    """A configuration's values with smaller ones better."""
    sign = 1.0 if objective.goal is Goal.MINIMIZE else -1.0
    return [sign * value for value in configuration.values]
