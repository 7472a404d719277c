"""Every method is given the same observations, and models with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.bench_suggest import ours
from benchmarks.bench_suggest.methods import DESIGN, EMBEDDINGS, LABELS, METHODS, REFERENCE, SLOW, Place
from benchmarks.bench_suggest.ours import Embedding, NeverComputes, Ours
from benchmarks.bench_suggest.task import (
    Observed,
    nearest,
    numeric_space,
    observations,
    paper_observations,
    paper_parameters,
)
from benchmarks.search.problem import dimensions, positions
from rankwise.space import ParameterText, SearchSpace, parse_space
from rankwise.strategies import language_bo
from rankwise.strategies.language_bo import LanguageBO
from support.encoders import FakeEncoder
from support.paper_space import paper_space

PLACE = Place(Path("unused"))
OUTSIDE = ("optuna-tpe", "optuna-gp", "botorch", "botorch-list")
INSIDE = tuple(name for name in METHODS if name not in OUTSIDE)
Told = list[tuple[dict[str, float], float]]


def numbers(observed: list[Observed]) -> Told:
    return [({name: float(text) for name, text in one.config.items()}, one.value) for one in observed]


def small_space() -> SearchSpace:
    return parse_space(
        [
            ParameterText("rank", "discrete", list=("2", "4", "8", "16"), distribution="logUniform"),
            ParameterText("dropout", "discrete", list=("0", "0.1", "0.2")),
        ]
    )


# -- the task --------------------------------------------------------------------------------------------------------


def test_observations_are_different_configurations_and_fewer_are_the_beginning_of_more() -> None:
    many = paper_observations(100)
    space = paper_space()
    assert len({space.key(one.config) for one in many}) == 100
    assert all(space.contains(one.config) for one in many)
    assert paper_observations(10) == many[:10]
    # A bowl with noise: values differ, and none is far from its depth of some tenths.
    values = [one.value for one in many]
    assert len(set(values)) == 100
    assert all(1.5 < value < 4.5 for value in values)


def test_both_spellings_of_the_space_have_the_same_configurations() -> None:
    assert parse_space(paper_parameters()).fingerprint == paper_space().fingerprint
    assert numeric_space().size == paper_space().size == 45_360
    for one in paper_observations(20):
        assert numeric_space().contains(one.config)


@given(st.data())
@settings(max_examples=30)
def test_the_nearest_configuration_of_a_place(data: st.DataObject) -> None:
    space = small_space()
    dims = dimensions(space)
    points = list(space.enumerate())
    config = data.draw(st.sampled_from(points))
    assert nearest(space, dims, positions(dims, [config])[0]) == config
    at = np.array(data.draw(st.lists(st.floats(0, 1), min_size=len(dims), max_size=len(dims))))
    distances = np.linalg.norm(positions(dims, points) - at, axis=1)
    found = np.linalg.norm(positions(dims, [nearest(space, dims, at)])[0] - at)
    assert found == pytest.approx(distances.min(), abs=1e-12)  # rounding of five additions below 1


# -- what is ingested ------------------------------------------------------------------------------------------------


def record_optuna(monkeypatch: pytest.MonkeyPatch, sampler: str, hook: str) -> list[Told]:
    """What a sampler of Optuna sees whenever it is asked for values."""
    import optuna

    seen: list[Told] = []
    kind = getattr(optuna.samplers, sampler)
    original = getattr(kind, hook)

    def recorded(self: Any, study: Any, *rest: Any) -> Any:
        trials = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        seen.append([(dict(trial.params), trial.value) for trial in trials])
        return original(self, study, *rest)

    monkeypatch.setattr(kind, hook, recorded)
    return seen


def record_botorch(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    """What a model of BoTorch is made of; its places are read back as numbers."""
    import botorch.models

    seen: list[Told] = []
    dims = dimensions(numeric_space())
    original = botorch.models.SingleTaskGP

    def recorded(x: Any, y: Any, **more: Any) -> Any:
        configs = [{dim.name: dim.value(float(at)) for dim, at in zip(dims, row, strict=True)} for row in x]
        seen.append(list(zip(configs, (-y).flatten().tolist(), strict=True)))
        return original(x, y, **more)

    monkeypatch.setattr(botorch.models, "SingleTaskGP", recorded)
    return seen


RECORDERS: dict[str, Callable[[pytest.MonkeyPatch], list[Told]]] = {
    "optuna-tpe": lambda patch: record_optuna(patch, "TPESampler", "sample_relative"),
    "optuna-gp": lambda patch: record_optuna(patch, "GPSampler", "sample_relative"),
    "botorch": record_botorch,
    "botorch-list": record_botorch,
}


@pytest.mark.parametrize(
    ("name", "count"),
    # The list of all configurations takes seconds to be made: that method is asked less.
    [(name, count) for name in OUTSIDE for count in (1, 12) if (name, count) != ("botorch-list", 1)],
)
def test_a_peer_models_with_just_these_configurations_and_values(
    monkeypatch: pytest.MonkeyPatch, name: str, count: int
) -> None:
    observed = paper_observations(count)
    seen = RECORDERS[name](monkeypatch)
    method = METHODS[name](PLACE)
    for _ in range(1 if name == "botorch-list" else 2):  # a second suggestion begins anew
        seen.clear()
        answer = method.ready(observed)()
        assert answer.given == count
        assert paper_space().contains(dict(answer.assignment))
        assert seen, "it was never asked"
        for told in seen:
            assert [value for _, value in told] == pytest.approx([one.value for one in observed], rel=1e-12)
            for (params, _), (expected, _) in zip(told, numbers(observed), strict=True):
                # Through the logarithm and back: some roundings of 1e-16 times a range of 10⁴.
                assert params == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("surrogate", ["mixture", "numeric", "paper"])
@pytest.mark.parametrize("count", [1, 8])
def test_ours_models_with_just_these_configurations_and_values(
    monkeypatch: pytest.MonkeyPatch, surrogate: str, count: int
) -> None:
    space = small_space()
    observed = observations(space, dimensions(space), count)
    asked: list[Any] = []
    original = language_bo.fit_models

    def recorded(wanted: Any, question: Any) -> Any:
        asked.append((wanted.surrogate, question.observations))
        return original(wanted, question)

    monkeypatch.setattr(language_bo, "fit_models", recorded)
    quick = {"initial_points": "1", "fit_steps": "2", "paper_steps": "2", "surrogate": surrogate}
    answer = Ours(quick, FakeEncoder(), space).ready(observed)()
    ((kind, told),) = asked
    assert kind == surrogate
    # The strategy sorts them, so that their order does not matter.
    known = zip([dict(config) for config in told.measured], told.values.tolist(), strict=True)
    assert sorted(known, key=str) == sorted(((one.config, one.value) for one in observed), key=str)
    assert answer.given == count
    assert space.key(answer.assignment) not in {space.key(one.config) for one in observed}


def test_a_fallback_is_no_suggestion_of_ours() -> None:
    space = small_space()
    method = Ours({"initial_points": "1"}, FakeEncoder(error=OSError("no model")), space)
    with pytest.raises(RuntimeError, match="the numbers alone were modelled"):
        method.ready(observations(space, dimensions(space), 3))()


# -- the list --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INSIDE)
def test_settings_of_ours_are_what_the_label_says(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    made: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(ours, "plain", lambda place, known: made.append(("plain", dict(known))))
    monkeypatch.setattr(ours, "with_token", lambda place, known: made.append(("token", dict(known))))
    METHODS[name](PLACE)
    ((how, known),) = made
    options = LanguageBO(FakeEncoder()).options.parse(known)
    assert options["initial_points"] == (None if name == DESIGN else 1)
    assert (how == "token") == (options.text("learnable_token") == "on") == (name in SLOW)
    expected = {"ours-numeric": "numeric"}.get(name, "paper" if "paper" in name else "mixture")
    assert options.text("surrogate") == expected
    if name in SLOW:
        assert f"{options.integer('token_candidates'):,}" in LABELS[name]


def test_everything_has_a_label() -> None:
    assert {*METHODS, *EMBEDDINGS} == set(LABELS)
    assert REFERENCE in METHODS
    assert set(SLOW) <= set(METHODS)


def test_a_missing_vector_is_an_error() -> None:
    encoder = NeverComputes(FakeEncoder())
    with pytest.raises(RuntimeError, match="2 vectors are missing"):
        encoder.encode(["a", "b"])


@pytest.mark.parametrize("neighbours", [False, True])
def test_embedding_takes_other_texts_in_each_round(monkeypatch: pytest.MonkeyPatch, neighbours: bool) -> None:
    texts = [f"{i:03d}" for i in range(200)]
    monkeypatch.setattr(ours, "paper_texts", lambda encoder: list(texts))
    encoder = FakeEncoder()
    method = Embedding(encoder, 20, neighbours=neighbours)  # type: ignore[arg-type]
    answers = [method.ready([])() for _ in range(2)]
    _, first, second = encoder.calls
    assert all(answer.details == {"texts": 20, "of": 200} for answer in answers)
    assert len(set(first)) == len(set(second)) == 20
    assert set(first) != set(second)
    start = texts.index(first[0])
    assert (first == texts[start : start + 20]) == neighbours
