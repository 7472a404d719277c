"""A table stretched over its whole space: a regression on the measured runs answers for every configuration.

    python -m benchmarks.search.surrogate          (from tests/; how well each predicts runs that it has not seen)

A pool of a few hundred measured configurations can be searched as it is, but a search of 30 trials tries a good part of
it, and a proposal may be moved far. On the stretched table every configuration of the space can be tried. The price:
its values are predictions, smoother than real ones, and an optimizer whose model resembles the regression has an
advantage. So this is reported beside the searches over measured runs, never mixed with them, together with how well the
regression predicts held-out runs (10-fold cross-validation).

Two regressions, of the logarithm of the loss on the positions in the unit cube (:class:`~.problem.Dimension`):

``gp``      scikit-learn's Gaussian process: Matérn-5/2, a lengthscale for each parameter, noise
``forest``  scikit-learn's extremely randomized trees, 200 of them

and in both the same trees say whether a configuration diverges (as likely as not, or more).
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.search.problem import Array, Measured, Pool, dimensions, positions
from rankwise.space import SearchSpace

KINDS = ("gp", "forest")
FOLDS = 10
TREES = 200


def _regression(kind: str, dimension: int) -> Any:
    if kind == "forest":
        from sklearn.ensemble import ExtraTreesRegressor

        return ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=0)
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5] * dimension, (0.05, 20.0), nu=2.5)
    noise = WhiteKernel(1e-2, (1e-4, 1.0))
    return GaussianProcessRegressor(kernel + noise, normalize_y=True, n_restarts_optimizer=3, random_state=0)


class Regression:
    """A model of one table.

    Args:
        kind: ``gp`` or ``forest``.
        x: places of the configurations.  # (n, D)
        values: losses, greater than 0; None for failures.

    Raises:
        ValueError: the kind is unknown, or a loss is not greater than 0.
    """

    def __init__(self, kind: str, x: Array, values: Sequence[float | None]) -> None:
        if kind not in KINDS:
            raise ValueError(f"a regression is one of {', '.join(KINDS)}, got {kind!r}")
        good = np.array([value is not None for value in values])
        losses = np.array([value for value in values if value is not None])
        if (losses <= 0).any():
            raise ValueError("the logarithm of a loss needs one that is greater than 0")
        self._model = _regression(kind, x.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lengthscales at their bounds: parameters without effect
            self._model.fit(x[good], np.log(losses))
        self._failure: Any = None
        if not good.all():
            from sklearn.ensemble import ExtraTreesClassifier

            self._failure = ExtraTreesClassifier(TREES, max_features=None, random_state=0).fit(x, ~good)

    def loss(self, x: Array) -> Array:
        """Predicted losses.  # (m,)"""
        return np.exp(np.asarray(self._model.predict(x), dtype=np.float64))

    def failure(self, x: Array) -> Array:
        """Probabilities of failure.  # (m,)"""
        if self._failure is None:
            return np.zeros(len(x))
        return np.asarray(self._failure.predict_proba(x)[:, list(self._failure.classes_).index(True)], dtype=np.float64)


def stretched(name: str, space: SearchSpace, measured: Measured, kind: str, hidden: float = 0.0) -> Pool:
    """The pool of all configurations of a finite space, with predicted values."""
    dims = dimensions(space)
    points = list(space.enumerate())
    model = Regression(kind, positions(dims, [config for config, _ in measured]), [value for _, value in measured])
    x = positions(dims, points)
    losses, failures = model.loss(x), model.failure(x) >= 0.5
    # Twelve digits: a fingerprint must not hang on the last bits of a matrix product.
    values = [None if failed else float(f"{loss:.11e}") for loss, failed in zip(losses, failures, strict=True)]
    return Pool(name, space, list(zip(points, values, strict=True)), hidden)


@dataclass(frozen=True)
class Quality:
    """How well a regression predicts runs that it has not seen.

    Attributes:
        measured: runs with a loss.
        failed: runs without.
        explained: R² of the logarithm of the loss.
        rank: Spearman's correlation of predicted and measured losses.
        rank_of_better_half: the same among the measured better half.
        error: root of the mean squared error among the better half, as a part of (median − best): the scale of regret.
        failures_found: part of the failures that were predicted; None without failures.
        false_failures: part of the others that were predicted to fail.
    """

    measured: int
    failed: int
    explained: float
    rank: float
    rank_of_better_half: float
    error: float
    failures_found: float | None
    false_failures: float


def quality(space: SearchSpace, measured: Measured, kind: str) -> Quality:
    """Cross-validate a regression on a table."""
    x = positions(dimensions(space), [config for config, _ in measured])
    values = [value for _, value in measured]
    fold = np.random.default_rng(0).permutation(len(values)) % FOLDS
    predicted, failing = np.empty(len(values)), np.empty(len(values))
    for k in range(FOLDS):
        kept = fold != k
        model = Regression(kind, x[kept], [value for value, keep in zip(values, kept, strict=True) if keep])
        predicted[~kept], failing[~kept] = model.loss(x[~kept]), model.failure(x[~kept])
    good = np.array([value is not None for value in values])
    losses, guesses = np.array([value for value in values if value is not None]), predicted[good]
    better = losses <= np.median(losses)
    residual = np.log(losses) - np.log(guesses)
    span = float(np.median(losses) - losses.min())
    return Quality(
        measured=len(losses),
        failed=int((~good).sum()),
        explained=float(1 - residual.var() / np.log(losses).var()),
        rank=float(spearmanr(losses, guesses).statistic),
        rank_of_better_half=float(spearmanr(losses[better], guesses[better]).statistic),
        error=float(np.sqrt(np.mean((losses[better] - guesses[better]) ** 2)) / span),
        failures_found=float((failing[~good] >= 0.5).mean()) if not good.all() else None,
        false_failures=float((failing[good] >= 0.5).mean()),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how good the regressions are."""
    from benchmarks.lora_runs.table import TASKS, load, search_space
    from benchmarks.search.problem import measured_of

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="NAME")
    given = parser.parse_args(arguments)
    space = search_space()
    print(
        "| task | regression | runs | failed | R² | rank correlation | in better half | error there | failures found |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for task in given.tasks:
        measured = measured_of(task, space, load(task))
        for kind in KINDS:
            q = quality(space, measured, kind)
            found = "–" if q.failures_found is None else f"{q.failures_found:.0%}"
            figures = f"{q.explained:.2f} | {q.rank:.2f} | {q.rank_of_better_half:.2f} | {q.error:.2f} | {found}"
            print(f"| {task} | {kind} | {q.measured} | {q.failed} | {figures} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
