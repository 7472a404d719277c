"""The test cluster's node enters namespaces of its own, and never the machine's."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import time

import pytest


def has_own_namespaces(pid: int) -> bool:
    found: bool = importlib.import_module("harness.processes").has_own_namespaces(pid)
    return found


def test_a_process_of_ours_has_none() -> None:
    assert not has_own_namespaces(os.getpid())
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        assert not has_own_namespaces(child.pid)
        child.kill()


def test_a_process_that_has_ended_has_none() -> None:
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert not has_own_namespaces(child.pid)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="root and unshare are needed")
def test_a_process_that_left_them_has() -> None:
    command = ["unshare", "--net", "--mount", "--propagation=private", "/bin/sleep", "60"]
    with subprocess.Popen(command) as child:
        end = time.monotonic() + 30
        while not has_own_namespaces(child.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
        child.kill()
