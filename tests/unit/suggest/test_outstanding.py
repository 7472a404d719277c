"""The little state that travels in the algorithm's settings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.space import ParameterText, Trial, TrialState, parse_space
from rankwise.suggest import outstanding
from rankwise.suggest.outstanding import Outstanding

SPACE = parse_space(
    [
        ParameterText("rank", "int", min="1", max="1000"),
        ParameterText("learning_rate", "double", min="0.00001", max="0.01"),
    ]
)


def entry(index: int, rank: int = 8, rate: str = "0.001", *, old: bool = False) -> Outstanding:
    return Outstanding(index, {"rank": str(rank), "learning_rate": rate}, old)


def trial(state: TrialState, rank: int = 8, rate: str = "0.001") -> Trial:
    value = 1.0 if state is TrialState.SUCCEEDED else None
    return Trial("t", {"rank": str(rank), "learning_rate": rate}, state, value)


entries = st.lists(
    st.builds(entry, st.integers(0, 999), st.integers(1, 1000), st.sampled_from(["0.001", "1e-4"]), old=st.booleans()),
    unique_by=lambda one: one.index,
    max_size=20,
)


@given(entries)
def test_what_is_written_is_read(some: list[Outstanding]) -> None:
    text = outstanding.dump(some, SPACE)
    assert outstanding.load(text, SPACE, issued=1000) == tuple(sorted(some, key=lambda one: one.index))
    assert text.isascii()
    assert json.loads(text)["version"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "{",
        "[]",
        "null",
        "3",
        '{"version":2,"items":[[0,0,"8","0.001"]]}',
        '{"items":[[0,0,"8","0.001"]]}',
        '{"version":1}',
        '{"version":1,"items":7}',
        '{"version":1,"items":[7,null,"x",[],{}]}',
        '{"version":1,"items":[["0",0,"8","0.001"]]}',
        '{"version":1,"items":[[true,0,"8","0.001"]]}',
        '{"version":1,"items":[[-1,0,"8","0.001"]]}',
        '{"version":1,"items":[[1000,0,"8","0.001"]]}',
        '{"version":1,"items":[[0,2,"8","0.001"]]}',
        '{"version":1,"items":[[0,[],"8","0.001"]]}',
        '{"version":1,"items":[[0,0,"8"]]}',
        '{"version":1,"items":[[0,0,8,"0.001"]]}',
        '{"version":1,"items":[[0,0,"9999","0.001"]]}',
        "[" * 100_000,
    ],
)
def test_garbage_is_no_state_and_no_error(text: str) -> None:
    assert outstanding.load(text, SPACE, issued=1000) == ()


@given(st.text())
def test_any_text_is_no_error(text: str) -> None:
    outstanding.load(text, SPACE, issued=1000)


def test_good_entries_are_read_from_among_bad_ones() -> None:
    text = '{"version":1,"items":[[0,0,"8","0.001"],[1,0,"0","0.001"],"x",[2,1,"9","0.001"]]}'
    assert outstanding.load(text, SPACE, issued=3) == (entry(0), entry(2, 9, old=True))


def test_the_size_is_bounded_and_the_oldest_give_way() -> None:
    many = [entry(index, index % 1000 + 1) for index in range(5000)]
    text = outstanding.dump(many, SPACE)
    assert len(text) <= outstanding.MAX_BYTES
    read = outstanding.load(text, SPACE, issued=5000)
    assert read == tuple(many[-len(read) :])
    # It is filled: one more entry has at most 25 characters, [4999,0,"1000","0.001"] and a comma.
    assert len(text) > outstanding.MAX_BYTES - 25


@pytest.mark.parametrize("state", [state for state in TrialState if state.is_finished])
def test_a_suggestion_whose_trial_ended_is_forgotten(state: TrialState) -> None:
    assert outstanding.match([entry(0)], [trial(state)], SPACE) == ((), ())


def test_a_suggestion_whose_trial_runs_is_kept_and_not_counted_twice() -> None:
    assert outstanding.match([entry(0)], [trial(TrialState.PENDING)], SPACE) == ((entry(0, old=True),), ())


def test_a_suggestion_of_the_last_reply_without_a_trial_is_pending() -> None:
    kept, missing = outstanding.match([entry(5)], [], SPACE)
    assert kept == (entry(5, old=True),)
    assert missing == (Trial("issued-5", entry(5).assignments, TrialState.PENDING),)


def test_an_older_suggestion_without_a_trial_is_unavailable() -> None:
    kept, missing = outstanding.match([entry(5, old=True)], [], SPACE)
    assert kept == (entry(5, old=True),)
    assert missing == (Trial("issued-5", entry(5).assignments, TrialState.UNAVAILABLE),)


def test_trials_are_matched_by_value_not_by_spelling() -> None:
    assert outstanding.match([entry(0, rate="0.001")], [trial(TrialState.SUCCEEDED, rate="1e-3")], SPACE) == ((), ())


def test_another_configuration_is_no_match() -> None:
    _, missing = outstanding.match([entry(0, 8)], [trial(TrialState.SUCCEEDED, 9)], SPACE)
    assert len(missing) == 1


def test_a_suggestion_that_named_its_trial_is_not_that_of_an_earlier_one() -> None:
    """A configuration that is suggested again: the ended trial is the first suggestion's, not the second's."""
    ended = Trial("ours-0", entry(0).assignments, TrialState.SUCCEEDED, 1.0)

    def match(*trials: Trial) -> tuple[tuple[Outstanding, ...], tuple[Trial, ...]]:
        named = lambda one: f"ours-{one.index}"  # noqa: E731
        return outstanding.match([entry(1)], trials, SPACE, named, lambda name: name.startswith("ours-"))

    assert outstanding.match([entry(1)], [ended], SPACE) == ((), ())
    kept, missing = match(ended)
    assert kept == (entry(1, old=True),)
    assert [(trial.name, trial.state) for trial in missing] == [("issued-1", TrialState.PENDING)]
    own = Trial("ours-1", entry(1).assignments, TrialState.PENDING)
    assert match(ended, own) == ((entry(1, old=True),), ())
    assert match(ended, Trial("ours-1", entry(1).assignments, TrialState.FAILED)) == ((), ())
    # A controller that gives names of its own: the configuration is all that there is.
    assert match(Trial("theirs", entry(1).assignments, TrialState.SUCCEEDED, 1.0)) == ((), ())
