"""Fitting of hyperparameters: maximum a posteriori by L-BFGS-B with bounded attempts and rollback."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from botorch.optim.closures.core import ForwardBackwardClosure
from botorch.optim.core import scipy_minimize
from botorch.optim.utils.model_utils import get_parameters_and_bounds
from numpy.typing import NDArray
from torch import Tensor, nn

from rankwise.deadline import Deadline
from rankwise.surrogate.gaussian_process import FitError

MAX_FIT_OBSERVATIONS = 300
"""Observations from which hyperparameters are read. A posterior is always conditioned on all of them; the bound keeps
the cubic cost of a fit at one level from 300 observations on."""


def representative(outcomes: NDArray[np.float64], limit: int = MAX_FIT_OBSERVATIONS) -> NDArray[np.intp]:
    """Indices of at most ``limit`` observations for a fit: the best half of them, the rest evenly over the outcomes.

    Args:
        outcomes: smaller is better.  # (n,)
        limit: how many to keep.
    """
    if len(outcomes) <= limit:
        return np.arange(len(outcomes))
    order = np.argsort(outcomes, kind="stable")
    best, rest = order[: limit // 2], order[limit // 2 :]
    spread = rest[np.linspace(0, len(rest) - 1, limit - len(best)).round().astype(np.intp)]
    return np.sort(np.concatenate([best, spread]))


def minimize(
    model: nn.Module,
    loss: Callable[[], Tensor],
    starts: Sequence[Callable[[], None]],
    steps: int,
    deadline: Deadline,
) -> float:
    """Minimize a loss over a model's trainable parameters, in place; the model is in eval mode afterwards.

    Every attempt has a bounded number of L-BFGS-B iterations and another start; the next one is made only when the
    one before gave no finite loss. The best finite state is kept. The number of iterations does not depend on the
    clock unless the deadline comes, so that results can be repeated.

    Args:
        model: module whose parameters the loss depends on; bounds come from its GPyTorch constraints.
        loss: scalar; may raise ``FitError``.
        starts: each changes the model from its initial state to the state that an attempt starts from.
        steps: iterations of one attempt.
        deadline: after it, the best state so far is kept and no further attempt made.

    Returns:
        The least loss.

    Raises:
        FitError: no attempt gave a finite loss.
    """
    model.train()
    initial = snapshot(model)
    least, best = math.inf, initial
    for start in starts:
        model.load_state_dict(initial)
        start()
        parameters, bounds = get_parameters_and_bounds(model, requires_grad=True)
        value = _attempt(loss, parameters, bounds, steps, deadline)
        if math.isfinite(value) and value < least:
            least, best = value, snapshot(model)
        if math.isfinite(least) or deadline.expired:
            break
    model.load_state_dict(best)
    model.eval()
    if not math.isfinite(least):
        raise FitError(f"none of {len(starts)} attempts of the fit gave a finite loss")
    return least


def _attempt(
    loss: Callable[[], Tensor],
    parameters: dict[str, Tensor],
    bounds: Mapping[str, tuple[float | None, float | None]],
    steps: int,
    deadline: Deadline,
) -> float:
    seconds = deadline.remaining()
    try:
        if seconds > 0.0 and parameters:
            scipy_minimize(
                ForwardBackwardClosure(loss, parameters=parameters),
                parameters=parameters,
                bounds=dict(bounds),
                options={"maxiter": steps},
                timeout_sec=None if math.isinf(seconds) else seconds,
            )
        with torch.no_grad():
            return float(loss())
    except (ArithmeticError, RuntimeError, ValueError):
        # Cholesky failures, non-finite gradients: the caller goes on with another start.
        return math.nan


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
