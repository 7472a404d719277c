from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from rankwise.train.metrics import plain_mean, text_metrics, token_mean
from rankwise.train.rouge import rouge

SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
WORDS = ["a", "b", "c", "the", "The", "cat,", "sat-on", "3.5", "été", "試", "="]
TEXT = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@given(TEXT, TEXT)
def test_rouge_is_that_of_the_rouge_score_package(target: str, prediction: str) -> None:
    expected = {name: score.fmeasure for name, score in SCORER.score(target, prediction).items()}
    # Both compute 2pr/(p+r) in float64 from the same counts; the order of the operations may differ.
    assert rouge(target, prediction) == pytest.approx(expected, abs=1e-15)


@given(st.text(max_size=30), st.text(max_size=30))
def test_rouge_takes_any_text(target: str, prediction: str) -> None:
    expected = {name: score.fmeasure for name, score in SCORER.score(target, prediction).items()}
    assert rouge(target, prediction) == pytest.approx(expected, abs=1e-15)


def test_rouge_knows_order_and_repetition() -> None:
    assert rouge("a b c", "c b a") == {"rouge1": 1.0, "rouge2": 0.0, "rougeL": pytest.approx(1 / 3)}
    assert rouge("a", "a a a")["rouge1"] == pytest.approx(2 * (1 / 3) / (4 / 3))
    assert rouge("", "") == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


PAIRS = st.lists(st.tuples(st.floats(0, 50), st.integers(1, 20)), min_size=1, max_size=30)


@given(PAIRS)
def test_the_token_mean_weighs_each_token_alike_and_is_the_mean_of_its_values(pairs: list[tuple[float, int]]) -> None:
    sums, tokens = zip(*pairs, strict=True)
    measured = token_mean(sums, tokens)
    # A handful of float64 roundings of numbers up to 50 * 20.
    assert measured.value == pytest.approx(sum(sums) / sum(tokens), abs=1e-12)
    assert math.fsum(measured.per_example) / len(pairs) == pytest.approx(measured.value, abs=1e-9)
    assert (measured.error is None) == (len(pairs) < 2)


def test_the_standard_error_of_the_token_mean_is_that_of_repeated_draws() -> None:
    generator = np.random.default_rng(7)
    population_tokens = generator.integers(1, 15, size=5000)
    population_sums = population_tokens * generator.gamma(2.0, 1.5, size=5000)
    means, errors = [], []
    for _ in range(2000):
        drawn = generator.integers(0, 5000, size=200)
        measured = token_mean(population_sums[drawn].tolist(), population_tokens[drawn].tolist())
        means.append(measured.value)
        assert measured.error is not None
        errors.append(measured.error)
    # The sd of 2000 draws is known to 1/sqrt(2 * 2000) = 1.6 %; four of those, and 1.5 % for the linearization's bias
    # (of order 1/n = 0.5 %, heavier for skewed data).
    assert np.mean(errors) == pytest.approx(np.std(means), rel=4 * 0.016 + 0.015)


def test_a_loss_that_is_not_finite_stays_so_and_has_no_error() -> None:
    measured = token_mean([1.0, math.nan], [1, 1])
    assert math.isnan(measured.value)
    assert measured.error is None


def test_no_tokens_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no target tokens"):
        token_mean([0.0], [0])


def test_the_standard_error_of_a_plain_mean() -> None:
    values = [0.0, 1.0, 1.0, 0.5]
    measured = plain_mean(values)
    assert measured.error == pytest.approx(np.std(values, ddof=1) / 2)
    assert measured.per_example == tuple(values)


TARGETS = ["the cat sat on the mat today", "a dog ran over the green hill", "nothing to see here at all"]
PREDICTIONS = ["the cat sat on the mat", "a dog ran over a green hill", "nothing to see here at all"]


def test_text_metrics_are_made_only_when_asked_for() -> None:
    assert text_metrics(["loss", "seconds"], TARGETS, PREDICTIONS) == {}
    assert list(text_metrics(["rougeL", "loss", "exact_match"], TARGETS, PREDICTIONS)) == ["rougeL", "exact_match"]


def test_exact_match_ignores_only_the_width_of_blanks() -> None:
    measured = text_metrics(["exact_match"], ["a b", "A b", "c"], ["a  b ", "a b", "c d"])["exact_match"]
    assert measured.per_example == (1.0, 0.0, 0.0)


def test_bleu_is_sacrebleus_and_its_error_is_the_jackknife() -> None:
    measured = text_metrics(["bleu"], TARGETS, PREDICTIONS)["bleu"]
    score = lambda keep: BLEU().corpus_score([PREDICTIONS[i] for i in keep], [[TARGETS[i] for i in keep]]).score  # noqa: E731
    assert measured.value == pytest.approx(score([0, 1, 2]))
    without = np.array([score([1, 2]), score([0, 2]), score([0, 1])])
    assert measured.error == pytest.approx(math.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum()))
    assert measured.per_example == ()


@settings(max_examples=20)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=40))
def test_bleu_of_many_examples_has_an_error_of_at_most_32_groups(pairs: list[tuple[str, str]]) -> None:
    targets, predictions = zip(*pairs, strict=True)
    measured = text_metrics(["bleu"], targets, predictions)["bleu"]
    assert 0.0 <= measured.value <= 100.0 + 1e-9
    assert (measured.error is None) == (len(pairs) < 2)
