"""Names of trials, and the labels that a reply may put on them.

A trial's name is its key in Katib's metrics database, which knows no namespaces, and trials of an Experiment of the
same name in another namespace turn up in our requests (katib issue 2578). So a name holds a mark of the namespace::

    <experiment>-<4 hex digits: namespace><8 hex digits: experiment, place in the search, assignments>

It is a function of the request, so a repeated request gets the same names; the place in the search (how many
suggestions were handed out before) makes it unique within an Experiment even where a configuration is repeated.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping

MAX_LENGTH = 63
"""Longest name of a Kubernetes object that also serves as a label's value and as a host name."""
_SCOPE_DIGITS = 4
_IDENTITY_DIGITS = 8

INDEX_LABEL = "rankwise.dev/suggestion"
"""Which suggestion of the search a trial tries, counted from 0."""
FALLBACK_LABEL = "rankwise.dev/fallback"
"""Why a trial's configuration is not the strategy's own choice: one of :data:`rankwise.suggest.tally.REASONS`."""


def _digest(content: object, digits: int) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _stem(experiment: str) -> str:
    """The experiment's name as the beginning of a DNS-1123 label that leaves room for the rest."""
    room = MAX_LENGTH - 1 - _SCOPE_DIGITS - _IDENTITY_DIGITS
    return re.sub(r"[^a-z0-9-]", "-", experiment.lower())[:room].strip("-") or "trial"


def trial_name(
    experiment: str, scope: str, index: int, assignments: Mapping[str, str], taken: Collection[str] = ()
) -> str:
    """A trial's name: a DNS-1123 label of at most 63 characters.

    Args:
        experiment: the Experiment's name.
        scope: what tells this Experiment from others of the same name: its namespace.
        index: how many suggestions of this Experiment were handed out before this one.
        assignments: parameter name -> text value.
        taken: names of the trials there are. Places are handed out again when a user lowers ``parallelTrialCount``:
            the controller then deletes trials and counts their suggestions back.
    """
    content: list[object] = [experiment, scope, index, dict(assignments)]
    while True:
        name = f"{_stem(experiment)}-{_digest(scope, _SCOPE_DIGITS)}{_digest(content, _IDENTITY_DIGITS)}"
        if name not in taken:
            return name
        content.append("again")


def is_of_other_scope(name: str, experiment: str, scope: str) -> bool:
    """Whether ``name`` was made by :func:`trial_name` for an Experiment of this name in another namespace.

    A name of another form (one that the controller made, or a person) is never said to be foreign.
    """
    found = _scope_of(name, experiment)
    return found is not None and found != _digest(scope, _SCOPE_DIGITS)


def is_of_this_scope(name: str, experiment: str, scope: str) -> bool:
    """Whether ``name`` has the form that :func:`trial_name` gives an Experiment of this name in this namespace."""
    return _scope_of(name, experiment) == _digest(scope, _SCOPE_DIGITS)


def _scope_of(name: str, experiment: str) -> str | None:
    """The mark of the namespace in a name that :func:`trial_name` made; None in any other."""
    form = rf"{re.escape(_stem(experiment))}-([0-9a-f]{{{_SCOPE_DIGITS}}})[0-9a-f]{{{_IDENTITY_DIGITS}}}"
    match = re.fullmatch(form, name)
    return None if match is None else match[1]


def labels(index: int, fallback: str | None) -> dict[str, str]:
    """Labels of one suggestion; keys and values are valid in Kubernetes."""
    result = {INDEX_LABEL: str(index)}
    if fallback is not None:
        result[FALLBACK_LABEL] = fallback
    return result
