"""Whole trials through the command line's own ``main``, and as processes that are killed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankwise.artifacts import Manifest, Outcome, open_store
from rankwise.train import trial
from rankwise.train.__main__ import main
from rankwise.train.loop import Training
from support.trainings import options

KATIB = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    logger = logging.getLogger("rankwise")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def arguments(model: Path, data: Path, *more: str) -> list[str]:
    fixed = ["--device", "cpu", "--precision", "fp32", "--validation", "12", "--test", "8", "--max-target-tokens", "12"]
    return ["--model", str(model), "--data", str(data), *fixed, *more]


def stored(folder: Path, experiment: str = "manual", name: str = "t") -> Manifest:
    return Manifest.from_json((folder / f"experiments/{experiment}/trials/{name}/manifest.json").read_bytes())


def metrics(text: str) -> list[tuple[str, float]]:
    return [(m[1], float(m[2])) for m in KATIB.finditer(text)]


def test_a_trial_from_options_to_manifest(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKWISE_STORE", str(tmp_path))
    monkeypatch.setenv("RANKWISE_EXPERIMENT", "e")
    monkeypatch.setenv("RANKWISE_TRIAL", "t")
    command = arguments(
        llama, data, "--rank", "4", "--subset", "0.5", "--steps", "4", "--evaluate-every", "2",
        "--objective", "rougeL", "--metrics", "exact_match,peak_memory_bytes", "--generate-samples", "5",
        "--evaluate", "test", "--checkpoint-every", "3",
    )  # fmt: skip
    assert main(command) == 0
    shown = capsys.readouterr()
    manifest = stored(tmp_path, "e")

    # Katib reads stdout and stderr together: only wanted metrics match, in order, the objective last.
    names = [name for name, _ in metrics(shown.out)]
    validation = ["loss", "exact_match", "peak_memory_bytes", "rougeL"]
    test = ["test_lead_exact_match", "test_lead_rougeL", "test_loss", "test_exact_match", "test_rougeL"]
    assert names == ["loss", "rougeL", *validation, *test]
    assert metrics(shown.err) == []
    values = dict(metrics(shown.out))
    assert {name: values[name] for name in manifest.metrics} == manifest.metrics
    assert manifest.test_metrics is not None
    assert {f"test_{name}" for name in manifest.test_metrics} == set(test)
    assert {f"test_{name}": value for name, value in manifest.test_metrics.items()}.items() <= values.items()

    assert manifest.outcome is Outcome.SUCCEEDED
    assert manifest.configuration["rank"] == 4
    assert (manifest.data.train, manifest.data.subset, manifest.data.validation, manifest.data.test) == (40, 20, 12, 8)
    assert [entry["step"] for entry in manifest.history] == [2, 4]
    assert manifest.cost.seconds is not None
    assert set(manifest.standard_errors) >= {"loss", "rougeL", "test_loss", "test_lead_rougeL"}
    assert len(manifest.examples) == 5
    assert manifest.code.torch == torch.__version__.partition("+")[0] or manifest.code.torch == torch.__version__
    assert str(llama) not in json.dumps(manifest.artifacts)

    store = open_store(str(tmp_path))
    store.get_folder(manifest.artifacts["adapter"], tmp_path / "fetched")
    assert load_file(tmp_path / "fetched" / "adapter_model.safetensors")
    values_per_example = json.loads(store.get_bytes(manifest.artifacts["per_example"]))
    assert len(values_per_example["test_loss"]) == 8
    assert len(values_per_example["test_rougeL"]) == len(values_per_example["test_lead_rougeL"]) == 5
    mean = sum(values_per_example["test_loss"]) / 8
    assert mean == pytest.approx(manifest.test_metrics["loss"], abs=1e-9)
    assert store.list("experiments/e/trials/t/checkpoint") == []

    # The same command again: the same lines, no work.
    monkeypatch.setattr(trial, "run_trial", None)
    assert main(command) == 0
    again = capsys.readouterr()
    assert metrics(again.out) == metrics(shown.out)
    assert "finished" in again.err


def test_a_trial_that_stops_itself_ends_well_with_its_last_value(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No loss falls by 50 nats: five evaluations after the first one, the default patience, are the last."""
    more = ["--steps", "40", "--evaluate-every", "1", "--early-stop-delta", "50", "--objective", "rougeL"]
    place = ["--store", str(tmp_path), "--trial", "t", "--metrics", "exact_match", "--generate-samples", "2"]
    assert main(arguments(llama, data, *more, *place)) == 0  # Katib: succeeded
    told = metrics(capsys.readouterr().out)
    losses = [value for name, value in told if name == "loss"]
    assert len(losses) >= 6
    manifest = stored(tmp_path)
    assert manifest.outcome is Outcome.EARLY_STOPPED
    assert [entry["step"] for entry in manifest.history] == [1, 2, 3, 4, 5, 6]
    # What Katib reads last is what the manifest keeps, the metrics that only the end measures among them.
    last = dict(told)
    assert {name: last[name] for name in ("loss", "rougeL", "exact_match")} == {
        name: manifest.metrics[name] for name in ("loss", "rougeL", "exact_match")
    }
    assert "adapter" in manifest.artifacts


def test_another_configuration_of_a_finished_trial_is_trained(llama: Path, data: Path, tmp_path: Path) -> None:
    for rank in ("2", "3"):
        place = ["--store", str(tmp_path), "--trial", "t", "--rank", rank, "--steps", "1"]
        assert main(arguments(llama, data, *place)) == 0
        assert stored(tmp_path).configuration["rank"] == int(rank)


def test_an_output_folder_without_a_store(llama: Path, data: Path, tmp_path: Path) -> None:
    assert main(arguments(llama, data, "--output", str(tmp_path / "o"), "--steps", "1")) == 0
    manifest = Manifest.from_json((tmp_path / "o" / "manifest.json").read_bytes())
    assert manifest.artifacts["adapter"] == "adapter"
    assert (tmp_path / "o" / "adapter" / "adapter_config.json").is_file()


def test_nothing_is_kept_without_a_place(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments(llama, data, "--steps", "1")) == 0
    assert [name for name, _ in metrics(capsys.readouterr().out)] == ["loss"]
    assert list(tmp_path.iterdir()) == []


def test_a_random_t5_is_trained(t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--store", str(tmp_path), "--trial", "t"]
    wanted = "rouge1,rouge2,rougeL,bleu,exact_match,seconds_per_epoch"
    assert main(arguments(t5, data, *place, "--task", "seq2seq", "--steps", "3", "--metrics", wanted)) == 0
    assert [name for name, _ in metrics(capsys.readouterr().out)] == [*wanted.split(","), "loss"]
    manifest = stored(tmp_path)
    assert manifest.configuration["task"] == "seq2seq"
    assert manifest.cost.seconds_per_epoch is not None
    assert manifest.cost.seconds is not None
    # 3 steps of 8 of 40 examples, whose time is a part of the whole.
    assert 0 < manifest.cost.seconds_per_epoch * 3 / 5 < manifest.cost.seconds


def test_every_mistake_of_data_and_model_is_told_at_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "no model", data, "--subset", "500")) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split(": ")[1] for line in shown.err.splitlines() if line.startswith("rankwise train")] == [
        "--model",
        "--subset",
    ]


def test_a_broken_store_is_exit_code_3(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(arguments(llama, data, "--store", str(tmp_path / "file" / "store"), "--steps", "1")) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_a_diverged_trial_is_an_outcome_not_a_stack_trace(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A rate of 1e30 makes weights of 1e30, and products of these overflow float32.
    command = arguments(
        llama, data, "--store", str(tmp_path), "--trial", "t", "--learning-rate", "1e30", "--steps", "20",
        "--evaluate-every", "1", "--schedule", "constant",
    )  # fmt: skip
    assert main(command) == 4
    shown = capsys.readouterr()
    assert "diverged: " in shown.err
    assert "Traceback" not in shown.err
    manifest = stored(tmp_path)
    assert manifest.outcome is Outcome.DIVERGED
    assert manifest.metrics == {}
    assert manifest.artifacts == {}
    assert manifest.cost.seconds is not None
    # It would diverge again: the restarted pod does not try.
    monkeypatch.setattr(trial, "run_trial", None)
    assert main(command) == 4


@pytest.mark.parametrize("where", ["build", "step"])
def test_running_out_of_memory_with_a_fake_allocator_is_an_outcome(
    where: str,
    llama: Path,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    target = "rankwise.train.trial.build" if where == "build" else "rankwise.train.loop.token_losses"
    command = arguments(llama, data, "--store", str(tmp_path), "--trial", "t", "--steps", "2", "--batch-size", "4")
    with monkeypatch.context() as patch:
        patch.setattr(target, refuse)
        assert main(command) == 5
    shown = capsys.readouterr()
    assert "out of memory" in shown.err
    assert "Traceback" not in shown.err
    assert stored(tmp_path).outcome is Outcome.OUT_OF_MEMORY
    # There may be more memory the next time: it is tried again.
    assert main(command) == 0
    assert stored(tmp_path).outcome is Outcome.SUCCEEDED


def test_another_runtime_error_is_not_hidden(
    llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("rankwise.train.loop.token_losses", refuse)
    assert main(arguments(llama, data, "--store", str(tmp_path), "--steps", "2")) == 1
    shown = capsys.readouterr()
    assert "RuntimeError: shapes cannot be multiplied" in shown.err
    assert "Traceback" in shown.err
    assert metrics(shown.out + shown.err) == []


# ------------------------------------------------------------------------------------------------------ processes

# The step's end is told on stdout, and the process waits for a line, so that it is killed at a known step.
PROGRAM = """
import sys
from rankwise.train.loop import Training
real = Training._step
def step(self, number):
    loss = real(self, number)
    if number + 1 == int(sys.argv[1]):
        print('reached', flush=True)
        sys.stdin.readline()
    return loss
Training._step = step
from rankwise.train.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


def start(step: int, command: list[str]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM, str(step), *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line == "reached\n":
            return process
    raise AssertionError(f"ended before step {step}: {process.communicate()[1]}")


def kill(step: int, command: list[str]) -> None:
    """Kill a process after a step."""
    process = start(step, command)
    process.kill()
    process.communicate("\n", timeout=120)
    assert process.returncode == -signal.SIGKILL


def terminate(step: int, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM after a step; to this very process, which has the libraries (test_katib_trial.py has another's)."""
    real = Training._step

    def stopped(self: Training, number: int) -> float:
        loss = real(self, number)
        if number + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return loss

    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_step", stopped)
        assert main(command) == 143
    err = capsys.readouterr().err
    assert f"stopped after step {step}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_trial_goes_on_as_if_nothing_had_happened(
    how: signal.Signals, llama: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(folder: str) -> list[str]:
        more = ["--steps", "9", "--dropout", "0.1", "--evaluate-every", "2", "--batch-size", "12", "--threads", "1"]
        checkpoints = ["--checkpoint-every", "4"] if how is signal.SIGKILL else []
        return arguments(llama, data, *more, *checkpoints, "--store", str(tmp_path / folder), "--trial", "t")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if how is signal.SIGKILL:
            kill(6, command("killed"))
        else:
            terminate(6, command("killed"), capsys)
        left = open_store(str(tmp_path / "killed")).list("experiments/manual/trials/t/checkpoint")
        expected = "step-000000004" if how is signal.SIGKILL else "step-000000006"
        assert {key.split("/")[5] for key in left} == {expected}
        capsys.readouterr()
        assert main(command("killed")) == 0
        resumed = capsys.readouterr()
        assert main(command("unbroken")) == 0
        unbroken = capsys.readouterr()
    finally:
        torch.set_num_threads(threads)
    assert "resumed after step" in resumed.err
    # Same machine, same number of threads: the same bits, and a new pod's log holds every evaluation.
    assert metrics(resumed.out) == metrics(unbroken.out) != []
    assert stored(tmp_path / "killed").history == stored(tmp_path / "unbroken").history


def test_sigterm_before_the_first_step_leaves_nothing(llama: Path, data: Path, tmp_path: Path) -> None:
    command = arguments(llama, data, "--steps", "2", "--store", str(tmp_path / "s"))
    process = subprocess.Popen(
        [sys.executable, "-m", "rankwise.train", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    # The handler is there once Python has started the module; torch's import takes far longer than this loop.
    status = Path(f"/proc/{process.pid}/status")
    while not int(re.search(r"SigCgt:\s+(\w+)", status.read_text()).group(1), 16) >> (signal.SIGTERM - 1) & 1:  # type: ignore[union-attr]
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert out == ""
    assert "Traceback" not in err
    # Either nothing, or the checkpoint of step 0.
    assert not list((tmp_path / "s").rglob("manifest.json"))


def test_options_of_the_tests_and_of_the_trial_are_the_same(llama: Path, data: Path) -> None:
    from rankwise.train.config import parse

    assert options(llama, data) == parse(arguments(llama, data), {})
