"""Images on their way to containerd: a docker archive in, an OCI image layout out."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

SHARED, OWN, OTHER = b"shared layer" * 1000, b"the first image's", b"the second image's"


@pytest.fixture
def transfer() -> ModuleType:
    return importlib.import_module("harness.transfer")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def docker_archive(path: Path, layers: list[bytes]) -> None:
    """What `buildah push IMAGE docker-archive:PATH` writes, with its extra files."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}" for layer in layers]}})
    name = f"{digest(config.encode())}.json"
    files = {f"{digest(layer)}.tar": layer for layer in reversed(layers)}
    files |= {name: config.encode(), "old/VERSION": b"1.0"}
    files["manifest.json"] = json.dumps([{"Config": name, "Layers": list(files), "RepoTags": ["x"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for file, content in files.items():
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("old/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../x.tar"
        tar.addfile(link)


def sent(transfer: ModuleType, folder: Path, known: set[str]) -> dict[str, bytes]:
    for image, layers in (("one:1", [SHARED, OWN]), ("two:1", [SHARED, OTHER])):
        docker_archive(folder / image, layers)
    sink = io.BytesIO()
    transfer.send(lambda image, pipe: ["cp", str(folder / image), str(pipe)], ["one:1", "two:1"], known, sink)
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_every_blob_is_sent_once_under_its_digest(transfer: ModuleType, tmp_path: Path) -> None:
    files = sent(transfer, tmp_path, set())

    blobs = {name.removeprefix("blobs/sha256/"): content for name, content in files.items() if "sha256" in name}
    assert all(digest(content) == name for name, content in blobs.items())
    index = json.loads(files["index.json"])
    assert [one["annotations"]["io.containerd.image.name"] for one in index["manifests"]] == ["one:1", "two:1"]
    for one, layers in zip(index["manifests"], ([SHARED, OWN], [SHARED, OTHER]), strict=True):
        manifest = json.loads(blobs[one["digest"].removeprefix("sha256:")])
        assert one["size"] == len(json.dumps(manifest))
        assert [entry["digest"] for entry in manifest["layers"]] == [f"sha256:{digest(layer)}" for layer in layers]
        assert [entry["size"] for entry in manifest["layers"]] == [len(layer) for layer in layers]
        assert manifest["config"]["digest"].removeprefix("sha256:") in blobs


def test_what_the_receiver_has_is_named_and_not_sent(transfer: ModuleType, tmp_path: Path) -> None:
    files = sent(transfer, tmp_path, {f"sha256:{digest(SHARED)}"})

    assert f"blobs/sha256/{digest(SHARED)}" not in files
    assert f"blobs/sha256/{digest(OWN)}" in files
    manifests = [
        json.loads(files[f"blobs/sha256/{one['digest'][7:]}"]) for one in json.loads(files["index.json"])["manifests"]
    ]
    assert all(manifest["layers"][0]["digest"] == f"sha256:{digest(SHARED)}" for manifest in manifests)


def test_a_failed_push_says_why(transfer: ModuleType, tmp_path: Path) -> None:
    docker_archive(tmp_path / "one:1", [OWN])
    script = f'cat "{tmp_path}/one:1" > "$0"; echo no space left >&2; exit 5'

    with pytest.raises(Exception, match=r"(?s)one:1 cannot be exported: .*no space left"):
        transfer.send(lambda image, pipe: ["sh", "-c", script, str(pipe)], ["one:1"], [], io.BytesIO())


def test_a_push_that_never_begins_does_not_hang(transfer: ModuleType) -> None:
    with pytest.raises(Exception, match=r"(?s)one:1 cannot be exported: .*no such image"):
        transfer.send(lambda image, pipe: ["sh", "-c", "echo no such image >&2; exit 1"], ["one:1"], [], io.BytesIO())
