"""Trials are rendered as Katib and the kubelet do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.local.experiment import parse_experiment, render_trial
from rankwise.local.trial_template import expand_variables
from support.experiments import DOCUMENT, changed, document, text_of
from support.spaces import untimed

T = "spec/trialTemplate"
C = f"{T}/trialSpec/spec/template/spec/containers"
EXPERIMENT = parse_experiment(text_of(document()))
ASSIGNMENTS = {"rank": "4", "learning_rate": "0.0003", "variant": "dora"}


def containers(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manifest["spec"]["template"]["spec"]["containers"]
    return found


def test_a_trial() -> None:
    trial = render_trial(EXPERIMENT, "lora-abc", ASSIGNMENTS)
    assert trial.command == [
        "rankwise",
        "train",
        "--rank=4",
        "--learning-rate=0.0003",
        "--variant=dora",
        "--trial=lora-abc",
        "--data=/data/train",
    ]
    # The secret exists on a cluster only; here the process inherits the user's own variable.
    assert trial.env == {"DATA": "/data", "TRIAL_RANK": "r4"}
    assert trial.workdir is None
    assert trial.manifest["metadata"] == {
        "labels": {"app": "trainer"},
        "annotations": {"note": "a note"},
        "name": "lora-abc",
        "namespace": "kubeflow",
    }
    assert containers(trial.manifest)[1]["args"][0] == "--rank=4"
    # What the kubelet writes out stays in the manifest.
    assert containers(trial.manifest)[1]["args"][4] == "--data=$(DATA)/train"
    assert EXPERIMENT.template.manifest == DOCUMENT["spec"]["trialTemplate"]["trialSpec"]


def test_the_primary_container_is_found_by_name() -> None:
    text = changed((f"{C}/0/command", ["log"]), (f"{T}/primaryContainerName", "logger"), (f"{C}/0/workingDir", "/work"))
    trial = render_trial(parse_experiment(text), "lora-abc", ASSIGNMENTS)
    assert (trial.command, trial.env, trial.workdir) == (["log"], {}, "/work")


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("${trialSpec.Name}", "lora-abc"),
        ("${trialSpec.Namespace}", "kubeflow"),
        ("${trialSpec.Kind}", "Job"),
        ("${trialSpec.APIVersion}", "batch/v1"),
        ("${trialSpec.Labels[app]}", "trainer"),
        ("${trialSpec.Annotations[note]}", "a note"),
    ],
)
def test_references_to_the_trials_metadata(reference: str, value: str) -> None:
    experiment = parse_experiment(changed((f"{T}/trialParameters/3/reference", reference)))
    assert f"--trial={value}" in render_trial(experiment, "lora-abc", ASSIGNMENTS).command


def test_assignments_must_be_those_of_the_parameters() -> None:
    with pytest.raises(ValueError, match="trial 'x' has no value for parameter 'variant'"):
        render_trial(EXPERIMENT, "x", {"rank": "4", "learning_rate": "0.0003"})
    with pytest.raises(ValueError, match=r"trial 'x' has values for \['other'\], which the template does not refer to"):
        render_trial(EXPERIMENT, "x", {**ASSIGNMENTS, "other": "1"})


def test_a_value_that_breaks_the_json_is_refused() -> None:
    with pytest.raises(InvalidInput, match="values that leave the template valid JSON"):
        render_trial(EXPERIMENT, "x", {**ASSIGNMENTS, "variant": 'a"b'})


def test_values_are_pasted_raw() -> None:
    # As on a cluster: JSON's own escapes in a value take effect, and quotes may add a word.
    trial = render_trial(EXPERIMENT, "x", {**ASSIGNMENTS, "variant": r"a\tb"})
    assert "--variant=a\tb" in trial.command
    trial = render_trial(EXPERIMENT, "x", {**ASSIGNMENTS, "variant": 'a","b'})
    assert trial.command[4:6] == ["--variant=a", "b"]


def test_a_value_that_looks_like_a_placeholder_is_not_replaced_again() -> None:
    trial = render_trial(EXPERIMENT, "x", {**ASSIGNMENTS, "variant": "${trialParameters.rank}"})
    assert "--variant=${trialParameters.rank}" in trial.command


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$(C)", "$(C)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("echo $$", "echo $"),
    ],
)
def test_variables_are_expanded_as_the_kubelet_does(text: str, expanded: str) -> None:
    assert expand_variables(text, {"A": "1", "B": "2"}) == expanded


def test_variables_may_use_those_before_them() -> None:
    env = [
        {"name": "LATE", "value": "$(ROOT)/x"},
        {"name": "ROOT", "value": "/data"},
        {"name": "SET", "value": "$(ROOT)/set"},
        {"name": "EMPTY"},
    ]
    args = [
        *DOCUMENT["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][1]["args"][:4],
        "$(SET)",
    ]
    trial = render_trial(parse_experiment(changed((f"{C}/1/env", env), (f"{C}/1/args", args))), "x", ASSIGNMENTS)
    assert trial.env == {"LATE": "$(ROOT)/x", "ROOT": "/data", "SET": "/data/set", "EMPTY": ""}
    assert trial.command[-1] == "/data/set"


def test_a_label_of_the_suggestion_becomes_the_variable_that_reads_it() -> None:
    def read(path: str) -> dict[str, Any]:
        return {"valueFrom": {"fieldRef": {"fieldPath": path}}}

    env = [
        {"name": "PARENT", **read("metadata.labels['rankwise.dev/parent']")},
        {"name": "MEMBER", **read("metadata.labels['rankwise.dev/member']")},
        {"name": "ARGUMENT", "value": "--parent=$(PARENT)"},
        # These are the engine's to set, or exist on a cluster only.
        {"name": "EXPERIMENT", **read("metadata.labels['katib.kubeflow.org/experiment']")},
        {"name": "NAMESPACE", **read("metadata.namespace")},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    experiment = parse_experiment(changed((f"{C}/1/env", env)))
    trial = render_trial(experiment, "x", ASSIGNMENTS, {"rankwise.dev/parent": "lora-1", "other": "y"})
    # A label that is not there is an empty variable, as the kubelet makes it.
    assert trial.env == {"PARENT": "lora-1", "MEMBER": "", "ARGUMENT": "--parent=lora-1"}
    assert render_trial(experiment, "x", ASSIGNMENTS).env["PARENT"] == ""
    assert experiment.container_env == {"ARGUMENT": "--parent=$(PARENT)"}


# Texts that JSON leaves as they are, without the characters that placeholders and variables are made of.
safe = st.text(st.characters(codec="utf-8", exclude_categories=("C",), exclude_characters='"\\$'), max_size=20)


@settings(untimed, max_examples=40)
@given(st.lists(st.tuples(safe, st.booleans()), min_size=1, max_size=6), safe, st.integers(1, 16))
def test_each_placeholder_becomes_its_value_and_nothing_else_changes(
    words: list[tuple[str, bool]], variant: str, rank: int
) -> None:
    assume(not any("{" in word for word, _ in words))  # "{trialParam…" would be reported as a misspelt placeholder
    args = [*(f"{word}${{trialParameters.variant}}{word}" if uses else word for word, uses in words)]
    every = [
        "${trialParameters.rank}",
        "${trialParameters.learningRate}",
        "${trialParameters.variant}",
        "${trialParameters.trialName}",
    ]
    text = changed((f"{C}/1/args", [*args, *every]), (f"{C}/1/env", []))
    experiment = parse_experiment(text)
    assignments = {"rank": str(rank), "learning_rate": "0.0003", "variant": variant}
    trial = render_trial(experiment, "lora-1", assignments)
    expected = [f"{word}{variant}{word}" if uses else word for word, uses in words]
    assert trial.command == ["rankwise", "train", *expected, str(rank), "0.0003", variant, "lora-1"]
    # The rest of the manifest is the template's.
    rendered = json.loads(json.dumps(trial.manifest))
    template = json.loads(json.dumps(experiment.template.manifest))
    rendered["metadata"] = template["metadata"]
    containers(rendered)[1]["args"] = containers(template)[1]["args"]
    assert rendered == template


@settings(untimed, max_examples=25)
@given(st.integers(0, 2**32))
def test_every_point_of_the_space_can_be_rendered(seed: int) -> None:
    for assignments in EXPERIMENT.space.sobol(4, seed):
        trial = render_trial(EXPERIMENT, "lora-1", assignments)
        assert trial.command[2:5] == [
            f"--rank={assignments['rank']}",
            f"--learning-rate={assignments['learning_rate']}",
            f"--variant={assignments['variant']}",
        ]
        assert "trialParameters" not in json.dumps(trial.manifest)
