"""The options of a strategy: one table that parses, validates and documents ``algorithmSettings``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rankwise.errors import InvalidInput, Problem
from rankwise.space.trial import parse_finite

OptionValue: TypeAlias = int | float | str | None
MAX_INTEGER = 2**63 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Option:
    """One setting of a strategy.

    Attributes:
        name: as in ``algorithmSettings``.
        type: ``int``, ``float`` or ``str``.
        default: its value when it is not given or empty; None where the strategy derives one (``help`` says how).
        help: one sentence.
        low: least allowed number, inclusive.
        high: greatest allowed number, inclusive.
        choices: allowed texts; empty for any.

    Raises:
        ValueError: the default is not an allowed value.
    """

    name: str
    type: type[int] | type[float] | type[str]
    default: OptionValue
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.default is not None and self.read(str(self.default)) != self.default:
            raise ValueError(f"option {self.name!r}: the default {self.default!r} is not {self.allowed}")

    @property
    def allowed(self) -> str:
        """A clause that says which values there are."""
        if self.type is str:
            return "one of " + ", ".join(self.choices) if self.choices else "any text"
        kind = "a whole number" if self.type is int else "a number"
        if self.low is not None and self.high is not None:
            return f"{kind} from {self.low:.15g} to {self.high:.15g}"
        if self.low is not None:
            return f"{kind} of at least {self.low:.15g}"
        return kind if self.high is None else f"{kind} of at most {self.high:.15g}"

    def read(self, text: str) -> OptionValue:
        """The value that a text stands for; None when it is not allowed."""
        value: int | float | None
        if self.type is str:
            return text if not self.choices or text in self.choices else None
        if self.type is int:
            value = int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else None
            if value is not None and abs(value) > MAX_INTEGER:
                return None
        else:
            value = parse_finite(text)
        if (
            value is None
            or (self.low is not None and value < self.low)
            or (self.high is not None and value > self.high)
        ):
            return None
        return value


class OptionTable:
    """All options of one strategy, in the order in which they are documented.

    Raises:
        ValueError: two options have the same name.
    """

    def __init__(self, options: Sequence[Option]) -> None:
        self._options = {option.name: option for option in options}
        if len(self._options) != len(options):
            raise ValueError(f"options need different names, got {[option.name for option in options]}")

    def __iter__(self) -> Iterator[Option]:
        return iter(self._options.values())

    def __len__(self) -> int:
        return len(self._options)

    def __getitem__(self, name: str) -> Option:
        return self._options[name]

    def parse(self, settings: Mapping[str, str], path: str = "spec.algorithm.algorithmSettings") -> ParsedOptions:
        """Read settings.

        Args:
            settings: name -> text as the user wrote it; an empty text stands for the default.
            path: where the settings stand in the user's file, for the messages.

        Returns:
            Every option with its value.

        Raises:
            InvalidInput: with every unknown name and every value that is not allowed.
        """
        problems: list[Problem] = []
        values: dict[str, OptionValue] = {option.name: option.default for option in self}
        for name, given in settings.items():
            option = self._options.get(name)
            text = given.strip()
            if option is None:
                near = difflib.get_close_matches(name.replace("-", "_").lower(), self._options, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                problems.append(Problem(f"{path}.{name}", given, f"only the options {', '.join(self._options)}{hint}"))
            elif text:
                value = option.read(text)
                if value is None:
                    problems.append(Problem(f"{path}.{name}", given, option.allowed))
                else:
                    values[name] = value
        if problems:
            raise InvalidInput(problems)
        return ParsedOptions(values)

    def document(self) -> str:
        """The table as Markdown rows, with a header."""
        lines = ["| option | allowed | default | meaning |", "|---|---|---|---|"]
        for option in self:
            default = (
                "derived" if option.default is None else f"`{option.default}`" if option.default != "" else "empty"
            )
            lines.append(f"| `{option.name}` | {option.allowed} | {default} | {option.help} |")
        return "\n".join(lines) + "\n"


class ParsedOptions(Mapping[str, OptionValue]):
    """Option values by name, with typed access."""

    def __init__(self, values: Mapping[str, OptionValue]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> OptionValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def integer(self, name: str) -> int:
        """Value of an ``int`` option.

        Raises:
            TypeError: the option is of another type, or has no value.
        """
        value = self._values[name]
        if not isinstance(value, int):
            raise TypeError(f"option {name!r} holds {value!r}, not an int")
        return value

    def number(self, name: str) -> float:
        """Value of a ``float`` option.

        Raises:
            TypeError: the option is of another type, or has no value.
        """
        value = self._values[name]
        if not isinstance(value, (int, float)):
            raise TypeError(f"option {name!r} holds {value!r}, not a number")
        return float(value)

    def text(self, name: str) -> str:
        """Value of a ``str`` option.

        Raises:
            TypeError: the option is of another type, or has no value.
        """
        value = self._values[name]
        if not isinstance(value, str):
            raise TypeError(f"option {name!r} holds {value!r}, not a text")
        return value
