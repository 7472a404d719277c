"""``optuna-tpe``: Optuna's tree-structured Parzen estimator behind this house's contract.

TPE (Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", section 4) splits the trials into good and bad
ones, estimates the density of either and proposes what is much likelier among the good. Optuna keeps a study from call
to call; here the study is made anew from the trials at each request, so that nothing is lost at a restart:

- **Measured** trials are complete ones, **failed** trials pruned ones, which Optuna ranks behind all others, and
  **pending** trials running ones, which it counts among the bad (its constant liar).
- The first ``startup_trials`` configurations come from a Sobol sequence, where Optuna draws at random.
- Optuna gives the oldest of more than 25 trials less weight. Katib's order of trials is not specified, so that here all
  weigh the same.
- Optuna proposes points on ranges (:mod:`rankwise.strategies.optuna_space`); the nearest value of the parameter is
  taken. Where that configuration was tried Optuna is asked again, and after :data:`ASKED` answers the untried
  configuration nearest to the first one is taken.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rankwise.errors import InvalidInput, Problem
from rankwise.space import Candidates, Objective, ParameterType, SearchSpace
from rankwise.strategies.base import RANDOM_STATE, Suggestions, SuggestRequest, mistakes, seed_of
from rankwise.strategies.options import Option, OptionTable, ParsedOptions
from rankwise.strategies.sequence import (
    Key,
    PointSequence,
    SobolSequence,
    continue_sequence,
    repeat_least_tried,
)
from rankwise.surrogate.observations import Observations, read_trials

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

STARTUP_TRIALS = 10
"""Optuna's own number."""
ASKED = 8
"""Answers of Optuna that are looked at for one suggestion."""
_ENUMERABLE = 1 << 16
PACKAGE = "optuna"

OPTIONS = OptionTable(
    [
        Option(
            "startup_trials",
            int,
            None,
            f"configurations of a Sobol sequence before the estimator takes over; by default {STARTUP_TRIALS}, or a "
            "third of maxTrialCount where that is less",
            1,
            10_000,
        ),
        Option(
            "multivariate",
            str,
            "on",
            "whether the parameters are estimated together (Optuna's default for one objective) or each by itself",
            choices=("on", "off"),
        ),
        Option("ei_candidates", int, 24, "draws among which the likeliest good one is proposed", 1, 100_000),
        RANDOM_STATE,
    ]
)


class OptunaTPE:
    """Optuna's ``TPESampler``, stateless."""

    name = "optuna-tpe"
    options = OPTIONS

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:  # noqa: ARG002
        """See :class:`rankwise.strategies.base.Strategy`; that Optuna is not installed is a mistake, too."""
        return [*_missing(), *mistakes(self.options, settings)]

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """See :class:`rankwise.strategies.base.Strategy`.

        Raises:
            InvalidInput: the settings are wrong, or Optuna is not installed.
        """
        options = self.options.parse(request.settings)
        if missing := _missing():
            raise InvalidInput(missing)
        observations = read_trials(request.space, request.objective, request.trials)
        sequence = _sequence(request, options)
        position = max(request.issued, observations.count)
        ended = len(observations.values) + len(observations.failed)
        designed = request.count if not ended else min(request.count, max(0, _startup(request, options) - position))
        initial = continue_sequence(sequence, position, designed, observations.tried) if designed else []
        chosen = [dict(point) for _, point in initial]
        tried = dict(observations.tried)
        for key, _ in initial:
            tried[key] = tried.get(key, 0) + 1
        fallback, reason = None, "strategy"
        if len(chosen) < request.count:
            if request.deadline.expired:
                fallback, reason = "the Sobol sequence went on: there was no time left", "time"
            else:
                try:
                    chosen += _proposals(request, options, observations, chosen, tried, request.count - len(chosen))
                except Exception as error:
                    log.exception("Optuna failed")
                    fallback = f"the Sobol sequence went on: Optuna failed with {type(error).__name__}"
                    reason = "fit"
        fresh = continue_sequence(sequence, position + designed, request.count - len(chosen), tried)
        for key, point in fresh:
            tried[key] = tried.get(key, 0) + 1
            chosen.append(dict(point))
        repeated = request.count - len(chosen)
        if repeated:
            chosen += repeat_least_tried(sequence.first(len(tried)), tried, repeated)
        details = {
            "observations": float(len(observations.values)),
            "failed": float(len(observations.failed)),
            "pending": float(len(observations.pending)),
            "ignored": float(observations.ignored),
        }
        return Suggestions(tuple(chosen), fallback, repeated, details, reason)


def _missing() -> list[Problem]:
    if importlib.util.find_spec(PACKAGE) is not None:
        return []
    allowed = "an algorithm whose packages are installed here; this one needs Optuna: pip install 'rankwise[local]'"
    return [Problem("spec.algorithm.algorithmName", OptunaTPE.name, allowed)]


def _startup(request: SuggestRequest, options: ParsedOptions) -> int:
    if options["startup_trials"] is not None:
        return options.integer("startup_trials")
    return STARTUP_TRIALS if request.max_trials is None else min(STARTUP_TRIALS, max(2, request.max_trials // 3))


def _sequence(request: SuggestRequest, options: ParsedOptions) -> PointSequence:
    seed = seed_of(request, options, "initial design")
    return SobolSequence(request.space, seed) if request.pool is None else _PoolOrder(request.pool, seed)


class _PoolOrder(PointSequence):
    """A pool's configurations in a random order."""

    def __init__(self, pool: Candidates, seed: int) -> None:
        super().__init__(pool.space, seed)
        self._pool = pool.take(np.random.default_rng(seed).permutation(len(pool)))

    def stream(self, n: int) -> Candidates:
        return self._pool.take(np.arange(min(n, len(self._pool))))

    def first(self, n: int) -> list[tuple[Key, dict[str, str]]]:
        points = self.stream(n)
        return list(zip(points.keys, points, strict=True))


# ------------------------------------------------------------------------------------------------------ the estimator


def _proposals(
    request: SuggestRequest,
    options: ParsedOptions,
    observations: Observations,
    batch: Sequence[Mapping[str, str]],
    tried: dict[Key, int],
    count: int,
) -> list[dict[str, str]]:
    """At most ``count`` untried configurations; fewer where there are no more. ``tried`` gets them, too."""
    space = request.space
    whole = _finite(request)
    untried = None if whole is None else len(whole) - len(set(whole.keys) & tried.keys())
    proposer = _Proposer(request, options, observations, batch)
    chosen: list[dict[str, str]] = []
    while len(chosen) < (count if untried is None else min(count, untried)):
        if request.deadline.expired:
            break
        point = proposer.untried(tried, whole)
        if point is None:
            break
        proposer.running(point)
        key = space.key(point)
        tried[key] = tried.get(key, 0) + 1
        chosen.append(point)
    return chosen


def _finite(request: SuggestRequest) -> Candidates | None:
    """Every configuration that may be suggested; None where they are too many."""
    if request.pool is not None:
        return request.pool
    size = request.space.size
    return None if size is None or size > _ENUMERABLE else request.space.enumerate()


class _Proposer:
    """A study with the trials of a request, and the sampler that is asked."""

    def __init__(
        self,
        request: SuggestRequest,
        options: ParsedOptions,
        observations: Observations,
        batch: Sequence[Mapping[str, str]],
    ) -> None:
        import optuna
        from optuna.trial import TrialState

        from rankwise.strategies.optuna_space import distribution_of, quiet

        self._space = request.space
        self._pooled = request.pool is not None
        self._distributions: dict[str, Any] = {
            parameter.name: distribution_of(
                parameter.type.value,
                parameter.distribution.value,
                parameter.low,
                parameter.high,
                parameter.step if parameter.type in (ParameterType.INT, ParameterType.DOUBLE) else None,
                parameter.values if parameter.type in (ParameterType.DISCRETE, ParameterType.CATEGORICAL) else None,
            )
            for parameter in self._space.parameters
        }
        purpose = f"estimator {max(request.issued, observations.count)}"
        with quiet(FutureWarning):
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=0,
                n_ei_candidates=options.integer("ei_candidates"),
                multivariate=options.text("multivariate") == "on",
                weights=np.ones,
                seed=seed_of(request, options, purpose) % 2**32,
            )
            self._study = optuna.create_study(sampler=sampler)
            for point, value in zip(observations.measured, observations.values.tolist(), strict=True):
                self._add(point, TrialState.COMPLETE, value)
            for failed in observations.failed:
                self._add(failed, TrialState.PRUNED)
            for running in [*observations.pending, *batch]:
                self._add(running, TrialState.RUNNING)

    def running(self, point: Mapping[str, str]) -> None:
        """Count a configuration as one that is being trained."""
        from optuna.trial import TrialState

        self._add(point, TrialState.RUNNING)

    def untried(self, tried: Mapping[Key, int], whole: Candidates | None) -> dict[str, str] | None:
        """The next configuration that was not tried; None where none was found.

        Args:
            tried: keys that must not be given again.
            whole: all configurations that there are; None where they are too many.
        """
        first: dict[str, str] | None = None
        for _ in range(ASKED):
            point = self._ask()
            if first is None:
                first = point
            if self._pooled:
                break
            if self._space.key(point) not in tried:
                return point
        if whole is None or first is None:
            return None
        rest = whole.without(tried.keys())
        if not len(rest):
            return None
        distance = _distances(self._space, rest, first)  # (m,)
        return rest.assignments(int(np.argmin(distance)))

    def _ask(self) -> dict[str, str]:
        from optuna.trial import TrialState

        from rankwise.strategies.optuna_space import quiet

        with quiet():
            trial = self._study.ask(self._distributions)
            # What is asked for is not trained as it is; without this it would count as running.
            self._study.tell(trial, state=TrialState.FAIL)
        point: dict[str, str] = {}
        for parameter in self._space.parameters:
            given = trial.params[parameter.name]
            if parameter.type is ParameterType.CATEGORICAL:
                point[parameter.name] = given
            else:
                distribution = self._distributions[parameter.name]
                point[parameter.name] = parameter.nearest(given, log=distribution.log)
        return point

    def _add(self, point: Mapping[str, str], state: optuna.trial.TrialState, value: float | None = None) -> None:
        from optuna.trial import create_trial

        from rankwise.strategies.optuna_space import value_of

        values: dict[str, Any] = {}
        for parameter in self._space.parameters:
            text = point[parameter.name]
            # The value that is meant, whatever its spelling: 0.10000000000000003 is 0.1 on a grid.
            meant = parameter.canonical(text)
            number = float(meant) if isinstance(meant, (int, float)) else None
            found = value_of(self._distributions[parameter.name], text, number)
            if found is not None:
                values[parameter.name] = found
        self._study.add_trial(
            create_trial(
                state=state,
                value=value,
                params=values,
                distributions={name: self._distributions[name] for name in values},
            )
        )


def _distances(space: SearchSpace, points: Candidates, point: Mapping[str, str]) -> Any:
    """Distances (m,) of configurations from one: Euclidean in the unit cube, 1 between two categories."""
    units = space.encode([point])  # (1, D)
    steps = np.abs(points.units - units)  # (m, D)
    categorical = [parameter.type is ParameterType.CATEGORICAL for parameter in space.parameters]
    steps[:, categorical] = steps[:, categorical] > 0
    return np.linalg.norm(steps, axis=1)
