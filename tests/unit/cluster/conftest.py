"""A fake API server and the ways to it, for the tests of what is said to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rankwise.cluster.client import Cluster, api_client
from rankwise.retry import Backoff
from support.fake_kubernetes import FakeKubernetes, fake_kubernetes


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with fake_kubernetes() as server:
        yield server


@pytest.fixture
def kubeconfig(fake: FakeKubernetes, tmp_path: Path) -> Path:
    return fake.kubeconfig(tmp_path)


@pytest.fixture
def cluster(kubeconfig: Path) -> Cluster:
    return Cluster(api_client(kubeconfig), Backoff(attempts=3, first=0, longest=0))
