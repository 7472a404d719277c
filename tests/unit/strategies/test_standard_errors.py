"""What trials tell of their values' errors reaches the models of ``language-bo``, and nothing else changes."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from contract.strategy_contract import LOSS, MIXED, tried
from rankwise.space import Trial
from rankwise.strategies import language_bo
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.models import Fitted, ModelSettings, Question
from rankwise.surrogate.observations import outcome_variances
from support.encoders import FakeEncoder

QUICK = {"samples": "64", "fit_steps": "5", "projection_dim": "16"}


def request_for(trials: list[Trial], **settings: str) -> SuggestRequest:
    return SuggestRequest("e", MIXED, LOSS, {**QUICK, **settings}, tuple(trials), 2, len(trials))


def with_errors(trials: list[Trial], size: float) -> list[Trial]:
    """Every other trial tells a standard error."""
    return [replace(trial, standard_error=size * (1 + i) if i % 2 else None) for i, trial in enumerate(trials)]


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """What the models are asked."""
    asked: list[Question] = []
    fit = language_bo.fit_models

    def spy(settings: ModelSettings, question: Question) -> Fitted:
        asked.append(question)
        return fit(settings, question)

    monkeypatch.setattr(language_bo, "fit_models", spy)
    return asked


def test_the_models_are_told_the_variances_of_their_outcomes(questions: list[Question]) -> None:
    trials = with_errors(tried(MIXED, 8), 0.01)
    LanguageBO(FakeEncoder()).suggest(request_for(trials))
    (question,) = questions
    told = {(trial.value, trial.standard_error or 0.0) for trial in trials}
    read = question.observations
    assert set(zip(read.values.tolist(), read.standard_errors.tolist(), strict=True)) == told
    assert question.variances is not None
    np.testing.assert_array_equal(question.variances, outcome_variances(read.values, read.standard_errors))
    np.testing.assert_array_equal(question.variances > 0, read.standard_errors > 0)


def test_without_errors_and_for_the_papers_surrogate_nothing_is_told(questions: list[Question]) -> None:
    trials = tried(MIXED, 8)
    LanguageBO(FakeEncoder()).suggest(request_for(trials))
    LanguageBO(FakeEncoder()).suggest(request_for([replace(trial, standard_error=0.0) for trial in trials]))
    LanguageBO(FakeEncoder()).suggest(request_for(with_errors(trials, 0.01), surrogate="paper", paper_steps="3"))
    assert [question.variances for question in questions] == [None, None, None]


def test_the_order_and_the_names_of_trials_with_errors_do_not_matter() -> None:
    trials = tried(MIXED, 7)
    # Two trials of one configuration and value, told apart by their errors alone.
    trials = with_errors([*trials, replace(trials[1], name="again"), replace(trials[1], name="once more")], 0.02)
    first = LanguageBO(FakeEncoder()).suggest(request_for(trials))
    generator = random.Random(0)
    for _ in range(3):
        shuffled = [replace(trial, name=str(generator.random())) for trial in trials]
        generator.shuffle(shuffled)
        assert LanguageBO(FakeEncoder()).suggest(request_for(shuffled)).assignments == first.assignments
