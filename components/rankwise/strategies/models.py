"""The models that ``language-bo`` averages, each with its own view of the same configurations.

A language model that reads a large space takes minutes, and what it says of most of it is never used. Of more than
``language_candidates`` configurations the language model therefore reads a sample that covers the space, the same in
every request of a search, and those that the numbers find most promising (lower confidence bound); the models then
choose among these together. ``surrogate: paper`` reads everything, as the paper does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.language.learnable_token import TokenEncoder, shortlist
from rankwise.language.prompt import Prompt, PromptForm, describe, describe_all, load_prompt
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder
from rankwise.space import SearchSpace
from rankwise.strategies.base import SETTINGS_PATH, NotReady
from rankwise.strategies.candidates import CandidateSet
from rankwise.strategies.features import Features
from rankwise.surrogate.acquisition import Member
from rankwise.surrogate.deep_kernel import DeepKernelSettings, fit_deep_kernel
from rankwise.surrogate.gaussian_process import FitError, Surrogate
from rankwise.surrogate.informed import MEMBERS, Averaged, fit_informed
from rankwise.surrogate.mixture import earned_weights
from rankwise.surrogate.numeric import numeric_features
from rankwise.surrogate.observations import Observations
from rankwise.surrogate.paper_kernel import PaperKernelSettings, fit_paper_kernel

log = logging.getLogger(__name__)

LEAST_MEMBERS = 4
KERNEL_ENTRIES = 20_000_000
"""So many kernel entries the processes of the numeric model have together at most, unless they are the fewest."""

OPTIMISM = 2.0
"""Deviations below its mean at which a candidate is looked at for a shortlist: what may be good counts."""
EMBEDDING_SHARE = 0.6
"""Part of the time left that embedding may take; the rest is for the fit and the acquisition."""
POSTPONED_AFTER = 10.0
"""Seconds of embedding after which a request that may be postponed is. Katib has one worker for the suggestions of the
whole cluster: while one Experiment waits for its vectors, the others shall be served."""


@dataclass(frozen=True)
class ModelSettings:
    """What the models are made from.

    Attributes:
        surrogate: ``mixture``, ``language``, ``numeric`` or ``paper``.
        embedder: reference of the frozen language model.
        pooling: how its states become one vector.
        prompt: the user's text, a path, or empty.
        domain_prompt: whether the text says what is known beside the configuration, in the form that says it.
        kernel: settings of the deep kernel.
        paper: settings of the paper's surrogate.
        language_candidates: of more candidates than these the deep kernel sees a shortlist.
        token_candidates: with a learnable token, so many candidates are embedded with it; of more, a shortlist.
        encoders: (reference, pooling) -> encoder.
        postpone: wait for the vectors, by :class:`~rankwise.strategies.base.NotReady`, instead of answering without.
    """

    surrogate: str
    embedder: str
    pooling: str
    prompt: str
    domain_prompt: bool
    kernel: DeepKernelSettings
    paper: PaperKernelSettings
    language_candidates: int
    token_candidates: int
    encoders: Callable[[str, str], TextEncoder]
    postpone: bool = False

    def reads(self, candidates: int) -> int:
        """Of so many candidates, how many the language model reads."""
        return candidates if self.surrogate == "paper" else min(candidates, self.language_candidates)


class Predicts(Protocol):
    """A fitted model, or an average of some."""

    def posterior(self, X: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # noqa: N803
        """Mean (m,) and variance (m,) at rows X (m, d)."""
        ...


@dataclass(frozen=True)
class Question:
    """What the models are asked.

    Attributes:
        space: search space.
        candidates: all points, tried ones included: the deep kernel is centred on them.
        features: what the process on the numbers sees of them.
        chosen: indices of the candidates to score.
        observations: the trials.
        outcomes: of ``observations.measured``.  # (n,)
        variances: of the outcomes, as far as they are known; None for not at all.  # (n,)
        pending: configurations to count as running.
        deadline: for everything together.
        wanted: how many will be chosen: no shortlist is shorter.
        log_kept: log probability that the chosen ones keep the bounds of the search; None where there are none.  # (m,)
    """

    space: SearchSpace
    candidates: CandidateSet
    features: Features
    chosen: NDArray[np.intp]
    observations: Observations
    outcomes: NDArray[np.float64]
    variances: NDArray[np.float64] | None
    pending: Sequence[dict[str, str]]
    deadline: Deadline
    wanted: int = 1
    log_kept: NDArray[np.float64] | None = None

    def hopes(self, surrogate: Predicts, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """How much may be hoped of the chosen ones (m,), for a shortlist, by a model that sees rows (m, d) of them.

        Larger is better: the optimistic end of what the model expects, turned, and the log probability of the bounds;
        one that is kept with probability 1/e counts as much as a deviation of the outcomes.
        """
        mean, variance = surrogate.posterior(rows)
        hopes: NDArray[np.float64] = OPTIMISM * np.sqrt(variance) - mean
        return hopes if self.log_kept is None else hopes + self.log_kept


@dataclass
class Fitted:
    """The models of one request.

    Attributes:
        members: at least one, with weights that sum to 1.
        chosen: indices of the candidates that they score; fewer than were asked for after a shortlist.
        fallback: why the numeric model stands in for the language model; None where it does not.
        details: seconds and weights.
        reason: the fallback as one of :data:`~rankwise.strategies.base.FALLBACK_REASONS`.
        language: the language model, whatever weight it has among the members; None where it could not be had.
    """

    members: list[Member]
    chosen: NDArray[np.intp]
    fallback: str | None = None
    details: dict[str, float] = field(default_factory=dict)
    reason: str = "strategy"
    language: Member | None = None


@dataclass(frozen=True)
class _Model:
    """A fitted model and its rows for scored (m, d), observed (n, d) and pending (p, d) configurations.

    ``chosen`` numbers the scored ones among all candidates.
    """

    surrogate: Surrogate
    chosen: NDArray[np.intp]
    candidates: NDArray[np.floating]
    observed: NDArray[np.floating]
    pending: NDArray[np.floating]

    def member(self, weight: float) -> Member:
        return Member(weight, self.surrogate, self.candidates, self.observed, self.pending)


@dataclass(frozen=True)
class _Numeric:
    """The process on the numbers: several of them share its weight. The rows are as in :class:`_Model`."""

    averaged: Averaged
    candidates: NDArray[np.floating]
    observed: NDArray[np.floating]
    pending: NDArray[np.floating]

    def members(self, weight: float) -> list[Member]:
        return [
            Member(weight * float(share), surrogate, self.candidates, self.observed, self.pending)
            for share, surrogate in zip(self.averaged.weights, self.averaged.surrogates, strict=True)
        ]

    def only(self, places: NDArray[np.intp]) -> _Numeric:
        """The same for some of the candidates."""
        return replace(self, candidates=self.candidates[places])


def fit_models(settings: ModelSettings, question: Question) -> Fitted:
    """Fit what the settings ask for; the numeric model alone where the language model cannot be had.

    Raises:
        InvalidInput: the embedder or the prompt is wrong.
        NotReady: the settings ask to wait for vectors that are not there yet.
        FitError: not even the numeric model could be fitted.
    """
    details: dict[str, float] = {}
    numeric: _Numeric | None = None
    broken: FitError | None = None
    wanted = settings.surrogate != "numeric" and len(question.observations.measured) > 0
    if not wanted or settings.surrogate == "mixture" or _is_large(settings, question):
        try:
            numeric = _numeric(question, details)
        except FitError as error:
            broken = error
    language = _language_or_reason(settings, question, details, numeric) if wanted else None
    if isinstance(language, _Model):
        alone = language.member(1.0)
        if settings.surrogate in ("language", "paper"):
            return Fitted([alone], language.chosen, None, details, language=alone)
        if numeric is None:
            said = "the language model alone answered"
            return Fitted([alone], language.chosen, said, details, "fit", alone)
        weights = earned_weights([numeric.averaged, language.surrogate], len(question.outcomes))  # (2,)
        details["weight_language"] = float(weights[1])
        seen = numeric.only(np.searchsorted(question.chosen, language.chosen))
        members = seen.members(float(weights[0])) if weights[0] > 0 else []
        members += [language.member(float(weights[1]))] if weights[1] > 0 else []
        return Fitted(members, language.chosen, None, details, language=alone)
    if broken is not None:
        raise broken
    numeric = numeric or _numeric(question, details)
    if language is None:
        return Fitted(numeric.members(1.0), question.chosen, None, details)
    return Fitted(numeric.members(1.0), question.chosen, language.said, details, language.reason)


@dataclass(frozen=True)
class _Missing:
    """Why there is no language model: one of :data:`~rankwise.strategies.base.FALLBACK_REASONS`, and a sentence."""

    reason: str
    said: str


def _language_or_reason(
    settings: ModelSettings, question: Question, details: dict[str, float], numeric: _Numeric | None
) -> _Model | _Missing:
    """The language model, or why it cannot be had.

    Raises:
        InvalidInput: the embedder or the prompt is wrong.
        NotReady: the settings ask to wait for vectors that are not there yet.
    """
    try:
        return _language(settings, question, details, numeric)
    except EmbeddingIncomplete as error:
        if settings.postpone:
            raise NotReady(f"{error.done} of {error.total} configurations are embedded; ask again") from None
        said = (
            f"the numbers alone were modelled: {error.done} of {error.total} configurations were embedded in time "
            "(a later request goes on from there; `rankwise embed` does it ahead of time)"
        )
        return _Missing("vectors", said)
    except SurroundingsError as error:
        return _Missing("model", f"the numbers alone were modelled: the language model cannot be loaded: {error}")
    except InvalidInput:
        raise
    except Exception as error:
        # Whatever a language model does, the search goes on with the numbers.
        log.exception("the language model failed")
        failed = type(error).__name__
        return _Missing("model", f"the numbers alone were modelled: the language model failed with {failed}")


def fit_language(settings: ModelSettings, question: Question) -> Member:
    """The language model's own part of :func:`fit_models`, whatever weight it has there.

    Raises:
        InvalidInput: the embedder or the prompt is wrong.
        EmbeddingIncomplete: the deadline came before all vectors were there.
        SurroundingsError: the language model cannot be loaded.
        FitError: it could not be fitted.
    """
    numeric = _numeric(question, {}) if _is_large(settings, question) else None
    return _language(settings, question, {}, numeric).member(1.0)


def _is_large(settings: ModelSettings, question: Question) -> bool:
    """Whether the language model reads a shortlist."""
    candidates = len(question.candidates.points)
    return settings.reads(candidates) < candidates


def _read(
    settings: ModelSettings, question: Question, numeric: _Numeric | None
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """What the language model reads.

    Returns:
        Numbers of the candidates that it reads, all ascending; of those among them that cover the space; and of those
        that it scores, untried ones.
    """
    covering = question.candidates.covering
    if not _is_large(settings, question):
        return np.arange(len(question.candidates.points)), np.arange(covering), question.chosen
    half = settings.language_candidates // 2
    # Neither a grid's order nor its steps may decide: a fixed draw.
    sample = np.sort(np.random.default_rng(0).permutation(covering)[:half])
    if numeric is None:
        scores = np.random.default_rng(1).random(len(question.chosen))
    else:
        scores = question.hopes(numeric.averaged, numeric.candidates)
    promising = shortlist(scores, max(settings.language_candidates - len(sample), question.wanted))
    read = np.union1d(sample, question.chosen[promising])
    return read, sample, np.intersect1d(question.chosen, read)


def _numeric(question: Question, details: dict[str, float]) -> _Numeric:
    """The process on numbers and knowledge.

    Raises:
        FitError: it could not be fitted.
    """
    began = time.monotonic()
    space, features = question.space, question.features
    observed = features(space.at(space.encode(question.observations.measured)))
    averaged = fit_informed(
        observed,
        question.outcomes,
        features.lengthscales,
        question.deadline,
        question.variances,
        _members(len(question.chosen) * len(question.outcomes)),
    )
    details["seconds_numeric"] = time.monotonic() - began
    for i, trust in enumerate(averaged.trust()):
        details[f"trust_{i}"] = trust
    candidates = features(question.candidates.points.take(question.chosen))
    pending = features(space.at(space.encode(question.pending)))
    return _Numeric(averaged, candidates, observed, pending)


def _members(entries: int) -> int:
    """How many processes stand for the numeric model, for so many kernel entries (m · n) between candidates and trials.

    Where there are many trials the hyperparameters are known better, and fewer processes tell what is left open.
    """
    return min(MEMBERS, max(LEAST_MEMBERS, KERNEL_ENTRIES // max(entries, 1)))


@dataclass(frozen=True)
class _Texts:
    """Texts of the candidates that are read (m), of the observed (n) and of the pending configurations (p)."""

    candidates: list[str]
    observed: list[str]
    pending: list[str]


def _texts(settings: ModelSettings, question: Question, form: PromptForm, read: NDArray[np.intp]) -> _Texts:
    space = question.space
    prompt = search_prompt(settings.prompt, settings.domain_prompt, space, form)
    return _Texts(
        describe_all(prompt, space, question.candidates.points.take(read)),
        [describe(prompt, space, point) for point in question.observations.measured],
        [describe(prompt, space, point) for point in question.pending],
    )


def _language(
    settings: ModelSettings, question: Question, details: dict[str, float], numeric: _Numeric | None
) -> _Model:
    """Embed what is read and fit the deep kernel, or the paper's; ``numeric`` draws the shortlist of a large space."""
    began = time.monotonic()
    encoder = settings.encoders(settings.embedder, settings.pooling)
    read, sample, chosen = _read(settings, question, numeric)
    details["read"] = float(len(read))
    texts = _texts(settings, question, encoder.form, read)
    limit = question.deadline.share(EMBEDDING_SHARE)
    if settings.postpone and limit.remaining() > POSTPONED_AFTER:
        limit = Deadline(POSTPONED_AFTER)
    vectors = encoder.encode([*texts.observed, *texts.pending, *texts.candidates], limit)  # (n + p + m, d)
    n, p = len(texts.observed), len(texts.pending)
    if not np.isfinite(vectors).all():
        raise FitError("the language model gave vectors that are not finite")
    observed, pending, candidates = vectors[:n], vectors[n : n + p], vectors[n + p :]
    details["seconds_embed"] = time.monotonic() - began
    began = time.monotonic()
    surrogate: Surrogate
    if settings.surrogate == "paper":
        frozen = replace(settings.paper, token=False)
        surrogate = fit_paper_kernel(observed, question.outcomes, frozen, question.deadline)
    else:
        surrogate = fit_deep_kernel(
            observed,
            question.outcomes,
            candidates[np.searchsorted(read, sample)],
            numeric_features(question.space, question.candidates.points.units[sample]),
            settings.kernel,
            question.deadline,
            question.variances,
        )
    model = _Model(surrogate, chosen, candidates[np.searchsorted(read, chosen)], observed, pending)
    if settings.surrogate == "paper" and settings.paper.token:
        model = _with_token(settings, question, encoder, texts, model)
    details["seconds_language"] = time.monotonic() - began
    return model


def _with_token(
    settings: ModelSettings, question: Question, encoder: TextEncoder, texts: _Texts, frozen: _Model
) -> _Model:
    """The paper's surrogate with the learnable token; ``frozen``, without it, draws the shortlist.

    Raises:
        InvalidInput: the language model cannot have a token behind a text.
    """
    if not isinstance(encoder, TokenEncoder):
        raise InvalidInput([Problem(f"{SETTINGS_PATH}.learnable_token", "on", "off, or an embedder that is a decoder")])
    chosen = question.chosen
    if len(chosen) > settings.token_candidates:
        # What may be good by the stale vectors is looked at with the new ones.
        hopes = question.hopes(frozen.surrogate, frozen.candidates)
        size = max(settings.token_candidates, question.wanted)
        chosen = chosen[np.sort(shortlist(hopes, size))]
    states = encoder.token_states(texts.observed, question.deadline)
    surrogate = fit_paper_kernel(states, question.outcomes, settings.paper, question.deadline)
    psi = surrogate.psi
    assert psi is not None, "fitted with a token"  # noqa: S101
    wanted = [*texts.pending, *(texts.candidates[i] for i in chosen)]
    vectors = encoder.encode_with_token(wanted, psi, question.deadline)
    p = len(texts.pending)
    return _Model(surrogate, chosen, vectors[p:], states.vectors(psi), vectors[:p])


def search_prompt(text: str, domain: bool, space: SearchSpace, form: PromptForm) -> Prompt:
    """The prompt of a search, from the options ``prompt`` and ``domain_prompt``.

    Raises:
        InvalidInput: the text cannot be used.
    """
    if text or domain:
        return load_prompt(text or None, space, form, f"{SETTINGS_PATH}.prompt")
    return Prompt(form, "", ())


def check_prompt(prompt: str, space: SearchSpace) -> None:
    """Read the user's prompt once, as a search would.

    Raises:
        InvalidInput: it cannot be used.
    """
    if prompt:
        load_prompt(prompt, space, path=f"{SETTINGS_PATH}.prompt")
