"""Parameters and values in Optuna's terms: for studies in a report and for Optuna's samplers.

Numbers stay numbers: a discrete list becomes an int or float distribution over its range, on a log scale where the
list is spaced that way, because a list of categories would lose its order.

Optuna is not among the packages that the suggestion service needs: import this module where Optuna is used.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from rankwise.space.spacing import log_spaced


def distribution_of(
    kind: str,
    distribution: str,
    low: float | None,
    high: float | None,
    step: float | None,
    values: Sequence[str] | None,
) -> BaseDistribution:
    """The Optuna distribution of a parameter (see the module's text for discrete lists).

    Args:
        kind: Katib's word: double, int, discrete or categorical.
        distribution: Katib's word: uniform, logUniform, normal or logNormal; Optuna has no normal ones.
        low, high: bounds of a double or int.
        step: distance between values; None where there is none.
        values: the texts of a discrete or categorical parameter.
    """
    if kind == "categorical":
        return CategoricalDistribution(tuple(dict.fromkeys(values or ())))
    numbers = sorted({float(text) for text in values or ()}) if kind == "discrete" else []
    low, high = (numbers[0], numbers[-1]) if numbers else (float(low or 0.0), float(high or 0.0))
    log = log_spaced(distribution, low, numbers)
    whole = kind == "int" or (bool(numbers) and all(value == int(value) for value in numbers))
    usable = _usable_step(step, low, high) if not log and not numbers else None
    if whole:
        return IntDistribution(int(low), int(high), log=log, step=int(usable or 1))
    return FloatDistribution(low, high, log=log, step=usable)


def _usable_step(step: float | None, low: float, high: float) -> float | None:
    """The step, if it leads from one bound exactly to the other (Optuna would move the upper bound otherwise)."""
    if not step or step <= 0:
        return None
    exact = (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) == 0
    return step if exact else None


def value_of(distribution: BaseDistribution, text: str, number: float | None) -> str | int | float | None:
    """A parameter's value as Optuna keeps it; None when it is outside of the distribution.

    Args:
        distribution: of the parameter.
        text: as Katib spells the value.
        number: the finite number that the text stands for; None for a category and for what is no number.
    """
    if isinstance(distribution, CategoricalDistribution):
        return text if text in distribution.choices else None
    if number is None:
        return None
    value = int(number) if isinstance(distribution, IntDistribution) and number == int(number) else number
    if isinstance(distribution, IntDistribution) and not isinstance(value, int):
        return None
    return value if distribution._contains(distribution.to_internal_repr(value)) else None


@contextlib.contextmanager
def quiet(*silenced: type[Warning]) -> Iterator[None]:
    """Optuna without its log lines, and without warnings of the given kinds."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in silenced:
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        optuna.logging.set_verbosity(before)
