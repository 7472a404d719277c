"""Versions, and the folders in which the harness keeps things."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

KUBERNETES = "1.36.3"
KATIB = "0.19.0"
POSTGRES = "15"
SEAWEEDFS = "4.48"

CHECKOUT = Path(__file__).resolve().parents[3]
MODULES = CHECKOUT / "tests" / "cluster" / "modules"

NODE = "node"
NODE_ADDRESS = "10.245.0.1"
POD_RANGE = "10.244.0.0/24"
SERVICE_RANGE = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
API_SERVER = f"https://{NODE_ADDRESS}:6443"


class HarnessError(Exception):
    """The cluster cannot be brought up here; the message says what is missing or where the log is."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie.

    Attributes:
        state: everything of one running cluster; removed by ``down``.
        cache: what is slow to make and may be used by later clusters, keyed by version; never removed by us.
    """

    state: Path
    cache: Path

    @classmethod
    def from_environment(cls) -> Places:
        """``RANKWISE_CLUSTER_STATE`` (default ``.cluster`` in the checkout) and ``XDG_CACHE_HOME``."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        state = Path(os.environ.get("RANKWISE_CLUSTER_STATE") or CHECKOUT / ".cluster")
        return cls(state.resolve(), home / "rankwise" / "cluster")

    @property
    def run(self) -> Path:
        """Sockets and pid files. Short, for a socket's path may have 107 bytes."""
        return Path("/run") / f"rankwise-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"
