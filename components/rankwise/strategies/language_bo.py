"""``language-bo``: Bayesian optimization that reads configurations as language.

A request is answered in this order:

1. The first ``initial_points`` configurations, and all as long as no trial has ended, come from the initial design:
   the most plausible configuration first, then others spread over the plausible ones
   (:mod:`rankwise.strategies.design`).
2. Models of the objective are fitted to all ended trials (:mod:`rankwise.strategies.models`) and every untried
   candidate is scored; failures, pending trials and the batch's own members are counted in
   (:mod:`rankwise.surrogate.acquisition`).
3. Further goals (:mod:`rankwise.strategies.goals`) change what the models are fitted to and what the acquisition counts
   in (:mod:`rankwise.strategies.constrained`); ``pareto`` replaces both (:mod:`rankwise.strategies.multi_objective`).
   A default configuration comes before the initial design.
4. Where a finite space has no untried configuration left, tried ones are repeated, best posterior mean first, those
   that are running last: repeats tell how noisy the objective is. They are counted in ``repeated``.

Whatever fails on the way is replaced by something simpler: the language model by the numbers, the models by
the initial design; ``fallback`` says so. Only wrong settings raise.

Vectors take time: 1,440 of them 20 s on two cores, 45,360 ten minutes. Of a large space the language model reads a part
only (``language_candidates``). Whether vectors are there when a request comes is a matter of the clock and of what a
restart has left, and must not change a search. So a request for which the language model reads at most
``wait_for_vectors`` configurations is postponed until all vectors are there, where the caller says that it comes back.
Where it reads more, the search would stand still for too long: the numbers answer, marked as a fallback (reason
``vectors``), until the vectors are there. What can differ then is from which request on the vectors are used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankwise.errors import InvalidInput, Problem
from rankwise.language.prompt import Prompt, PromptForm
from rankwise.language.text_encoder import TextEncoder
from rankwise.space import Candidates, Objective, SearchSpace
from rankwise.strategies.base import (
    SETTINGS_PATH,
    NotReady,
    Suggestions,
    SuggestRequest,
    mistakes,
    seed_of,
)
from rankwise.strategies.candidates import CandidateSet, Key, candidate_set
from rankwise.strategies.constrained import aim_at, fit_bounds, order_of, unreported
from rankwise.strategies.design import LedSequence, PlausibleSequence, PoolSequence
from rankwise.strategies.features import Features
from rankwise.strategies.goals import Goals, read_goals
from rankwise.strategies.knowledge import EarlierSearch, Knowledge, Source, read_belief, rules_of
from rankwise.strategies.language_options import INITIAL_POINTS, OPTIONS, PLAUSIBLE_POINTS
from rankwise.strategies.models import ModelSettings, Question, check_prompt, fit_models, search_prompt
from rankwise.strategies.multi_objective import choose_for_front, fit_front
from rankwise.strategies.options import ParsedOptions
from rankwise.strategies.seeds import without_seeds
from rankwise.strategies.sequence import (
    PointSequence,
    RandomSequence,
    SobolSequence,
    continue_sequence,
    repeat_least_tried,
)
from rankwise.surrogate.acquisition import AcquisitionKind, mixture_mean, select
from rankwise.surrogate.deep_kernel import DeepKernelSettings
from rankwise.surrogate.failure import FailureModel
from rankwise.surrogate.observations import Observations, outcome_variances, outcomes, plain_outcomes, read_trials
from rankwise.surrogate.paper_kernel import PaperKernelSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingPlan:
    """What a search will embed, so that it can be done ahead of time.

    Attributes:
        embedder, pooling: options of the same names.
        prompt: (form of the encoder) -> the prompt.
        points: the configurations that every request scores, without a seed parameter; steps around the best ones
            come later.
    """

    embedder: str
    pooling: str
    prompt: Callable[[PromptForm], Prompt]
    points: Candidates


def embedding_plan(request: SuggestRequest) -> EmbeddingPlan:
    """The plan of a search that has not begun.

    Raises:
        InvalidInput: the settings are wrong.
    """
    request = without_seeds(request)
    options = OPTIONS.parse(request.settings)
    candidates = _candidates(request, options, np.empty((0, request.space.dimension)))

    def prompt(form: PromptForm) -> Prompt:
        return search_prompt(options.text("prompt"), options.text("domain_prompt") == "on", request.space, form)

    return EmbeddingPlan(options.text("embedder"), options.text("pooling"), prompt, candidates.points)


@dataclass(frozen=True)
class _Picks:
    """What a part of the search chose."""

    assignments: list[dict[str, str]]
    repeated: int = 0
    fallback: str | None = None
    reason: str = "strategy"

    def without(self, metrics: Collection[str]) -> _Picks:
        """The same, with what is to be said of goals whose metrics the trials do not report."""
        if not metrics:
            return self
        said = f"the goals count without {', '.join(metrics)}: too few trials report it"
        if self.fallback is not None:
            return replace(self, fallback=f"{self.fallback}; {said}")
        return replace(self, fallback=said, reason="goals")


@dataclass(frozen=True)
class _Asked:
    """What the models are asked for: ``count`` configurations beside those in ``chosen``, none of ``tried``."""

    request: SuggestRequest
    options: ParsedOptions
    goals: Goals
    sources: Sequence[Source]
    observations: Observations
    chosen: Sequence[dict[str, str]]
    tried: Mapping[Key, int]
    count: int
    details: dict[str, float]

    @property
    def pending(self) -> list[dict[str, str]]:
        return [*self.observations.pending, *self.chosen]


@dataclass(frozen=True)
class _View:
    """Where they are looked for.

    Attributes:
        observations: as the goals value them (n).
        order: of how good they are, smaller is better.  # (n,)
        candidates: all points.
        untried: numbers of those that may be chosen (m,).
        features: what processes on the numbers see.
    """

    observations: Observations
    order: NDArray[np.float64]
    candidates: CandidateSet
    untried: NDArray[np.intp]
    features: Features


class LanguageBO:
    """Bayesian optimization over language vectors and numbers.

    Args:
        encoders: (reference, pooling) -> encoder; called at most once a request, so that it should keep what it loads.
    """

    name = "language-bo"
    options = OPTIONS

    def __init__(self, encoders: Callable[[str, str], TextEncoder]) -> None:
        self._encoders = encoders

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        """See :class:`rankwise.strategies.base.Strategy`."""
        problems = mistakes(self.options, settings)
        try:
            read_goals(settings, objective, space, SETTINGS_PATH)
        except InvalidInput as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
        try:
            check_prompt(settings.get("prompt", "").strip(), space)
        except InvalidInput as error:
            problems.extend(error.problems)
        try:
            read_belief(settings.get("belief", ""), space, f"{SETTINGS_PATH}.belief")
        except InvalidInput as error:
            problems.extend(error.problems)
        return problems

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """See :class:`rankwise.strategies.base.Strategy`.

        Raises:
            InvalidInput: the settings are wrong.
            NotReady: the request may be postponed, and the vectors are not there yet.
        """
        options = self.options.parse(request.settings)
        goals = read_goals(request.settings, request.objective, request.space, SETTINGS_PATH)
        observations = read_trials(request.space, request.objective, request.trials)
        details: dict[str, float] = {
            "observations": float(len(observations.values)),
            "failed": float(len(observations.failed)),
            "pending": float(len(observations.pending)),
            "ignored": float(observations.ignored),
        }
        sources = sources_of(request, options)
        sequence = _initial_design(request, options, sources, goals)
        position = max(request.issued, observations.count)
        ended = len(observations.values) + len(observations.failed)
        designed = request.count if not ended else max(0, _initial_points(request, options, sources) - position)
        designed = min(designed, request.count)
        initial = continue_sequence(sequence, position, designed, observations.tried) if designed else []
        chosen = [dict(point) for _, point in initial]
        tried = dict(observations.tried)
        for key, _ in initial:
            tried[key] = tried.get(key, 0) + 1
        missing = request.count - len(chosen)
        if not missing:
            return Suggestions(tuple(chosen), details=details)
        try:
            asked = _Asked(request, options, goals, sources, observations, chosen, tried, missing, details)
            picks = self._modelled(asked)
        except (InvalidInput, NotReady):
            raise
        except Exception as error:
            log.exception("the models failed")
            fresh = continue_sequence(sequence, position + designed, missing, tried)
            for key, _ in fresh:
                tried[key] = tried.get(key, 0) + 1
            repeats = missing - len(fresh)
            points = [dict(point) for _, point in fresh]
            if repeats:
                points += repeat_least_tried(sequence.first(len(tried)), tried, repeats)
            said = f"the initial design went on: the models failed with {type(error).__name__}"
            picks = _Picks(points, repeats, said, "fit")
        return Suggestions(tuple(chosen + picks.assignments), picks.fallback, picks.repeated, details, picks.reason)

    def _modelled(self, asked: _Asked) -> _Picks:
        """Choose ``asked.count`` configurations with the models."""
        request, options, space = asked.request, asked.options, asked.request.space
        aim = aim_at(asked.goals, asked.observations)
        asked.details.update(aim.details)
        order = order_of(asked.goals, aim.observations)
        centres = _best_positions(space.encode(aim.observations.measured), order)
        candidates = _candidates(request, options, centres)
        untried = candidates.untried(asked.tried.keys())
        asked.details["candidates"] = float(len(untried))
        covering = candidates.points.take(np.arange(candidates.covering))
        features = Features(covering, Knowledge(asked.sources, covering))
        view = _View(aim.observations, order, candidates, untried, features)
        picks = _for_front(asked, view) if asked.goals.traded else None
        if picks is None:
            picks = self._for_objective(asked, view)
        if not asked.observations.trials:
            return picks  # before any value nothing is missing
        return picks.without(dict.fromkeys([*aim.left_out, *unreported(asked.goals, asked.observations)]))

    def _for_objective(self, asked: _Asked, view: _View) -> _Picks:
        """Choose configurations that are expected to be better than the best one."""
        request, options, space, observations = asked.request, asked.options, asked.request.space, view.observations
        candidates, features, count = view.candidates, view.features, asked.count
        y = standardized(options, observations.values)
        known = known_variances(options, observations)
        settings = model_settings(request, options, self._encoders)
        waits = settings.reads(len(candidates.points)) <= options.integer("wait_for_vectors")
        settings = replace(settings, postpone=request.postpone and waits)
        if asked.goals.traded:
            settings = replace(settings, surrogate="numeric")
        steps = options.integer("fit_steps")
        bounded = fit_bounds(asked.goals, asked.observations, observations, space, features, steps, request.deadline)
        untried = candidates.points.take(view.untried)
        question = Question(
            space=space,
            candidates=candidates,
            features=features,
            chosen=view.untried,
            observations=observations,
            outcomes=y,
            variances=known,
            pending=asked.pending,
            deadline=request.deadline,
            wanted=count,
            log_kept=None if bounded is None else bounded.model.log_probability(features.numbers(untried)),
        )
        fitted = fit_models(settings, question)
        asked.details.update(fitted.details)
        fallback, reason = fitted.fallback, fitted.reason
        if fallback is None and request.deadline.expired:
            fallback, reason = "the fit of the models was ended by the deadline", "time"
        began = time.monotonic()
        fresh: list[dict[str, str]] = []
        if len(view.untried):
            scored = candidates.points.take(fitted.chosen)
            pending = space.at(space.encode(asked.pending))
            picked = select(
                fitted.members,
                min(count, len(fitted.chosen)),
                kind=AcquisitionKind(options.text("acquisition")),
                beta=options.number("ucb_beta"),
                log_success=_failure(asked, view).log_success(features.numbers(scored)),
                feasible=None if bounded is None else bounded.feasible(features, scored, pending),
                seed=seed_of(request, options, f"fantasies {request.issued}") % 2**31,
            )
            fresh = list(scored.take(picked))
        asked.details["seconds_acquisition"] = time.monotonic() - began
        repeats = count - len(fresh)
        if not repeats:
            return _Picks(fresh, 0, fallback, reason)
        mean = mixture_mean(fitted.members, [member.observed for member in fitted.members])  # (n,)
        if bounded is not None:
            # What breaks a bound is repeated after all that keeps them.
            mean = np.where(bounded.observed, mean, mean + np.ptp(mean) + 1.0)
        again = _repeats(candidates.points, mean, observations, [*asked.chosen, *fresh], repeats)
        return _Picks([*fresh, *again], repeats, fallback, reason)


def _for_front(asked: _Asked, view: _View) -> _Picks | None:
    """Choose configurations that are expected to enlarge the front; None where there is none yet."""
    request, options, space, deadline = asked.request, asked.options, asked.request.space, asked.request.deadline
    began = time.monotonic()
    steps = options.integer("fit_steps")
    front = fit_front(asked.goals, view.observations, space, view.features, steps, deadline)
    if front is None:
        return None
    asked.details["seconds_front_models"] = time.monotonic() - began
    began = time.monotonic()
    points = view.candidates.points.take(view.untried)
    fresh: list[dict[str, str]] = []
    if len(points):
        log_success = _failure(asked, view).log_success(view.features.numbers(points))
        seed = seed_of(request, options, f"front {request.issued}") % 2**31
        count = min(asked.count, len(points))
        picked = choose_for_front(
            front, space, view.features, points, view.observations, asked.pending, count, log_success, seed, deadline
        )
        fresh = list(points.take(picked))
    asked.details["seconds_acquisition"] = time.monotonic() - began
    late = deadline.expired
    fallback, reason = ("the front was scored in part: the deadline came", "time") if late else (None, "strategy")
    repeats = asked.count - len(fresh)
    batch = [*asked.chosen, *fresh]
    again = _repeats(view.candidates.points, view.order, view.observations, batch, repeats) if repeats else []
    return _Picks([*fresh, *again], repeats, fallback, reason)


def _failure(asked: _Asked, view: _View) -> FailureModel:
    space, features, observations = asked.request.space, view.features, asked.observations
    return FailureModel(
        features.numbers(space.at(space.encode(observations.measured))),
        features.numbers(space.at(space.encode(observations.failed))),
        asked.options.integer("fit_steps"),
        asked.request.deadline,
    )


def standardized(options: ParsedOptions, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measured values (n,), smaller is better, as the outcomes (n,) that the models are fitted to."""
    # The paper standardizes and no more; that bad values are tamed is ours.
    return plain_outcomes(values) if options.text("surrogate") == "paper" else outcomes(values)


def known_variances(options: ParsedOptions, observations: Observations) -> NDArray[np.float64] | None:
    """Variances (n,) of the outcomes that the trials tell; None where they do not count."""
    if options.text("surrogate") == "paper" or not observations.standard_errors.any():
        return None
    return outcome_variances(observations.values, observations.standard_errors)


def model_settings(
    request: SuggestRequest,
    options: ParsedOptions,
    encoders: Callable[[str, str], TextEncoder],
) -> ModelSettings:
    """What the models of a search are made from."""
    seed = seed_of(request, options, "projection")
    return ModelSettings(
        surrogate=options.text("surrogate"),
        embedder=options.text("embedder"),
        pooling=options.text("pooling"),
        prompt=options.text("prompt"),
        domain_prompt=options.text("domain_prompt") == "on",
        kernel=DeepKernelSettings(
            projection_dim=options.integer("projection_dim"), steps=options.integer("fit_steps"), seed=seed
        ),
        paper=PaperKernelSettings(
            projection=options.text("projection") == "on",
            token=options.text("learnable_token") == "on",
            projection_dim=options.integer("projection_dim"),
            steps=options.integer("paper_steps"),
            seed=seed,
        ),
        language_candidates=options.integer("language_candidates"),
        token_candidates=options.integer("token_candidates"),
        encoders=encoders,
    )


def _candidates(request: SuggestRequest, options: ParsedOptions, centres: NDArray[np.float64]) -> CandidateSet:
    """What is scored; ``centres`` (c, D) are the best positions so far."""
    if request.pool is not None:
        return CandidateSet(request.pool, len(request.pool))
    return candidate_set(
        request.space,
        options.integer("candidates"),
        options.integer("samples"),
        centres,
        seed_of(request, options, "candidates"),
    )


def sources_of(request: SuggestRequest, options: ParsedOptions) -> list[Source]:
    """What a search knows before its first trial.

    Raises:
        InvalidInput: the belief is wrong.
    """
    belief = read_belief(options.text("belief"), request.space, f"{SETTINGS_PATH}.belief")
    width = None if options["model_width"] is None else options.integer("model_width")
    return [*rules_of(options.text("prior"), belief, width), *(EarlierSearch(found) for found in request.earlier)]


def _initial_design(
    request: SuggestRequest, options: ParsedOptions, sources: Sequence[Source], goals: Goals
) -> PointSequence:
    design = _design(request, options, sources)
    default = goals.default
    if default is None:
        return design
    key = request.space.key(default)
    return LedSequence(default, design) if request.pool is None or key in request.pool.keys else design


def _design(request: SuggestRequest, options: ParsedOptions, sources: Sequence[Source]) -> PointSequence:
    seed = seed_of(request, options, "initial design")
    design = options.text("initial_design")
    if request.pool is not None:
        return PoolSequence(request.pool, seed, sources if design == "plausible" else ())
    if design == "random":
        return RandomSequence(request.space, seed)
    if design == "plausible" and sources:
        return PlausibleSequence(request.space, seed, sources)
    return SobolSequence(request.space, seed)


def _initial_points(request: SuggestRequest, options: ParsedOptions, sources: Sequence[Source]) -> int:
    if options["initial_points"] is not None:
        return options.integer("initial_points")
    points = PLAUSIBLE_POINTS if sources and options.text("initial_design") == "plausible" else INITIAL_POINTS
    return points if request.max_trials is None else min(points, max(2, request.max_trials // 3))


def _best_positions(measured: NDArray[np.float64], order: NDArray[np.float64]) -> NDArray[np.float64]:
    """Different measured positions (c, D), best first."""
    ordered = measured[np.argsort(order, kind="stable")]
    _, first = np.unique(ordered, axis=0, return_index=True)
    return ordered[np.sort(first)]


def _repeats(
    points: Candidates,
    mean: NDArray[np.float64],
    observations: Observations,
    batch: Sequence[dict[str, str]],
    count: int,
) -> list[dict[str, str]]:
    """``count`` configurations of an exhausted space; ``mean`` (n,) says how good the observed ones are.

    Those that never gave a value come last, then those that are running or in this batch most often; among the others
    the best one comes first.
    """
    space = points.space
    place = {key: i for i, key in enumerate(points.keys)}
    known = np.full(len(place), np.inf)
    for point, value in zip(observations.measured, mean, strict=True):
        if (i := place.get(space.key(point))) is not None:
            known[i] = min(known[i], value)
    running = np.zeros(len(place), dtype=np.int64)
    valueless = np.zeros(len(place), dtype=bool)
    for point in observations.failed:
        if (i := place.get(space.key(point))) is not None:
            valueless[i] = not np.isfinite(known[i])
    for key in [*observations.pending_keys, *(space.key(point) for point in batch)]:
        if (i := place.get(key)) is not None:
            running[i] += 1
    chosen: list[dict[str, str]] = []
    for _ in range(count):
        least = int(np.lexsort((known, running, valueless))[0])
        running[least] += 1
        chosen.append(points.assignments(least))
    return chosen
