"""The numbers behind a configuration, by what they mean: what rules about LoRA are stated in.

A space may say the learning rate as ``lr`` or ``learning_rate`` and the strength of an adapter as alpha or as
alpha / rank. Rules speak of quantities instead: a kind of :mod:`rankwise.language.guide`, or one that follows from
several parameters:

- ``scaling``: the factor s on the learned update; alpha / rank, or alpha / √rank where the variant is ``rslora``
  (arXiv 2312.03732).
- ``step_size``: learning rate × s. With Adam a step moves A and B by about the learning rate, whatever the gradient,
  and the weights by s times that; so the two act much like one number (prompt and rules both say so).
- ``reach``: the step size as it would be at rank 16 and batch size 16, the number whose best value changes least from
  one configuration to another. The best rate at rank 4 is 5.6 times that at rank 256 (arXiv 2602.04998), an exponent
  of log 5.6 / log 64 = 0.41; and with Adam it grows with the root of the batch size (arXiv 2205.10287).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rankwise.language import guide as guides
from rankwise.language.guide import guide_for
from rankwise.space import Candidates, parse_finite

SCALING = guides.SCALING.kind
STEP_SIZE = "step_size"
LEARNING_RATE = "learning_rate"
REACH = "reach"

_USUAL = 16.0
"""Rank and batch size at which the reach is the step size."""
_RANK_EXPONENT = 0.41
_BATCH_EXPONENT = -0.5


def quantities(points: Candidates) -> Mapping[str, NDArray[np.float64]]:
    """Quantity -> its value at every point (m,); NaN where a value is no number.

    Quantities that no parameter of the space tells are missing. Where two parameters are of one kind, the first in
    the order of names is meant.
    """
    found: dict[str, NDArray[np.float64]] = {}
    variant: list[str] | None = None
    names = points.space.names
    for j in sorted(range(len(names)), key=lambda j: names[j]):
        known = guide_for(names[j])
        if known is None or known.kind in found:
            continue
        if known is guides.VARIANT:
            variant = variant or points.column(j)
            continue
        found[known.kind] = _numbers(points, j)
    scaling = _scaling(found, variant)
    if scaling is not None:
        found[SCALING] = scaling
        if LEARNING_RATE in found:
            found[STEP_SIZE] = found[LEARNING_RATE] * scaling
            found[REACH] = _reach(found)
    return found


def _numbers(points: Candidates, j: int) -> NDArray[np.float64]:
    """Values of parameter ``j`` (m,); listed ones are read once each, however many points have them."""
    table = points.space.parameters[j].table
    texts = points.column(j) if table is None else table.values
    read = np.array([np.nan if (number := parse_finite(text)) is None else number for text in texts], dtype=np.float64)
    return read if table is None else read[points.indices[:, j]]


def _scaling(found: Mapping[str, NDArray[np.float64]], variant: list[str] | None) -> NDArray[np.float64] | None:
    rank, alpha = found.get(guides.RANK.kind), found.get(guides.ALPHA.kind)
    positive = None if rank is None else np.where(rank > 0, rank, np.nan)
    if SCALING in found:
        ratio = found[SCALING]
    elif alpha is not None and positive is not None:
        ratio = alpha / positive
    else:
        return None
    if variant is None or positive is None:
        return ratio
    stabilized = np.array([text == "rslora" for text in variant])
    return np.where(stabilized, ratio * np.sqrt(positive), ratio)


def _reach(found: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    reach = found[STEP_SIZE]
    for kind, exponent in ((guides.RANK.kind, _RANK_EXPONENT), ("batch_size", _BATCH_EXPONENT)):
        values = found.get(kind)
        if values is not None:
            usable = np.where(values > 0, values, _USUAL)  # what is no number says nothing
            reach = reach * (usable / _USUAL) ** exponent
    return reach
