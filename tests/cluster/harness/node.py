"""The node: namespaces, etcd, the control plane, containerd, kubelet and kube-proxy.

Written for a small virtual machine as root: cgroup v1 or v2, perhaps without CAP_SYS_RESOURCE, without loadable kernel
modules. Pods are reached over routed veth pairs (CNI plugin ``ptp``), which need no bridge netfilter; NetworkPolicies
are therefore stored and validated, but not enforced.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from harness import pki
from harness.agent import PROVISIONER, STORAGE_CLASS
from harness.places import (
    NODE,
    NODE_ADDRESS,
    POD_RANGE,
    SERVICE_RANGE,
    HarnessError,
    Places,
)
from harness.processes import Processes, has_own_namespaces, wait_for

DEBIAN_PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""What has to be installed: program -> Debian package."""
CNI_PLUGINS = Path("/usr/lib/cni")
PAUSE_IMAGE = "localhost/pause:1"

_STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": STORAGE_CLASS,
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": PROVISIONER,
}
_NETWORK = f"""
set -e
ip link set lo up
ip link add node0 type veth peer name node1
ip addr add {NODE_ADDRESS}/24 dev node0
ip link set node0 up
ip link set node1 up
# Packets to a Service's address need a route before they are translated.
ip route add default via 10.245.0.254 dev node0
sysctl -q -w net.ipv4.ip_forward=1
"""


def missing() -> list[str]:
    """What this machine lacks, one sentence each; empty when a cluster can be brought up."""
    problems = []
    if os.geteuid() != 0:
        problems.append("root is needed (namespaces, mounts, containers)")
    packages = {package for program, package in DEBIAN_PROGRAMS.items() if shutil.which(program) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        packages.add("containernetworking-plugins")
    if packages:
        problems.append(
            f"missing Debian packages: apt-get install --no-install-recommends {' '.join(sorted(packages))}"
        )
    if shutil.which("go") is None:
        problems.append("Go 1.26 or later is needed to build Kubernetes and Katib")
    if "overlay" not in Path("/proc/filesystems").read_text():
        problems.append("the kernel has no overlay file system")
    if not problems:
        probe = [
            "unshare",
            "--net",
            "--mount",
            "sh",
            "-c",
            "ip link add a0 type veth peer name a1 && iptables -t nat -L -n",
        ]
        done = subprocess.run(probe, capture_output=True, text=True)
        if done.returncode:
            problems.append(f"no network namespace with veth and NAT can be made here: {done.stderr.strip()}")
    return problems


class Node:
    """The cluster's one node and its control plane.

    Args:
        places: folders.
        binaries: folder with the Kubernetes programs.
    """

    def __init__(self, places: Places, binaries: Path) -> None:
        self.places = places
        self.binaries = binaries
        self.processes = Processes(places)
        self._pki = places.state / "pki"

    # -- up and down ---------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start everything that does not run yet and wait until the node is Ready."""
        state = self.places.state
        for folder in (state, self.places.run, self.places.logs, state / "config", state / "volumes"):
            folder.mkdir(parents=True, exist_ok=True)
        pki.make(self._pki)
        if self.processes.pid("namespaces") is None:
            self._namespaces()
        self._etcd()
        self.start_api_server()
        self._containerd()
        self._control()
        self.start_kubelet()
        self._proxy()
        self._agent()
        (state / "kubeconfig").write_text((self._pki / "admin.kubeconfig").read_text())
        (state / "kubeconfig").chmod(0o600)
        wait_for("the node to be Ready", self._ready, 90)
        self.kubectl("apply", "-f", "-", stdin=json.dumps(_STORAGE_CLASS))

    def down(self) -> None:
        """Stop what :meth:`up` started, pods included, and unmount what is left. The state folder stays."""
        for name in ("kfp-ui", "agent", "kube-proxy", "kubelet", "kube-scheduler", "kube-controller-manager"):
            self.processes.stop(name)
        if self.processes.pid("containerd") is not None:
            self._stop_containers()
        for name in ("containerd", "kube-apiserver", "etcd", "namespaces"):
            self.processes.stop(name)
        _remove_cgroups()
        shutil.rmtree(self.places.run, ignore_errors=True)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as administrator; its output.

        Raises:
            HarnessError: kubectl failed and ``check`` is set.
        """
        command = [*self.processes.enter(), str(self.binaries / "kubectl"), f"--kubeconfig={self.places.kubeconfig}"]
        done = subprocess.run([*command, *map(str, arguments)], input=stdin, capture_output=True, text=True)
        if check and done.returncode:
            raise HarnessError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def available(self, namespace: str, deployments: int) -> bool:
        """Whether a namespace has so many Deployments, each of them available."""
        path = '{range .items[*]}{.status.conditions[?(@.type=="Available")].status}{" "}{end}'
        states = self.kubectl("-n", namespace, "get", "deployments", "-o", f"jsonpath={path}", check=False).split()
        return len(states) == deployments and set(states) == {"True"}

    # -- containers ----------------------------------------------------------------------------------------------

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own client in Kubernetes' namespace of containerd; its output."""
        done = subprocess.run(self._ctr_command(*arguments), capture_output=True, text=True)
        if done.returncode:
            raise HarnessError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _ctr_command(self, *arguments: str) -> list[str]:
        address = f"--address={self.places.containerd_socket}"
        return [*self.processes.enter(), "/usr/bin/ctr", address, "--namespace=k8s.io", *arguments]

    def import_images(self, archives: dict[str, Path]) -> None:
        """Bring image archives into containerd, each once.

        Args:
            archives: image name -> docker or OCI archive. An archive's file name changes with its content.
        """
        noted = self.places.state / "images"
        noted.mkdir(exist_ok=True)
        for name, archive in archives.items():
            mark = noted / archive.name
            if mark.exists():
                continue
            self.ctr("images", "import", str(archive))
            mark.write_text(name)

    def receive_images(self, key: str, write: Callable[[set[str], IO[bytes]], None]) -> None:
        """Bring in images that somebody writes as an OCI image layout, unless it was done already.

        Args:
            key: of the images' content.
            write: is given the digests of what containerd has, and writes the layout without them.
        """
        mark = self.places.state / "images" / key
        if mark.exists():
            return
        known = set(self.ctr("content", "list", "--quiet").split())
        command = self._ctr_command("images", "import", "-")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            write(known, process.stdin)
            process.stdin.close()
        if process.returncode:
            raise HarnessError("containerd refused the images; see containerd.log")
        mark.touch()

    def name_images(self, names: dict[str, str]) -> None:
        """Give images second names, as if they had been pulled.

        Args:
            names: name in a manifest, with registry -> name of an imported image.
        """
        for name, image in names.items():
            self.ctr("images", "tag", "--force", image, name)

    def remove_unnamed_images(self) -> None:
        """Free what earlier imports left: images that have lost their name to a newer one."""
        rows = [line.split() for line in self.ctr("images", "list").splitlines()[1:]]
        named = {digest for name, _, digest, *_ in rows if not name.startswith("sha256:")}
        for name, _, digest, *_ in rows:
            # Kubernetes' side keeps a second name, made of the digest of the image's configuration.
            if digest not in named:
                self.ctr("images", "remove", name)

    def _stop_containers(self) -> None:
        for task in self.ctr("tasks", "list", "--quiet").split():
            self._ctr_quietly("tasks", "delete", "--force", task)
        for container in self.ctr("containers", "list", "--quiet").split():
            self._ctr_quietly("containers", "delete", container)

    def _ctr_quietly(self, *arguments: str) -> None:
        """As :meth:`ctr`, but what is already gone is no failure."""
        with contextlib.suppress(HarnessError):
            self.ctr(*arguments)

    # -- the daemons ---------------------------------------------------------------------------------------------

    def _namespaces(self) -> None:
        """One process holds the network and mount namespaces that all the others enter.

        Mounts are private to it, so nothing of containerd or kubelet is left mounted on the machine afterwards.
        """
        command = ["/usr/bin/unshare", "--net", "--mount", "--propagation=private", "/usr/bin/sleep", "infinity"]
        holder = self.processes.start("namespaces", command, inside=False)
        # Entered before that, they would still be the machine's own: its network would be changed.
        wait_for("the node's namespaces", lambda: has_own_namespaces(holder), 30, every=0.02)
        done = subprocess.run([*self.processes.enter(), "sh", "-c", _NETWORK], capture_output=True, text=True)
        if done.returncode:
            raise HarnessError(f"the node's network cannot be made: {done.stderr.strip()}")
        # kubelet's volumes are mounted below a shared mount, as on any node.
        kubelet = self.places.state / "kubelet"
        kubelet.mkdir(exist_ok=True)
        shared = f"mount --bind {kubelet} {kubelet} && mount --make-rshared {kubelet}"
        subprocess.run([*self.processes.enter(), "sh", "-c", shared], check=True)

    def _etcd(self) -> None:
        command = [
            "/usr/bin/etcd",
            f"--data-dir={self.places.state / 'etcd'}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380",
            "--logger=zap",
        ]
        self.processes.start("etcd", command)

    def start_api_server(self) -> None:
        """Start the API server and wait until it answers."""
        keys = self._pki
        command = [
            self.binaries / "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={NODE_ADDRESS}",
            "--secure-port=6443",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--token-auth-file={keys / 'tokens.csv'}",
            f"--client-ca-file={keys / 'ca.crt'}",
            f"--tls-cert-file={keys / 'apiserver.crt'}",
            f"--tls-private-key-file={keys / 'apiserver.key'}",
            f"--kubelet-client-certificate={keys / 'kubelet-client.crt'}",
            f"--kubelet-client-key={keys / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={keys / 'service-accounts.key'}",
            f"--service-account-key-file={keys / 'service-accounts.pub'}",
            # Debian's etcd 3.4.23 is too old for it; Argo's watches from version "" would be refused, not fall back.
            "--feature-gates=WatchList=false",
        ]
        self.processes.start("kube-apiserver", command)
        wait_for("the API server", lambda: self._answers("/readyz"), 90)

    def _control(self) -> None:
        keys = self._pki
        command = [
            self.binaries / "kube-controller-manager",
            f"--kubeconfig={keys / 'controller-manager.kubeconfig'}",
            f"--root-ca-file={keys / 'ca.crt'}",
            f"--service-account-private-key-file={keys / 'service-accounts.key'}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ]
        self.processes.start("kube-controller-manager", command)
        command = [
            self.binaries / "kube-scheduler",
            f"--kubeconfig={keys / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ]
        self.processes.start("kube-scheduler", command)

    def _containerd(self) -> None:
        config = self.places.state / "config"
        network = config / "cni"
        network.mkdir(exist_ok=True)
        plugins = [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(self.places.run / "cni"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ]
        (network / "10-pods.conflist").write_text(
            json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})
        )
        (config / "containerd.toml").write_text(
            f"""version = 2
root = "{self.places.state / "containerd"}"
state = "{self.places.run / "containerd"}"
[grpc]
  address = "{self.places.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE a pod's OOM score cannot be lowered, and every sandbox would fail.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
        )
        self.processes.start("containerd", ["/usr/bin/containerd", f"--config={config / 'containerd.toml'}"])
        wait_for("containerd", self._containerd_answers, 30)

    def start_kubelet(self) -> None:
        """Start the kubelet; a test stops and starts it as a fault."""
        config = self.places.state / "config"
        (config / "resolv.conf").write_text(f"nameserver {NODE_ADDRESS}\n")
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": NODE_ADDRESS,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "containerRuntimeEndpoint": f"unix://{self.places.containerd_socket}",
            "clusterDNS": [NODE_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": str(config / "resolv.conf"),
            "healthzBindAddress": "127.0.0.1",
            "enforceNodeAllocatable": ["pods"],
            # A full disk of the machine is not this cluster's to mend.
            "evictionHard": {"memory.available": "200Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "volumePluginDir": str(self.places.run / "volume-plugins"),
            "podLogsDir": str(self.places.state / "pod-logs"),
            "syncFrequency": "10s",
        }
        (config / "kubelet.json").write_text(json.dumps(settings, indent=1))
        command = [
            self.binaries / "kubelet",
            f"--kubeconfig={self._pki / 'kubelet.kubeconfig'}",
            f"--config={config / 'kubelet.json'}",
            f"--root-dir={self.places.state / 'kubelet'}",
            f"--cert-dir={self.places.state / 'kubelet-pki'}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
        ]
        self.processes.start("kubelet", command)

    def _proxy(self) -> None:
        settings = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(self._pki / "proxy.kubeconfig")},
            "mode": "iptables",
            "hostnameOverride": NODE,
            "bindAddress": NODE_ADDRESS,
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
            "clusterCIDR": POD_RANGE,
            # The machine's connection table is not ours to resize.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        }
        path, text = self.places.state / "config" / "kube-proxy.json", json.dumps(settings, indent=1)
        # A running kube-proxy ends when its file is written, with the same text too.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        self.processes.start("kube-proxy", [self.binaries / "kube-proxy", f"--config={path}"])

    def _agent(self) -> None:
        kubeconfig = self._pki / "admin.kubeconfig"
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "harness.agent",
            kubeconfig,
            NODE_ADDRESS,
            self.places.state / "volumes",
        ]
        self.processes.start("agent", command, PYTHONPATH=str(Path(__file__).parents[1]))

    # -- questions -----------------------------------------------------------------------------------------------

    def _answers(self, path: str) -> bool:
        command = [*self.processes.enter(), self.binaries / "kubectl", f"--kubeconfig={self._pki / 'admin.kubeconfig'}"]
        return subprocess.run([*command, "get", "--raw", path], capture_output=True).returncode == 0

    def _containerd_answers(self) -> bool:
        try:
            self.ctr("version")
        except HarnessError:
            return False
        return True

    def _ready(self) -> bool:
        path = '{.status.conditions[?(@.type=="Ready")].status}'
        return self.kubectl("get", "node", NODE, "-o", f"jsonpath={path}", check=False).strip() == "True"


def _remove_cgroups(names: Sequence[str] = ("kubepods",)) -> None:
    """Remove the empty control groups that the kubelet left."""
    for root in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]:
        for name in names:
            if (root / name).is_dir():
                for folder, _, _ in os.walk(root / name, topdown=False):
                    try:
                        Path(folder).rmdir()
                    except OSError:
                        continue
