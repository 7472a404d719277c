"""Images of one static program, written without a build tool: the program is all they hold."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

USER = 65532


def program_image(
    folder: Path,
    name: str,
    files: Mapping[str, Path],
    *,
    working_dir: str = "/",
    entrypoint: Sequence[str] = (),
    writable: Sequence[str] = (),
) -> Path:
    """Write a docker archive with one layer.

    Args:
        folder: where the archive goes; its file name changes with its content.
        name: of the image, with tag.
        files: absolute path in the image -> file of this machine; all are executable.
        working_dir: of the process.
        entrypoint: of the image.
        writable: folders that the image's user owns.

    Returns:
        The archive's path.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        parents = {str(parent).lstrip("/") for path in [*files, *writable] for parent in Path(path).parents}
        for path in sorted(parents - {""}):
            tar.addfile(_entry(path, tarfile.DIRTYPE, 0o755))
        for path in sorted(writable):
            entry = _entry(path.lstrip("/"), tarfile.DIRTYPE, 0o1777)
            entry.uid = entry.gid = USER
            tar.addfile(entry)
        for path, source in sorted(files.items()):
            entry = _entry(path.lstrip("/"), tarfile.REGTYPE, 0o755)
            entry.size = source.stat().st_size
            with source.open("rb") as content:
                tar.addfile(entry, content)
    data = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": f"{USER}:{USER}",
                "WorkingDir": working_dir,
                "Entrypoint": list(entrypoint),
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests/cluster/harness"}],
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    short = name.rpartition("/")[2].replace(":", "-")
    target = folder / f"{short}-{digest[:12]}.tar"
    if target.exists():
        return target
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, mode="w") as tar:
        for path, content in ((f"{digest}.json", config), ("layer.tar", data), ("manifest.json", manifest)):
            entry = _entry(path, tarfile.REGTYPE, 0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    for old in folder.glob(f"{short}-*.tar"):
        old.unlink()
    partial.rename(target)
    return target


def _entry(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.mtime = kind, mode, 0
    return entry
