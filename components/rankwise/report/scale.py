"""How a parameter is drawn: the kind of its axis, where a value lies on it and where the ticks are."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from rankwise.report.facts import ParameterFacts
from rankwise.space.spacing import log_spaced

_MANY = 12
"""A list of more numbers than this gets round ticks instead of one tick a number; of categories, twice as many."""


class Scale(enum.Enum):
    """Kind of an axis."""

    LINEAR = "linear"
    LOG = "log"
    CATEGORY = "category"


def scale_of(parameter: ParameterFacts) -> Scale:
    """The scale on which a parameter reads best, see :func:`rankwise.space.spacing.log_spaced`."""
    if parameter.type == "categorical":
        return Scale.CATEGORY
    numbers = list_numbers(parameter)
    low = numbers[0] if numbers else parameter.low
    return Scale.LOG if log_spaced(parameter.distribution, low, numbers) else Scale.LINEAR


def list_numbers(parameter: ParameterFacts) -> list[float]:
    """The distinct values of a discrete parameter in numeric order; empty for the other types."""
    if parameter.type != "discrete":
        return []
    numbers = (parameter.number(text) for text in parameter.values or ())
    return sorted({value for value in numbers if value is not None})


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from 0 to 1 for one parameter, or for the objective.

    Attributes:
        scale: its kind.
        low: smallest value (number of the first category for categories: 0).
        high: largest value.
        categories: the categories in list order; empty for numbers.
        marks: values that get a tick, with their texts.
    """

    scale: Scale
    low: float
    high: float
    categories: tuple[str, ...]
    marks: tuple[tuple[float, str], ...]

    def position(self, value: float) -> float:
        """Where a number lies, 0 to 1; 0.5 on an axis with one value."""
        low, high = self.low, self.high
        if self.scale is Scale.LOG:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5

    def place(self, text: str, parameter: ParameterFacts) -> float | None:
        """Where a parameter's text lies; None when it is outside."""
        if self.scale is Scale.CATEGORY:
            return self.position(self.categories.index(text)) if text in self.categories else None
        value = parameter.number(text)
        return self.position(value) if value is not None and self.low <= value <= self.high else None


def axis_of(parameter: ParameterFacts) -> Axis:
    """The axis of a parameter over its whole range."""
    scale = scale_of(parameter)
    if scale is Scale.CATEGORY:
        categories = tuple(dict.fromkeys(parameter.values or ()))
        stride = math.ceil(len(categories) / (2 * _MANY))  # more names than this would lie on each other
        marks = tuple((float(index), text) for index, text in enumerate(categories) if index % stride == 0)
        return Axis(scale, 0.0, float(len(categories) - 1), categories, marks)
    numbers = list_numbers(parameter)
    if numbers:
        low, high = numbers[0], numbers[-1]
    else:
        low, high = float(parameter.low or 0.0), float(parameter.high or 0.0)
    if numbers and len(numbers) <= _MANY:
        marks = tuple((value, short(value)) for value in numbers)
    else:
        marks = numeric_marks(low, high, scale)
    return Axis(scale, low, high, (), marks)


def value_axis(values: list[float]) -> Axis:
    """A linear axis for measured values."""
    low, high = min(values), max(values)
    return Axis(Scale.LINEAR, low, high, (), numeric_marks(low, high, Scale.LINEAR))


def numeric_marks(low: float, high: float, scale: Scale) -> tuple[tuple[float, str], ...]:
    """Ticks: both ends, and round numbers between that are not too near to them."""
    if low == high:
        return ((low, short(low)),)
    inner = _decades(low, high) if scale is Scale.LOG else _round_numbers(low, high)
    axis = Axis(scale, low, high, (), ())
    inner = [value for value in inner if low < value < high and 0.08 <= axis.position(value) <= 0.92]
    return tuple((value, short(value)) for value in sorted({low, high, *inner}))


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 6:
        stride = math.ceil((last - first) / 6)
        return [10.0**exponent for exponent in range(first, last + 1, stride)]
    factors = (1, 2, 5) if last - first <= 1 else (1, 3) if last - first <= 3 else (1,)
    return [factor * 10.0**exponent for exponent in range(first, last + 1) for factor in factors]


def _round_numbers(low: float, high: float) -> list[float]:
    if high <= low:
        return []
    raw = (high - low) / 5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
    count = math.floor(high / step) - math.ceil(low / step) + 1
    return [(math.ceil(low / step) + index) * step for index in range(count)]


def short(value: float) -> str:
    """A tick's text, at most about six characters."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
