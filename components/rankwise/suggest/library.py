"""Where the trials of earlier searches are found: the manifests in a store.

A manifest says what was tried, what was measured and what the trial's own objective was; it holds no search space and
no direction. The direction follows from the objective's name: of what ``rankwise train`` can optimize, only the loss
is better when it is smaller.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rankwise.artifacts import Manifest, NotFound, Outcome, Store, open_store, trial_key
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.retry import Backoff
from rankwise.space.trial import Goal, Objective
from rankwise.strategies.earlier import SearchName

log = logging.getLogger(__name__)

STORE_VARIABLE = "RANKWISE_STORE"
PATIENCE = Backoff(attempts=4, first=0.5, longest=2.0)
"""Of one call to the store: up to 3.5 s of waiting. A request does not wait for more; a later one asks again."""
MINIMIZED = ("loss",)
"""Objectives of ``rankwise train`` that are better when they are smaller."""
DEFAULT_ALPHA_RATIO = "2"
"""What a trial takes where its manifest names neither alpha nor its ratio to the rank."""
_MANIFEST = "manifest.json"
_FOR_GOOD = (Outcome.SUCCEEDED, Outcome.EARLY_STOPPED, Outcome.DIVERGED)
"""Outcomes after which a trial is never run again under its name: what was read once is read again alike."""


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A trial whose result does not change any more.

    Attributes:
        name: unique in its search.
        configuration: parameter -> text.
        metrics: finite; empty where it diverged.
        objective: what its search optimized.
        diverged: whether its training broke.
    """

    name: str
    configuration: Mapping[str, str]
    metrics: Mapping[str, float]
    objective: Objective
    diverged: bool = False


class Library(Protocol):
    """Ended trials by the name of their search."""

    def trials(
        self, search: SearchName, names: Sequence[str] | None, most: int, deadline: Deadline
    ) -> tuple[EndedTrial, ...]:
        """Read trials.

        Args:
            search: which search.
            names: of the trials to read; None for all that there are. One that is gone is left out.
            most: how many to read at most; the first in the order of names, which are random.
            deadline: when reading is given up.

        Raises:
            NotFound: there is no ended trial of that search.
            InvalidInput, SurroundingsError: it cannot be read.
        """
        ...


class StoreLibrary:
    """Manifests in a store, which is opened when it is needed.

    Args:
        environment: with ``RANKWISE_STORE`` and what :func:`rankwise.artifacts.open_store` reads.
        namespace: that of a search without one in its name; None: such a search ran on one machine.
        backoff: retries of each call to the store.
    """

    def __init__(self, environment: Mapping[str, str], namespace: str | None, backoff: Backoff = PATIENCE) -> None:
        self._environment = environment
        self._namespace = namespace
        self._backoff = backoff

    def trials(
        self, search: SearchName, names: Sequence[str] | None, most: int, deadline: Deadline
    ) -> tuple[EndedTrial, ...]:
        """See :class:`Library`."""
        store = self._open()
        namespace = search.namespace or self._namespace
        folder = trial_key(search.experiment, "_", namespace=namespace).removesuffix("_")
        if names is None:
            # What a local run measures after its search, on more data, is no trial of it.
            names = [name for name in _stored(store, folder) if not name.startswith(f"{search.experiment}-final-")]
        found: list[EndedTrial] = []
        for trial in self._read(store, folder, names, deadline):
            found.append(trial)
            if len(found) == most:
                break
        if not found:
            raise NotFound(f"{store.uri}: there is no ended trial under {folder!r}")
        return tuple(found)

    def _open(self) -> Store:
        """A store for one look: searches that are read side by side then share no connection."""
        uri = self._environment.get(STORE_VARIABLE)
        if not uri:
            raise SurroundingsError(f"{STORE_VARIABLE} is not set, so there is no store to read it from")
        return open_store(uri, self._environment, self._backoff)

    @staticmethod
    def _read(store: Store, folder: str, names: Sequence[str], deadline: Deadline) -> Iterator[EndedTrial]:
        for number, name in enumerate(names):
            if deadline.expired:
                raise SurroundingsError(f"{store.uri}: only {number} of {len(names)} trials were read in time")
            try:
                manifest = Manifest.from_json(store.get_bytes(f"{folder}{name}/{_MANIFEST}"))
            except NotFound:
                continue
            except InvalidInput as error:
                log.warning("%s%s is left out, its manifest cannot be read: %s", folder, name, error.problems[0])
                continue
            if (trial := ended_trial(name, manifest)) is not None:
                yield trial


def _stored(store: Store, folder: str) -> list[str]:
    """Names of the trials that have a manifest, sorted."""
    keys = (key.removeprefix(folder) for key in store.list(folder))
    return sorted(name for name, slash, rest in (key.partition("/") for key in keys) if slash and rest == _MANIFEST)


def ended_trial(name: str, manifest: Manifest) -> EndedTrial | None:
    """A trial from its manifest; None where another run of it may follow, or nothing was measured."""
    diverged = manifest.outcome is Outcome.DIVERGED
    if manifest.outcome not in _FOR_GOOD or not (diverged or manifest.metrics):
        return None
    configuration = {key: str(value) for key, value in manifest.configuration.items()}
    if "alpha" not in configuration:
        configuration.setdefault("alpha_ratio", DEFAULT_ALPHA_RATIO)
    metric = configuration.get("objective", "loss")
    goal = Goal.MINIMIZE if metric in MINIMIZED else Goal.MAXIMIZE
    metrics = {} if diverged else dict(manifest.metrics)
    return EndedTrial(name, configuration, metrics, Objective(metric, goal), diverged)
