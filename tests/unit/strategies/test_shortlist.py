"""Of a large space the language model reads a sample and what the numbers find promising."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.strategy_contract import LOSS, check, tried
from rankwise.language.prompt import describe, describe_all, load_prompt
from rankwise.space import ParameterText, Trial, TrialState, parse_space
from rankwise.strategies import models
from rankwise.strategies.base import NotReady, Suggestions, SuggestRequest
from rankwise.strategies.language_bo import LanguageBO
from rankwise.surrogate.gaussian_process import FitError
from support.encoders import FakeEncoder
from support.spaces import untimed

SPACE = parse_space(
    (
        ParameterText("rank", "discrete", list=("2", "4", "8", "16", "32", "64")),
        ParameterText("alpha_ratio", "discrete", list=("0.5", "1", "2", "4", "8")),
        ParameterText("learning_rate", "discrete", list=("1e-5", "1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3")),
        ParameterText("batch_size", "discrete", list=("4", "8", "16")),
    )
)
SIZE = 630
FEW = 64
SETTINGS = {"fit_steps": "5", "projection_dim": "8", "language_candidates": str(FEW)}


def ask(encoder: FakeEncoder, trials: list[Trial], count: int = 1, **changes: object) -> Suggestions:
    request = SuggestRequest("e", SPACE, LOSS, SETTINGS, tuple(trials), count, len(trials))
    return LanguageBO(encoder).suggest(replace(request, **changes))  # type: ignore[arg-type]


def read(encoder: FakeEncoder, trials: list[Trial]) -> set[str]:
    """What the last request read but for the trials."""
    prompt = load_prompt(None, SPACE, encoder.form)
    return set(encoder.calls[-1]) - {describe(prompt, SPACE, trial.assignments) for trial in trials}


@pytest.mark.parametrize("surrogate", ["mixture", "language"])
def test_it_reads_a_sample_that_stays_and_what_is_promising(surrogate: str) -> None:
    encoder = FakeEncoder()
    settings = {**SETTINGS, "surrogate": surrogate}
    read_then, answers = [], []
    for n in (8, 20):
        trials = tried(SPACE, n)
        answers.append(ask(encoder, trials, settings=settings))
        check(SPACE, answers[-1], trials, 1)
        assert answers[-1].fallback is None
        assert answers[-1].details["read"] <= FEW
        read_then.append(read(encoder, trials))
        numeric = ask(FakeEncoder(), trials, settings={**settings, "surrogate": "numeric"}).assignments[0]
        prompt = load_prompt(None, SPACE, encoder.form)
        assert describe(prompt, SPACE, numeric) in read_then[-1], "what the numbers choose is looked at"
    sample = read_then[0] & read_then[1]
    assert len(sample) >= FEW // 2 - 20, "the sample is the same, those of it that were tried aside"
    everything = describe_all(load_prompt(None, SPACE, encoder.form), SPACE, SPACE.enumerate())
    places = dict(zip(everything, SPACE.enumerate().units, strict=True))
    spread = np.array([places[text] for text in sample]).std(0)
    # Uniform over [0, 1] has 0.29; a corner of the grid would have less than half of it in some dimension.
    assert (spread > 0.15).all()


def test_a_space_that_is_small_enough_is_read_whole() -> None:
    encoder = FakeEncoder()
    trials = tried(SPACE, 8)
    whole = ask(encoder, trials, settings={**SETTINGS, "language_candidates": str(SIZE)})
    assert whole.details["read"] == SIZE
    assert len(set(encoder.calls[-1])) == SIZE


def test_the_papers_method_reads_everything() -> None:
    encoder = FakeEncoder()
    settings = {**SETTINGS, "surrogate": "paper", "paper_steps": "3"}
    assert ask(encoder, tried(SPACE, 8), settings=settings).details["read"] == SIZE


def test_a_batch_larger_than_the_shortlist_has_no_repeats() -> None:
    trials = tried(SPACE, 8)
    answer = ask(FakeEncoder(), trials, 40, settings={**SETTINGS, "language_candidates": "16"})
    check(SPACE, answer, trials, 40)
    assert answer.repeated == 0


def test_without_the_numbers_the_language_model_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise FitError("planted")

    monkeypatch.setattr(models, "fit_informed", broken)
    trials = tried(SPACE, 8)
    for count in (1, 40):
        answer = ask(FakeEncoder(), trials, count)
        check(SPACE, answer, trials, count)
        assert answer.fallback == "the language model alone answered"


def test_a_large_space_can_wait_for_its_vectors_since_few_are_read() -> None:
    trials = tried(SPACE, 8)
    waits = {**SETTINGS, "wait_for_vectors": str(FEW)}
    with pytest.raises(NotReady, match="10 of "):
        ask(FakeEncoder(limit=10), trials, postpone=True, settings=waits)
    goes_on = {**SETTINGS, "wait_for_vectors": str(FEW - 1)}
    answer = ask(FakeEncoder(limit=10), trials, postpone=True, settings=goes_on)
    assert answer.fallback is not None
    assert answer.reason == "vectors"


@untimed
@given(st.integers(0, 12), st.integers(16, 80), st.integers(1, 20), st.integers(0, 3))
def test_any_sizes_give_valid_suggestions(left: int, candidates: int, count: int, failed: int) -> None:
    """Down to the last untried configuration."""
    small = parse_space((ParameterText("rank", "int", min="1", max="90"),))
    points = list(small.enumerate())[left:]
    trials = [
        Trial(f"t{i}", point, TrialState.FAILED if i < failed else TrialState.SUCCEEDED, None if i < failed else i / 9)
        for i, point in enumerate(points)
    ]
    settings = {**SETTINGS, "language_candidates": str(candidates)}
    answer = ask(FakeEncoder(), trials, count, space=small, settings=settings)
    check(small, answer, trials, count)
    assert answer.repeated == max(0, count - left)
