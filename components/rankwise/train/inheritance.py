"""The state that a training begins with when it names a parent, checked: it fits, or the trial ends with what is wrong.

Never a silent start from scratch: a search over weights that are handed on would compare what cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from rankwise.artifacts import NotFound
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.train import checkpoint
from rankwise.train.checkpoint import Saved
from rankwise.train.config import TrainConfig
from rankwise.train.place import STATE, Place

SHAPE = ("model", "num_layers", "task", "rank", "target_modules", "variant")
"""Options that fix which tensors an adapter has and what they mean."""


def load_parent(place: Place, config: TrainConfig) -> Saved:
    """The parent's state.

    Args:
        place: the parent's.
        config: this trial's options, with a parent.

    Raises:
        InvalidInput: there is no such state, or it is of an adapter of another shape (every option that differs).
        SurroundingsError: the store failed, or the state cannot be read.
    """
    try:
        saved = checkpoint.read(place, STATE)
    except NotFound:
        known = place.manifest() is not None
        reason = "a trial that was run with --keep-state=final; it kept no state" if known else "a trial that has ended"
        said = f"{reason} ({place.store.uri} has nothing under {place.key(STATE)})"
        raise InvalidInput([Problem("--parent", str(config.parent), said)]) from None
    except checkpoint.UNREADABLE as error:
        raise SurroundingsError(
            f"the state of the parent {config.parent} cannot be read ({type(error).__name__}: {error})"
        ) from error
    own = config.identity()
    problems = [
        Problem(
            f"--{name.replace('_', '-')}",
            str(own.get(name, "nothing")),
            f"{saved.identity.get(name, 'nothing')}, as the parent {config.parent} has it: its weights fit no other",
        )
        for name in SHAPE
        if own.get(name) != saved.identity.get(name)
    ]
    if problems:
        raise InvalidInput(problems)
    return saved


def check_fits(saved: Saved, parameters: Mapping[str, nn.Parameter], parent: str | None) -> None:
    """Compare the tensors themselves: a model may have changed behind an equal name.

    Args:
        saved: the parent's state.
        parameters: this trial's adapter.
        parent: name, for the message.

    Raises:
        InvalidInput: names or shapes differ.
    """
    theirs = {name: tuple(value.shape) for name, value in saved.of_kind("adapter").items()}
    ours = {name: tuple(value.shape) for name, value in parameters.items()}
    different = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if different:
        name = different[0]
        said = (
            f"a trial whose adapter has the same tensors; {len(different)} differ, e.g. {name}: "
            f"{theirs.get(name, 'nothing')} there, {ours.get(name, 'nothing')} here"
        )
        raise InvalidInput([Problem("--parent", str(parent), said)])
