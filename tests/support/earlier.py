"""Earlier searches: manifests as the trainer itself writes them, and a library that does what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from rankwise.artifacts import Cost, DataSource, ModelSource, NotFound, Outcome
from rankwise.deadline import Deadline
from rankwise.space import Goal, Objective
from rankwise.strategies.earlier import SearchName
from rankwise.suggest.library import EndedTrial
from rankwise.train.config import parse
from rankwise.train.metrics import Measured
from rankwise.train.outcome import Result, keep
from rankwise.train.place import open_places

AIM = Objective("loss", Goal.MINIMIZE)


def write_manifest(
    environment: Mapping[str, str],
    experiment: str,
    trial: str,
    *flags: str,
    namespace: str | None = None,
    outcome: Outcome = Outcome.SUCCEEDED,
    **metrics: float,
) -> None:
    """Keep a trial's result in ``RANKWISE_STORE``, by the trainer's own code for it.

    Args:
        environment: of the trial.
        experiment, trial, namespace: its names.
        flags: of ``rankwise train``, besides model and data.
        outcome: how it ended.
        metrics: on the validation split.
    """
    names = [f"--experiment={experiment}", f"--trial={trial}", *([f"--namespace={namespace}"] if namespace else [])]
    config = parse(["--model=m", "--data=d", *names, *flags], environment)
    result = Result(
        outcome=outcome,
        model=ModelSource("m", "main", None),
        data=DataSource("d", "0" * 64, 100, 10, 10, 100, 0),
        cost=Cost(1.0, 1.0, None),
        history=[],
        measured={name: Measured(value, None) for name, value in metrics.items()},
    )
    with pytest.MonkeyPatch.context() as patch:
        # The credentials of an S3 store come from the process's environment.
        for name, value in environment.items():
            patch.setenv(name, value)
        keep(open_places(config), config, result, None)


def ended(name: str, value: float | None = None, metric: str = "loss", goal: Goal = Goal.MINIMIZE) -> EndedTrial:
    """A trial; one that diverged where it has no value."""
    metrics = {} if value is None else {metric: value}
    return EndedTrial(name, {"rank": "8", "lr": "1e-4"}, metrics, Objective(metric, goal), value is None)


class FakeLibrary:
    """Holds trials by search, and writes down what it was asked.

    Args:
        searches: search -> trials.

    Attributes:
        before: called before each answer; may block or raise.
    """

    def __init__(self, searches: Mapping[str, Sequence[EndedTrial]]) -> None:
        self.searches = {name: list(trials) for name, trials in searches.items()}
        self.asked: list[tuple[str, tuple[str, ...] | None, int]] = []
        self.before: Callable[[], None] = lambda: None

    def trials(
        self, search: SearchName, names: Sequence[str] | None, most: int, deadline: Deadline
    ) -> tuple[EndedTrial, ...]:
        assert 0 < deadline.remaining() < 3600
        self.asked.append((str(search), None if names is None else tuple(names), most))
        self.before()
        found = self.searches.get(str(search), [])
        chosen = [trial for trial in sorted(found, key=lambda t: t.name) if names is None or trial.name in names][:most]
        if not chosen:
            raise NotFound("there is no such search")
        return tuple(chosen)
