from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rankwise.errors import SurroundingsError
from rankwise.language.cache import VectorCache
from rankwise.retry import Backoff
from support.fake_encoder import FakeEncoder

FAKE = FakeEncoder(dimension=5)
RECORD = 4 + 32 + 5 * 4
HEADER = 64


def vectors_of(texts: list[str]) -> np.ndarray:
    return np.array([FAKE.vector(text) for text in texts], dtype=np.float32).reshape(-1, 5)


def opened(root: Path, identity: str = "model") -> VectorCache:
    return VectorCache(root, identity, 5, Backoff(attempts=3, first=0.01, longest=0.01))


def stored(root: Path, texts: list[str]) -> VectorCache:
    cache = opened(root)
    assert cache.put(texts, vectors_of(texts)) == len(texts)
    return cache


def assert_holds(cache: VectorCache, present: list[str], absent: list[str] = []) -> None:  # noqa: B006 - not changed
    texts = [*present, *absent]
    vectors, found = cache.get(texts)
    assert found.tolist() == [True] * len(present) + [False] * len(absent)
    assert vectors.dtype == np.float32
    expected = np.concatenate([vectors_of(present), np.zeros((len(absent), 5), np.float32)])
    assert vectors.tobytes() == expected.tobytes()


TEXTS = [f"text {i}" for i in range(10)]


def test_stored_vectors_are_found_by_another_process_bit_for_bit(tmp_path: Path) -> None:
    cache = stored(tmp_path, TEXTS)
    assert_holds(cache, TEXTS, ["another"])
    assert_holds(opened(tmp_path), TEXTS[::-1], ["another"])
    assert len(cache) == len(opened(tmp_path)) == 10
    assert cache.path.stat().st_size == HEADER + 10 * RECORD
    assert cache.path.parent.parent == tmp_path / "vectors"


def test_a_text_is_asked_for_more_than_once(tmp_path: Path) -> None:
    vectors, found = stored(tmp_path, TEXTS).get(["text 3", "x", "text 3", "text 2"])
    assert found.tolist() == [True, False, True, True]
    assert vectors[0].tobytes() == vectors[2].tobytes() == FAKE.vector("text 3").tobytes()


def test_what_is_stored_is_not_stored_again(tmp_path: Path) -> None:
    cache = stored(tmp_path, TEXTS)
    assert cache.put([*TEXTS, "new", "new"], vectors_of([*TEXTS, "new", "new"])) == 1
    assert cache.path.stat().st_size == HEADER + 11 * RECORD
    # The first vector stays, so that a search that goes on meets the same numbers.
    assert cache.put(["new"], np.ones((1, 5), np.float32)) == 0
    assert_holds(cache, ["new"])


def test_identities_are_kept_apart(tmp_path: Path) -> None:
    stored(tmp_path, TEXTS)
    assert_holds(opened(tmp_path, "other model"), [], TEXTS)


def test_a_header_of_another_identity_is_not_believed(tmp_path: Path) -> None:
    first, other = stored(tmp_path, TEXTS), opened(tmp_path, "other model")
    other.folder.mkdir(parents=True)
    shutil.copy(first.path, other.path)
    assert_holds(other, [], TEXTS)


def test_texts_of_any_characters(tmp_path: Path) -> None:
    texts = ["", "\n", "ψ 🦙", "\udc80", "a\x00b", "a"]
    assert_holds(stored(tmp_path, texts), texts, ["a\x00"])


def test_wrong_vectors_are_refused(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    with pytest.raises(ValueError, match=r"shape \(2, 5\), got \(1, 5\)"):
        cache.put(["a", "b"], vectors_of(["a"]))
    with pytest.raises(ValueError, match="finite"):
        cache.put(["a"], np.full((1, 5), np.nan, np.float32))
    with pytest.raises(ValueError, match="dimension"):
        VectorCache(tmp_path, "model", 0)
    assert not cache.path.exists()


# -- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(0, HEADER + 3 * RECORD + 1, 7))
def test_a_file_cut_anywhere_keeps_its_whole_records_and_takes_new_ones(tmp_path: Path, size: int) -> None:
    texts = TEXTS[:3]
    open_before = stored(tmp_path, texts)
    assert_holds(open_before, texts)
    os.truncate(open_before.path, size)
    whole = max(0, size - HEADER) // RECORD
    for cache in (open_before, opened(tmp_path)):
        assert_holds(cache, texts[:whole], texts[whole:])
    assert open_before.put(TEXTS, vectors_of(TEXTS)) == 10 - whole
    for cache in (open_before, opened(tmp_path)):
        assert_holds(cache, TEXTS)
    assert open_before.path.stat().st_size == HEADER + 10 * RECORD


@pytest.mark.parametrize("offset", [0, 8, 12, 44, 60, HEADER + 1, HEADER + 10, HEADER + 40, HEADER + RECORD + 50])
def test_a_wrong_byte_costs_a_record_or_the_file_but_never_a_wrong_vector(
    tmp_path: Path, offset: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(tmp_path, TEXTS).path
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    cache = opened(tmp_path)
    vectors, found = cache.get(TEXTS)
    assert found.sum() == (0 if offset < HEADER else 9)
    missing = [text for text, hit in zip(TEXTS, found, strict=True) if not hit]
    assert vectors[found].tobytes() == vectors_of([text for text in TEXTS if text not in missing]).tobytes()
    assert cache.put(TEXTS, vectors_of(TEXTS)) == len(missing)
    assert_holds(cache, TEXTS)
    assert_holds(opened(tmp_path), TEXTS)
    if offset != HEADER + 10:  # a wrong key is only a key that nobody asks for
        assert len([r for r in caplog.records if "damaged" in r.message]) == 1


def test_zeros_that_a_power_cut_left_are_no_records(tmp_path: Path) -> None:
    cache = stored(tmp_path, TEXTS[:2])
    with cache.path.open("ab") as stream:
        stream.write(bytes(2 * RECORD))
    assert_holds(opened(tmp_path), TEXTS[:2], TEXTS[2:])
    assert opened(tmp_path).put(TEXTS, vectors_of(TEXTS)) == 8
    assert_holds(opened(tmp_path), TEXTS)


def test_the_folder_is_deleted_while_it_is_used(tmp_path: Path) -> None:
    first, second = stored(tmp_path, TEXTS), opened(tmp_path)
    assert_holds(second, TEXTS)
    shutil.rmtree(tmp_path / "vectors")
    assert_holds(first, [], TEXTS)
    assert len(first) == 0
    assert second.put(TEXTS[5:], vectors_of(TEXTS[5:])) == 5
    # The new file may have the old one's number in the file system; rows of the old one must not be read from it.
    assert_holds(first, TEXTS[5:], TEXTS[:5])
    assert first.put(TEXTS, vectors_of(TEXTS)) == 5
    assert_holds(second, TEXTS)


def test_the_folder_is_deleted_between_opening_and_locking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = stored(tmp_path, TEXTS[:1])
    flock, calls = fcntl.flock, []

    def delete_then_lock(descriptor: int, operation: int) -> None:
        if not calls:
            shutil.rmtree(cache.folder)
        calls.append(operation)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delete_then_lock)
    assert cache.put(TEXTS, vectors_of(TEXTS)) == 10
    assert len(calls) == 2
    assert_holds(opened(tmp_path), TEXTS)


def test_a_file_that_cannot_be_read_counts_as_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = opened(tmp_path)
    cache.path.mkdir(parents=True)  # a folder where the file should be: reading and writing fail, for root, too
    with caplog.at_level(logging.WARNING, logger="rankwise"):
        assert_holds(cache, [], TEXTS)
        assert_holds(cache, [], TEXTS)
    assert len(caplog.records) == 1
    assert "cannot be read" in caplog.records[0].message
    with pytest.raises(SurroundingsError, match="cannot write the vector cache"):
        cache.put(TEXTS, vectors_of(TEXTS))


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = stored(tmp_path, TEXTS[:5])
    pwrite = os.pwrite

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        pwrite(descriptor, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(SurroundingsError, match="No space left"):
        cache.put(TEXTS, vectors_of(TEXTS))
    monkeypatch.undo()
    assert_holds(opened(tmp_path), TEXTS[:7], TEXTS[7:])  # two and a half of five records were written
    assert cache.put(TEXTS, vectors_of(TEXTS)) == 3
    assert_holds(opened(tmp_path), TEXTS)


def test_a_write_that_takes_only_a_part_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:13], offset))
    assert_holds(stored(tmp_path, TEXTS), TEXTS)


# -- several writers -----------------------------------------------------------------------------------------------


def test_a_lock_that_is_not_let_go_ends_in_an_error(tmp_path: Path) -> None:
    cache = stored(tmp_path, TEXTS[:1])
    with cache.path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(SurroundingsError, match="cannot write the vector cache"):
            cache.put(TEXTS, vectors_of(TEXTS))
        assert_holds(cache, TEXTS[:1], TEXTS[1:])  # readers wait for nobody
    assert cache.put(TEXTS, vectors_of(TEXTS)) == 9


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    texts = [f"{i}" for i in range(200)]

    def work(i: int) -> None:
        for start in range(0, 200, 10):
            part = [texts[(start + 17 * i + k) % 200] for k in range(10)]
            cache.put(part, vectors_of(part))
            assert cache.get(part)[1].all()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_holds(cache, texts)
    assert cache.path.stat().st_size == HEADER + 200 * RECORD


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import numpy as np
from support.fake_encoder import FakeEncoder
from rankwise.language.cache import VectorCache
cache, fake, i = VectorCache(Path(sys.argv[1]), "model", 5), FakeEncoder(dimension=5), int(sys.argv[2])
print("ready", flush=True)
for k in range(10**9 if i < 0 else 60):
    texts = [f"text {(k * 7 + i * 3 + j) % 400 if i >= 0 else 1000 + k * 50 + j}" for j in range(50 if i < 0 else 9)]
    cache.put(texts, np.array([fake.vector(text) for text in texts]))
    assert cache.get(texts)[1].all()
"""


def start_writer(root: Path, i: int) -> subprocess.Popen[str]:
    here = str(Path(__file__).parents[2])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), str(i), here], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    return writer


def test_processes_write_at_once(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, i) for i in range(3)]
    for writer in writers:
        assert writer.communicate()[0] == "ready\n"
        assert writer.returncode == 0
    numbers = {(k * 7 + i * 3 + j) % 400 for i in range(3) for k in range(60) for j in range(9)}
    texts = [f"text {n}" for n in sorted(numbers)]
    cache = opened(tmp_path)
    assert_holds(cache, texts)
    # Each text was written by exactly one of them.
    assert cache.path.stat().st_size == HEADER + len(texts) * RECORD


def test_a_writer_is_killed_at_any_moment(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, -1)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    watching = opened(tmp_path)
    give_up = time.monotonic() + 60
    while len(watching) < 200 and time.monotonic() < give_up:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    count = len(opened(tmp_path))
    assert count >= 200
    for cache in (watching, opened(tmp_path)):
        assert_holds(cache, [f"text {1000 + n}" for n in range(count)])
    assert watching.put(TEXTS, vectors_of(TEXTS)) == 10
    assert_holds(opened(tmp_path), [*TEXTS, "text 1000"])


# -- against a dictionary ------------------------------------------------------------------------------------------


class CacheAgainstDictionary(RuleBasedStateMachine):
    """Two processes' views of one file, deleted and cut now and then, compared with a dictionary."""

    @initialize()
    def start(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.caches = [opened(self.root), opened(self.root)]
        self.order: list[str] = []  # texts in the order of the file
        self.model: dict[str, np.ndarray] = {}

    texts = st.lists(st.text("abc", max_size=2), max_size=6)

    @rule(who=st.integers(0, 1), texts=texts, value=st.integers(0, 9))
    def put(self, who: int, texts: list[str], value: int) -> None:
        vectors = np.array([[value, i, 0, 0, len(t)] for i, t in enumerate(texts)], np.float32).reshape(-1, 5)
        new = 0
        for text, vector in zip(texts, vectors, strict=True):
            if text not in self.model:
                self.model[text] = vector
                self.order.append(text)
                new += 1
        assert self.caches[who].put(texts, vectors) == new

    @rule(who=st.integers(0, 1), texts=texts)
    def get(self, who: int, texts: list[str]) -> None:
        vectors, found = self.caches[who].get(texts)
        assert vectors.shape == (len(texts), 5)
        for text, vector, hit in zip(texts, vectors, found, strict=True):
            assert hit == (text in self.model)
            assert vector.tobytes() == self.model.get(text, np.zeros(5, np.float32)).tobytes()

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        self.caches[who] = opened(self.root)

    @rule()
    def delete(self) -> None:
        shutil.rmtree(self.root / "vectors", ignore_errors=True)
        self.model.clear()
        self.order.clear()

    @rule(cut=st.integers(1, 3 * RECORD))
    def tear(self, cut: int) -> None:
        path = self.caches[0].path
        if path.exists():
            size = max(HEADER, path.stat().st_size - cut)
            os.truncate(path, size)
            for text in self.order[(size - HEADER) // RECORD :]:
                del self.model[text]
            del self.order[(size - HEADER) // RECORD :]

    @invariant()
    def count(self) -> None:
        assert len(self.caches[0]) == len(self.model)

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


TestCacheAgainstDictionary = CacheAgainstDictionary.TestCase
TestCacheAgainstDictionary.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
