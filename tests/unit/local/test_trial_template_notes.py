"""What the same template means on one machine and in Katib's shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rankwise.local import validate_command
from rankwise.local.experiment import parse_experiment
from rankwise.local.template_notes import cluster_notes, machine_notes
from rankwise.local.trial_template import TrialTemplate


def template(pod: dict[str, Any] | None = None, **container: Any) -> TrialTemplate:
    primary = {"name": "trainer", "image": "i", "command": ["rankwise", "train"], **container}
    spec = {"containers": [primary], **(pod or {})}
    return TrialTemplate({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": spec}}}, "trainer", ())


def test_how_a_cluster_runs_it_is_no_news() -> None:
    quiet = template(
        {
            "serviceAccountName": "a", "securityContext": {"fsGroup": 1},
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "m"}}],
        },
        securityContext={"readOnlyRootFilesystem": True},
        resources={"requests": {"cpu": "1"}, "limits": {"cpu": 1, "memory": "1Gi"}},
        env=[
            {"name": "RANKWISE_EXPERIMENT", "valueFrom": {"fieldRef": {}}},
            {"name": "A", "value": "1"},
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['rankwise.dev/parent']"}}},
        ],
        envFrom=[{"secretRef": {"name": "s", "optional": True}}],
        volumeMounts=[{"name": "models", "mountPath": "/var/cache/rankwise/"}, {"name": "tmp", "mountPath": "/tmp"}],
    )  # fmt: skip
    assert machine_notes(quiet) == []
    assert cluster_notes(quiet) == []


@pytest.mark.parametrize(
    ("pod", "container", "told"),
    [
        ({"initContainers": [{"name": "fetch"}]}, {}, "alone, without fetch"),
        ({}, {"env": [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {}}}]}, "does not set HF_TOKEN"),
        ({}, {"envFrom": [{"configMapRef": {"name": "c"}}]}, "no variables from c"),
        ({}, {"volumeMounts": [{"name": "d", "mountPath": "/data"}]}, "nothing at /data"),
        ({}, {"resources": {"limits": {"nvidia.com/gpu": 1}}}, "no nvidia.com/gpu"),
    ],
)
def test_what_one_machine_cannot_honour_is_told(pod: dict[str, Any], container: dict[str, Any], told: str) -> None:
    (note,) = machine_notes(template(pod, **container))
    assert told in note
    assert note.startswith("one machine ")


@pytest.mark.parametrize("word", ["--template={source} ?", "a;b", "x'", "", "$HOME", "a\nb", "`x`", "#", "*", "a|b"])
def test_a_word_that_a_shell_takes_apart_is_told(word: str) -> None:
    (note,) = cluster_notes(template(command=["rankwise", "train", word]))
    assert repr(word) in note


@pytest.mark.parametrize(
    "command",
    [
        ["rankwise", "train", "--rank=${trialParameters.rank}", "--data=$(DATA)/x.jsonl", "--model=a/b@main:1"],
        ["sh", "-c", "for i in 1 2; do echo $i; done"],
    ],
)
def test_a_plain_command_is_no_news(command: list[str]) -> None:
    assert cluster_notes(template(command=command)) == []


def test_notes_of_a_file() -> None:
    from support.experiments import document, text_of

    notes = machine_notes(parse_experiment(text_of(document())).template)
    assert all(note.startswith("one machine ") for note in notes)
    assert any("without" in note for note in notes)  # it has a second container


@pytest.mark.parametrize(
    ("stopping", "retain", "told"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_early_stopping_without_retain_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stopping: bool, retain: bool, told: bool
) -> None:
    quickstart = Path(__file__).parents[3] / "katib" / "experiments" / "quickstart.yaml"
    document = yaml.safe_load(quickstart.read_text())
    document["spec"]["trialTemplate"]["retain"] = retain
    if stopping:
        document["spec"]["earlyStopping"] = {"algorithmName": "medianstop"}
    path = tmp_path / "experiment.yaml"
    path.write_text(json.dumps(document))

    assert validate_command.main([str(path)]) == 0

    assert ("spec.trialTemplate.retain: true" in capsys.readouterr().out) is told
