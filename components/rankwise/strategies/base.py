"""What every strategy is asked and what it answers.

A strategy is a pure function: the same experiment and the same trials, in any order and in any process, give the same
answer. Only time may change it: a strategy that cannot end before the deadline answers with a fallback, and says so.
Where the caller can come back later, even that need not be: see :class:`NotReady`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, Problem, RankwiseError
from rankwise.space.search_space import Candidates, SearchSpace
from rankwise.space.trial import Objective, Trial
from rankwise.strategies.earlier import EarlierTrials
from rankwise.strategies.options import Option, OptionTable, ParsedOptions

SETTINGS_PATH = "spec.algorithm.algorithmSettings"

RANDOM_STATE = Option(
    "random_state",
    int,
    None,
    "seed of everything random in the search; by default it is derived from the experiment's name",
    low=0,
    high=2**63 - 1,
)


FALLBACK_REASONS = ("vectors", "model", "fit", "time", "earlier", "goals", "strategy")
"""Why a strategy answered with another method than the chosen one: the vectors are not ready; the language model
cannot be loaded or failed; the surrogate cannot be fitted; its fit was ended by the deadline; an earlier search that
the settings name cannot be used; the trials do not report a metric that the goals name; anything else."""


class NotReady(RankwiseError):
    """What the answer depends on is still being made; the same request is answered a little later.

    Raised only where the request allows it (:attr:`SuggestRequest.postpone`).
    """


@dataclass(frozen=True)
class SuggestRequest:
    """One request for configurations.

    Attributes:
        experiment: name of the experiment; the default seed comes from it.
        space: search space.
        objective: what is optimized.
        settings: raw ``algorithmSettings``.
        trials: all trials so far. Those that do not fit the space are ignored.
        count: how many configurations are wanted, at least 0.
        issued: how many were handed out before this request.
        max_trials: how many trials the search will have at most; None when unknown.
        deadline: when the answer has to be there.
        postpone: whether the caller asks again after :class:`NotReady`. Then what the clock would decide (whether the
            vectors are ready) decides only when there is an answer, and not which.
        earlier: what the searches found that the settings name; the same in every request of a search. Who makes the
            request looks them up.
        pool: the only configurations that may be suggested, different ones, for a search over what was measured
            already; None for the whole space. Strategies that learn nothing from results ignore it.

    Raises:
        ValueError: ``count`` or ``issued`` is negative.
    """

    experiment: str
    space: SearchSpace
    objective: Objective
    settings: Mapping[str, str]
    trials: tuple[Trial, ...]
    count: int
    issued: int = 0
    max_trials: int | None = None
    deadline: Deadline = field(default_factory=Deadline.never)
    postpone: bool = False
    earlier: tuple[EarlierTrials, ...] = ()
    pool: Candidates | None = None

    def __post_init__(self) -> None:
        if self.count < 0 or self.issued < 0:
            raise ValueError(f"count and issued must be at least 0, got {self.count} and {self.issued}")


@dataclass(frozen=True)
class Suggestions:
    """The answer to a request.

    Attributes:
        assignments: exactly as many configurations as were asked for; each differs from every tried, running and
            other suggested one as long as the space has untried ones.
        fallback: one sentence when another method than the chosen one answered; None otherwise.
        repeated: how many of the assignments were tried before, because the space has no untried ones left.
        details: numbers for logs (seconds, observations, …).
        reason: the fallback as one of :data:`FALLBACK_REASONS`; without meaning where ``fallback`` is None.
    """

    assignments: tuple[dict[str, str], ...]
    fallback: str | None = None
    repeated: int = 0
    details: Mapping[str, float] = field(default_factory=dict)
    reason: str = "strategy"


class Strategy(Protocol):
    """A way to search."""

    @property
    def name(self) -> str:
        """The ``algorithmName`` of Katib."""
        ...

    @property
    def options(self) -> OptionTable:
        """Its ``algorithmSettings``."""
        ...

    def validate(self, space: SearchSpace, objective: Objective, settings: Mapping[str, str]) -> list[Problem]:
        """Every mistake in the settings; empty when there is none."""
        ...

    def suggest(self, request: SuggestRequest) -> Suggestions:
        """Exactly ``request.count`` configurations.

        Raises:
            InvalidInput: the settings are wrong.
            NotReady: only where ``request.postpone``. Nothing else is raised on any input.
        """
        ...


@runtime_checkable
class Closable(Protocol):
    """A strategy that works between two requests, too."""

    def close(self) -> bool:
        """End that work; whether it has ended."""
        ...


def mistakes(options: OptionTable, settings: Mapping[str, str]) -> list[Problem]:
    """Every mistake in the settings, as a list."""
    try:
        options.parse(settings, SETTINGS_PATH)
    except InvalidInput as error:
        return list(error.problems)
    return []


def seed_of(request: SuggestRequest, options: ParsedOptions, purpose: str = "") -> int:
    """Seed below 2⁶³ for one purpose within one experiment.

    ``random_state`` when it is given, else the experiment's name; mixed with the purpose, so that the initial design
    and, say, the projection's weights do not share random numbers.
    """
    given = options["random_state"]
    root = f"name:{request.experiment}" if given is None else f"state:{given}"
    digest = hashlib.sha256(f"{root}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
