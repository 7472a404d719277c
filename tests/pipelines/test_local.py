"""The pipeline on this machine: a cut real model, real text, every step in a process of its own."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipelines.local import smaller

from rankwise import __version__
from rankwise.artifacts import Manifest
from rankwise.local.experiment import parse_experiment

REPOSITORY = Path(__file__).parents[2]
QUICKSTART = REPOSITORY / "katib/experiments/quickstart.yaml"
TRIALS = 2
OPTIONS = ("--num-layers=2", "--subset=16", "--validation=16", "--test=32", "--max-source-tokens=24")
STEPS = ("embed", "evaluate", "register", "report", "subset", "train", "train-2", "tune")


def run_pipeline(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pipelines.local",
        "--folder",
        str(folder),
        "--trials",
        str(TRIALS),
        "--",
        *OPTIONS,
    ]
    return subprocess.run(
        command, cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=1700, check=False,
    )  # fmt: skip


def outputs(run: Path, step: str) -> dict[str, dict[str, Any]]:
    """A step's artifacts with their metadata, as kfp wrote them down."""
    written = json.loads((run / step / "executor_output.json").read_text(encoding="utf-8"))
    return {name: entry["artifacts"][0] for name, entry in written["artifacts"].items()}


def check_run(folder: Path) -> None:
    """What a run has left: every artifact with its manifest, and an adapter that is registered."""
    run = max((folder / "artifacts").iterdir())
    assert sorted(path.name for path in run.iterdir()) == list(STEPS)
    best = json.loads((run / "tune" / "best").read_text(encoding="utf-8"))
    experiments = set()
    for step in STEPS:
        for name, artifact in outputs(run, step).items():
            metadata = artifact["metadata"]
            if name == "metrics":
                assert metadata, (step, name)
                continue
            assert metadata["version_rankwise"] == __version__, (step, name)
            assert len(metadata["sha256"]) == 64, (step, name)
            if step not in ("subset", "embed"):
                experiments.add(metadata["experiment"])
    assert experiments == {best["experiment"]}
    with (run / "tune" / "trials").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == TRIALS
    assert best["trial"] in {row["trial"] for row in rows}
    manifests = {
        step: Manifest.from_json((run / step / "model" / "manifest.json").read_text(encoding="utf-8"))
        for step in ("train", "train-2")
    }
    rank = {manifest.trial.rpartition("-")[2]: manifest.configuration["rank"] for manifest in manifests.values()}
    assert rank == {"best": int(best["assignments"]["rank"]), "default": 8}
    for manifest in manifests.values():
        assert manifest.data.sha256 == outputs(run, "subset")["data"]["metadata"]["data_sha256"]
        assert manifest.data.test == 32
        assert manifest.test_metrics is not None
        assert "loss" in manifest.test_metrics
    page = (run / "report" / "page").read_text(encoding="utf-8")
    assert best["trial"] in page
    assert "default" in page
    versions = folder / "store" / "models" / "quickstart" / "versions"
    assert [path.name for path in versions.iterdir()] == [best["experiment"]]
    assert (versions / best["experiment"] / "adapter" / "adapter_model.safetensors").is_file()
    headline = json.loads((run / "evaluate" / "executor_output.json").read_text())["parameterValues"]["headline"]
    in_production = (folder / "store" / "models" / "quickstart" / "production.json").is_file()
    assert in_production is (headline == "better")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_way_on_one_machine_and_again(tmp_path: Path) -> None:
    done = run_pipeline(tmp_path)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "every step succeeded" in done.stdout
    check_run(tmp_path)
    trainings = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("manifest.json")}
    again = run_pipeline(tmp_path)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    check_run(tmp_path)
    # Finished trials and trainings are not repeated, and the version is the same one.
    assert trainings == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("manifest.json")}


def test_a_smaller_experiment_is_one_that_is_valid() -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    changed = parse_experiment(smaller(text, 2, ["--num-layers=2"]))
    plain = parse_experiment(text)
    assert (changed.max_trial_count, changed.max_failed_trial_count) == (2, 2)
    assert changed.space == plain.space
    assert changed.template.container["command"] == [*plain.template.container["command"], "--num-layers=2"]
    same = parse_experiment(smaller(text, None, []))
    assert same.document == plain.document
    assert yaml.safe_load(smaller(text, None, []))["kind"] == "Experiment"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_step_that_fails_fails_the_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(QUICKSTART.read_text(encoding="utf-8").replace("--test=200", "--test=0"))
    command = [sys.executable, "-m", "pipelines.local", "--folder", str(tmp_path / "run"), "--experiment", str(file)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=850, check=False)
    assert done.returncode == 1, done.stdout[-2000:]
    assert "a step failed after" in done.stderr
    assert "subset: --test: got '0'; allowed: a test split" in done.stdout
