"""Suggestions without a result so far, kept by Katib between two requests.

The service keeps nothing in the process. What a request does not show is written into the reply's algorithm settings;
Katib stores them together with the suggestions, in one update, and sends them with the next request. Two kinds of
configurations are missing among the trials of a request, and would be suggested again:

* those suggested just now, whose trials do not exist yet: they count as *pending*;
* those whose trials ended without a metric (Katib's MetricsUnavailable, or stopped early before the first value), which
  Katib never sends: they count as *unavailable*, for that a configuration gives no value is worth knowing.

Katib asks only for what it starts at once. So a suggestion that no trial matches is pending in the first request after
it was made, and unavailable from the second on. Should its trial turn up later, the trial is what counts.

A trial matches by its name where the suggestion named it. One that was named by somebody else matches by its
configuration, which is as good as long as no configuration is suggested twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rankwise.space.search_space import SearchSpace
from rankwise.space.trial import Trial, TrialState

SETTING = "rankwise-issued"
"""Name of the algorithm setting that carries the state. A user never writes it."""
MAX_BYTES = 32 * 1024
"""Bound of the state: about 500 configurations of eight parameters, and 1/40 of what one Kubernetes object may hold."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Outstanding:
    """One suggestion.

    Attributes:
        index: how many suggestions were handed out before it.
        assignments: parameter name -> text value.
        old: whether a request has come since it was made.
    """

    index: int
    assignments: dict[str, str]
    old: bool = False


def load(text: str, space: SearchSpace, issued: int) -> tuple[Outstanding, ...]:
    """Read the state; whatever is not of our making is left out, never an error.

    Args:
        text: the setting's value; anything.
        space: an entry that it does not contain is left out.
        issued: suggestions handed out so far; an entry with a higher index is left out.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(content, dict) or content.get("version") != _VERSION:
        return ()
    items = content.get("items")
    entries = (_entry(item, space, issued) for item in (items if isinstance(items, list) else ()))
    by_index = {entry.index: entry for entry in entries if entry is not None}
    return tuple(by_index[index] for index in sorted(by_index))


def _entry(item: object, space: SearchSpace, issued: int) -> Outstanding | None:
    if not isinstance(item, list) or len(item) != 2 + len(space.names):
        return None
    index, old, *values = item
    if type(index) is not int or not 0 <= index < issued or old not in (0, 1):
        return None
    if not all(isinstance(value, str) for value in values):
        return None
    assignments = dict(zip(space.names, values, strict=True))
    return Outstanding(index, assignments, bool(old)) if space.contains(assignments) else None


def dump(entries: Iterable[Outstanding], space: SearchSpace) -> str:
    """Write the state as compact JSON of at most :data:`MAX_BYTES`; the oldest entries give way."""
    items: list[list[int | str]] = [
        [entry.index, int(entry.old), *(entry.assignments[name] for name in space.names)]
        for entry in sorted(entries, key=lambda entry: entry.index)
    ]
    sizes = [len(json.dumps(item, separators=(",", ":"))) + 1 for item in items]
    room = MAX_BYTES - len(_write([]))
    first = len(items)
    while first > 0 and sizes[first - 1] <= room:
        first -= 1
        room -= sizes[first]
    return _write(items[first:])


def _write(items: list[list[int | str]]) -> str:
    return json.dumps({"version": _VERSION, "items": items}, separators=(",", ":"))


def placeholder(index: int) -> str:
    """Name of the trial that stands for a suggestion which no trial matches."""
    return f"issued-{index}"


def match(
    entries: Iterable[Outstanding],
    trials: Sequence[Trial],
    space: SearchSpace,
    named: Callable[[Outstanding], str] | None = None,
    is_ours: Callable[[str], bool] = lambda _: False,
) -> tuple[tuple[Outstanding, ...], tuple[Trial, ...]]:
    """Compare the state with the trials of a request.

    Args:
        entries: the state that came with the request.
        trials: the request's trials, all within ``space``.
        space: says which texts are the same configuration.
        named: the name that a suggestion gave its trial; None where others name the trials.
        is_ours: whether a trial's name was given by a suggestion: then no other suggestion's entry is meant.

    Returns:
        The entries to keep, all of them old now: those without a finished trial. And one trial, pending or
        unavailable, for each entry that no trial matches.
    """
    by_name: dict[str, bool] = {}
    finished: dict[tuple[object, ...], bool] = {}
    for trial in trials:
        if named is not None and is_ours(trial.name):
            by_name[trial.name] = trial.state.is_finished
            continue
        key = space.key(trial.assignments)
        finished[key] = finished.get(key, False) or trial.state.is_finished
    kept: list[Outstanding] = []
    missing: list[Trial] = []
    for entry in entries:
        done = None if named is None else by_name.get(named(entry))
        if done is None:
            done = finished.get(space.key(entry.assignments))
        if done:
            continue
        kept.append(replace(entry, old=True))
        if done is None:
            state = TrialState.UNAVAILABLE if entry.old else TrialState.PENDING
            missing.append(Trial(placeholder(entry.index), entry.assignments, state))
    return tuple(kept), tuple(missing)
