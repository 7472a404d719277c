"""The space in which ``language-bo`` searches, in two dimensions: how it lies before and after the fit.

Notation::

    V  (m, d)   vectors of a sample of m configurations, by the frozen language model
    Z  (m, q)   their features, in units of the process's lengthscales: distances are those that its kernel sees
    P  (m, 2)   coordinates on the two leading principal axes of V or Z

There are up to three views: V; Z after projection and process were fitted to all trials; and Z with the learnable
token, where the search learns one. The axes are those of the sample, which covers the space. The trials are put onto
them and do not move them, so that the frozen view is a matter of the space alone. An axis has no direction of its own:
it points to where the number grows that it goes with most.

Everything is fitted as a request would fit it (:mod:`rankwise.strategies.language_bo`). Three things differ: the deep
kernel is centred on the sample where the space has more points, the trials that are asked about are all of them, and
with a learnable token no shortlist is drawn.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from gpytorch.kernels import Kernel
from numpy.typing import NDArray
from scipy.linalg import eigh

from rankwise.deadline import Deadline
from rankwise.errors import RankwiseError, SurroundingsError
from rankwise.language.prompt import describe_all
from rankwise.language.text_encoder import EmbeddingIncomplete, TextEncoder
from rankwise.space import Candidates, Goal, ParameterType
from rankwise.strategies.base import SuggestRequest, seed_of
from rankwise.strategies.candidates import CandidateSet
from rankwise.strategies.features import Features
from rankwise.strategies.knowledge import Knowledge
from rankwise.strategies.language_bo import known_variances, model_settings, sources_of, standardized
from rankwise.strategies.language_options import OPTIONS, reads_language
from rankwise.strategies.models import ModelSettings, Question, fit_language, fit_models, search_prompt
from rankwise.strategies.options import ParsedOptions
from rankwise.strategies.seeds import without_seeds
from rankwise.surrogate.acquisition import Member, mixture_mean
from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate
from rankwise.surrogate.observations import Observations, read_trials

MOST_CANDIDATES = 1_500
"""Configurations that are drawn where their vectors are known already."""
FEW_CANDIDATES = 500
"""Where vectors have to be made first, or with a learnable token, which makes all of them anew: a third of the time."""
FOLLOWS = 0.5
"""An axis is said to follow the parameter that explains at least this share of its variance (R²)."""
_GROUPS = 50
"""A parameter with more listed values than this is compared by its position alone, not value by value."""
_DIRECTED = 0.1
"""Least correlation with a number that gives an axis its direction."""
_NOTHING = 1e-18
"""Share of the mean square below which a variance is rounding: all vectors are the same."""


class NoLandscape(RankwiseError):
    """There is nothing to draw; the message says why, in a sentence."""


class ViewKind(enum.Enum):
    """What the vectors of a view are."""

    FROZEN = "frozen"
    PROJECTED = "projected"
    TOKEN = "token"  # noqa: S105 - no password


@dataclass(frozen=True)
class Axis:
    """One principal axis.

    Attributes:
        explained: its share of the variance, in [0, 1].
        parameter: the parameter that it follows; "" where it follows none.
        agreement: share of the axis's variance that this parameter explains (R²), in [0, 1].
    """

    explained: float
    parameter: str = ""
    agreement: float = 0.0


@dataclass(frozen=True)
class View:
    """Candidates and trials in two dimensions.

    Attributes:
        kind: what the vectors are.
        axes: the leading two.
        candidates: coordinates of the m candidates.  # (m, 2)
        trials: coordinates of the t trials.  # (t, 2)
    """

    kind: ViewKind
    axes: tuple[Axis, Axis]
    candidates: NDArray[np.float64]
    trials: NDArray[np.float64]


@dataclass(frozen=True)
class Landscape:
    """A search in its embedding space.

    Attributes:
        surrogate: option of the same name.
        embedder: option of the same name.
        views: at least the frozen one.
        candidates: the m configurations.
        predicted: posterior mean at the candidates, in the objective's own units and direction.  # (m,)
        trials: numbers of the t trials in the request that are of the space, in its order.
        weight: of the language model in the prediction; None where it predicts alone.
        missing: why the view with the token is missing; "" where it is there or not meant to be.
    """

    surrogate: str
    embedder: str
    views: tuple[View, ...]
    candidates: Candidates
    predicted: NDArray[np.float64]
    trials: tuple[int, ...]
    weight: float | None = None
    missing: str = ""


def landscape(
    request: SuggestRequest,
    encoders: Callable[[str, str], TextEncoder],
    most: int = MOST_CANDIDATES,
    few: int = FEW_CANDIDATES,
) -> Landscape:
    """Fit the models to all trials of a search and look at the space through them.

    Args:
        request: the search: experiment, space, objective, settings and trials, in the order in which their path is to
            be drawn; ``deadline`` is for everything together. Nothing else of it is read but ``earlier`` and ``pool``.
        encoders: (reference, pooling) -> encoder.
        most: candidates where all vectors are in the encoder's cache.
        few: candidates otherwise.

    Raises:
        NoLandscape: no language model is used, or there is no value yet.
        InvalidInput: the settings are wrong.
        EmbeddingIncomplete: the deadline came before all vectors were there; the cache keeps those that were made.
        SurroundingsError: the language model cannot be loaded.
        FitError: the model could not be fitted.
    """
    trials, space = request.trials, request.space
    request = without_seeds(request)
    options = OPTIONS.parse(request.settings)
    if not reads_language(options):
        raise NoLandscape("The search modelled the numbers alone, without a language model.")
    observations = read_trials(request.space, request.objective, request.trials)
    if not len(observations.values):
        raise NoLandscape("No trial has a value yet, so that nothing could be fitted.")
    # Trainings of one configuration with several seeds lie on one point.
    own = tuple(i for i, trial in enumerate(trials) if space.contains(trial.assignments))
    settings = model_settings(request, options, encoders)
    with_token = settings.surrogate == "paper" and settings.paper.token

    names = request.space.names
    tried = request.space.encode([{name: trials[i].assignments[name] for name in names} for i in own])  # (t, D)
    sample = _sample(request, options, settings, few if with_token else most, few)
    m = len(sample)
    points = request.space.at(np.concatenate([sample.units, tried]))  # (m + t, D)
    question = _question(request, options, observations, points, m)
    # Every point is shown: a search's shortlists would leave some without a place.
    settings = replace(settings, language_candidates=len(points), token_candidates=len(points))
    plain = replace(settings, paper=replace(settings.paper, token=False))

    fitted = fit_models(plain, question)
    # Where it failed, it is asked once more by itself, for its error.
    member = fitted.language or fit_language(plain, question)
    views = [_view(ViewKind.FROZEN, np.asarray(member.candidates, dtype=np.float64), sample)]
    if settings.surrogate != "paper" or settings.paper.projection:
        views.append(_view(ViewKind.PROJECTED, _features(member), sample))
    missing = ""
    if with_token:
        try:
            member = fit_language(settings, question)
            views.append(_view(ViewKind.TOKEN, _features(member), sample))
        except (EmbeddingIncomplete, SurroundingsError, FitError) as error:
            missing = f"The view with the learnable token is missing: {error}."
    members, weight = [member], None
    if settings.surrogate == "mixture" and fitted.fallback is None:
        members, weight = fitted.members, fitted.details["weight_language"]
    mean = mixture_mean(members, [member.candidates[:m] for member in members])  # (m,)
    predicted = in_own_units(mean, question.outcomes, observations.values)
    sign = 1.0 if request.objective.goal is Goal.MINIMIZE else -1.0
    return Landscape(
        settings.surrogate, settings.embedder, tuple(views), sample, sign * predicted, own, weight, missing
    )


def _sample(
    request: SuggestRequest, options: ParsedOptions, settings: ModelSettings, most: int, few: int
) -> Candidates:
    """The candidates (m, D): ``most`` where no vector has to be made for that, else ``few``."""
    encoder = settings.encoders(settings.embedder, settings.pooling)
    sample = _covering(request, options, most)
    if len(sample) <= few:
        return sample
    prompt = search_prompt(settings.prompt, settings.domain_prompt, request.space, encoder.form)
    try:
        # With no time left an encoder answers only where nothing has to be computed.
        encoder.encode(describe_all(prompt, request.space, sample), Deadline(0.0))
    except EmbeddingIncomplete:
        return _covering(request, options, few)
    return sample


def _covering(request: SuggestRequest, options: ParsedOptions, limit: int) -> Candidates:
    """At most ``limit`` configurations all over the space, of those that the search itself scores."""
    if request.pool is not None:
        rows = np.linspace(0, len(request.pool) - 1, min(limit, len(request.pool))).round().astype(np.intp)
        return request.pool.take(rows)
    return request.space.candidates(limit, seed_of(request, options, "candidates"))


def _question(
    request: SuggestRequest, options: ParsedOptions, observations: Observations, points: Candidates, covering: int
) -> Question:
    """All points as candidates to score; the first ``covering`` of them cover the space."""
    reference = points.take(np.arange(covering))
    return Question(
        space=request.space,
        candidates=CandidateSet(points, covering),
        features=Features(reference, Knowledge(sources_of(request, options), reference)),
        chosen=np.arange(len(points)),
        observations=observations,
        outcomes=standardized(options, observations.values),
        variances=known_variances(options, observations),
        pending=(),
        deadline=request.deadline,
    )


def _features(member: Member) -> NDArray[np.float64]:
    """Features (c, q) of the candidates, each in units of its lengthscale."""
    surrogate = member.surrogate
    assert isinstance(surrogate, FittedSurrogate), "every language model is one"  # noqa: S101
    features: NDArray[np.float64] = surrogate.features(member.candidates).numpy()
    for module in surrogate.model.covar_module.modules():
        if isinstance(module, Kernel) and module.has_lengthscale:
            scale: NDArray[np.float64] = module.lengthscale.detach().numpy().reshape(-1)  # (q,) or (1,)
            return features / scale
    return features


# ------------------------------------------------------------------------------------------------- two dimensions


def _view(kind: ViewKind, X: NDArray[np.float64], sample: Candidates) -> View:  # noqa: N803
    """The view of rows X (m + t, d), of which the first m belong to the sample."""
    m = len(sample)
    mean, axes, explained = principal_axes(X[:m])
    places = (X - mean) @ axes.T  # (m + t, 2)
    described = []
    for k in range(2):
        sign = direction(places[:m, k], sample)
        places[:, k] *= sign
        name, agreement = followed(places[:m, k], sample)
        described.append(Axis(float(explained[k]), name, agreement))
    return View(kind, (described[0], described[1]), places[:m], places[m:])


def principal_axes(
    X: NDArray[np.float64],  # noqa: N803
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The two leading principal axes of rows X (m, d), m ≥ 1.

    Returns:
        The mean (d,), the unit axes (2, d), and the shares of the variance (2,) along them. An axis along which nothing
        varies is zero and has no share. The axis's greatest component is positive.
    """
    m, d = X.shape
    mean = X.mean(0)
    C = X - mean  # (m, d)  # noqa: N806
    axes, explained = np.zeros((2, d)), np.zeros(2)
    total = float(np.square(C).sum())
    if total <= _NOTHING * float(np.square(X).sum()):
        return mean, axes, explained
    # The smaller one of the two Gram matrices has the same eigenvalues, apart from zeros.
    gram = C.T @ C if d <= m else C @ C.T
    size = len(gram)
    values, vectors = eigh(gram, subset_by_index=[max(0, size - 2), size - 1])  # ascending
    for k in range(len(values)):
        value, vector = float(values[-1 - k]), vectors[:, -1 - k]
        if value <= 1e-12 * total:
            break
        axis = vector if d <= m else C.T @ vector / np.sqrt(value)
        axes[k] = axis * (1.0 if axis[np.argmax(np.abs(axis))] > 0 else -1.0)
        explained[k] = min(value / total, 1.0)
    return mean, axes, explained


def direction(places: NDArray[np.float64], sample: Candidates) -> float:
    """1 or −1: what the places (m,) on an axis are multiplied with, so that it goes with the number it knows best."""
    best = 0.0
    for j, parameter in enumerate(sample.space.parameters):
        if parameter.type is not ParameterType.CATEGORICAL:
            correlation = _correlation(places, sample.units[:, j])
            if abs(correlation) > abs(best) + 1e-9:  # equal ones up to rounding: the first
                best = correlation
    return -1.0 if best < -_DIRECTED else 1.0


def followed(places: NDArray[np.float64], sample: Candidates) -> tuple[str, float]:
    """The parameter that explains most of the variance of places (m,) on an axis, and R²; ("", 0) below FOLLOWS."""
    name, best = "", 0.0
    total = float(np.square(places - places.mean()).sum())
    if total <= 0.0:
        return name, best
    for j, parameter in enumerate(sample.space.parameters):
        table = parameter.table
        if table is not None and len(table.values) <= _GROUPS:
            groups = sample.indices[:, j]  # (m,)
            counts = np.bincount(groups)
            sums = np.bincount(groups, weights=places - places.mean())
            agreement = float((sums**2 / np.maximum(counts, 1)).sum()) / total
        else:
            agreement = _correlation(places, sample.units[:, j]) ** 2
        if agreement > best + 1e-9:
            name, best = parameter.name, min(agreement, 1.0)
    return (name, best) if best >= FOLLOWS else ("", 0.0)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's correlation of two columns (m,); 0 where one does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


def in_own_units(
    mean: NDArray[np.float64], outcomes: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Posterior means (m,) as values of the objective, smaller is better.

    The outcomes are the values up to the median, shifted and scaled, and beyond it the quantiles of their ranks; this
    is read backwards. Better than the best value the scale goes on, worse than the worst it ends.

    Args:
        mean: in the units of the outcomes.  # (m,)
        outcomes: of the n ≥ 1 observations.  # (n,)
        values: what was measured, smaller is better.  # (n,)
    """
    z, first = np.unique(outcomes, return_index=True)
    v = values[first]
    result: NDArray[np.float64] = np.interp(mean, z, v)
    largest = np.finfo(np.float64).max
    with np.errstate(over="ignore"):  # values of 1e308 have differences that are none
        good = int(np.searchsorted(v, np.median(values), side="right")) - 1
        if good >= 1:
            below = mean < z[0]
            slope = (v[good] - v[0]) / (z[good] - z[0])
            result[below] = v[0] + (mean[below] - z[0]) * slope
    clipped: NDArray[np.float64] = np.clip(result, -largest, largest)
    return clipped
