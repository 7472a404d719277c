"""What a run has found, and what is trained anew at its end, where the search is for more than its objective."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rankwise.local.command import exit_code, print_result
from support.local_runs import LOSS, FakeSuggestions, experiment, go, listed, status

ANNOTATIONS = {
    "rankwise.dev/default-configuration": json.dumps({"x": "8", "kind": "b"}),
    "rankwise.dev/final-arguments": json.dumps(["--evaluate=test"]),
}
OBJECTIVE = {"type": "minimize", "objectiveMetricName": "loss", "additionalMetricNames": ["seconds"]}
BODY = LOSS + '\nprint(f"seconds={x}")'


def file_of(folder: Path, trials: int, **settings: str) -> Path:
    algorithm: dict[str, Any] = {
        "algorithmName": "language-bo",
        "algorithmSettings": [{"name": name, "value": value} for name, value in settings.items()],
    }
    return experiment(
        folder, BODY, annotations=ANNOTATIONS, objective=OBJECTIVE, algorithm=algorithm, maxTrialCount=trials
    )


def test_the_final_run_is_that_of_the_best_trial_within_the_bounds(
    tmp_path: Path, service: FakeSuggestions, endpoint: str
) -> None:
    service.answer = listed((1, "a"), (3, "a"), (2, "a"))
    result = go(file_of(tmp_path, 3, constraints="seconds<=2.5"), tmp_path / "run", endpoint)
    assert result.best is not None
    assert (dict(result.best.assignments), result.best_value) == ({"x": "2", "kind": "a"}, 1.0)
    assert [dict(trial.assignments)["x"] for trial in result.finals] == ["8", "2"]
    assert result.facts.best is not None
    assert result.facts.best.name == result.best.name
    # Katib's own optimum stays the best value of the objective.
    assert status(tmp_path / "run")["currentOptimalTrial"]["parameterAssignments"][0] == {"name": "x", "value": "3"}
    assert exit_code(result) == 0


def test_costs_decide_where_they_have_a_weight(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    # F = (x − 3)² + 4 x / median: 4 + 2, 0 + 6, 1 + 4 for a median of 2.
    service.answer = listed((1, "a"), (3, "a"), (2, "a"))
    result = go(file_of(tmp_path, 3, cost_weight="4"), tmp_path / "run", endpoint)
    assert result.best is not None
    assert (result.best.assignments["x"], result.best_value) == ("2", 1.0)


def test_where_no_trial_keeps_the_bounds_nothing_is_trained_anew(
    tmp_path: Path, service: FakeSuggestions, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answer = listed((1, "a"), (3, "a"))
    result = go(file_of(tmp_path, 2, constraints="seconds<=0.5"), tmp_path / "run", endpoint)
    assert (result.best, result.best_value, result.finals) == (None, None, ())
    assert exit_code(result) == 4
    print_result(result)
    assert "no trial with a value is what the search looks for" in capsys.readouterr().out


def test_seeds_are_averaged(tmp_path: Path, service: FakeSuggestions, endpoint: str) -> None:
    # Kind b adds 0.5: x of 3 has the best single value, 0, and the mean 0.25; x of 2.75 has the mean 0.0625.
    service.answer = listed((3, "a"), (3, "b"), (2.75, "a"), (4, "b"))
    result = go(file_of(tmp_path, 4, seed_parameter="kind"), tmp_path / "run", endpoint)
    assert result.best is not None
    assert (result.best.assignments["x"], result.best_value) == ("2.75", 0.0625)
    service.answer = listed((2.5, "a"), (2.5, "b"), (2.75, "b"), (4, "b"))
    other = go(file_of(tmp_path / "other", 4, seed_parameter="kind"), tmp_path / "other" / "run", endpoint)
    assert other.best is not None
    assert (other.best.assignments["x"], other.best_value) == ("2.5", 0.5)
