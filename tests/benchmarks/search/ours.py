"""Our own search, as the service runs it: the strategy ``language-bo`` with any ``algorithmSettings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.search.problem import Array, Told, View, positions
from rankwise.language.text_encoder import TextEncoder
from rankwise.settings import Settings
from rankwise.space import Goal, Objective, Trial, TrialState
from rankwise.strategies.base import SuggestRequest
from rankwise.strategies.earlier import EarlierTrials
from rankwise.strategies.language_bo import LanguageBO
from rankwise.suggest.wiring import Encoders

WIDTHS = {"minilm": "384", "minilm3": "384", "smollm2": "576"}
"""First part of a task's name -> hidden size of its model, which every user of a model knows: ``model_width``."""

_ENCODERS: list[Encoders] = []


def shared_encoders(reference: str, pooling: str) -> TextEncoder:
    """Encoders that stay in memory for all searches of a process."""
    if not _ENCODERS:
        _ENCODERS.append(Encoders(Settings.from_environment()))
    return _ENCODERS[0](reference, pooling)


class Ours:
    """``language-bo`` behind ask and tell. Failed trials are told as failed: it has a model of failures.

    Args:
        view: the task.
        settings: ``algorithmSettings``; the seed is ``random_state`` unless they give one.
        encoders: (reference, pooling) -> encoder.
        earlier: what earlier searches found.

    Raises:
        InvalidInput: the settings are wrong.

    Attributes:
        notes: how many suggestions were fallbacks, of which reason, and sums of the weights that its models had.
    """

    def __init__(
        self,
        view: View,
        settings: Mapping[str, str],
        encoders: Callable[[str, str], TextEncoder] = shared_encoders,
        earlier: tuple[EarlierTrials, ...] = (),
    ) -> None:
        self._earlier = earlier
        self._strategy = LanguageBO(encoders)
        self._view = view
        width = WIDTHS.get(view.task.partition("-")[0])
        told = {} if width is None else {"model_width": width}
        self._settings = {"random_state": str(view.seed), **told, **settings}
        self._objective = Objective("loss", Goal.MINIMIZE)
        self._strategy.options.parse(self._settings)
        self._trials: list[Trial] = []
        self._pool = view.space.at(view.space.encode(view.configs)) if view.sees_pool else None
        self.notes: dict[str, float] = {"fallbacks": 0.0}

    def ask(self) -> Array:
        view = self._view
        request = SuggestRequest(
            experiment=view.task,
            space=view.space,
            objective=self._objective,
            settings=self._settings,
            trials=tuple(self._trials),
            count=1,
            issued=len(self._trials),
            max_trials=view.budget,
            pool=self._pool,
            earlier=self._earlier,
        )
        answer = self._strategy.suggest(request)
        if answer.fallback is not None:
            self.notes["fallbacks"] += 1
            self.notes[f"fallback_{answer.reason}"] = self.notes.get(f"fallback_{answer.reason}", 0.0) + 1
        for name, number in answer.details.items():
            if name.startswith("weight"):
                self.notes[name] = self.notes.get(name, 0.0) + number
        return positions(view.dimensions, answer.assignments)[0]

    def tell(self, trial: Told) -> None:
        state = TrialState.FAILED if trial.value is None else TrialState.SUCCEEDED
        self._trials.append(Trial(f"t{len(self._trials)}", trial.config, state, trial.value))
