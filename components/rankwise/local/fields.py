"""Reads the fields of a mapping and collects what is wrong with them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rankwise.errors import Problem

INT32_MAX = 2**31 - 1


def kind_of(value: object) -> str:
    """What a value is, in YAML's words."""
    names: dict[type, str] = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", int: "a number"}
    return "nothing" if value is None else names.get(type(value), "a number")


def shown(value: object) -> str:
    """A value as a message shows it; long ones are cut."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` where a known word is near, else nothing."""
    words = list(known)
    # Upper and lower case are the commonest mistakes and count as near.
    by_lower = {candidate.lower(): candidate for candidate in words}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


class Fields:
    """One mapping of the document.

    Args:
        value: what stands there; anything but a mapping is a problem.
        path: its place.
        known: the keys that may stand in it.
        problems: where mistakes are put.
    """

    def __init__(self, value: object, path: str, known: Iterable[str], problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.known = tuple(known)
        self.values: Mapping[str, Any] = value if isinstance(value, dict) else {}
        self.readable = isinstance(value, dict)
        if not self.readable:
            problems.append(Problem(path or "the file", shown(value), f"a mapping, not {kind_of(value)}"))
        for key in self.values:
            if key not in self.known:
                allowed = f"one of the keys {', '.join(self.known)}{suggestion(key, self.known)}"
                problems.append(Problem(self.at(key), key, allowed))

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def problem(self, key: str, value: object, allowed: str) -> None:
        self.problems.append(Problem(self.at(key), shown(value), allowed))

    def has(self, key: str) -> bool:
        """Whether a key has a value; a key without one (``key:``) counts as not given."""
        return self.values.get(key) is not None

    def text(self, key: str, default: str = "", *, required: str = "") -> str:
        """A text.

        Args:
            key: its key.
            default: where it is not given.
            required: what is allowed; where this is not empty, a missing or empty text is a problem.
        """
        value = self.values.get(key)
        if value is None:
            value = default
        if not isinstance(value, str):
            quotes = "a text; put it into quotes" if isinstance(value, (bool, int, float)) else "a text"
            self.problem(key, value, quotes)
            return scalar_text(value)
        if required and not value and self.readable:
            self.problem(key, value, required)
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.problem(key, value, "true or false")
        return default

    def count(self, key: str, *, least: int) -> int | None:
        """A whole number of at least ``least``; None where it is not given or wrong."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= INT32_MAX:
            self.problem(key, value, f"a whole number of at least {least}")
            return None
        return value

    def number(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e300:
            self.problem(key, value, "a number without quotes")
            return None
        return float(value)

    def sequence(self, key: str) -> list[Any]:
        """The items of a list; empty where it is not given or wrong."""
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problem(key, value, f"a list, not {kind_of(value)}")
            return []
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; items that are none are problems and kept as texts."""
        items = []
        for i, item in enumerate(self.sequence(key)):
            if not isinstance(item, str):
                quotes = "; put it into quotes" if isinstance(item, (bool, int, float)) else ""
                self.problem(f"{key}[{i}]", item, f"a text{quotes}")
            items.append(item if isinstance(item, str) else scalar_text(item))
        return tuple(items)

    def text_mapping(self, key: str) -> dict[str, str]:
        """A mapping of texts to texts, such as labels."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.problem(key, value, f"a mapping, not {kind_of(value)}")
            return {}
        for name, item in value.items():
            if not isinstance(item, str):
                self.problem(f"{key}.{name}", item, "a text; put it into quotes")
        return {name: item if isinstance(item, str) else scalar_text(item) for name, item in value.items()}

    def below(self, key: str, known: Iterable[str]) -> Fields:
        """The fields of a mapping under a key that has a value."""
        return Fields(self.values.get(key), self.at(key), known, self.problems)

    def each(self, key: str, known: Iterable[str]) -> list[Fields]:
        """The fields of each mapping in a list."""
        known = tuple(known)
        return [Fields(item, f"{self.at(key)}[{i}]", known, self.problems) for i, item in enumerate(self.sequence(key))]


def scalar_text(value: object) -> str:
    """A scalar that should have been a text, as the text that was probably meant."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
