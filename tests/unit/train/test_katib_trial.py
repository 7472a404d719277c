"""The trainer as a trial of Katib: wrapped into a shell as its webhook does, read as its collector does."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from rankwise.artifacts import Manifest, Outcome
from rankwise.train.interruption import stopped_for_good
from rankwise.train.outcome import keep
from rankwise.train.place import PATIENCE, open_places
from support.trainings import options

KATIB = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)", re.ASCII)
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", re.ASCII)

# Libraries are noisy here on purpose, on both streams and in every way that Python has.
NOISY = """
import logging, sys, warnings
import rankwise.train.__main__ as program
run = program._run
def noisy(*arguments):
    from rankwise.train.loop import Training  # the libraries are loaded here, as in a real trial
    real = Training._step
    def step(self, number):
        print("loss=7 from a library", end="\\n")
        print("rougeL = 8", file=sys.stderr)
        sys.stderr.writelines(["seconds=9\\n"])
        warnings.warn("loss=10: a parameter is deprecated")
        logging.getLogger("transformers").warning("loss=11")
        return real(self, number)
    Training._step = step
    return run(*arguments)
program._run = noisy
sys.exit(program.main(sys.argv[1:]))
"""

# Stands still after the step named first, until SIGTERM has come; the second argument is the marks' folder.
STANDING = """
import sys, time
from functools import partial
from pathlib import Path
from rankwise.train import trial
from rankwise.train.loop import Training
trial.stopped_for_good = partial(trial.stopped_for_good, Path(sys.argv[2]))
real = Training._step
def step(self, number):
    loss = real(self, number)
    if number + 1 == int(sys.argv[1]):
        Path(sys.argv[2], "reached").touch()
        while not self.interruption.requested:
            time.sleep(0.01)
    return loss
Training._step = step
from rankwise.train.__main__ import main
sys.exit(main(sys.argv[3:]))
"""


def arguments(model: Path, data: Path, *more: str) -> list[str]:
    fixed = ["--device", "cpu", "--precision", "fp32", "--validation", "12", "--test", "8", "--max-target-tokens", "12"]
    return ["--model", str(model), "--data", str(data), *fixed, *more]


def wrapped(command: list[str], folder: Path, *, early_stopping: bool = False) -> list[str]:
    """What Katib's webhook makes of a container's command (wrapWorkerContainer), after the kubelet's $$ -> $."""
    text = f"{shlex.join(command)} 1>{folder}/metrics.log 2>&1"
    if early_stopping:
        text += (
            f" || if test -f {folder}/$$.pid && [ $(head -n 1 {folder}/$$.pid) = early-stopped ];"
            " then echo Training Container was Early Stopped; else echo Training Container was Failed; exit 1; fi"
        )
    return ["sh", "-c", f"{text} && echo completed > {folder}/$$.pid"]


def collected(log: str, names: list[str]) -> list[tuple[str, str, str]]:
    """Katib's parseLogsInTextFormat: time, name, value."""
    found = []
    for line in log.split("\n"):
        if not any(name in line for name in names):
            continue
        first, blank, _ = line.partition(" ")
        stamp = first if blank and RFC3339.fullmatch(first) else ""
        found += [(stamp, m[1].strip(), m[2].strip()) for m in KATIB.finditer(line) if m[1].strip() in names]
    return found


def environment(store: Path, **more: str) -> dict[str, str]:
    return os.environ | {
        "OMP_NUM_THREADS": "1", "RANKWISE_STORE": str(store), "RANKWISE_NAMESPACE": "team-a",
        "RANKWISE_EXPERIMENT": "e", "KATIB_TRIAL_NAME": "e-1", "AWS_SECRET_ACCESS_KEY": "do-not-show-me",
    } | more  # fmt: skip


def trial_folder(store: Path) -> Path:
    return store / "namespaces" / "team-a" / "experiments" / "e" / "trials" / "e-1"


def test_exactly_the_reported_metrics_are_found_in_all_that_a_trial_prints(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    more = ["--steps", "4", "--evaluate-every", "2", "--objective", "rougeL", "--metrics", "seconds"]
    command = [sys.executable, "-c", NOISY, *arguments(llama, data, *more, "--generate-samples", "3")]
    done = subprocess.run(
        wrapped(command, tmp_path), env=environment(tmp_path / "store"), timeout=120, check=False, capture_output=True
    )
    log = (tmp_path / "metrics.log").read_text()
    assert done.returncode == 0, log
    assert done.stdout == done.stderr == b""

    names = ["rougeL", "loss", "seconds", "rank", "trial", "learning_rate"]
    reports = collected(log, names)
    manifest = Manifest.from_json((trial_folder(tmp_path / "store") / "manifest.json").read_bytes())
    history = [(name, entry[name]) for entry in manifest.history[:1] for name in ("loss", "rougeL")]
    last = [("loss", manifest.metrics["loss"]), ("seconds", None), ("rougeL", manifest.metrics["rougeL"])]
    assert [(name, None if name == "seconds" else float(value)) for _, name, value in reports] == [*history, *last]
    assert float(reports[-2][2]) > 0
    # Katib's "latest" goes by the time, so every metric has one, and they ascend.
    stamps = [stamp for stamp, _, _ in reports]
    assert all(stamps)
    assert stamps == sorted(stamps)
    assert log.count("=") == len(reports)
    # The noise is there, made harmless.
    assert "loss is 7 from a library" in log
    assert "loss is 10" in log
    assert "loss is 11" in log

    # The progress is structured, and says which trial it is of.
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any("4 steps" in line["message"] for line in lines)
    assert all((line["namespace"], line["experiment"], line["trial"]) == ("team-a", "e", "e-1") for line in lines)
    assert "do-not-show-me" not in log
    assert (manifest.namespace, manifest.experiment, manifest.trial) == ("team-a", "e", "e-1")
    assert manifest.artifacts["adapter"] == "namespaces/team-a/experiments/e/trials/e-1/adapter"


def test_the_exit_code_of_a_diverged_trial_passes_the_shell(llama: Path, data: Path, tmp_path: Path) -> None:
    """With early stopping rules Katib's own wrapper makes a 1 of every code; the retried pod ends at once then."""
    more = ["--learning-rate", "1e30", "--steps", "20", "--schedule", "constant"]
    command = [sys.executable, "-m", "rankwise.train", *arguments(llama, data, *more)]
    for early_stopping, code in [(False, 4), (False, 4), (True, 1)]:
        done = subprocess.run(
            wrapped(command, tmp_path, early_stopping=early_stopping),
            env=environment(tmp_path / "store"), timeout=120, check=False, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code
        assert not list(tmp_path.glob("*.pid"))
        log = (tmp_path / "metrics.log").read_text()
        assert collected(log, ["loss"]) == []
    # The later pods found the first one's manifest.
    assert "did so before" in log


def only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, "Katib's collector stops exactly one child"
    return int(children[0])


# Slow: without the mark it is the checkpoint of any SIGTERM (see test_trial.py) and the 1 of a diverged trial.
@pytest.mark.parametrize("mark", ["early-stopped", pytest.param(None, marks=pytest.mark.slow)])
def test_sigterm_of_early_stopping_keeps_the_adapter_and_any_other_a_checkpoint(
    mark: str | None, llama: Path, data: Path, tmp_path: Path
) -> None:
    more = ["--steps", "9", "--evaluate-every", "2"]
    command = [sys.executable, "-c", STANDING, "5", str(tmp_path), *arguments(llama, data, *more)]
    shell = subprocess.Popen(
        wrapped(command, tmp_path, early_stopping=True), env=environment(tmp_path / "store"), stdout=subprocess.PIPE
    )
    while not (tmp_path / "reached").exists():
        assert shell.poll() is None, (tmp_path / "metrics.log").read_text()
        time.sleep(0.05)
    if mark is not None:
        (tmp_path / f"{shell.pid}.pid").write_text(mark)
    stopped = time.monotonic()
    os.kill(only_child(shell.pid), signal.SIGTERM)
    out = shell.communicate(timeout=120)[0].decode()
    assert time.monotonic() - stopped < 30  # Katib's collector waits for 60
    folder = trial_folder(tmp_path / "store")
    log = (tmp_path / "metrics.log").read_text()
    losses = [float(value) for _, _, value in collected(log, ["loss"])]
    assert len(losses) == 2
    if mark is None:
        assert (shell.returncode, out.strip()) == (1, "Training Container was Failed")
        assert not (folder / "manifest.json").exists()
        assert (folder / "checkpoint" / "step-000000005").is_dir()
        return
    assert shell.returncode == 0, log
    assert (tmp_path / f"{shell.pid}.pid").read_text() == "completed\n"
    manifest = Manifest.from_json((folder / "manifest.json").read_bytes())
    assert manifest.outcome is Outcome.EARLY_STOPPED
    assert manifest.metrics == {"loss": losses[-1]}
    assert [entry["step"] for entry in manifest.history] == [2, 4]
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert not (folder / "checkpoint").exists() or not list((folder / "checkpoint").rglob("*.safetensors"))


def test_only_the_mark_of_this_process_counts(tmp_path: Path) -> None:
    assert not stopped_for_good(tmp_path)
    (tmp_path / "1.pid").write_text("early-stopped")
    assert not stopped_for_good(tmp_path)
    mark = tmp_path / f"{os.getppid()}.pid"
    mark.write_text("completed\n")
    assert not stopped_for_good(tmp_path)
    mark.write_text("early-stopped\n")
    assert stopped_for_good(tmp_path)


def test_a_second_pod_leaves_the_result_of_the_first_alone(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pods of one trial run when a node does not answer for a while; the slower one finds the work done."""
    from rankwise.train import trial
    from rankwise.train.__main__ import main

    command = arguments(llama, data, "--steps", "1", "--store", str(tmp_path), "--trial", "t")
    config = options(llama, data, "--steps", "1", "--store", str(tmp_path), "--trial", "t")
    manifest = tmp_path / "experiments" / "manual" / "trials" / "t" / "manifest.json"
    kept: list[bytes] = []

    def late(*arguments: object) -> None:
        monkeypatch.setattr(trial, "keep", keep)
        assert main(command) == 0  # the other pod, from its start to its end
        kept.append(manifest.read_bytes())
        keep(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(trial, "keep", late)
    assert main(command) == 0
    assert [manifest.read_bytes()] == kept
    # Another configuration under the same name is another result.
    assert main([*command, "--rank", "3"]) == 0
    assert manifest.read_bytes() != kept[0]
    assert open_places(config)[0].prefix == "experiments/manual/trials/t"


def test_a_trial_outlasts_a_minute_without_its_store(llama: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/cluster takes the server away for real; here: that this is the patience it is opened with."""
    opened: list[object] = []
    monkeypatch.setattr("rankwise.train.place.open_store", lambda uri, backoff: opened.append((uri, backoff)))
    open_places(options(llama, data, "--store", "s3://bucket"))
    assert opened == [("s3://bucket", PATIENCE)]
    assert sum(PATIENCE.waits()) > 90


def test_a_finished_trial_tells_its_result_for_as_long_as_katibs_collector_may_need_to_start(
    llama: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rankwise.train import __main__ as program

    command = arguments(llama, data, "--steps", "1", "--store", str(tmp_path), "--trial", "t")
    waits: list[float] = []
    monkeypatch.setattr(program, "time", SimpleNamespace(sleep=waits.append))
    assert program.main(command) == 0
    told = _losses(capsys.readouterr().out)
    assert program.main(command) == 0  # on one machine nobody has to wait
    assert waits == []
    monkeypatch.setenv("KATIB_TRIAL_NAME", "t")
    assert program.main(command) == 0
    assert waits == [program.SEEN_WITHIN]
    assert _losses(capsys.readouterr().out) == told * 2
    assert len(told) == 1


def _losses(text: str) -> list[str]:
    return re.findall(r" loss=(\S+)$", text, re.MULTILINE)
