"""The one interface of all stores, and how a URI becomes a store.

A store maps keys (``experiments/e/trials/t/manifest.json``) to bytes. What every store promises is checked by one
contract suite (tests/contract/test_stores.py):

- A write is atomic: a reader sees the old content or the new one, never a part.
- Writes may be repeated; deleting what is not there is no error.
- A folder counts as there only when its marker object is, and that is written last.
- Failures of the surroundings are retried a bounded number of times, then raised as SurroundingsError.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from rankwise.errors import InvalidInput, Problem, RankwiseError
from rankwise.retry import Backoff

_MAX_KEY_BYTES = 1024  # S3's limit
_MAX_NAME_BYTES = 255  # Linux file names
TEMPORARY = ".tmp"
"""First part of keys that no store gives out: the local store keeps half-written files there."""


class NotFound(RankwiseError):
    """There is nothing under that key."""


class Incomplete(NotFound):
    """Some objects of a folder are there but its marker is not: its upload was interrupted, or still runs."""


class Store(Protocol):
    """Keys to bytes. See the module's docstring for what every implementation promises.

    Keys are relative paths with ``/``; see :func:`check_key`.
    """

    @property
    def uri(self) -> str:
        """Where the store is, in the form that :func:`open_store` reads; holds no secret."""
        ...

    def put_file(self, key: str, source: Path) -> None:
        """Store a file's content.

        Raises:
            FileNotFoundError: ``source`` does not exist.
            SurroundingsError: the store failed after bounded retries.
        """
        ...

    def put_bytes(self, key: str, data: bytes) -> None:
        """Store bytes.

        Raises:
            SurroundingsError: the store failed after bounded retries.
        """
        ...

    def put_folder(self, prefix: str, folder: Path) -> None:
        """Store all files of a folder (recursively) as ``prefix/relative/path``, then the marker that completes it.

        While a folder is being replaced it counts as incomplete. What must never be missing, such as the newest
        checkpoint, goes under a new prefix before the old one is deleted.

        Raises:
            ValueError: the folder has no files, or holds a file with the marker's name.
            NotADirectoryError: ``folder`` is no folder.
            SurroundingsError: the store failed after bounded retries.
        """
        ...

    def get_bytes(self, key: str) -> bytes:
        """Read an object.

        Raises:
            NotFound: there is no such object.
            SurroundingsError: the store failed after bounded retries.
        """
        ...

    def get_file(self, key: str, target: Path) -> None:
        """Read an object into a file, which appears whole or not at all; parent folders are made.

        Raises:
            NotFound: there is no such object.
            SurroundingsError: the store, or the disk, failed.
        """
        ...

    def get_folder(self, prefix: str, target: Path) -> None:
        """Read a folder that :meth:`put_folder` stored; ``target`` appears whole or not at all.

        Raises:
            NotFound: there is nothing under the prefix.
            Incomplete: its marker is missing, or its objects are not those that the marker names.
            ValueError: ``target`` exists and is not an empty folder.
            SurroundingsError: the store, or the disk, failed.
        """
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object under exactly this key (not a folder)."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Keys that start with ``prefix`` (as text, not as a folder), in ascending order of code points."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        ...


def check_key(key: str, path: str = "key") -> str:
    """Return the key if it is one that every store can hold.

    Raises:
        InvalidInput: it is empty, absolute, too long, holds ``..``, ``.``, an empty part, a backslash or a control
            character, is no valid Unicode, or starts with ``.tmp/``.
    """
    allowed = (
        f"a relative path of parts between slashes, none of them '', '.' or '..', without control characters and "
        f"backslashes, not starting with {TEMPORARY}/, up to {_MAX_KEY_BYTES} bytes ({_MAX_NAME_BYTES} a part)"
    )
    parts = key.split("/")
    try:
        too_long = len(key.encode()) > _MAX_KEY_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts)
    except UnicodeEncodeError:
        too_long = True
    if (
        too_long
        or any(part in ("", ".", "..") for part in parts)
        or parts[0] == TEMPORARY
        or any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in key)
    ):
        raise InvalidInput([Problem(path, ascii(key)[1:-1], allowed)])
    return key


def open_store(uri: str, environment: Mapping[str, str] | None = None, backoff: Backoff | None = None) -> Store:
    """Open a store. Nothing is created or connected to before the first use.

    Args:
        uri: a folder (``/folder``, ``folder``, ``file:///folder``) or ``s3://bucket/prefix`` (``minio://`` means the
            same: Kubeflow Pipelines writes it so).
        environment: for S3: ``S3_ENDPOINT`` (``http://host:port`` or ``https://host``; ``AWS_ENDPOINT_URL_S3`` and
            ``AWS_ENDPOINT_URL`` are read when it is not set), ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``
            (both, or none for anonymous access), ``AWS_SESSION_TOKEN``, ``AWS_REGION``. An empty variable counts as
            unset. ``os.environ`` when None.
        backoff: how long an S3 server that does not answer is asked again; see :class:`~rankwise.artifacts.s3.S3Store`.

    Raises:
        InvalidInput: the URI or a variable is not of these forms; secrets are never shown.
    """
    # Imported here: both modules import this one, and a search on one machine needs no S3 client.
    from rankwise.artifacts.local import LocalStore

    if "://" not in uri:
        if not uri:
            raise InvalidInput([Problem("store", uri, "a folder, file:///folder or s3://bucket/prefix")])
        return LocalStore(Path(uri).expanduser())
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path and not parts.query:
        return LocalStore(Path(unquote(parts.path)))
    if parts.scheme in ("s3", "minio"):
        from rankwise.artifacts.s3 import open_s3

        return open_s3(uri, os.environ if environment is None else environment, backoff)
    # Not shown as it is: it may be a URL with a password in it.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    raise InvalidInput([Problem("store", shown, "a folder, file:///folder or s3://bucket/prefix")])
