from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.report.facts import ParameterFacts
from rankwise.report.scale import Scale, axis_of, numeric_marks, scale_of, value_axis
from support.facts import PARAMETERS


def discrete(*values: str, distribution: str = "uniform") -> ParameterFacts:
    return ParameterFacts("p", "discrete", distribution, values=values)


@pytest.mark.parametrize(
    ("parameter", "scale"),
    [
        (ParameterFacts("p", "double", "logUniform", 1e-5, 1e-2), Scale.LOG),
        (ParameterFacts("p", "double", "logNormal", 1e-5, 1e-2), Scale.LOG),
        (ParameterFacts("p", "double", "uniform", 1e-5, 1e-2), Scale.LINEAR),
        (ParameterFacts("p", "double", "logUniform", 0.0, 1.0), Scale.LINEAR),  # no logarithm of 0
        (ParameterFacts("p", "int", "uniform", 1, 4), Scale.LINEAR),
        (discrete("4", "8", "16", "32"), Scale.LOG),
        (discrete("1e-5", "3e-5", "1e-4", "3e-4", "1e-3"), Scale.LOG),
        (discrete("0.1", "0.2", "0.3", "0.4"), Scale.LINEAR),
        (discrete("2", "3", "4"), Scale.LINEAR),
        (discrete("0", "10", "100"), Scale.LINEAR),
        (discrete("1e-5", "1e-3"), Scale.LOG),
        (discrete("1", "2"), Scale.LINEAR),
        (discrete("8"), Scale.LINEAR),
        (discrete("2", "3", distribution="logUniform"), Scale.LOG),
        (ParameterFacts("p", "categorical", values=("1", "10", "100")), Scale.CATEGORY),
    ],
)
def test_the_scale_fits_the_values(parameter: ParameterFacts, scale: Scale) -> None:
    assert scale_of(parameter) is scale


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_marks_lie_on_the_axis_in_order(parameter: ParameterFacts) -> None:
    axis = axis_of(parameter)
    places = [axis.position(value) for value, _ in axis.marks]
    assert places == sorted(places)
    assert places[0] == pytest.approx(0, abs=1e-12)
    assert places[-1] == pytest.approx(1, abs=1e-12)
    assert len({text for _, text in axis.marks}) == len(places)


def test_texts_are_placed_by_value_and_outsiders_nowhere() -> None:
    parameter = discrete("4", "8", "16")
    axis = axis_of(parameter)
    assert axis.place("8.0", parameter) == pytest.approx(0.5, abs=1e-12)
    assert [axis.place(text, parameter) for text in ("2", "64", "many", "")] == [None] * 4
    choice = ParameterFacts("p", "categorical", values=("a", "b", "c"))
    assert [axis_of(choice).place(text, choice) for text in ("a", "b", "c", "d")] == [0.0, 0.5, 1.0, None]


def test_an_axis_with_one_value_puts_it_in_the_middle() -> None:
    parameter = discrete("8")
    assert axis_of(parameter).place("8", parameter) == 0.5
    assert value_axis([3.0, 3.0]).position(3.0) == 0.5


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_linear_marks_are_few_and_inside(low: float, width: float) -> None:
    high = low + width
    marks = numeric_marks(low, high, Scale.LINEAR)
    assert 1 <= len(marks) <= 10
    assert all(low <= value <= high for value, _ in marks)


@given(st.floats(1e-12, 1e6), st.floats(1.0, 1e12))
def test_log_marks_are_few_and_inside(low: float, ratio: float) -> None:
    high = low * ratio
    marks = numeric_marks(low, high, Scale.LOG)
    assert 1 <= len(marks) <= 12
    assert all(low <= value <= high for value, _ in marks)
