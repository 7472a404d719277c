"""What a right Experiment file is read as, and every mistake that a wrong one can hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.local.experiment import Experiment, load_experiment, parse_experiment
from rankwise.local.specification import DEFAULT_METRICS_PATH
from rankwise.local.trial_template import JOB_FAILURE, JOB_SUCCESS
from rankwise.space import Goal, Objective, ParameterText
from support.experiments import (
    COLLECTOR,
    CONTAINERS,
    DOCUMENT,
    FINALS,
    MISSING,
    TEMPLATE,
    C,
    P,
    T,
    changed,
    document,
    problems,
    text_of,
)
from support.spaces import untimed

# -- the right file ----------------------------------------------------------------------------------------------------


def test_every_field_is_read() -> None:
    experiment = parse_experiment(text_of(document()))
    assert (experiment.name, experiment.namespace, experiment.labels) == ("lora", "kubeflow", {"team": "nlp"})
    assert experiment.objective == Objective("loss", Goal.MINIMIZE, 0.5, ("rouge1", "seconds"))
    assert list(experiment.metric_strategies.items()) == [("loss", "min"), ("rouge1", "min"), ("seconds", "latest")]
    assert experiment.algorithm_name == "language-bo"
    assert experiment.algorithm_settings == {"n_initial": "5", "pooling": "mean"}
    assert experiment.early_stopping is not None
    assert experiment.early_stopping.algorithm_name == "medianstop"
    assert experiment.early_stopping.settings == {"start_step": "4"}
    assert (experiment.parallel_trial_count, experiment.max_trial_count) == (2, 12)
    assert (experiment.max_failed_trial_count, experiment.resume_policy) == (3, "LongRunning")
    assert experiment.parameters[1] == ParameterText(
        "learning_rate", "double", "1e-4", "1e-3", "1e-4", distribution="logUniform"
    )
    assert experiment.space.names == ("rank", "learning_rate", "variant")
    assert experiment.space.size == 16 * 10 * 2
    assert experiment.collector.kind == "StdOut"
    assert experiment.collector.filters == ()
    assert experiment.template.primary_container == "training"
    assert [(p.name, p.reference, p.description) for p in experiment.template.parameters] == [
        ("rank", "rank", "Rank of the adapters"),
        ("learningRate", "learning_rate", ""),
        ("variant", "variant", ""),
        ("trialName", "${trialSpec.Name}", ""),
    ]
    assert (experiment.template.success_condition, experiment.template.failure_condition) == (JOB_SUCCESS, JOB_FAILURE)
    assert experiment.template.retain is False
    assert experiment.default_configuration == {"rank": "8", "learning_rate": "3e-4", "variant": "lora"}
    assert experiment.space.contains(experiment.default_configuration)
    assert experiment.final_arguments == ("--subset=1.0", "--evaluate=test")
    assert experiment.container_env == {"DATA": "/data", "TRIAL_RANK": "r${trialParameters.rank}"}
    assert experiment.document == DOCUMENT


def test_defaults_are_katibs() -> None:
    experiment = parse_experiment(
        changed(
            ("metadata/namespace", MISSING),
            ("metadata/annotations", MISSING),
            ("metadata/labels", MISSING),
            (
                "spec/objective",
                {"type": "maximize", "objectiveMetricName": "rougeL", "additionalMetricNames": ["loss"]},
            ),
            ("spec/algorithm/algorithmSettings", MISSING),
            ("spec/earlyStopping", MISSING),
            ("spec/parallelTrialCount", MISSING),
            ("spec/maxTrialCount", MISSING),
            ("spec/maxFailedTrialCount", MISSING),
            ("spec/resumePolicy", MISSING),
        )
    )
    assert experiment.namespace == "default"
    assert experiment.objective == Objective("rougeL", Goal.MAXIMIZE, None, ("loss",))
    # The objective's direction holds for the additional metrics too: the webhook fills it so.
    assert experiment.metric_strategies == {"rougeL": "max", "loss": "max"}
    assert experiment.algorithm_settings == {}
    assert experiment.early_stopping is None
    assert experiment.parallel_trial_count == 3
    assert experiment.max_trial_count is None
    assert experiment.max_failed_trial_count is None
    assert experiment.resume_policy == "Never"
    assert experiment.default_configuration is None
    assert experiment.final_arguments == ()


def test_a_file_with_katibs_status_and_the_clusters_metadata_is_read() -> None:
    text = changed(
        ("status", {"trials": 4, "conditions": [{"type": "Running"}]}),
        ("metadata/uid", "1b2c"),
        ("metadata/creationTimestamp", "2026-01-31T10:00:00Z"),
        ("metadata/annotations/kubectl.kubernetes.io~last-applied", "{}"),
    )
    experiment = parse_experiment(text)
    assert "status" not in experiment.document
    assert experiment.document["spec"] == DOCUMENT["spec"]


def test_a_file_collector() -> None:
    source: dict[str, Any] = {"fileSystemPath": {"path": "/out/metrics.jsonl", "kind": "File", "format": "JSON"}}
    spec = {"collector": {"kind": "File"}, "source": source}
    collector = parse_experiment(changed(("spec/metricsCollectorSpec", spec))).collector
    assert (collector.kind, collector.path, collector.format) == ("File", "/out/metrics.jsonl", "JSON")
    collector = parse_experiment(changed(("spec/metricsCollectorSpec", {"collector": {"kind": "File"}}))).collector
    assert (collector.kind, collector.path, collector.format) == ("File", DEFAULT_METRICS_PATH, "TEXT")
    spec = {"source": {"filter": {"metricsFormat": [r"(\w+): (\d+\.\d+)"]}}}
    collector = parse_experiment(changed(("spec/metricsCollectorSpec", spec))).collector
    assert (collector.kind, collector.filters) == ("StdOut", (r"(\w+): (\d+\.\d+)",))


def test_other_kinds_with_a_pod_template_are_read_with_their_conditions() -> None:
    experiment = parse_experiment(
        changed(
            ("spec/trialTemplate/trialSpec/kind", "Workload"),
            ("spec/trialTemplate/trialSpec/apiVersion", "example.com/v1"),
            ("spec/trialTemplate/successCondition", "status.done"),
            ("spec/trialTemplate/failureCondition", "status.failed"),
            ("spec/trialTemplate/retain", True),
            ("spec/trialTemplate/primaryPodLabels", {"role": "main"}),
        )
    )
    assert experiment.template.success_condition == "status.done"
    assert experiment.template.failure_condition == "status.failed"
    assert experiment.template.retain is True
    assert experiment.template.primary_pod_labels == {"role": "main"}


# -- all at once -------------------------------------------------------------------------------------------------------


def test_planted_mistakes_are_all_reported_at_once() -> None:
    planted: list[tuple[str, Any, str]] = [
        ("apiVersion", "v1", "apiVersion"),
        ("metadata/name", "Lora", "metadata.name"),
        ("metadata/annotations/rankwise.dev~final-arguments", "[1]", f"{FINALS}[0]"),
        ("spec/objective/type", "min", "spec.objective.type"),
        ("spec/objective/metricStrategies/0/value", "last", "spec.objective.metricStrategies[0].value"),
        ("spec/algorithm/algorithmName", "", "spec.algorithm.algorithmName"),
        ("spec/parallelTrialCount", 99, "spec.parallelTrialCount"),
        ("spec/maxFailedTrialCount", "three", "spec.maxFailedTrialCount"),
        ("spec/resumePolicy", "never", "spec.resumePolicy"),
        (f"{P}/0/feasibleSpace/max", "0", "spec.parameters[0].feasibleSpace.max"),
        (f"{P}/1/feasibleSpace/step", "0", "spec.parameters[1].feasibleSpace.step"),
        ("spec/metricsCollectorSpec", {"collector": {"kind": "None"}}, f"{COLLECTOR}.collector.kind"),
        (f"{T}/trialParameters/0/reference", "ranks", f"{TEMPLATE}.trialParameters[0].reference"),
        (f"{T}/primaryContainerName", "main", f"{TEMPLATE}.primaryContainerName"),
        (f"{C}/1/args/2", "${trialParameters.varaint}", f"{CONTAINERS}[1].args[2]"),
        ("spec/maxTrials", 3, "spec.maxTrials"),
    ]
    found = {path for path, _ in problems(changed(*((path, value) for path, value, _ in planted)))}
    assert {expected for _, _, expected in planted} <= found
    # Two mistakes have a second face: nothing refers to rank and to the misspelt variant now.
    assert found - {expected for _, _, expected in planted} == {
        f"{TEMPLATE}.trialParameters",
        f"{TEMPLATE}.trialParameters[2].name",
    }


@settings(untimed, max_examples=40)
@given(st.data())
def test_any_two_mistakes_are_both_reported(data: st.DataObject) -> None:
    """Independent mistakes never hide one another."""
    mistakes = {
        "spec/objective/type": ("min", "spec.objective.type"),
        "spec/parallelTrialCount": (0, "spec.parallelTrialCount"),
        "metadata/name": ("A", "metadata.name"),
        f"{P}/0/feasibleSpace/min": ("x", "spec.parameters[0].feasibleSpace.min"),
        f"{P}/2/feasibleSpace/list": ([], "spec.parameters[2].feasibleSpace.list"),
        f"{C}/1/command": ([], f"{CONTAINERS}[1].command"),
        f"{T}/trialParameters/3/reference": ("x", f"{TEMPLATE}.trialParameters[3].reference"),
        "spec/surplus": (1, "spec.surplus"),
        "spec/earlyStopping": ({}, "spec.earlyStopping.algorithmName"),
    }
    chosen = data.draw(st.lists(st.sampled_from(sorted(mistakes)), min_size=2, unique=True))
    found = {path for path, _ in problems(changed(*((path, mistakes[path][0]) for path in chosen)))}
    assert {mistakes[path][1] for path in chosen} == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, here: str = "") -> list[str]:
    """Every path of the right Experiment."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [here] if here else []
    for key, item in items:
        found += paths(item, f"{here}/{str(key).replace('/', '~')}" if here else str(key))
    return found


@untimed
@given(st.sampled_from(paths(DOCUMENT)), JSON)
def test_any_value_at_any_place_gives_an_experiment_or_problems(path: str, value: Any) -> None:
    try:
        experiment = parse_experiment(changed((path, value)))
    except InvalidInput:
        return
    assert isinstance(experiment, Experiment)


@pytest.mark.parametrize("path", sorted(set(paths(DOCUMENT))))
def test_any_place_may_be_missing(path: str) -> None:
    try:
        experiment = parse_experiment(changed((path, MISSING)))
    except InvalidInput:
        return
    assert isinstance(experiment, Experiment)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_loading_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lora.yaml"
    file.write_text(text_of(document()), encoding="utf-8")
    assert load_experiment(file).name == "lora"
    with pytest.raises(
        InvalidInput, match=r"missing\.yaml: got 'No such file or directory'; allowed: a file that can be"
    ):
        load_experiment(tmp_path / "missing.yaml")
    with pytest.raises(InvalidInput, match="got 'Is a directory'; allowed: a file that can be read"):
        load_experiment(tmp_path)


def test_an_experiment_is_a_value() -> None:
    a, b = (parse_experiment(text_of(document())) for _ in range(2))
    assert a == b
    with pytest.raises(AttributeError, match="cannot assign to field"):
        a.name = "other"  # type: ignore[misc]


def test_loading_stays_light() -> None:
    code = "import sys, rankwise.local.experiment; print([m for m in ('torch', 'grpc') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
