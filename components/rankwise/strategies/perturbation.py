"""How population-based training explores: numbers are multiplied or drawn anew, within their bounds.

Jaderberg et al. 2017 ("Population Based Training of Neural Networks", arXiv 1711.09846), section 4.1.1 and appendix A:
*perturb* multiplies a hyperparameter by 0.8 or 1.2, *resample* draws it from the distribution that it began with.

Only numbers that may change in the middle of a training are perturbed. All others a member takes over together with the
weights: what fixes the adapter's shape because inherited weights would not fit, the adapter's strength because weights
that were learned under one alpha are another function under the next, the batch size and the length of a training
because both say how much of the data a step stands for, and the seed because the order of the data goes on under it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from rankwise.errors import InvalidInput, Problem
from rankwise.language.guide import guide_for
from rankwise.space import Parameter, ParameterType, SearchSpace
from rankwise.space.axis import Lattice, Table
from rankwise.space.number import SMALLEST, double_text

SHAPE_KINDS = frozenset({"rank", "target_modules", "variant"})
"""Kinds of :mod:`rankwise.language.guide` that fix the adapter's shape: never perturbed."""
LENGTH_KINDS = frozenset({"epochs", "steps"})
"""Kinds that fix how long a generation is: never perturbed, or members could not be compared."""
INHERITED_KINDS = frozenset({"alpha", "scaling", "batch_size", "micro_batch_size", "gradient_accumulation", "seed"})
"""Kinds that are perturbed only where the settings name them."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """How a configuration is changed.

    Attributes:
        names: the parameters that change; each a number.
        down, up: the two factors, one of which a value is multiplied with.
        resample: probability that a value is drawn from the parameter's distribution instead.
    """

    names: tuple[str, ...]
    down: float
    up: float
    resample: float

    def __call__(self, space: SearchSpace, point: Mapping[str, str], generator: np.random.Generator) -> dict[str, str]:
        """The configuration with every one of the parameters changed.

        Args:
            space: contains ``point``.
            point: parameter name -> text value.
            generator: draws the changes.
        """
        changed = dict(point)
        for parameter in space.parameters:
            if parameter.name not in self.names:
                continue
            # Three draws whatever comes of them: one parameter's change does not depend on another's.
            anew, position, upward = generator.random(), generator.random(), generator.random() < 0.5
            if anew < self.resample:
                changed[parameter.name] = parameter.to_text(position)
            else:
                factor = self.up if upward else self.down
                changed[parameter.name] = multiplied(parameter, point[parameter.name], factor)
        return changed


def multiplied(parameter: Parameter, text: str, factor: float) -> str:
    """A value times a factor, as the nearest value of the parameter within its bounds.

    Where the nearest value is the old one (a coarse list), it is the neighbour on the factor's side instead. Zero,
    which no factor moves, goes ``factor - 1`` of the parameter's range. At a bound the value stays.

    Args:
        parameter: one of numbers.
        text: one of its values.
        factor: greater than 0.

    Raises:
        ValueError: the parameter is categorical, or the text none of its values.
    """
    canonical = parameter.canonical(text)
    if not isinstance(canonical, (int, float)) or parameter.low is None or parameter.high is None:
        raise ValueError(f"{text!r} is no number of parameter {parameter.name!r}")
    number, low, high = float(canonical), parameter.low, parameter.high
    wanted = number * factor if number else (factor - 1.0) * (high - low)
    axis = parameter.axis
    if isinstance(axis, Table):
        numbers = np.array([value for value in axis.identity if isinstance(value, (int, float))], dtype=np.float64)
        nearest = int(np.argmin(np.abs(numbers - wanted)))
        return axis.values[_moved(nearest, axis.index(canonical), wanted - number, len(numbers))]
    if isinstance(axis, Lattice):
        grid = axis.grid
        nearest = round((Fraction(wanted) - grid.low) / grid.step)
        here = round((Fraction(canonical) - grid.low) / grid.step)
        return grid.text(_moved(nearest, here, wanted - number, grid.count))
    # Ten digits: a factor leaves rounding behind that nobody wants to read.
    bounded = min(max(float(f"{wanted:.10g}"), low), high)
    return double_text(bounded if abs(bounded) >= SMALLEST else 0.0)


def _moved(nearest: int, here: int, change: float, count: int) -> int:
    """Place among ``count`` values: the nearest one, or the neighbour where that would be no change."""
    if nearest == here and change:
        nearest += 1 if change > 0 else -1
    return min(max(nearest, 0), count - 1)


def default_names(space: SearchSpace) -> tuple[str, ...]:
    """The parameters that are perturbed unless the settings name others: learning rate, dropout, any other number
    that is not of a kind which goes with the weights (see the module's text)."""
    kept = SHAPE_KINDS | LENGTH_KINDS | INHERITED_KINDS
    return tuple(
        parameter.name
        for parameter in space.parameters
        if parameter.type is not ParameterType.CATEGORICAL
        and ((known := guide_for(parameter.name)) is None or known.kind not in kept)
    )


def read_names(text: str, space: SearchSpace, path: str) -> tuple[str, ...]:
    """The parameters that a setting names, separated by commas; :func:`default_names` where it is empty.

    Args:
        text: the setting.
        space: whose parameters they are.
        path: where the setting stands, for the messages.

    Raises:
        InvalidInput: with every name that is no parameter, no number, or of a kind that must not change in the middle
            of a training.
    """
    if not text.strip():
        return default_names(space)
    given = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    known = {parameter.name: parameter for parameter in space.parameters}
    problems = [Problem(path, name, allowed) for name in given if (allowed := _objection(name, known))]
    if problems:
        raise InvalidInput(problems)
    return given


def _objection(name: str, known: Mapping[str, Parameter]) -> str:
    """Why a parameter cannot be perturbed; empty when it can."""
    if name not in known:
        return f"parameters of the space, separated by commas: {', '.join(known)}"
    guide = guide_for(name)
    if guide is not None and guide.kind in SHAPE_KINDS:
        return (
            "no parameter that changes the adapter's shape: inherited weights would not fit. Each member begins with "
            f"a {name} of its own and hands it on with its weights"
        )
    if guide is not None and guide.kind in LENGTH_KINDS:
        return "no parameter that changes how long a generation is: members could not be compared"
    if known[name].type is ParameterType.CATEGORICAL:
        return "numbers only: a category has no neighbour, and is handed on with the weights"
    return ""
