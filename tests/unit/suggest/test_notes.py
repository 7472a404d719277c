"""What a strategy noted of its suggestions comes back with the right trials, or not at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.suggest import notes
from rankwise.suggest.notes import Note, mark
from rankwise.suggest.outstanding import placeholder


def note(index: int, text: str = "0.0") -> Note:
    return Note(index, mark(f"t{index}"), text)


several = st.lists(
    st.builds(note, st.integers(0, 999), st.text(max_size=notes.MAX_LENGTH)),
    unique_by=lambda one: one.index,
    max_size=20,
)


@given(several)
def test_what_is_written_is_read(some: list[Note]) -> None:
    text = notes.dump(some)
    assert notes.load(text, issued=1000) == tuple(sorted(some, key=lambda one: one.index))
    assert text.isascii()
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "[]",
        "null",
        '{"version":2,"items":[[0,"a","b"]]}',
        '{"version":1}',
        '{"version":1,"items":7}',
        '{"version":1,"items":[7,null,"x",[],{}]}',
        '{"version":1,"items":[["0","a","b"]]}',
        '{"version":1,"items":[[true,"a","b"]]}',
        '{"version":1,"items":[[-1,"a","b"],[1000,"a","b"]]}',
        '{"version":1,"items":[[0,1,"b"],[0,"a",1],[0,"a"]]}',
        '{"version":1,"items":[[0,"a","' + "x" * 101 + '"]]}',
        "[" * 100_000,
    ],
)
def test_garbage_is_no_note_and_no_error(text: str) -> None:
    assert notes.load(text, issued=1000) == ()


@given(st.text())
def test_any_text_is_no_error(text: str) -> None:
    notes.load(text, issued=1000)


def test_the_size_is_bounded_and_the_oldest_give_way() -> None:
    many = [note(index, f"{index % 8}.{index // 8}") for index in range(5000)]
    text = notes.dump(many)
    assert len(text) <= notes.MAX_BYTES
    read = notes.load(text, issued=5000)
    assert read == tuple(many[-len(read) :])
    assert len(read) > 1000
    # It is filled: one more note has at most 28 characters, [4999,"0123456789","7.624"] and a comma.
    assert len(text) > notes.MAX_BYTES - 28


def test_notes_are_found_by_the_trials_name_or_by_the_place_of_a_suggestion_without_a_trial() -> None:
    known = (note(0, "0.0"), note(1, "1.0"), note(2, "2.0"))
    names = ["t1", "somebody-else", placeholder(2), placeholder(9)]
    assert notes.of_trials(known, names) == {"t1": "1.0", placeholder(2): "2.0"}


def test_a_place_that_was_handed_out_again_has_its_last_note() -> None:
    known = (Note(3, mark("old"), "3.0"), Note(3, mark("new"), "3.1"))
    assert notes.of_trials(known, ["old", "new", placeholder(3)]) == {"old": "3.0", "new": "3.1", placeholder(3): "3.1"}
