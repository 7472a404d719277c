"""Is one run better than another on the test split, beyond what chance explains?

Two runs that were measured on the same examples are compared example by example: with d_i the difference on
example i of n, the difference is mean(d) and its standard error sd(d) / sqrt(n) (sd with n - 1). Both runs meet the
same hard and easy examples, so this error is usually much smaller than that of two independent means,
sqrt(se_a² + se_b²), which is used where values per example are absent. A difference counts when it is larger than
two of its standard errors (about 95 % under normality).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rankwise.report import words
from rankwise.space.trial import Goal, Objective

ERRORS = 2.0
"""How many standard errors a difference must exceed."""

_LOWER = frozenset({"loss", "perplexity", "error", "wer", "seconds", "time", "bytes", "memory", "joules", "energy"})
_HIGHER = ("rouge", "bleu", "sacrebleu", "match", "accuracy", "f1", "chrf", "meteor", "reward")
"""Words of a metric's name, or how they start (``rouge1``, ``rougeL``)."""


class Verdict(enum.Enum):
    """What a comparison says."""

    BETTER = "better"
    WORSE = "worse"
    NO_DIFFERENCE = "no difference"
    UNKNOWN = "unknown"
    """No standard error, or nobody knows whether more is better."""


class Measured(Protocol):
    """What a comparison needs of a run: see :class:`rankwise.report.facts.FinalRun`."""

    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def standard_errors(self) -> Mapping[str, float]: ...
    @property
    def per_example(self) -> Mapping[str, tuple[float, ...]]: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two runs.

    Attributes:
        metric: its name.
        goal: whether less or more is better; None when unknown.
        reference: value of the run that is compared with (the default).
        value: value of the run in question (the best).
        difference: value - reference.
        standard_error: of the difference; None when it cannot be known.
        method: ``paired`` (by example), ``independent`` or ``none``.
        examples: number of pairs, for ``paired``.
        gain: improvement as a share of |reference|, positive when better; None when it has no meaning.
        verdict: see :class:`Verdict`.
        words: the verdict as a clause, e.g. ``better by 0.031 ± 0.008``.
    """

    metric: str
    goal: Goal | None
    reference: float
    value: float
    difference: float
    standard_error: float | None
    method: str
    examples: int | None
    gain: float | None
    verdict: Verdict
    words: str


def plain_metric(name: str) -> str:
    """A metric's name without the split it was measured on, in lower case: ``test_rougeL`` -> ``rougel``."""
    low = name.lower()
    for prefix in ("test", "eval", "validation", "val"):
        for mark in "_-/":
            if low.startswith(prefix + mark):
                return low[len(prefix) + 1 :]
    return low


def goal_of(metric: str, objective: Objective) -> Goal | None:
    """Whether less or more of a metric is better: the objective's own goal, else by well-known names, else None."""
    plain = plain_metric(metric)
    if plain == plain_metric(objective.metric):
        return objective.goal
    parts = re.split(r"[^a-z0-9]+", plain)
    if not _LOWER.isdisjoint(parts):
        return Goal.MINIMIZE
    if any(part.startswith(_HIGHER) for part in parts):
        return Goal.MAXIMIZE
    return None


def _paired(metric: str, reference: Measured, run: Measured, difference: float) -> tuple[float, int] | None:
    """Standard error of the mean difference by example, and the number of examples; None where it does not apply."""
    before, after = reference.per_example.get(metric, ()), run.per_example.get(metric, ())
    if len(before) != len(after) or len(before) < 2:
        return None
    differences = np.subtract(after, before)  # (n,)
    # A metric of the whole corpus (BLEU, a loss weighted by tokens) is not the mean over examples. The error of that
    # mean would then belong to another quantity, so the pair is used only where it adds up to the difference shown.
    # 1e-3 of the metric's own size leaves room for values that were rounded before they were stored.
    scale = max(abs(reference.metrics[metric]), abs(run.metrics[metric]), 1e-12)
    if abs(float(differences.mean()) - difference) > 1e-3 * scale:
        return None
    return float(differences.std(ddof=1)) / math.sqrt(len(before)), len(before)


def _judge(goal: Goal | None, difference: float, error: float | None) -> tuple[Verdict, str]:
    shown = words.with_error(abs(difference), error)
    if error is None:
        return Verdict.UNKNOWN, f"differs by {shown}; no standard error, so this cannot be judged"
    if abs(difference) <= ERRORS * error:
        signed = words.with_error(difference, error)
        return Verdict.NO_DIFFERENCE, f"no difference that this test set can show ({signed})"
    if goal is None:
        return Verdict.UNKNOWN, f"differs by {shown}; whether more is better is not known"
    if (difference < 0) == (goal is Goal.MINIMIZE):
        return Verdict.BETTER, f"better by {shown}"
    return Verdict.WORSE, f"worse by {shown}"


def compare_metric(metric: str, reference: Measured, run: Measured, objective: Objective) -> Comparison:
    """Compare one metric that both runs have.

    Raises:
        KeyError: when one of the runs does not have the metric.
    """
    before, after = reference.metrics[metric], run.metrics[metric]
    difference = after - before
    goal = goal_of(metric, objective)
    error: float | None = None
    method, examples = "none", None
    if pair := _paired(metric, reference, run, difference):
        (error, examples), method = pair, "paired"
    elif metric in reference.standard_errors and metric in run.standard_errors:
        error = math.hypot(reference.standard_errors[metric], run.standard_errors[metric])
        method = "independent"
    verdict, text = _judge(goal, difference, error)
    gain = None
    if goal is not None and before != 0:
        gain = (difference if goal is Goal.MAXIMIZE else -difference) / abs(before)
    return Comparison(metric, goal, before, after, difference, error, method, examples, gain, verdict, text)


def compare(reference: Measured, run: Measured, objective: Objective) -> tuple[Comparison, ...]:
    """Compare every metric that both runs have; the objective's own comes first, the others by name."""
    common = sorted(reference.metrics.keys() & run.metrics.keys())
    own = plain_metric(objective.metric)
    common.sort(key=lambda metric: (metric != objective.metric, plain_metric(metric) != own, metric))
    return tuple(compare_metric(metric, reference, run, objective) for metric in common)
