"""Embedding ahead of time from an Experiment file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rankwise.local.embed_command import embed
from rankwise.local.experiment import load_experiment
from rankwise.suggest import wiring
from support.encoders import FakeEncoder
from support.local_runs import experiment


def test_configurations_are_embedded_once_whatever_their_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEncoder()
    real = wiring.wire
    monkeypatch.setattr(wiring, "wire", lambda settings: real(settings, fake))
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    document = yaml.safe_load(experiment(tmp_path).read_text())
    spec = document["spec"]
    spec["parameters"].append({"name": "chance", "parameterType": "int", "feasibleSpace": {"min": "0", "max": "4"}})
    spec["trialTemplate"]["trialParameters"].append({"name": "chance", "reference": "chance"})
    container = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]
    container["args"].append("--chance=${trialParameters.chance}")
    told = [{"name": "seed_parameter", "value": "chance"}]
    spec["algorithm"] = {"algorithmName": "language-bo", "algorithmSettings": told}
    file = tmp_path / "seeded.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    summary, _ = embed(load_experiment(file), quiet=True)
    assert summary.total == 33 * 2  # x and kind
    assert not any("chance" in text for texts in fake.calls for text in texts)
