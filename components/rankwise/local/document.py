"""Reads one YAML document as Kubernetes does, with every structural mistake and its place.

Differences from PyYAML's own loader, each because a cluster would read (or refuse) the same file so:

* a key that stands twice or is no text, a tag such as ``!!binary`` and a number that is not finite are mistakes;
* ``1e-4`` is a number, ``2026-01-31`` and ``1:30`` are texts, ``y`` and ``n`` are true and false;
* several documents, aliases that contain themselves and files that blow up by aliases are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rankwise.errors import InvalidInput, Problem

MAX_BYTES = 1_000_000
"""Kubernetes keeps no object that is larger than about 1.5 MB."""
MAX_VALUES = 100_000
"""Values of a document, aliases written out."""

_MAP, _SEQ, _STR, _MERGE = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "merge"))
_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
_TRUE = ("true", "yes", "on", "y")
_FALSE = ("false", "no", "off", "n")


class _Loader(yaml.SafeLoader):
    """Composes nodes; it has resolvers of its own, since those of its parent class are PyYAML's."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 — PyYAML's own form


def _word(words: tuple[str, ...]) -> str:
    return "|".join(form for word in words for form in (word, word.capitalize(), word.upper()))


for _tag, _pattern in (
    (_NULL, r"~|null|Null|NULL|"),
    (_BOOL, _word(_TRUE + _FALSE)),
    (_INT, r"[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?0o?[0-7_]+|[-+]?0b[01_]+"),
    (
        _FLOAT,
        r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    ),
    (_MERGE, r"<<"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), None)


def read_file(path: Path) -> tuple[dict[str, Any], list[Problem]]:
    """The document of a file, and the mistakes that leave it readable.

    Raises:
        InvalidInput: the file cannot be read, or is no single YAML mapping.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput([Problem(str(path), error.strerror or str(error), "a file that can be read")]) from error
    if len(data) > MAX_BYTES:
        raise InvalidInput([Problem(path.name, f"more than {MAX_BYTES} bytes", f"at most {MAX_BYTES} bytes")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInput([Problem(f"{path.name}, line {line}", repr(data[error.start]), "UTF-8 text")]) from error
    return read_text(text, path.name)


def read_text(text: str, name: str) -> tuple[dict[str, Any], list[Problem]]:
    """The document in a text; see :func:`read_file`.

    Args:
        text: YAML.
        name: the file's name, for the messages.

    Raises:
        InvalidInput: the text is no single YAML mapping.
    """
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if node.tag != _NULL]
    except yaml.MarkedYAMLError as error:
        raise InvalidInput([_syntax_problem(error, text, name)]) from error
    except yaml.YAMLError as error:  # an unprintable character
        raise InvalidInput([Problem(name, " ".join(str(error).split())[:200], "YAML")]) from error
    except RecursionError as error:
        raise InvalidInput([Problem(name, "values nested too deeply", "YAML of a sensible depth")]) from error
    if len(nodes) > 1:
        line = nodes[1].start_mark.line + 1
        raise InvalidInput([Problem(f"{name}, line {line}", "a second document", "one Experiment in one file")])
    if not nodes or not isinstance(nodes[0], yaml.MappingNode):
        line = nodes[0].start_mark.line + 1 if nodes else 1
        raise InvalidInput([Problem(f"{name}, line {line}", text.strip()[:40], "an Experiment: a mapping of keys")])
    builder = _Builder()
    try:
        document = builder.value(nodes[0], "")
    except _TooLargeError as error:
        raise InvalidInput([Problem(name, str(error), f"at most {MAX_VALUES} values, aliases written out")]) from error
    return document, builder.problems


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, name: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(name, str(error), "YAML")
    lines = text.splitlines()
    shown = lines[mark.line].strip()[:60] if mark.line < len(lines) else "the end of the file"
    why = ", ".join(part for part in (error.context, error.problem) if part)
    return Problem(f"{name}, line {mark.line + 1}, column {mark.column + 1}", shown, f"YAML ({why})")


class _Dumper(yaml.SafeDumper):
    """Quotes what either PyYAML or Kubernetes would not read as a text: PyYAML alone writes the text 1e-4 bare."""


for _tag, _regexp in _Loader.yaml_implicit_resolvers[None]:  # type: ignore[index]
    _Dumper.add_implicit_resolver(_tag, _regexp, None)


def dump(document: Mapping[str, Any]) -> str:
    """A document as YAML that PyYAML, Kubernetes and :func:`read_text` read back as the same values."""
    text: str = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class _TooLargeError(Exception):
    """A document that is too large once its aliases are written out, or that contains itself."""


class _Builder:
    """Makes plain values of nodes and collects problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._count = 0
        self._open: set[int] = set()
        self._makers: dict[str, Callable[[Any, str], Any]] = {_MAP: self._mapping, _SEQ: self._sequence}

    def value(self, node: yaml.Node, path: str) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _TooLargeError("a document that is too large")
        if id(node) in self._open:
            raise _TooLargeError(f"an alias at {path} that contains itself")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        maker = self._makers.get(node.tag)
        if maker is None:
            return self._unknown_tag(node, path)
        self._open.add(id(node))
        try:
            return maker(node, path)
        finally:
            self._open.discard(id(node))

    def _unknown_tag(self, node: yaml.Node, path: str) -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(path, node.tag, f"a value without a tag (line {line})"))

    def _sequence(self, node: yaml.SequenceNode, path: str) -> list[Any]:
        return [self.value(item, f"{path}[{i}]") for i, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                value = self.value(value_node, path)
                for source in value if isinstance(value, list) else [value]:
                    if isinstance(source, dict):
                        merged = {**source, **merged}
                    else:
                        self.problems.append(Problem(path, "<<", f"a mapping to merge (line {line})"))
                continue
            if key_node.tag != _STR or not isinstance(key_node, yaml.ScalarNode):
                shown = key_node.value if isinstance(key_node, yaml.ScalarNode) else key_node.id
                self.problems.append(Problem(path, str(shown), f"a text as key; put it into quotes (line {line})"))
                continue
            key = key_node.value
            here = f"{path}.{key}" if path else key
            if key in lines:
                allowed = f"a key that stands once (lines {lines[key]} and {line})"
                self.problems.append(Problem(here, key, allowed))
                continue
            lines[key] = line
            own[key] = self.value(value_node, here)
        return {**merged, **own}

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        text = node.value
        plain = text.replace("_", "")
        if node.tag == _STR:
            return text
        if node.tag == _NULL:
            return None
        try:
            if node.tag == _BOOL:
                return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
            if node.tag == _INT:
                return _integer(plain)
            if node.tag == _FLOAT:
                return self._float(plain, path)
        except (ValueError, KeyError):
            self.problems.append(Problem(path, text[:60], f"a value that its tag {node.tag} fits"))
            return None
        return self._unknown_tag(node, path)

    def _float(self, text: str, path: str) -> float:
        special = text.lower().lstrip("+-") in (".inf", ".nan")
        value = math.inf if special else float(text)
        if not math.isfinite(value):
            self.problems.append(Problem(path, text, "a finite number"))
            return 0.0
        return value


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if digits.startswith("0") and digits[1:].isdigit():
        return sign * int(digits, 8)  # 0755, as YAML 1.1 has it
    return sign * int(digits, 0)
