"""What a search knows before its first trial, as sources that rank configurations.

A source gives every configuration a score; only the order counts. Rules from the literature and the user's own belief
are densities (:mod:`rankwise.language.rules`); an earlier search is a Gaussian process on its trials, read in
quantities, so that it may have had another space with other names and ranges. How far each source is trusted is
decided by the trials (:mod:`rankwise.surrogate.informed`).
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem
from rankwise.language.guide import guide_for
from rankwise.language.quantities import REACH, quantities
from rankwise.language.rules import Rule, literature, log_plausibility
from rankwise.space import Candidates, Goal, ParameterText, ParameterType, SearchSpace, parse_space
from rankwise.strategies.earlier import EarlierTrials
from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate
from rankwise.surrogate.numeric import fit_numeric
from rankwise.surrogate.observations import outcomes

log = logging.getLogger(__name__)

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
        found: what it tried and what came of it.
    """

    found: EarlierTrials

    def scores(self, points: Candidates) -> NDArray[np.float64] | None:
        """Posterior mean of its own objective, turned so that larger is better, read at ``points``.

        Only quantities that both spaces have and that varied in the earlier search count. A diverged training counts
        as worse than the worst value: the best values often lie close to where trainings break.
        """
        here = quantities(points)
        model = _model_of(self.found, frozenset(here))
        return None if model is None else model(here)


@dataclass(frozen=True)
class _Axis:
    """One quantity of an earlier search, on the scale of its values: log where all are positive, else linear."""

    quantity: str
    log: bool
    low: float
    high: float

    @classmethod
    def over(cls, quantity: str, values: NDArray[np.float64]) -> _Axis | None:
        """The axis through values (n,); None where they are no numbers or all the same."""
        if not np.isfinite(values).all():
            return None
        log = bool((values > 0).all())
        scaled = np.log2(values) if log else values
        low, high = float(np.min(scaled)), float(np.max(scaled))
        return cls(quantity, log, low, high) if high > low else None

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (m,): 0 to 1 within what was tried; the middle for what is no number."""
        if self.log:
            values = np.log2(values, out=np.full(values.shape, -np.inf), where=~(values <= 0))
        # Beyond what was tried the process falls back to its mean, as far as the clipped distance lets it.
        positions = np.clip((values - self.low) / (self.high - self.low), -0.5, 1.5)
        return np.where(np.isnan(values), 0.5, positions)


@dataclass(frozen=True)
class _EarlierModel:
    """Scores by a Gaussian process over the axes."""

    axes: tuple[_Axis, ...]
    surrogate: FittedSurrogate

    def __call__(self, here: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        mean, _ = self.surrogate.posterior(np.stack([axis(here[axis.quantity]) for axis in self.axes], axis=1))
        return -mean


# Scores are read several times in a request, and of the same trials in every request of a search.
@lru_cache(maxsize=32)
def _model_of(found: EarlierTrials, usable: frozenset[str]) -> _EarlierModel | None:
    """The model of an earlier search; None where it says nothing about the usable quantities."""
    if not found.values or len(found) < 2:
        return None
    points = _as_points([*found.configurations, *found.diverged])
    if points is None:
        return None
    there = quantities(points)
    axes = [_Axis.over(name, there[name]) for name in sorted(there.keys() & usable)]
    known = tuple(axis for axis in axes if axis is not None)
    if not known:
        return None
    values = np.array(found.values) if found.goal is Goal.MINIMIZE else -np.array(found.values)
    broken = np.full(len(found.diverged), math.nextafter(float(np.max(values)), sys.float_info.max))
    X = np.stack([axis(there[axis.quantity]) for axis in known], axis=1)  # (n, q)  # noqa: N806
    try:
        surrogate = fit_numeric(X, outcomes(np.concatenate([values, broken])), deadline=Deadline.never())
    except FitError as error:
        log.warning("the earlier search %s is of no use: %s", found.name, error)
        return None
    return _EarlierModel(known, surrogate)


def _as_points(configurations: Sequence[Mapping[str, str]]) -> Candidates | None:
    """Configurations of any space as points of one that has no more than their own texts; None without a use.

    Parameters that are not in every configuration, or that nothing is known about, are left out.
    """
    common = set.intersection(*(set(configuration) for configuration in configurations))
    names = sorted(name for name in common if guide_for(name) is not None)
    if not names:
        return None
    columns = {name: tuple(sorted({configuration[name] for configuration in configurations})) for name in names}
    space = parse_space([ParameterText(name, "categorical", list=texts) for name, texts in columns.items()])
    return space.at(space.encode([{name: configuration[name] for name in names} for configuration in configurations]))


class NormalScores:
    """Turns scores into the normal quantiles of their ranks among a reference.

    Args:
        reference: finite scores of configurations all over the space.  # (r,)
    """

    def __init__(self, reference: NDArray[np.float64]) -> None:
        self._levels, first = np.unique(reference, return_index=True)
        self._quantiles = ndtri((rankdata(reference) - 0.5) / len(reference))[first]

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles (m,); scores beyond the reference get its outermost one."""
        read: NDArray[np.float64] = np.interp(scores, self._levels, self._quantiles)
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


def rules_of(prior: str, belief: Sequence[Rule], width: int | None = None) -> list[Source]:
    """The sources behind the options ``prior``, ``belief`` and ``model_width``.

    A belief replaces the rules on the same quantity.
    """
    stated = {rule.quantity for rule in belief}
    if "learning_rate" in stated:
        stated.add(REACH)
    published = [rule for rule in literature(width) if rule.quantity not in stated] if prior == "literature" else []
    rules = [*belief, *published]
    return [Rules(tuple(rules))] if rules else []
