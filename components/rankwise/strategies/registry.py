"""All strategies by the name that an Experiment calls them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rankwise.language.text_encoder import TextEncoder
from rankwise.settings import Settings
from rankwise.strategies.base import Strategy
from rankwise.strategies.language_bo import LanguageBO
from rankwise.strategies.optuna_tpe import OptunaTPE
from rankwise.strategies.random_search import RandomSearch
from rankwise.strategies.seeds import OverSeeds
from rankwise.strategies.sobol import Sobol


@dataclass(frozen=True)
class Resources:
    """What strategies need from their surroundings.

    Attributes:
        settings: where caches lie.
        encoder_factory: (reference, pooling) -> encoder. It may be called at each request: it should keep what it
            loads.
    """

    settings: Settings
    encoder_factory: Callable[[str, str], TextEncoder]


def strategies(resources: Resources) -> dict[str, Strategy]:
    """The strategies by ``algorithmName``; each can train a configuration with several seeds."""
    known: tuple[Strategy, ...] = (LanguageBO(resources.encoder_factory), OptunaTPE(), Sobol(), RandomSearch())
    return {strategy.name: OverSeeds(strategy) for strategy in known}
