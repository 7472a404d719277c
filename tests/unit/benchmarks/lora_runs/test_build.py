"""The command, with a tiny model in place of the real one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.lora_runs import build, design
from benchmarks.lora_runs.batched import Result
from benchmarks.lora_runs.models import pack_model
from benchmarks.lora_runs.tasks import TASKS, make_sets
from rankwise.data import Example

from .test_batched import CLASSES, bert, examples

TASK = TASKS["minilm-section"]


class TinyBuilder(build.Builder):
    """Its model has sixteen states and its tokens are random."""

    made = 0

    def __init__(self, task: Any, folder: Path, precision: str = "auto") -> None:
        self.task = task
        candidates = [Example(f"text {i}", "abc"[i % CLASSES]) for i in range(5120 + 20)]
        self.sets = make_sets(candidates, 5120, 12, 8, labelled=True)
        self.resolved = type("Resolved", (), {"revision": "tiny"})()
        self.model = pack_model(bert(torch.float32), torch.float32)
        self.held = {"validation": examples("bert", 12, 1), "test": examples("bert", 8, 2)}
        self._items = {512: examples("bert", 40)}

    def run(self, points: Any, micro: int) -> Any:
        TinyBuilder.made += len(points)
        return super().run(points, micro)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "Builder", TinyBuilder)
    monkeypatch.setattr(TinyBuilder, "made", 0)


def command(path: Path, *options: str) -> list[str]:
    return ["--task", "minilm-section", "--out", str(path), *options]


def test_a_killed_builder_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "section.jsonl"
    assert build.main(command(path, "--limit", "6")) == 0
    runs = build.read_lines(path)
    assert TinyBuilder.made == len(runs) == 6
    assert {run.position for run in runs} == set(range(6))
    text = path.read_text(encoding="utf-8")
    # killed while it wrote a line, and an older line is gone
    path.write_text("".join(text.splitlines(keepends=True)[1:]) + text[:50], encoding="utf-8")
    assert build.main(command(path, "--limit", "7")) == 0
    again = build.read_lines(path)
    assert TinyBuilder.made == 6 + 2
    assert sorted(run.position for run in again) == list(range(7))
    # the run that was made again, with other neighbours, came out as it was
    first = {run.position: run.loss for run in runs}
    assert {run.position: run.loss for run in again if run.position < 6} == pytest.approx(first, abs=1e-4)


def test_the_parts_that_follow_from_sobol(tmp_path: Path) -> None:
    path = tmp_path / "section.jsonl"
    build.main(command(path, "--limit", "12"))
    build.main(command(path, "--part", "dense", "--limit", "3"))
    build.main(command(path, "--part", "repeat", "--limit", "13"))
    runs = build.read_lines(path)
    repeated = [run for run in runs if run.part == "repeat"]
    assert [sum(run.part == part for run in runs) for part in ("sobol", "dense", "repeat")] == [12, 3, 13]
    assert {run.seed for run in repeated} == {1, 2}
    own = {tuple(run.config.items()): run.loss for run in runs if run.part == "sobol"}
    assert any(run.loss != own[tuple(run.config.items())] for run in repeated)


def test_two_builders_do_not_write_into_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    path = tmp_path / "section.jsonl"
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert build.main(command(path)) == 2
    assert "being written by another builder" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == ""


def test_a_row_says_what_was_trained() -> None:
    point = design.sobol(TASK, 1)[0]
    steps = math.ceil(512 / int(point.values["batch_size"]))
    result = Result(losses=[2.0] * (steps - 1) + [1.0], steps=steps, seconds=3.0)
    result.measured = {"validation": (1.5, 0.1, 0.5), "test": (1.6, 0.2, 0.4)}
    run = build.to_run(TASK, point, result)
    assert (run.loss, run.loss_se, run.accuracy) == (1.5, 0.1, 0.5)
    assert (run.test_loss, run.test_loss_se, run.test_accuracy) == (1.6, 0.2, 0.4)
    assert (run.examples, run.fraction, run.steps, run.epochs) == (512, 0.1, steps, 1)
    part = math.ceil(steps / 8)
    assert run.train_loss_first == 2.0
    assert run.train_loss_last == pytest.approx((2.0 * (part - 1) + 1.0) / part)
    lost = build.to_run(TASK, point, Result(status="diverged"))
    assert (lost.status, lost.loss, lost.accuracy, lost.train_loss_first, lost.steps) == (
        "diverged",
        None,
        None,
        None,
        0,
    )
    assert build.identity("t", run) == build.identity("t", point)
    assert json.loads(json.dumps(asdict(run))) == asdict(run)
