"""The chart's life: install, test, upgrade, uninstall; afterwards Katib is configured as before, byte for byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
import yaml
from conftest import KATIB, Cluster, katib_config
from kube import CHART, CommandFailed, apply, find, get, helm, kubectl

NAMESPACE = "chart-life"
KINDS = "deployment,statefulset,job,service,serviceaccount,role,rolebinding,secret,configmap,pvc,networkpolicy"
# What Kubernetes itself puts into every namespace.
OF_KUBERNETES = {"configmap/kube-root-ca.crt", "serviceaccount/default"}


def everything() -> set[str]:
    names = kubectl("-n", NAMESPACE, "get", KINDS, "--output=name").split()
    return {name.replace(".apps", "").replace(".batch", "") for name in names} - OF_KUBERNETES


def cluster_wide() -> set[str]:
    """Roles and bindings that could outlive the release."""
    names = kubectl("get", "clusterrole,clusterrolebinding", "--output=name").split()
    names += kubectl("-n", KATIB, "get", "role,rolebinding", "--output=name").split()
    return {name for name in names if "rankwise" in name}


def entry() -> dict[str, object]:
    """Our entry of katib-config; empty when there is none."""
    found = yaml.safe_load(katib_config())["runtime"]["suggestions"]
    return next((dict(one) for one in found if one["algorithmName"] == "language-bo"), {})


def install(*more: str) -> None:
    helm(
        *("upgrade", "--install", "chart-life", CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait"),
        *("--set", "s3.server.enabled=true", "--set", "s3.server.whenDeleted=Delete", "--timeout=4m", *more),
    )


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if "rankwise" in helm("list", "--all-namespaces", "--short").split():
        pytest.skip("a release is installed: these tests need the registration for themselves")
    # The namespace refuses every pod that does not fit Pod Security level `restricted`.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    apply(document, namespace="default")
    yield cluster
    kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", seconds=150)


def test_install_registers_the_algorithms_and_keeps_every_other_entry(namespace: Cluster) -> None:
    install()
    before, now = yaml.safe_load(namespace.katib_config), yaml.safe_load(katib_config())
    entries, others = now["runtime"]["suggestions"], len(before["runtime"]["suggestions"])
    ours = entries[others:]
    del entries[others:]
    assert now == before
    assert [one["algorithmName"] for one in ours] == ["language-bo", "optuna-tpe", "rankwise-pbt"]
    assert {one["serviceAccountName"] for one in ours} == {"rankwise-suggestion"}
    label = get("namespace", NAMESPACE, NAMESPACE)["metadata"]["labels"]
    assert label["katib.kubeflow.org/metrics-collector-injection"] == "enabled"
    assert label["pod-security.kubernetes.io/enforce"] == "restricted"
    # The hooks' rights ended with them.
    assert cluster_wide() == set()


def test_every_pod_runs_under_the_restricted_level(namespace: Cluster) -> None:
    pods = find("pods", NAMESPACE)
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} >= {"s3"}
    assert all(pod["status"]["phase"] in {"Running", "Succeeded"} for pod in pods)
    events = find("events", NAMESPACE)
    refused = [event["message"] for event in events if "violates PodSecurity" in event.get("message", "")]
    assert refused == []


def test_helm_test_writes_to_the_store_and_checks_the_registration(namespace: Cluster) -> None:
    said = helm("test", "chart-life", "--namespace", NAMESPACE, "--logs", "--timeout=3m")
    assert "Phase:          Succeeded" in said or "Succeeded" in said
    assert cluster_wide() == set()


def test_upgrade_changes_the_entry_and_keeps_the_generated_keys(namespace: Cluster) -> None:
    before = get("secret", "rankwise-s3", NAMESPACE)["data"]
    install("--set", "suggestion.resources.limits.memory=2500Mi")
    resources = entry()["resources"]
    assert isinstance(resources, dict)
    assert resources["limits"]["memory"] == "2500Mi"
    assert get("secret", "rankwise-s3", NAMESPACE)["data"] == before
    assert len(base64.b64decode(before["AWS_SECRET_ACCESS_KEY"])) >= 32


def test_an_upgrade_with_a_wrong_value_changes_nothing(namespace: Cluster) -> None:
    text, objects = katib_config(), everything()
    with pytest.raises(CommandFailed, match=r"(?i)memory"):
        install("--set", "suggestion.resources.limits.memory=plenty")
    assert (katib_config(), everything()) == (text, objects)


def test_a_second_release_is_refused_and_names_the_first(namespace: Cluster) -> None:
    text = katib_config()
    with pytest.raises(CommandFailed) as error:
        helm(
            *("install", "second", CHART, "--namespace", "chart-second", "--create-namespace", "--wait"),
            *("--set", "models.enabled=false", "--timeout=2m"),
        )
    try:
        assert katib_config() == text
        assert f"{NAMESPACE}/chart-life" in str(error.value)
    finally:
        helm("uninstall", "second", "--namespace", "chart-second", "--ignore-not-found", "--wait")
        kubectl("delete", "namespace", "chart-second", "--ignore-not-found", "--timeout=60s", seconds=90)
    assert katib_config() == text


def test_uninstall_leaves_nothing_and_restores_katibs_configuration(namespace: Cluster) -> None:
    helm("uninstall", "chart-life", "--namespace", NAMESPACE, "--wait", "--timeout=3m")
    assert katib_config() == namespace.katib_config
    assert cluster_wide() == set()
    left = {name for name in everything() if not name.startswith("persistentvolumeclaim/data-rankwise-s3")}
    assert left == set(), json.dumps(sorted(left))
