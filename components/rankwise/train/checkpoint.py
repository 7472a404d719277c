"""The state of a training between two steps, as safetensors and JSON: nothing that could run code when it is read.

What is kept: adapter, AdamW's moments, the step, and what was measured so far. The order of the data and dropout are
functions of the seed and the step (``seeds``), the learning rate one of the step, so none of these has a state.
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
        timed_steps: optimizer steps whose time was taken; fewer than ``step`` after a checkpoint of an older version.
        step_seconds: wall-clock seconds of these steps, evaluations and checkpoints left out.
    """

    step: int = 0
    history: History = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    cost: Cost = field(default_factory=lambda: Cost(0.0, 0.0, 0.0))
    timed_steps: int = 0
    step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that was read: where the training was, and tensors by ``kind/name``."""

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
    tensors = {f"adapter/{name}": value.detach() for name, value in parameters.items()}
    tensors |= {f"initial/{name}": value for name, value in initial.items()}
    for name, parameter in parameters.items():
        for kind, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{kind}/{name}"] = value
    state = {"schema_version": _SCHEMA, "identity": dict(identity), "progress": asdict(progress)}
    name = f"step-{progress.step:09d}"
    with tempfile.TemporaryDirectory(prefix="rankwise-checkpoint-") as folder:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, Path(folder) / _TENSORS)
        (Path(folder) / _STATE).write_text(json.dumps(state, sort_keys=True), encoding="utf-8")
        place.store.put_folder(place.key(CHECKPOINT, name), Path(folder))
    remove(place, keep=name)


def load(place: Place, identity: Mapping[str, Any]) -> Saved | None:
    """The newest whole checkpoint of the same configuration; None when there is none.

    Raises:
        SurroundingsError: the store failed.
    """
    start = place.key(CHECKPOINT) + "/"
    names = {key.removeprefix(start).partition("/")[0] for key in place.store.list(start) if key.endswith(_MARKER)}
    for name in sorted(names, reverse=True):
        with tempfile.TemporaryDirectory(prefix="rankwise-checkpoint-") as folder:
            target = Path(folder) / "saved"
            try:
                place.store.get_folder(place.key(CHECKPOINT, name), target)
                state = json.loads((target / _STATE).read_text(encoding="utf-8"))
                tensors = load_file(target / _TENSORS)
                if state["schema_version"] != _SCHEMA or state["identity"] != dict(identity):
                    log.warning("a checkpoint of another configuration or version is left alone (%s)", name)
                    continue
                noted = state["progress"]
                return Saved(Progress(**(noted | {"cost": Cost(**noted["cost"])})), tensors)
            except (NotFound, OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("the checkpoint %s cannot be read (%s); an older one is tried", name, type(error).__name__)
    return None


def remove(place: Place, keep: str | None = None) -> None:
    """Delete checkpoints but the one named ``keep``, each one's marker first: half of one never looks whole."""
    start = place.key(CHECKPOINT) + "/"
    gone = [key for key in place.store.list(start) if key.removeprefix(start).partition("/")[0] != keep]
    for key in sorted(gone, key=lambda key: not key.endswith(_MARKER)):
        place.store.delete(key)
