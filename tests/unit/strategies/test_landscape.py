"""The embedding space in two dimensions, with fake vectors and with a real (tiny) decoder."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from contract.strategy_contract import LOSS, TINY, in_every_state, tried
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.encoder import load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.language.text_encoder import EmbeddingIncomplete
from rankwise.space import Goal, Objective, ParameterText, Trial, TrialState, parse_space
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.landscape import (
    FOLLOWS,
    Landscape,
    NoLandscape,
    ViewKind,
    direction,
    followed,
    in_own_units,
    landscape,
    principal_axes,
)
from rankwise.surrogate.gaussian_process import FitError
from rankwise.surrogate.observations import outcomes
from support.encoders import FakeEncoder
from support.spaces import untimed
from support.tiny_models import tiny_llama

SPACE = parse_space(
    [
        ParameterText("rank", "discrete", list=("2", "4", "8", "16", "32", "64")),
        ParameterText("learning_rate", "double", "1e-5", "1e-2", distribution="logUniform"),
        ParameterText("schedule", "categorical", list=("linear", "cosine", "constant")),
    ]
)
SMALL = parse_space(
    [
        ParameterText("rank", "discrete", list=("2", "8", "32")),
        ParameterText("learning_rate", "discrete", list=("1e-5", "1e-4", "1e-3", "1e-2")),
    ]
)
QUICK = {"fit_steps": "5", "paper_steps": "3", "projection_dim": "8"}


def look(
    trials: Sequence[Trial], space=SPACE, encoder=None, most: int = 60, few: int = 60, objective=LOSS, **changes: str
) -> Landscape:
    request = SuggestRequest("a-search", space, objective, {**QUICK, **changes}, tuple(trials), 0)
    return landscape(request, encoder or FakeEncoder(), most, few)


def vectors_of(found: Landscape) -> NDArray[np.float64]:
    space, encoder = found.candidates.space, FakeEncoder()
    texts = describe_all(load_prompt(None, space, encoder.form), space, found.candidates)
    return encoder.encode(texts).astype(np.float64)


# --------------------------------------------------------------------------------------------------------- the views


def test_the_frozen_view_is_the_pca_of_the_vectors() -> None:
    found = look(tried(SPACE, 8))
    vectors = vectors_of(found)
    view = found.views[0]
    pca = PCA(2).fit(vectors)
    assert view.kind is ViewKind.FROZEN
    # float64 throughout; eigenvalues of a Gram matrix are exact to some 1e-16 of the greatest, distances to its root.
    np.testing.assert_allclose(pdist(view.candidates), pdist(pca.transform(vectors)), rtol=1e-6, atol=1e-6)
    assert [axis.explained for axis in view.axes] == pytest.approx(pca.explained_variance_ratio_, rel=1e-9)
    # The trials are put onto the same axes: one whose vector is a candidate's lies on it.
    points = list(found.candidates)[:8]
    again = look([replace(trial, assignments=point) for trial, point in zip(tried(SPACE, 8), points, strict=True)])
    np.testing.assert_allclose(again.views[0].trials, again.views[0].candidates[:8], atol=1e-9)


def test_the_frozen_view_does_not_know_the_trials() -> None:
    first, second = look(tried(SPACE, 8, seed=3)), look(tried(SPACE, 5, seed=9))
    np.testing.assert_array_equal(first.views[0].candidates, second.views[0].candidates)
    assert not np.array_equal(first.views[1].candidates, second.views[1].candidates)


@pytest.mark.parametrize("surrogate", ["mixture", "language", "paper"])
def test_the_order_of_the_trials_changes_their_path_alone(surrogate: str) -> None:
    trials = in_every_state(SPACE)
    order = list(range(len(trials)))
    random.Random(0).shuffle(order)
    first, second = look(trials, surrogate=surrogate), look([trials[i] for i in order], surrogate=surrogate)
    assert [view.kind for view in first.views] == [ViewKind.FROZEN, ViewKind.PROJECTED]
    np.testing.assert_array_equal(first.predicted, second.predicted)
    names = [trials[i].name for i in first.trials]
    assert [trials[order[i]].name for i in second.trials] == [trials[i].name for i in order if trials[i].name in names]
    place = {i: k for k, i in enumerate(first.trials)}
    moved = [place[order[i]] for i in second.trials]
    for a, b in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(a.candidates, b.candidates)
        np.testing.assert_array_equal(a.trials[moved], b.trials)
        assert a.axes == b.axes


def test_trials_of_another_space_have_no_place() -> None:
    trials = in_every_state(SPACE)
    assert [trials[i].name for i in look(trials).trials] == [t.name for t in trials if not t.name.startswith("foreign")]


def test_one_trial_is_enough_and_none_is_not() -> None:
    trials = tried(SPACE, 1)
    found = look(trials, surrogate="language")
    assert found.views[1].trials.shape == (1, 2)
    assert np.isfinite(found.views[1].candidates).all()
    # One observation has no scale: the prediction is its value everywhere.
    assert found.predicted == pytest.approx(trials[0].value)
    failed = [Trial("failed", trials[0].assignments, TrialState.FAILED)]
    for nothing in ([], failed):
        with pytest.raises(NoLandscape, match="No trial has a value yet"):
            look(nothing)


def test_predictions_are_in_the_objectives_own_units_and_direction() -> None:
    trials = [replace(t, value=100 - 10 * (t.value or 0.0)) for t in tried(SPACE, 12)]
    found = look(trials, objective=Objective("accuracy", Goal.MAXIMIZE), surrogate="language", fit_steps="30")
    values = [t.value for t in trials if t.value is not None]
    # Posterior means lie between the observations or a little beyond; the other sign or scale would be far off.
    spread = max(values) - min(values)
    assert min(values) - 1e-9 <= found.predicted.min()
    assert found.predicted.max() <= max(values) + spread
    best = found.predicted[np.argsort(-found.predicted)[:5]].mean()
    assert best > np.mean(values)


def test_the_mixture_says_what_the_language_model_weighs() -> None:
    trials = tried(SPACE, 10)
    weight = look(trials).weight
    assert weight is not None
    assert 0 <= weight <= 1
    assert look(trials, surrogate="language").weight is None


def test_a_search_on_numbers_has_no_landscape_and_asks_no_encoder() -> None:
    encoder = FakeEncoder()
    with pytest.raises(NoLandscape, match="numbers alone"):
        look(tried(SPACE, 4), encoder=encoder, surrogate="numeric")
    assert not encoder.requested


@pytest.mark.parametrize(
    ("encoder", "error"),
    [
        (FakeEncoder(value=float("nan")), FitError),
        (FakeEncoder(error=SurroundingsError("no model")), SurroundingsError),
        (FakeEncoder(limit=3), EmbeddingIncomplete),
    ],
)
def test_what_goes_wrong_is_raised(encoder: FakeEncoder, error: type[Exception]) -> None:
    with pytest.raises(error):
        look(tried(SPACE, 4), encoder=encoder)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match="fit_steps"):
        look(tried(SPACE, 4), fit_steps="many")


def test_equal_vectors_are_one_point() -> None:
    found = look(tried(SPACE, 4), encoder=FakeEncoder(value=0.1), surrogate="language")
    for view in found.views:
        assert np.abs(view.candidates).max() == pytest.approx(0.0, abs=1e-9)
        assert [axis.explained for axis in view.axes] == [0.0, 0.0]


class Cold(FakeEncoder):
    """A model without a cache: where there is no time, there is no vector."""

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        if deadline is not None and deadline.expired:
            raise EmbeddingIncomplete(0, len(texts))
        return super().encode(texts, deadline)


def test_fewer_candidates_where_their_vectors_have_to_be_made() -> None:
    trials = tried(SPACE, 4)
    known, cold = (look(trials, encoder=encoder, most=50, few=20) for encoder in (FakeEncoder(), Cold()))
    assert (len(known.candidates), len(cold.candidates)) == (50, 20)
    # The few are the first of a sequence, so that they cover the space as well.
    assert cold.candidates.keys == known.candidates.keys[:20]


def test_a_small_space_is_shown_whole() -> None:
    found = look(tried(SMALL, 3), space=SMALL)
    assert len(found.candidates) == SMALL.size == 12
    assert len(look(tried(TINY, 6), space=TINY).candidates) == 6


def test_a_pool_is_the_space() -> None:
    pool = SPACE.candidates(30, 1)
    trials = tuple(tried(SPACE, 3))
    request = SuggestRequest("a-search", SPACE, LOSS, QUICK, trials, 0, pool=pool)
    assert landscape(request, FakeEncoder(), 50, 50).candidates.keys == pool.keys
    assert set(landscape(request, FakeEncoder(), 10, 10).candidates.keys) < set(pool.keys)


# --------------------------------------------------------------------------------------------- with the learnable token


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("llama")
    config = tiny_llama(folder / "model") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 2048}))
    return load_encoder(str(config.parent), cache=folder / "cache")


PAPER = {"surrogate": "paper", "embedder": "a decoder", "learnable_token": "on"}


def test_with_the_token_there_are_three_views(decoder) -> None:
    trials = tried(SMALL, 5)
    found = look(trials, space=SMALL, encoder=lambda *_: decoder, **PAPER)
    assert [view.kind for view in found.views] == list(ViewKind)
    assert found.missing == ""
    frozen, projected, token = (pdist(view.candidates) for view in found.views)
    assert not np.allclose(frozen, projected, rtol=0.01)
    assert not np.allclose(projected, token, rtol=0.01)
    # Trials are candidates of so small a space: they lie where these lie, with the token, too.
    keys = found.candidates.keys
    for view in found.views:
        at = [keys.index(SMALL.key(trial.assignments)) for trial in trials]
        np.testing.assert_allclose(view.trials, view.candidates[at], atol=1e-4 * np.abs(view.candidates).max())


def test_without_a_projection_there_is_none_to_show(decoder) -> None:
    found = look(tried(SMALL, 4), space=SMALL, encoder=lambda *_: decoder, projection="off", **PAPER)
    assert [view.kind for view in found.views] == [ViewKind.FROZEN, ViewKind.TOKEN]


class NoStates:
    """A decoder that has no time left for the token."""

    def __init__(self, decoder) -> None:
        self._decoder = decoder
        self.identity, self.dimension, self.form = decoder.identity, decoder.dimension, decoder.form
        self.encode, self.initial_token = decoder.encode, decoder.initial_token
        self.encode_with_token = decoder.encode_with_token

    def token_states(self, texts, deadline=None, most_bytes=0):
        raise EmbeddingIncomplete(0, len(texts))


def test_a_token_that_cannot_be_had_leaves_the_other_views(decoder) -> None:
    found = look(tried(SMALL, 4), space=SMALL, encoder=lambda *_: NoStates(decoder), **PAPER)
    assert [view.kind for view in found.views] == [ViewKind.FROZEN, ViewKind.PROJECTED]
    assert found.missing.startswith("The view with the learnable token is missing: the time was over")


# ------------------------------------------------------------------------------------------------------------- parts


@untimed
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 9), st.integers(2, 9)),
        elements=st.integers(-50, 50).map(float),
    )
)
def test_axes_are_those_of_the_pca(X) -> None:  # noqa: N803
    mean, axes, explained = principal_axes(X)
    total = float(np.square(X - X.mean(0)).sum())
    if total == 0:
        assert not axes.any()
        assert not explained.any()
        return
    pca = PCA(2).fit(X)
    # Shares are exact to rounding, and where two are equal they still are; the axes are then any of a plane.
    np.testing.assert_allclose(explained, pca.explained_variance_ratio_, atol=1e-9)
    gram = axes @ axes.T
    np.testing.assert_allclose(gram, np.diag((explained > 0).astype(float)), atol=1e-7)
    # Along an axis lies the variance that it is said to explain.
    places = (X - mean) @ axes.T
    np.testing.assert_allclose(np.square(places).sum(0) / total, explained, atol=1e-9)
    for axis in axes[explained > 0]:
        assert axis[np.argmax(np.abs(axis))] > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (2, 3)])
def test_too_few_rows_or_columns_leave_axes_empty(shape: tuple[int, int]) -> None:
    X = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)  # noqa: N806
    _, axes, explained = principal_axes(X)
    assert axes.shape == (2, shape[1])
    assert explained[1] == 0
    assert explained[0] == pytest.approx(0.0 if shape[0] == 1 else 1.0)


def test_an_axis_goes_with_a_number_and_is_named_after_what_it_follows() -> None:
    sample = SPACE.candidates(200, 1)
    noise = np.random.default_rng(0).standard_normal(200)
    rate, schedule = sample.units[:, 1], np.array([0.0, 2.0, 0.5])[sample.indices[:, 2]]
    assert direction(-rate, sample) == -1.0
    assert direction(rate, sample) == 1.0
    name, agreement = followed(-3 * rate + 0.05 * noise, sample)
    # Variances 9/12 and 0.0025: the share is 0.997, with 200 rows to a thousandth.
    assert (name, round(agreement, 2)) == ("learning_rate", 1.0)
    # Names have no order: the greatest of the three stands in the middle, and the axis follows them all the same.
    assert followed(schedule, sample) == ("schedule", pytest.approx(1.0))
    # 200 rows of noise explain themselves by six groups to 5/199 on average, by chance to 0.1.
    assert followed(noise, sample) == ("", 0.0)
    assert FOLLOWS > 0.1
    assert followed(np.zeros(200), sample) == ("", 0.0)


@untimed
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=20))
def test_outcomes_are_read_backwards(numbers: list[int]) -> None:
    values = np.array(numbers, dtype=np.float64)
    y = outcomes(values)
    scale = max(1.0, float(np.abs(values).max()))
    # Interpolation between neighbours that may lie 1e-3 of the scale apart: rounding, times a thousand.
    np.testing.assert_allclose(in_own_units(y, y, values), values, atol=1e-10 * scale)
    # In the order of size, and constant beyond the worst.
    line = np.linspace(y.min() - 1, y.max() + 1, 50)
    read = in_own_units(line, y, values)
    assert (np.diff(read) >= -1e-10 * scale).all()
    assert read[-1] == values.max()


def test_better_than_the_best_the_scale_goes_on() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e6])
    y = outcomes(values)
    assert in_own_units(np.array([2 * y[0] - y[1]]), y, values)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("values", [[-1e308, 1e308, 0.0, 1e307], [1e308, 1e308], [5e-324, 0.0]])
def test_the_largest_numbers_stay_finite(values: list[float]) -> None:
    array = np.array(values)
    assert np.isfinite(in_own_units(np.linspace(-9, 9, 7), outcomes(array), array)).all()


@pytest.mark.parametrize("surrogate", ["mixture", "language"])
def test_a_search_that_reads_a_shortlist_is_shown_whole(surrogate: str) -> None:
    trials = tried(SPACE, 8)
    few, all_of_them = (look(trials, surrogate=surrogate, language_candidates=read) for read in ("16", "2048"))
    assert len(few.candidates) == 60
    np.testing.assert_array_equal(few.predicted, all_of_them.predicted)
    for a, b in zip(few.views, all_of_them.views, strict=True):
        np.testing.assert_array_equal(a.candidates, b.candidates)
        np.testing.assert_array_equal(a.trials, b.trials)
