from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.errors import SurroundingsError
from rankwise.language.cached import STORED_AT_ONCE, WRITE_AGAIN_AFTER, CachedEncoder, embed_space
from rankwise.language.encoder import load_encoder
from rankwise.language.prompt import PromptForm, describe_all, load_prompt
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.space import ParameterText, parse_space
from support.fake_encoder import FakeEncoder
from support.language import save_random_model

SPACE = parse_space(
    [
        ParameterText("rank", "int", "1", "60"),
        ParameterText("lr", "categorical", list=tuple(f"{k}e-5" for k in range(1, 21))),
    ]
)
CANDIDATES = SPACE.enumerate()
PROMPT = load_prompt(None, SPACE, PromptForm.COMPACT)
COUNT = 1200


def expected(fake: FakeEncoder, texts: list[str]) -> bytes:
    return np.array([fake.vector(text) for text in texts], np.float32).tobytes()


def test_fake_encoder_is_asked_for_nothing_twice(tmp_path: Path) -> None:
    fake = FakeEncoder()
    encoder = CachedEncoder(fake, tmp_path)
    assert encoder.encode(["b", "a", "b"]).tobytes() == expected(fake, ["b", "a", "b"])
    assert encoder.encode(["c", "a"]).tobytes() == expected(fake, ["c", "a"])
    assert sorted(fake.asked) == ["a", "b", "c"]
    assert (encoder.hits, encoder.misses, encoder.unsaved) == (1, 3, 0)
    assert (encoder.identity, encoder.dimension, encoder.form) == (fake.identity, 4, PromptForm.COMPACT)
    assert encoder.encode([]).shape == (0, 4)


@settings(max_examples=30, deadline=None)
@given(calls=st.lists(st.lists(st.text("ab", max_size=3), max_size=8), max_size=5))
def test_fake_encoder_a_warm_cache_and_none_give_the_same_array(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]
) -> None:
    fake, root = FakeEncoder(), tmp_path_factory.mktemp("cache")
    encoder = CachedEncoder(fake, root)
    for texts in calls:
        warm = encoder.encode(texts)
        cold = fake.encode(texts)
        assert warm.shape == cold.shape
        assert warm.dtype == cold.dtype == np.float32
        assert warm.tobytes() == cold.tobytes()


def test_random_model_a_warm_cache_and_a_cold_one_give_the_same_array(tmp_path: Path) -> None:
    model = load_encoder(str(save_random_model(tmp_path / "model", "llama")), cache=tmp_path, device="cpu")
    texts = [f"a preamble of some length\n\nrank = {i}" for i in range(0, 1000, 30)]
    plain = model.encode(texts)
    encoder = CachedEncoder(model, tmp_path)
    encoder.encode(texts[5:11])
    assert encoder.encode(texts).tobytes() == plain.tobytes()
    assert encoder.encode(texts[::-1]).tobytes() == plain[::-1].tobytes()
    assert (encoder.hits, encoder.misses) == (6 + 34, 34)


def test_random_model_a_warm_cache_needs_no_weights(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", "bert")
    vectors = CachedEncoder(load_encoder(str(folder), cache=tmp_path, device="cpu"), tmp_path).encode(["a", "b"])
    again = CachedEncoder(load_encoder(str(folder), cache=tmp_path, device="cpu"), tmp_path)
    shutil.rmtree(folder)
    assert again.encode(["b", "a"]).tobytes() == vectors[::-1].tobytes()


def test_fake_encoder_a_deadline_loses_nothing_that_is_done(tmp_path: Path) -> None:
    texts = [f"{i:04d}" for i in range(COUNT)]
    CachedEncoder(FakeEncoder(), tmp_path).encode(texts[:100])
    encoder = CachedEncoder(FakeEncoder(capacity=STORED_AT_ONCE + 8), tmp_path)
    with pytest.raises(EmbeddingIncomplete, match=f"after {100 + STORED_AT_ONCE + 8} of {COUNT} texts"):
        encoder.encode(texts)
    fake = FakeEncoder()
    assert CachedEncoder(fake, tmp_path).encode(texts).tobytes() == expected(fake, texts)
    assert len(fake.asked) == COUNT - 100 - STORED_AT_ONCE - 8


def test_fake_encoder_a_warm_cache_answers_after_the_deadline(tmp_path: Path) -> None:
    encoder = CachedEncoder(FakeEncoder(capacity=2), tmp_path)
    encoder.encode(["a", "b"])
    assert encoder.encode(["b", "a"], Deadline(0)).shape == (2, 4)


def test_fake_encoder_goes_on_without_a_cache_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vectors").write_text("a file where the folder should be")
    fake = FakeEncoder()
    encoder = CachedEncoder(fake, tmp_path)
    with caplog.at_level(logging.WARNING, logger="rankwise"):
        for _ in range(2):
            assert encoder.encode(["a", "b"]).tobytes() == expected(fake, ["a", "b"])
        assert encoder.encode(["c", "b"]).tobytes() == expected(fake, ["c", "b"])
    assert sorted(fake.asked) == ["a", "b", "c"]  # nothing is computed twice: they are in memory
    assert (encoder.hits, encoder.misses, encoder.unsaved) == (3, 3, 3)
    messages = [record.message for record in caplog.records]
    assert sum("vectors are kept in memory only" in message for message in messages) == 1


def test_fake_encoder_a_full_disk_is_tried_again_and_gets_all_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    fake = FakeEncoder()
    encoder = CachedEncoder(fake, tmp_path, clock=lambda: now[0])
    encoder.encode(["a"])
    tries = []
    write = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        tries.append(len(data))
        # A disk that fills up takes a part of a record first.
        return write(descriptor, data[:7], offset) if len(tries) % 2 else no_space()

    def no_space() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, logger="rankwise"):
        patch.setattr(os, "pwrite", full)
        assert encoder.encode(["b", "a"]).tobytes() == expected(fake, ["b", "a"])
        assert len(tries) == 2
        now[0] = WRITE_AGAIN_AFTER / 2
        assert encoder.encode(["c", "b"]).tobytes() == expected(fake, ["c", "b"])
        assert len(tries) == 2, "too early for another try"
        now[0] = WRITE_AGAIN_AFTER
        encoder.encode(["d"])
        assert len(tries) == 4
        assert encoder.unsaved == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text
    # What was stored before the disk was full is there, and so is, after the next try, what was made meanwhile.
    assert CachedEncoder(FakeEncoder(capacity=0), tmp_path).encode(["a"]).tobytes() == expected(fake, ["a"])
    now[0] = 2 * WRITE_AGAIN_AFTER
    encoder.encode(["e"])
    restarted = CachedEncoder(FakeEncoder(capacity=0), tmp_path)
    assert restarted.encode(list("abcde")).tobytes() == expected(fake, list("abcde"))
    assert sorted(fake.asked) == list("abcde")


def test_fake_encoder_memory_for_vectors_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("a file where the folder should be")
    fake = FakeEncoder()
    encoder = CachedEncoder(fake, tmp_path, kept_bytes=3 * 4 * fake.dimension)
    texts = ["a", "b", "c", "d", "e"]
    for _ in range(2):
        assert encoder.encode(texts).tobytes() == expected(fake, texts)
    assert fake.asked == [*texts, "d", "e"]


@contextmanager
def somebody_else(number: int) -> Iterator[None]:
    """This process as a user and group of that number, without root's rights over files."""
    groups, group, user = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups([])
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(user)
        os.setegid(group)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_fake_encoder_a_volume_of_somebody_else_is_read_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A PVC that belongs to root, as Katib mounts it: the service runs as 65532."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        CachedEncoder(FakeEncoder(), folder).encode(["a"])
        before = {path: path.stat().st_size for path in folder.rglob("*")}
        fake = FakeEncoder()
        with somebody_else(65532):
            encoder = CachedEncoder(fake, folder)
            for _ in range(2):
                encoder.encode(["a", "b"])
            with pytest.raises(PermissionError):
                (folder / "mine").touch()
        assert (fake.asked, encoder.hits, encoder.unsaved) == (["b"], 3, 1)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.text.count("vectors are kept in memory only") == 1
        assert {path: path.stat().st_size for path in folder.rglob("*")} == before


# -- a whole space -------------------------------------------------------------------------------------------------


def test_fake_encoder_embeds_a_space_that_a_search_then_finds(tmp_path: Path) -> None:
    fake = FakeEncoder()
    seen: list[tuple[int, int]] = []
    summary = embed_space(CachedEncoder(fake, tmp_path), PROMPT, CANDIDATES, progress=lambda *at: seen.append(at))
    assert (summary.total, summary.found, summary.computed) == (COUNT, 0, COUNT)
    assert summary.seconds > 0
    assert seen == [(STORED_AT_ONCE, COUNT), (COUNT, COUNT)]
    texts = describe_all(PROMPT, SPACE, CANDIDATES)
    assert sorted(fake.asked) == sorted(texts)
    search = CachedEncoder(FakeEncoder(capacity=0), tmp_path)
    assert search.encode(texts).tobytes() == expected(fake, texts)
    assert search.misses == 0
    again = embed_space(CachedEncoder(FakeEncoder(capacity=0), tmp_path), PROMPT, CANDIDATES)
    assert (again.total, again.found, again.computed) == (COUNT, COUNT, 0)


def test_fake_encoder_embedding_goes_on_where_the_deadline_stopped_it(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingIncomplete, match=f"after 700 of {COUNT} texts"):
        embed_space(CachedEncoder(FakeEncoder(capacity=700), tmp_path), PROMPT, CANDIDATES)
    summary = embed_space(CachedEncoder(FakeEncoder(), tmp_path), PROMPT, CANDIDATES)
    assert (summary.found, summary.computed) == (700, 500)


def test_fake_encoder_embedding_that_cannot_be_stored_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("a file where the folder should be")
    with pytest.raises(SurroundingsError, match=f"0 of {COUNT} were stored"):
        embed_space(CachedEncoder(FakeEncoder(), tmp_path), PROMPT, CANDIDATES)
