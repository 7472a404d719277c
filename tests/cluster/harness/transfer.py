"""Images from buildah's storage into containerd in one stream, each layer once and only where it is not there yet.

A docker archive of one of our images has 4 GB, nearly all of it layers that both images share and that no change of
ours touches. What is sent here is an OCI image layout (a tar of blobs with an index): containerd takes a layout whose
blobs it has already got.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from harness.places import HarnessError

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def send(push: Callable[[str, Path], list[str]], images: Iterable[str], known: Iterable[str], sink: IO[bytes]) -> None:
    """Write an OCI image layout of some images.

    Args:
        push: the command that writes an image as a docker archive to a path; the path is a named pipe.
        images: their names.
        known: digests (``sha256:…``) of blobs that the receiver has.
        sink: takes the tar.

    Raises:
        HarnessError: a push failed.
    """
    sent = set(known)
    manifests = []
    with tarfile.open(fileobj=sink, mode="w|") as layout:
        for image in images:
            manifest = _one(push, image, sent, layout)
            content = json.dumps(manifest).encode()
            digest = _blob(layout, content, sent)
            annotations = {"io.containerd.image.name": image, "org.opencontainers.image.ref.name": image}
            manifests.append(
                {"mediaType": _MANIFEST, "digest": digest, "size": len(content), "annotations": annotations}
            )
        _add(layout, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(layout, "index.json", json.dumps({"schemaVersion": 2, "manifests": manifests}).encode())


def _one(push: Callable[[str, Path], list[str]], image: str, sent: set[str], layout: tarfile.TarFile) -> dict[str, Any]:
    """Send an image's layers and configuration; its manifest."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder, "archive")
        os.mkfifo(pipe)
        with tempfile.TemporaryFile() as said:
            # Both ends are ours before the writer starts: it may end at any moment, even before it has opened its own.
            source = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
            keeper = os.open(pipe, os.O_WRONLY)
            os.set_blocking(source, True)
            process = subprocess.Popen(push(image, pipe), stdout=said, stderr=said)
            threading.Thread(target=_close_after, args=(process, keeper), daemon=True).start()
            problem = ""
            try:
                with os.fdopen(source, "rb") as archive:
                    layers, files = _read(archive, sent, layout)
                    shutil.copyfileobj(archive, _Nowhere())
            except tarfile.ReadError as error:
                problem = str(error)
            finally:
                if problem or sys.exc_info()[0]:
                    # Nobody reads any more, so it would write for ever.
                    process.kill()
            if process.wait() or problem:
                said.seek(0)
                words = said.read().decode(errors="replace")[-2000:]
                raise HarnessError(f"{image} cannot be exported: {words or problem}")
    description = json.loads(files["manifest.json"])[0]
    configuration = files[description["Config"]]
    order = json.loads(configuration)["rootfs"]["diff_ids"]
    config = {"mediaType": _CONFIG, "digest": _blob(layout, configuration, sent), "size": len(configuration)}
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": config,
        "layers": [{"mediaType": _LAYER, "digest": digest, "size": layers[digest]} for digest in order],
    }


def _read(source: IO[bytes], sent: set[str], layout: tarfile.TarFile) -> tuple[dict[str, int], dict[str, bytes]]:
    """Pass the layers of a docker archive on; their sizes by digest, and its other files."""
    layers: dict[str, int] = {}
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=source, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            if not member.name.endswith(".tar"):
                files[member.name] = content.read()
                continue
            # buildah names a layer's file by the layer's digest.
            name = Path(member.name).stem
            layers[f"sha256:{name}"] = member.size
            if f"sha256:{name}" not in sent:
                sent.add(f"sha256:{name}")
                entry = tarfile.TarInfo(f"blobs/sha256/{name}")
                entry.size = member.size
                layout.addfile(entry, content)
    return layers, files


def _close_after(process: subprocess.Popen[bytes], descriptor: int) -> None:
    """Close a pipe's end when a process has ended: then its reader meets the end of the data."""
    process.wait()
    os.close(descriptor)


def _blob(layout: tarfile.TarFile, content: bytes, sent: set[str]) -> str:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if digest not in sent:
        sent.add(digest)
        _add(layout, f"blobs/sha256/{digest.removeprefix('sha256:')}", content)
    return digest


def _add(layout: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    layout.addfile(entry, io.BytesIO(content))


class _Nowhere:
    """Takes what follows a tar's end, so that its writer is not cut off."""

    def write(self, _: bytes) -> None:
        return
