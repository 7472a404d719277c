"""Values: what the schema refuses and how it says so, what the README promises, what lint finds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import pytest
import yaml

import rankwise
from chart.rendering import CHART, SCENARIOS, Manifest, Values, of_kind, one, render, scenario, texts

DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def nested(path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("modles", {}),
        ("models.sise", "1Gi"),
        ("s3.server.enable", True),
        ("models.size", "10 GB"),
        ("models.size", "lots"),
        ("models.size", 10),
        ("s3.server.size", "-1Gi"),
        ("suggestion.resources", {"limit": {}}),
        ("suggestion.resources", {"limits": {"memory": "3 GiB"}}),
        ("suggestion.volume.accessModes", []),
        ("suggestion.volume.accessModes", ["ReadWriteTwice"]),
        ("suggestion.logFormat", "xml"),
        ("suggestion.extraEnv", [{"name": "RANKWISE_REGISTERED_BY", "value": "me"}]),
        ("suggestion.extraEnv", [{"name": "A-B"}]),
        ("katib.namespace", "Kubeflow"),
        ("katib.namespace", ""),
        ("katib.namespace", "a" * 64),
        ("experimentNamespaces", ["team_a"]),
        ("experimentNamespaces", "team-a"),
        ("experimentNamespaces", ["a", "a"]),
        ("images.suggestion.repository", ""),
        ("images.suggestion.repository", "Rankwise Suggestion"),
        ("images.suggestion.tag", "a b"),
        ("images.pullPolicy", "Sometimes"),
        ("images.pullSecrets", [{"name": "a"}]),
        ("registration.enabled", "yes"),
        ("s3.endpoint", "s3.example.com"),
        ("s3.endpoint", "https://user@s3.example.com"),
        ("s3.endpoint", "https://s3.example.com/bucket"),
        ("s3.store", "/folder"),
        ("s3.store", "s3://b"),
        ("s3.server.whenDeleted", "delete"),
        ("models.existingClaim", "My Claim"),
        ("models.prepare.references", ["a b"]),
        ("models.prepare.references", ["--flag"]),
        ("networkPolicies.apiServer.cidrs", ["10.0.0.1"]),
        ("networkPolicies.apiServer.ports", [0]),
        ("networkPolicies.apiServer.ports", []),
        ("podMonitor.interval", "often"),
        ("pods.tolerations", [{"Key": "a"}]),
    ],
)
def test_the_schema_refuses_and_names_the_place(path: str, value: Any) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        render(nested(path, value))
    message = str(refused.value)
    parts = [part for part in path.split(".") if part in DEFAULTS or part in message]
    assert path.rpartition(".")[2] in message, message
    assert parts, message


@pytest.mark.parametrize(
    ("s3", "said"),
    [
        ({"existingSecret": "a", "endpoint": "http://b"}, r"leave s3\.endpoint"),
        ({"existingSecret": "a", "accessKeyId": "b", "secretAccessKey": "c"}, "existingSecret holds the address"),
        ({"endpoint": "http://a", "server": {"enabled": True}}, "another server's"),
        ({"endpoint": "http://a"}, r"needs s3\.accessKeyId"),
        ({"server": {"enabled": True}, "accessKeyId": "a"}, "go together"),
        ({"accessKeyId": "a", "secretAccessKey": "b"}, r"neither s3\.endpoint nor"),
    ],
)
def test_values_that_contradict_each_other(s3: Values, said: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=said):
        render({"s3": s3})


def test_models_without_a_volume() -> None:
    with pytest.raises(helm_python.HelmRenderError, match="needs a volume"):
        render({"models": {"enabled": False, "prepare": {"references": ["a/b"]}}})


def leaves(schema: Any, values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, str]]:
    """(path, default, description) of every value; a free mapping and a pod's resources count as one."""
    properties = {name: each for name, each in schema["properties"].items() if (*path, name) != ("global",)}
    assert set(properties) == set(values), f"{'.'.join(path) or 'values'}: schema and values.yaml differ"
    for name, each in properties.items():
        assert each["description"].endswith("."), (*path, name)
        if each.get("additionalProperties") is False and "limits" not in each["properties"]:
            yield from leaves(each, values[name], (*path, name))
        else:
            yield ".".join((*path, name)), values[name], each["description"]


def test_the_readmes_table_is_the_schema() -> None:
    text = (CHART / "README.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", text, re.MULTILINE)
    assert [(name, json.loads(default), meaning) for name, default, meaning in rows] == list(leaves(SCHEMA, DEFAULTS))
    assert len(rows) > 40


def test_every_object_in_the_schema_is_closed() -> None:
    def objects(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
        if schema.get("type") == "object":
            yield path, schema
        for name, each in schema.get("properties", {}).items():
            yield from objects(each, f"{path}.{name}")

    free = {path for path, schema in objects(SCHEMA, "") if "additionalProperties" not in schema}
    # Another chart's values, and what a container's variable may refer to: Kubernetes checks that.
    assert free == {".global"}


def test_the_readme_names_every_scenario() -> None:
    text = (CHART / "README.md").read_text()
    files = {path.stem for path in (CHART / "scenarios").glob("*.yaml")}
    assert files == {"cpu-demo", "gpu", "existing-s3", "restricted-namespace"}
    assert [name for name in files if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", SCENARIOS)
def test_lint_is_clean(name: str) -> None:
    report = helm_python.lint(CHART, dict(SCENARIOS[name]), strict=True, namespace="rankwise", kube_version="v1.36.0")
    assert report["total_charts_linted"] == 1
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_lint_can_find_something() -> None:
    report = helm_python.lint(CHART, {"modles": {}}, strict=True)
    assert report["errors"] or [each for each in report["messages"] if each["severity"] > 1]


def test_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["apiVersion"] == "v2"
    assert chart["version"] == chart["appVersion"] == rankwise.__version__
    images = {
        c["image"] for m in of_kind(scenario("cpu-demo"), "Job") for c in m["spec"]["template"]["spec"]["containers"]
    }
    assert images == {f"rankwise-suggestion:{rankwise.__version__}", f"rankwise-trainer:{rankwise.__version__}"}


def test_images_can_come_from_elsewhere() -> None:
    where = {"repository": "localhost/rankwise-suggestion", "tag": "7"}
    manifests = render({"images": {"suggestion": where, "pullPolicy": "Never"}})
    for job in of_kind(manifests, "Job"):
        for container in job["spec"]["template"]["spec"]["containers"]:
            assert (container["image"], container["imagePullPolicy"]) == ("localhost/rankwise-suggestion:7", "Never")
    entry = yaml.safe_load(one(manifests, "ConfigMap", "rankwise-registration")["data"]["language-bo.yaml"])
    assert (entry["image"], entry["imagePullPolicy"]) == ("localhost/rankwise-suggestion:7", "Never")


def test_notes_say_what_is_left_to_do() -> None:
    label = "kubectl label namespace {} katib.kubeflow.org/metrics-collector-injection=enabled"
    registered = texts({})["NOTES.txt"]
    assert "language-bo, optuna-tpe, rankwise-pbt are registered with Katib in namespace kubeflow" in registered
    assert "kubectl label" not in registered
    named = "one of them (language-bo, optuna-tpe, rankwise-pbt)"
    assert f"Before `helm uninstall`, delete every Experiment that names {named}, ended ones too" in registered
    alone = texts({"registration": {"enabled": False}, "experimentNamespaces": ["team-a"]})["NOTES.txt"]
    assert "NOT registered" in alone
    files = [f"katib/registration/{name}.yaml" for name in ("language-bo", "optuna-tpe", "rankwise-pbt")]
    assert f"register {' '.join(files)} --katib" in alone
    assert "helm uninstall" not in alone
    assert label.format("rankwise") in alone
    assert label.format("team-a") in alone
    assert label.format("rankwise") in texts({"registration": {"labelNamespaces": False}})["NOTES.txt"]
    assert "kept by `helm uninstall`" in texts({"s3": {"server": {"enabled": True}}})["NOTES.txt"]
    deleted = texts({"s3": {"server": {"enabled": True, "whenDeleted": "Delete"}}})["NOTES.txt"]
    assert "DELETED by `helm uninstall`" in deleted


def tolerations(manifest: Manifest) -> Any:
    return manifest["spec"]["template"]["spec"].get("tolerations")


def test_the_charts_own_pods_go_where_they_may() -> None:
    manifests = of_kind(scenario("everything"), "Job", "StatefulSet")
    assert len(manifests) == 6
    assert all(tolerations(manifest) == [{"key": "k", "operator": "Exists"}] for manifest in manifests)
    assert all(m["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"} for m in manifests)
