"""Configurations that were trained with several seeds: mean, standard error, number of trainings."""

from __future__ import annotations

from dataclasses import dataclass

from rankwise.report import words
from rankwise.report.facts import SearchFacts
from rankwise.strategies.choice import has_seeds, tried


@dataclass(frozen=True, slots=True)
class SeededConfiguration:
    """One configuration.

    Attributes:
        trials: names of its trainings.
        trainings: how many of them gave a value.
        value: their mean; None without one, and where more of them failed.
        standard_error: of the mean (:mod:`rankwise.strategies.racing`); None while nothing was trained twice.
    """

    trials: tuple[str, ...]
    trainings: int
    value: float | None
    standard_error: float | None

    @property
    def text(self) -> str:
        """``2.31 ± 0.02``; a dash without a value."""
        return "–" if self.value is None else words.with_error(self.value, self.standard_error)


def seeded_configurations(facts: SearchFacts) -> tuple[SeededConfiguration, ...]:
    """In the order in which each came first; none where no parameter sets the seed."""
    aims, trials = facts.aims, [trial.as_trial() for trial in facts.trials]
    if not has_seeds(trials, aims):
        return ()
    return tuple(
        SeededConfiguration(
            tuple(facts.trials[i].name for i in one.rows), one.trainings, one.trial.value, one.trial.standard_error
        )
        for one in tried(trials, aims)
    )
