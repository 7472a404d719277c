"""The ``restricted`` Pod Security Standard as code: every rule of its table, and of ``baseline`` which it includes.

Written from https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Kubernetes 1.36), for Linux pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
}
_SELINUX_TYPES = {None, "", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(spec: Spec, annotations: Mapping[str, str] | None = None) -> list[str]:
    """Everything in a pod's specification that the level ``restricted`` refuses."""
    found = [f"{name} is true" for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)]
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            found.append(f"volume {volume['name']} is a {', '.join(sorted(kinds))}")
    pod = spec.get("securityContext") or {}
    found += [f"sysctl {each['name']}" for each in pod.get("sysctls", []) if each["name"] not in _SYSCTLS]
    found += [f"pod: {problem}" for problem in _shared(pod)]
    for name, profile in (annotations or {}).items():
        if name.startswith("container.apparmor.security.beta.kubernetes.io/") and profile != "runtime/default":
            found.append(f"AppArmor profile {profile}")
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            found += [f"container {container['name']}: {problem}" for problem in _container(container, pod)]
    return found


def _shared(context: Spec) -> Iterator[str]:
    """Rules for fields that a pod and a container both have."""
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
    if context.get("runAsUser") == 0:
        yield "runAsUser 0"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (context.get("appArmorProfile") or {}).get("type") not in (None, "RuntimeDefault", "Localhost"):
        yield "appArmorProfile"
    if (context.get("seccompProfile") or {}).get("type") not in (None, "RuntimeDefault", "Localhost"):
        yield "seccompProfile"


def _container(container: Spec, pod: Spec) -> Iterator[str]:
    context = container.get("securityContext") or {}
    yield from _shared(context)
    if context.get("privileged"):
        yield "privileged"
    if context.get("procMount") not in (None, "", "Default"):
        yield "procMount"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if not context.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "runAsNonRoot is not true"
    if not context.get("seccompProfile", pod.get("seccompProfile")):
        yield "no seccompProfile"
    capabilities = context.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities: not ALL dropped"
    if not set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}:
        yield "capabilities added"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    handlers = [container.get(name) or {} for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += list((container.get("lifecycle") or {}).values())
    for handler in handlers:
        if any((handler.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe of another host"
