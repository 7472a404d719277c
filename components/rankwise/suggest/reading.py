"""An Experiment of a request, checked as a whole: every mistake is found, none hides another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from rankwise.errors import InvalidInput, Problem
from rankwise.katib_api import api_pb2
from rankwise.logs import hide_named
from rankwise.space.search_space import SearchSpace, parse_space
from rankwise.space.trial import Objective
from rankwise.strategies.base import SETTINGS_PATH, Strategy
from rankwise.suggest import convert, earlier, notes, outstanding

MESSAGE_BYTES = 6000
"""Longest error message on the wire. It travels percent-encoded in an HTTP/2 header; gRPC's limit for all headers is
8 KiB, and a longer one reaches the client as RESOURCE_EXHAUSTED, which Katib takes for "valid"."""


@dataclass(frozen=True, slots=True)
class Search:
    """A checked Experiment.

    Attributes:
        experiment: its name.
        strategy: the one that its algorithm names.
        settings: the user's algorithm settings, raw.
        state: raw text of the suggestions that the last reply wrote back, ``""`` at the first request.
        pins: the same of earlier searches' trials.
        notes: the same of what the strategy noted of its suggestions.
        space: its parameters.
        objective: what it optimizes.
        max_trials: after how many trials it ends; None where it has no limit.
    """

    experiment: str
    strategy: Strategy
    settings: Mapping[str, str]
    state: str
    pins: str
    notes: str
    space: SearchSpace
    objective: Objective
    max_trials: int | None


def read_search(message: api_pb2.Experiment, strategies: Mapping[str, Strategy]) -> Search:
    """Check an Experiment.

    Args:
        message: as the controller sent it.
        strategies: by algorithm name.

    Raises:
        InvalidInput: with every mistake in the name, the algorithm, its settings, the parameters and the objective.
    """
    spec = message.spec
    problems: list[Problem] = []
    if not message.name:
        problems.append(Problem("metadata.name", "", "the Experiment's name"))
    if spec.HasField("nas_config"):
        problems.append(Problem("spec.nasConfig", "an architecture search", "spec.parameters only"))

    settings: dict[str, str] = {}
    try:
        settings = convert.settings(spec.algorithm, SETTINGS_PATH)
    except InvalidInput as error:
        problems.extend(error.problems)
    state = settings.pop(outstanding.SETTING, "")
    pins = settings.pop(earlier.SETTING, "")
    noted = settings.pop(notes.SETTING, "")

    algorithm = spec.algorithm.algorithm_name
    strategy = strategies.get(algorithm)
    if strategy is None:
        problems.append(Problem("spec.algorithm.algorithmName", algorithm, _names(algorithm, sorted(strategies))))
    else:
        try:
            strategy.options.parse(settings, SETTINGS_PATH)
        except InvalidInput as error:
            problems.extend(error.problems)

    space: SearchSpace | None = None
    try:
        space = parse_space(convert.parameter_texts(spec))
    except InvalidInput as error:
        problems.extend(error.problems)

    objective: Objective | None = None
    try:
        objective = convert.objective(spec)
    except InvalidInput as error:
        problems.extend(error.problems)

    if problems or strategy is None or space is None or objective is None:
        raise InvalidInput(problems)
    max_trials = spec.max_trial_count if spec.max_trial_count > 0 else None
    return Search(message.name, strategy, settings, state, pins, noted, space, objective, max_trials)


def _names(given: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(given.replace("_", "-").lower(), known, n=1)
    return ", ".join(known) + (f" (did you mean {near[0]}?)" if near else "")


def sentence(problems: Sequence[Problem]) -> str:
    """The problems as one message of at most :data:`MESSAGE_BYTES` on the wire; what does not fit is counted.

    It goes into the Experiment's status, into events and into the controller's log: a setting that is named like a
    secret is quoted without its value.
    """
    unique = list(dict.fromkeys(hide_named(str(problem)) for problem in problems))
    lines: list[str] = []
    room = MESSAGE_BYTES - 100  # for the line that counts the rest
    for number, text in enumerate(unique):
        line = text if len(text) <= 400 else f"{text[:200]} … {text[-190:]}"
        room -= len(quote(line + "\n"))
        if room < 0:
            lines.append(f"… and {len(unique) - number} more mistakes")
            break
        lines.append(line)
    return "\n".join(lines)
