"""``language-bo``: Bayesian optimization that reads configurations as language.

A request is answered in this order:

1. The first ``initial_points`` configurations, and all as long as no trial has ended, come from the initial design:
   the most plausible configuration first, then others spread over the plausible ones
   (:mod:`rankwise.strategies.design`).
2. Models of the objective are fitted to all ended trials (:mod:`rankwise.strategies.models`) and every untried
   candidate is scored; failures, pending trials and the batch's own members are counted in
   (:mod:`rankwise.surrogate.acquisition`).
3. Where a finite space has no untried configuration left, tried ones are repeated, best posterior mean first, those
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
from collections.abc import Callable, Mapping, Sequence
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
from rankwise.strategies.design import PlausibleSequence, PoolSequence
from rankwise.strategies.features import Features
from rankwise.strategies.knowledge import EarlierSearch, Knowledge, Source, read_belief, rules_of
from rankwise.strategies.language_options import INITIAL_POINTS, OPTIONS, PLAUSIBLE_POINTS
from rankwise.strategies.models import ModelSettings, Question, check_prompt, fit_models, search_prompt
from rankwise.strategies.options import ParsedOptions
from rankwise.strategies.seeds import without_seeds
from rankwise.strategies.sequence import (
    PointSequence,
    RandomSequence,
    SobolSequence,
    continue_sequence,
    repeat_least_tried,
)
from rankwise.surrogate.acquisition import AcquisitionKind, Member, mixture_mean, select
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


class LanguageBO:
    """Bayesian optimization over language vectors and numbers.

    Args:
        encoders: (reference, pooling) -> encoder; called at most once a request, so that it should keep what it loads.
    """

    name = "language-bo"
    options = OPTIONS

    def __init__(self, encoders: Callable[[str, str], TextEncoder]) -> None:
        self._encoders = encoders

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:  # noqa: ARG002
        """See :class:`rankwise.strategies.base.Strategy`."""
        problems = mistakes(self.options, settings)
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
        observations = read_trials(request.space, request.objective, request.trials)
        details: dict[str, float] = {
            "observations": float(len(observations.values)),
            "failed": float(len(observations.failed)),
            "pending": float(len(observations.pending)),
            "ignored": float(observations.ignored),
        }
        sources = sources_of(request, options)
        sequence = _initial_design(request, options, sources)
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
            picks = self._modelled(request, options, sources, observations, chosen, tried, missing, details)
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

    def _modelled(
        self,
        request: SuggestRequest,
        options: ParsedOptions,
        sources: Sequence[Source],
        observations: Observations,
        chosen: Sequence[dict[str, str]],
        tried: dict[Key, int],
        count: int,
        details: dict[str, float],
    ) -> _Picks:
        """Choose ``count`` configurations with the models; ``chosen`` are in the same batch already."""
        space = request.space
        values = observations.values  # (n,)
        y = standardized(options, values)
        known = known_variances(options, observations)
        measured = space.encode(observations.measured)  # (n, D)
        candidates = _candidates(request, options, _best_positions(measured, values))
        untried = candidates.untried(tried.keys())
        details["candidates"] = float(len(untried))
        settings = model_settings(request, options, self._encoders)
        waits = settings.reads(len(candidates.points)) <= options.integer("wait_for_vectors")
        settings = replace(settings, postpone=request.postpone and waits)
        pending = [*observations.pending, *chosen]
        covering = candidates.points.take(np.arange(candidates.covering))
        features = Features(covering, Knowledge(sources, covering))
        fitted = fit_models(
            settings,
            Question(space, candidates, features, untried, observations, y, known, pending, request.deadline, count),
        )
        details.update(fitted.details)
        fallback, reason = fitted.fallback, fitted.reason
        if fallback is None and request.deadline.expired:
            fallback, reason = "the fit of the models was ended by the deadline", "time"
        began = time.monotonic()
        fresh: list[dict[str, str]] = []
        if len(untried):
            failure = FailureModel(
                features.numbers(space.at(measured)),
                features.numbers(space.at(space.encode(observations.failed))),
                options.integer("fit_steps"),
                request.deadline,
            )
            picked = select(
                fitted.members,
                min(count, len(fitted.chosen)),
                kind=AcquisitionKind(options.text("acquisition")),
                beta=options.number("ucb_beta"),
                log_success=failure.log_success(features.numbers(candidates.points.take(fitted.chosen))),
                seed=seed_of(request, options, f"fantasies {request.issued}") % 2**31,
            )
            fresh = list(candidates.points.take(fitted.chosen[picked]))
        details["seconds_acquisition"] = time.monotonic() - began
        repeats = count - len(fresh)
        if not repeats:
            return _Picks(fresh, 0, fallback, reason)
        again = _repeats(candidates.points, fitted.members, observations, [*chosen, *fresh], repeats)
        return _Picks([*fresh, *again], repeats, fallback, reason)


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


def _initial_design(request: SuggestRequest, options: ParsedOptions, sources: Sequence[Source]) -> PointSequence:
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


def _best_positions(measured: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Different measured positions (c, D), best first."""
    ordered = measured[np.argsort(values, kind="stable")]
    _, first = np.unique(ordered, axis=0, return_index=True)
    return ordered[np.sort(first)]


def _repeats(
    points: Candidates,
    members: Sequence[Member],
    observations: Observations,
    batch: Sequence[dict[str, str]],
    count: int,
) -> list[dict[str, str]]:
    """``count`` configurations of an exhausted space.

    Those that never gave a value come last, then those that are running or in this batch most often; among the others
    the best posterior mean comes first.
    """
    space = points.space
    place = {key: i for i, key in enumerate(points.keys)}
    mean = np.full(len(place), np.inf)
    observed = mixture_mean(members, [member.observed for member in members])  # (n,)
    for point, value in zip(observations.measured, observed, strict=True):
        if (i := place.get(space.key(point))) is not None:
            mean[i] = value
    running = np.zeros(len(place), dtype=np.int64)
    valueless = np.zeros(len(place), dtype=bool)
    for point in observations.failed:
        if (i := place.get(space.key(point))) is not None:
            valueless[i] = not np.isfinite(mean[i])
    for key in [*observations.pending_keys, *(space.key(point) for point in batch)]:
        if (i := place.get(key)) is not None:
            running[i] += 1
    chosen: list[dict[str, str]] = []
    for _ in range(count):
        least = int(np.lexsort((mean, running, valueless))[0])
        running[least] += 1
        chosen.append(points.assignments(least))
    return chosen
