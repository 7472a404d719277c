"""From a parameter's raw text to a checked parameter, with every mistake on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from rankwise.errors import Problem
from rankwise.space.axis import (
    TABLE_LIMIT,
    Axis,
    Continuous,
    Grid,
    Lattice,
    Table,
    equal_edges,
    lattice_scale,
    scaled_edges,
)
from rankwise.space.number import double_text, parse_number
from rankwise.space.parameter import Distribution, Parameter, ParameterText, ParameterType
from rankwise.space.scale import Scale

MAX_PARAMETERS = 21_201
"""The Sobol direction numbers of Joe and Kuo (2008), which scipy ships, end at this dimension."""

_A_NUMBER = "a finite number such as 8, 0.05 or 1e-4 (zero, or between 1e-300 and 1e300 in size)"
_TYPES = ", ".join(kind.value for kind in ParameterType)
_DISTRIBUTIONS = ", ".join(distribution.value for distribution in Distribution)


def parse_parameters(
    texts: Sequence[ParameterText], path: str, places: Sequence[int] | None = None
) -> tuple[tuple[Parameter, ...], list[Problem]]:
    """Check every parameter.

    Args:
        texts: the raw parameters.
        path: where their list stands in the file.
        places: index of each in that list; counted from 0 when None.

    Returns:
        the good parameters in their order, and the problems of all others.
    """
    problems: list[Problem] = []
    if not texts:
        problems.append(Problem(path, "", "at least one parameter"))
    if len(texts) > MAX_PARAMETERS:
        return (), [Problem(path, f"{len(texts)} parameters", f"at most {MAX_PARAMETERS}")]
    count = Counter(text.name for text in texts)
    seen: set[str] = set()
    parameters: list[Parameter] = []
    for i, text in zip(range(len(texts)) if places is None else places, texts, strict=True):
        here = f"{path}[{i}]"
        if not text.name.strip():
            problems.append(Problem(f"{here}.name", text.name, "a name that is not empty"))
        elif count[text.name] > 1 and text.name in seen:
            problems.append(Problem(f"{here}.name", text.name, "a name that no other parameter has"))
        seen.add(text.name)
        reader = _Reader(text, here)
        parameter = reader.parameter()
        problems.extend(reader.problems)
        if parameter is not None:
            parameters.append(parameter)
    return tuple(parameters), problems


class _Reader:
    """Reads one parameter; collects its problems."""

    def __init__(self, text: ParameterText, path: str) -> None:
        self.text = text
        self.path = path
        self.problems: list[Problem] = []

    def _problem(self, field: str, value: str, allowed: str) -> None:
        self.problems.append(Problem(f"{self.path}.{field}", value, allowed))

    def parameter(self) -> Parameter | None:
        distribution = self._distribution()
        try:
            kind = ParameterType(self.text.type)
        except ValueError:
            self._problem("parameterType", self.text.type, f"one of {_TYPES}")
            return None
        if kind in (ParameterType.DISCRETE, ParameterType.CATEGORICAL):
            return self._listed(kind, distribution)
        return self._ranged(kind, distribution)

    def _distribution(self) -> Distribution:
        # Katib's webhook fills "uniform" where nothing is given, for categorical parameters too.
        try:
            return Distribution(self.text.distribution or "uniform")
        except ValueError:
            self._problem("feasibleSpace.distribution", self.text.distribution, f"one of {_DISTRIBUTIONS}")
            return Distribution.UNIFORM

    # -- lists ---------------------------------------------------------------------------------------------------

    def _listed(self, kind: ParameterType, distribution: Distribution) -> Parameter | None:
        for name, value in (("min", self.text.min), ("max", self.text.max), ("step", self.text.step)):
            if value:
                self._problem(f"feasibleSpace.{name}", value, f"nothing: a {kind.value} parameter has a list")
        if not self.text.list:
            self._problem("feasibleSpace.list", "", "at least one value")
        if kind is ParameterType.CATEGORICAL:
            return self._categorical(distribution)
        return self._discrete(distribution)

    def _categorical(self, distribution: Distribution) -> Parameter | None:
        if distribution is not Distribution.UNIFORM:
            self._problem("feasibleSpace.distribution", distribution.value, "uniform: categories have no order")
        values = self.text.list
        for k, value in enumerate(values):
            if value in values[:k]:
                self._problem(f"feasibleSpace.list[{k}]", value, "a value that is not in the list already")
        if self.problems:
            return None
        table = Table(values, values, equal_edges(len(values)), numeric=False)
        return self._made(ParameterType.CATEGORICAL, Distribution.UNIFORM, table, values=values)

    def _discrete(self, distribution: Distribution) -> Parameter | None:
        items: list[tuple[float, str]] = []
        for k, value in enumerate(self.text.list):
            here, number = f"feasibleSpace.list[{k}]", parse_number(value)
            if number is None:
                self._problem(here, value, _A_NUMBER)
            elif float(number) in (other for other, _ in items):
                self._problem(here, value, "a number that is not in the list already")
            elif distribution.is_log and number <= 0:
                self._problem(here, value, f"a number greater than 0: the distribution is {distribution.value}")
            else:
                items.append((float(number) + 0.0, value))
        if self.problems:
            return None
        items.sort()
        numbers, values = tuple(number for number, _ in items), tuple(value for _, value in items)
        low, high = numbers[0], numbers[-1]
        if distribution is Distribution.UNIFORM or len(numbers) == 1:
            edges = equal_edges(len(numbers))
        else:
            offsets = np.array([number - low for number in numbers])
            edges = scaled_edges(
                offsets, low=low, span=high - low, log=distribution.is_log, normal=distribution.is_normal
            )
        table = Table(values, numbers, edges, numeric=True)
        return self._made(ParameterType.DISCRETE, distribution, table, values=values, low=low, high=high)

    # -- ranges --------------------------------------------------------------------------------------------------

    def _ranged(self, kind: ParameterType, distribution: Distribution) -> Parameter | None:
        if self.text.list:
            listed = "[" + ", ".join(self.text.list) + "]"
            self._problem("feasibleSpace.list", listed, f"nothing: {kind.value} parameters have min and max")
        whole = kind is ParameterType.INT
        low = self._number("min", self.text.min, whole=whole)
        high = self._number("max", self.text.max, whole=whole)
        step = self._number("step", self.text.step, whole=whole) if self.text.step else None
        if low is not None and distribution.is_log and low <= 0:
            allowed = f"a number greater than 0: the distribution is {distribution.value}"
            self._problem("feasibleSpace.min", self.text.min, allowed)
        if low is not None and high is not None and low > high:
            self._problem("feasibleSpace.max", self.text.max, f"a number not below min, {self.text.min}")
        self._check_step(low, high, step, whole=whole)
        if self.problems or low is None or high is None:
            return None
        if whole and step is None:
            step = Fraction(1)
        return self._made(
            kind,
            distribution,
            _range_axis(low, high, step, distribution, whole=whole),
            low=float(low),
            high=float(high),
            step=step,
            exact=(low, high),
        )

    def _number(self, field: str, text: str, *, whole: bool) -> Fraction | None:
        number = parse_number(text)
        if number is None:
            self._problem(f"feasibleSpace.{field}", text, _A_NUMBER)
        elif whole and number.denominator != 1:
            self._problem(f"feasibleSpace.{field}", text, "a whole number: the parameter is an int")
            return None
        return number

    def _check_step(self, low: Fraction | None, high: Fraction | None, step: Fraction | None, *, whole: bool) -> None:
        if step is None:
            return
        if step <= 0:
            self._problem("feasibleSpace.step", self.text.step, "a number greater than 0")
            return
        if low is None or high is None or low >= high:
            return
        if step > high - low:
            self._problem("feasibleSpace.step", self.text.step, f"at most max − min, {_plain(high - low)}")
        elif not whole and any(float(end + way * step) == float(end) for end, way in ((low, 1), (high, -1))):
            self._problem("feasibleSpace.step", self.text.step, "large enough to change min and max as doubles")

    def _made(
        self,
        kind: ParameterType,
        distribution: Distribution,
        axis: Axis,
        *,
        values: tuple[str, ...] | None = None,
        low: float | None = None,
        high: float | None = None,
        step: Fraction | None = None,
        exact: tuple[Fraction, Fraction] | None = None,
    ) -> Parameter:
        if values is None and isinstance(axis, Table):
            values = axis.values
        definition: dict[str, object] = {"name": self.text.name, "type": kind.value, "distribution": distribution.value}
        if exact is None:
            definition["list"] = values
        else:
            definition |= {"min": str(exact[0]), "max": str(exact[1]), "step": None if step is None else str(step)}
        return Parameter(
            name=self.text.name,
            type=kind,
            distribution=distribution,
            low=low,
            high=high,
            step=None if step is None else float(step),
            values=values,
            size=None if values is None else len(values),
            definition=json.dumps(definition, sort_keys=True, ensure_ascii=False),
            axis=axis,
        )


def _range_axis(
    low: Fraction, high: Fraction, step: Fraction | None, distribution: Distribution, *, whole: bool
) -> Axis:
    span = float(high - low)
    log, normal = distribution.is_log, distribution.is_normal
    if step is None and float(low) < float(high):
        # float(high) - float(low), not the exact span: positions are computed from doubles.
        scale = Scale(low=float(low), range=float(high) - float(low), log=log, normal=normal)
        return Continuous(float(low) + 0.0, float(high) + 0.0, scale)
    # A range of one value is a fixed parameter: a grid of one.
    grid = Grid(low, step or Fraction(1), int((high - low) / step) + 1 if step else 1, whole)
    if grid.count == 1:
        edges = equal_edges(1)
    elif grid.count > TABLE_LIMIT:
        return Lattice(grid, lattice_scale(grid, span=span, log=log, normal=normal))
    elif distribution is Distribution.UNIFORM:
        edges = equal_edges(grid.count)
    else:
        offsets = np.arange(grid.count, dtype=np.float64) * float(grid.step)
        edges = scaled_edges(offsets, low=float(low), span=span, log=log, normal=normal)
    identity = tuple(grid.identity(k) for k in range(grid.count))
    return Table(tuple(map(repr, identity)), identity, edges, numeric=True, grid=grid)


def _plain(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else double_text(float(number))
