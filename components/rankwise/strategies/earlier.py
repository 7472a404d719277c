"""Earlier searches: how an Experiment names them, and what of them a later search is told.

What was searched then may have had other parameters, other ranges, another model and other data. So nothing of its
search space is kept, only what was tried and what came of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rankwise.errors import InvalidInput, Problem
from rankwise.space.trial import Goal

OPTION = "earlier_searches"
"""Name of the option that names them."""
MOST_SEARCHES = 10
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_ALLOWED = (
    f"up to {MOST_SEARCHES} different names of Experiments separated by commas, each NAME or NAMESPACE/NAME of lower "
    "case letters, digits and -"
)


@dataclass(frozen=True, slots=True)
class SearchName:
    """Name of an Experiment.

    Attributes:
        experiment: ``metadata.name``.
        namespace: None where the user named none: that of the search itself, or this machine.
    """

    experiment: str
    namespace: str | None = None

    def __str__(self) -> str:
        return self.experiment if self.namespace is None else f"{self.namespace}/{self.experiment}"


# Compared by identity: models that are fitted to it may be kept by it.
@dataclass(frozen=True, eq=False)
class EarlierTrials:
    """What an earlier search found.

    Attributes:
        name: the search's name as the user wrote it.
        goal: direction of the values.
        configurations: parameter name -> text, one for each value. The names are those that the search had.
        values: what was measured, finite.
        diverged: configurations whose training broke: worse than all that gave a value.

    Raises:
        ValueError: there are not as many values as configurations.
    """

    name: str
    goal: Goal
    configurations: tuple[Mapping[str, str], ...]
    values: tuple[float, ...]
    diverged: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.configurations) != len(self.values):
            raise ValueError(f"{len(self.configurations)} configurations have {len(self.values)} values")

    def __len__(self) -> int:
        return len(self.values) + len(self.diverged)


def read_names(text: str, path: str) -> tuple[SearchName, ...]:
    """The names in the option :data:`OPTION`.

    Args:
        text: as the user wrote it; empty for none.
        path: of the setting, for messages.

    Raises:
        InvalidInput: with every name that cannot be one, or too many of them.
    """
    if not text.strip():
        return ()
    names: list[SearchName] = []
    problems: list[Problem] = []
    for part in text.split(","):
        *above, experiment = part.strip().split("/")
        name = SearchName(experiment, above[0] if above else None)
        good = len(above) <= 1 and all(_NAME.fullmatch(word) for word in (*above, experiment))
        if not good or name in names:
            problems.append(Problem(path, part.strip(), _ALLOWED))
        else:
            names.append(name)
    if len(names) > MOST_SEARCHES:
        problems.append(Problem(path, f"{len(names)} names", _ALLOWED))
    if problems:
        raise InvalidInput(problems)
    return tuple(names)
