"""Katib's ``medianstop``: a trial that is worse than the median of the finished ones is ended early.

The rule is fixed when a trial is made. For every succeeded trial, take the mean of the objective's first ``start_step``
reports; the rule's value is the median of these means, as Katib documents it (its service of v0.19 takes their mean,
which one diverged trial can move anywhere; with a median it cannot). A running trial is looked at once, at its
``start_step``-th report: when its best value so far is worse than the rule's, its process gets SIGTERM.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rankwise.errors import InvalidInput, Problem
from rankwise.local.records import Comparison, StopRule
from rankwise.space.trial import Goal, Objective, parse_finite

ALGORITHM = "medianstop"


@dataclass(frozen=True, slots=True)
class MedianStop:
    """Settings of medianstop.

    Attributes:
        min_trials_required: succeeded trials that are needed before any trial gets a rule.
        start_step: reports of the objective after which a trial is judged.
    """

    min_trials_required: int = 3
    start_step: int = 4

    @classmethod
    def from_settings(cls, settings: Mapping[str, str], path: str = "spec.earlyStopping") -> MedianStop:
        """Read Katib's ``algorithmSettings``.

        Raises:
            InvalidInput: with every unknown name and every value that is not a whole number of at least 1.
        """
        names = ("min_trials_required", "start_step")
        problems, values = [], {}
        for name, text in settings.items():
            where = f"{path}.algorithmSettings[{name}]"
            if name not in names:
                problems.append(Problem(where, name, f"one of {', '.join(names)}"))
            elif text.isascii() and text.isdigit() and int(text) >= 1:
                values[name] = int(text)
            else:
                problems.append(Problem(where, text, "a whole number of at least 1"))
        if problems:
            raise InvalidInput(problems)
        return cls(**values)

    def rule(self, objective: Objective, histories: Iterable[Sequence[str]]) -> StopRule | None:
        """The rule for a trial that is made now.

        Args:
            objective: what is optimized.
            histories: for each succeeded trial the objective's reported texts, in order.

        Returns:
            None while there are too few succeeded trials.
        """
        means = []
        for history in histories:
            first = [number for text in history[: self.start_step] if (number := parse_finite(text)) is not None]
            if first:
                means.append(statistics.fmean(first))
        if len(means) < self.min_trials_required:
            return None
        worse = Comparison.GREATER if objective.goal is Goal.MINIMIZE else Comparison.LESS
        return StopRule(objective.metric, statistics.median(means), worse, self.start_step)


def check_early_stopping(algorithm_name: str, settings: Mapping[str, str], path: str = "spec.earlyStopping") -> None:
    """Refuse what this engine cannot do.

    Raises:
        InvalidInput: another algorithm than medianstop, or wrong settings.
    """
    if algorithm_name != ALGORITHM:
        raise InvalidInput([Problem(f"{path}.algorithmName", algorithm_name, ALGORITHM)])
    MedianStop.from_settings(settings, path)


class RuleWatch:
    """Applies a rule to one running trial."""

    def __init__(self, rule: StopRule) -> None:
        self.rule = rule
        self._seen = 0
        self._best: float | None = None

    def add(self, text: str) -> bool:
        """Take in the next report of the rule's metric; True when the trial is to be stopped now.

        A report that is no finite number counts as a report and changes no best value.
        """
        self._seen += 1
        number = parse_finite(text)
        lower_is_better = self.rule.comparison is Comparison.GREATER
        if number is not None:
            best = number if self._best is None else self._best
            self._best = min(best, number) if lower_is_better else max(best, number)
        if self._seen != self.rule.start_step or self._best is None:
            return False
        return self._best > self.rule.value if lower_is_better else self._best < self.rule.value
