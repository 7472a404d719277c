"""On which scale the values of a numeric parameter lie evenly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

_LOGARITHMIC = ("logUniform", "logNormal")


def log_spaced(distribution: str, low: float | None, numbers: Sequence[float] = ()) -> bool:
    """Whether a parameter belongs on a logarithmic scale.

    It does with a log distribution, and as a list whose values lie more evenly on a log axis (8, 16, 32, 64) than on a
    linear one (0.1, 0.2, 0.3).

    Args:
        distribution: Katib's word: uniform, logUniform, normal or logNormal.
        low: the smallest value; None where it is not known.
        numbers: the distinct values of a list, ascending; empty for a range.
    """
    if low is None or low <= 0:
        return False
    if distribution in _LOGARITHMIC:
        return True
    if len(numbers) < 2:
        return False
    if len(numbers) == 2:  # two values are even on any axis: a decade apart or more reads better on a log one
        return numbers[1] / numbers[0] >= 10
    return _unevenness([math.log(value) for value in numbers]) < _unevenness(numbers)


def _unevenness(values: Sequence[float]) -> float:
    """Coefficient of variation of the gaps between neighbours."""
    gaps = [b - a for a, b in itertools.pairwise(values)]
    mean = sum(gaps) / len(gaps)
    return math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean
