"""Where a trial's results are kept: its part of a store, or an output folder, or nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankwise.artifacts import Manifest, NotFound, Outcome, Store, open_store, trial_key
from rankwise.errors import InvalidInput
from rankwise.retry import Backoff
from rankwise.train.config import TrainConfig

MANIFEST = "manifest.json"
ADAPTER = "adapter"
CHECKPOINT = "checkpoint"
STATE = "state"
"""Adapter and moments at the end of a training, for others to begin with (``--keep-state``)."""
PER_EXAMPLE = "per_example.json"

PATIENCE = Backoff(attempts=16, first=0.5, longest=20.0)
"""How long a trial waits for its store: 2 to 3 minutes at each call, so that a server whose pod moves to another node
costs no training. Were the trial to end instead, a cluster would repeat it once, perhaps into the same outage, and the
search would take a sound configuration for a failed one."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of keys in a store.

    Attributes:
        store: the store.
        prefix: start of all keys, without a slash at its end; "" for an output folder of its own.
    """

    store: Store
    prefix: str

    def key(self, *path: str) -> str:
        return "/".join((self.prefix, *path) if self.prefix else path)

    def manifest(self) -> Manifest | None:
        """The finished trial's manifest; None when there is none or it cannot be read."""
        try:
            return Manifest.from_json(self.store.get_bytes(self.key(MANIFEST)))
        except (NotFound, InvalidInput):
            return None


def open_places(config: TrainConfig) -> list[Place]:
    """Places that results go to: the store first, then the output folder. Checkpoints live in the first.

    Raises:
        InvalidInput: the URI or a name cannot be used.
    """
    places = []
    if config.store is not None:
        prefix = trial_key(config.experiment, config.trial_name, namespace=config.namespace)
        places.append(Place(open_store(config.store, backoff=PATIENCE), prefix))
    if config.output is not None:
        places.append(Place(open_store(str(Path(config.output).expanduser().resolve())), ""))
    return places


def parent_place(config: TrainConfig, places: Sequence[Place]) -> Place | None:
    """The place of the trial that ``--parent`` names; None without one."""
    if config.parent is None:
        return None
    # --parent needs --store, whose place is the first.
    prefix = trial_key(config.experiment, config.parent, namespace=config.namespace)
    return Place(places[0].store, prefix)


def finished(places: Sequence[Place], config: TrainConfig) -> Manifest | None:
    """The manifest of the same trial with the same configuration, if it needs no second run.

    Running out of memory and failures that nobody foresaw may go away; a diverged loss comes again.
    """
    for place in places:
        manifest = place.manifest()
        if (
            manifest is not None
            and manifest.outcome in (Outcome.SUCCEEDED, Outcome.EARLY_STOPPED, Outcome.DIVERGED)
            and dict(manifest.configuration) == config.identity()
        ):
            return manifest
    return None
