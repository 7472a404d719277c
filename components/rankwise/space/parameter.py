"""One parameter of a search space: its type, its values, and its place on [0, 1]."""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from rankwise.space.axis import Axis, Continuous, Lattice, Table
from rankwise.space.number import double_text, parse_number


class ParameterType(enum.Enum):
    """Katib's parameter types."""

    DOUBLE = "double"
    INT = "int"
    DISCRETE = "discrete"
    CATEGORICAL = "categorical"


class Distribution(enum.Enum):
    """Katib's distributions of a parameter's values."""

    UNIFORM = "uniform"
    LOG_UNIFORM = "logUniform"
    NORMAL = "normal"
    LOG_NORMAL = "logNormal"

    @property
    def is_log(self) -> bool:
        return self in (Distribution.LOG_UNIFORM, Distribution.LOG_NORMAL)

    @property
    def is_normal(self) -> bool:
        return self in (Distribution.NORMAL, Distribution.LOG_NORMAL)


@dataclass(frozen=True, slots=True)
class ParameterText:
    """A parameter exactly as an Experiment or a request spells it; ``""`` stands for what was not given."""

    name: str
    type: str
    min: str = ""
    max: str = ""
    step: str = ""
    list: tuple[str, ...] = ()
    distribution: str = ""


# A position may leave [0, 1] by rounding, not by more.
_SLACK = 1e-9


@dataclass(frozen=True)
class Parameter:
    """A parameter that was checked. Made by :func:`rankwise.space.parse_space`.

    Attributes:
        name: name within the experiment.
        type: one of Katib's four.
        distribution: how values are spread over [0, 1].
        low: smallest number; None for a categorical parameter.
        high: largest number that may occur (``max``; steps need not reach it); None for a categorical parameter.
        step: distance of neighbours of an int or a stepped double; None elsewhere.
        values: every value in Katib's text form, numbers ascending, categories in the order of the list; None where
            there are infinitely many, or more than :data:`rankwise.space.axis.TABLE_LIMIT`.
        size: how many; None in the same cases.
        definition: canonical description; two parameters with the same one behave alike.
        axis: the map to [0, 1].
    """

    name: str
    type: ParameterType
    distribution: Distribution
    low: float | None
    high: float | None
    step: float | None
    values: tuple[str, ...] | None = field(repr=False)
    size: int | None
    definition: str = field(repr=False)
    axis: Axis = field(repr=False, compare=False)

    def canonical(self, text: str) -> Hashable:
        """One identity for all texts of the same value: an int, a float, or the text of a category.

        Raises:
            ValueError: the text is no value of the parameter.
        """
        identity = self.axis.canonical(text)
        if identity is None:
            raise ValueError(f"{text!r} is no value of parameter {self.name!r}: {self.allowed}")
        return identity

    def contains(self, text: str) -> bool:
        """Whether the text is a value of the parameter."""
        return self.axis.canonical(text) is not None

    @property
    def allowed(self) -> str:
        """A clause that says which values there are."""
        if self.type in (ParameterType.CATEGORICAL, ParameterType.DISCRETE):
            values = self.values or ()
            return "one of " + ", ".join(values[:20]) + (", …" if len(values) > 20 else "")
        low, high = (f"{bound:.15g}" for bound in (self.low or 0.0, self.high or 0.0))
        kind = "a whole number" if self.type is ParameterType.INT else "a number"
        grid = "" if self.step is None or self.step == 1 else f" in steps of {self.step:.15g}"
        return f"{kind} from {low} to {high}{grid}"

    def to_unit(self, text: str) -> float:
        """Position of a value in [0, 1]: the centre of its bin, or the mass below it for a continuous one.

        Raises:
            ValueError: the text is no value of the parameter.
        """
        return self.axis.unit(self.canonical(text))

    def to_text(self, unit: float) -> str:
        """The value at a position.

        Raises:
            ValueError: the position is not in [0, 1].
        """
        if not -_SLACK <= unit <= 1 + _SLACK:
            raise ValueError(f"parameter {self.name!r}: position must be in [0, 1], got {unit!r}")
        return self.axis.texts(np.array([min(max(unit, 0.0), 1.0)]))[0]

    def number(self, text: str) -> float | None:
        """The number that a text stands for; None for a category and for what is no number."""
        if self.type is ParameterType.CATEGORICAL:
            return None
        value = parse_number(text)
        return None if value is None else float(value)

    def nearest(self, number: float, *, log: bool = False) -> str:
        """The value nearest to a number.

        Args:
            number: finite.
            log: whether values of a list are compared by the ratio, which needs positive ones; those of a range are
                compared by the difference.

        Raises:
            ValueError: the parameter is categorical.
        """
        axis = self.axis
        if self.type is ParameterType.CATEGORICAL:
            raise ValueError(f"parameter {self.name!r}: a category is near no number")
        if isinstance(axis, Continuous):
            return double_text(min(max(float(number), axis.low), axis.high))
        grid = axis.grid if isinstance(axis, Table | Lattice) else None
        if grid is not None:
            k = round((Fraction(number) - grid.low) / grid.step)
            return grid.text(min(max(k, 0), grid.count - 1))
        assert self.values is not None  # noqa: S101 - what is no range is a list
        numbers = np.array([float(text) for text in self.values])
        if log:
            numbers, number = np.log(numbers), math.log(max(number, self.low or number))
        return self.values[int(np.argmin(np.abs(numbers - number)))]

    @property
    def table(self) -> Table | None:
        """The axis of a parameter whose values are written out."""
        return self.axis if isinstance(self.axis, Table) else None
