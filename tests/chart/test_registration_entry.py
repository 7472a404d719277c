"""The entry for katib-config: what Katib's types take, what our service needs, the same with Helm and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart.rendering import REPOSITORY, SCENARIOS, Manifest, one, render, scenario, suggestion_deployment
from rankwise.cluster.registration import ENTRY_FIELDS, load_entry
from rankwise.cluster.registration_document import Document, dump_entry

REGISTRATION = REPOSITORY / "katib" / "registration"
ALGORITHMS = ("language-bo", "optuna-tpe", "rankwise-pbt")
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
REGISTERING = [name for name in SCENARIOS if SCENARIOS[name].get("registration", {}).get("enabled", True)]


def entry_text(manifests: list[Manifest], algorithm: str = "language-bo") -> str:
    data = one(manifests, "ConfigMap", "rankwise-registration")["data"]
    assert set(data) == {f"{name}.yaml" for name in ALGORITHMS}
    return str(data[f"{algorithm}.yaml"])


def entry(manifests: list[Manifest]) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(entry_text(manifests))
    return loaded


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_file_for_people_without_helm_is_the_charts_default(algorithm: str) -> None:
    text = (REGISTRATION / f"{algorithm}.yaml").read_text()
    # Comments too: the file is the chart's text below a heading.
    assert text.endswith("\n" + entry_text(scenario("defaults"), algorithm).rstrip("\n") + "\n")
    assert f"rankwise register katib/registration/{algorithm}.yaml" in text.partition("algorithmName")[0]


def test_the_algorithms_differ_in_their_names_and_in_nothing_else() -> None:
    first, *others = (yaml.safe_load(entry_text(scenario("everything"), name)) for name in ALGORITHMS)
    for name, other in zip(ALGORITHMS[1:], others, strict=True):
        assert other == first | {"algorithmName": name}


def test_every_algorithm_that_is_registered_is_a_strategy_and_no_file_is_left_over() -> None:
    from rankwise.settings import Settings
    from rankwise.strategies.registry import Resources, strategies
    from support.encoders import FakeEncoder

    known = strategies(Resources(Settings(Path("unused")), FakeEncoder()))
    assert set(ALGORITHMS) <= set(known)
    assert {path.stem for path in REGISTRATION.glob("*.yaml")} == set(ALGORITHMS)
    # The others have names that Katib's own configuration has taken, as `pbt` would.
    assert set(known) - set(ALGORITHMS) == {"sobol", "random"}


def test_our_list_of_fields_is_katibs() -> None:
    """Katib 0.19 is built with Kubernetes 1.34's types; SuggestionConfig adds six fields of its own."""
    schema = json.loads((SCHEMAS / "v1.34.0-local-strict" / "container-v1.json").read_text())
    own = {
        "algorithmName",
        "serviceAccountName",
        "volumeMountPath",
        "persistentVolumeClaimSpec",
        "persistentVolumeSpec",
        "persistentVolumeLabels",
    }
    assert set(schema["properties"]) | own == ENTRY_FIELDS


@pytest.mark.parametrize("name", REGISTERING)
def test_katib_can_decode_the_entry(name: str, tmp_path: Path) -> None:
    made = entry(scenario(name))
    path = tmp_path / "entry.yaml"
    path.write_text(entry_text(scenario(name)))
    assert load_entry(path).owner == "rankwise/rankwise"
    kubernetes_validate.validate(suggestion_deployment(made, "rankwise"), "1.34.0", strict=True)
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}}
    kubernetes_validate.validate({**claim, "spec": made["persistentVolumeClaimSpec"]}, "1.34.0", strict=True)
    # As `rankwise register` writes it into the list, it is read back as it was.
    assert yaml.safe_load(dump_entry(made)) == [made]
    edited = Document("runtime:\n  suggestions:\n  - algorithmName: a\n", "test").replace([], made)
    assert edited.kept_text
    assert yaml.safe_load(edited.text)["runtime"]["suggestions"][1] == made


def test_the_entry_of_the_defaults() -> None:
    made = entry(scenario("defaults"))
    assert made["algorithmName"] == "language-bo"
    assert [*made["command"], *made["args"]] == [
        "rankwise",
        "serve-suggestions",
        "--address=0.0.0.0:6789",
        "--namespace=$(POD_NAMESPACE)",
        "--metrics-address=0.0.0.0:9464",
        "--log-format=json",
        "--log-level=info",
    ]
    assert made["ports"] == [{"name": "metrics", "containerPort": 9464}]
    assert made["envFrom"] == [{"secretRef": {"name": "rankwise-s3", "optional": True}}]
    assert {each["name"]: each.get("valueFrom") for each in made["env"]}["POD_NAMESPACE"] == {
        "fieldRef": {"fieldPath": "metadata.namespace"}
    }
    assert made["resources"] == {
        "requests": {"cpu": "250m", "memory": "1280Mi"},
        "limits": {"cpu": "2", "memory": "3Gi"},
    }
    assert made["serviceAccountName"] == "rankwise-suggestion"
    assert made["volumeMountPath"] == "/var/cache/rankwise"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert made[probe]["grpc"] == {"port": 6789, "service": "manager.v1beta1.Suggestion"}


def test_the_service_takes_the_arguments() -> None:
    import argparse

    from rankwise.suggest.command import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args(entry(scenario("defaults"))["args"])
    assert arguments.address == "0.0.0.0:6789"
    assert arguments.metrics_address == "0.0.0.0:9464"


def test_values_reach_the_entry() -> None:
    values = {
        "suggestion": {
            "logLevel": "debug",
            "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "N", "value": "1e3"}],
            "resources": {"limits": {"memory": "5Gi", "cpu": 3}},
            "volume": {"storageClass": "fast", "size": "7Gi", "accessModes": ["ReadWriteMany"]},
        },
        "s3": {"existingSecret": "mine"},
    }
    made = entry(render(values, release="r"))
    assert "--log-level=debug" in made["args"]
    assert made["env"][0] == {"name": "RANKWISE_REGISTERED_BY", "value": "rankwise/r"}
    assert made["env"][2:] == values["suggestion"]["extraEnv"]
    assert made["resources"]["limits"] == {"memory": "5Gi", "cpu": 3}
    assert made["resources"]["requests"] == {"cpu": "250m", "memory": "1280Mi"}
    assert made["envFrom"][0]["secretRef"]["name"] == "mine"
    assert made["persistentVolumeClaimSpec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "7Gi"}},
    }
