from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.deadline import Deadline
from rankwise.errors import SurroundingsError
from rankwise.language.cached import STORED_AT_ONCE, CachedEncoder, embed_space
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
    assert encoder.unsaved == 4
    messages = [record.message for record in caplog.records]
    assert sum("vectors are not kept" in message for message in messages) == 1


# -- a whole space -------------------------------------------------------------------------------------------------


def test_fake_encoder_embeds_a_space_that_a_search_then_finds(tmp_path: Path) -> None:
    fake = FakeEncoder()
    seen: list[tuple[int, int]] = []
    summary = embed_space(CachedEncoder(fake, tmp_path), PROMPT, CANDIDATES, progress=lambda *at: seen.append(at))
    assert (summary.total, summary.found, summary.computed) == (COUNT, 0, COUNT)
    assert summary.seconds > 0
    assert seen == [(512, COUNT), (1024, COUNT), (COUNT, COUNT)]
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
