"""What a strategy noted of its suggestions, kept by Katib between two requests.

Katib sends no labels of trials with a request. What a strategy has to know of a suggestion beyond its configuration
(which member of a population it trains) is a short text that comes with the suggestion and travels as
:mod:`rankwise.suggest.outstanding` does: in the reply's algorithm settings, which Katib stores in one update with the
suggestions. A note is found again by its trial's name, so there are none where the controller names the trials.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rankwise.suggest.outstanding import placeholder

SETTING = "rankwise-notes"
"""Name of the algorithm setting that carries the notes. A user never writes it."""
MAX_BYTES = 32 * 1024
"""Bound of the notes: about 1,200 of six characters."""
MAX_LENGTH = 100
"""Longest note; a longer one is a mistake of the strategy."""
_VERSION = 1
_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Note:
    """One suggestion's note.

    Attributes:
        index: how many suggestions were handed out before it.
        mark: of its trial's name, see :func:`mark`.
        text: the note.
    """

    index: int
    mark: str
    text: str


def mark(name: str) -> str:
    """Ten hexadecimal digits for a trial's name: names are long, and two of 1,000 share a mark once in two million
    searches."""
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]


def load(text: str, issued: int) -> tuple[Note, ...]:
    """Read the notes; whatever is not of our making is left out, never an error.

    Args:
        text: the setting's value; anything.
        issued: suggestions handed out so far; a note with a higher index is left out.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return ()
    items = content.get("items")
    notes = (_note(item, issued) for item in (items if isinstance(items, list) else ()))
    return tuple(sorted((note for note in notes if note is not None), key=lambda note: note.index))


def _note(item: object, issued: int) -> Note | None:
    if not isinstance(item, list) or len(item) != 3:
        return None
    index, marked, text = item
    if type(index) is not int or not 0 <= index < issued:
        return None
    if not isinstance(marked, str) or not isinstance(text, str) or len(text) > MAX_LENGTH:
        return None
    return Note(index, marked, text)


def dump(notes: Iterable[Note]) -> str:
    """Write the notes as compact JSON of at most :data:`MAX_BYTES`; the oldest give way."""
    items: list[list[int | str]] = [
        [note.index, note.mark, note.text] for note in sorted(notes, key=lambda note: note.index)
    ]
    sizes = [len(json.dumps(item, separators=(",", ":"))) + 1 for item in items]
    room = MAX_BYTES - len(_write([]))
    first = len(items)
    while first > 0 and sizes[first - 1] <= room:
        first -= 1
        room -= sizes[first]
    return _write(items[first:])


def _write(items: Sequence[list[int | str]]) -> str:
    return json.dumps({"version": _VERSION, "items": items}, separators=(",", ":"))


def of_trials(notes: Sequence[Note], names: Iterable[str]) -> Mapping[str, str]:
    """Trial's name -> note.

    Args:
        notes: all that is known.
        names: of the trials of a request; a suggestion without a trial stands among them under
            :func:`rankwise.suggest.outstanding.placeholder`.
    """
    by_mark = {note.mark: note for note in notes}
    by_place = {placeholder(note.index): note for note in notes}

    def found() -> Iterator[tuple[str, str]]:
        for name in names:
            note = by_mark.get(mark(name)) or by_place.get(name)
            if note is not None:
                yield name, note.text

    return dict(found())
