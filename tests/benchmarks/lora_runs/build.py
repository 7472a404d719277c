"""Build a part of a task's table: train its configurations and append one JSON line for each run.

    python -m benchmarks.lora_runs.build --task minilm-section --part sobol --out section.jsonl      (from tests/)

It can be killed at any time: lines are written group by group and synced to the disk, and the same command goes on
with what is missing. One thread a process is best for small models (``OMP_NUM_THREADS=1``): start one for each core,
each with its own task and file.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.lora_runs import design
from benchmarks.lora_runs.batched import Item, Plan, Result, train
from benchmarks.lora_runs.design import Point
from benchmarks.lora_runs.models import PackedBert, PackedLlama, pack_model
from benchmarks.lora_runs.sources import default_folder
from benchmarks.lora_runs.table import Run
from benchmarks.lora_runs.tasks import TASKS, Sets, Task, encode, load_sets
from rankwise.pretrained import resolve
from rankwise.settings import Settings
from rankwise.train.model import choose_precision

transformers: Any = importlib.import_module("transformers")
log = logging.getLogger(__name__)

CHUNK = 32
"""Runs that are grouped among themselves: what is done when the builder is killed is then nearly a first part."""
SEQUENCES = {True: 192, False: 16}
"""Sequences in one step of the builder, at most (encoder, decoder): activations take about half a GB and 1 GB."""
MICRO = {True: 64, False: 16}
"""Examples of one run in one step, at most."""


def groups(points: Sequence[Point], encoder: bool) -> Iterator[tuple[int, list[Point]]]:
    """Points that are trained together, each group with its ``micro``: examples of a run in one step.

    Within a chunk of the order, runs of like batch size go together: the smallest batch in a group says how many
    examples each run puts into a step, and larger slices make the products faster.
    """
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        for examples in sorted({point.examples for point in chunk}):
            rest = [point for point in chunk if point.examples == examples]
            rest.sort(key=lambda point: int(point.values["batch_size"]))
            while rest:
                micro = min(int(rest[0].values["batch_size"]), MICRO[encoder])
                count = max(1, SEQUENCES[encoder] // micro)
                # A batch four times as large would be gathered from four parts: better in a group of its own.
                near = [p for p in rest[:count] if min(int(p.values["batch_size"]), MICRO[encoder]) < 4 * micro]
                yield micro, near
                rest = rest[len(near) :]


def plan(point: Point) -> Plan:
    """A point as options of the trainer."""
    values = point.values
    return Plan(
        rank=int(values["rank"]),
        scale=float(values["alpha_ratio"]),
        dropout=float(values["dropout"]),
        batch_size=int(values["batch_size"]),
        learning_rate=float(values["learning_rate"]),
        seed=point.seed,
    )


def to_run(task: Task, point: Point, result: Result) -> Run:
    """A row of the table."""

    def of(name: str, place: int) -> float | None:
        return result.measured[name][place] if name in result.measured else None

    part = max(1, math.ceil(math.ceil(point.examples / int(point.values["batch_size"])) * task.epochs / 8))
    first, last = result.losses[:part], result.losses[-part:]
    return Run(
        task=task.name,
        config=point.values,
        examples=point.examples,
        fraction=point.examples / task.train,
        seed=point.seed,
        status=result.status,
        loss=of("validation", 0),
        loss_se=of("validation", 1),
        test_loss=of("test", 0),
        test_loss_se=of("test", 1),
        accuracy=of("validation", 2),
        test_accuracy=of("test", 2),
        epochs=task.epochs,
        steps=result.steps,
        train_loss_first=math.fsum(first) / len(first) if first else None,
        train_loss_last=math.fsum(last) / len(last) if last else None,
        seconds=result.seconds,
        part=point.part,
        position=point.position,
    )


def read_lines(path: Path) -> list[Run]:
    """Runs of a file of this builder; a line that was cut off by a kill is no run."""
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return [Run(**json.loads(line)) for line in whole]


def identity(task: str, run: Run | Point) -> tuple[object, ...]:
    """What makes a run the same as another."""
    config = run.config if isinstance(run.config, dict) else dict(run.config)
    return task, run.part, tuple(sorted(config.items())), run.examples, run.seed


class Builder:
    """A task with its model and its tokens, ready to train.

    Args:
        task: the task.
        folder: the sources.
        precision: ``auto``, ``bf16`` or ``fp32``.
    """

    def __init__(self, task: Task, folder: Path, precision: str = "auto") -> None:
        self.task = task
        self.sets: Sets = load_sets(task, folder)
        self.resolved = resolve(task.model, Settings.from_environment().cache)
        dtype = choose_precision(precision, torch.device("cpu"))
        kind = transformers.AutoModel if task.is_encoder else transformers.AutoModelForCausalLM
        shape = transformers.AutoConfig.from_pretrained(self.resolved.path_or_id)
        shape.num_hidden_layers = task.layers or shape.num_hidden_layers
        base = kind.from_pretrained(self.resolved.path_or_id, config=shape, dtype=torch.float32, use_safetensors=True)
        self.model: PackedBert | PackedLlama = pack_model(base, dtype)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.resolved.path_or_id)
        self.held = {
            "validation": self._encode(self.sets.validation),
            "test": self._encode(self.sets.test),
        }
        self._items: dict[int, list[Item]] = {}

    def _encode(self, examples: Sequence[Any]) -> list[Item]:
        return encode(self.task, self.tokenizer, examples, self.sets.classes)

    def items(self, size: int) -> list[Item]:
        if size not in self._items:
            self._items[size] = self._encode(self.sets.proxy(size))
        return self._items[size]

    def run(self, points: Sequence[Point], micro: int) -> list[Run]:
        """Train a group."""
        results = train(
            self.model,
            [plan(point) for point in points],
            self.items(points[0].examples),
            self.held,
            classes=len(self.sets.classes),
            epochs=self.task.epochs,
            micro=micro,
        )
        return [to_run(self.task, point, result) for point, result in zip(points, results, strict=True)]


def append(stream: TextIO, runs: Sequence[Run]) -> None:
    """Write whole lines and wait until they are on the disk."""
    stream.write("".join(json.dumps(asdict(run)) + "\n" for run in runs))
    stream.flush()
    os.fsync(stream.fileno())


def points_of(task: Task, part: str, known: Sequence[Run]) -> list[Point]:
    """The design of a part; dense and repeat follow from the runs of the part sobol in ``known``."""
    if part in ("dense", "repeat"):
        return design.dense(task, known) if part == "dense" else design.repeat(task, known)
    return design.sobol(task) if part == "sobol" else design.fidelity(task)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--part", choices=("sobol", "dense", "repeat", "fidelity"), default="sobol")
    parser.add_argument("--limit", type=int, help="only so many first points of the design")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; runs that are in it are not made again")
    parser.add_argument("--sources", type=Path, default=default_folder(), help="folder (default: %(default)s)")
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    arguments = parser.parse_args(argv)
    # Slices of many sizes meet many ranks: each pair is a product of its own to oneDNN, and 1,024 are remembered else.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    task = TASKS[arguments.task]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"error: {arguments.out} is being written by another builder", file=sys.stderr)
            return 2
        known = read_lines(arguments.out)
        whole = sum(len(line.encode()) + 1 for line in arguments.out.read_text(encoding="utf-8").split("\n")[:-1])
        stream.truncate(whole)  # a line that a kill cut off
        done = {identity(task.name, run) for run in known}
        points = points_of(task, arguments.part, known)[: arguments.limit]
        missing = [point for point in points if identity(task.name, point) not in done]
        log.info("%s, %s: %d of %d runs to make", task.name, arguments.part, len(missing), len(points))
        if not missing:
            return 0
        builder = Builder(task, arguments.sources, arguments.precision)
        sets = builder.sets
        log.info("model %s, data %s, %d classes", builder.resolved.revision, sets.sha256, len(sets.classes))
        for micro, group in groups(missing, task.is_encoder):
            began = time.monotonic()
            runs = builder.run(group, micro)
            append(stream, runs)
            best = min((run.loss for run in runs if run.loss is not None), default=math.nan)
            log.info(
                "%d runs with %d examples a step: %.0f s, best %.4f, %d diverged",
                *(len(runs), micro, time.monotonic() - began, best),
                sum(run.status == "diverged" for run in runs),
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
