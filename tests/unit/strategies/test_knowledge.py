"""Sources of knowledge, the user's belief, and the design that is drawn from them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.errors import InvalidInput
from rankwise.language.quantities import quantities
from rankwise.language.rules import literature
from rankwise.space import ParameterText, SearchSpace, parse_space
from rankwise.strategies.design import SPREAD_POINTS, PlausibleSequence, PoolSequence
from rankwise.strategies.features import Features
from rankwise.strategies.knowledge import Knowledge, NormalScores, Rules, read_belief, rules_of
from support.paper_space import paper_space
from support.spaces import spaces, untimed

SPACE = parse_space(
    [
        ParameterText("rank", "discrete", list=("2", "8", "32", "128")),
        ParameterText("alpha_ratio", "discrete", list=("0.5", "1", "2", "8")),
        ParameterText("dropout", "double", "0", "0.3"),
        ParameterText("lr", "double", "1e-6", "1e-1", distribution="logUniform"),
        ParameterText("optimizer", "categorical", list=("adam", "sgd", "lion")),
    ]
)


@untimed
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=40))
def test_normal_scores_keep_the_order(scores: list[float]) -> None:
    values = np.array(scores)
    read = NormalScores(values)(values)
    assert np.isfinite(read).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(read[order]) >= 0).all()
    for i in range(len(values)):
        assert (read[values == values[i]] == read[i]).all()


def test_normal_scores_end_where_the_reference_ends() -> None:
    scale = NormalScores(np.arange(100.0))
    assert scale(np.array([-5.0, 1e9])).tolist() == scale(np.array([0.0, 99.0])).tolist()
    # The mean of 100 normal quantiles is 0 by symmetry; their deviation is a little below 1.
    read = scale(np.arange(100.0))
    assert abs(read.mean()) < 1e-9
    assert 0.95 < read.std() < 1.0


@untimed
@given(spaces(), st.integers(0, 10))
def test_knowledge_and_features_of_any_space_are_finite(space: SearchSpace, seed: int) -> None:
    reference, others = space.candidates(16, seed), space.candidates(5, seed + 1)
    knowledge = Knowledge([Rules(literature())], reference)
    features = Features(reference, knowledge)
    rows = features(others)
    assert rows.shape == (len(others), features.numbers(others).shape[1] + len(knowledge))
    assert features.lengthscales.shape == (features.numbers(others).shape[1],)
    assert np.isfinite(rows).all()


def test_a_source_that_says_nothing_here_drops_out() -> None:
    space = parse_space([ParameterText("x", "double", "0", "1")])
    points = space.candidates(10, 0)
    assert len(Knowledge([Rules(literature())], points)) == 0
    assert Features(points, Knowledge([], points))(points).shape == (10, 1)


def test_features_add_the_reach_and_read_listed_numbers() -> None:
    space = paper_space()  # its learning rates are categories
    points = space.candidates(200, 0)
    features = Features(points, Knowledge([], points))
    u = features.numbers(points)
    assert u.shape == (200, 6)  # rank, ratio, batch, dropout, rate, reach
    reach = np.log2(quantities(points)["reach"])
    np.testing.assert_allclose(u[:, 5], (reach - reach.min()) / np.ptp(reach))
    rate = np.log2(quantities(points)["learning_rate"])
    # 1e-6 and 5e-3 are the ends of the list, whichever of them are among these points.
    np.testing.assert_allclose(u[:, 4], (rate - np.log2(1e-6)) / np.log2(5e3), atol=1e-12)


# -------------------------------------------------------------------------------------------------------- belief


def test_a_belief_replaces_what_the_literature_says() -> None:
    belief = read_belief('{"lr": [1e-3, 4e-3], "dropout": 0.1}', SPACE, "belief")
    assert [(rule.quantity, rule.log) for rule in belief] == [("learning_rate", True), ("dropout", True)]
    assert belief[0].centre == pytest.approx(2e-3)
    assert belief[0].spread == pytest.approx(1.0)  # the range is two octaves: one deviation to each side
    (source,) = rules_of("literature", belief)
    assert isinstance(source, Rules)
    assert [rule.quantity for rule in source.rules].count("learning_rate") == 1
    assert "reach" not in {rule.quantity for rule in source.rules}
    assert rules_of("none", ()) == []
    assert rules_of("none", belief) == [Rules(belief)]


def test_a_belief_that_may_be_zero_is_linear() -> None:
    (rule,) = read_belief('{"dropout": 0}', SPACE, "belief")
    assert not rule.log
    assert rule.spread == pytest.approx(0.03)


def test_every_mistake_of_a_belief_is_named() -> None:
    text = json.dumps({"lr": "high", "optimizer": 3, "x": 1, "rank": [64, 2], "alpha_ratio": True})
    with pytest.raises(InvalidInput) as caught:
        read_belief(text, SPACE, "settings.belief")
    assert [problem.path for problem in caught.value.problems] == [
        f"settings.belief.{name}" for name in ("lr", "optimizer", "x", "rank", "alpha_ratio")
    ]
    for broken in ("{", "[]", "3e-4", "nan"):
        with pytest.raises(InvalidInput):
            read_belief(broken, SPACE, "belief")


@untimed
@given(st.text(max_size=40))
def test_any_text_is_a_belief_or_a_mistake(text: str) -> None:
    try:
        rules = read_belief(text, SPACE, "belief")
    except InvalidInput:
        return
    assert all(np.isfinite(rule.log_density(np.array([1.0, 2.0]))).all() for rule in rules)


# -------------------------------------------------------------------------------------------------------- design


def test_the_design_begins_with_the_most_plausible_configuration() -> None:
    sources = rules_of("literature", ())
    points = paper_space().candidates(4096, 7)
    scores = sources[0].scores(points)
    assert scores is not None
    first = PlausibleSequence(paper_space(), 7, sources).first(40)
    (best,) = sources[0].scores(points.space.at(points.space.encode([first[0][1]])))  # type: ignore[misc]
    assert best == scores.max()
    later = sources[0].scores(points.space.at(points.space.encode([point for _, point in first])))
    assert later is not None
    z = NormalScores(scores)(later)
    # The plausible three tenths have a z of 0.52 and more.
    assert (z[:SPREAD_POINTS] > 0.5).all()
    # Drawn in proportion to exp(2 z): a mean of z = 1 and more is to be expected, 0 would be uniform draws.
    assert np.mean(z[SPREAD_POINTS:]) > 0.8


def test_the_design_spreads_where_the_best_is_expected() -> None:
    """The nearest two of the first points are farther apart than those of draws from the same plausible points."""
    sources = rules_of("literature", ())
    space = paper_space()
    points = space.candidates(4096, 7)
    scores = sources[0].scores(points)
    assert scores is not None
    plausible = np.argsort(-scores)[: round(0.3 * len(points))]
    design = space.at(space.encode([point for _, point in PlausibleSequence(space, 7, sources).first(6)]))

    def nearest(units: np.ndarray) -> float:
        gaps = ((units[:, None] - units[None]) ** 2).sum(-1)
        return float(gaps[np.triu_indices(len(units), 1)].min())

    draws = [points.units[np.random.default_rng(i).choice(plausible, 6, replace=False)] for i in range(100)]
    assert nearest(design.units) > max(map(nearest, draws))


@settings(untimed, max_examples=50)
@given(spaces(), st.integers(0, 5))
def test_a_longer_design_begins_alike_and_has_no_point_twice(space: SearchSpace, seed: int) -> None:
    def first(n: int) -> list[object]:
        return [key for key, _ in PlausibleSequence(space, seed, rules_of("literature", ())).first(n)]

    long = first(12)
    assert len(set(long)) == len(long)
    assert long[:5] == first(5)
    assert len(long) == (12 if space.size is None else min(12, space.size))


@pytest.mark.parametrize("prior", ["literature", "none"])
def test_a_pool_is_ordered_by_what_is_known_and_ends(prior: str) -> None:
    pool = paper_space().candidates(50, 3)
    points = PoolSequence(pool, 7, rules_of(prior, ())).first(80)
    assert sorted(map(repr, (key for key, _ in points))) == sorted(map(repr, pool.keys))
    scores = rules_of("literature", ())[0].scores(pool)
    assert scores is not None
    best = pool.assignments(int(scores.argmax()))
    assert (points[0][1] == best) == (prior == "literature")
