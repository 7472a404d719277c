"""Learning-rate schedules as functions of the step."""

from __future__ import annotations

import math


def rate_factor(schedule: str, step: int, total: int, warmup_ratio: float) -> float:
    """Part of the peak learning rate that a step uses.

    The rate rises linearly over the first ceil(warmup_ratio * total) steps, reaches the peak at the step after, and
    then stays (``constant``) or falls towards 0, which it would reach at step ``total`` (``linear``, ``cosine``).

    Args:
        schedule: ``linear``, ``cosine`` or ``constant``.
        step: from 0.
        total: steps of the whole training.
        warmup_ratio: in [0, 1).

    Returns:
        a factor in (0, 1].
    """
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        # The first step is not wasted on a rate of 0.
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "linear":
        return 1.0 - done
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0
