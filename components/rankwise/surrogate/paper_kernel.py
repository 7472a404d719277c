"""The surrogate of arXiv 2602.11171 as it stands there: the measure of what we do otherwise, and its ablation.

Notation::

    v       (d,)    vector of a configuration's text: frozen, or v(ψ) with the learnable token behind the text
    ψ       (e,)    the learnable token's embedding
    W, b    (q, d), (q,)   the projection (θ)
    z       (q,)    features: ELU(W v + b), scaled to (−1, 1); without the projection v itself, scaled

Matérn-5/2 without ARD and with an output scale, constant mean, Gaussian noise, no priors. ψ, θ and the process's
hyperparameters are fitted together on the exact marginal likelihood by AdamW, with one learning rate for the process
and another for θ and ψ, from scratch at each call. The parts can be switched off one by one: frozen vectors, with the
projection, with the token.

What the paper leaves open, and how it is closed here: the number of steps is a setting; weights start as a linear layer
of torch does; ψ starts as the embedding of the token that ends a text; the scaling is GPyTorch's (least and greatest
output of the observed rows become ±0.95 or so, what lies beyond is cut off); AdamW's weight decay is torch's default.
The state with the least loss is kept and not the last one: a step of 0.2 on a process's hyperparameters may overshoot.

The process is computed in float64; the language model in its own precision, with ψ in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from gpytorch.kernels import MaternKernel, ScaleKernel
from gpytorch.likelihoods import GaussianLikelihood
from numpy.typing import NDArray
from torch import Tensor, nn

from rankwise.deadline import Deadline
from rankwise.errors import RankwiseError
from rankwise.surrogate.fit import MAX_FIT_OBSERVATIONS, representative, snapshot
from rankwise.surrogate.gaussian_process import FitError, FittedSurrogate, GaussianProcess

MAX_TOKEN_OBSERVATIONS = 100
"""Observations that a fit with the token reads: each costs a token's way through the language model, there and back,
at every step, and some megabytes. The posterior is conditioned on all of them."""
BOUND = 0.95
"""Share of (−1, 1) that the features of the observed rows may take, as in GPyTorch."""
_CHUNK_ROWS = 4096
_ATTEMPTS = ((1.0, True), (0.1, True), (0.1, False))
"""Factor on the learning rates, and whether weights and token are fitted, of each attempt; a further one is made only
when the one before gave no finite loss."""


@dataclass(frozen=True)
class PaperKernelSettings:
    """Which parts of the paper's surrogate are used, and how they are fitted."""

    projection: bool = True
    """Learn a linear layer with ELU on the vectors; without it the process stands on the vectors themselves."""
    token: bool = False
    """Learn ψ; the fit is then given token states and not vectors."""
    projection_dim: int = 64
    """Number q of features."""
    steps: int = 100
    """AdamW steps. The paper does not say how many; 100 is ours."""
    lr_gp: float = 0.2
    """Learning rate of the process's hyperparameters."""
    lr_weights: float = 0.002
    """Learning rate of θ and ψ."""
    weight_decay: float = 0.01
    """AdamW's, torch's default."""
    seed: int = 0
    """Of the projection's start."""


class SoftStates(Protocol):
    """Texts behind which a token can be put; :class:`rankwise.language.learnable_token.TokenStates` is one."""

    initial: NDArray[np.float32]
    """Where ψ starts, (e,)."""
    dimension: int
    """Length d of a vector."""

    def __len__(self) -> int: ...

    def last_states(self, psi: Tensor, rows: Sequence[int] | None = None, deadline: Deadline | None = None) -> Tensor:
        """Vectors v(ψ) (r, d), differentiable with respect to ψ (e,)."""
        ...


class PaperSurrogate(FittedSurrogate):
    """The fitted surrogate over raw vectors (m, d).

    Attributes:
        psi: the fitted token (e,), with which candidates have to be embedded; None where no token is learned.
        loss: negative log marginal likelihood per observation that was fitted; NaN where nothing was.
        steps: AdamW steps that were made.
    """

    psi: NDArray[np.float32] | None = None
    loss: float = math.nan
    steps: int = 0


class _Features(nn.Module):
    """Vectors to features in (−1, 1).

    Args:
        dimension: d.
        settings: whether and how to project.
    """

    low: Tensor
    high: Tensor

    def __init__(self, dimension: int, settings: PaperKernelSettings) -> None:
        super().__init__()
        self.projects = settings.projection
        if settings.projection:
            generator = torch.Generator().manual_seed(settings.seed)
            bound = 1 / math.sqrt(max(dimension, 1))  # torch's for a linear layer

            q = settings.projection_dim
            start = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((q, dimension), (q,))]
            self.weight, self.bias = (nn.Parameter((2 * part - 1) * bound) for part in start)
        self.register_buffer("low", torch.tensor(-1.0, dtype=torch.float64))
        self.register_buffer("high", torch.tensor(1.0, dtype=torch.float64))

    def forward(self, v: Tensor) -> Tensor:
        """Features (m, q) of vectors v (m, d). In training mode the bounds are read off these vectors."""
        h = nn.functional.elu(v @ self.weight.T + self.bias) if self.projects else v
        low, high = self.low, self.high
        if self.training:
            low, high = h.min(), h.max()
            with torch.no_grad():
                self.low.copy_(low)
                self.high.copy_(high)
        else:
            h = h.clamp(low, high)
        # One value everywhere carries nothing: all rows become the same point.
        return ((h - low) / (high - low).clamp_min(1e-9) * 2 - 1) * BOUND

    def of(self, X: NDArray[np.floating]) -> Tensor:  # noqa: N803
        """Features (m, q) of raw vectors X (m, d), in chunks of float64 copies."""
        with torch.no_grad():
            parts = [
                self(torch.tensor(np.asarray(X[i : i + _CHUNK_ROWS], dtype=np.float64)))
                for i in range(0, max(len(X), 1), _CHUNK_ROWS)
            ]
            return torch.cat(parts)


class _Frozen:
    """Vectors that depend on no token, as :class:`SoftStates`.

    Args:
        vectors: (n, d).
    """

    initial = np.zeros(0, dtype=np.float32)

    def __init__(self, vectors: NDArray[np.floating]) -> None:
        self._vectors = torch.tensor(np.asarray(vectors, dtype=np.float64))
        self.dimension = vectors.shape[1]

    def __len__(self) -> int:
        return len(self._vectors)

    def last_states(
        self,
        psi: Tensor,  # noqa: ARG002 - the interface's
        rows: Sequence[int] | None = None,
        deadline: Deadline | None = None,  # noqa: ARG002
    ) -> Tensor:
        """See :class:`SoftStates`."""
        return self._vectors if rows is None else self._vectors[list(rows)]


class _Paper(nn.Module):
    """Token, projection and process.

    Args:
        states: of the texts, or their vectors.
        rows: numbers of the n texts that are fitted.
        y: their standardized outcomes.  # (n,)
        settings: see :class:`PaperKernelSettings`.
        deadline: for the language model.
    """

    def __init__(
        self,
        states: SoftStates,
        rows: NDArray[np.intp],
        y: NDArray[np.float64],
        settings: PaperKernelSettings,
        deadline: Deadline,
    ) -> None:
        super().__init__()
        self._states, self._rows, self._deadline = states, rows.tolist(), deadline
        self._y = torch.tensor(y)
        self.psi = nn.Parameter(torch.tensor(states.initial), requires_grad=settings.token)
        self.features = _Features(states.dimension, settings)
        self.process = GaussianProcess(ScaleKernel(MaternKernel(nu=2.5)), GaussianLikelihood())

    def vectors(self) -> Tensor:
        """Vectors (n, d) of the fitted rows."""
        return self._states.last_states(self.psi, self._rows, self._deadline).double()

    def loss(self) -> Tensor:
        """Negative log marginal likelihood per observation."""
        return self.process.loss(self.features(self.vectors()), self._y)

    def weights(self) -> list[nn.Parameter]:
        """θ and ψ."""
        return [self.psi, *self.features.parameters()]


def fit_paper_kernel(
    vectors: NDArray[np.floating] | SoftStates,
    y: NDArray[np.float64],
    settings: PaperKernelSettings | None = None,
    deadline: Deadline | None = None,
) -> PaperSurrogate:
    """Fit the paper's surrogate.

    Args:
        vectors: of the n ≥ 0 observed configurations (n, d); with ``settings.token`` the states of their texts.
        y: outcomes (n,), standardized, smaller is better.
        settings: which parts, and how they are fitted.
        deadline: the fit stops when it comes and keeps the best state so far.

    Returns:
        The surrogate over raw vectors (m, d), in eval mode. With a token the vectors of candidates have to be made with
        its ``psi``. With fewer than two observations nothing is fitted.

    Raises:
        FitError: no attempt gave a finite marginal likelihood, or the language model was not free in time.
        ValueError: the number of rows is not the number of outcomes, or vectors and settings do not go together.
    """
    settings, deadline = settings or PaperKernelSettings(), deadline or Deadline.never()
    if len(vectors) != len(y):
        raise ValueError(f"expected as many rows as outcomes, got {len(vectors)} rows and {len(y)} outcomes")
    states: SoftStates = _Frozen(vectors) if isinstance(vectors, np.ndarray) else vectors
    if settings.token == isinstance(states, _Frozen):
        raise ValueError("a token is learned from token states, and everything else from vectors")
    rows = representative(y, MAX_TOKEN_OBSERVATIONS if settings.token else MAX_FIT_OBSERVATIONS)
    try:
        model = _Paper(states, rows, y[rows], settings, deadline)
        loss, steps = _fit(model, settings, deadline) if len(y) >= 2 else _unfitted(model, len(y))
        model.eval()
        with torch.no_grad():
            found = states.last_states(model.psi, None, deadline).numpy()  # (n, d)
    except RankwiseError as error:
        raise FitError(f"the language model gave no vectors: {error}") from error
    surrogate = PaperSurrogate(model.process, model.features.of, found, y)
    surrogate.psi = model.psi.detach().numpy().copy() if settings.token else None
    surrogate.loss, surrogate.steps = loss, steps
    return surrogate


def _unfitted(model: _Paper, count: int) -> tuple[float, int]:
    """Leave everything where it starts; the features' bounds are read off an observation, if there is one."""
    if count:
        with torch.no_grad():
            model.train()
            model.features(model.vectors())
    return math.nan, 0


def _fit(model: _Paper, settings: PaperKernelSettings, deadline: Deadline) -> tuple[float, int]:
    """Fit in place by a bounded number of attempts; the least loss and the steps that were made.

    Raises:
        FitError: no attempt gave a finite loss.
    """
    model.train()
    initial = snapshot(model)
    total = 0
    for factor, weights in _ATTEMPTS:
        model.load_state_dict(initial)
        model.psi.requires_grad_(weights and settings.token)
        model.features.requires_grad_(weights)
        least, steps = _descend(model, settings, factor, deadline)
        total += steps
        if math.isfinite(least):
            return least, total
        if deadline.expired:
            break
    raise FitError(f"none of {len(_ATTEMPTS)} attempts of the fit gave a finite loss")


def _descend(model: _Paper, settings: PaperKernelSettings, factor: float, deadline: Deadline) -> tuple[float, int]:
    """AdamW from where the model is; it is left in the best finite state. The least loss (NaN: none), and steps."""
    groups = [
        {"params": list(model.process.parameters()), "lr": factor * settings.lr_gp},
        {"params": [p for p in model.weights() if p.requires_grad], "lr": factor * settings.lr_weights},
    ]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=settings.weight_decay)
    least, best, steps = math.nan, None, 0
    for step in range(settings.steps + 1):
        try:
            loss = model.loss()
        except (ArithmeticError, RuntimeError, ValueError, RankwiseError):
            break
        value = loss.item()
        if not math.isfinite(value):
            break
        if best is None or value < least:
            # The bounds of the features, which the loss has just read, belong to the state.
            least, best = value, snapshot(model)
        if step == settings.steps or deadline.expired:
            break
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        if not all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None):
            break
        optimizer.step()
        steps += 1
    if best is not None:
        model.load_state_dict(best)
    return least, steps
