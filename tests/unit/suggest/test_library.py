"""Ended trials are read from manifests as trials write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankwise.artifacts import NotFound, Outcome
from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.space import Goal
from rankwise.strategies.earlier import SearchName
from rankwise.suggest import library
from rankwise.suggest.library import DEFAULT_ALPHA_RATIO, StoreLibrary
from rankwise.train.config import parse
from rankwise.train.flags import OBJECTIVES
from support.earlier import write_manifest

NEVER = Deadline.never()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"RANKWISE_STORE": str(tmp_path / "store")}


def test_a_trial_is_read_as_it_was_written(environment: dict[str, str]) -> None:
    flags = ("--rank=16", "--learning-rate=3e-4", "--alpha=32", "--dropout=0", "--objective=rougeL")
    write_manifest(environment, "exp", "exp-1", *flags, namespace="team", loss=2.5, rougeL=0.3)
    (trial,) = StoreLibrary(environment, "team").trials(SearchName("exp"), None, 10, NEVER)
    assert trial.name == "exp-1"
    assert {name: trial.configuration[name] for name in ("rank", "learning_rate", "alpha", "dropout")} == {
        "rank": "16",
        "learning_rate": "0.0003",
        "alpha": "32.0",
        "dropout": "0.0",
    }
    assert "alpha_ratio" not in trial.configuration
    assert trial.metrics == {"loss": 2.5, "rougeL": 0.3}
    assert (trial.objective.metric, trial.objective.goal) == ("rougeL", Goal.MAXIMIZE)
    assert not trial.diverged


def test_only_results_that_stay_are_read(environment: dict[str, str]) -> None:
    for outcome in Outcome:
        metrics = {} if outcome in (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY) else {"loss": 1.0}
        write_manifest(environment, "exp", f"exp-{outcome.value}", outcome=outcome, **metrics)
    write_manifest(environment, "exp", "exp-without")  # stopped before it was evaluated
    found = StoreLibrary(environment, None).trials(SearchName("exp"), None, 10, NEVER)
    assert [(trial.name, trial.diverged, dict(trial.metrics)) for trial in found] == [
        ("exp-diverged", True, {}),
        ("exp-early_stopped", False, {"loss": 1.0}),
        ("exp-succeeded", False, {"loss": 1.0}),
    ]


def test_namespaces_keep_searches_of_one_name_apart(environment: dict[str, str]) -> None:
    for namespace in ("a", "b", None):
        write_manifest(environment, "exp", f"exp-{namespace}", namespace=namespace, loss=1.0)
    write_manifest(environment, "exp-2", "exp-other", namespace="a", loss=1.0)

    def names(search: SearchName, own: str | None) -> list[str]:
        return [trial.name for trial in StoreLibrary(environment, own).trials(search, None, 10, NEVER)]

    assert names(SearchName("exp"), "a") == names(SearchName("exp", "a"), "b") == ["exp-a"]
    assert names(SearchName("exp", "b"), "a") == ["exp-b"]
    assert names(SearchName("exp"), None) == ["exp-None"]
    with pytest.raises(NotFound, match="no ended trial under 'namespaces/c/experiments/exp/trials/'"):
        names(SearchName("exp", "c"), "a")


def test_asked_for_by_name_only_those_are_read(environment: dict[str, str]) -> None:
    for number in range(5):
        write_manifest(environment, "exp", f"exp-{number}", loss=float(number))
    shelf = StoreLibrary(environment, None)
    assert [trial.name for trial in shelf.trials(SearchName("exp"), None, 3, NEVER)] == ["exp-0", "exp-1", "exp-2"]
    wanted = ("exp-4", "exp-gone", "exp-1")
    assert [trial.name for trial in shelf.trials(SearchName("exp"), wanted, 10, NEVER)] == ["exp-4", "exp-1"]
    with pytest.raises(NotFound, match="no ended trial"):
        shelf.trials(SearchName("exp"), ("exp-gone",), 10, NEVER)


def test_what_is_no_trial_of_the_search_is_left_out(
    environment: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_manifest(environment, "exp", "exp-1", loss=1.0)
    write_manifest(environment, "exp", "exp-final-best", "--evaluate=test", loss=0.5)
    trials = tmp_path / "store" / "experiments" / "exp" / "trials"
    for key in ("exp-2/manifest.json", "exp-3/adapter/manifest.json", "exp-4/checkpoint/x", "manifest.json"):
        (trials / key).parent.mkdir(parents=True, exist_ok=True)
        (trials / key).write_text("{}")
    found = StoreLibrary(environment, None).trials(SearchName("exp"), None, 10, NEVER)
    assert [trial.name for trial in found] == ["exp-1"]
    (record,) = caplog.records
    assert "trials/exp-2 is left out, its manifest cannot be read" in record.getMessage()


def test_without_a_store_and_with_a_wrong_one_the_reason_is_told() -> None:
    with pytest.raises(SurroundingsError, match="RANKWISE_STORE is not set"):
        StoreLibrary({}, None).trials(SearchName("exp"), None, 10, NEVER)
    with pytest.raises(InvalidInput, match="S3_ENDPOINT"):
        StoreLibrary({"RANKWISE_STORE": "s3://bucket/prefix"}, None).trials(SearchName("exp"), None, 10, NEVER)


def test_nothing_is_opened_before_it_is_needed(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    opened: list[str] = []

    def open_store(uri: str, *_: object) -> None:
        opened.append(uri)
        raise SurroundingsError("the server is down")

    monkeypatch.setattr(library, "open_store", open_store)
    shelf = StoreLibrary(environment, None)
    assert opened == []
    for _ in range(2):
        with pytest.raises(SurroundingsError, match="the server is down"):
            shelf.trials(SearchName("exp"), None, 10, NEVER)
    assert len(opened) == 2


def test_reading_ends_with_its_time(environment: dict[str, str]) -> None:
    write_manifest(environment, "exp", "exp-1", loss=1.0)
    with pytest.raises(SurroundingsError, match="only 0 of 1 trials were read in time"):
        StoreLibrary(environment, None).trials(SearchName("exp"), None, 10, Deadline(0.0))


def test_of_what_the_trainer_can_optimize_the_loss_alone_is_minimized() -> None:
    assert [name for name in OBJECTIVES if name in library.MINIMIZED] == ["loss"]
    # Every other one is a share of what is right, from 0 up.
    assert set(OBJECTIVES) - {"loss"} == {"rouge1", "rouge2", "rougeL", "bleu", "exact_match"}


def test_the_default_ratio_is_the_trainers(environment: dict[str, str]) -> None:
    config = parse(["--model=m", "--data=d", "--rank=4"], {})
    assert config.scale / 4 == float(DEFAULT_ALPHA_RATIO)
    write_manifest(environment, "exp", "exp-1", "--rank=4", loss=1.0)
    (trial,) = StoreLibrary(environment, None).trials(SearchName("exp"), None, 10, NEVER)
    assert trial.configuration["alpha_ratio"] == DEFAULT_ALPHA_RATIO
