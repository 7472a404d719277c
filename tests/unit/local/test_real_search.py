"""The quickstart's Experiment, made small, from its file to its report: real model, real text, real trainings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.local.document import dump

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quickstart_made_small(tmp_path: Path) -> None:
    """Two of 30 layers and 16 examples a trial: the way is the quickstart's, the adapter's quality is not."""
    document: Any = yaml.safe_load((REPOSITORY / "katib" / "experiments" / "quickstart.yaml").read_text())
    spec = document["spec"]
    spec["maxTrialCount"], spec["maxFailedTrialCount"] = 3, 1
    spec["algorithm"]["algorithmSettings"] = [{"name": "initial_points", "value": "2"}]
    for parameter, values in zip(
        spec["parameters"], (["2", "4"], ["1", "2"], ["0"], ["5e-5", "1e-3"], ["4", "8"]), strict=True
    ):
        parameter["feasibleSpace"]["list"] = values
    annotations = document["metadata"]["annotations"]
    annotations["rankwise.dev/default-configuration"] = json.dumps(
        {"rank": "2", "alpha_ratio": "1", "dropout": "0", "learning_rate": "5e-5", "batch_size": "8"}
    )
    annotations["rankwise.dev/final-arguments"] = json.dumps(
        ["--subset=24", "--evaluate=test", "--metrics=loss,rougeL", "--generate-samples=4", "--max-target-tokens=8"]
    )
    command = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["command"]
    command += ["--num-layers=2", "--subset=16", "--validation=16", "--test=16"]
    file = tmp_path / "small.yaml"
    file.write_text(dump(document))
    folder = tmp_path / "run"
    result = subprocess.run(
        [sys.executable, "-m", "rankwise.cli", "run", str(file), "--folder", str(folder)],
        capture_output=True,
        text=True,
        timeout=850,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr

    status = yaml.safe_load((folder / "experiment.yaml").read_text())["status"]
    assert status["trialsSucceeded"] == status["trials"] == 3
    assert status["conditions"][-1]["type"] == "Succeeded"
    best = status["currentOptimalTrial"]
    trials = folder / "store" / "experiments" / "quickstart" / "trials"
    losses = {}
    for name in status["succeededTrialList"]:
        manifest = json.loads((trials / name / "manifest.json").read_text())
        assert manifest["data"]["subset"] == 16
        assert manifest["model"]["layers"] == 2
        losses[name] = manifest["metrics"]["loss"]
    assert best["bestTrialName"] == min(losses, key=lambda name: losses[name])
    optimal = {metric["name"]: float(metric["latest"]) for metric in best["observation"]["metrics"]}
    assert optimal["loss"] == pytest.approx(losses[best["bestTrialName"]], rel=1e-9)

    facts = json.loads((folder / "report.json").read_text())["facts"]
    assert {trial["name"]: trial["value"] for trial in facts["trials"]} == pytest.approx(losses)
    # The language model chose the third: no fallback is noted, for nothing was wrong.
    assert [trial["notes"] for trial in facts["trials"]] == [[], [], []]
    finals = facts["finals"]
    for role in ("default", "best"):
        manifest = json.loads((trials / f"quickstart-final-{role}" / "manifest.json").read_text())
        assert manifest["data"]["subset"] == 24
        assert finals[role]["metrics"]["loss"] == manifest["test_metrics"]["loss"]
        assert finals[role]["standard_errors"]["loss"] == manifest["standard_errors"]["test_loss"] > 0
        assert len(finals[role]["per_example"]["loss"]) == 16
        adapter = folder / "store" / manifest["artifacts"]["adapter"]
        assert (adapter / "adapter_model.safetensors").stat().st_size > 0
    # The baseline without training is measured on the same examples.
    assert finals["lead"]["description"] == "first 10 words"
    assert 0 <= finals["lead"]["metrics"]["rougeL"] <= 1
    page = (folder / "report.html").read_text()
    assert best["bestTrialName"] in page
    assert "first 10 words" in page
    assert "default" in result.stdout
    assert f"report: {folder / 'report.html'}" in result.stdout
