"""One engine per run folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankwise.errors import InvalidInput, Problem, SurroundingsError

LOCK_FILE = "engine.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock.

    The kernel holds the lock (``flock``) and lets go when the process ends in whatever way, so that a dead engine never
    blocks the next one. The pid in the file is for the message only.

    Raises:
        InvalidInput: another engine works in this folder.
        SurroundingsError: the folder or the lock file cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Not inherited by trials (PEP 446): only the engine's own life counts.
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise SurroundingsError(f"the run folder {folder} cannot be used: {error}; nothing was started") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", errors="replace").strip() or "unknown"
            allowed = f"a folder in which no other run works (process {holder} works in this one)"
            raise InvalidInput([Problem("--folder", str(folder), allowed)]) from error
        except OSError as error:
            raise SurroundingsError(f"the run folder {folder} cannot be locked: {error}") from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            raise SurroundingsError(f"the run folder {folder} cannot be written: {error}") from error
        yield
    finally:
        os.close(descriptor)
