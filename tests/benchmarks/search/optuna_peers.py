"""Optuna's samplers.

A user of Optuna would give numbers as ranges, with ``log=True`` where the scale is logarithmic; so does this. What is
told is the measured configuration and not the proposed one, so that the history is laid into a fresh study at each
step (``study.add_trial``, as for trials that were run elsewhere) and the sampler, which keeps its random state, is
asked for the next one.

Failed trials (``failure``):

``state``   what Optuna has for it: TPE gets ``PRUNED``, which it ranks behind all completed trials; the samplers of
            Gaussian processes get ``FAIL``, which they leave out.
``worst``   a completed trial with the worst value so far, anew at each step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import optuna

from benchmarks.search.problem import Array, Dimension, Told, View

Failure = Literal["state", "worst"]


class OptunaSampler:
    """A sampler of Optuna behind ask and tell.

    Args:
        view: the task.
        sampler: seed -> sampler.
        failed: the state of a failed trial where ``failure`` is ``state``.
        failure: how failures are told, see the module.
    """

    def __init__(
        self,
        view: View,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        failed: optuna.trial.TrialState,
        failure: Failure = "state",
    ) -> None:
        if failure not in ("state", "worst"):
            raise ValueError(f"failure must be state or worst, got {failure!r}")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # options of samplers that Optuna calls experimental
            self._sampler = sampler(view.seed)
        self._dimensions = view.dimensions
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {
            dim.name: optuna.distributions.FloatDistribution(dim.low, dim.high, log=dim.log) for dim in view.dimensions
        }
        self._failed = failed
        self._worst = failure == "worst"
        self._trials: list[Told] = []

    def ask(self) -> Array:
        study = optuna.create_study(direction="minimize", sampler=self._sampler)
        measured = [trial.value for trial in self._trials if trial.value is not None]
        for trial in self._trials:
            value = max(measured) if trial.value is None and self._worst and measured else trial.value
            study.add_trial(self._frozen(trial, value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fits that stop early, parameters at their bounds
            asked = study.ask(self._distributions)
        return np.array([dim.position(asked.params[dim.name]) for dim in self._dimensions])

    def _frozen(self, trial: Told, value: float | None) -> optuna.trial.FrozenTrial:
        facts: dict[str, Any] = {
            "params": numbers(self._dimensions, trial.config),
            "distributions": self._distributions,
        }
        if value is None:
            return optuna.trial.create_trial(state=self._failed, **facts)
        return optuna.trial.create_trial(value=value, **facts)

    def tell(self, trial: Told) -> None:
        self._trials.append(trial)


def numbers(dims: tuple[Dimension, ...], config: dict[str, str]) -> dict[str, float]:
    """A configuration as numbers."""
    return {dim.name: float(config[dim.name]) for dim in dims}


def tpe(view: View, failure: Failure = "state", multivariate: str = "false") -> OptunaSampler:
    """Optuna's TPE; its default is one model for each parameter, ``multivariate`` takes them together."""
    return OptunaSampler(
        view,
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=multivariate == "true"),
        optuna.trial.TrialState.PRUNED,
        failure,
    )


def gp(view: View, failure: Failure = "state") -> OptunaSampler:
    """Optuna's Gaussian process."""
    return OptunaSampler(view, lambda seed: optuna.samplers.GPSampler(seed=seed), optuna.trial.TrialState.FAIL, failure)
