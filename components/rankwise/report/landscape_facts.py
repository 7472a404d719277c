"""A search in the embedding space of its language model, as plain frozen data.

These are the only facts of a report that follow from others: what a language model makes of the space cannot be
computed again by whoever reads the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

VIEWS = ("frozen", "projected", "token")
"""The language model's own vectors; after the projection was fitted; with the learnable token."""


@dataclass(frozen=True, slots=True)
class AxisFacts:
    """One of a view's two axes.

    Attributes:
        explained: its share of the variance, in [0, 1].
        parameter: the parameter that it follows; "" where it follows none.
        agreement: share of the axis's variance that this parameter explains (R²), in [0, 1].

    Raises:
        ValueError: when a share is not in [0, 1].
    """

    explained: float
    parameter: str = ""
    agreement: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("explained", self.explained), ("agreement", self.agreement)):
            if not 0 <= value <= 1:
                raise ValueError(f"axis: {name} must be in [0, 1], got {value!r}")


@dataclass(frozen=True, slots=True)
class ViewFacts:
    """Candidates and trials in two dimensions.

    Attributes:
        name: one of :data:`VIEWS`.
        axes: the two axes.
        x, y: coordinates of the candidates.
        trial_x, trial_y: coordinates of the trials.

    Raises:
        ValueError: when the name is another one, there are not two axes, columns differ in length, or a coordinate is
            not finite.
    """

    name: str
    axes: tuple[AxisFacts, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    trial_x: tuple[float, ...]
    trial_y: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.name not in VIEWS:
            raise ValueError(f"view: name must be one of {', '.join(VIEWS)}, got {self.name!r}")
        if len(self.axes) != 2:
            raise ValueError(f"view {self.name}: needs two axes, got {len(self.axes)}")
        if len(self.x) != len(self.y) or len(self.trial_x) != len(self.trial_y):
            raise ValueError(f"view {self.name}: x and y must have the same length")
        if not all(math.isfinite(value) for value in (*self.x, *self.y, *self.trial_x, *self.trial_y)):
            raise ValueError(f"view {self.name}: every coordinate must be finite")

    @property
    def explained(self) -> float:
        """Share of the variance that the two axes show together."""
        return min(1.0, sum(axis.explained for axis in self.axes))


@dataclass(frozen=True, slots=True)
class LandscapeFacts:
    """Where the trials lie among the configurations that could have been tried.

    Attributes:
        embedder: reference of the language model.
        surrogate: the model of the objective, in the word of its option.
        candidates: parameter name -> its text in each candidate.
        predicted: the objective that the model predicts for each candidate.
        trials: names of the trials that have a place, in the order of suggestion.
        views: at least one.
        weight: of the language model in the prediction; None where it predicts alone.
        note: a sentence on what is missing; "" when nothing is.

    Raises:
        ValueError: when columns differ in length, or a number is not valid.
    """

    embedder: str
    surrogate: str
    candidates: Mapping[str, tuple[str, ...]]
    predicted: tuple[float, ...]
    trials: tuple[str, ...]
    views: tuple[ViewFacts, ...]
    weight: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("landscape: needs a view")
        if not all(math.isfinite(value) for value in self.predicted):
            raise ValueError("landscape: every prediction must be finite")
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise ValueError(f"landscape: weight must be in [0, 1], got {self.weight!r}")
        lengths = {len(self.predicted), *(len(column) for column in self.candidates.values())}
        lengths |= {len(view.x) for view in self.views}
        if len(lengths) != 1:
            raise ValueError(f"landscape: columns of candidates must have the same length, got {sorted(lengths)}")
        if {len(self.trials)} != {len(view.trial_x) for view in self.views}:
            raise ValueError(f"landscape: every view needs the places of {len(self.trials)} trials")
