"""The manifest that every artifact of a pipeline carries as its metadata: what made it, of what."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import rankwise

Value = str | int | float

_PACKAGES = ("kfp", "torch", "transformers", "peft")


def sha256_of(path: Path) -> str:
    """Hash of a file, or of a folder's files with their names, hex.

    Raises:
        FileNotFoundError: there is nothing.
    """
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    if not path.is_dir():
        raise FileNotFoundError(path)
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def manifest(
    step: str, content: Path, origin: Mapping[str, Value], seeds: Mapping[str, int] | None = None
) -> dict[str, Value]:
    """What is known of an artifact, as the flat values that the UI shows.

    Args:
        step: which step made it.
        content: its file or folder, which is hashed.
        origin: what it comes from: ``run`` (id of the pipeline's run), ``experiment``, ``namespace``, ``trial``,
            ``data_sha256`` (hash of the examples, not of their file), and whatever else is known.
        seeds: purpose -> seed.

    Returns:
        only what is known: nothing empty is in it.
    """
    known: dict[str, Value] = {
        **origin,
        "step": step,
        "sha256": sha256_of(content),
        "version_rankwise": rankwise.__version__,
        "version_python": platform.python_version(),
        **{f"version_{name}": _version(name) for name in _PACKAGES},
        **{f"seed_{purpose}": seed for purpose, seed in (seeds or {}).items()},
    }
    return {key: value for key, value in known.items() if value != ""}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
