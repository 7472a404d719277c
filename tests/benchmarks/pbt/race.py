"""The methods: population-based training as the strategy does it, and random search over trainings of full length.

All train adapters of MiniLM's first three blocks on one task of :mod:`benchmarks.lora_runs`, with P members times G
generations times S steps in all:

- ``pbt``: the strategy ``rankwise-pbt``, asked for P configurations whenever P trials have ended; a trial is S steps
  that begin with its parent's adapter and moments, at a constant rate;
- ``random``: P configurations, each trained for G · S steps at a constant rate;
- ``random, linear``: the same with a rate that falls to zero, which is what the trainer does unless told otherwise.

With one seed all three begin with the same P configurations: those that the strategy draws at random. The best is
chosen by its loss on validation examples; that of the test examples says how good the choice is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.lora_runs.batched import Item, Length, Plan, Result, State, train
from benchmarks.lora_runs.models import PackedBert
from rankwise.space import Goal, Objective, ParameterText, SearchSpace, Trial, TrialState, parse_space
from rankwise.strategies.base import Suggestions, SuggestRequest
from rankwise.strategies.lineage import PARENT_LABEL
from rankwise.strategies.pbt import PopulationBasedTraining

METHODS = ("pbt", "random", "random, linear")
LOSS = Objective("loss", Goal.MINIMIZE)


def space() -> SearchSpace:
    """What is searched: four decades of learning rates, dropout, and the rank, which members hand on."""
    return parse_space(
        [
            ParameterText("rank", "discrete", list=("4", "8", "16")),
            ParameterText("learning_rate", "double", "1e-5", "1e-1", distribution="logUniform"),
            ParameterText("dropout", "double", "0", "0.5"),
        ]
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """How large the race is.

    Attributes:
        members: P.
        generations: G.
        steps: S, optimizer steps of one generation.
        batch: examples in a step.
    """

    members: int = 8
    generations: int = 8
    steps: int = 12
    batch: int = 16


@dataclass(frozen=True, slots=True)
class Task:
    """What is trained on.

    Attributes:
        model: the frozen model.
        items: training examples.
        validation, test: held-out examples.
        classes: number of classes.
    """

    model: PackedBert
    items: Sequence[Item]
    validation: Sequence[Item]
    test: Sequence[Item]
    classes: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method came to with one seed.

    Attributes:
        method: one of :data:`METHODS`.
        seed: of the search and of the trainings.
        loss: of the best adapter on the validation examples, in nats.
        test_loss: of the same adapter on the test examples.
        steps: optimizer steps made in all.
        best: best validation loss after each generation (``pbt``), or at the end alone.
        configuration: of the best adapter; with ``pbt`` the one it ended with.
        rates: learning rates that led to the best adapter, one a generation.
    """

    method: str
    seed: int
    loss: float
    test_loss: float
    steps: int
    best: list[float]
    configuration: dict[str, str]
    rates: list[float] = field(default_factory=list)


def run(method: str, task: Task, setting: Setting, seed: int) -> Outcome:
    """One method with one seed.

    Raises:
        ValueError: there is no such method, or every training diverged.
    """
    if method == "pbt":
        return _population(task, setting, seed)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, one of {', '.join(METHODS)}")
    points = _ask(setting, seed, (), {}).assignments
    length = Length(
        steps=setting.steps * setting.generations, schedule="linear" if method.endswith("linear") else "constant"
    )
    results = _train(task, setting, seed, points, length, [None] * len(points), ("validation", "test"))
    losses = [_loss(result, "validation") for result in results]
    place = min(range(len(losses)), key=losses.__getitem__)
    return Outcome(
        method,
        seed,
        losses[place],
        _loss(results[place], "test"),
        sum(result.steps for result in results),
        [losses[place]],
        dict(points[place]),
        [float(points[place]["learning_rate"])] * setting.generations,
    )


def _population(task: Task, setting: Setting, seed: int) -> Outcome:
    trials: list[Trial] = []
    notes: dict[str, str] = {}
    states: dict[str, State] = {}
    rates: dict[str, list[float]] = {}
    best: list[float] = []
    steps = 0
    for generation in range(setting.generations):
        answer = _ask(setting, seed, trials, notes)
        parents = [labels.get(PARENT_LABEL) for labels in answer.labels]
        starts = [None if parent is None else states[parent] for parent in parents]
        length = Length(steps=setting.steps, schedule="constant")
        results = _train(task, setting, seed, answer.assignments, length, starts, ("validation",))
        for i, (point, result) in enumerate(zip(answer.assignments, results, strict=True)):
            name = f"t{generation * setting.members + i}"
            notes[name] = answer.notes[i]
            rates[name] = [*rates.get(parents[i] or "", []), float(point["learning_rate"])]
            steps += result.steps
            loss = _loss(result, "validation")
            if result.state is None or not math.isfinite(loss):
                trials.append(Trial(name, point, TrialState.FAILED))
                continue
            states[name] = result.state
            trials.append(Trial(name, point, TrialState.SUCCEEDED, loss))
        best.append(min((trial.value for trial in trials if trial.value is not None), default=math.inf))
    ended = [trial for trial in trials if trial.value is not None]
    if not ended:
        raise ValueError("every training diverged")
    chosen = min(ended, key=lambda trial: trial.value or 0.0)
    # A run of no steps measures what it begins with.
    (measured,) = _train(
        task, setting, seed, [chosen.assignments], Length(steps=0), [states[chosen.name]], ("validation", "test")
    )
    return Outcome(
        "pbt",
        seed,
        _loss(measured, "validation"),
        _loss(measured, "test"),
        steps,
        best,
        dict(chosen.assignments),
        rates[chosen.name],
    )


def _ask(setting: Setting, seed: int, trials: Sequence[Trial], notes: Mapping[str, str]) -> Suggestions:
    return PopulationBasedTraining().suggest(
        SuggestRequest(
            experiment="race",
            space=space(),
            objective=LOSS,
            settings={
                "population": str(setting.members),
                "initial_design": "random",
                "random_state": str(seed),
            },
            trials=tuple(trials),
            count=setting.members,
            issued=len(trials),
            notes=notes,
        )
    )


def _train(
    task: Task,
    setting: Setting,
    seed: int,
    points: Sequence[Mapping[str, str]],
    length: Length,
    starts: Sequence[State | None],
    measured: Sequence[str],
) -> list[Result]:
    plans = [
        Plan(
            rank=int(point["rank"]),
            scale=2.0,
            dropout=float(point["dropout"]),
            batch_size=setting.batch,
            learning_rate=float(point["learning_rate"]),
            seed=seed,
        )
        for point in points
    ]
    held = {"validation": task.validation, "test": task.test}
    return train(
        task.model,
        plans,
        task.items,
        {name: held[name] for name in measured},
        classes=task.classes,
        micro=setting.batch,
        length=length,
        starts=starts,
    )


def _loss(result: Result, name: str) -> float:
    """Infinite where the training diverged."""
    return result.measured[name][0] if name in result.measured else math.inf
