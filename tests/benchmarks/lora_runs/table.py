"""Read the table of real LoRA runs: one row for each training that was made.

    from benchmarks.lora_runs.table import TASKS, load

Needs numpy, the standard library and :mod:`rankwise.space` only. ``CARD.md`` says what each column is.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rankwise.space import ParameterText, SearchSpace, parse_space

DATA = Path(__file__).parent / "data"
_ENDING = ".csv.gz"

TASKS: tuple[str, ...] = tuple(sorted(path.name.removesuffix(_ENDING) for path in DATA.glob(f"*{_ENDING}")))
"""Names of the shipped tasks."""

VALUES: dict[str, tuple[str, ...]] = {
    "rank": ("2", "4", "8", "16", "32", "64", "128"),
    "alpha_ratio": ("0.25", "0.5", "1", "2", "4", "8", "16"),
    "dropout": ("0", "0.05", "0.1", "0.2", "0.3"),
    "batch_size": ("4", "8", "16", "32", "64"),
    "learning_rate": (
        *("1e-5", "3e-5", "1e-4", "2e-4", "5e-4", "1e-3"),
        *("2e-3", "5e-3", "1e-2", "2e-2", "5e-2"),
    ),
}
"""The five parameters and their values, as the texts that a table holds: 13,475 configurations."""

PARTS = ("sobol", "dense", "repeat", "fidelity")
STATUSES = ("ok", "diverged")

COLUMNS = (
    *("part", "position", *VALUES, "seed", "examples", "fraction", "epochs", "steps"),
    *("status", "loss", "loss_se", "test_loss", "test_loss_se", "accuracy", "test_accuracy"),
    *("train_loss_first", "train_loss_last", "seconds"),
)


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Attributes:
        task: name of the task.
        config: the five parameters of :data:`VALUES`, as texts of the space.
        examples: training examples.
        fraction: ``examples`` as a part of the whole training set.
        seed: seed of the adapter's start, the order of the data and dropout.
        status: ``ok``, or ``diverged``: a loss or a gradient was not finite.
        loss: validation loss in nats (an example for encoder tasks, a target token for decoder tasks); None if
            diverged.
        loss_se: its standard error over the validation examples.
        test_loss: the same on the test set, never to be searched on.
        test_loss_se: its standard error.
        accuracy: part of the validation examples whose most likely class is right; None for decoder tasks.
        test_accuracy: the same on the test set.
        epochs: passes over the training examples.
        steps: optimizer steps made (fewer than planned if diverged).
        train_loss_first: mean training loss of the first eighth of the steps; None if none was finite.
        train_loss_last: the same of the last eighth of the steps made.
        seconds: processor seconds of one core: the run's share of the group that it was trained in.
        part: ``sobol``, ``dense``, ``repeat`` or ``fidelity``.
        position: place in the part's design; the first n of the part sobol are the first n points of its sequence.
    """

    task: str
    config: dict[str, str]
    examples: int
    fraction: float
    seed: int
    status: str
    loss: float | None
    loss_se: float | None
    test_loss: float | None
    test_loss_se: float | None
    accuracy: float | None
    test_accuracy: float | None
    epochs: int
    steps: int
    train_loss_first: float | None
    train_loss_last: float | None
    seconds: float
    part: str
    position: int


def search_space() -> SearchSpace:
    """The five parameters as lists; all but dropout on a logarithmic scale."""
    return parse_space(
        [
            ParameterText(name, "discrete", list=values, distribution="uniform" if name == "dropout" else "logUniform")
            for name, values in VALUES.items()
        ]
    )


def load(task: str, path: Path | None = None) -> tuple[Run, ...]:
    """All runs of a task, in the order of parts and positions.

    Args:
        task: one of :data:`TASKS`, or any name when a path is given.
        path: a ``.csv.gz`` file; the shipped one when None.

    Raises:
        ValueError: there is no such task, or a row is not what the columns say.
    """
    if path is None:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}; shipped: {', '.join(TASKS)}")
        path = DATA / f"{task}{_ENDING}"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path.name}: columns {reader.fieldnames}, expected {list(COLUMNS)}")
        return tuple(_run(task, path.name, number, row) for number, row in enumerate(reader, start=2))


def dump(runs: Iterable[Run]) -> bytes:
    """A table as the bytes of a ``.csv.gz`` file; the same runs in any order give the same bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in sorted(runs, key=lambda r: (PARTS.index(r.part), r.position, r.examples, r.seed)):
        writer.writerow([_text(run.config[name] if name in VALUES else getattr(run, name)) for name in COLUMNS])
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as stream:
        stream.write(text.getvalue().encode())
    return packed.getvalue()


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _run(task: str, file: str, number: int, row: dict[str, str]) -> Run:
    def optional(name: str) -> float | None:
        return None if row[name] == "" else _finite(row[name])

    try:
        config = {name: row[name] for name in VALUES}
        for name, value in config.items():
            if value not in VALUES[name]:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(VALUES[name])}")
        if row["part"] not in PARTS or row["status"] not in STATUSES:
            raise ValueError(f"part {row['part']!r} with status {row['status']!r}")
        if (row["loss"] == "") != (row["status"] == "diverged"):
            raise ValueError("a run has a loss exactly if it is ok")
        return Run(
            task=task,
            config=config,
            examples=int(row["examples"]),
            fraction=_finite(row["fraction"]),
            seed=int(row["seed"]),
            status=row["status"],
            loss=optional("loss"),
            loss_se=optional("loss_se"),
            test_loss=optional("test_loss"),
            test_loss_se=optional("test_loss_se"),
            accuracy=optional("accuracy"),
            test_accuracy=optional("test_accuracy"),
            epochs=int(row["epochs"]),
            steps=int(row["steps"]),
            train_loss_first=optional("train_loss_first"),
            train_loss_last=optional("train_loss_last"),
            seconds=_finite(row["seconds"]),
            part=row["part"],
            position=int(row["position"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{file}, line {number}: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value
