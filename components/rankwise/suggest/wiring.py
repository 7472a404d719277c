"""The strategies with everything they need, as the service and the local engine run them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from rankwise.errors import InvalidInput, Problem, SurroundingsError
from rankwise.language.cached import CachedEncoder
from rankwise.language.encoder import Pooling, load_encoder
from rankwise.language.text_encoder import TextEncoder
from rankwise.settings import Settings
from rankwise.space.search_space import SearchSpace
from rankwise.space.trial import Objective
from rankwise.strategies import earlier
from rankwise.strategies.base import SETTINGS_PATH, Strategy, Suggestions, SuggestRequest
from rankwise.strategies.language_options import reads_language
from rankwise.strategies.options import OptionTable
from rankwise.strategies.registry import Resources, strategies
from rankwise.suggest.ahead import EmbedAhead

log = logging.getLogger(__name__)

EMBEDDER, POOLING = "embedder", "pooling"
"""Options that name a strategy's language model."""
_PROBE = "rank 8"


class Encoders:
    """Language models by reference and pooling; each is loaded once and kept. Safe to be called by many threads.

    Args:
        settings: where vectors are cached.
        load: makes an encoder (tests pass their own).
    """

    def __init__(self, settings: Settings, load: Callable[[str, str], TextEncoder] | None = None) -> None:
        self._settings = settings
        self._load = load or self._load_model
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[TextEncoder, CachedEncoder]] = {}

    def __call__(self, reference: str, pooling: str) -> CachedEncoder:
        """The encoder, behind its cache of vectors.

        Raises:
            InvalidInput: the reference names nothing usable.
            SurroundingsError: the model cannot be had.
        """
        return self._both(reference, pooling)[1]

    def probe(self, reference: str, pooling: str) -> None:
        """Compute one vector, past the cache: afterwards the weights are in memory and known to work.

        Raises:
            InvalidInput: the reference names nothing usable.
            SurroundingsError: the model cannot be had.
        """
        self._both(reference, pooling)[0].encode([_PROBE])

    @property
    def hits(self) -> int:
        """Texts whose vectors were found in a cache, summed over all encoders and calls."""
        return sum(encoder.hits for encoder in self._loaded())

    @property
    def misses(self) -> int:
        """Texts whose vectors had to be computed, summed over all encoders and calls."""
        return sum(encoder.misses for encoder in self._loaded())

    def _loaded(self) -> list[CachedEncoder]:
        # Without the lock: a load may hold it for minutes, and a copy of a dictionary is one step.
        return [cached for _, cached in list(self._known.values())]

    def _both(self, reference: str, pooling: str) -> tuple[TextEncoder, CachedEncoder]:
        with self._lock:
            if (reference, pooling) not in self._known:
                encoder = self._load(reference, pooling)
                self._known[reference, pooling] = (encoder, CachedEncoder(encoder, self._settings.cache))
            return self._known[reference, pooling]

    def _load_model(self, reference: str, pooling: str) -> TextEncoder:
        return load_encoder(reference, pooling=cast("Pooling", pooling), cache=self._settings.cache)


class EncoderChecked:
    """A strategy whose ``validate`` also loads its language model, and whose spaces are embedded ahead of time.

    In a search a model that cannot be loaded is replaced by the numbers, so that the search goes on. Before the
    search that would hide a misspelt name or a missing package from the user.

    Args:
        strategy: one that has the options :data:`EMBEDDER` and :data:`POOLING`.
        encoders: where its models come from.

    Attributes:
        ahead: what embeds between the requests.
    """

    def __init__(self, strategy: Strategy, encoders: Encoders) -> None:
        self._strategy = strategy
        self._encoders = encoders
        self.ahead = EmbedAhead(encoders)

    @property
    def name(self) -> str:
        return self._strategy.name

    @property
    def options(self) -> OptionTable:
        return self._strategy.options

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        """The strategy's own findings and names that cannot be; when there are none, whether its model can be loaded.

        Whether there are earlier searches of those names is not asked: a store that is away must not refuse an
        Experiment.
        """
        problems = list(self._strategy.validate(space, objective, settings))
        try:
            earlier.read_names(settings.get(earlier.OPTION, ""), f"{SETTINGS_PATH}.{earlier.OPTION}")
        except InvalidInput as error:
            problems.extend(error.problems)
        if problems:
            return problems
        options = self.options.parse(settings, SETTINGS_PATH)
        if not reads_language(options):
            return []
        reference = options.text(EMBEDDER)
        try:
            self._encoders.probe(reference, options.text(POOLING))
        except InvalidInput as error:
            allowed = "; ".join(problem.allowed for problem in error.problems)
        except SurroundingsError as error:
            allowed = f"a language model that can be loaded here ({error})"
        else:
            return []
        log.error("the language model %s cannot be loaded: %s", reference, allowed)
        return [Problem(f"{SETTINGS_PATH}.{EMBEDDER}", reference, allowed)]

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """The strategy's own answer; afterwards the space is embedded, unless it is done.

        Raises:
            InvalidInput: the settings are wrong.
            NotReady: see :class:`~rankwise.strategies.base.Strategy`.
        """
        needed = reads_language(self.options.parse(request.settings, SETTINGS_PATH))
        try:
            with self.ahead.paused():
                return self._strategy.suggest(request)
        finally:
            if needed:
                self.ahead.want(request)

    def close(self) -> bool:
        """End the embedding ahead; whether it has ended."""
        return self.ahead.close()


@dataclass(frozen=True, slots=True)
class Wiring:
    """What a server needs.

    Attributes:
        strategies: by algorithm name.
        encoders: the language models they share.
    """

    strategies: Mapping[str, Strategy]
    encoders: Encoders


def wire(settings: Settings, load: Callable[[str, str], TextEncoder] | None = None) -> Wiring:
    """Put the strategies together. Nothing is loaded before it is needed.

    Args:
        settings: where caches lie.
        load: see :class:`Encoders`.
    """
    encoders = Encoders(settings, load)
    known = strategies(Resources(settings, encoders))
    checked = {
        name: EncoderChecked(strategy, encoders)
        if EMBEDDER in {option.name for option in strategy.options}
        else strategy
        for name, strategy in known.items()
    }
    return Wiring(checked, encoders)
