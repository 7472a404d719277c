"""Vectors are made between the requests, and never in their way."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.language.cached import CachedEncoder
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.settings import Settings
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, parse_space
from rankwise.strategies.base import SuggestRequest
from rankwise.suggest.ahead import EmbedAhead
from rankwise.suggest.wiring import EncoderChecked, wire
from support.encoders import FakeEncoder

SPACE = parse_space([ParameterText("rank", "int", min="1", max="30"), ParameterText("lr", "int", min="1", max="40")])
COUNT = 1200
SECONDS = 30.0


def request(experiment: str = "e", **settings: str) -> SuggestRequest:
    return SuggestRequest(experiment, SPACE, Objective("loss", Goal.MINIMIZE), settings, (), 1)


def test_a_space_is_embedded_once_for_an_experiment(tmp_path: Path) -> None:
    fake = FakeEncoder()
    cached = CachedEncoder(fake, tmp_path)
    ahead = EmbedAhead(lambda *_: cached)
    ahead.want(request())
    assert ahead.wait(SECONDS)
    assert len({text for texts in fake.calls for text in texts}) == COUNT == cached.misses
    ahead.want(request())
    assert ahead.wait(SECONDS)
    assert (cached.misses, cached.hits) == (COUNT, 0)
    ahead.want(request("another"))
    assert ahead.wait(SECONDS)
    assert (cached.misses, cached.hits) == (COUNT, COUNT)
    assert ahead.close()


class Slow(FakeEncoder):
    """Stops in the middle of its first call until it is let go on, and obeys deadlines as a real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Event(), threading.Event()

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        vectors = super().encode(texts, deadline)
        self.entered.set()
        assert self.go_on.wait(SECONDS)
        if deadline is not None and deadline.expired:
            raise EmbeddingIncomplete(3, len(texts), texts[:3], vectors[:3])
        return vectors


def test_a_request_has_precedence_and_nothing_is_lost(tmp_path: Path) -> None:
    slow = Slow()
    cached = CachedEncoder(slow, tmp_path)
    ahead = EmbedAhead(lambda *_: cached)
    ahead.want(request())
    assert slow.entered.wait(SECONDS)
    with ahead.paused():
        slow.go_on.set()
        assert not ahead.wait(0.3), "it stands still while a request is answered"
        assert len(slow.calls) == 1
    assert ahead.wait(SECONDS)
    # The second call went on after the three texts that were done when the request came.
    assert slow.calls[1] == slow.calls[0][3:]
    assert cached.misses == COUNT
    assert ahead.close()


def test_the_end_does_not_wait_for_the_vectors(tmp_path: Path) -> None:
    slow = Slow()
    ahead = EmbedAhead(lambda *_: CachedEncoder(slow, tmp_path))
    ahead.want(request())
    assert slow.entered.wait(SECONDS)
    threading.Timer(0.2, slow.go_on.set).start()
    assert ahead.close()
    assert len(slow.calls) == 1
    ahead.want(request("another"))
    assert ahead.wait(0), "after the end nothing is begun"


@pytest.mark.parametrize(
    "error", [SurroundingsError("not installed"), InvalidInput([Problem("a", "b", "c")]), RuntimeError("bad")]
)
def test_what_fails_is_tried_again_at_the_next_request(error: Exception) -> None:
    fake = FakeEncoder(error=error)
    ahead = EmbedAhead(lambda *_: fake)
    for calls in (1, 2):
        ahead.want(request())
        assert ahead.wait(SECONDS)
        assert len(fake.calls) == calls
    fake.error = None
    ahead.want(request())
    assert ahead.wait(SECONDS)
    assert len(fake.calls) > 3


@pytest.mark.parametrize(("surrogate", "made"), [("numeric", 0), ("mixture", COUNT), ("language", COUNT)])
def test_the_first_request_begins_it_where_vectors_are_used(tmp_path: Path, surrogate: str, made: int) -> None:
    fake = FakeEncoder()
    strategy = wire(Settings(cache=tmp_path), fake).strategies["language-bo"]
    assert isinstance(strategy, EncoderChecked)
    assert len(strategy.suggest(request(surrogate=surrogate)).assignments) == 1
    assert strategy.ahead.wait(SECONDS)
    assert len({text for texts in fake.calls for text in texts}) == made


def test_seeds_are_not_read(tmp_path: Path) -> None:
    """Configurations are embedded once, whatever seeds they are trained with."""
    (seed,) = parse_space([ParameterText("chance", "int", "0", "4")]).parameters
    space = SearchSpace([seed, *SPACE.parameters])
    fake = FakeEncoder()
    cached = CachedEncoder(fake, tmp_path)
    ahead = EmbedAhead(lambda *_: cached)
    asked = replace(request(seed_parameter="chance", seeds="2"), space=space)
    ahead.want(asked)
    assert ahead.wait(SECONDS)
    texts = {text for texts in fake.calls for text in texts}
    assert len(texts) == COUNT
    assert not any("chance" in text for text in texts)
    # They are those of the search without seeds.
    ahead.want(request("another"))
    assert ahead.wait(SECONDS)
    assert (cached.misses, cached.hits) == (COUNT, COUNT)
    strategy = wire(Settings(cache=tmp_path / "other"), fake).strategies["language-bo"]
    answer = strategy.suggest(replace(asked, count=3))
    assert [point["chance"] for point in answer.assignments] == ["0", "0", "0"]
