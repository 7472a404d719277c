"""Every pod of the chart, and the one that Katib makes of our entry, passes ``restricted``; the checker can say no."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from chart.pod_security import violations
from chart.rendering import SCENARIOS, key, pods, scenario

GOOD: dict[str, Any] = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [{"name": "v", "emptyDir": {}}],
    "containers": [
        {
            "name": "c",
            "ports": [{"containerPort": 1}],
            "livenessProbe": {"httpGet": {"port": 1}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}

Change = Callable[[dict[str, Any], dict[str, Any]], object]
BAD: dict[str, tuple[Change, str]] = {
    "host network": (lambda pod, _: pod.update(hostNetwork=True), "hostNetwork"),
    "host pid": (lambda pod, _: pod.update(hostPID=True), "hostPID"),
    "host ipc": (lambda pod, _: pod.update(hostIPC=True), "hostIPC"),
    "host path": (lambda pod, _: pod["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "hostPath"),
    "nfs": (lambda pod, _: pod["volumes"].append({"name": "n", "nfs": {}}), "nfs"),
    "sysctl": (lambda pod, _: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax"}]), "sysctl"),
    "no seccomp": (lambda pod, _: pod["securityContext"].pop("seccompProfile"), "no seccompProfile"),
    "unconfined": (lambda _, c: c["securityContext"].update(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    "no non-root": (lambda pod, _: pod["securityContext"].pop("runAsNonRoot"), "runAsNonRoot is not true"),
    "root by name": (lambda _, c: c["securityContext"].update(runAsNonRoot=False), "runAsNonRoot is false"),
    "user 0": (lambda _, c: c["securityContext"].update(runAsUser=0), "runAsUser 0"),
    "pod user 0": (lambda pod, _: pod["securityContext"].update(runAsUser=0), "pod: runAsUser 0"),
    "escalation": (lambda _, c: c["securityContext"].pop("allowPrivilegeEscalation"), "allowPrivilegeEscalation"),
    "privileged": (lambda _, c: c["securityContext"].update(privileged=True), "privileged"),
    "capabilities": (lambda _, c: c["securityContext"].pop("capabilities"), "not ALL dropped"),
    "added": (lambda _, c: c["securityContext"]["capabilities"].update(add=["NET_RAW"]), "capabilities added"),
    "proc": (lambda _, c: c["securityContext"].update(procMount="Unmasked"), "procMount"),
    "selinux": (lambda _, c: c["securityContext"].update(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions"),
    "apparmor": (lambda _, c: c["securityContext"].update(appArmorProfile={"type": "Unconfined"}), "appArmorProfile"),
    "windows": (lambda _, c: c["securityContext"].update(windowsOptions={"hostProcess": True}), "hostProcess"),
    "host port": (lambda _, c: c["ports"][0].update(hostPort=1), "hostPort"),
    "probe": (lambda _, c: c["livenessProbe"]["httpGet"].update(host="192.0.2.1"), "another host"),
    "init": (lambda pod, _: pod.update(initContainers=[{"name": "i"}]), "container i: allowPrivilegeEscalation"),
}


def test_the_checker_takes_a_good_pod() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize("name", BAD)
def test_the_checker_finds(name: str) -> None:
    change, said = BAD[name]
    pod = copy.deepcopy(GOOD)
    change(pod, pod["containers"][0])
    assert any(said in each for each in violations(pod)), violations(pod)


def test_the_checker_finds_an_annotation() -> None:
    assert violations(GOOD, {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"})


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_pod_is_restricted_and_more(name: str) -> None:
    seen = 0
    for owner, template in pods(scenario(name)):
        spec = template["spec"]
        assert violations(spec, template["metadata"].get("annotations")) == [], key(owner)
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, key(owner)
            assert (context["runAsUser"], context["runAsGroup"]) == (65532, 65532), key(owner)
            assert container["resources"]["limits"]["memory"], key(owner)
            assert container["resources"]["requests"], key(owner)
        if owner["kind"] != "Deployment":  # Katib's has no pod-level context; its container has all of it
            assert spec["securityContext"]["fsGroup"] == 65532, key(owner)
            assert "/tmp" in [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]], key(owner)
        seen += 1
    assert seen == EXPECTED[name]


EXPECTED = {
    # register, unregister, test and Katib's Deployment; then the S3 server and a model Job for each namespace
    "defaults": 4,
    "cpu-demo": 6,
    "existing-s3": 4,
    "gpu": 8,
    "restricted-namespace": 5,
    "everything": 7,
    "only-accounts": 0,
    "registered-elsewhere-with-a-store": 3,
}
