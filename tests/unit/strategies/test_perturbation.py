"""How a value changes: by a factor, to a neighbour at least, within its bounds; and which parameters may."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.space import ParameterText, ParameterType, SearchSpace, parse_space
from rankwise.strategies.perturbation import Perturbation, default_names, multiplied, read_names
from support.spaces import spaces, untimed

RATE = ParameterText("learning_rate", "double", "1e-5", "1e-2", distribution="logUniform")
DROPOUT = ParameterText("dropout", "double", "0", "0.5")
SPACE = parse_space(
    (
        RATE,
        DROPOUT,
        ParameterText("lora_r", "discrete", list=("4", "8", "16")),
        ParameterText("alpha", "int", "1", "64"),
        ParameterText("batch_size", "discrete", list=("4", "8")),
        ParameterText("epochs", "int", "1", "4"),
        ParameterText("schedule", "categorical", list=("linear", "constant")),
        ParameterText("label_smoothing", "double", "0", "0.2"),
    )
)


def change(text: ParameterText, value: str, factor: float) -> str:
    return multiplied(parse_space((text,)).parameters[0], value, factor)


@pytest.mark.parametrize(
    ("text", "value", "factor", "expected"),
    [
        (RATE, "3e-4", 1.2, "0.00036"),
        (RATE, "3e-4", 0.8, "0.00024"),
        (RATE, "9e-3", 1.2, "0.01"),
        (RATE, "1.1e-5", 0.8, "1e-05"),
        # Zero is moved by a part of the range; downwards there is nothing.
        (DROPOUT, "0", 1.2, "0.1"),
        (DROPOUT, "0", 0.8, "0.0"),
        (ParameterText("x", "double", "-2", "2"), "-1", 1.2, "-1.2"),
        # The nearest value of a list, the neighbour where that is the old one, the end where there is none.
        (ParameterText("x", "discrete", list=("1", "2", "4", "8")), "4", 1.9, "8"),
        (ParameterText("x", "discrete", list=("1", "2", "4", "8")), "4", 1.2, "8"),
        (ParameterText("x", "discrete", list=("1", "2", "4", "8")), "4", 0.8, "2"),
        (ParameterText("x", "discrete", list=("1", "2", "4", "8")), "8", 1.2, "8"),
        (ParameterText("x", "discrete", list=("0.10", "2e-1", "4e-1")), "0.1", 1.2, "2e-1"),
        (ParameterText("x", "int", "1", "20"), "10", 1.2, "12"),
        (ParameterText("x", "int", "1", "20"), "2", 1.2, "3"),
        (ParameterText("x", "int", "1", "20"), "1", 0.8, "1"),
        (ParameterText("x", "double", "0.1", "0.9", "0.2"), "0.5", 1.2, "0.7"),
        # Too many values to be written out.
        (ParameterText("x", "int", "1", "1000000"), "500000", 1.2, "600000"),
        (ParameterText("x", "int", "1", "1000000"), "2", 1.2, "3"),
        (ParameterText("x", "int", "1", "1000000"), "1000000", 1.2, "1000000"),
        (ParameterText("x", "double", "0", "1", "1e-6"), "0.5", 0.8, "0.4"),
    ],
)
def test_a_value_is_multiplied(text: ParameterText, value: str, factor: float, expected: str) -> None:
    assert change(text, value, factor) == expected


def test_only_values_of_a_number_are_multiplied() -> None:
    with pytest.raises(ValueError, match="'linear' is no number of parameter 'schedule'"):
        multiplied(SPACE.parameters[6], "linear", 1.2)
    with pytest.raises(ValueError, match="'7' is no value of parameter 'lora_r'"):
        multiplied(SPACE.parameters[2], "7", 1.2)


numeric = spaces(max_dimension=3)


@settings(untimed, max_examples=40)
@given(numeric, st.floats(0.01, 1.0), st.floats(1.0, 100.0), st.floats(0.0, 1.0), st.integers(0, 2**31))
def test_bounds_are_kept_and_others_stay(
    space: SearchSpace, down: float, up: float, resample: float, seed: int
) -> None:
    names = tuple(p.name for p in space.parameters if p.type is not ParameterType.CATEGORICAL)
    perturb = Perturbation(names[:2], down, up, resample)
    for point in space.sobol(4, seed):
        changed = perturb(space, point, np.random.default_rng(seed))
        assert space.contains(changed), f"{changed} of {point}"
        assert all(changed[name] == point[name] for name in space.names if name not in names[:2])
        assert changed == perturb(space, point, np.random.default_rng(seed))


@settings(untimed, max_examples=40)
@given(numeric, st.floats(0.01, 0.99), st.floats(1.01, 100.0), st.integers(0, 2**31))
def test_a_factor_moves_to_its_side_or_stays_at_the_bound(
    space: SearchSpace, down: float, up: float, seed: int
) -> None:
    for parameter in space.parameters:
        if parameter.type is ParameterType.CATEGORICAL:
            continue
        for unit in np.random.default_rng(seed).random(3):
            text = parameter.to_text(float(unit))
            here = parameter.number(text)
            assert here is not None
            for factor in (down, up):
                there = parameter.number(multiplied(parameter, text, factor))
                assert there is not None
                outwards = (factor > 1.0) == (here >= 0.0)
                assert (there >= here) if outwards else (there <= here)
                # A list has a neighbour unless it ends here; a range of doubles may hold no other of ten digits.
                if parameter.table is not None and there == here:
                    assert here == (max if outwards else min)(map(float, parameter.table.values))


def test_the_factors_and_the_distribution_are_used_as_often_as_said() -> None:
    perturb = Perturbation(("learning_rate",), 0.8, 1.2, 0.25)
    generator = np.random.default_rng(0)
    point = {**SPACE.candidates(1, 0).assignments(0), "learning_rate": "3e-4"}
    n = 4000
    found = [perturb(SPACE, point, generator)["learning_rate"] for _ in range(n)]
    # Binomial: four standard deviations of a share p are 4 sqrt(p (1 - p) / n), at most 0.032.
    for text, share in (("0.00024", 0.375), ("0.00036", 0.375)):
        assert abs(found.count(text) / n - share) < 4 * (share * (1 - share) / n) ** 0.5
    anew = [float(text) for text in found if text not in ("0.00024", "0.00036")]
    # Log-uniform over three decades: half of it lies below the geometric middle.
    below = sum(rate < 10**-3.5 for rate in anew) / len(anew)
    assert abs(below - 0.5) < 4 * 0.5 / len(anew) ** 0.5


def test_what_changes_by_default() -> None:
    assert default_names(SPACE) == ("learning_rate", "dropout", "label_smoothing")


def test_named_parameters_change() -> None:
    assert read_names("alpha, dropout,alpha", SPACE, "p") == ("alpha", "dropout")
    assert read_names(" ", SPACE, "p") == default_names(SPACE)


def test_every_wrong_name_is_told_with_its_reason() -> None:
    with pytest.raises(InvalidInput, match="allowed:") as caught:
        read_names("lora_r,nothing,epochs,schedule,dropout,", SPACE, "p")
    told = {problem.value: problem.allowed for problem in caught.value.problems}
    assert list(told) == ["lora_r", "nothing", "epochs", "schedule", ""]
    assert "changes the adapter's shape" in told["lora_r"]
    assert told["nothing"].startswith("parameters of the space, separated by commas: learning_rate, ")
    assert "how long a generation is" in told["epochs"]
    assert told["schedule"].startswith("numbers only")
