"""A folder on this machine as a store."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rankwise.artifacts import folders
from rankwise.artifacts.store import TEMPORARY, NotFound, check_key
from rankwise.errors import SurroundingsError


class LocalStore:
    """Objects are files below ``root``, which is made at the first write.

    A write goes to a file in ``root/.tmp``, is forced to disk and renamed: after a crash or a power cut the old
    content or the new one is there. Unlike on S3, a key cannot also be the start of another key's path.

    Args:
        root: the folder; relative to the working directory of now.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def __repr__(self) -> str:
        return f"LocalStore({str(self._root)!r})"

    @property
    def uri(self) -> str:
        return self._root.as_uri()

    def put_file(self, key: str, source: Path) -> None:
        with source.open("rb") as stream:
            self._write(key, lambda out: shutil.copyfileobj(stream, out, 1 << 20))

    def put_bytes(self, key: str, data: bytes) -> None:
        def write(out: BinaryIO) -> None:
            out.write(data)

        self._write(key, write)

    def put_folder(self, prefix: str, folder: Path) -> None:
        folders.put_folder(self, prefix, folder)

    def get_bytes(self, key: str) -> bytes:
        with self._reading(key) as stream:
            return stream.read()

    def get_file(self, key: str, target: Path) -> None:
        with self._reading(key) as stream:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                replace_file(target, target.parent, lambda out: shutil.copyfileobj(stream, out, 1 << 20))
            except OSError as error:
                raise SurroundingsError(f"could not write {target}: {error.strerror or error}") from error

    def get_folder(self, prefix: str, target: Path) -> None:
        folders.get_folder(self, prefix, target)

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> list[str]:
        # Only the deepest folder that the prefix names has to be walked.
        start = prefix.rpartition("/")[0]
        top = self._path(start) if start else self._root
        return sorted(key for key in self._walk(top) if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            path.unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError):
            return  # no object of that name
        except OSError as error:
            raise SurroundingsError(f"{self.uri}: could not delete {key!r}: {error.strerror or error}") from error

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _walk(self, top: Path) -> Iterator[str]:
        for folder, names, files in os.walk(top):
            if Path(folder) == self._root and TEMPORARY in names:
                names.remove(TEMPORARY)
            for name in files:
                yield (Path(folder) / name).relative_to(self._root).as_posix()

    def _reading(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NotFound(f"{self.uri}: there is no object {key!r}") from None
        except OSError as error:
            raise SurroundingsError(f"{self.uri}: could not read {key!r}: {error.strerror or error}") from error

    def _write(self, key: str, write: Callable[[BinaryIO], None]) -> None:
        path = self._path(key)
        try:
            temporary = self._root / TEMPORARY
            temporary.mkdir(parents=True, exist_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, temporary, write)
        except OSError as error:
            raise SurroundingsError(f"{self.uri}: could not write {key!r}: {error.strerror or error}") from error


def replace_file(path: Path, temporary: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that it appears whole or not at all, also after a power cut.

    Args:
        path: the file; its folder exists.
        temporary: folder on the same file system for the half-written file.
        write: writes the content to the stream that it is given.
    """
    half = temporary / f".{uuid.uuid4().hex}"
    try:
        with half.open("xb") as out:  # permissions as the umask says, unlike those of tempfile
            write(out)
            out.flush()
            os.fsync(out.fileno())
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
