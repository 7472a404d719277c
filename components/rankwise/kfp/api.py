"""What the launcher asks of a cluster, as a protocol, so that it can be tested without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from rankwise.cluster.facts import Snapshot
from rankwise.cluster.objects import Object
from rankwise.errors import RankwiseError, SurroundingsError


class AlreadyThere(RankwiseError):
    """An object of that name exists (409)."""


class Expired(SurroundingsError):
    """The server has forgotten the version that a watch was to go on from (410)."""


class WatchBroken(SurroundingsError):
    """A watch ended before its time: a broken connection, a server that restarts."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch.

    Attributes:
        kind: ``ADDED``, ``MODIFIED``, ``DELETED`` or ``BOOKMARK``.
        object: the whole object; of a bookmark only ``metadata.resourceVersion``.
    """

    kind: str
    object: Object


class KatibApi(Protocol):
    """Experiments of one namespace. Calls retry for a bounded time what may go away by itself."""

    @property
    def namespace(self) -> str:
        """The namespace."""
        ...

    def create(self, document: Mapping[str, Any]) -> Object:
        """Create an Experiment; return it as the server has it.

        Raises:
            AlreadyThere: there is one of that name.
            InvalidInput: the server, or Katib's webhook, refused it.
            SurroundingsError: a right is missing, or the server failed.
        """
        ...

    def get(self, name: str) -> Object:
        """An Experiment.

        Raises:
            Missing: there is none of that name.
            SurroundingsError: a right is missing, or the server failed.
        """
        ...

    def watch(self, name: str, version: str, seconds: float) -> Iterator[Event]:
        """Events of one Experiment after a version, until the server ends the watch.

        Args:
            name: the Experiment.
            version: ``metadata.resourceVersion`` of what is known already.
            seconds: after which the server is asked to end it.

        Raises:
            Expired: the version is too old.
            WatchBroken: the connection broke; the same call may be tried again.
            SurroundingsError: a right is missing.
        """
        ...

    def delete(self, name: str, uid: str) -> None:
        """Delete an Experiment with all its trials; nothing where it is gone, or another one has its name.

        Raises:
            SurroundingsError: a right is missing, or the server failed.
        """
        ...

    def suggestion(self, name: str) -> Object:
        """The Suggestion of an Experiment; empty where there is none, or it cannot be read."""
        ...

    def trial_log(self, experiment: str, trial: str, container: str, lines: int) -> str:
        """The end of what a trial's container printed; "" where its pod is gone or cannot be read."""
        ...

    def snapshot(self, name: str) -> Snapshot:
        """The Experiment with its trials.

        Raises:
            InvalidInput: there is no such Experiment.
            SurroundingsError: a right is missing, or the server failed.
        """
        ...

    def moved(self) -> bool:
        """Whether the pod that this runs in is being deleted or evicted: the next attempt runs in another one."""
        ...
