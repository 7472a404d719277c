"""Earlier searches are looked up once, stay the same, and never keep a search from going on."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.space import Goal, Objective
from rankwise.suggest import earlier
from rankwise.suggest.earlier import (
    MOST_TRIALS,
    READ_SECONDS,
    REMEMBERED,
    RETRY_SECONDS,
    EarlierNotReady,
    EarlierSearches,
    Pins,
    Resolved,
    dump_pins,
    load_pins,
    tell,
)
from support.earlier import AIM, FakeLibrary, ended


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ask(
    searches: EarlierSearches,
    text: str = "exp",
    pins: Pins | None = None,
    *,
    experiment: str = "later",
    objective: Objective = AIM,
    seconds: float = 60.0,
    postpone: bool = False,
) -> Resolved:
    return searches.resolve(
        {"earlier_searches": text}, pins or {}, experiment, objective, Deadline(seconds), postpone=postpone
    )


def names(resolved: Resolved) -> list[str]:
    return [search.name for search in resolved.searches]


@pytest.fixture
def library() -> FakeLibrary:
    return FakeLibrary({"exp": [ended("exp-1", 1.0), ended("exp-2", 2.0), ended("exp-3")], "n/exp": [ended("x", 3.0)]})


@pytest.fixture
def gate(library: FakeLibrary) -> Iterator[threading.Event]:
    """The library answers once this is set; it is at the test's end."""
    event = threading.Event()
    library.before = lambda: None if event.wait(30) else pytest.fail("nobody opened the gate")
    yield event
    event.set()


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"earlier_searches": ""}, {"earlier_searches": " "}])
def test_without_the_setting_nothing_is_asked(library: FakeLibrary, settings: dict[str, str]) -> None:
    running = set(threading.enumerate())
    found = EarlierSearches(library).resolve(settings, {}, "later", AIM, Deadline(60.0), postpone=True)
    assert found == Resolved()
    assert library.asked == []
    assert set(threading.enumerate()) <= running


def test_each_name_is_one_search(library: FakeLibrary) -> None:
    found = ask(EarlierSearches(library), "exp, n/exp")
    assert names(found) == ["exp", "n/exp"]
    first, second = found.searches
    assert (first.values, first.goal, len(first.diverged), second.values) == ((1.0, 2.0), Goal.MINIMIZE, 1, (3.0,))
    assert found.pins == {"exp": ("exp-1", "exp-2", "exp-3"), "n/exp": ("x",)}
    assert found.problems == ()
    assert found.details == {"earlier_searches": 2.0, "earlier_trials": 4.0}
    # All names share one bound.
    assert sorted(library.asked) == [("exp", None, MOST_TRIALS // 2), ("n/exp", None, MOST_TRIALS // 2)]


def test_wrong_names_are_refused(library: FakeLibrary) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.algorithm\.algorithmSettings\.earlier_searches: got 'B'"):
        ask(EarlierSearches(library), "a, B")
    assert library.asked == []


# --- the same in every request ----------------------------------------------------------------------------------------


def test_what_a_search_began_with_stays_after_a_restart(library: FakeLibrary) -> None:
    began = ask(EarlierSearches(library))
    library.searches["exp"].insert(0, ended("exp-0", 0.1))  # the earlier search still runs
    pins = load_pins(dump_pins(began.pins))
    again = ask(EarlierSearches(library), pins=pins)
    assert again.searches[0].values == began.searches[0].values
    assert again.pins == began.pins
    assert library.asked[-1] == ("exp", ("exp-1", "exp-2", "exp-3"), MOST_TRIALS)
    # Another search begins with what there is now.
    assert ask(EarlierSearches(library), experiment="another").searches[0].values == (0.1, 1.0, 2.0)


def test_a_search_that_was_not_there_at_the_beginning_does_not_turn_up_later(library: FakeLibrary) -> None:
    searches = EarlierSearches(library)
    began = ask(searches, "exp, new")
    assert names(began) == ["exp"]
    assert began.problems == ("new: there is no such search",)
    assert began.pins["new"] == ()
    library.searches["new"] = [ended("new-1", 1.0)]
    again = ask(searches, "exp, new", began.pins)
    assert names(again) == ["exp"]
    assert again.problems == ("new had no ended trial when this search began",)
    assert again.pins == began.pins
    assert [name for name, _, _ in library.asked] == ["exp", "new"]


def test_one_service_reads_once_and_gives_one_object(library: FakeLibrary) -> None:
    searches = EarlierSearches(library)
    first = ask(searches)
    for _ in range(3):
        again = ask(searches, pins=first.pins)
        # Models are kept with it.
        assert again.searches[0] is first.searches[0]
    assert len(library.asked) == 1
    # A repeated first request (its reply was lost) and another Experiment look anew.
    ask(searches)
    ask(searches, experiment="another")
    assert [pins for _, pins, _ in library.asked] == [None, None, None]


def test_trials_that_were_deleted_are_told_and_the_others_go_on(library: FakeLibrary) -> None:
    began = ask(EarlierSearches(library))
    del library.searches["exp"][1]
    again = ask(EarlierSearches(library), pins=began.pins)
    assert again.searches[0].values == (1.0,)
    assert again.problems == ("exp: 1 of the trials that this search began with are gone",)
    assert again.pins == began.pins
    library.searches["exp"].clear()
    gone = ask(EarlierSearches(library), pins=began.pins)
    assert (gone.searches, gone.pins) == ((), began.pins)
    assert gone.problems == ("exp: there is no such search",)


def test_what_is_remembered_is_bounded(library: FakeLibrary) -> None:
    searches = EarlierSearches(library)
    for number in range(2 * REMEMBERED):
        library.searches[f"exp-{number}"] = [ended(f"t-{number}", 1.0)]
        ask(searches, f"exp-{number}")
    assert len(searches._readings) <= REMEMBERED + 1
    assert len(searches._told) <= REMEMBERED


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SurroundingsError("the server is down"), "exp: the server is down"),
        (ZeroDivisionError("a bug"), "exp: ZeroDivisionError; the service's log tells more"),
    ],
)
def test_what_cannot_be_read_is_told_not_pinned_and_tried_again(
    library: FakeLibrary, error: Exception, said: str
) -> None:
    clock = Clock()
    searches = EarlierSearches(library, clock)

    def fails() -> None:
        raise error

    library.before = fails
    assert ask(searches) == Resolved((), {}, (said,))
    library.before = lambda: None
    clock.now = RETRY_SECONDS - 1
    assert ask(searches).problems == (said,)  # not so soon again
    assert len(library.asked) == 1
    clock.now = RETRY_SECONDS
    assert names(ask(searches)) == ["exp"]


def test_one_that_cannot_be_read_leaves_the_others(library: FakeLibrary) -> None:
    searches = EarlierSearches(library)

    def fails() -> None:
        if library.asked[-1][0] == "n/exp":
            raise SurroundingsError("refused")

    library.before = fails
    for first, second in (("exp", "n/exp"), ("n/exp", "exp")):
        # One after the other, so that the fake knows whom it answers.
        ask(searches, first), ask(searches, second)
    found = ask(searches, "n/exp, exp", {"exp": ("exp-1",)})
    assert names(found) == ["exp"]
    assert found.problems == ("n/exp: refused",)


def test_a_pinned_search_that_cannot_be_read_stays_pinned(library: FakeLibrary) -> None:
    def fails() -> None:
        raise SurroundingsError("down")

    library.before = fails
    assert ask(EarlierSearches(library), pins={"exp": ("exp-1",)}).pins == {"exp": ("exp-1",)}


def test_a_caller_that_comes_back_waits_for_the_answer_elsewhere(
    library: FakeLibrary, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "_WAIT_SECONDS", 0.05)
    searches = EarlierSearches(library)
    for _ in range(2):
        with pytest.raises(EarlierNotReady, match="the earlier search exp is being read"):
            ask(searches, postpone=True)
    assert len(library.asked) == 1
    gate.set()
    monkeypatch.setattr(earlier, "_WAIT_SECONDS", 30.0)
    assert names(ask(searches, postpone=True)) == ["exp"]
    assert len(library.asked) == 1


def test_a_store_that_never_answers_does_not_hold_the_search_up_for_ever(
    library: FakeLibrary, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier, "_WAIT_SECONDS", 0.05)
    clock = Clock()
    searches = EarlierSearches(library, clock)
    with pytest.raises(EarlierNotReady, match="exp is being read"):
        ask(searches, postpone=True)
    clock.now = READ_SECONDS
    assert ask(searches, postpone=True) == Resolved((), {}, ("exp: it is still being read",))
    assert len(library.asked) == 1
    assert not gate.is_set()


def test_a_caller_that_cannot_come_back_goes_on_without(library: FakeLibrary, gate: threading.Event) -> None:
    searches = EarlierSearches(library)
    late = ask(searches, seconds=0.1)
    assert late == Resolved((), {}, ("exp: it is still being read",))
    gate.set()
    assert names(ask(searches)) == ["exp"]
    assert len(library.asked) == 1


# --- told in the terms of the new search ------------------------------------------------------------------------------


def test_the_metric_of_the_new_search_counts_where_it_was_measured() -> None:
    both = [ended("a", 0.3, "rougeL", Goal.MAXIMIZE), ended("b", 0.4, "rougeL", Goal.MAXIMIZE), ended("c")]
    with_loss = [*both[:1], ended("d", 2.0)]
    own = tell("exp", both, AIM)
    assert (own.goal, own.values, len(own.diverged), len(own)) == (Goal.MAXIMIZE, (0.3, 0.4), 1, 3)
    same = tell("exp", with_loss, AIM)
    assert (same.goal, same.values) == (Goal.MINIMIZE, (2.0,))
    # The user's own view of a metric's direction.
    assert tell("exp", with_loss, Objective("loss", Goal.MAXIMIZE)).goal is Goal.MAXIMIZE


def test_a_search_in_which_everything_diverged_is_told() -> None:
    library = FakeLibrary({"exp": [ended("a"), ended("b")]})
    found = ask(EarlierSearches(library))
    assert len(found.searches[0].diverged) == 2
    assert found.problems == ("exp: none of its trials has a value",)


# --- the names in Katib's hands ---------------------------------------------------------------------------------------

SEARCHES = st.dictionaries(
    st.sampled_from(["a", "n/a", "b-1"]), st.lists(st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True))
)


@given(SEARCHES)
def test_pins_survive(searches: dict[str, Sequence[str]]) -> None:
    pins = {name: tuple(trials) for name, trials in searches.items()}
    assert load_pins(dump_pins(pins)) == pins


@given(
    st.text()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["version", "searches", "a"]), inner),
    ).map(json.dumps)
)
def test_whatever_comes_back_is_read(text: str) -> None:
    pins = load_pins(text)
    assert all(isinstance(name, str) for trials in pins.values() for name in trials)


@pytest.mark.parametrize(
    "trials", ['["a/b"]', '[""]', "[1]", '"abc"', json.dumps(["x" * 254]), json.dumps(["x"] * (MOST_TRIALS + 1))]
)
def test_pins_that_are_none_of_ours_are_left_out(trials: str) -> None:
    assert load_pins(f'{{"version": 1, "searches": {{"bad": {trials}, "good": ["a"]}}}}') == {"good": ("a",)}
    assert load_pins('{"version": 2, "searches": {"good": ["a"]}}') == {}


def test_the_longest_pins_are_small_beside_what_an_object_may_hold() -> None:
    pins = {"n" * 63 + "/" + "e" * 63: tuple(f"{number:063}" for number in range(MOST_TRIALS))}
    # A Kubernetes object may hold 1 MiB at least (etcd's limit of a request is 1.5 MiB).
    assert len(dump_pins(pins)) < 2**20 / 50
