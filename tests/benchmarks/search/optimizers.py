"""All optimizers by name, and how one is spelt: ``NAME[@MODE][:SETTING=VALUE,…]``.

``language-bo@pool:surrogate=numeric,initial_points=3`` is our search over the pool with two algorithmSettings. Without
a mode it is ``nearest`` (see :mod:`benchmarks.search.problem`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.search import outside
from benchmarks.search.ours import Ours
from benchmarks.search.outside import Outside, Worker
from benchmarks.search.peers import LARGEST_RANK, PEFT_DEFAULTS, BotorchGP, Random, Rule, Sobol
from benchmarks.search.problem import MODES, Optimizer, View

OURS = "language-bo"


@dataclass(frozen=True)
class Spec:
    """One optimizer with its settings.

    Attributes:
        name: a key of :data:`MAKERS`.
        mode: ``nearest`` or ``pool``.
        settings: of the optimizer, sorted by name.
    """

    name: str
    mode: str = "nearest"
    settings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read a spelling.

        Raises:
            ValueError: it is none, or the optimizer or the mode is unknown.
        """
        head, _, tail = text.partition(":")
        name, at, mode = head.partition("@")
        if name not in MAKERS:
            raise ValueError(f"optimizer {name!r} is none of {', '.join(MAKERS)}")
        if at and mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if mode == "pool" and name not in POOLED:
            raise ValueError(f"{name} cannot choose from a list: mode pool is for {', '.join(POOLED)}")
        settings = [part.partition("=") for part in tail.split(",") if part]
        if wrong := [key + equals + value for key, equals, value in settings if not (key and equals)]:
            raise ValueError(f"a setting is NAME=VALUE, got {wrong[0]!r}")
        return cls(name, mode or "nearest", tuple(sorted((key, value) for key, _, value in settings)))

    @property
    def text(self) -> str:
        """The spelling that :meth:`parse` reads, the same for equal ones."""
        mode = "" if self.mode == "nearest" else f"@{self.mode}"
        settings = ",".join(f"{key}={value}" for key, value in self.settings)
        return f"{self.name}{mode}{':' if settings else ''}{settings}"

    @property
    def trials(self) -> int | None:
        """How many trials it makes at most; None for as many as the budget allows."""
        return 1 if self.name in RULES else None


def _tpe(view: View, settings: Mapping[str, Any]) -> Optimizer:
    from benchmarks.search import optuna_peers

    return optuna_peers.tpe(view, **settings)


def _gp(view: View, settings: Mapping[str, Any]) -> Optimizer:
    from benchmarks.search import optuna_peers

    return optuna_peers.gp(view, **settings)


def _plain(make: Callable[[View], Optimizer]) -> Callable[[View, Mapping[str, Any]], Optimizer]:
    def made(view: View, settings: Mapping[str, Any]) -> Optimizer:
        if settings:
            raise ValueError(f"it has no settings, got {', '.join(settings)}")
        return make(view)

    return made


def _botorch(view: View, settings: Mapping[str, Any]) -> Optimizer:
    changed = {**settings, "initial": int(settings["initial"])} if "initial" in settings else settings
    return BotorchGP(view, **changed)


RULES = {"largest-rank": LARGEST_RANK, "peft-default": PEFT_DEFAULTS}
MAKERS: dict[str, Callable[[View, Mapping[str, Any]], Optimizer] | None] = {
    OURS: Ours,
    "random": _plain(Random),
    "sobol": _plain(Sobol),
    "optuna-tpe": _tpe,
    "optuna-gp": _gp,
    "optuna-auto": None,
    "botorch-gp": _botorch,
    "smac": None,
    "hebo": None,
    "largest-rank": _plain(lambda view: Rule(view, LARGEST_RANK)),
    "peft-default": _plain(lambda view: Rule(view, PEFT_DEFAULTS)),
}
"""How each is made; None for those of :mod:`benchmarks.search.outside`."""
POOLED = (OURS, "botorch-gp")
"""Those that score a list of candidates, and so can be given the pool's."""

_WORKERS: dict[Path, Worker] = {}


def make(spec: Spec, view: View, python: Path = outside.PYTHON) -> Optimizer:
    """A new optimizer.

    Args:
        spec: which.
        view: the task; in the spec's mode.
        python: of the environment of outside peers.

    Raises:
        NotInstalled: it cannot be had here.
        ValueError: a setting is wrong.
    """
    maker = MAKERS[spec.name]
    if maker is not None:
        try:
            return maker(view, dict(spec.settings))
        except TypeError as error:  # an unknown keyword
            raise ValueError(f"{spec.text}: {error}") from None
    if python not in _WORKERS or not _WORKERS[python].alive:
        _WORKERS[python] = Worker(python)
    return Outside(view, spec.name, dict(spec.settings), _WORKERS[python])
