"""Trials as types: what was tried, how it ended and what was measured.

A trial's state is checked when it is made, so that no later code meets a "succeeded" trial without a value.
The states are Katib's (``TrialStatus.TrialConditionType``), reduced to what a search has to tell apart.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


class TrialState(enum.Enum):
    """How far a trial is, and how it ended."""

    PENDING = "pending"
    """Suggested, created or running: no value yet (Katib CREATED, RUNNING)."""
    SUCCEEDED = "succeeded"
    """Ended with a value of the objective."""
    EARLY_STOPPED = "early_stopped"
    """Stopped early; it has a value when one was reported before the stop."""
    FAILED = "failed"
    """The process failed, ran out of memory, diverged or was killed (Katib FAILED, KILLED)."""
    UNAVAILABLE = "unavailable"
    """It ended well but reported no finite value (Katib METRICSUNAVAILABLE, or a value such as ``nan``)."""

    @property
    def is_finished(self) -> bool:
        return self is not TrialState.PENDING


class Goal(enum.Enum):
    """Direction of an objective."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"


@dataclass(frozen=True, slots=True)
class Objective:
    """What is optimized.

    Attributes:
        metric: name of the objective metric.
        goal: minimize or maximize.
        target: value at which the search may end; None where none was given.
        additional_metrics: names of further metrics that trials report.
    """

    metric: str
    goal: Goal
    target: float | None = None
    additional_metrics: tuple[str, ...] = ()

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a < b if self.goal is Goal.MINIMIZE else a > b

    @property
    def error_metric(self) -> str:
        """Name of the additional metric with which a trial tells its value's standard error.

        It is that of the value as a measurement of the configuration, such as the error over the seeds that the value
        is the mean of. The error over validation examples is not meant where trials share them: what the choice of
        examples adds to one value it adds to the others too, and a comparison of two trials loses little by it.
        """
        return f"{self.metric}_standard_error"

    def standard_error(self, metrics: Mapping[str, float]) -> float | None:
        """The value's standard error among a trial's metrics; None where it is missing, negative or not finite."""
        error = metrics.get(self.error_metric)
        return error if error is not None and 0.0 <= error < math.inf else None


def parse_finite(text: str) -> float | None:
    """A metric's text as a finite float; None for ``""``, ``unavailable``, ``nan``, ``inf`` and all else.

    Katib stores a ``loss=nan`` line as an empty string (katib issue 2723): nothing but a finite number is a value.
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated, or being evaluated, configuration.

    Attributes:
        name: unique name within the experiment.
        assignments: parameter name -> value in Katib's text form, as it was suggested.
        state: see :class:`TrialState`.
        value: the objective's value (its own direction, not negated); None unless one was measured.
        metrics: every finite metric by name, the objective's among them when it was measured.
        standard_error: of the value, see :attr:`Objective.error_metric`; None where it is not known.

    Raises:
        ValueError: when state, value and standard error contradict each other, or one is not finite.
    """

    name: str
    assignments: Mapping[str, str]
    state: TrialState
    value: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    standard_error: float | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"trial {self.name!r}: value must be finite or None, got {self.value!r}")
        if self.state is TrialState.SUCCEEDED and self.value is None:
            raise ValueError(f"trial {self.name!r}: a succeeded trial needs a value")
        if self.state in (TrialState.PENDING, TrialState.FAILED, TrialState.UNAVAILABLE) and self.value is not None:
            raise ValueError(f"trial {self.name!r}: a {self.state.value} trial has no value, got {self.value!r}")
        if self.standard_error is not None:
            if self.value is None:
                raise ValueError(f"trial {self.name!r}: without a value there is no standard error")
            if not 0.0 <= self.standard_error < math.inf:
                said = f"must be finite and not negative, or None, got {self.standard_error!r}"
                raise ValueError(f"trial {self.name!r}: standard error {said}")
