"""What the literature says about LoRA's hyperparameters, in numbers: where the best value usually lies.

The words of :mod:`rankwise.language.guide` in a form that a search can start from. Each rule is a normal distribution
of the best value of one quantity, on the scale on which the quantity acts. They are broad on purpose: they come from
models of 1 to 70 billion weights and full-length trainings, and a search uses them as a belief that its own trials
overrule, not as bounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankwise.language.quantities import LEARNING_RATE, REACH, SCALING

MOST_DEVIATIONS = 4.0
"""Values further away are all equally implausible: a belief must stay possible to overrule."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the best value of a quantity is believed to lie.

    Attributes:
        quantity: see :func:`rankwise.language.quantities.quantities`.
        centre: the most plausible value, in the quantity's own unit.
        spread: standard deviation: in powers of two on a log scale, in the quantity's own unit otherwise.
        log: whether distances are ratios.
        unless: quantities whose presence makes this rule superfluous.
    """

    quantity: str
    centre: float
    spread: float
    log: bool = True
    unless: tuple[str, ...] = ()

    def log_density(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unnormalized log density (m,) at values (m,); 0, the centre's, where a value is no number."""
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                distance = np.log2(np.where(values > 0, values, np.nan)) - math.log2(self.centre)
        else:
            distance = values - self.centre
        z = np.clip(np.nan_to_num(distance / self.spread, nan=0.0), -MOST_DEVIATIONS, MOST_DEVIATIONS)
        density: NDArray[np.float64] = -0.5 * z**2
        return density


LITERATURE: tuple[Rule, ...] = (
    # 2e-4 at scalings of 1 to 2 is the rate of LoRA (arXiv 2106.09685) and QLoRA (arXiv 2305.14314) for billions of
    # weights and thousands of steps; it is half as much again in trainings under a hundred steps, which those of a
    # search are, and more in small models. So the centre is at the upper end, and the spread a factor of six.
    Rule(REACH, 1e-3, 2.5),
    Rule(LEARNING_RATE, 1e-3, 2.5, unless=(REACH,)),
    Rule(SCALING, 2.0, 1.5),
    # A fixed rate with the largest rank wins most cells of public sweeps; what a rank costs is memory.
    Rule("rank", 64.0, 2.5),
    # LoRA tolerates large batches less than full fine-tuning, and short trainings need their updates.
    Rule("batch_size", 8.0, 2.0),
    Rule("dropout", 0.0, 0.15, log=False),
)
"""Sources beside those named: arXiv 2602.04998 (tune the rate first; the best one falls with the rank), the public
sweep of rate and rank over 31 models, and the comparison of LoRA with full fine-tuning across ranks and batches."""


def log_plausibility(
    values: Mapping[str, NDArray[np.float64]], rules: Sequence[Rule] = LITERATURE
) -> NDArray[np.float64] | None:
    """Log density (m,) of being the best configuration under rules, up to a constant.

    Args:
        values: quantities of the configurations, each (m,).
        rules: which to apply; those on quantities that are missing say nothing.

    Returns:
        None where no rule applies.
    """
    applied = [
        rule.log_density(values[rule.quantity])
        for rule in rules
        if rule.quantity in values and not any(other in values for other in rule.unless)
    ]
    return np.sum(applied, axis=0) if applied else None
