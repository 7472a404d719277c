"""Parameters and values in Optuna's terms."""

from __future__ import annotations

import warnings

import optuna
import pytest
from hypothesis import given
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rankwise.report.facts import ParameterFacts
from rankwise.report.sources import parameter_facts
from rankwise.space import SearchSpace
from rankwise.strategies.optuna_space import distribution_of, quiet, value_of
from support.spaces import spaces, untimed


def distribution(parameter: ParameterFacts) -> BaseDistribution:
    return distribution_of(
        parameter.type, parameter.distribution, parameter.low, parameter.high, parameter.step, parameter.values
    )


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (ParameterFacts("p", "double", "uniform", 0.0, 0.3), FloatDistribution(0.0, 0.3)),
        (ParameterFacts("p", "double", "logUniform", 1e-5, 1e-2), FloatDistribution(1e-5, 1e-2, log=True)),
        (ParameterFacts("p", "double", "uniform", 0.0, 0.3, 0.05), FloatDistribution(0.0, 0.3, step=0.05)),
        # 0.3 is no multiple of 0.07: Optuna would move the bound to 0.28 and warn
        (ParameterFacts("p", "double", "uniform", 0.0, 0.3, 0.07), FloatDistribution(0.0, 0.3)),
        (ParameterFacts("p", "double", "logUniform", 1e-5, 1e-2, 1e-5), FloatDistribution(1e-5, 1e-2, log=True)),
        (ParameterFacts("p", "int", "uniform", 1, 9, 2), IntDistribution(1, 9, step=2)),
        (ParameterFacts("p", "int", "logUniform", 1, 1024), IntDistribution(1, 1024, log=True)),
        (ParameterFacts("p", "int", "uniform", 3, 3), IntDistribution(3, 3)),
        (ParameterFacts("p", "discrete", values=("32", "4", "8", "16")), IntDistribution(4, 32, log=True)),
        (ParameterFacts("p", "discrete", values=("0.1", "0.2", "0.3")), FloatDistribution(0.1, 0.3)),
        (ParameterFacts("p", "discrete", values=("1e-5", "1e-4", "1e-3")), FloatDistribution(1e-5, 1e-3, log=True)),
        (ParameterFacts("p", "categorical", values=("a", "b", "a")), CategoricalDistribution(("a", "b"))),
    ],
)  # fmt: skip
def test_distributions(parameter: ParameterFacts, expected: BaseDistribution) -> None:
    assert distribution(parameter) == expected


@pytest.mark.parametrize(
    ("known", "text", "number", "expected"),
    [
        (IntDistribution(4, 32, log=True), "16", 16.0, 16),
        (IntDistribution(4, 32), "7.5", 7.5, None),
        (IntDistribution(4, 32), "64", 64.0, None),
        (IntDistribution(4, 32), "many", None, None),
        (FloatDistribution(0.0, 0.3, step=0.1), "0.2", 0.2, 0.2),
        (FloatDistribution(0.0, 0.3, step=0.1), "0.30000000000000004", 0.30000000000000004, None),
        (CategoricalDistribution(("a", "1")), "1", None, "1"),
        (CategoricalDistribution(("a", "1")), "b", None, None),
    ],
)
def test_values(known: BaseDistribution, text: str, number: float | None, expected: object) -> None:
    found = value_of(known, text, number)
    assert found == expected
    assert type(found) is type(expected)


@untimed
@given(spaces())
def test_every_value_of_a_space_is_within_its_distribution(space: SearchSpace) -> None:
    """A sampler that loses a value loses the whole parameter."""
    for point in space.candidates(8, 0):
        for parameter in space.parameters:
            known = distribution(parameter_facts(parameter))
            assert value_of(known, point[parameter.name], parameter.number(point[parameter.name])) is not None


def test_quiet_leaves_optunas_logging_and_other_warnings_alone() -> None:
    before = optuna.logging.get_verbosity()
    with quiet(FutureWarning):
        assert optuna.logging.get_verbosity() == optuna.logging.ERROR
        warnings.warn("not shown", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="shown"):
            warnings.warn("shown", UserWarning, stacklevel=1)
    assert optuna.logging.get_verbosity() == before
