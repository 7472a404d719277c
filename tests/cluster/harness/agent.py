"""Two small stand-ins for parts that a cluster gets from elsewhere: cluster DNS and a volume provisioner.

The resolver answers for ``SERVICE.NAMESPACE.svc.cluster.local`` by asking the API server at each query (address records
of Services with a cluster address; everything else does not exist). The provisioner gives each pending claim a folder
of this machine, which any user may write to, and removes it with its claim.

Run as ``python -m harness.agent KUBECONFIG ADDRESS VOLUMES``; Python's standard library is enough.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

STORAGE_CLASS = "standard"
PROVISIONER = "rankwise.dev/folder"
_SUFFIX = ".svc.cluster.local"
_OK, _NO_SUCH_NAME, _FAILED = 0, 3, 2
_A = 1


class Api:
    """The API server over plain HTTPS, as the user of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._token = config["users"][0]["user"]["token"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, data, headers, method=method)
        with self._opener.open(request, timeout=5) as answer:
            return dict(json.load(answer))


def resolve(api: Api, query: bytes) -> bytes:
    """The answer to one DNS query (RFC 1035), for a Service's address.

    Args:
        query: the datagram as it came; one question.
    """
    labels, position = [], 12
    while query[position]:
        length = query[position]
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace").lower())
        position += length + 1
    question = query[12 : position + 5]
    kind = struct.unpack(">H", query[position + 1 : position + 3])[0]
    name = ".".join(labels)
    address, code = None, _NO_SUCH_NAME
    parts = name.removesuffix(_SUFFIX).split(".")
    if name.endswith(_SUFFIX) and len(parts) == 2:
        try:
            service = api("GET", f"/api/v1/namespaces/{parts[1]}/services/{parts[0]}")
            address, code = service["spec"].get("clusterIP"), _OK
        except urllib.error.HTTPError as error:
            code = _NO_SUCH_NAME if error.code == 404 else _FAILED
        except OSError:
            code = _FAILED
    answers = b""
    if address not in {None, "None"} and kind == _A:
        answers = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 1, 4) + socket.inet_aton(str(address))
    flags = 0x8580 | code
    return query[:2] + struct.pack(">HHHHH", flags, 1, 1 if answers else 0, 0, 0) + question + answers


def serve_names(api: Api, address: str) -> None:
    """Answer queries for ever."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))

    def answer(query: bytes, client: tuple[str, int]) -> None:
        try:
            server.sendto(resolve(api, query), client)
        except (IndexError, struct.error) as error:
            print(f"dropped a query: {error}", flush=True)

    while True:
        query, client = server.recvfrom(512)
        threading.Thread(target=answer, args=(query, client), daemon=True).start()


def provision(api: Api, volumes: Path) -> None:
    """Give each pending claim of :data:`STORAGE_CLASS` a volume, and remove released volumes; one round."""
    for claim in api("GET", "/api/v1/persistentvolumeclaims")["items"]:
        meta, spec = claim["metadata"], claim["spec"]
        if claim["status"].get("phase") != "Pending" or spec.get("storageClassName") != STORAGE_CLASS:
            continue
        name = f"pvc-{meta['uid']}"
        folder = volumes / name
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "storageClassName": STORAGE_CLASS,
                # "Retain": the volume controller must not look for a plugin that deletes it; we do.
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(folder)},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "name": meta["name"],
                    "namespace": meta["namespace"],
                    "uid": meta["uid"],
                },
            },
        }
        try:
            api("POST", "/api/v1/persistentvolumes", volume)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
    for volume in api("GET", "/api/v1/persistentvolumes")["items"]:
        annotations = volume["metadata"].get("annotations", {})
        if (
            annotations.get("pv.kubernetes.io/provisioned-by") == PROVISIONER
            and volume["status"]["phase"] == "Released"
        ):
            api("DELETE", f"/api/v1/persistentvolumes/{volume['metadata']['name']}")
            shutil.rmtree(volumes / volume["metadata"]["name"], ignore_errors=True)


def main() -> None:
    """Serve both until the process is ended."""
    kubeconfig, address, volumes = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    api = Api(kubeconfig)
    threading.Thread(target=serve_names, args=(api, address), daemon=True).start()
    while True:
        try:
            provision(api, volumes)
        except (OSError, KeyError, ValueError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
