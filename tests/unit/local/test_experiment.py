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
from support.experiments import DOCUMENT, MISSING, changed, document, text_of
from support.spaces import untimed

TEMPLATE = "spec.trialTemplate"
CONTAINERS = f"{TEMPLATE}.trialSpec.spec.template.spec.containers"
C = "spec/trialTemplate/trialSpec/spec/template/spec/containers"
DEFAULTS = "metadata.annotations.rankwise.dev/default-configuration"
FINALS = "metadata.annotations.rankwise.dev/final-arguments"


def problems(text: str) -> list[tuple[str, str]]:
    """(path, value) of every problem."""
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_experiment(text)
    return [(problem.path, problem.value) for problem in caught.value.problems]


def sentence(text: str) -> str:
    """The only problem."""
    with pytest.raises(InvalidInput, match="allowed: ") as caught:
        parse_experiment(text)
    (problem,) = caught.value.problems
    return str(problem)


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


# -- one mistake each --------------------------------------------------------------------------------------------------

COLLECTOR = "spec.metricsCollectorSpec"
P = "spec/parameters"
T = "spec/trialTemplate"


def collected(**source: Any) -> tuple[str, Any]:
    return ("spec/metricsCollectorSpec", {"collector": {"kind": "File"}, "source": source})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("apiVersion", "kubeflow.org/v1alpha3"), [("apiVersion", "kubeflow.org/v1alpha3")]),
        (("apiVersion", MISSING), [("apiVersion", "")]),
        (("kind", "experiment"), [("kind", "experiment")]),
        (("kind", "Job"), [("kind", "Job")]),
        (("kind", MISSING), [("kind", "")]),
        (("kind", 7), [("kind", "7")]),
        (("spce", {}), [("spce", "spce")]),
        (("metadata", "lora"), [("metadata", "lora")]),
        (("metadata/name", MISSING), [("metadata.name", "")]),
        (("metadata/name", "Lora"), [("metadata.name", "Lora")]),
        (("metadata/name", "lora_1"), [("metadata.name", "lora_1")]),
        (("metadata/name", "1lora"), [("metadata.name", "1lora")]),
        (("metadata/name", "lora-"), [("metadata.name", "lora-")]),
        (("metadata/name", "lora\n"), [("metadata.name", "lora\n")]),
        (("metadata/name", 5), [("metadata.name", "5")]),
        (("metadata/namespace", "My_Space"), [("metadata.namespace", "My_Space")]),
        (("metadata/lables", {}), [("metadata.lables", "lables")]),
        (("metadata/labels/team", 3), [("metadata.labels.team", "3")]),
        (("metadata/labels", ["a"]), [("metadata.labels", '["a"]')]),
        (
            ("spec", None),
            [("spec", ""), ("spec.parameters", ""), ("spec.objective", ""), ("spec.algorithm", ""), (TEMPLATE, "")],
        ),
        (("spec/maxTrialcount", 3), [("spec.maxTrialcount", "maxTrialcount")]),
        (("spec/nasConfig", {"graphConfig": {}}), [("spec.nasConfig", '{"graphConfig": {}}')]),
        # objective
        (("spec/objective", MISSING), [("spec.objective", "")]),
        (("spec/objective", "loss"), [("spec.objective", "loss")]),
        (("spec/objective/type", "minimise"), [("spec.objective.type", "minimise")]),
        (("spec/objective/type", MISSING), [("spec.objective.type", "")]),
        (("spec/objective/goal", "low"), [("spec.objective.goal", "low")]),
        (("spec/objective/goal", True), [("spec.objective.goal", "true")]),
        (("spec/objective/objectiveMetricName", MISSING), [("spec.objective.objectiveMetricName", "")]),
        (("spec/objective/objectiveMetricName", "eval loss"), [("spec.objective.objectiveMetricName", "eval loss")]),
        (("spec/objective/additionalMetricNames/2", "loss"), [("spec.objective.additionalMetricNames[2]", "loss")]),
        (("spec/objective/additionalMetricNames/2", "rouge1"), [("spec.objective.additionalMetricNames[2]", "rouge1")]),
        (("spec/objective/additionalMetricNames/2", ""), [("spec.objective.additionalMetricNames[2]", "")]),
        (("spec/objective/additionalMetricNames/2", 1), [("spec.objective.additionalMetricNames[2]", "1")]),
        (("spec/objective/additionalMetricNames/2", "a.b"), [("spec.objective.additionalMetricNames[2]", "a.b")]),
        (("spec/objective/metricStrategies/0/value", "mean"), [("spec.objective.metricStrategies[0].value", "mean")]),
        (("spec/objective/metricStrategies/0/name", "time"), [("spec.objective.metricStrategies[0].name", "time")]),
        (
            ("spec/objective/metricStrategies/1", {"name": "seconds", "value": "min"}),
            [("spec.objective.metricStrategies[1].name", "seconds")],
        ),
        (("spec/objective/metric", "loss"), [("spec.objective.metric", "metric")]),
        # algorithm
        (("spec/algorithm", MISSING), [("spec.algorithm", "")]),
        (("spec/algorithm/algorithmName", MISSING), [("spec.algorithm.algorithmName", "")]),
        (("spec/algorithm/algorithmName", "language_bo"), [("spec.algorithm.algorithmName", "language_bo")]),
        (("spec/algorithm/algorithmName", "a" * 59), [("spec.algorithm.algorithmName", "a" * 59)]),
        (("spec/algorithm/algorithmSettings/0/value", 5), [("spec.algorithm.algorithmSettings[0].value", "5")]),
        (
            ("spec/algorithm/algorithmSettings/1/name", "n_initial"),
            [("spec.algorithm.algorithmSettings[1].name", "n_initial")],
        ),
        (("spec/algorithm/algorithmSettings/1/name", MISSING), [("spec.algorithm.algorithmSettings[1].name", "")]),
        (("spec/algorithm/algorithmSettings/1/val", "x"), [("spec.algorithm.algorithmSettings[1].val", "val")]),
        (("spec/algorithm/algorithmSettings", {"a": "b"}), [("spec.algorithm.algorithmSettings", '{"a": "b"}')]),
        (("spec/earlyStopping/algorithmName", ""), [("spec.earlyStopping.algorithmName", "")]),
        (("spec/earlyStopping/algorithmSettings/0", "x"), [("spec.earlyStopping.algorithmSettings[0]", "x")]),
        # counts
        (("spec/parallelTrialCount", 0), [("spec.parallelTrialCount", "0")]),
        (("spec/parallelTrialCount", "2"), [("spec.parallelTrialCount", "2")]),
        (("spec/parallelTrialCount", 2.5), [("spec.parallelTrialCount", "2.5")]),
        (("spec/parallelTrialCount", True), [("spec.parallelTrialCount", "true")]),
        (("spec/parallelTrialCount", 13), [("spec.parallelTrialCount", "13")]),
        (("spec/maxTrialCount", -1), [("spec.maxTrialCount", "-1")]),
        (("spec/maxTrialCount", 2**31), [("spec.maxTrialCount", str(2**31))]),
        (("spec/maxFailedTrialCount", -1), [("spec.maxFailedTrialCount", "-1")]),
        (("spec/maxFailedTrialCount", 13), [("spec.maxFailedTrialCount", "13")]),
        (("spec/resumePolicy", "Always"), [("spec.resumePolicy", "Always")]),
        # parameters
        ((P, MISSING), [("spec.parameters", "")]),
        ((f"{P}/0/feasibleSpace/min", 1), [("spec.parameters[0].feasibleSpace.min", "1")]),
        ((f"{P}/0/feasibleSpace/min", "x"), [("spec.parameters[0].feasibleSpace.min", "x")]),
        ((f"{P}/0/feasibleSpace", MISSING), [("spec.parameters[0].feasibleSpace", "")]),
        ((f"{P}/0/feasibleSpace/minimum", "1"), [("spec.parameters[0].feasibleSpace.minimum", "minimum")]),
        ((f"{P}/0/type", "int"), [("spec.parameters[0].type", "type")]),
        ((f"{P}/0/parameterType", "integer"), [("spec.parameters[0].parameterType", "integer")]),
        ((f"{P}/2/feasibleSpace/list/2", True), [("spec.parameters[2].feasibleSpace.list[2]", "true")]),
        ((f"{P}/2/feasibleSpace/list/2", "lora"), [("spec.parameters[2].feasibleSpace.list[2]", "lora")]),
        ((f"{P}/2/feasibleSpace/list/2", 'a"b'), [("spec.parameters[2].feasibleSpace.list[2]", 'a"b')]),
        # the collector
        (("spec/metricsCollectorSpec", {"collector": {"kind": "Push"}}), [(f"{COLLECTOR}.collector.kind", "Push")]),
        (("spec/metricsCollectorSpec", {"collector": {}}), [(f"{COLLECTOR}.collector.kind", "")]),
        (
            ("spec/metricsCollectorSpec", {"collector": {"kind": "StdOut", "customCollector": {"name": "x"}}}),
            [(f"{COLLECTOR}.collector.customCollector", "")],
        ),
        (
            ("spec/metricsCollectorSpec", {"source": {"fileSystemPath": {"path": "/x"}}}),
            [(f"{COLLECTOR}.source.fileSystemPath", "")],
        ),
        (collected(fileSystemPath={"path": "x.log"}), [(f"{COLLECTOR}.source.fileSystemPath.path", "x.log")]),
        (
            collected(fileSystemPath={"path": "/x", "kind": "Directory"}),
            [(f"{COLLECTOR}.source.fileSystemPath.kind", "Directory")],
        ),
        (
            collected(fileSystemPath={"path": "/x", "format": "json"}),
            [(f"{COLLECTOR}.source.fileSystemPath.format", "json")],
        ),
        (
            collected(fileSystemPath={"format": "JSON"}, filter={"metricsFormat": ["(a)(b)"]}),
            [(f"{COLLECTOR}.source.filter", '{"metricsFormat": ["(a)(b)"]}')],
        ),
        (collected(filter={"metricsFormat": ["(a"]}), [(f"{COLLECTOR}.source.filter.metricsFormat[0]", "(a")]),
        (collected(filter={"metricsFormat": ["(a)"]}), [(f"{COLLECTOR}.source.filter.metricsFormat[0]", "(a)")]),
        (
            collected(filter={"metricsFormat": ["(a)(b)", r"(a)(?=b)(c)"]}),
            [(f"{COLLECTOR}.source.filter.metricsFormat[1]", r"(a)(?=b)(c)")],
        ),
        (
            collected(filter={"metricsFormat": [r"(a)(b)\1"]}),
            [(f"{COLLECTOR}.source.filter.metricsFormat[0]", r"(a)(b)\1")],
        ),
        (
            collected(filter={"metricsFormat": ["(a)([[:digit:]])"]}),
            [(f"{COLLECTOR}.source.filter.metricsFormat[0]", "(a)([[:digit:]])")],
        ),
        (collected(filter={"format": "x"}), [(f"{COLLECTOR}.source.filter.format", "format")]),
        (collected(httpGet={"port": 8080}), [(f"{COLLECTOR}.source.httpGet", '{"port": 8080}')]),
        # the template
        ((T, MISSING), [(TEMPLATE, "")]),
        ((f"{T}/trialSpec", MISSING), [(f"{TEMPLATE}.trialSpec", "")]),
        ((f"{T}/trialSpec", "job.yaml"), [(f"{TEMPLATE}.trialSpec", "job.yaml")]),
        ((f"{T}/primaryContainerName", MISSING), [(f"{TEMPLATE}.primaryContainerName", "")]),
        ((f"{T}/primaryContainerName", "trainer"), [(f"{TEMPLATE}.primaryContainerName", "trainer")]),
        ((f"{T}/retain", "yes"), [(f"{TEMPLATE}.retain", "yes")]),
        ((f"{T}/primaryPodLabels", {"a": 1}), [(f"{TEMPLATE}.primaryPodLabels.a", "1")]),
        ((f"{T}/trialParams", []), [(f"{TEMPLATE}.trialParams", "trialParams")]),
        (
            (f"{T}/trialParameters/1/reference", "learningrate"),
            [
                (f"{TEMPLATE}.trialParameters[1].reference", "learningrate"),
                (f"{TEMPLATE}.trialParameters", "learning_rate"),
            ],
        ),
        ((f"{T}/trialParameters/3/reference", "rank"), [(f"{TEMPLATE}.trialParameters[3].reference", "rank")]),
        ((f"{T}/trialParameters/3/reference", MISSING), [(f"{TEMPLATE}.trialParameters[3].reference", "")]),
        (
            (f"{T}/trialParameters/3/reference", "${trialSpec.Nam}"),
            [(f"{TEMPLATE}.trialParameters[3].reference", "${trialSpec.Nam}")],
        ),
        (
            (f"{T}/trialParameters/3/reference", "${trialspec.Name}"),
            [(f"{TEMPLATE}.trialParameters[3].reference", "${trialspec.Name}")],
        ),
        (
            (f"{T}/trialParameters/3/reference", "${trialSpec.Labels[no]}"),
            [(f"{TEMPLATE}.trialParameters[3].reference", "${trialSpec.Labels[no]}")],
        ),
        (
            (f"{T}/trialParameters/3/reference", "a${trialSpec.Name}"),
            [(f"{TEMPLATE}.trialParameters[3].reference", "a${trialSpec.Name}")],
        ),
        (
            (f"{T}/trialParameters/4", {"name": "unused", "reference": "${trialSpec.Kind}"}),
            [(f"{TEMPLATE}.trialParameters[4].name", "unused")],
        ),
        (
            (f"{T}/trialParameters/4", {"name": "rank", "reference": "${trialSpec.Kind}"}),
            [(f"{TEMPLATE}.trialParameters[4].name", "rank")],
        ),
        (
            (f"{T}/trialParameters/4", {"name": "a}", "reference": "${trialSpec.Kind}"}),
            [(f"{TEMPLATE}.trialParameters[4].name", "a}")],
        ),
        (
            (f"{T}/trialSpec/kind", MISSING),
            [
                (f"{TEMPLATE}.trialSpec.kind", ""),
                (f"{TEMPLATE}.successCondition", ""),
                (f"{TEMPLATE}.failureCondition", ""),
            ],
        ),
        (
            (f"{T}/trialSpec/kind", "TFJob"),
            [(f"{TEMPLATE}.successCondition", ""), (f"{TEMPLATE}.failureCondition", "")],
        ),
        ((f"{T}/trialSpec/apiVersion", ""), [(f"{TEMPLATE}.trialSpec.apiVersion", "")]),
        ((f"{T}/trialSpec/metadata/name", "x"), [(f"{TEMPLATE}.trialSpec.metadata.name", "x")]),
        ((f"{T}/trialSpec/metadata/namespace", "x"), [(f"{TEMPLATE}.trialSpec.metadata.namespace", "x")]),
        ((f"{T}/trialSpec/metadata", "x"), [(f"{TEMPLATE}.trialSpec.metadata", "x")]),
        ((f"{C}/0", "training"), [(f"{CONTAINERS}[0]", "training")]),
        ((f"{C}/1/command", MISSING), [(f"{CONTAINERS}[1].command", "")]),
        ((f"{C}/1/command", []), [(f"{CONTAINERS}[1].command", "[]")]),
        ((f"{C}/1/command", "rankwise train"), [(f"{CONTAINERS}[1].command", "rankwise train")]),
        ((f"{C}/1/command/1", 5), [(f"{CONTAINERS}[1].command[1]", "5")]),
        ((f"{C}/1/args/0", "--rank=${trialParameters.rnk}"), [(f"{CONTAINERS}[1].args[0]", "${trialParameters.rnk}")]),
        ((f"{C}/1/args/5", "{trialParameters.rank}"), [(f"{CONTAINERS}[1].args[5]", "{trialParameters")]),
        ((f"{C}/1/args/5", "${trialParameter.rank}"), [(f"{CONTAINERS}[1].args[5]", "${trialParameter")]),
        ((f"{C}/1/args/5", "${trialParameters.rank"), [(f"{CONTAINERS}[1].args[5]", "${trialParameters")]),
        ((f"{C}/1/args/5", "${trialSpec.Name}"), [(f"{CONTAINERS}[1].args[5]", "${trialSpec.Name}")]),
        ((f"{C}/1/env/0/value", 5), [(f"{CONTAINERS}[1].env[0].value", "5")]),
        ((f"{C}/1/env/0/name", "TRIAL_RANK"), [(f"{CONTAINERS}[1].env[1].name", "TRIAL_RANK")]),
        ((f"{C}/1/env/0/name", "A=B"), [(f"{CONTAINERS}[1].env[0].name", "A=B")]),
        ((f"{C}/1/env", "A=B"), [(f"{CONTAINERS}[1].env", "A=B")]),
        ((f"{C}/1/workingDir", 5), [(f"{CONTAINERS}[1].workingDir", "5")]),
        # annotations
        (("metadata/annotations/rankwise.dev~x", "y"), [("metadata.annotations.rankwise.dev/x", "rankwise.dev/x")]),
        (("metadata/annotations/rankwise.dev~default-configuration", "{"), [(DEFAULTS, "{")]),
        (("metadata/annotations/rankwise.dev~default-configuration", "[]"), [(DEFAULTS, "[]")]),
        (("metadata/annotations/rankwise.dev~default-configuration", "null"), [(DEFAULTS, "null")]),
        (
            ("metadata/annotations/rankwise.dev~default-configuration", '{"rank": 1, "rank": 2}'),
            [(DEFAULTS, '{"rank": 1, "rank": 2}')],
        ),
        (
            (
                "metadata/annotations/rankwise.dev~default-configuration",
                '{"rank": 99, "learning_rate": true, "varaint": "lora"}',
            ),
            [
                (f"{DEFAULTS}.learning_rate", "true"),
                (f"{DEFAULTS}.varaint", "varaint"),
                (f"{DEFAULTS}.rank", "99"),
                (f"{DEFAULTS}.variant", ""),
            ],
        ),
        (("metadata/annotations/rankwise.dev~final-arguments", "--subset=1"), [(FINALS, "--subset=1")]),
        (("metadata/annotations/rankwise.dev~final-arguments", '{"a": 1}'), [(FINALS, '{"a": 1}')]),
        (("metadata/annotations/rankwise.dev~final-arguments", '["a", 1]'), [(f"{FINALS}[1]", "1")]),
        (("metadata/annotations/rankwise.dev~final-arguments", {"a": "b"}), [(FINALS, '{"a": "b"}')]),
    ],
    ids=lambda value: str(value)[:90],
)
def test_one_mistake(change: tuple[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems(changed(change)) == expected


def test_config_map_templates_are_refused() -> None:
    text = changed((f"{T}/trialSpec", MISSING), (f"{T}/configMap", {"configMapName": "x"}))
    assert (f"{TEMPLATE}.configMap", '{"configMapName": "x"}') in problems(text)


def test_no_parallel_count_means_three() -> None:
    text = changed(
        ("spec/parallelTrialCount", MISSING), ("spec/maxTrialCount", 2), ("spec/maxFailedTrialCount", MISSING)
    )
    assert problems(text) == [("spec.parallelTrialCount", "3 (the default)")]


def test_no_pod_template() -> None:
    text = changed(
        (f"{T}/trialSpec/spec", {"replicas": 1}), (f"{T}/trialParameters", []), (P, DOCUMENT["spec"]["parameters"])
    )
    assert (CONTAINERS, "") in problems(text)


def test_names_leave_room_for_trial_names_and_the_service() -> None:
    assert parse_experiment(changed(("metadata/name", "a" * 51))).name == "a" * 51
    # language-bo and its dash take 12 of 63 characters.
    assert problems(changed(("metadata/name", "a" * 52))) == [("spec.algorithm.algorithmName", "language-bo")]
    random = ("spec/algorithm/algorithmName", "bo")
    assert parse_experiment(changed(("metadata/name", "a" * 54), random)).name == "a" * 54
    assert problems(changed(("metadata/name", "a" * 55), random)) == [("metadata.name", "a" * 55)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("spec/maxTrialcount", 3), "did you mean 'maxTrialCount'?"),
        (("metadata/lables", {}), "did you mean 'labels'?"),
        (("spec/objective/objectivemetricname", "x"), "did you mean 'objectiveMetricName'?"),
        ((f"{P}/0/feasiblespace", {}), "did you mean 'feasibleSpace'?"),
        (
            (f"{T}/primaryContainerName", "trainin"),
            "a container of the trialSpec: logger, training; did you mean 'training'?",
        ),
        ((f"{C}/1/args/5", "${trialParameters.learningrate}"), "did you mean 'learningRate'?"),
        (("metadata/annotations/rankwise.dev~final-argument", "[]"), "did you mean 'rankwise.dev/final-arguments'?"),
        (("spec/algorithm/algorithmName", "Language_BO"), "for example 'language-bo'"),
        (("spec/objective/objectiveMetricName", "eval.loss"), "the default filter sees no other name"),
        ((f"{P}/1/feasibleSpace/min", 0.0001), "a text; put it into quotes"),
        (
            ("spec/metricsCollectorSpec", {"collector": {"kind": "TensorFlowEvent"}}),
            "StdOut or File: no other collector",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_sentences_help(change: tuple[str, Any], words: str) -> None:
    assert words in sentence(changed(change))


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
