"""The picture of a search in its embedding space, added to a report's facts where it can be had soon.

A report is there to be read, with the picture or without it: whatever keeps it away is said in a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rankwise.deadline import Deadline
from rankwise.errors import InvalidInput, SurroundingsError
from rankwise.pretrained import at_hand
from rankwise.report.facts import SearchFacts, TrialFacts
from rankwise.report.landscape_facts import AxisFacts, LandscapeFacts, ViewFacts
from rankwise.settings import Settings
from rankwise.space import Objective, ParameterText, SearchSpace, Trial, parse_space

if TYPE_CHECKING:  # torch takes seconds to load: only where there is something to draw
    import numpy as np
    from numpy.typing import NDArray

    from rankwise.language.text_encoder import TextEncoder
    from rankwise.strategies.landscape import Landscape

log = logging.getLogger(__name__)

ALGORITHM = "language-bo"
"""The strategy with a language model; tests compare it with the strategy's own name."""
SECONDS = 20.0
"""For vectors and fits together, once the language model's files are read."""
_DIGITS = 5
"""Significant digits of coordinates and predictions: a pixel needs three."""


def with_landscape(
    facts: SearchFacts,
    space: SearchSpace | Sequence[ParameterText],
    load: Callable[[str, str], TextEncoder] | None = None,
    seconds: float = SECONDS,
) -> SearchFacts:
    """The facts with the landscape, or with a note why there is none; unchanged where no language model searches.

    Never raises: what is wrong here must not take the report away.

    Args:
        facts: the search, finished or not.
        space: its search space, checked or as the Experiment has it.
        load: makes an encoder from reference and pooling (tests pass their own); None for the real ones, where they
            are on this machine already.
        seconds: for everything together.
    """
    settings = facts.algorithm.settings
    if facts.algorithm.name != ALGORITHM:
        return facts
    if settings.get("surrogate", "").strip() == "numeric" or settings.get("pareto", "").strip():
        return _without(facts, "The search modelled the numbers alone, so that there is no embedding space to show.")
    if all(trial.value is None for trial in facts.trials):
        return _without(facts, "No trial has a value yet, so that there is no fitted embedding space to show.")
    try:
        checked = space if isinstance(space, SearchSpace) else parse_space(space)
        return replace(facts, landscape=_facts(_landscape(facts, checked, load, seconds), facts))
    except (InvalidInput, SurroundingsError) as error:
        return _without(facts, f"The embedding space is not shown: {error}")
    except Exception as error:
        log.info("the embedding space is not shown", exc_info=True)
        return _without(facts, f"The embedding space is not shown: {_reason(error)}")


def _without(facts: SearchFacts, note: str) -> SearchFacts:
    return replace(facts, landscape=None, landscape_note=note if note.endswith(".") else f"{note}.")


def _reason(error: Exception) -> str:
    from rankwise.language.text_encoder import EmbeddingIncomplete
    from rankwise.strategies.landscape import NoLandscape
    from rankwise.surrogate.gaussian_process import FitError

    if isinstance(error, NoLandscape):
        return str(error)
    if isinstance(error, EmbeddingIncomplete):
        return (
            f"{error.done} of {error.total} configurations were embedded in time (the same command goes on from there)"
        )
    if isinstance(error, FitError):
        return f"the model could not be fitted ({error})"
    return f"it failed with {type(error).__name__}"


def _landscape(
    facts: SearchFacts, space: SearchSpace, load: Callable[[str, str], TextEncoder] | None, seconds: float
) -> Landscape:
    from rankwise.strategies.base import SuggestRequest
    from rankwise.strategies.landscape import landscape
    from rankwise.strategies.language_options import OPTIONS
    from rankwise.strategies.seeds import strategy_settings
    from rankwise.suggest.wiring import Encoders

    surroundings = Settings.from_environment()
    if load is None:
        embedder = OPTIONS.parse(strategy_settings(facts.algorithm.settings)).text("embedder")
        if not at_hand(embedder, surroundings.cache):
            raise SurroundingsError(
                f"the language model {embedder} is not on this machine; `rankwise prepare-model` brings it"
            )
    request = SuggestRequest(
        experiment=facts.experiment,
        space=space,
        objective=facts.objective,
        settings=facts.algorithm.settings,
        trials=tuple(_as_trial(trial, facts.objective) for trial in facts.trials),
        count=0,
        deadline=Deadline(seconds),
    )
    return landscape(request, load or Encoders(surroundings))


def _as_trial(trial: TrialFacts, objective: Objective) -> Trial:
    """The trial as the search knew it: with its value's standard error."""
    plain = trial.as_trial()
    return plain if plain.value is None else replace(plain, standard_error=objective.standard_error(plain.metrics))


def _facts(found: Landscape, facts: SearchFacts) -> LandscapeFacts:
    space = found.candidates.space
    return LandscapeFacts(
        embedder=found.embedder,
        surrogate=found.surrogate,
        candidates={name: tuple(found.candidates.column(j)) for j, name in enumerate(space.names)},
        predicted=_column(found.predicted),
        trials=tuple(facts.trials[i].name for i in found.trials),
        views=tuple(
            ViewFacts(
                name=view.kind.value,
                axes=tuple(
                    AxisFacts(round(axis.explained, _DIGITS), axis.parameter, round(axis.agreement, _DIGITS))
                    for axis in view.axes
                ),
                x=_column(view.candidates[:, 0]),
                y=_column(view.candidates[:, 1]),
                trial_x=_column(view.trials[:, 0]),
                trial_y=_column(view.trials[:, 1]),
            )
            for view in found.views
        ),
        weight=None if found.weight is None else round(min(max(found.weight, 0.0), 1.0), _DIGITS),
        note=found.missing,
    )


def _column(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Numbers (m,), rounded."""
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values.tolist())
