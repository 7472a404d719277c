"""Properties of the one encoder, parameter by parameter."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rankwise.space import Distribution, Parameter, ParameterText, ParameterType, parse_space
from rankwise.space.axis import TABLE_LIMIT
from support.spaces import decimal, decimals, lists, parameters, ranges, units, untimed


def made(text: ParameterText) -> Parameter:
    (parameter,) = parse_space([text]).parameters
    return parameter


@untimed
@given(parameters(), units)
@example(ParameterText("x", "double", "-1e300", "1e300"), 1.0)
@example(ParameterText("x", "double", "1e-300", "1e300", distribution="logUniform"), 0.5)
@example(ParameterText("x", "double", "1e-300", "1e300", distribution="logNormal"), 1.0)
@example(ParameterText("x", "double", "1000000000000000", "1000000000000001"), 0.3)
@example(ParameterText("x", "double", "-1", "1", distribution="normal"), 0.5 + 1e-13)
@example(ParameterText("x", "double", "0", "1", "1e-7", distribution="normal"), 1.0)
@example(ParameterText("x", "int", "1", "1000000000", distribution="logUniform"), 0.03)
def test_decoded_text_is_valid_and_comes_back_as_itself(text: ParameterText, unit: float) -> None:
    parameter = made(text)
    value = parameter.to_text(unit)
    assert parameter.contains(value)
    position = parameter.to_unit(value)
    assert 0.0 <= position <= 1.0
    assert parameter.to_text(position) == value
    if parameter.values is not None:
        assert value in parameter.values


@untimed
@given(parameters(), units)
def test_decoded_numbers_are_in_bounds_and_on_the_grid(text: ParameterText, unit: float) -> None:
    parameter = made(text)
    value = parameter.to_text(unit)
    if text.list:
        assert value in text.list
        return
    if text.type == "int":
        exact = Fraction(value)
        assert "." not in value
        assert "e" not in value.lower()
        assert Fraction(text.min) <= exact <= Fraction(text.max)
        assert ((exact - Fraction(text.min)) / Fraction(text.step or 1)).denominator == 1
        return
    assert repr(float(value)) == value
    assert float(text.min) <= float(value) <= float(text.max)
    if text.step:
        k = round((Fraction(value) - Fraction(text.min)) / Fraction(text.step))
        # Exactly the double nearest to the grid's exact value: no sum of rounding errors.
        assert float(value) == float(Fraction(text.min) + k * Fraction(text.step))


@untimed
@given(parameters(), units, units)
def test_order_is_kept(text: ParameterText, a: float, b: float) -> None:
    assume(text.type != "categorical")
    parameter = made(text)
    a, b = sorted((a, b))
    low, high = parameter.to_text(a), parameter.to_text(b)
    assert Fraction(low) <= Fraction(high)
    assert parameter.to_unit(low) <= parameter.to_unit(high)
    if parameter.values is not None and low != high:
        assert parameter.to_unit(low) < parameter.to_unit(high)


@untimed
@given(parameters())
def test_the_ends_of_the_unit_interval_are_the_ends_of_the_values(text: ParameterText) -> None:
    parameter = made(text)
    first, last = parameter.to_text(0.0), parameter.to_text(1.0)
    if parameter.values is not None:
        assert (first, last) == (parameter.values[0], parameter.values[-1])
    else:
        assert float(first) == pytest.approx(float(text.min), rel=1e-9, abs=1e-9 * (float(text.max) - float(text.min)))
        assert float(last) <= float(text.max)
        step = float(text.step or (1 if text.type == "int" else 0))
        span = float(text.max) - float(text.min)
        assert float(text.max) - float(last) <= step + 1e-9 * max(span, abs(float(text.max)))


@untimed
@given(parameters())
def test_every_value_of_a_finite_parameter_round_trips_and_they_ascend(text: ParameterText) -> None:
    parameter = made(text)
    assume(parameter.values is not None and len(parameter.values) <= 1000)
    assert parameter.values is not None
    assert parameter.size == len(parameter.values) == len(set(parameter.values))
    positions = [parameter.to_unit(value) for value in parameter.values]
    assert positions == sorted(set(positions))
    assert [parameter.to_text(position) for position in positions] == list(parameter.values)
    if text.type != "categorical":
        numbers = [Fraction(value) for value in parameter.values]
        assert numbers == sorted(numbers)
    else:
        assert parameter.values == text.list


@untimed
@given(st.one_of(ranges("x", "double", stepped=False), lists("x", "discrete")), st.data())
def test_spellings_of_a_number_are_one_value(text: ParameterText, data: st.DataObject) -> None:
    parameter = made(text)
    value = parameter.to_text(data.draw(units))
    for spelling in (f"{float(value):.17e}", f"+{float(value)!r}"):
        if spelling.startswith("+-"):
            continue
        assert parameter.canonical(spelling) == parameter.canonical(value)
        assert hash(parameter.canonical(spelling)) == hash(parameter.canonical(value))
        assert parameter.to_unit(spelling) == parameter.to_unit(value)


def test_scientific_and_plain_notation_are_one_value() -> None:
    for text in (
        ParameterText("lr", "double", "0", "1"),
        ParameterText("lr", "double", "1e-4", "1e-3", "1e-4"),
        ParameterText("lr", "discrete", list=("0.0003", "1")),
    ):
        parameter = made(text)
        assert parameter.canonical("3e-4") == parameter.canonical("0.0003") == parameter.canonical("3.0E-4") == 0.0003


def test_category_texts_are_verbatim() -> None:
    parameter = made(ParameterText("x", "categorical", list=("1", "1.0", " a ", "")))
    assert [parameter.canonical(value) for value in parameter.values or ()] == ["1", "1.0", " a ", ""]
    with pytest.raises(ValueError, match=r"'1\.00' is no value of parameter 'x': one of 1, 1\.0"):
        parameter.canonical("1.00")


@untimed
@given(ranges("x", "int"), st.sampled_from(("1.0", "1e1", "", " 1", "1_0", "0x1", "nan", "inf", "١", "one")))
def test_an_int_has_no_other_spelling_than_digits(text: ParameterText, value: str) -> None:
    assert not made(text).contains(value)


@untimed
@given(parameters(), st.sampled_from(("nan", "inf", "-inf", "1e999", "1e-999", "0e999999999x", "1__0", " 1", "1 ", "")))
def test_what_is_no_number_is_no_value(text: ParameterText, value: str) -> None:
    assume(text.type != "categorical")
    parameter = made(text)
    assert not parameter.contains(value)
    assert parameter.number(value) is None
    with pytest.raises(ValueError, match="is no value of parameter 'x'"):
        parameter.to_unit(value)


@untimed
@given(ranges("x", "double"), decimals(1))
def test_values_beyond_the_bounds_are_refused(text: ParameterText, distance: Fraction) -> None:
    parameter = made(text)
    below, above = Fraction(text.min) - distance, Fraction(text.max) + distance
    if float(below) < float(text.min):
        assert not parameter.contains(decimal(below))
    if float(above) > float(text.max):
        assert not parameter.contains(decimal(above))


def test_values_between_the_steps_are_refused_and_rounding_is_forgiven() -> None:
    parameter = made(ParameterText("x", "double", "0", "1", "0.1"))
    assert parameter.values == ("0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0")
    assert parameter.canonical(repr(0.1 + 0.2)) == 0.3
    assert not parameter.contains("0.25")
    whole = made(ParameterText("x", "int", "4", "36", "8"))
    assert whole.values == ("4", "12", "20", "28", "36")
    assert not whole.contains("5")


def test_steps_that_do_not_reach_max_end_below_it() -> None:
    parameter = made(ParameterText("x", "double", "0.1", "1", "0.4"))
    assert parameter.values == ("0.1", "0.5", "0.9")
    assert parameter.high == 1.0
    assert not parameter.contains("1.3")


@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
@pytest.mark.parametrize("kind", ["int", "double"])
def test_min_equal_to_max_is_a_fixed_value(kind: str, distribution: str) -> None:
    parameter = made(ParameterText("x", kind, "3", "3", distribution=distribution))
    assert parameter.values == ("3" if kind == "int" else "3.0",)
    assert parameter.to_unit("3") == 0.5
    assert {parameter.to_text(unit) for unit in (0.0, 0.4, 1.0)} == set(parameter.values)


def test_huge_ints_keep_every_digit() -> None:
    low, high = 2**70 + 1, 2**71 + 12345
    parameter = made(ParameterText("x", "int", str(low), str(high), "3"))
    assert parameter.size is None
    for unit in np.linspace(0, 1, 101):
        value = int(parameter.to_text(float(unit)))
        assert low <= value <= high
        assert (value - low) % 3 == 0
        # Bins are exact fractions, so the value is off its share of the range by at most one step.
        assert abs(value - (low + Fraction(float(unit)) * (high - low))) <= 3
    assert parameter.canonical(str(low + 3)) == low + 3
    assert not parameter.contains(str(low + 1))


@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
def test_a_grid_is_the_same_whether_it_is_written_out_or_not(distribution: str) -> None:
    """One more value than the table's limit: positions of both differ by no more than the bins do."""
    written = made(ParameterText("x", "int", "5", str(4 + TABLE_LIMIT), distribution=distribution))
    computed = made(ParameterText("x", "int", "5", str(5 + TABLE_LIMIT), distribution=distribution))
    assert written.size == TABLE_LIMIT
    assert computed.size is None
    assert computed.values is None
    for value in (5, 6, 7, 100, 5000, TABLE_LIMIT // 2, TABLE_LIMIT - 1000, TABLE_LIMIT):
        # The range is longer by one part in 65,536 and densities are at most 12 in these scales
        # (log of the range over the smallest value: 9.5): positions differ by less than 12 / 65,536 = 1.9e-4.
        assert computed.to_unit(str(value)) == pytest.approx(written.to_unit(str(value)), abs=1.9e-4)
    for unit in np.linspace(0, 1, 57):
        text = computed.to_text(float(unit))
        assert computed.to_text(computed.to_unit(text)) == text


def reference_cdf(distribution: Distribution, low: float, high: float, x: float) -> float:
    """The distributions as Katib's documentation words them, written once more with math.erf."""
    if distribution.is_log:
        low, high, x = math.log(low), math.log(high), math.log(x)
    if not distribution.is_normal:
        return (x - low) / (high - low)
    mean, deviation = (low + high) / 2, (high - low) / 6

    def normal(v: float) -> float:
        return 0.5 * (1 + math.erf((v - mean) / deviation / math.sqrt(2)))

    return (normal(x) - normal(low)) / (normal(high) - normal(low))


@untimed
@given(st.sampled_from(Distribution), st.floats(1e-6, 1e3), st.floats(1e-3, 1e6), units)
def test_continuous_positions_are_the_distribution_function(
    distribution: Distribution, low: float, span: float, unit: float
) -> None:
    high = low + span
    parameter = made(ParameterText("x", "double", repr(low), repr(high), distribution=distribution.value))
    x = float(parameter.to_text(unit))
    # erf and the logarithms are good to a few 1e-16; the logarithm's range is at least log(1 + 1e-6), which divides
    # errors of 1e-15 of log(low) up to 1e-8 of the position; the tails' density is no larger than 2.4 / range.
    assert parameter.to_unit(repr(x)) == pytest.approx(reference_cdf(distribution, low, high, x), abs=1e-7)
    assert parameter.to_unit(repr(x)) == pytest.approx(unit, abs=1e-6)


@pytest.mark.parametrize("distribution", list(Distribution))
@pytest.mark.parametrize(
    "text",
    [
        ParameterText("x", "double", "1", "100"),
        ParameterText("x", "double", "1", "100", "0.5"),
        ParameterText("x", "int", "1", "100"),
        ParameterText("x", "int", "1", "1000000", distribution="normal"),
    ],
    ids=["continuous", "stepped", "int", "lattice"],
)
def test_share_of_draws_below_a_value_is_its_probability(text: ParameterText, distribution: Distribution) -> None:
    spec = ParameterText(text.name, text.type, text.min, text.max, text.step, distribution=distribution.value)
    parameter = made(spec)
    n = 4096
    # Evenly spaced positions have the exact share of every interval up to 1/n at each end.
    numbers = np.array([float(parameter.to_text((i + 0.5) / n)) for i in range(n)])
    low, high = float(text.min), float(text.max)
    step = float(text.step or (0 if text.type == "double" else 1))
    for x in (2.0, 5.0, 10.0, 30.0, 50.0, 80.0):
        x = x * (high / 100)
        share = float(np.mean(numbers <= x))
        # A grid's bin reaches half a step beyond its value, and its ends are half a step wider: the reference is
        # taken between the smallest and the largest of these.
        reference = [
            reference_cdf(distribution, max(low - a, 1e-9), high + b, x + c)
            for a in (0.0, step / 2)
            for b in (0.0, step / 2)
            for c in (0.0, step / 2)
        ]
        slack = 2 / n + (0.02 if step else 0.0)
        assert min(reference) - slack <= share <= max(reference) + slack


def test_bins_of_a_uniform_list_are_equal_and_those_of_a_log_list_follow_the_logarithm() -> None:
    def shares(distribution: str) -> list[float]:
        parameter = made(ParameterText("x", "discrete", list=("8", "128", "16", "32", "64"), distribution=distribution))
        assert parameter.values == ("8", "16", "32", "64", "128")
        counts = dict.fromkeys(parameter.values, 0)
        for i in range(1000):
            counts[parameter.to_text((i + 0.5) / 1000)] += 1
        return [count / 1000 for count in counts.values()]

    # Powers of two are evenly spaced on the logarithmic scale: equal shares in both cases, up to one draw.
    assert shares("uniform") == pytest.approx([0.2] * 5, abs=1e-3)
    assert shares("logUniform") == pytest.approx([0.2] * 5, abs=1e-3)
    normal = shares("logNormal")
    assert normal == pytest.approx(normal[::-1], abs=2e-3)
    assert normal[0] < normal[1] < normal[2]


def test_log_uniform_ints_have_shares_of_one_over_k() -> None:
    parameter = made(ParameterText("x", "int", "1", "9", distribution="logUniform"))
    edges = np.log([1 / math.sqrt(2)] + [math.sqrt(k * (k + 1)) for k in range(1, 9)] + [9 * math.sqrt(9 / 8)])
    expected = np.diff(edges) / (edges[-1] - edges[0])
    centres = np.cumsum(expected) - expected / 2
    assert [parameter.to_unit(str(k)) for k in range(1, 10)] == pytest.approx(centres.tolist(), abs=1e-12)


@pytest.mark.parametrize("unit", [math.nan, -0.1, 1.1, math.inf])
def test_a_position_outside_of_the_unit_interval_is_refused(unit: float) -> None:
    with pytest.raises(ValueError, match=r"position must be in \[0, 1\]"):
        made(ParameterText("x", "int", "1", "9")).to_text(unit)


def test_numbers() -> None:
    assert made(ParameterText("x", "discrete", list=("1e3", "5"))).number("1e3") == 1000.0
    assert made(ParameterText("x", "categorical", list=("1", "2"))).number("1") is None


def test_what_a_parameter_says_of_itself() -> None:
    parameter = made(ParameterText("x", "double", "1e-4", "1e-3", "1e-4", distribution="logUniform"))
    assert (parameter.type, parameter.distribution) == (ParameterType.DOUBLE, Distribution.LOG_UNIFORM)
    assert (parameter.low, parameter.high, parameter.step) == (1e-4, 1e-3, 1e-4)
    assert parameter.allowed == "a number from 0.0001 to 0.001 in steps of 0.0001"
    assert made(ParameterText("x", "int", "1", "9")).allowed == "a whole number from 1 to 9"
    assert made(ParameterText("x", "categorical", list=tuple("ab"))).allowed == "one of a, b"


def test_nearly_equal_values_keep_bins_of_their_own() -> None:
    values = ("1", "1.0000000000000002", "100")
    for distribution in ("normal", "logUniform", "logNormal"):
        parameter = made(ParameterText("x", "discrete", list=values, distribution=distribution))
        assert [parameter.to_text(parameter.to_unit(value)) for value in values] == list(values)


@pytest.mark.parametrize("distribution", ["uniform", "logUniform", "normal", "logNormal"])
@pytest.mark.parametrize(("low", "high"), [("1e-5", "0.1"), ("0.5", "0.9"), ("1", "1000000")])
def test_decoded_doubles_are_short_and_fixed_points(low: str, high: str, distribution: str) -> None:
    """Also in the tails, where rounding errors of the way there and back are largest."""
    parameter = made(ParameterText("x", "double", low, high, distribution=distribution))
    tails = np.geomspace(1e-12, 0.4, 500)
    for unit in np.concatenate([tails, 1 - tails]):
        value = parameter.to_text(float(unit))
        assert parameter.to_text(parameter.to_unit(value)) == value
        # Rounded to 1e-11 of the range (or of log(high / low), which is at least 0.58 here) or finer by one digit:
        # never the 16 or 17 digits of an unrounded double.
        assert len(value.split("e")[0].replace(".", "").strip("0")) <= 13


def test_an_edge_belongs_to_the_upper_bin() -> None:
    for text in (
        ParameterText("x", "categorical", list=("a", "b")),
        ParameterText("x", "int", "0", str(2 * TABLE_LIMIT - 1)),
    ):
        parameter = made(text)
        upper = "b" if text.list else str(TABLE_LIMIT)
        assert parameter.to_text(0.5) == upper
        assert parameter.to_text(math.nextafter(0.5, 0)) != upper


def test_a_value_just_beyond_the_bounds_is_not_forgiven_as_rounding() -> None:
    parameter = made(ParameterText("x", "double", "0", "100", "100"))
    assert parameter.contains("0")
    assert not parameter.contains("-0.0000001")
    assert not parameter.contains("100.0000001")


def test_zero_has_no_sign() -> None:
    for text in (
        ParameterText("x", "double", "-1", "-0.0"),
        ParameterText("x", "double", "-1", "-0.0", "0.5"),
        ParameterText("x", "double", "-0.0", "0"),
    ):
        assert made(text).to_text(1.0) == "0.0"
        assert repr(made(text).canonical("-0.0")) == "0.0"
    # Just below zero, and rounded to it.
    assert made(ParameterText("x", "double", "-1", "1")).to_text(0.5 - 1e-13) == "0.0"


# --- the nearest value ------------------------------------------------------------------------------------------------


@untimed
@given(st.one_of(ranges("x", "int"), ranges("x", "double"), lists("x", "discrete")), st.floats(-1e12, 1e12))
def test_the_nearest_value_is_one_and_a_value_is_its_own(text: ParameterText, number: float) -> None:
    parameter = made(text)
    found = parameter.nearest(number)
    assert parameter.contains(found)
    again = parameter.number(found)
    assert again is not None
    assert parameter.canonical(parameter.nearest(again)) == parameter.canonical(found)
    if parameter.values is not None and len(parameter.values) <= 50:
        gaps = [abs(float(value) - number) for value in parameter.values]
        # Doubles of 1e12 are 1e-4 apart; gaps that differ by less are equal.
        assert abs(again - number) <= min(gaps) + 1e-3


@pytest.mark.parametrize(
    ("number", "log", "expected"), [(22.0, False, "16"), (23.0, True, "32"), (1e9, True, "32"), (-5.0, True, "4")]
)
def test_values_of_a_list_are_compared_by_difference_or_ratio(number: float, log: bool, expected: str) -> None:
    parameter = made(ParameterText("rank", "discrete", list=("32", "4", "8", "16")))
    assert parameter.nearest(number, log=log) == expected


def test_a_category_is_near_no_number() -> None:
    with pytest.raises(ValueError, match="parameter 'x': a category is near no number"):
        made(ParameterText("x", "categorical", list=("1", "2"))).nearest(1.0)
