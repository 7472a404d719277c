"""Folders on top of single objects, the same for every store: files first, the marker last."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path

from rankwise.artifacts.store import Incomplete, NotFound, Store, check_key
from rankwise.errors import InvalidInput, SurroundingsError

MARKER = ".complete"
"""Name of the object that is written last. It lists the files with their sizes and hashes."""

_READS = 3  # a folder that changes while it is read is read again


def put_folder(store: Store, prefix: str, folder: Path) -> None:
    """Implements :meth:`Store.put_folder` with the store's other methods."""
    if not folder.is_dir():
        raise NotADirectoryError(f"not a folder: {folder}")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    if not files or MARKER in files:
        raise ValueError(f"a folder to store needs files, none of them named {MARKER}: {folder}")
    marker = check_key(f"{prefix}/{MARKER}")
    keys = {name: check_key(f"{prefix}/{name}") for name in files}
    try:
        old = set(_read_marker(store, prefix))
    except NotFound:
        old = set()
    store.delete(marker)
    for name, path in files.items():
        store.put_file(keys[name], path)
    listed = {name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()}
    store.put_bytes(marker, json.dumps({"schema_version": 1, "files": listed}, sort_keys=True, indent=1).encode())
    for name in sorted(old - set(files)):
        store.delete(f"{prefix}/{name}")


def get_folder(store: Store, prefix: str, target: Path) -> None:
    """Implements :meth:`Store.get_folder` with the store's other methods."""
    check_key(f"{prefix}/{MARKER}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"the target must not exist or be an empty folder: {target}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for read in range(_READS):
                if _read_files(store, prefix, temporary):
                    break
                if read == _READS - 1:
                    raise Incomplete(f"{store.uri}: the objects under {prefix!r} are not those that its marker names")
            temporary.chmod(0o755)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise SurroundingsError(f"could not write {target}: {error.strerror or error}") from error


def _read_files(store: Store, prefix: str, into: Path) -> bool:
    """Read what the marker names; False when an object is missing or another one, as while it is being replaced."""
    for name, sha256 in _read_marker(store, prefix).items():
        path = into / name
        try:
            store.get_file(f"{prefix}/{name}", path)
        except NotFound:
            return False
        if _sha256(path) != sha256:
            return False
    return True


def _read_marker(store: Store, prefix: str) -> dict[str, str]:
    """Names and hashes of the files.

    Raises:
        NotFound, Incomplete: see :meth:`Store.get_folder`.
    """
    try:
        text = store.get_bytes(f"{prefix}/{MARKER}")
    except NotFound:
        if store.list(prefix + "/"):
            raise Incomplete(
                f"{store.uri}: {prefix!r} is there only in part (its upload was interrupted or still runs)"
            ) from None
        raise NotFound(f"{store.uri}: there is nothing under {prefix!r}") from None
    try:
        # check_key: a marker that somebody tampered with must not write outside of the target.
        return {check_key(name): str(entry["sha256"]) for name, entry in json.loads(text)["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise Incomplete(f"{store.uri}: the marker of {prefix!r} cannot be read ({type(error).__name__})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
