"""Kubeflow Pipelines' web interface, built from its sources by npm and run as a process of the node."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

from harness.build import writable_copy
from harness.node import Node
from harness.pipelines import NAMESPACE
from harness.pipelines_programs import PIPELINES, pipelines_folder
from harness.places import NODE_ADDRESS, HarnessError, Places

PORT = 3000
PROCESS = "kfp-ui"
_SECRET = "mlpipeline-minio-artifact"
# react-scripts' own checks of the sources are KFP's business; installation scripts of packages are not run.
_QUICK = {"GENERATE_SOURCEMAP": "false", "DISABLE_ESLINT_PLUGIN": "true", "CI": "false"}
_STEPS = (
    (".", ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")),
    (".", ("npm", "run", "build:tailwind")),
    (".", ("npx", "react-scripts", "build")),
    ("server", ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")),
    ("server", ("npm", "run", "build")),
)


def start(node: Node, places: Places) -> str:
    """Build the interface unless the cache has it, and start it; its address, to be reached from inside only.

    Raises:
        HarnessError: npm is missing, or the build failed.
    """
    built = _build(places)
    secret = json.loads(node.kubectl("-n", NAMESPACE, "get", "secret", _SECRET, "-o", "json"))["data"]
    access, key = (base64.b64decode(secret[name]).decode() for name in ("accesskey", "secretkey"))
    node.processes.start(
        PROCESS,
        [str(shutil.which("node")), built / "server" / "dist" / "server.js", built / "build", str(PORT)],
        ML_PIPELINE_SERVICE_HOST=_address(node, "ml-pipeline"),
        ML_PIPELINE_SERVICE_PORT="8888",
        METADATA_ENVOY_SERVICE_SERVICE_HOST=_address(node, "metadata-envoy-service"),
        METADATA_ENVOY_SERVICE_SERVICE_PORT="9090",
        MINIO_HOST=_address(node, "minio-service"),
        MINIO_PORT="9000",
        MINIO_NAMESPACE="",
        MINIO_ACCESS_KEY=access,
        MINIO_SECRET_KEY=key,
        FRONTEND_SERVER_NAMESPACE=NAMESPACE,
        KUBECONFIG=str(places.kubeconfig),
    )
    return f"http://{NODE_ADDRESS}:{PORT}"


def _address(node: Node, service: str) -> str:
    return node.kubectl("-n", NAMESPACE, "get", "service", service, "-o", "jsonpath={.spec.clusterIP}")


def _build(places: Places) -> Path:
    """The folder with ``build`` (the pages) and ``server``."""
    target = places.cache / "bin" / f"kfp-ui-{PIPELINES}"
    if target.is_dir():
        return target
    if missing := [program for program in ("node", "npm", "npx") if shutil.which(program) is None]:
        raise HarnessError(f"{' and '.join(missing)} not found: Node.js 20 or later is needed to build KFP's interface")
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    writable_copy(pipelines_folder() / "frontend", partial)
    log = places.logs / "build.log"
    for folder, command in _STEPS:
        with log.open("a") as output:
            done = subprocess.run(
                command, cwd=partial / folder, env=os.environ | _QUICK, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            raise HarnessError(f"{' '.join(command)} failed; see {log}")
    shutil.rmtree(partial / "node_modules")
    partial.rename(target)
    return target
