"""Language models are loaded once, whoever asks, and known to work before a search."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.language.text_encoder import TextEncoder
from rankwise.settings import Settings
from rankwise.space import parse_space
from rankwise.suggest.wiring import EncoderChecked, Encoders, wire
from support.encoders import FakeEncoder
from support.katib import AIM, PARAMETERS

SPACE = parse_space(PARAMETERS)


def test_a_model_is_loaded_once_for_many_threads(tmp_path: Path) -> None:
    loaded: list[tuple[str, str]] = []

    def load(reference: str, pooling: str) -> TextEncoder:
        loaded.append((reference, pooling))
        return FakeEncoder()

    encoders = Encoders(Settings(cache=tmp_path), load)
    together = threading.Barrier(4)

    def ask(_: int) -> TextEncoder:
        together.wait(30)
        return encoders("a", "mean")

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(ask, range(4)))
    assert all(encoder is got[0] for encoder in got)
    assert encoders("a", "last") is not got[0]
    assert loaded == [("a", "mean"), ("a", "last")]


def test_a_failed_load_is_tried_again(tmp_path: Path) -> None:
    answers: list[Exception | None] = [SurroundingsError("the network is down"), None]

    def load(_reference: str, _pooling: str) -> TextEncoder:
        if (error := answers.pop(0)) is not None:
            raise error
        return FakeEncoder()

    encoders = Encoders(Settings(cache=tmp_path), load)
    with pytest.raises(SurroundingsError, match="the network is down"):
        encoders("a", "mean")
    assert encoders("a", "mean").dimension == FakeEncoder.dimension


def test_a_probe_goes_past_the_cache(tmp_path: Path) -> None:
    fake = FakeEncoder()
    encoders = Encoders(Settings(cache=tmp_path), fake)
    for _ in range(2):
        encoders.probe("a", "mean")
    assert len(fake.calls) == 2


def checked(tmp_path: Path, error: Exception | None = None) -> tuple[EncoderChecked, FakeEncoder]:
    fake = FakeEncoder(error=error)
    strategy = wire(Settings(cache=tmp_path), fake).strategies["language-bo"]
    assert isinstance(strategy, EncoderChecked)
    return strategy, fake


@pytest.mark.parametrize(
    ("error", "allowed"),
    [
        (SurroundingsError("not installed"), "a language model that can be loaded here (not installed)"),
        (InvalidInput([Problem("model", "m", "a folder or a hub id")]), "a folder or a hub id"),
    ],
)
def test_a_model_that_fails_is_a_mistake_of_the_setting(tmp_path: Path, error: Exception, allowed: str) -> None:
    strategy, _ = checked(tmp_path, error)
    assert strategy.validate(SPACE, AIM, {"embedder": "m"}) == [
        Problem("spec.algorithm.algorithmSettings.embedder", "m", allowed)
    ]


@pytest.mark.parametrize(
    ("settings", "probes"),
    [({}, 1), ({"surrogate": "numeric"}, 0), ({"surrogate": "language"}, 1), ({"pareto": "seconds"}, 0)],
)
def test_a_model_is_probed_only_where_it_is_used(tmp_path: Path, settings: Mapping[str, str], probes: int) -> None:
    strategy, fake = checked(tmp_path)
    assert strategy.validate(SPACE, replace(AIM, additional_metrics=("seconds",)), settings) == []
    assert len(fake.calls) == probes


def test_with_other_mistakes_no_model_is_loaded(tmp_path: Path) -> None:
    strategy, fake = checked(tmp_path)
    (problem,) = strategy.validate(SPACE, AIM, {"pooling": "max"})
    assert problem.path.endswith(".pooling")
    assert fake.calls == []


def test_strategies_without_a_language_model_are_left_as_they_are(tmp_path: Path) -> None:
    known = wire(Settings(cache=tmp_path)).strategies
    assert known.keys() == {"language-bo", "optuna-tpe", "sobol", "random"}
    assert [name for name, strategy in known.items() if isinstance(strategy, EncoderChecked)] == ["language-bo"]
