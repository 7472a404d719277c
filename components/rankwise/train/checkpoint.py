"""The state of a training between two steps, as safetensors and JSON: nothing that could run code when it is read.

What is kept: adapter, AdamW's moments, the step, and what was measured so far. The order of the data and dropout are
functions of the seed and the step (``seeds``), the learning rate one of the step, so none of these has a state.

The same files serve two purposes: the checkpoint of an unfinished training, for the same trial to go on, and the final
state of a finished one, for other trials to begin with (``inheritance``).
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rankwise.artifacts import Cost, NotFound
from rankwise.train.place import CHECKPOINT, Place

log = logging.getLogger(__name__)

_SCHEMA = 1
_MARKER = ".complete"
_STATE, _TENSORS = "state.json", "tensors.safetensors"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError)
"""What :func:`read` raises for files that are damaged, or not of our making."""

History = list[dict[str, float | None]]


@dataclass(slots=True)
class Progress:
    """How far a training is.

    Attributes:
        step: optimizer steps done.
        history: one entry for each evaluation: ``step`` and metrics.
        best: lowest validation loss so far that counted as an improvement; None before the first evaluation.
        stale: evaluations since then.
        cost: what was spent up to the last save.
        inherited: steps that were made before this training began, by its parent and the parent's parents.
        parent: the trial that it began with; None where it began anew.
        timed_steps: optimizer steps whose time was taken; fewer than ``step`` after a checkpoint of an older version.
        step_seconds: wall-clock seconds of these steps, evaluations and checkpoints left out.
    """

    step: int = 0
    history: History = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    cost: Cost = field(default_factory=lambda: Cost(0.0, 0.0, 0.0))
    inherited: int = 0
    parent: str | None = None
    timed_steps: int = 0
    step_seconds: float = 0.0

    @property
    def trained(self) -> int:
        """All steps that the adapter was trained for."""
        return self.inherited + self.step


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was read: whose it is, where the training was, and tensors by ``kind/name``."""

    identity: Mapping[str, Any]
    progress: Progress
    tensors: Mapping[str, Tensor]

    def of_kind(self, kind: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: value for name, value in self.tensors.items() if name.startswith(kind + "/")}

    def restore(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Put the adapter and the optimizer's moments back."""
        adapter = self.of_kind("adapter")
        moments = {kind: self.of_kind(kind) for kind in _MOMENTS}
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(adapter[name])
                if name in moments["step"]:
                    optimizer.state[parameter] = {
                        "step": moments["step"][name].clone(),
                        **{kind: moments[kind][name].to(parameter.device) for kind in _MOMENTS[1:]},
                    }


def save(
    place: Place,
    identity: Mapping[str, Any],
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    initial: Mapping[str, Tensor],
) -> None:
    """Save under a new key, then delete older ones: at any moment one whole checkpoint is there.

    Args:
        place: the trial's place.
        identity: options that decide the result; only the same ones may resume.
        progress: how far it is.
        parameters: the adapter.
        optimizer: AdamW over exactly these.
        initial: PiSSA's start.

    Raises:
        SurroundingsError: the store failed.
    """
    name = f"step-{progress.step:09d}"
    with tempfile.TemporaryDirectory(prefix="rankwise-checkpoint-") as folder:
        write(Path(folder), identity, progress, parameters, optimizer, initial)
        place.store.put_folder(place.key(CHECKPOINT, name), Path(folder))
    remove(place, keep=name)


def write(
    folder: Path,
    identity: Mapping[str, Any],
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    initial: Mapping[str, Tensor],
) -> None:
    """Write a state into an empty folder; see :func:`save` for the arguments."""
    tensors = {f"adapter/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"initial/{name}": value for name, value in initial.items()}
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = value
    state = {"schema_version": _SCHEMA, "identity": dict(identity), "progress": asdict(progress)}
    save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, folder / _TENSORS)
    (folder / _STATE).write_text(json.dumps(state, sort_keys=True), encoding="utf-8")


def read(place: Place, *path: str) -> Saved:
    """Read the state under a key of a place.

    Raises:
        NotFound: there is none.
        SurroundingsError: the store failed.
        one of :data:`UNREADABLE`: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="rankwise-checkpoint-") as folder:
        target = Path(folder) / "saved"
        place.store.get_folder(place.key(*path), target)
        state = json.loads((target / _STATE).read_text(encoding="utf-8"))
        if state["schema_version"] != _SCHEMA:
            raise ValueError(f"schema version {state['schema_version']}, not {_SCHEMA}")
        noted = state["progress"]
        progress = Progress(**(noted | {"cost": Cost(**noted["cost"])}))
        return Saved(state["identity"], progress, load_file(target / _TENSORS))


def load(place: Place, identity: Mapping[str, Any]) -> Saved | None:
    """The newest whole checkpoint of the same configuration; None when there is none.

    Raises:
        SurroundingsError: the store failed.
    """
    start = place.key(CHECKPOINT) + "/"
    names = {key.removeprefix(start).partition("/")[0] for key in place.store.list(start) if key.endswith(_MARKER)}
    for name in sorted(names, reverse=True):
        try:
            saved = read(place, CHECKPOINT, name)
        except (NotFound, *UNREADABLE) as error:
            log.warning("the checkpoint %s cannot be read (%s); an older one is tried", name, type(error).__name__)
            continue
        if saved.identity == dict(identity):
            return saved
        log.warning("a checkpoint of another configuration is left alone (%s)", name)
    return None


def remove(place: Place, keep: str | None = None) -> None:
    """Delete checkpoints but the one named ``keep``, each one's marker first: half of one never looks whole."""
    start = place.key(CHECKPOINT) + "/"
    gone = [key for key in place.store.list(start) if key.removeprefix(start).partition("/")[0] != keep]
    for key in sorted(gone, key=lambda key: not key.endswith(_MARKER)):
        place.store.delete(key)
