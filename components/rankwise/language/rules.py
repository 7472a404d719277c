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


USUAL_WIDTH = 2000
"""Hidden size at which the published rule of the learning rate has no correction; taken where none is known."""
_RATE = 5e-5 * 15
_SCALING = 2.0
_WIDTH_EXPONENT = 0.5
"""The best rate for LoRA is 10 times that for full fine-tuning, 15 times in trainings under a hundred steps, such as
those of a search: 5e-5 · 15 · (2000 / H)^P for hidden size H, at alpha / rank = 2, with P = 0.78 in the Llama family
and 0.08 in the Qwen family (Schulman et al. 2025, "LoRA without regret", and the rule published with it). P is taken
between the two. 2e-4, the rate of LoRA (arXiv 2106.09685) and QLoRA (arXiv 2305.14314) for billions of weights and
thousands of steps, lies within one standard deviation."""


def literature(width: int | None = None) -> tuple[Rule, ...]:
    """The rules for a model of hidden size ``width``.

    Sources beside those named: arXiv 2602.04998 (tune the rate first; the best one falls with the rank), the public
    sweep of rate and rank over 31 models, and the comparison of LoRA with full fine-tuning across ranks and batches.
    """
    rate = _RATE * (USUAL_WIDTH / (width or USUAL_WIDTH)) ** _WIDTH_EXPONENT
    return (
        Rule(REACH, _SCALING * rate, 2.5),
        Rule(LEARNING_RATE, _SCALING * rate, 2.5, unless=(REACH,)),
        Rule(SCALING, _SCALING, 1.5),
        # A fixed rate with the largest rank wins most cells of public sweeps; what a rank costs is memory.
        Rule("rank", 64.0, 2.5),
        # LoRA tolerates large batches less than full fine-tuning, and short trainings need their updates.
        Rule("batch_size", 8.0, 2.0),
        Rule("dropout", 0.0, 0.15, log=False),
    )


def log_plausibility(values: Mapping[str, NDArray[np.float64]], rules: Sequence[Rule]) -> NDArray[np.float64] | None:
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
