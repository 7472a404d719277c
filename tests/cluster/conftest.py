"""The cluster of KUBECONFIG, with Katib, and the chart installed in it. ``make cluster-test`` provides both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kube import CHART, Search, apply, helm, kubectl, wait

KATIB = "kubeflow"
NAMESPACE = "rankwise"
TEAMS = ("team-a", "team-b")
PIPELINES = "pipelines"
"""Where ``make cluster-pipelines`` puts Kubeflow Pipelines; without it the tests of test_pipelines.py are skipped."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster with Katib.

    Attributes:
        katib_config: ConfigMap katib-config as it was before the chart was installed.
        own: whether the harness of this folder started it, so that its node may be disturbed.
    """

    katib_config: str
    own: bool


def katib_config() -> str:
    """Katib's configuration as text."""
    path = r"jsonpath={.data.katib-config\.yaml}"
    return kubectl("-n", KATIB, "get", "configmap", "katib-config", "-o", path)


def has_pipelines() -> bool:
    """Whether Kubeflow Pipelines is in the cluster."""
    return bool(
        kubectl("-n", PIPELINES, "get", "deployment", "ml-pipeline", "--ignore-not-found", "-o", "name").strip()
    )


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster; no test of this folder runs without one."""
    if "KUBECONFIG" not in os.environ:
        pytest.skip("no cluster: set KUBECONFIG, or run `make cluster-up cluster-test`")
    for program in ("kubectl", "helm"):
        assert shutil.which(program), f"{program} is not on PATH"
    kubectl("-n", KATIB, "wait", "deployment", "--all", "--for=condition=Available", "--timeout=120s")
    own = os.environ.get("RANKWISE_CLUSTER_HARNESS") == "1"
    text = katib_config()
    entries = [entry["algorithmName"] for entry in yaml.safe_load(text)["runtime"]["suggestions"]]
    if "language-bo" in entries and os.environ.get("RANKWISE_TEST_KEEP_RELEASE") != "1":
        # These tests install and uninstall the chart: not where somebody works with it.
        assert own, "language-bo is registered in this cluster; the tests want one without it"
        # An earlier run was cut off.
        kubectl("delete", "experiments", "--all", "--all-namespaces", "--cascade=foreground", seconds=150)
        helm("uninstall", "rankwise", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
        text = katib_config()
    return Cluster(text, own)


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[str]:
    """The chart installed as README.md says, for a CPU demonstration, with two more teams; its namespace."""
    # While tests are being written: keep what is installed from one run to the next.
    keep = os.environ.get("RANKWISE_TEST_KEEP_RELEASE") == "1"
    for team in TEAMS:
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}}
        apply(document, namespace="default")
    teams = ",".join([*TEAMS, PIPELINES] if has_pipelines() else TEAMS)
    if not (keep and helm("list", "--namespace", NAMESPACE, "--short").split()):
        helm(
            *("install", "rankwise", CHART, "--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout=6m"),
            *("--values", CHART / "scenarios" / "cpu-demo.yaml", "--set", f"experimentNamespaces={{{teams}}}"),
        )
    yield NAMESPACE
    if keep:
        return
    for namespace in (NAMESPACE, *TEAMS, *([PIPELINES] if has_pipelines() else [])):
        kubectl("-n", namespace, "delete", "experiments", "--all", seconds=150)
    helm("uninstall", "rankwise", "--namespace", NAMESPACE, "--wait")
    kubectl("delete", "namespace", NAMESPACE, *TEAMS, "--timeout=120s", seconds=150)


@pytest.fixture
def searches(release: str) -> Iterator[list[Search]]:
    """Searches that a test starts; they are deleted after it."""
    started: list[Search] = []
    yield started
    for search in started:
        search.delete()


def start(searches: list[Search], document: dict[str, object], namespace: str = NAMESPACE) -> Search:
    """Apply an Experiment and note it for deletion."""
    metadata = document["metadata"]
    assert isinstance(metadata, dict)
    search = Search(str(metadata["name"]), namespace)
    searches.append(search)
    apply(document, namespace=namespace)
    wait(f"the Experiment {search.name}", lambda: search.experiment().get("status", {}).get("conditions"), 30)
    return search
