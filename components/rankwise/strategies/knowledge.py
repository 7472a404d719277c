"""What a search knows before its first trial, as sources that rank configurations.

A source gives every configuration a score; only the order counts. Rules from the literature and the user's own belief
are densities (:mod:`rankwise.language.rules`); an earlier search is a Gaussian process on its trials, read in
quantities, so that it may have had another space with other names and ranges. How far each source is trusted is
decided by the trials (:mod:`rankwise.surrogate.informed`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem
from rankwise.language.guide import guide_for
from rankwise.language.quantities import STEP_SIZE, quantities
from rankwise.language.rules import LITERATURE, Rule, log_plausibility
from rankwise.space import Candidates, Objective, ParameterType, SearchSpace, Trial
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import outcomes, read_trials

BELIEF_SPREAD = 1.0
"""Spread of a belief that names one value: a factor of two, or a tenth of the range on a linear scale."""


class Source(Protocol):
    """One thing that is known."""

    def scores(self, points: Candidates) -> NDArray[np.float64] | None:
        """Scores (m,) of configurations, larger for those it expects more of; None where it knows nothing."""
        ...


@dataclass(frozen=True)
class Rules:
    """Densities of the best configuration."""

    rules: Sequence[Rule]

    def scores(self, points: Candidates) -> NDArray[np.float64] | None:
        return log_plausibility(quantities(points), self.rules)


@dataclass(frozen=True)
class EarlierSearch:
    """A search that was done before, perhaps on another task, another model or another space.

    Attributes:
        name: of the Experiment.
        space: its search space.
        objective: its goal gives the direction.
        trials: how they ended.
    """

    name: str
    space: SearchSpace
    objective: Objective
    trials: tuple[Trial, ...]

    def scores(self, points: Candidates) -> NDArray[np.float64] | None:
        """Posterior mean of its own objective, turned so that larger is better, read at ``points``.

        Only quantities that both spaces have and that varied in the earlier search count.
        """
        observations = read_trials(self.space, self.objective, self.trials)
        if len(observations.values) < 2:
            return None
        there = quantities(self.space.at(self.space.encode(observations.measured)))
        here = quantities(points)
        columns = []
        for name in sorted(there.keys() & here.keys()):
            old, new = _scaled(there[name]), _scaled(here[name])
            low, high = np.min(old), np.max(old)
            if not (np.isfinite(old).all() and np.isfinite(new).all() and high > low):
                continue
            # Beyond what was tried the process falls back to its mean, as far as the clipped distance lets it.
            columns.append(((old - low) / (high - low), np.clip((new - low) / (high - low), -0.5, 1.5)))
        if not columns:
            return None
        X = np.stack([old for old, _ in columns], axis=1)  # (n, q)  # noqa: N806
        surrogate = fit_numeric(X, outcomes(observations.values), deadline=Deadline.never())
        mean, _ = surrogate.posterior(np.stack([new for _, new in columns], axis=1))
        return -mean


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positive values on a log scale, others (a dropout of 0) as they are."""
    return np.log2(values) if (values > 0).all() else values


@dataclass(frozen=True)
class NormalScores:
    """Turns scores into the normal quantiles of their ranks among a reference.

    Args:
        reference: finite scores of configurations all over the space.  # (r,)
    """

    reference: NDArray[np.float64]

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles (m,); scores beyond the reference get its outermost one."""
        levels, first = np.unique(self.reference, return_index=True)
        quantiles = ndtri((rankdata(self.reference) - 0.5) / len(self.reference))[first]
        read: NDArray[np.float64] = np.interp(scores, levels, quantiles)
        return read


class Knowledge:
    """Several sources, read over one space.

    Args:
        sources: what is known; a source that knows nothing of this space drops out.
        reference: configurations all over the space; the same ones in every request of a search.
    """

    def __init__(self, sources: Sequence[Source], reference: Candidates) -> None:
        self._sources: list[tuple[Source, NormalScores]] = []
        for source in sources:
            scores = source.scores(reference)
            if scores is not None and np.ptp(scores) > 0:
                self._sources.append((source, NormalScores(scores)))

    def __len__(self) -> int:
        return len(self._sources)

    def columns(self, points: Candidates) -> NDArray[np.float64]:
        """ρ (m, k): one column of normal scores per source that knows something."""
        columns = []
        for source, scale in self._sources:
            scores = source.scores(points) if len(points) else np.zeros(0)
            columns.append(np.zeros(len(points)) if scores is None else scale(scores))
        return np.stack(columns, axis=1) if columns else np.zeros((len(points), 0))


# ------------------------------------------------------------------------------------------- the user's own belief


def read_belief(text: str, space: SearchSpace, path: str) -> tuple[Rule, ...]:
    """Rules from the option ``belief``.

    Args:
        text: a JSON object, parameter name -> the value believed to be best, or ``[low, high]`` for a range that
            holds it with a probability of two thirds. Empty for none.
        space: whose parameters it may name; numbers only.
        path: of the setting, for messages.

    Raises:
        InvalidInput: with every mistake in it.
    """
    if not text.strip():
        return ()
    allowed = 'a JSON object such as {"learning_rate": 3e-4, "rank": [16, 64]}'
    try:
        given = json.loads(text)
    except ValueError:
        raise InvalidInput([Problem(path, text, allowed)]) from None
    if not isinstance(given, dict):
        raise InvalidInput([Problem(path, text, allowed)])
    problems: list[Problem] = []
    rules = []
    for name, value in given.items():
        rule = _belief(name, value, space, f"{path}.{name}", problems)
        if rule is not None:
            rules.append(rule)
    if problems:
        raise InvalidInput(problems)
    return tuple(rules)


def _belief(name: str, value: object, space: SearchSpace, path: str, problems: list[Problem]) -> Rule | None:
    numeric = [p.name for p in space.parameters if p.type is not ParameterType.CATEGORICAL]
    known = guide_for(name)
    if name not in numeric or known is None:
        usable = [other for other in numeric if guide_for(other) is not None]
        problems.append(Problem(path, json.dumps(value), f"one of the parameters {', '.join(usable) or '(none here)'}"))
        return None
    ends = value if isinstance(value, list) and len(value) == 2 else [value, value]
    numbers = [float(end) for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)) or numbers[0] > numbers[1]:
        problems.append(Problem(path, json.dumps(value), "a number, or [low, high] with low ≤ high"))
        return None
    low, high = numbers
    if low > 0:
        spread = math.log2(high / low) / 2 or BELIEF_SPREAD
        return Rule(known.kind, math.sqrt(low * high), spread)
    parameter = space.parameters[space.names.index(name)]
    tenth = ((parameter.high or 0.0) - (parameter.low or 0.0)) / 10 or 1.0
    return Rule(known.kind, (low + high) / 2, (high - low) / 2 or BELIEF_SPREAD * tenth, log=False)


def rules_of(prior: str, belief: Sequence[Rule]) -> list[Source]:
    """The sources behind the options ``prior`` and ``belief``: a belief replaces the rules on the same quantity."""
    stated = {rule.quantity for rule in belief}
    if "learning_rate" in stated:
        stated.add(STEP_SIZE)
    literature = [rule for rule in LITERATURE if rule.quantity not in stated] if prior == "literature" else []
    rules = [*belief, *literature]
    return [Rules(tuple(rules))] if rules else []
