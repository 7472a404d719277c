"""The models that ``language-bo`` averages, each with its own view of the same configurations."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.language.prompt import describe, describe_all, load_prompt
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder
from rankwise.space import SearchSpace
from rankwise.strategies.base import SETTINGS_PATH, NotReady
from rankwise.strategies.candidates import CandidateSet
from rankwise.strategies.features import Features
from rankwise.surrogate.acquisition import Member
from rankwise.surrogate.deep_kernel import DeepKernelSettings, fit_deep_kernel
from rankwise.surrogate.gaussian_process import FitError, Surrogate
from rankwise.surrogate.informed import fit_informed, trust_in_sources
from rankwise.surrogate.mixture import earned_weights
from rankwise.surrogate.numeric import numeric_features
from rankwise.surrogate.observations import Observations

log = logging.getLogger(__name__)

EMBEDDING_SHARE = 0.6
"""Part of the time left that embedding may take; the rest is for the fit and the acquisition."""
POSTPONED_AFTER = 10.0
"""Seconds of embedding after which a request that may be postponed is. Katib has one worker for the suggestions of the
whole cluster: while one Experiment waits for its vectors, the others shall be served."""


@dataclass(frozen=True)
class ModelSettings:
    """What the models are made from.

    Attributes:
        surrogate: ``mixture``, ``language`` or ``numeric``.
        embedder: reference of the frozen language model.
        pooling: how its states become one vector.
        prompt: the user's text, a path, or empty.
        kernel: settings of the deep kernel.
        encoders: (reference, pooling) -> encoder.
        postpone: wait for the vectors, by :class:`~rankwise.strategies.base.NotReady`, instead of answering without.
    """

    surrogate: str
    embedder: str
    pooling: str
    prompt: str
    kernel: DeepKernelSettings
    encoders: Callable[[str, str], TextEncoder]
    postpone: bool = False


@dataclass
class Fitted:
    """The models of one request.

    Attributes:
        members: at least one, with weights that sum to 1.
        fallback: why the numeric model stands in for the language model; None where it does not.
        details: seconds and weights.
        reason: the fallback as one of :data:`~rankwise.strategies.base.FALLBACK_REASONS`.
    """

    members: list[Member]
    fallback: str | None = None
    details: dict[str, float] = field(default_factory=dict)
    reason: str = "strategy"


@dataclass(frozen=True)
class _View:
    """Rows of one model for candidates (m, d), observed (n, d) and pending (p, d) configurations."""

    candidates: NDArray[np.floating]
    observed: NDArray[np.floating]
    pending: NDArray[np.floating]

    def member(self, weight: float, surrogate: Surrogate, chosen: NDArray[np.intp]) -> Member:
        return Member(weight, surrogate, self.candidates[chosen], self.observed, self.pending)


def fit_models(
    settings: ModelSettings,
    space: SearchSpace,
    candidates: CandidateSet,
    features: Features,
    chosen: NDArray[np.intp],
    observations: Observations,
    outcomes: NDArray[np.float64],
    pending: Sequence[dict[str, str]],
    deadline: Deadline,
) -> Fitted:
    """Fit what the settings ask for; the numeric model alone where the language model cannot be had.

    Args:
        settings: which models and how.
        space: search space.
        candidates: all points, tried ones included: the deep kernel is centred on them.
        features: what the process on the numbers sees of them.
        chosen: indices of the candidates to score.
        observations: the trials.
        outcomes: of ``observations.measured``.  # (n,)
        pending: configurations to count as running.
        deadline: for everything together.

    Raises:
        InvalidInput: the embedder or the prompt is wrong.
        NotReady: the settings ask to wait for vectors that are not there yet.
        FitError: not even the numeric model could be fitted.
    """
    details: dict[str, float] = {}
    language: tuple[_View, Surrogate] | None = None
    fallback: str | None = None
    reason = "model"
    if settings.surrogate != "numeric" and len(observations.measured):
        try:
            language = _language(settings, space, candidates, observations, outcomes, pending, deadline, details)
        except EmbeddingIncomplete as error:
            if settings.postpone:
                raise NotReady(f"{error.done} of {error.total} configurations are embedded; ask again") from None
            reason = "vectors"
            fallback = (
                f"the numbers alone were modelled: {error.done} of {error.total} configurations were embedded in time "
                "(a later request goes on from there; `rankwise embed` does it ahead of time)"
            )
        except SurroundingsError as error:
            fallback = f"the numbers alone were modelled: the language model cannot be loaded: {error}"
        except InvalidInput:
            raise
        except Exception as error:
            # Whatever a language model does, the search goes on with the numbers.
            log.exception("the language model failed")
            fallback = f"the numbers alone were modelled: the language model failed with {type(error).__name__}"
    if language is not None and settings.surrogate == "language":
        view, surrogate = language
        return Fitted([view.member(1.0, surrogate, chosen)], None, details)

    began = time.monotonic()
    numeric_view = _View(
        features(candidates.points),
        features(space.at(space.encode(observations.measured))),
        features(space.at(space.encode(pending))),
    )
    try:
        numeric = fit_informed(
            np.asarray(numeric_view.observed, dtype=np.float64),
            outcomes,
            features.sources,
            settings.kernel.steps,
            deadline,
        )
    except FitError:
        if language is None:
            raise
        view, surrogate = language
        return Fitted([view.member(1.0, surrogate, chosen)], "the language model alone answered", details, "fit")
    details["seconds_numeric"] = time.monotonic() - began
    for i, trust in enumerate(trust_in_sources(numeric)):
        details[f"trust_{i}"] = trust
    if language is None:
        return Fitted([numeric_view.member(1.0, numeric, chosen)], fallback, details, reason)
    pairs: list[tuple[_View, Surrogate]] = [(numeric_view, numeric), language]
    weights = earned_weights([surrogate for _, surrogate in pairs], len(outcomes))  # (2,)
    details["weight_language"] = float(weights[1])
    members = [
        view.member(float(weight), surrogate, chosen)
        for weight, (view, surrogate) in zip(weights, pairs, strict=True)
        if weight > 0
    ]
    return Fitted(members, None, details)


def _language(
    settings: ModelSettings,
    space: SearchSpace,
    candidates: CandidateSet,
    observations: Observations,
    outcomes: NDArray[np.float64],
    pending: Sequence[dict[str, str]],
    deadline: Deadline,
    details: dict[str, float],
) -> tuple[_View, Surrogate]:
    """Embed everything and fit the deep kernel."""
    began = time.monotonic()
    encoder = settings.encoders(settings.embedder, settings.pooling)
    prompt = load_prompt(settings.prompt or None, space, encoder.form, f"{SETTINGS_PATH}.prompt")
    texts = describe_all(prompt, space, candidates.points)
    observed = [describe(prompt, space, point) for point in observations.measured]
    running = [describe(prompt, space, point) for point in pending]
    limit = deadline.share(EMBEDDING_SHARE)
    if settings.postpone and limit.remaining() > POSTPONED_AFTER:
        limit = Deadline(POSTPONED_AFTER)
    vectors = encoder.encode([*observed, *running, *texts], limit)  # (n + p + m, d)
    n, p = len(observed), len(running)
    if not np.isfinite(vectors).all():
        raise FitError("the language model gave vectors that are not finite")
    view = _View(vectors[n + p :], vectors[:n], vectors[n : n + p])
    details["seconds_embed"] = time.monotonic() - began
    began = time.monotonic()
    covering = candidates.covering
    surrogate = fit_deep_kernel(
        view.observed,
        outcomes,
        view.candidates[:covering],
        numeric_features(space, candidates.points.units[:covering]),
        settings.kernel,
        deadline,
    )
    details["seconds_language"] = time.monotonic() - began
    return view, surrogate


def check_prompt(prompt: str, space: SearchSpace) -> None:
    """Read the user's prompt once, as a search would.

    Raises:
        InvalidInput: it cannot be used.
    """
    if prompt:
        load_prompt(prompt, space, path=f"{SETTINGS_PATH}.prompt")
