"""NetworkPolicies, as flows: who reaches whom. A small evaluator of the policies' meaning, and a table of flows."""

from __future__ import annotations

import functools
import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from chart.rendering import SCENARIOS, Manifest, Values, of_kind, render, scenario


@dataclass(frozen=True)
class Pod:
    """A pod, or with an address and no namespace something outside."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def katib(component: str) -> Pod:
    return Pod("kubeflow", {"katib.kubeflow.org/component": component})


def ours(component: str, namespace: str = "rankwise") -> Pod:
    names = {"name": "rankwise", "instance": "rankwise", "component": component}
    return Pod(namespace, {f"app.kubernetes.io/{name}": value for name, value in names.items()})


def suggestion(namespace: str = "rankwise") -> Pod:
    return Pod(namespace, {"katib.kubeflow.org/suggestion": "e", "katib.kubeflow.org/experiment": "e"})


def trial(namespace: str = "rankwise") -> Pod:
    return Pod(namespace, {"katib.kubeflow.org/trial": "e-1", "katib.kubeflow.org/experiment": "e"})


STRANGER = Pod("rankwise", {"app": "other"})
MONITORING = Pod("monitoring", {"app": "prometheus"})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
API_SERVER = Pod(address="10.96.0.1")
INTERNET = Pod(address="203.0.113.9")


def selects(selector: Any, labels: dict[str, str]) -> bool:
    """A label selector's meaning; the operators that the chart uses."""
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or []:
        if rule["operator"] not in ("Exists", "In"):
            raise NotImplementedError(rule["operator"])
        if rule["key"] not in labels or (rule["operator"] == "In" and labels[rule["key"]] not in rule["values"]):
            return False
    return True


def is_peer(peer: Any, home: str, pod: Pod) -> bool:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return bool(pod.address) and ipaddress.ip_address(pod.address) in network
    if pod.address:
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace}):
            return False
    elif pod.namespace != home:
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def permits(policies: list[Manifest], way: str, pod: Pod, other: Pod, port: int) -> bool:
    """Whether the policies of ``pod`` let traffic to (Egress) or from (Ingress) ``other`` through."""
    chosen = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and way in policy["spec"]["policyTypes"]
    ]
    if not chosen:
        return True
    for spec in chosen:
        for rule in spec.get(way.lower(), []):
            peers = rule.get("to" if way == "Egress" else "from")
            # No list of peers means anybody; an empty one too, which the chart must never write by accident.
            assert peers is None or peers, spec
            reached = peers is None or any(is_peer(peer, pod.namespace, other) for peer in peers)
            if reached and ("ports" not in rule or port in [each["port"] for each in rule["ports"]]):
                return True
    return False


def flows(policies: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    leaves = bool(source.address) or permits(policies, "Egress", source, target, port)
    return leaves and (bool(target.address) or permits(policies, "Ingress", target, source, port))


@functools.cache
def policies(name: str) -> list[Manifest]:
    return of_kind(scenario(name), "NetworkPolicy")


S3 = ours("s3")
FLOWS: list[tuple[str, Pod, Pod, int, bool]] = [
    # everything: two more namespaces, an S3 server outside at 192.0.2.0/24, hub, traffic between trials
    ("everything", katib("controller"), suggestion(), 6789, True),
    ("everything", katib("controller"), suggestion("team-a"), 6788, True),
    ("everything", katib("ui"), suggestion(), 6789, False),
    ("everything", Pod("other", {"katib.kubeflow.org/component": "controller"}), suggestion(), 6789, False),
    ("everything", STRANGER, suggestion(), 6789, False),
    ("everything", trial(), suggestion(), 6789, False),
    ("everything", trial(), suggestion(), 6788, True),
    ("everything", trial("team-a"), suggestion(), 6788, False),
    ("everything", MONITORING, suggestion("1234"), 9464, True),
    ("everything", MONITORING, suggestion(), 6789, False),
    ("everything", STRANGER, suggestion(), 9464, False),
    ("everything", suggestion(), DNS, 53, True),
    ("everything", suggestion(), Pod(address="169.254.20.10"), 53, True),
    ("everything", suggestion(), API_SERVER, 443, True),
    ("everything", suggestion(), katib("db-manager"), 6789, True),
    ("everything", suggestion(), STRANGER, 80, False),
    ("everything", trial(), DNS, 53, True),
    ("everything", trial(), katib("db-manager"), 6789, True),
    ("everything", trial(), katib("mysql"), 3306, False),
    ("everything", trial(), INTERNET, 443, True),
    ("everything", trial(), INTERNET, 80, False),
    ("everything", trial(), trial(), 29500, True),
    ("everything", trial("team-a"), trial(), 29500, False),
    ("everything", STRANGER, trial(), 29500, False),
    ("everything", ours("register"), API_SERVER, 443, True),
    ("everything", ours("register"), INTERNET, 80, False),
    ("everything", ours("models"), INTERNET, 443, True),
    ("everything", ours("models"), STRANGER, 80, False),
    # restricted-namespace: the chart's own S3 server, no early stopping, no hub
    ("restricted-namespace", katib("controller"), suggestion(), 6789, True),
    ("restricted-namespace", katib("controller"), suggestion(), 6788, False),
    ("restricted-namespace", trial(), suggestion(), 6788, False),
    ("restricted-namespace", suggestion(), API_SERVER, 443, False),
    ("restricted-namespace", suggestion(), katib("db-manager"), 6789, False),
    ("restricted-namespace", trial(), S3, 8333, True),
    ("restricted-namespace", suggestion(), S3, 8333, True),
    ("restricted-namespace", ours("test"), S3, 8333, True),
    ("restricted-namespace", STRANGER, S3, 8333, False),
    ("restricted-namespace", trial("team-a"), S3, 8333, False),
    ("restricted-namespace", trial(), S3, 18333, False),
    ("restricted-namespace", S3, INTERNET, 443, False),
    ("restricted-namespace", S3, DNS, 53, False),
    ("restricted-namespace", trial(), INTERNET, 443, False),
    ("restricted-namespace", trial(), trial(), 29500, False),
    ("restricted-namespace", ours("unregister"), API_SERVER, 443, True),
    ("restricted-namespace", ours("unregister"), INTERNET, 443, False),
    ("restricted-namespace", ours("register"), suggestion(), 6789, False),
    # another server of S3, addresses unknown: any
    ("registered-elsewhere-with-a-store", trial(), S3, 8333, True),
    # off
    ("defaults", STRANGER, suggestion(), 6789, True),
]


@pytest.mark.parametrize("number", range(len(FLOWS)))
def test_flow(number: int) -> None:
    name, source, target, port, expected = FLOWS[number]
    assert flows(policies(name), source, target, port) is expected, FLOWS[number]


def test_an_s3_server_outside() -> None:
    inside, outside = Pod(address="192.0.2.7"), Pod(address="198.51.100.7")
    values: Values = {
        **SCENARIOS["everything"],
        "networkPolicies": {"enabled": True, "s3": {"cidrs": ["192.0.2.0/24"]}},
    }
    made = of_kind(render(values), "NetworkPolicy")
    assert flows(made, trial(), inside, 443)
    assert not flows(made, trial(), outside, 443)
    # Addresses that are not known: any.
    made = of_kind(render({**values, "networkPolicies": {"enabled": True}}), "NetworkPolicy")
    assert flows(made, trial(), outside, 443)


def test_policies_of_every_namespace_and_none_by_default() -> None:
    assert policies("defaults") == []
    places = {(policy["metadata"]["namespace"], policy["metadata"]["name"]) for policy in policies("everything")}
    per_namespace = {"rankwise-suggestion", "rankwise-trial", "rankwise-models"}
    assert places == {(n, name) for n in ("rankwise", "team-a", "1234") for name in per_namespace} | {
        ("rankwise", "rankwise-jobs")
    }
    # A policy that names a way without a rule denies it: every one names both.
    assert all(policy["spec"]["policyTypes"] == ["Ingress", "Egress"] for policy in policies("everything"))
