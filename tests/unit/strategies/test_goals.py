"""The settings that say what a search is for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.strategy_contract import MIXED
from rankwise.errors import InvalidInput
from rankwise.space import Goal, Objective
from rankwise.strategies.goals import (
    GOAL_OPTIONS,
    LARGEST,
    Constraint,
    ConstraintMethod,
    Goals,
    Traded,
    parse_constraints,
    read_goals,
)

LOSS = Objective(
    "loss",
    Goal.MINIMIZE,
    additional_metrics=("seconds", "peak_memory_bytes", "energy_joules", "rouge1", "bleu"),
)
DEFAULT = '{"rank": 8, "learning_rate": 3e-04, "schedule": "linear", "steps": 100}'


def read(objective: Objective = LOSS, **settings: str) -> Goals:
    return read_goals(settings, objective, MIXED)


def mistakes(objective: Objective = LOSS, **settings: str) -> list[tuple[str, str]]:
    """Last part of the path, and value, of every mistake."""
    with pytest.raises(InvalidInput, match=r"spec\.algorithm\.algorithmSettings\.") as caught:
        read(objective, **settings)
    return [
        (problem.path.removeprefix("spec.algorithm.algorithmSettings."), problem.value)
        for problem in caught.value.problems
    ]


def test_without_settings_there_is_only_the_objective() -> None:
    assert read() == Goals(LOSS)
    assert read_goals({option.name: "" for option in GOAL_OPTIONS}, LOSS) == Goals(LOSS)
    # Other options are somebody else's.
    assert read_goals({"surrogate": "numeric", "fit_steps": "x"}, LOSS) == Goals(LOSS)


def test_the_cost_is_time_unless_it_is_said_otherwise() -> None:
    assert read(cost_weight="0.5").weights == {"seconds": 1.0}
    goals = read(cost_weight="2", cost_seconds="0", cost_memory="0.25", cost_energy="3")
    assert (goals.cost_weight, goals.weights) == (2.0, {"peak_memory_bytes": 0.25, "energy_joules": 3.0})
    # Without λ nothing of it counts, and nothing has to be reported.
    assert read(Objective("loss", Goal.MINIMIZE), cost_memory="1").weights == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("peak_memory_bytes<=8GB", Constraint("peak_memory_bytes", 8e9)),
        ("peak_memory_bytes <= 8 GiB", Constraint("peak_memory_bytes", 8 * 2.0**30)),
        ("peak_memory_bytes<=8e9", Constraint("peak_memory_bytes", 8e9)),
        ("seconds<=1.5h", Constraint("seconds", 5400.0)),
        ("seconds ≤ 10min", Constraint("seconds", 600.0)),
        ("energy_joules<=2kWh", Constraint("energy_joules", 7.2e6)),
        ("rouge1>=0.36", Constraint("rouge1", 0.36, False)),
        ("loss<=-1", Constraint("loss", -1.0)),
    ],
)
def test_bounds_may_have_units(text: str, expected: Constraint) -> None:
    assert read(constraints=text).constraints == (expected,)
    assert parse_constraints(text) == [expected]


def test_several_bounds_and_how_they_are_kept() -> None:
    goals = read(constraints="seconds<=60, rouge1>=.3 ,rouge1<=.5", constraint_method="lagrangian")
    assert [str(one) for one in goals.constraints] == ["seconds <= 60", "rouge1 >= 0.3", "rouge1 <= 0.5"]
    assert goals.method is ConstraintMethod.LAGRANGIAN
    assert parse_constraints("") == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("seconds<60", ["seconds<60"]),
        ("seconds", ["seconds"]),
        ("seconds<=", ["seconds<="]),
        ("seconds<=1.2.3", ["seconds<=1.2.3"]),
        ("seconds<=1e999", ["seconds<=1e999"]),
        ("seconds<=8GB", ["seconds<=8GB"]),
        ("rouge1>=36h", ["rouge1>=36h"]),
        ("seconds<=1,", [""]),
        ("accuracy>=1, seconds<=x, seconds<=2, seconds<=3", ["accuracy>=1", "seconds<=x", "seconds<=3"]),
        ("rouge1>=0.5, rouge1<=0.4", ["rouge1 >= 0.5, rouge1 <= 0.4"]),
    ],
)
def test_wrong_bounds(text: str, wrong: list[str]) -> None:
    assert mistakes(constraints=text) == [("constraints", value) for value in wrong]


def test_only_metrics_that_katib_delivers() -> None:
    plain = Objective("loss", Goal.MINIMIZE)
    assert mistakes(plain, cost_weight="1", constraints="seconds<=3") == [
        ("cost_seconds", "1"),
        ("constraints", "seconds<=3"),
    ]
    with pytest.raises(InvalidInput, match=r"seconds among spec\.objective\.additionalMetricNames"):
        read(plain, cost_weight="1")
    assert mistakes(plain, pareto="seconds") == [("pareto", "seconds")]
    assert read(plain, constraints="loss<=3").constraints == (Constraint("loss", 3.0),)


def test_a_front_has_the_objective_first() -> None:
    quality = Objective("bleu", Goal.MAXIMIZE, additional_metrics=("seconds", "rouge1"))
    assert read(quality, pareto="seconds, rouge1 : maximize").traded == (
        Traded("bleu", Goal.MAXIMIZE),
        Traded("seconds"),
        Traded("rouge1", Goal.MAXIMIZE),
    )


def test_wrong_fronts() -> None:
    assert mistakes(pareto="seconds:up, loss, nothing, bleu, bleu:maximize") == [
        ("pareto", "seconds:up"),
        ("pareto", "loss"),
        ("pareto", "nothing"),
        ("pareto", "bleu:maximize"),
    ]
    assert len(mistakes(pareto="seconds, peak_memory_bytes, energy_joules, bleu")) == 1
    assert mistakes(pareto="seconds", cost_weight="1") == [("cost_weight", "1")]
    assert mistakes(pareto="seconds", constraints="bleu>=1", constraint_method="lagrangian") == [
        ("constraint_method", "lagrangian")
    ]
    assert mistakes(cost_weight="1", cost_seconds="0") == [("cost_weight", "1")]


def test_the_default_configuration_keeps_its_digits() -> None:
    assert read(default_configuration=DEFAULT).default == {
        "rank": "8",
        "learning_rate": "3e-04",
        "schedule": "linear",
        "steps": "100",
    }


@pytest.mark.parametrize("text", ["8", "{", "[]", '{"rank": true}', '{"rank": [8]}', '{"rank": NaN}'])
def test_a_default_configuration_that_is_none(text: str) -> None:
    assert mistakes(default_configuration=text) == [("default_configuration", text)]


def test_a_default_configuration_has_to_lie_in_the_space() -> None:
    text = '{"rank": 3, "learning_rate": 1, "schedule": "linear", "alpha": 4}'
    assert mistakes(default_configuration=text) == [
        ("default_configuration.rank", "3"),
        ("default_configuration.learning_rate", "1"),
        ("default_configuration.steps", ""),
        ("default_configuration.alpha", "4"),
    ]
    # Without a space, as in a report of a search that others made, it is taken as it stands.
    goals = read_goals({"default_configuration": text}, LOSS)
    assert goals.default == {"rank": "3", "learning_rate": "1", "schedule": "linear", "alpha": "4"}


def test_every_mistake_at_once() -> None:
    found = mistakes(cost_weight="1", cost_seconds="0", constraints="x<=1", pareto="y", default_configuration="z")
    assert [name for name, _ in found] == [
        "cost_weight",
        "constraints",
        "pareto",
        "cost_weight",
        "default_configuration",
    ]
    assert mistakes(cost_weight="-1", constraint_method="price") == [
        ("cost_weight", "-1"),
        ("constraint_method", "price"),
    ]


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    bound=st.floats(allow_nan=False, allow_infinity=False),
    at_most=st.booleans(),
)
def test_a_violation_is_positive_exactly_beyond_the_bound(value: float, bound: float, at_most: bool) -> None:
    g = Constraint("seconds", bound, at_most).violation(value)
    assert math.isfinite(g)
    assert abs(g) <= LARGEST
    if g > 0:
        assert value > bound if at_most else value < bound
    # The other way round a difference of denormal size may vanish in the division.
    beyond = value - bound if at_most else bound - value
    if beyond / (abs(bound) or 1.0) > 0:
        assert g > 0


def test_a_violation_is_measured_in_bounds() -> None:
    assert Constraint("seconds", 200.0).violation(250.0) == 0.25
    assert Constraint("rouge1", 0.5, False).violation(0.4) == pytest.approx(0.2)
    assert Constraint("x", 0.0).violation(3.0) == 3.0
