"""Each single mistake that an Experiment file can hold, with its place and its sentence."""

from __future__ import annotations

from typing import Any

import pytest

from rankwise.local.experiment import parse_experiment
from support.experiments import (
    COLLECTOR,
    CONTAINERS,
    DEFAULTS,
    DOCUMENT,
    FINALS,
    MISSING,
    TEMPLATE,
    C,
    P,
    T,
    changed,
    problems,
    sentence,
)


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
    ids=lambda value: str(value).replace(str(MISSING), "MISSING")[:90],
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
    ids=lambda value: str(value).replace(str(MISSING), "MISSING")[:60],
)
def test_sentences_help(change: tuple[str, Any], words: str) -> None:
    assert words in sentence(changed(change))
