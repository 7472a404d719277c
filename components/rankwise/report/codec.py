"""Frozen dataclasses to plain JSON values and back, checked against their type hints.

Reading collects every mistake with its path (``trials[3].value``), because a report file may come from another
version or from a user's editor. Supported: ``str``, ``bool``, ``int``, ``float`` (finite), ``X | None``,
``tuple[X, ...]``, ``Mapping[str, X]``, enumerations, aware ``datetime`` (RFC 3339) and dataclasses of these.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rankwise.errors import InvalidInput, Problem

T = TypeVar("T")

_SHOWN = 80
"""Characters of a wrong value that an error message repeats."""


def encode(value: object) -> Any:
    """A value as plain JSON types (dict, list, str, int, float, bool, None).

    Raises:
        TypeError: a type that this module does not support.
        ValueError: a float that is not finite (JSON has no word for it).
    """
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number in JSON must be finite, got {value!r}")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def decode(kind: type[T], data: object, path: str) -> T:
    """Build a dataclass from plain JSON values.

    Args:
        kind: the dataclass.
        data: what ``json.loads`` gave.
        path: put before the path of each mistake.

    Raises:
        InvalidInput: with every mistake.
    """
    problems: list[Problem] = []
    value = _decode(kind, data, path, problems)
    if problems:
        raise InvalidInput(problems)
    assert isinstance(value, kind)  # noqa: S101 - _decode reports a problem whenever it cannot build one
    return value


class _Wrong:
    """Stands for a value that could not be read; its mistake is already in the list."""


_WRONG = _Wrong()


def _wrong(problems: list[Problem], path: str, data: object, allowed: str) -> _Wrong:
    text = repr(data)
    problems.append(Problem(path, text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…", allowed))
    return _WRONG


def _decode(kind: Any, data: object, path: str, problems: list[Problem]) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        (inner,) = (item for item in get_args(kind) if item is not type(None))
        return None if data is None else _decode(inner, data, path, problems)
    if origin is tuple:
        return _decode_tuple(get_args(kind)[0], data, path, problems)
    if origin is Mapping:
        return _decode_mapping(get_args(kind)[1], data, path, problems)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, path, problems)
    if issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            return _wrong(problems, path, data, "one of " + ", ".join(repr(member.value) for member in kind))
    return _decode_scalar(kind, data, path, problems)


def _decode_scalar(kind: type, data: object, path: str, problems: list[Problem]) -> Any:
    if kind is datetime:
        return _decode_time(data, path, problems)
    if kind is float:
        # JSON has one kind of number: 3 is a good float, True is not.
        if isinstance(data, bool) or not isinstance(data, int | float):
            return _wrong(problems, path, data, "a number")
        try:
            number = float(data)
        except OverflowError:
            number = math.inf
        return number if math.isfinite(number) else _wrong(problems, path, data, "a finite number")
    if kind is int:
        if isinstance(data, bool) or not isinstance(data, int):
            return _wrong(problems, path, data, "a whole number")
        return data
    if not isinstance(data, kind):
        return _wrong(problems, path, data, "text" if kind is str else "true or false")
    return data


def _decode_time(data: object, path: str, problems: list[Problem]) -> datetime | _Wrong:
    allowed = "a time as RFC 3339 with a time zone, e.g. 2026-01-31T12:00:00Z"
    try:
        time = datetime.fromisoformat(data) if isinstance(data, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        return _wrong(problems, path, data, allowed)
    return time


def _decode_tuple(kind: Any, data: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(data, list):
        return _wrong(problems, path, data, "a list")
    return tuple(_decode(kind, item, f"{path}[{index}]", problems) for index, item in enumerate(data))


def _decode_mapping(kind: Any, data: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(data, dict):
        return _wrong(problems, path, data, "an object")
    return {key: _decode(kind, item, f"{path}.{key}", problems) for key, item in data.items()}


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _decode_dataclass(kind: Any, data: object, path: str, problems: list[Problem]) -> Any:
    if not isinstance(data, dict):
        return _wrong(problems, path, data, "an object")
    before = len(problems)
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for key in data.keys() - fields.keys():
        _wrong(problems, f"{path}.{key}", data[key], "no such field here")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _decode(hints[name], data[name], f"{path}.{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            _wrong(problems, f"{path}.{name}", None, "this field must be given")
    if len(problems) > before:
        return _WRONG
    try:
        return kind(**values)
    except ValueError as error:  # the dataclass's own checks, e.g. a failed trial with a value
        return _wrong(problems, path, data, str(error))
