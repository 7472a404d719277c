"""``python -m harness up | pipelines | pipelines-ui | down | status | exec -- COMMAND``, from ``tests/cluster``."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness import katib
from harness.build import build, module_folder
from harness.images import IMAGES, build_images, send_images
from harness.node import Node, missing
from harness.places import SEAWEEDFS, HarnessError, Places
from harness.small_images import S3_IMAGE, small_images


def up(places: Places) -> None:
    """Build what the cache lacks, start the node, bring in the images, install Katib.

    Raises:
        HarnessError: this machine cannot carry a cluster, or a step failed.
    """
    if problems := missing():
        raise HarnessError("\n".join(problems))
    start = time.monotonic()

    def say(what: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {what}", flush=True)

    log = places.logs / "build.log"
    say("programs")
    binaries = build("kubernetes", places.cache, log)
    build("helm", places.cache, log)
    node = Node(places, binaries)
    say("node")
    node.up()
    say("images")
    small = small_images(places)
    node.import_images(small)
    say("Katib")
    katib.install(node, module_folder("katib", "github.com/kubeflow/katib") / "manifests" / "v1beta1")
    say("Rankwise's images")
    key = build_images(places.cache, say)
    node.receive_images(key, lambda known, sink: send_images(places.cache, known, sink))
    # Chart and Experiments are used as they are, so the images bear the names that stand there.
    names = {f"docker.io/library/{name.rpartition('/')[2]}": name for name in IMAGES}
    node.name_images({**names, f"docker.io/chrislusf/seaweedfs:{SEAWEEDFS}": S3_IMAGE})
    node.remove_unnamed_images()
    say(f"up: KUBECONFIG={places.kubeconfig}, reached from inside only: python -m harness exec -- kubectl get pods -A")


def _node(places: Places) -> Node:
    """The node with its programs, running or not."""
    return Node(places, build("kubernetes", places.cache, places.logs / "build.log"))


def _running(places: Places) -> Node:
    """The node of the running cluster.

    Raises:
        HarnessError: there is none.
    """
    node = _node(places)
    node.processes.enter()
    return node


def add_pipelines(places: Places) -> None:
    """Bring Kubeflow Pipelines into the running cluster.

    Raises:
        HarnessError: there is no cluster, or a step failed.
    """
    # Its generated code is made with packages that the other verbs do without.
    from harness import pipelines

    start = time.monotonic()
    pipelines.install(_running(places), places)
    print(f"Kubeflow Pipelines is in namespace {pipelines.NAMESPACE} ({time.monotonic() - start:.0f} s)")


def start_pipelines_ui(places: Places) -> None:
    """Start Kubeflow Pipelines' web interface beside the running cluster.

    Raises:
        HarnessError: there is no cluster, or a step failed.
    """
    from harness import pipelines_ui

    address = pipelines_ui.start(_running(places), places)
    print(f"Kubeflow Pipelines' interface, reached from inside only: {address}")


def down(places: Places) -> None:
    """Stop what :func:`up` started and remove its state. Builds stay in the cache."""
    Node(places, places.cache).down()
    shutil.rmtree(places.state, ignore_errors=True)


def status(places: Places) -> int:
    """Print what runs; 0 when the cluster is up."""
    node = _node(places)
    names = node.processes.names()
    if not names:
        print("not running")
        return 1
    for name in names:
        print(f"{name:<24} {node.processes.pid(name) or 'not running'}")
    print(node.kubectl("get", "nodes,pods", "--all-namespaces", check=False))
    return 0


def execute(places: Places, command: Sequence[str]) -> int:
    """Run a command where the cluster can be reached, with KUBECONFIG set and kubectl and helm on PATH."""
    node = _node(places)
    helm = build("helm", places.cache, places.logs / "build.log")
    path = os.pathsep.join([str(node.binaries), str(helm), os.environ.get("PATH", "")])
    variables = {"PATH": path, "KUBECONFIG": str(places.kubeconfig), "RANKWISE_CLUSTER_HARNESS": "1"}
    enter = node.processes.enter()
    # Entering a mount namespace otherwise ends in its root folder.
    enter.insert(1, f"--wdns={Path.cwd()}")
    return subprocess.run([*enter, *command], env={**os.environ, **variables}, check=False).returncode


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code (3: this machine or a step failed, with the reason)."""
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    parser.add_argument("verb", choices=("up", "pipelines", "pipelines-ui", "down", "status", "exec", "check"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="for exec: -- COMMAND ARGUMENT...")
    arguments = parser.parse_args(argv)
    places = Places.from_environment()
    try:
        if arguments.verb == "up":
            up(places)
        elif arguments.verb == "pipelines":
            add_pipelines(places)
        elif arguments.verb == "pipelines-ui":
            start_pipelines_ui(places)
        elif arguments.verb == "down":
            down(places)
        elif arguments.verb == "check":
            if problems := missing():
                raise HarnessError("\n".join(problems))
        elif arguments.verb == "status":
            return status(places)
        else:
            return execute(places, [word for word in arguments.command if word != "--"] or ["bash"])
    except HarnessError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
