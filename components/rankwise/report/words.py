"""Numbers and texts as a person reads them."""

from __future__ import annotations

import math
import unicodedata


def number(value: float | None) -> str:
    """A number with about four significant digits; a dash for None."""
    if value is None:
        return "–"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e9):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")
    if abs(value) >= 1e3 or value == int(value):
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def with_error(value: float, error: float | None) -> str:
    """A value with its standard error, both to the second significant digit of the error: ``0.312 ± 0.014``."""
    if error is None:
        return number(value)
    if error == 0:
        return f"{number(value)} ± 0"
    decimals = 1 - math.floor(math.log10(error))
    if not 0 <= decimals <= 8:
        return f"{number(value)} ± {number(error)}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}".replace("-", "−")


def percent(value: float | None, signed: bool = False) -> str:
    """A share in percent: 0.0853 -> ``8.5 %``."""
    if value is None:
        return "–"
    share = value * 100
    digits = 1 if abs(share) < 100 else 0
    return f"{share:{'+' if signed else ''}.{digits}f} %".replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration: ``0.84 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 07 min``."""
    if value is None:
        return "–"
    if value < 100:
        return f"{value:.3g} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(value: float | None) -> str:
    """Bytes in binary units: ``1.25 GiB``."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def energy(value: float | None) -> str:
    """Joules: ``840 J``, ``12.5 kJ``, ``3.1 MJ``."""
    if value is None:
        return "–"
    if value < 1e3:
        return f"{value:.3g} J"
    return f"{value / 1e3:.3g} kJ" if value < 1e6 else f"{value / 1e6:.3g} MJ"


def amount(metric: str, value: float | None) -> str:
    """A metric's value in the unit that its name tells: seconds, bytes, joules, else a plain number."""
    parts = metric.lower().split("_")
    kinds = {"seconds": seconds, "bytes": memory, "joules": energy}
    return next((show for name, show in kinds.items() if name in parts), number)(value)


def plural(count: int, noun: str) -> str:
    """``1 trial``, ``30 trials``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def shorten(text: str, length: int) -> str:
    """The text, cut in its middle to ``length`` characters, since names often differ at the end."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


_TURNS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""Characters that turn the writing direction of all that follows, beyond the text they stand in."""


def straight(text: str) -> str:
    """The text without characters that turn the writing direction of the sentence around it."""
    return text.translate(_TURNS)


def one_line(text: str) -> str:
    """The text without control characters (line ends, terminal escapes, turns of direction), blanks collapsed."""
    text = straight(text)
    clean = "".join(" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)
    return " ".join(clean.split())


def width(text: str) -> int:
    """Columns that a terminal needs for the text: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def pad(text: str, columns: int, right: bool = False) -> str:
    """The text filled with blanks to a number of terminal columns."""
    blanks = " " * max(0, columns - width(text))
    return blanks + text if right else text + blanks
