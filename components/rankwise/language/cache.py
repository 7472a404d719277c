"""Vectors of texts on disk, shared by all processes of a machine or of a mounted volume.

One file per encoder's identity, ``<root>/vectors/<hash of identity>/vectors.bin``, little endian::

    header   magic (8) · dimension d (u4) · sha256 of the identity (32) · file id, random (16) · crc32 of these (u4)
    record   crc32 of what follows (u4) · sha256 of identity and text (32) · vector (d × f4)
    record   …

Records are appended under an exclusive lock on the file and never changed. What can go wrong, and what then happens:

* a writer dies in the middle of a record: the rest of a record at the end is ignored, and cut off by the next writer;
* bytes are wrong (power cut, bad disk): the record's checksum fails, the text counts as missing and is stored anew;
* the header is wrong, or of another version: the file counts as empty, and the next writer starts it anew;
* somebody deletes the folder while it is used: the file id tells that the file is another one, and all that was known
  of the old one is forgotten.

The file is read with ``pread`` and not mapped into memory: a mapped file that somebody truncates kills its readers.
Nothing is flushed to the disk by force, since all of it can be made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import SurroundingsError
from rankwise.retry import Backoff, call

logger = logging.getLogger(__name__)

_MAGIC = b"RWVEC\x00\x00\x01"  # the last byte is the version of the format
_HEADER = struct.Struct("<8sI32s16sI")
_KEY_BYTES = 32
_CRC_BYTES = 4
_CHUNK_BYTES = 16 * 2**20
"""Bytes read at once: large enough that calls cost nothing, small enough that memory stays flat."""

# An append takes milliseconds, so a lock that is still held after these waits (8 s at most) will not be let go soon.
_LOCK_BACKOFF = Backoff(attempts=13, first=0.01, longest=2.0)


class VectorCache:
    """Append-only store of float32 vectors by text, for one encoder. Safe under threads and processes.

    Args:
        root: the cache folder; the file lies under ``root/vectors``.
        identity: names everything besides the text that a vector depends on (model, revision, pooling, …).
        dimension: length d of a vector.
        lock_backoff: how long to wait for another writer.

    Raises:
        ValueError: the dimension is not positive.
    """

    def __init__(self, root: Path, identity: str, dimension: int, lock_backoff: Backoff = _LOCK_BACKOFF) -> None:
        if dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {dimension}")
        digest = hashlib.sha256(identity.encode())
        self.identity = identity
        self.dimension = dimension
        self.folder = root / "vectors" / digest.hexdigest()[:32]
        self.path = self.folder / "vectors.bin"
        self._identity_hash = digest.digest()
        self._record = np.dtype(
            [("crc", "<u4"), ("key", f"V{_KEY_BYTES}"), ("vector", "<f4", (dimension,))]
        )  # packed: no gaps between the fields
        self._lock_backoff = lock_backoff
        self._mutex = threading.Lock()
        self._warned = False
        self._file_id: bytes | None = None
        self._rows: dict[bytes, int] = {}  # key -> number of its record, of the file with that id
        self._scanned = 0  # records whose keys are in _rows
        self._last = b""  # checksum and key of the last of them

    def __len__(self) -> int:
        """Number of different texts in the file, as far as it can be read."""
        with self._mutex, self._reading() as descriptor:
            return 0 if descriptor is None else len(self._rows)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Look texts up. A file that cannot be read counts as empty; that is logged once.

        Returns:
            vectors (n, d), zero where nothing was found; found (n,).
        """
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)  # (n, d)
        found = np.zeros(len(texts), dtype=np.bool_)  # (n,)
        keys = self._keys(texts)
        with self._mutex:
            try:
                with self._reading() as descriptor:
                    if descriptor is not None:
                        self._gather(descriptor, keys, vectors, found)
            except OSError as error:
                self._warn(f"the vector cache cannot be read ({error.strerror or error}); texts are embedded again")
                found[:] = False
        vectors[~found] = 0.0
        return vectors, found

    def _keys(self, texts: Sequence[str]) -> list[bytes]:
        start = hashlib.sha256(self._identity_hash)
        keys = []
        for text in texts:
            digest = start.copy()
            # A lone surrogate cannot be encoded strictly, and a text of a user may hold one.
            digest.update(text.encode("utf-8", "surrogatepass"))
            keys.append(digest.digest())
        return keys

    @contextmanager
    def _reading(self) -> Iterator[int | None]:
        """A descriptor of the file, with the index brought up to date; None when there is no usable file."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget()
            yield None
            return
        try:
            yield descriptor if self._refresh(descriptor) else None
        finally:
            os.close(descriptor)

    def _forget(self) -> None:
        self._file_id = None
        self._rows.clear()
        self._scanned = 0
        self._last = b""

    def _refresh(self, descriptor: int) -> bool:
        """Bring the index up to date with the file; False, and an empty index, when its header is not ours."""
        file_id = self._read_header(descriptor)
        whole = self._whole_records(descriptor)
        if file_id is None or file_id != self._file_id or whole < self._scanned or self._is_cut(descriptor):
            self._forget()
        if file_id is None:
            return False
        self._file_id = file_id
        size = self._record.itemsize
        step = max(1, _CHUNK_BYTES // size)
        while self._scanned < whole:
            data = os.pread(descriptor, min(step, whole - self._scanned) * size, self._offset(self._scanned))
            count = len(data) // size
            if count == 0:
                break  # cut since its size was asked for
            keys = np.frombuffer(data, dtype=self._record, count=count)["key"].tobytes()
            for i in range(count):
                self._rows[keys[i * _KEY_BYTES : (i + 1) * _KEY_BYTES]] = self._scanned + i
            self._scanned += count
            start = (count - 1) * size
            self._last = data[start : start + _CRC_BYTES + _KEY_BYTES]
        return True

    def _is_cut(self, descriptor: int) -> bool:
        """Whether the file was cut from outside below what we know of it, and has grown again since."""
        if not self._scanned:
            return False
        return os.pread(descriptor, len(self._last), self._offset(self._scanned - 1)) != self._last

    def _read_header(self, descriptor: int) -> bytes | None:
        """The file's id; None when the header is torn, wrong or of another encoder."""
        data = os.pread(descriptor, _HEADER.size, 0)
        if len(data) < _HEADER.size:
            return None
        magic, dimension, identity_hash, file_id, crc = _HEADER.unpack(data)
        ours = (magic, dimension, identity_hash) == (_MAGIC, self.dimension, self._identity_hash)
        return bytes(file_id) if ours and crc == zlib.crc32(data[:-_CRC_BYTES]) else None

    def _whole_records(self, descriptor: int) -> int:
        return max(0, os.fstat(descriptor).st_size - _HEADER.size) // self._record.itemsize

    def _offset(self, row: int) -> int:
        return _HEADER.size + row * self._record.itemsize

    def _gather(
        self, descriptor: int, keys: list[bytes], vectors: NDArray[np.float32], found: NDArray[np.bool_]
    ) -> None:
        """Fill in the rows of the texts that the file has; runs of neighbouring records are read at once."""
        wanted = np.fromiter((self._rows.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))  # (n,)
        places = np.flatnonzero(wanted >= 0)
        if not len(places):
            return
        places = places[np.argsort(wanted[places], kind="stable")]
        rows = wanted[places]
        step = max(1, _CHUNK_BYTES // self._record.itemsize)
        # A run ends where the next record is not the neighbour, and after `step` records.
        run = np.concatenate([[0], np.cumsum(np.diff(rows) != 1)])
        within = np.arange(len(rows)) - np.searchsorted(run, run)
        starts = np.flatnonzero(within % step == 0)
        damaged = 0
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            damaged += self._read_run(descriptor, int(rows[start]), keys, places[start:stop], vectors, found)
        if damaged:
            self._warn(f"{damaged} records of the vector cache are damaged; their texts are embedded again")

    def _read_run(
        self,
        descriptor: int,
        first: int,
        keys: list[bytes],
        places: NDArray[np.int64],
        vectors: NDArray[np.float32],
        found: NDArray[np.bool_],
    ) -> int:
        """Read neighbouring records into the places they are wanted at; returns how many were damaged."""
        size = self._record.itemsize
        data = os.pread(descriptor, len(places) * size, self._offset(first))
        count = len(data) // size
        records = np.frombuffer(data, dtype=self._record, count=count)
        view = memoryview(data)
        sums = records["crc"].tolist()
        good = np.zeros(len(places), dtype=np.bool_)
        for i, place in enumerate(places[:count].tolist()):
            payload = view[i * size + _CRC_BYTES : (i + 1) * size]
            good[i] = payload[:_KEY_BYTES] == keys[place] and zlib.crc32(payload) == sums[i]
        vectors[places[good]] = records["vector"][good[:count]]
        found[places[good]] = True
        for place in places[~good].tolist():
            self._rows.pop(keys[place], None)  # so that the next put stores it anew
        return int((~good).sum())

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(message, extra={"folder": str(self.folder)})

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> int:
        """Store vectors; texts that the file already has are left as they are.

        Args:
            texts: n texts.
            vectors: (n, d), finite.

        Returns:
            How many were written.

        Raises:
            ValueError: wrong shape, or a value that is not finite.
            SurroundingsError: the file cannot be written, or another process holds its lock for too long. Nothing
                that was stored before is lost.
        """
        if vectors.shape != (len(texts), self.dimension):
            raise ValueError(f"vectors must have shape ({len(texts)}, {self.dimension}), got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError("vectors must be finite")
        keys = self._keys(texts)
        with self._mutex:
            try:
                return call(
                    lambda: self._append(keys, vectors),
                    is_temporary=lambda error: isinstance(error, BlockingIOError | FileNotFoundError),
                    backoff=self._lock_backoff,
                )
            except OSError as error:
                raise SurroundingsError(
                    f"cannot write the vector cache {self.path}: {error.strerror or error}; free some space or set "
                    "RANKWISE_CACHE to another folder; what was stored before is kept"
                ) from error

    def _append(self, keys: list[bytes], vectors: NDArray[np.float32]) -> int:
        """One try of :meth:`put`.

        Raises:
            BlockingIOError: another writer holds the lock.
            FileNotFoundError: the folder was deleted meanwhile.
            OSError: the disk failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Locked, but perhaps not the file that has the name now: then others would never see what we write.
            if not os.path.samestat(os.fstat(descriptor), self.path.stat()):
                raise FileNotFoundError(self.path)
            if not self._refresh(descriptor):
                self._start_anew(descriptor)
            new: dict[bytes, int] = {}
            for i, key in enumerate(keys):
                if key not in self._rows:
                    new.setdefault(key, i)
            records = np.zeros(len(new), dtype=self._record)
            records["key"] = np.frombuffer(b"".join(new), dtype=f"V{_KEY_BYTES}")
            records["vector"] = vectors[list(new.values())]
            size = self._record.itemsize
            data = bytearray(records.tobytes())
            for i in range(len(new)):
                with memoryview(data)[i * size + _CRC_BYTES : (i + 1) * size] as payload:
                    crc = zlib.crc32(payload)
                data[i * size : i * size + _CRC_BYTES] = crc.to_bytes(_CRC_BYTES, "little")
            end = self._offset(self._whole_records(descriptor))
            os.ftruncate(descriptor, end)  # cuts what a dead writer left of a record
            _write_all(descriptor, data, end)
            self._refresh(descriptor)
            return len(new)
        finally:
            os.close(descriptor)  # lets go of the lock

    def _start_anew(self, descriptor: int) -> None:
        """Empty the file and write a header; the caller holds the lock."""
        if os.fstat(descriptor).st_size:
            self._warn("the vector cache is damaged or of another version; it is dropped and made again")
        os.ftruncate(descriptor, 0)
        head = _HEADER.pack(_MAGIC, self.dimension, self._identity_hash, os.urandom(16), 0)[:-_CRC_BYTES]
        _write_all(descriptor, head + zlib.crc32(head).to_bytes(_CRC_BYTES, "little"), 0)
        self._refresh(descriptor)


def _write_all(descriptor: int, data: bytes | bytearray, offset: int) -> None:
    """Write everything; a single call may write less than it was given."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view[:_CHUNK_BYTES], offset)
        view = view[written:]
        offset += written
