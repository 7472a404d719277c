"""Optimizers that need nothing but what the lock has: random, Sobol, two fixed rules, and a BoTorch loop.

Failed trials: random, Sobol and the rules learn nothing from any trial. The Gaussian process is given the worst value
so far for each failure, anew at each step, so that a bad place looks bad.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.stats import qmc

from benchmarks.search.problem import Array, Told, View, positions

LARGEST_RANK = {"rank": "128", "alpha_ratio": "1", "dropout": "0", "batch_size": "8", "learning_rate": "3e-4"}
"""The rule "learning rate 3e-4 and the largest rank"; it says nothing of the others, which stay at PEFT's and
transformers' defaults."""
PEFT_DEFAULTS = {"rank": "8", "alpha_ratio": "1", "dropout": "0", "batch_size": "8", "learning_rate": "5e-5"}
"""``LoraConfig()`` (r 8, lora_alpha 8, lora_dropout 0) with ``TrainingArguments()`` (learning_rate 5e-5,
per_device_train_batch_size 8)."""


class Deaf:
    """Learns nothing from a trial."""

    def tell(self, trial: Told) -> None:
        pass


class Random(Deaf):
    """Every value of every parameter is as likely as the others."""

    def __init__(self, view: View) -> None:
        self._parameters = view.space.parameters
        self._dimensions = view.dimensions
        self._generator = np.random.default_rng([view.seed, 1])

    def ask(self) -> Array:
        drawn = {}
        for parameter in self._parameters:
            assert parameter.values is not None  # the benchmark's spaces are lists
            drawn[parameter.name] = parameter.values[self._generator.integers(len(parameter.values))]
        return positions(self._dimensions, [drawn])[0]


class Sobol(Deaf):
    """A scrambled Sobol sequence of the unit cube."""

    def __init__(self, view: View) -> None:
        self._points = sobol(view)

    def ask(self) -> Array:
        point, self._points = self._points[0], self._points[1:]
        return point


def sobol(view: View) -> Array:
    """At least ``budget`` points of the unit cube.  # (n, D)"""
    sequence = qmc.Sobol(len(view.dimensions), scramble=True, rng=np.random.default_rng([view.seed, 2]))
    return sequence.random_base2(max(1, (view.budget - 1).bit_length()))  # scipy warns of other numbers than 2^k


class Rule(Deaf):
    """Always the same configuration: one trial, or the ones nearest to it.

    Args:
        view: the task.
        config: a value for each parameter; it need not be one of the space.
    """

    def __init__(self, view: View, config: Mapping[str, str]) -> None:
        self._position = positions(view.dimensions, [config])[0]

    def ask(self) -> Array:
        return self._position


class BotorchGP:
    """The loop that BoTorch's own tutorials show: SingleTaskGP, analytic LogEI, over a list of candidates.

    ARD Matérn-5/2 with the dimension-scaled prior of the lengthscales that ``SingleTaskGP`` has by default (whose own
    kernel is RBF), its default noise prior and standardized outcomes; inputs are positions in the unit cube, in other
    words the numbers in log scale. ``initial`` scrambled Sobol points come first. Candidates are the pool in mode
    ``pool``, and all configurations of the space in mode ``nearest``.

    Args:
        view: the task.
        outcome: ``raw``, or ``log`` to model the logarithm of the value.
        initial: number of Sobol points.

    Attributes:
        notes: how often a fit failed (a Sobol point answered then).
    """

    def __init__(self, view: View, outcome: Literal["raw", "log"] = "raw", initial: int = 5) -> None:
        if outcome not in ("raw", "log"):
            raise ValueError(f"outcome must be raw or log, got {outcome!r}")
        self._log = outcome == "log"
        self._initial = initial
        self._design = sobol(view)
        self._asked = 0
        self._trials: list[Told] = []
        self._seed = view.seed
        if view.sees_pool:
            self._candidates = view.positions
        else:
            self._candidates = positions(view.dimensions, view.space.enumerate())
        self._free = np.ones(len(self._candidates), dtype=bool)
        self.notes: dict[str, float] = {"failed_fits": 0.0}

    def ask(self) -> Array:
        point = self._design[self._asked]
        self._asked += 1
        measured = [trial.value for trial in self._trials if trial.value is not None]
        if self._asked <= self._initial or not measured or not self._free.any():
            return point
        from botorch.exceptions import ModelFittingError

        try:
            return self._candidates[self._best(max(measured))]
        except ModelFittingError:
            self.notes["failed_fits"] += 1
            return point

    def _best(self, worst: float) -> int:
        """The untried candidate with the largest LogEI."""
        import torch
        from botorch.acquisition.analytic import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
        from gpytorch.mlls import ExactMarginalLogLikelihood

        torch.manual_seed(self._seed * 1000 + self._asked)
        values = np.array([worst if trial.value is None else trial.value for trial in self._trials])  # (n,)
        y = -torch.tensor(np.log(values) if self._log else values, dtype=torch.float64).unsqueeze(-1)  # (n, 1)
        x = torch.tensor(np.stack([trial.position for trial in self._trials]), dtype=torch.float64)  # (n, D)
        kernel = get_covar_module_with_dim_scaled_prior(ard_num_dims=x.shape[1], use_rbf_kernel=False)
        with warnings.catch_warnings():
            # Attempts of a fit that do not converge are repeated by BoTorch; what counts is the last one's outcome.
            warnings.simplefilter("ignore")
            model = SingleTaskGP(x, y, covar_module=kernel)
            fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
            acquisition = LogExpectedImprovement(model, best_f=y.max())
            free = np.flatnonzero(self._free)
            with torch.no_grad():
                scores = acquisition(torch.tensor(self._candidates[free], dtype=torch.float64).unsqueeze(1))  # (m,)
        return int(free[int(scores.argmax())])

    def tell(self, trial: Told) -> None:
        self._trials.append(trial)
        self._free &= ~np.all(np.isclose(self._candidates, trial.position, atol=1e-9), axis=1)
