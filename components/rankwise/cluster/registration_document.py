"""Our entry in the text of Katib's configuration: put in, replaced, taken out, with all other text kept.

The text is YAML that people write by hand, with comments. So it is edited as text: our entry's lines are put in or
cut out, and every other byte stays. The result is parsed again and compared with what was meant. Where text cannot be
cut (``suggestions: []``, an entry within braces, an anchor of ours that others use), the parsed document is written
out anew: comments and layout are lost then, values keep their literal spelling, and :class:`Edit` says so.

Katib reads YAML with Go's rules, this module with Python's, and they differ in what a bare ``1e3`` or ``0o17`` is. That
is why documents are compared and written as trees of literals, never as Python values, and why everything that is not
plainly a word is quoted in the entry that is put in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import yaml

from rankwise.errors import InvalidInput, Problem

OWNER_VARIABLE = "RANKWISE_REGISTERED_BY"
"""Environment variable of the entry's container that says whose entry it is: ``namespace/release``. It stands in the
entry itself, so it can neither outlive the entry nor get lost apart from it, as an annotation of the ConfigMap would
when Katib is installed anew."""

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NOT_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"])


@dataclass(frozen=True, slots=True)
class Edit:
    """A new text.

    Attributes:
        text: the whole new text.
        kept_text: whether every byte that is not ours was kept; False when the document was written out anew.
    """

    text: str
    kept_text: bool


class _Dumper(yaml.SafeDumper):
    """Writes strings so that YAML 1.1 and 1.2, Python's reader and Go's, agree that they are strings."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the form that yaml wants
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        is_word = _PLAIN.fullmatch(text) and text.lower() not in _NOT_WORDS
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_word else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


def dump_entry(entry: Mapping[str, Any]) -> str:
    """The entry as an item of a list that starts in the first column."""
    return str(yaml.dump([entry], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20))


def owner_of(entry: object) -> str | None:
    """Who registered an entry; None when it does not say so, that is when it is not ours."""
    variables = entry.get("env") if isinstance(entry, dict) else None
    for variable in variables if isinstance(variables, list) else []:
        if isinstance(variable, dict) and variable.get("name") == OWNER_VARIABLE:
            return str(variable.get("value"))
    return None


class Document:
    """The parsed text of Katib's configuration.

    Args:
        text: the YAML text.
        where: how mistakes name the document.

    Raises:
        InvalidInput: it is no YAML, or has no ``runtime`` with a list of suggestions.
    """

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            data = yaml.safe_load(text)
            self._tree = _tree(self._root)
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a timestamp of month 13
            mark = getattr(error, "problem_mark", None)
            line = f"line {mark.line + 1}" if mark else "a value"
            raise self._wrong("", line, "one document of valid YAML, as Katib ships it") from None
        except RecursionError:
            raise self._wrong("", "an alias of itself", "a document that ends") from None
        runtime = data.get("runtime") if isinstance(data, dict) else None
        self._runtime = _value_of(self._root, "runtime")
        if not isinstance(runtime, dict) or not isinstance(self._runtime, yaml.MappingNode):
            given = "nothing" if runtime is None else type(runtime).__name__
            raise self._wrong("runtime", given, "a mapping: Katib's list of algorithms stands below it")
        entries = runtime.get("suggestions")
        node = _value_of(self._runtime, "suggestions")
        if entries is not None and not (isinstance(entries, list) and isinstance(node, yaml.SequenceNode)):
            raise self._wrong("runtime.suggestions", type(entries).__name__, "a list of algorithms")
        self.entries: Sequence[object] = entries or []
        self._list = cast("yaml.SequenceNode", node) if entries else None

    def _wrong(self, path: str, value: str, allowed: str) -> InvalidInput:
        return InvalidInput([Problem(f"{self._where}{': ' + path if path else ''}", value, allowed)])

    def named(self, algorithm: str) -> list[int]:
        """Places in ``entries`` of the algorithm's entries. Katib takes the last one."""
        return [
            index
            for index, entry in enumerate(self.entries)
            if isinstance(entry, dict) and entry.get("algorithmName") == algorithm
        ]

    def replace(self, removed: Sequence[int], entry: Mapping[str, Any] | None) -> Edit:
        """Take entries out and put one in: where the last of them stood, else at the end.

        Args:
            removed: ascending places of the entries to take out.
            entry: the entry to put in, or None.
        """
        block = None if entry is None else dump_entry(entry)
        meant = self._edited_root(removed, block)
        text = self._edited_text(removed, block)
        if text is not None and _same(text, meant):
            return Edit(text, kept_text=True)
        _unfold(meant)
        return Edit(yaml.serialize(meant, Dumper=yaml.SafeDumper, allow_unicode=True, width=1 << 20), kept_text=False)

    def _edited_root(self, removed: Sequence[int], block: str | None) -> yaml.Node:
        """What the document is meant to be: the parsed tree with the list changed."""
        root = yaml.compose(self._text, Loader=yaml.SafeLoader)
        runtime = cast("yaml.MappingNode", _value_of(root, "runtime"))
        new = cast("yaml.SequenceNode", yaml.compose(block, Loader=yaml.SafeLoader)).value if block else []
        node = _value_of(runtime, "suggestions")
        items = list(node.value) if isinstance(node, yaml.SequenceNode) else []
        at = removed[-1] + 1 if removed else len(items)
        items[at:at] = new
        kept = [item for index, item in enumerate(items) if index not in set(removed)]
        if isinstance(node, yaml.SequenceNode):
            node.value = kept
        else:
            runtime.value = [pair for pair in runtime.value if pair[0].value != "suggestions"]
            key = yaml.ScalarNode("tag:yaml.org,2002:str", "suggestions")
            runtime.value.append((key, yaml.SequenceNode("tag:yaml.org,2002:seq", kept, flow_style=False)))
        return cast("yaml.Node", root)

    def _edited_text(self, removed: Sequence[int], block: str | None) -> str | None:
        """The text with lines cut out and put in; None where that cannot be right."""
        if self._list is None or self._list.flow_style or (block is None and len(removed) == len(self._list.value)):
            return None
        lines = self._text.splitlines(keepends=True)
        column = self._list.start_mark.column
        spans = [_span(item, lines, column) for item in self._list.value]
        indented = [" " * column + line for line in (block or "").splitlines(keepends=True)]
        at = spans[removed[-1]][1] if removed else spans[-1][1]
        # A text without a newline at its end gets none: taking our lines out again restores it.
        bare = at == len(lines) and not lines[-1].endswith("\n")
        kept: list[str] = []
        for number, line in enumerate([*lines, ""]):
            if number == at:
                if bare and indented and kept and not kept[-1].endswith("\n"):
                    kept[-1] += "\n"
                kept += indented
            if not any(spans[index][0] <= number < spans[index][1] for index in removed):
                kept.append(line)
        text = "".join(kept)
        return text.removesuffix("\n") if bare else text


def _span(item: yaml.Node, lines: Sequence[str], column: int) -> tuple[int, int]:
    """First line of a list's item and the line after its last one. Comments between items belong to nobody."""
    first = item.start_mark.line
    while first > 0 and lines[first][: column + 1] != " " * column + "-":
        first -= 1
    return first, _last_line(item) + 1


def _last_line(node: yaml.Node) -> int:
    # A block collection's own end is where the next token starts, beyond blank lines and comments.
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _last_line(last[1] if isinstance(last, tuple) else last)
    end = node.end_mark
    return int(end.line - 1 if end.column == 0 and end.line > node.start_mark.line else end.line)


def _value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a key; of the last one where a key stands twice, as both readers take it."""
    found = None
    for name, value in node.value if isinstance(node, yaml.MappingNode) else []:
        if name.value == key:
            found = value
    return found


def _tree(node: yaml.Node | None) -> object:
    """A node as nested tuples of tags and literal spellings, to compare documents by."""
    if isinstance(node, yaml.MappingNode):
        return (node.tag, tuple((_tree(key), _tree(value)) for key, value in node.value))
    if isinstance(node, yaml.SequenceNode):
        return (node.tag, tuple(_tree(value) for value in node.value))
    # A bare 1 and a quoted "1" have different tags for Python; a bare 1e3 and a quoted one only for Go.
    return (node.tag, node.value, node.style is None) if isinstance(node, yaml.ScalarNode) else None


def _unfold(node: yaml.Node) -> None:
    """Take the braces away: a bare 1:30 may not stand within them, and a quoted one would be another value."""
    if isinstance(node, yaml.CollectionNode):
        node.flow_style = False
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                _unfold(part)


def _same(text: str, meant: yaml.Node) -> bool:
    try:
        return _tree(yaml.compose(text, Loader=yaml.SafeLoader)) == _tree(meant)
    except yaml.YAMLError:
        return False
