"""Trainings of tiny random models: options, model and data as the trial makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rankwise.pretrained import resolve
from rankwise.train.config import TrainConfig, parse
from rankwise.train.interruption import Interruption
from rankwise.train.loop import Training
from rankwise.train.model import Trainee, build
from rankwise.train.place import Place
from rankwise.train.trial import _find, _prepare


class FakeLines:
    """Keeps what a training reports."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def write(self, metrics: Mapping[str, float]) -> None:
        self.lines.append(dict(metrics))


def options(model: Path, data: Path, *more: str) -> TrainConfig:
    """Options of a small float32 training on the CPU."""
    fixed = ["--device", "cpu", "--precision", "fp32", "--validation", "12", "--test", "8", "--max-target-tokens", "12"]
    return parse(["--model", str(model), "--data", str(data), *fixed, *more], {})


def trainee(config: TrainConfig, cache: Path) -> Trainee:
    return build(config, resolve(config.model, cache))


def training(
    config: TrainConfig, cache: Path, places: Sequence[Place] = (), lines: FakeLines | None = None
) -> Training:
    """A training at its start, or where its checkpoint is."""
    return _prepare(config, _find(config, cache), places, Interruption(), lines or FakeLines())  # type: ignore[arg-type]
