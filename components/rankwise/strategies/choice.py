"""What a search has found, by what it is for: one rule for reports, final runs and pipelines.

1. Seeds: where a parameter only sets the seed, a configuration is what all its trainings say together
   (:mod:`rankwise.strategies.configurations`), its first training with a value stands for it, and its mean counts as
   far as it is known (:mod:`rankwise.strategies.racing`, "true means").
2. Bounds: a configuration counts only when it is known to keep all of them. A metric that hardly any trial reports is
   left out (:func:`rankwise.strategies.costs.counted`); where nothing keeps the rest, nothing was found.
3. A cost weight: the least F = L + λ C. What lacks a cost that counts is not compared.
4. Else the best value of the objective.

The earliest of equals counts. Katib's ``currentOptimalTrial`` is another thing: the best value of one training,
whatever it cost.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rankwise.errors import InvalidInput
from rankwise.space.trial import Objective, Trial, parse_finite
from rankwise.strategies.configurations import Assignments, Configuration, configurations, mean, turned, without
from rankwise.strategies.costs import References, cost_aware_value, counted, reference_costs, violations
from rankwise.strategies.goals import Goals, read_goals
from rankwise.strategies.racing import measure
from rankwise.strategies.seeds import SEED_PARAMETER


@dataclass(frozen=True)
class Aims:
    """What a search is for.

    Attributes:
        goals: costs, bounds, the front.
        seed_parameter: the parameter that only sets a training's seed; "" without one.
        problem: why the goals could not be read from the settings; "" when they could.
    """

    goals: Goals
    seed_parameter: str = ""
    problem: str = ""

    @property
    def is_objective_alone(self) -> bool:
        """Whether the best trial is the one with the best value."""
        return not (self.seed_parameter or self.goals.constraints or self.goals.cost_weight)


def aims_of(settings: Mapping[str, str], objective: Objective) -> Aims:
    """The aims that an Experiment's settings name.

    An Experiment of another algorithm may have settings of these names that mean something else: then the goal is the
    objective alone.
    """
    seed = settings.get(SEED_PARAMETER, "").strip()
    try:
        goals = read_goals(settings, objective)
    except InvalidInput as error:
        return Aims(Goals(objective), seed, str(error))
    if goals.default is not None:
        goals = replace(goals, default=without(goals.default, seed))
    return Aims(goals, seed)


@dataclass(frozen=True)
class Tried:
    """A configuration as its trainings say together.

    Attributes:
        trial: stands for all of them, with the means of value and metrics and the mean's standard error, without the
            seed, under the name of the first one with a value (of the first one, where none has a value). Without a
            seed parameter it is the trial itself.
        row: number of the trial of that name.
        rows: the trainings' numbers among the trials, in their order.
        trainings: how many of them gave a value.
    """

    trial: Trial
    row: int
    rows: tuple[int, ...]
    trainings: int


def tried(trials: Sequence[Trial], aims: Aims) -> list[Tried]:
    """The configurations of a search in the order in which each came first."""
    if not has_seeds(trials, aims):
        return [Tried(trial, i, (i,), int(trial.value is not None)) for i, trial in enumerate(trials)]
    objective = aims.goals.objective
    rows = {trial.name: i for i, trial in enumerate(trials)}
    found = configurations(trials, aims.seed_parameter, _key)
    valued = [one for one in found if one.values and not one.failed]
    errors: dict[str, float] = {}
    if valued:
        spread = measure([turned(one, objective) for one in valued])
        if spread.repeated:
            named = zip(valued, spread.standard_errors.tolist(), strict=True)
            errors = {one.trials[0].name: error for one, error in named}
    made = []
    for one in found:
        name = next((trial.name for trial in one.trials if trial.value is not None), one.trials[0].name)
        together = replace(one.as_trial(objective, errors.get(one.trials[0].name)), name=name)
        made.append(Tried(together, rows[name], tuple(rows[t.name] for t in one.trials), len(one.values)))
    return made


def has_seeds(trials: Sequence[Trial], aims: Aims) -> bool:
    """Whether any trial has the seed parameter: another service than ours may take any text for its name."""
    return bool(aims.seed_parameter) and any(aims.seed_parameter in trial.assignments for trial in trials)


def _key(assignments: Assignments) -> Hashable:
    """One identity for all spellings: ``3e-4`` and ``0.0003`` are one value."""
    found = [(name, text, parse_finite(text)) for name, text in assignments.items()]
    return tuple(sorted((name, text if value is None else "", value or 0.0) for name, text, value in found))


def keeps_bounds(goals: Goals, trials: Sequence[Trial]) -> list[bool | None]:
    """Whether each trial keeps every bound that counts; None where that is not known, or it has no value."""
    columns = _counting(goals, trials)
    return [_keeps(goals, columns, trial) for trial in trials]


def _counting(goals: Goals, trials: Sequence[Trial]) -> list[int]:
    """Numbers of the bounds that count."""
    kept, _ = counted(dict.fromkeys(one.metric for one in goals.constraints), trials, goals.objective)
    return [j for j, one in enumerate(goals.constraints) if one.metric in kept]


def _keeps(goals: Goals, columns: Sequence[int], trial: Trial) -> bool | None:
    if trial.value is None:
        return None
    found = violations(goals, trial)
    known = [found[j] for j in columns]
    if any(g is not None and g > 0 for g in known):
        return False
    return None if None in known else True


@dataclass(frozen=True)
class Leader:
    """The best configuration at some moment.

    Attributes:
        row: number of the trial that stands for it: its first training with a value.
        value: of the objective, in its own direction; the mean where there are several trainings.
        rank: what the search makes small: F, or the turned value; the mean where there are several trainings.
    """

    row: int
    value: float
    rank: float


class _Ranking:
    """What is compared of configurations, with references of costs and counting bounds that are those of all trials."""

    def __init__(self, trials: Sequence[Trial], aims: Aims) -> None:
        self._trials, self._aims, self._goals = trials, aims, aims.goals
        every = [one.trial for one in tried(trials, aims)]
        references = reference_costs(self._goals, every)
        self._columns = _counting(self._goals, every)
        self._ranks = [_rank(self._goals, references, trial) for trial in trials]

    def alone(self, row: int) -> Leader | None:
        """A trial as the configuration that it is; None where it has no rank, or is not known to keep the bounds."""
        trial, rank = self._trials[row], self._ranks[row]
        if rank is None or trial.value is None or not _keeps(self._goals, self._columns, trial):
            return None
        return Leader(row, trial.value, rank)

    def best_of(self, groups: Iterable[Sequence[int]]) -> Leader | None:
        """The best of configurations with several trainings each, which are given by their rows."""
        found: list[tuple[Leader, bool]] = []
        spread: list[list[float]] = []
        for rows in groups:
            members = tuple(self._trials[row] for row in rows)
            together = Configuration(members[0].assignments, members).as_trial(self._goals.objective, None)
            ranks = [rank for row in rows if (rank := self._ranks[row]) is not None]
            if together.value is None or not ranks:
                continue
            first = next(row for row in rows if self._trials[row].value is not None)
            keeps = _keeps(self._goals, self._columns, together)
            found.append((Leader(first, together.value, mean(ranks)), keeps is True))
            spread.append(ranks)
        if not any(keeps for _, keeps in found):
            return None
        believed = measure(spread).posterior_means.tolist()
        allowed = [(mu, leader) for mu, (leader, keeps) in zip(believed, found, strict=True) if keeps]
        return min(allowed, key=lambda item: item[0])[1]


def _rank(goals: Goals, references: References, trial: Trial) -> float | None:
    """What trials are ranked by, smaller is better: F where the search minimizes it, else the turned value."""
    if goals.cost_weight > 0:
        return cost_aware_value(goals, references, trial)
    return None if trial.value is None else goals.sign * trial.value


def leaders(trials: Sequence[Trial], aims: Aims) -> list[Leader | None]:
    """The best configuration after each trial; None where nothing was found by then."""
    ranking = _Ranking(trials, aims)
    found: list[Leader | None] = []
    if has_seeds(trials, aims):
        groups: dict[Hashable, list[int]] = {}
        for i, trial in enumerate(trials):
            groups.setdefault(_key(without(trial.assignments, aims.seed_parameter)), []).append(i)
            found.append(ranking.best_of(groups.values()))
        return found
    best: Leader | None = None
    for i in range(len(trials)):
        other = ranking.alone(i)
        if other is not None and (best is None or other.rank < best.rank):
            best = other
        found.append(best)
    return found


def leader(trials: Sequence[Trial], aims: Aims) -> Leader | None:
    """What the search has found; None where it has found nothing."""
    if has_seeds(trials, aims):
        return _Ranking(trials, aims).best_of(one.rows for one in tried(trials, aims))
    return leaders(trials, aims)[-1] if trials else None
