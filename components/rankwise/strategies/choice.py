"""What a search has found, by what it is for: one rule for reports, final runs and pipelines.

1. Seeds: where a parameter only sets the seed, a configuration is what all its trainings say together
   (:mod:`rankwise.strategies.configurations`), and its first training with a value stands for it.
2. Bounds: a configuration counts only when it is known to keep all of them. A metric that hardly any trial reports is
   left out (:func:`rankwise.strategies.costs.counted`); where nothing keeps the rest, nothing was found.
3. A cost weight: the least F = L + λ C. What lacks a cost that counts is not compared.
4. Else the best value of the objective.

The earliest of equals counts. Katib's ``currentOptimalTrial`` is another thing: the best value of one training,
whatever it cost.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from rankwise.errors import InvalidInput
from rankwise.space.trial import Objective, Trial, parse_finite
from rankwise.strategies.configurations import Assignments, Configuration, configurations, turned, without
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
    if not aims.seed_parameter:
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


def _rank(goals: Goals, references: References, trial: Trial) -> float | None:
    """What configurations are ranked by, smaller is better: F where the search minimizes it, else the turned value."""
    if goals.cost_weight > 0:
        return cost_aware_value(goals, references, trial)
    return None if trial.value is None else goals.sign * trial.value


@dataclass(frozen=True)
class Leader:
    """The best configuration at some moment.

    Attributes:
        row: number of the trial that stands for it: its first training with a value.
        value: of the objective, in its own direction; the mean where there are several trainings.
        rank: what it was chosen by, smaller is better: F, or the turned value.
    """

    row: int
    value: float
    rank: float


def leaders(trials: Sequence[Trial], aims: Aims) -> list[Leader | None]:
    """The best configuration after each trial; None where nothing was found by then.

    References of costs, and which metrics count, are those of all trials.
    """
    goals, everything = aims.goals, [one.trial for one in tried(trials, aims)]
    references, columns = reference_costs(goals, everything), _counting(goals, everything)
    groups: dict[Hashable, list[int]] = {}
    standing: dict[Hashable, Leader] = {}
    best: Leader | None = None
    found: list[Leader | None] = []
    for i, trial in enumerate(trials):
        rest = without(trial.assignments, aims.seed_parameter)
        key: Hashable = _key(rest) if aims.seed_parameter else i
        groups.setdefault(key, []).append(i)
        together = trial
        if aims.seed_parameter:
            members = tuple(trials[j] for j in groups[key])
            together = Configuration(rest, members).as_trial(goals.objective, None)
        standing.pop(key, None)
        rank = _rank(goals, references, together)
        if rank is not None and together.value is not None and _keeps(goals, columns, together):
            first = next(j for j in groups[key] if trials[j].value is not None)
            standing[key] = Leader(first, together.value, rank)
        if aims.seed_parameter:
            best = min(standing.values(), key=lambda one: (one.rank, one.row), default=None)
        elif key in standing and (best is None or standing[key].rank < best.rank):
            best = standing[key]
        found.append(best)
    return found


def leader(trials: Sequence[Trial], aims: Aims) -> Leader | None:
    """What the search has found; None where it has found nothing."""
    return leaders(trials, aims)[-1] if trials else None
