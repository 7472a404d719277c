"""Numbers as Katib writes them: exact, finite, ASCII."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")

# Longer texts are no numbers that a person wrote, and an exact conversion of them could take for ever.
_MAX_LENGTH = 1000

LARGEST = 1e300
"""No number may be larger: sums and differences of two then still fit into a double."""
SMALLEST = 1e-300
"""No number but zero may be smaller: doubles below 2.2e-308 lose their digits."""


def parse_number(text: str) -> Fraction | None:
    """The exact value of a decimal number.

    Args:
        text: e.g. ``8``, ``0.05``, ``1e-4``. No blanks, no underscores, no ``nan``, no ``inf``.

    Returns:
        the value as an exact fraction (sums of steps then have no rounding error); None when the text is no
        number, or its size is beyond :data:`LARGEST` or below :data:`SMALLEST`.
    """
    if len(text) > _MAX_LENGTH or not _NUMBER.fullmatch(text):
        return None
    approximate = abs(float(text))
    if approximate > LARGEST or 0.0 < approximate < SMALLEST:
        return None
    if approximate == 0.0:
        # Not left to Fraction: "0e999999999" would make it compute 10**999999999.
        mantissa = re.split("[eE]", text)[0]
        return None if re.search("[1-9]", mantissa) else Fraction(0)
    return Fraction(text)


def parse_integer(text: str) -> int | None:
    """The value of a whole number written without a point; None for everything else."""
    if len(text) > _MAX_LENGTH or not _INTEGER.fullmatch(text):
        return None
    return int(text)


def double_text(value: float) -> str:
    """The shortest text that a double comes back from; zero never has a sign."""
    return repr(value + 0.0)
