"""Our annotations on an Experiment. Katib ignores them, and ``kubectl apply`` keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rankwise.errors import Problem
from rankwise.local.fields import shown, suggestion
from rankwise.space import SearchSpace

PREFIX = "rankwise.dev/"
DEFAULT_CONFIGURATION = f"{PREFIX}default-configuration"
"""JSON object, parameter -> value: the configuration that the best one is compared with."""
FINAL_ARGUMENTS = f"{PREFIX}final-arguments"
"""JSON list of texts, appended to the trial's command for the final runs of the default and the best configuration."""
NAMES = (DEFAULT_CONFIGURATION, FINAL_ARGUMENTS)


class _RepeatedKeyError(ValueError):
    """A JSON object names a key twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise _RepeatedKeyError(f"the key {key!r} stands twice")
    return dict(pairs)


def _json(annotations: Mapping[str, str], name: str, allowed: str, problems: list[Problem]) -> Any:
    """The annotation's JSON; None where it is missing or no JSON. Numbers keep their text."""
    text = annotations.get(name)
    if text is None:
        return None
    path = f"metadata.annotations.{name}"
    try:
        return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=_once)
    except _RepeatedKeyError as error:
        problems.append(Problem(path, shown(text), f"{allowed}; {error}"))
    except (ValueError, RecursionError) as error:
        problems.append(Problem(path, shown(text), f"{allowed} ({error})"))
    return None


def read_default_configuration(
    annotations: Mapping[str, str], space: SearchSpace | None, problems: list[Problem]
) -> dict[str, str] | None:
    """Read :data:`DEFAULT_CONFIGURATION`; None where it is missing or wrong.

    Args:
        annotations: of the Experiment.
        space: what the values must fit; None skips that, where the space itself is wrong.
        problems: where mistakes are put.
    """
    allowed = "a JSON object, parameter -> value"
    path = f"metadata.annotations.{DEFAULT_CONFIGURATION}"
    before = len(problems)
    values = _json(annotations, DEFAULT_CONFIGURATION, allowed, problems)
    if DEFAULT_CONFIGURATION not in annotations or len(problems) > before:
        return None
    if not isinstance(values, dict):
        problems.append(Problem(path, shown(annotations[DEFAULT_CONFIGURATION]), allowed))
        return None
    for name, value in values.items():
        if not isinstance(value, str):
            problems.append(Problem(f"{path}.{name}", shown(value), "a text, or a number"))
        elif space is not None and name not in space.names:
            problems.append(Problem(f"{path}.{name}", name, f"a parameter{suggestion(name, space.names)}"))
    for parameter in space.parameters if space is not None else ():
        value = values.get(parameter.name)
        if parameter.name not in values:
            problems.append(Problem(f"{path}.{parameter.name}", "", f"{parameter.allowed}; every parameter is needed"))
        elif isinstance(value, str) and not parameter.contains(value):
            problems.append(Problem(f"{path}.{parameter.name}", value, parameter.allowed))
    return None if len(problems) > before else values


def read_final_arguments(annotations: Mapping[str, str], problems: list[Problem]) -> tuple[str, ...]:
    """Read :data:`FINAL_ARGUMENTS`; empty where it is missing or wrong."""
    allowed = 'a JSON list of texts, for example ["--subset=1.0", "--evaluate=test"]'
    path = f"metadata.annotations.{FINAL_ARGUMENTS}"
    before = len(problems)
    text = annotations.get(FINAL_ARGUMENTS)
    if text is None:
        return ()
    _json(annotations, FINAL_ARGUMENTS, allowed, problems)
    if len(problems) > before:
        return ()
    values = json.loads(text)  # once more, since here a number is no text
    if not isinstance(values, list):
        problems.append(Problem(path, shown(text), allowed))
        return ()
    for i, value in enumerate(values):
        if not isinstance(value, str) or "\0" in value:
            problems.append(Problem(f"{path}[{i}]", shown(value), "a text in quotes"))
    return tuple(values) if len(problems) == before else ()
