"""Several seeds for each configuration, over any strategy.

A training's result depends on its random seed. Where the search space has a parameter that only sets this seed, and the
setting ``seed_parameter`` names it, one trial is one training with one seed, and ``maxTrialCount`` counts trainings:

1. The wrapped strategy sees the space without that parameter and one trial for each configuration
   (:mod:`rankwise.strategies.configurations`): the mean over its seeds, with its standard error. As soon as any
   configuration has two values, each one has a standard error, those with one training too, since the typical spread of
   one training is known then (:mod:`rankwise.strategies.racing`): a single training must not count as the surer
   measurement because nobody knows its error.
2. With ``racing`` off every configuration gets all its seeds before the next one begins. With ``racing`` on the
   incumbent does, and those whose being the best is still open; all others keep one.
3. What is left of the request are new configurations from the wrapped strategy, each with the first seed.

A configuration that failed (more of its trainings did than gave a value) gets no further seed while others are left.
Where the wrapped strategy repeats configurations because there are no untried ones, they get their next unused seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rankwise.errors import InvalidInput, Problem
from rankwise.space import Candidates, Objective, ParameterType, SearchSpace, Trial
from rankwise.strategies.base import SETTINGS_PATH, Strategy, Suggestions, SuggestRequest, mistakes
from rankwise.strategies.configurations import Assignments, Configuration, configurations, mean, turned, without
from rankwise.strategies.options import Option, OptionTable
from rankwise.strategies.racing import Measured, further, measure

Key = tuple[Hashable, ...]

DEFAULT_SEEDS = 3
SEED_PARAMETER, SEEDS, RACING = "seed_parameter", "seeds", "racing"
OPTIONS = (
    Option(
        SEED_PARAMETER,
        str,
        "",
        "a parameter (int or discrete) that only sets a training's random seed: trials that differ in it alone are "
        "trainings of one configuration, and the search is over the others; empty for none",
    ),
    Option(
        SEEDS,
        int,
        None,
        f"with `seed_parameter`: trainings of one configuration at most, each with another seed; by default "
        f"{DEFAULT_SEEDS}, or as many as the parameter has values where that is less",
        1,
        1_000,
    ),
    Option(
        RACING,
        str,
        None,
        "with `seed_parameter`: `on` (the default) gives further seeds only to configurations whose being the best is "
        "still open, `off` gives all seeds to every configuration",
        choices=("on", "off"),
    ),
)
_NAMES = tuple(option.name for option in OPTIONS)
_TABLE = OptionTable(OPTIONS)


@dataclass(frozen=True)
class SeedPlan:
    """How a search uses seeds.

    Attributes:
        parameter: name of the parameter that sets the seed.
        values: its values in Katib's text form, in the order in which they are used.
        seeds: trainings of one configuration at most.
        racing: whether only open configurations get further seeds.
        space: the search space without the parameter.
    """

    parameter: str
    values: tuple[str, ...]
    seeds: int
    racing: bool
    space: SearchSpace


def read_plan(space: SearchSpace, settings: Mapping[str, str]) -> SeedPlan | None:
    """The plan that the settings ask for; None where they name no seed parameter.

    Args:
        space: the whole search space.
        settings: raw ``algorithmSettings``; those of the strategy itself are not looked at.

    Raises:
        InvalidInput: with every mistake in the settings of this module.
    """
    own = {name: text for name, text in settings.items() if name in _NAMES}
    parsed = _TABLE.parse(own, SETTINGS_PATH)
    name = parsed.text(SEED_PARAMETER)
    given = {other: text for other, text in own.items() if other != SEED_PARAMETER and text.strip()}
    if not name:
        if given:
            allowed = f"only together with {SEED_PARAMETER}"
            raise InvalidInput(Problem(f"{SETTINGS_PATH}.{other}", text, allowed) for other, text in given.items())
        return None
    path = f"{SETTINGS_PATH}.{SEED_PARAMETER}"
    usable = [
        parameter
        for parameter in space.parameters
        if parameter.type in (ParameterType.INT, ParameterType.DISCRETE) and parameter.values is not None
    ]
    chosen = next((parameter for parameter in usable if parameter.name == name), None)
    if chosen is None or chosen.values is None:
        names = ", ".join(parameter.name for parameter in usable) or "(none here)"
        raise InvalidInput([Problem(path, name, f"one of the int or discrete parameters {names}")])
    if space.dimension == 1:
        raise InvalidInput([Problem(path, name, "a parameter of a search space that has others, too")])
    wanted = min(DEFAULT_SEEDS, len(chosen.values)) if parsed[SEEDS] is None else parsed.integer(SEEDS)
    if wanted > len(chosen.values):
        allowed = f"at most {len(chosen.values)}, the number of values of {name}"
        raise InvalidInput([Problem(f"{SETTINGS_PATH}.{SEEDS}", str(wanted), allowed)])
    rest = SearchSpace([parameter for parameter in space.parameters if parameter.name != name])
    return SeedPlan(name, chosen.values, wanted, parsed[RACING] != "off", rest)


def own_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that belong to this module."""
    return {name: text for name, text in settings.items() if name in _NAMES}


def strategy_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings without those that belong to this module."""
    return {name: text for name, text in settings.items() if name not in _NAMES}


def without_seeds(request: SuggestRequest) -> SuggestRequest:
    """The request as the wrapped strategy gets it: no seed parameter, one trial for each configuration.

    Everything that reads a search's settings or space for a strategy goes through here. A request that names no seed
    parameter comes back with the same space and trials.

    Raises:
        InvalidInput: the settings of this module are wrong.
    """
    plan = read_plan(request.space, request.settings)
    if plan is None:
        return replace(request, settings=strategy_settings(request.settings))
    return _Search(request, plan).inner


class OverSeeds:
    """A strategy over another one, see the module's text. Without ``seed_parameter`` it is the other one.

    Args:
        strategy: what searches among configurations.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._options = OptionTable([*strategy.options, *OPTIONS])

    @property
    def name(self) -> str:
        return self._strategy.name

    @property
    def options(self) -> OptionTable:
        return self._options

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        """See :class:`rankwise.strategies.base.Strategy`."""
        problems = mistakes(self.options, settings)
        told = {problem.path for problem in problems}
        sound = {name: text for name, text in settings.items() if f"{SETTINGS_PATH}.{name}" not in told}
        searched = space
        try:
            plan = read_plan(space, sound)
            searched = space if plan is None else plan.space
        except InvalidInput as error:
            problems.extend(error.problems)
        problems.extend(self._strategy.validate(searched, objective, strategy_settings(sound)))
        return problems

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """See :class:`rankwise.strategies.base.Strategy`.

        Raises:
            InvalidInput: the settings are wrong.
            NotReady: the wrapped strategy is not ready.
        """
        self.options.parse(request.settings, SETTINGS_PATH)
        plan = read_plan(request.space, request.settings)
        if plan is None:
            return self._strategy.suggest(replace(request, settings=strategy_settings(request.settings)))
        search = _Search(request, plan)
        batch = _Batch(search)
        for configuration in search.further():
            batch.add(configuration.assignments)
        seeds = len(batch.assignments)
        missing = request.count - seeds
        answer = Suggestions(())
        if missing:
            answer = self._strategy.suggest(replace(search.inner, count=-(-missing // search.fewest)))
            for assignments in answer.assignments:
                wanted = 1 if plan.racing else max(1, search.room(assignments))
                for _ in range(min(wanted, request.count - len(batch.assignments))):
                    batch.add(assignments)
            # A repeated configuration may have had fewer seeds left than were reckoned with.
            while len(batch.assignments) < request.count:
                batch.add(answer.assignments[-1])
        details = {
            **answer.details,
            "ignored": float(search.foreign),
            "configurations": float(len(search.known)),
            "further_seeds": float(seeds),
        }
        return replace(answer, assignments=tuple(batch.assignments), repeated=batch.repeated, details=details)


class _Search:
    """A request, by configurations.

    Attributes:
        known: the configurations with their trainings, by key.
        foreign: trials that are not of the space.
        inner: the request for the wrapped strategy.
    """

    def __init__(self, request: SuggestRequest, plan: SeedPlan) -> None:
        self.request = request
        self.plan = plan
        own = [trial for trial in request.trials if request.space.contains(trial.assignments)]
        self.foreign = len(request.trials) - len(own)
        self._seed = request.space.parameters[request.space.names.index(plan.parameter)]
        # Names are random in Katib and the order is not specified: sorted by content.
        own.sort(key=lambda trial: _content(request.space, trial))
        found = configurations(own, plan.parameter, plan.space.key)
        self.known: dict[Key, Configuration] = {plan.space.key(one.assignments): one for one in found}
        self._used: dict[Key, Counter[Hashable]] = {}
        for trial in own:
            key = plan.space.key(without(trial.assignments, plan.parameter))
            self._used.setdefault(key, Counter())[self.seed_of(trial.assignments)] += 1
        self._allowed = None if request.pool is None else self._pooled(request.pool)
        self.measured = [one for one in found if one.values and not one.failed]
        self.spread: Measured | None = (
            measure([turned(one, request.objective) for one in self.measured]) if self.measured else None
        )
        self.inner = self._inner(len(own))

    def seed_of(self, assignments: Assignments) -> Hashable:
        """One identity for all spellings of the seed."""
        return self._seed.canonical(assignments[self.plan.parameter])

    @property
    def fewest(self) -> int:
        """Trainings at least that a new configuration begins with: one, or all that a pool has of each."""
        if self.plan.racing:
            return 1
        least = None if self._allowed is None else min(len(seeds) for seeds in self._allowed.values())
        return self.plan.seeds if least is None else min(self.plan.seeds, least)

    def room(self, assignments: Assignments) -> int:
        """How many further trainings a configuration may have, each with a seed of its own; at least 0."""
        key = self.plan.space.key(assignments)
        used = self._used.get(key, Counter())
        if self._allowed is None:
            unused = len(self.plan.values) - len(used)
        else:
            unused = sum(self._seed.canonical(seed) not in used for seed in self._seeds_of(key))
        return max(0, min(self.plan.seeds - used.total(), unused))

    def _seeds_of(self, key: Key) -> tuple[str, ...]:
        return self.plan.values if self._allowed is None else self._allowed.get(key, self.plan.values)

    def with_seed(self, assignments: Assignments, seed: str) -> dict[str, str]:
        """A configuration as a point of the whole space, in its order."""
        point = {**assignments, self.plan.parameter: seed}
        return {name: point[name] for name in self.request.space.names}

    def seeds(self, assignments: Assignments, more: Mapping[Hashable, int]) -> tuple[str, int]:
        """The next seed of a configuration, and how often it was used: the first one of the least often used.

        Args:
            assignments: the configuration.
            more: seeds that it gets in this request already.
        """
        key = self.plan.space.key(assignments)
        used = self._used.get(key, Counter())
        allowed = self._seeds_of(key)

        def times(seed: str) -> int:
            identity = self._seed.canonical(seed)
            return used[identity] + more.get(identity, 0)

        # A parameter may have thousands of values: the first unused one is near the beginning.
        seed = next((seed for seed in allowed if not times(seed)), None) or min(allowed, key=times)
        return seed, times(seed)

    def further(self) -> list[Configuration]:
        """The configurations that get a further seed now, one entry for each."""
        count = self.request.count
        if self.plan.racing:
            if self.spread is None:
                return []
            room = [self.room(one.assignments) for one in self.measured]
            return [self.measured[i] for i in further(self.spread, room, count)]
        begun = [one for one in self.known.values() if not one.failed]
        begun.sort(key=lambda one: -len(one.trials))  # what is nearly done is ended first
        return [one for one in begun for _ in range(self.room(one.assignments))][:count]

    def _inner(self, own: int) -> SuggestRequest:
        request, plan = self.request, self.plan
        errors: dict[int, float | None] = {}
        if self.spread is not None:
            for one, error in zip(self.measured, self.spread.standard_errors.tolist(), strict=True):
                # Before anything was repeated there is only what the training itself tells.
                told = next(trial.standard_error for trial in one.trials if trial.value is not None)
                errors[id(one)] = error if self.spread.repeated else told
        most = request.max_trials
        return replace(
            request,
            space=plan.space,
            settings=strategy_settings(request.settings),
            trials=tuple(one.as_trial(request.objective, errors.get(id(one))) for one in self.known.values()),
            # What was handed out and is not among the trials may be anything: each a configuration of its own.
            issued=len(self.known) + max(0, request.issued - own),
            max_trials=most if most is None or plan.racing else -(-most // plan.seeds),
            pool=None if request.pool is None else self._inner_pool(request.pool),
        )

    def _inner_pool(self, pool: Candidates) -> Candidates:
        column = pool.space.names.index(self.plan.parameter)
        rest = [j for j in range(pool.space.dimension) if j != column]
        points = self.plan.space.at(pool.units[:, rest])
        return points.take(points.first_occurrences())

    def _pooled(self, pool: Candidates) -> dict[Key, tuple[str, ...]]:
        """The seeds that each configuration of a pool has there, in the order of the parameter's values."""
        texts = {self._seed.canonical(seed): seed for seed in self.plan.values}
        found: dict[Key, set[str]] = {}
        for point in pool:
            key = self.plan.space.key(without(point, self.plan.parameter))
            found.setdefault(key, set()).add(texts[self.seed_of(point)])
        return {key: tuple(seed for seed in self.plan.values if seed in seeds) for key, seeds in found.items()}


class _Batch:
    """The assignments of one answer, as they come together.

    Attributes:
        assignments: points of the whole space.
        repeated: how many of them were tried before, or come twice.
    """

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._given: dict[Key, Counter[Hashable]] = {}
        self._points: dict[Key, Assignments] = {}
        self.assignments: list[dict[str, str]] = []
        self.repeated = 0

    def add(self, assignments: Assignments) -> None:
        """One more training of a configuration; of another one where it has no unused seed and the other one has."""
        seed, times = self._next(assignments)
        if times:
            other = self._with_unused_seed()
            if other is None:
                self.repeated += 1
            else:
                assignments = other
                seed, _ = self._next(other)
        point = self._search.with_seed(assignments, seed)
        key = self._search.plan.space.key(assignments)
        self._given.setdefault(key, Counter())[self._search.seed_of(point)] += 1
        self._points.setdefault(key, assignments)
        self.assignments.append(point)

    def _next(self, assignments: Assignments) -> tuple[str, int]:
        key = self._search.plan.space.key(assignments)
        return self._search.seeds(assignments, self._given.get(key, {}))

    def _with_unused_seed(self) -> Assignments | None:
        """The most promising configuration that has one: by its mean, then those that run, those that failed last."""
        search = self._search
        ordered: list[Configuration] = []
        if search.spread is not None:
            order = search.spread.posterior_means.argsort(kind="stable").tolist()
            ordered += [search.measured[i] for i in order]
        ordered += [one for one in search.known.values() if not one.values and not one.failed]
        ordered += [one for one in search.known.values() if one.failed]
        points: Iterable[Assignments] = [*(one.assignments for one in ordered), *self._points.values()]
        return next((point for point in points if not self._next(point)[1]), None)


def _content(space: SearchSpace, trial: Trial) -> tuple[str, str, float, str]:
    return repr(space.key(trial.assignments)), trial.state.value, trial.value or 0.0, trial.name


@dataclass(frozen=True)
class Best:
    """The configuration that a search chose.

    Attributes:
        configuration: with all its trainings.
        value: mean over the trainings that gave one, in the objective's own direction.
        standard_error: of that mean; None where no configuration was trained twice.
    """

    configuration: Configuration
    value: float
    standard_error: float | None

    @property
    def trainings(self) -> int:
        """How many trainings gave a value."""
        return len(self.configuration.values)

    @property
    def trial(self) -> Trial:
        """The first of these trainings: it stands for the configuration where one trial has to."""
        return next(trial for trial in self.configuration.trials if trial.value is not None)


def best_configuration(
    trials: Sequence[Trial],
    objective: Objective,
    seed_parameter: str = "",
    key: Callable[[Assignments], Hashable] | None = None,
) -> Best | None:
    """The configuration with the best mean over its seeds, not the one with the luckiest training.

    Means count as far as they are known: that of a single training is drawn towards the median of all, that of three
    less so (:mod:`rankwise.strategies.racing`, "true means"). A configuration that failed
    (:mod:`rankwise.strategies.configurations`) is none.

    Args:
        trials: of one search; of equal means that which comes first here counts.
        objective: what is optimized.
        seed_parameter: as in the setting of this name; "" where every parameter counts.
        key: assignments without the seed parameter -> one identity for all spellings, such as
            :meth:`rankwise.space.SearchSpace.key`; None: their texts.

    Returns:
        None where no configuration has a value.
    """
    found = [one for one in configurations(trials, seed_parameter, key) if one.values and not one.failed]
    if not found:
        return None
    spread = measure([turned(one, objective) for one in found])
    first = spread.first()
    error = float(spread.standard_errors[first]) if spread.repeated else None
    return Best(found[first], mean(found[first].values), error)
