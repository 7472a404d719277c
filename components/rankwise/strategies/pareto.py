"""Pareto fronts of finitely many points, and the hypervolume that they dominate. Smaller is better in every column.

The hypervolume's reference point is the nadir of the front (its worst value in each metric) and a tenth of the front's
extent beyond it, as BoTorch infers it (Ishibuchi et al. 2011; ``infer_reference_point``): the ends of the front then
count for something, and one diverged training does not set the scale. Volumes compare only with one reference.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BEYOND_NADIR = 0.1
"""How far the reference point lies beyond the nadir, in parts of the front's extent."""


def pareto_front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other one dominates: is at least as good in every metric and better in one.

    Args:
        points: smaller is better; a row with a NaN is on no front and dominates nothing.  # (n, m)

    Returns:
        (n,). Equal points are on the front together.
    """
    known: NDArray[np.bool_] = np.logical_not(np.isnan(points).any(axis=1))  # (n,)
    front = known.copy()
    for i in np.flatnonzero(known):
        if front[i]:
            worse = (points[i] <= points).all(1) & (points[i] < points).any(1)  # (n,)
            front[worse] = False
    return front


def depth(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many fronts have to be taken away before a point is on one (n,): 0 on the front; NaN rows last."""
    found = np.full(len(points), len(points), dtype=np.int64)
    left: NDArray[np.bool_] = np.logical_not(np.isnan(points).any(axis=1))
    level = 0
    while left.any():
        front = pareto_front(np.where(left[:, None], points, np.nan))
        found[front] = level
        left[front] = False
        level += 1
    return found


def reference_point(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The reference point (m,) for a history of points (n, m), n ≥ 0; see the module's text.

    Where the front has no extent in a metric, that of all points is taken; where they have none either, the metric's
    size, or 1.
    """
    known = points[~np.isnan(points).any(1)]
    if not len(known):
        return np.ones(points.shape[1])
    front = known[pareto_front(known)]
    nadir = front.max(0)
    with np.errstate(over="ignore"):
        extent = nadir - front.min(0)
        extent = np.where(extent > 0, extent, known.max(0) - known.min(0))
        extent = np.where(extent > 0, extent, np.abs(nadir))
        extent = np.where(extent > 0, extent, 1.0)
        reference: NDArray[np.float64] = np.nan_to_num(nadir + BEYOND_NADIR * extent)
    return reference


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume that points (n, m), m ≥ 2, dominate up to a reference point (m,); 0 for none within it."""
    # Imported here: torch takes seconds that a command line need not wait for.
    import torch
    from botorch.utils.multi_objective.hypervolume import Hypervolume

    known = points[(points < reference).all(1)]  # a NaN is not less
    front = np.unique(known[pareto_front(known)], axis=0)
    if not len(front):
        return 0.0
    # BoTorch maximizes.
    return float(Hypervolume(ref_point=torch.tensor(-reference)).compute(torch.tensor(-front)))


def hypervolumes(points: NDArray[np.float64], reference: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Hypervolume (n,) of the first 1, 2, … n points: what a search had found by each trial.

    Args:
        points: in the order of the trials.  # (n, m), m ≥ 2
        reference: of all prefixes; None for :func:`reference_point` of all points.  # (m,)
    """
    bound = reference_point(points) if reference is None else reference
    found = np.zeros(len(points))
    volume = 0.0
    for i in range(len(points)):
        if pareto_front(points[: i + 1])[i]:  # nothing else can enlarge the volume
            volume = max(volume, hypervolume(points[: i + 1], bound))
        found[i] = volume
    return found
