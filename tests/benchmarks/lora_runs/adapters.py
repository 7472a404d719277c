"""Many LoRA adapters on the same frozen linear layers at once.

Notation: W (out, in) frozen; adapter j has A_j (r_j, in), B_j (out, r_j) and s_j = alpha_j / r_j = alpha_ratio. Rows of
adapter j are a contiguous slice of the R rows of a step:

    y = x W^T + b                       all rows at once
    y[j] += s_j drop(x[j]) A_j^T B_j^T  slice by slice, each with its own rank: nothing is padded to the largest

All parameters of an adapter (and of its classification head) lie in one flat vector, with one vector of gradients, so
that clipping and AdamW are a handful of operations however many layers there are.

Types: everything between the products is float32. The base's products are made in the computing type (bfloat16 where
the processor has tiles for it). Products of an adapter are made in it only where they are large: a bfloat16 product
has an overhead of some 40 microseconds, for which float32 does a product of 200 x 400 x 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankwise.train.seeds import derive

_WORDS = 1 << 16
"""Dropout draws 16 random bits an element: a probability is met to 1/131072."""
_LARGE = 6144
"""Rank times rows from which a product is made in the computing type."""


@dataclass(frozen=True, slots=True)
class Site:
    """A frozen linear layer that gets adapters.

    Attributes:
        name: as the transformers model calls it.
        weight: W, (out, in), in the computing type.
        bias: (out,) in the same type, or None.
    """

    name: str
    weight: Tensor
    bias: Tensor | None


def state_type(compute: torch.dtype) -> torch.dtype:
    """Type of parameters and states for a computing type."""
    return torch.float64 if compute == torch.float64 else torch.float32


class Adapter:
    """One adapter with its head, gradients and random numbers.

    Args:
        sites: the layers, in the model's order.
        rank: r.
        scale: s, alpha / r.
        dropout: probability.
        seed: of its start and its dropout.
        head: (classes, H) of the classification head, or None.
        compute: the computing type.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        rank: int,
        scale: float,
        dropout: float,
        seed: int,
        head: tuple[int, int] | None,
        compute: torch.dtype,
    ) -> None:
        self.rank, self.scale, self.dropout = rank, scale, dropout
        # B is kept as its transpose (r, out): rows in a row make the products with it faster.
        shapes = [(rank, width) for site in sites for width in reversed(site.weight.shape)]
        if head is not None:
            shapes += [head, (head[0],)]
        kind, n = state_type(compute), len(sites)
        total = sum(math.prod(shape) for shape in shapes)
        self.flat = torch.zeros(total, dtype=kind)
        self.grad = torch.zeros(total, dtype=kind)
        values, grads = _views(self.flat, shapes), _views(self.grad, shapes)
        self.a, self.b = values[0 : 2 * n : 2], values[1 : 2 * n : 2]
        self.grad_a, self.grad_b = grads[0 : 2 * n : 2], grads[1 : 2 * n : 2]
        self.head, self.grad_head = tuple(values[2 * n :]), tuple(grads[2 * n :])
        # A copy in the computing type, where large products may occur.
        self._copy = torch.zeros(total, dtype=compute) if compute != kind and rank >= 16 else None
        copies = values if self._copy is None else _views(self._copy, shapes)
        self.a_copy, self.b_copy = copies[0 : 2 * n : 2], copies[1 : 2 * n : 2]
        self._start(seed)
        self._seed = seed
        self.draw_masks_from(0)
        self.refresh()

    def _start(self, seed: int) -> None:
        """A uniform in +-1/sqrt(in) (Kaiming with a = sqrt(5), PEFT's), B = 0, head normal(0, 0.02), its bias 0."""
        generator = torch.Generator().manual_seed(derive(seed, "adapter"))
        for a in self.a:
            # Drawn in float32 whatever the type kept, so that a check in float64 starts from the same numbers.
            bound = a.shape[1] ** -0.5
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
        if self.head:
            self.head[0].copy_(torch.empty(self.head[0].shape).normal_(0.0, 0.02, generator=generator))

    def draw_masks_from(self, step: int) -> None:
        """Let dropout's random numbers be those of a run that begins with a step of a longer training."""
        self._random = np.random.Generator(np.random.SFC64(derive(self._seed, "dropout", step)))

    def refresh(self) -> None:
        """Bring the copy in the computing type up to date after the parameters have changed."""
        if self._copy is not None:
            self._copy.copy_(self.flat)

    def is_large(self, rows: int) -> bool:
        """Whether products with so many rows are made in the computing type."""
        return self._copy is not None and self.rank * rows >= _LARGE

    def fill_mask(self, place: np.ndarray) -> None:
        """Fill a (rows, in) mask: 0 with probability ``dropout``, else 1 / (1 - dropout).

        The numbers come from the adapter's own generator: its neighbours do not change them.
        """
        if self.dropout == 0.0:
            place.fill(1.0)
            return
        drawn = self._random.integers(0, 1 << 64, dtype=np.uint64, size=-(-place.size // 4)).view(np.uint16)
        kept = (drawn[: place.size] >= round(self.dropout * _WORDS)).reshape(place.shape)
        np.multiply(kept, place.dtype.type(1.0 / (1.0 - self.dropout)), out=place)


def _views(whole: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Pieces of a flat vector in their shapes."""
    parts = whole.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one adapter among those of a step."""

    start: int
    stop: int
    adapter: Adapter

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


class Bank:
    """The adapters of one step, as the model meets them.

    Args:
        sites: the frozen layers.
        slices: contiguous and in order, together all rows.
        training: whether dropout works and gradients are wanted.
    """

    def __init__(self, sites: Sequence[Site], slices: Sequence[Slice], training: bool) -> None:
        self.sites, self.slices, self.training = sites, slices, training
        self.drops = training and any(part.adapter.dropout > 0.0 for part in slices)

    def linear(self, number: int, x: Tensor) -> Tensor:
        """Layer ``number`` of the sites: (R, in) -> (R, out)."""
        return _Adapted.apply(x, self, number)

    def mask(self, like: Tensor) -> Tensor | None:
        """Dropout's mask for the input of one layer, (R, in); None where nobody drops."""
        if not self.drops:
            return None
        mask = np.empty(tuple(like.shape), dtype=np.float64 if like.dtype == torch.float64 else np.float32)
        for part in self.slices:
            part.adapter.fill_mask(mask[part.rows])
        return torch.from_numpy(mask)


class _Adapted(torch.autograd.Function):
    """A frozen linear layer with the adapters of its rows; gradients go to the adapters' own vectors.

    One function for all adapters and not one graph node for each of their products: with dozens of adapters on
    hundreds of layers the bookkeeping would cost more than the products.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bank: Bank, number: int) -> Tensor:
        site = bank.sites[number]
        compute = site.weight.dtype
        y = nn.functional.linear(x.to(compute), site.weight, site.bias).to(x.dtype)  # (R, out)
        mask = bank.mask(x)
        dropped = x if mask is None else x * mask  # (R, in)
        smalls = []
        for part in bank.slices:
            adapter, rows = part.adapter, part.rows
            if adapter.is_large(part.stop - part.start):
                small = dropped[rows].to(compute).mm(adapter.a_copy[number].t()).mul_(adapter.scale)  # (R_j, r)
                y[rows].add_(small.mm(adapter.b_copy[number]))
            else:
                small = dropped[rows].mm(adapter.a[number].t()).mul_(adapter.scale)
                y[rows].addmm_(small, adapter.b[number])
            smalls.append(small)
        if bank.training:
            ctx.save_for_backward(x)
            ctx.bank, ctx.number, ctx.mask, ctx.smalls = bank, number, mask, smalls
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        number, mask = ctx.number, ctx.mask
        weight = ctx.bank.sites[number].weight
        compute = weight.dtype
        dy = dy.contiguous()
        dx = dy.to(compute).mm(weight).to(x.dtype)  # (R, in)
        dropped = x if mask is None else x * mask
        # With dropout the adapters' part is collected first, since the mask is multiplied to it alone.
        own = dx if mask is None else torch.zeros_like(dx)
        for part, small in zip(ctx.bank.slices, ctx.smalls, strict=True):
            adapter, rows = part.adapter, part.rows
            d = dy[rows]  # (R_j, out)
            if adapter.is_large(part.stop - part.start):
                d = d.to(compute)
                adapter.grad_b[number].add_(small.t().mm(d))  # (r, out); small holds s already
                back = d.mm(adapter.b_copy[number].t()).mul_(adapter.scale)  # (R_j, r)
                adapter.grad_a[number].add_(back.t().mm(dropped[rows].to(compute)))
                own[rows].add_(back.mm(adapter.a_copy[number]))
            else:
                adapter.grad_b[number].addmm_(small.t(), d)
                back = d.mm(adapter.b[number].t()).mul_(adapter.scale)
                adapter.grad_a[number].addmm_(back.t(), dropped[rows])
                own[rows].addmm_(back, adapter.a[number])
        if mask is not None:
            dx.addcmul_(own, mask)
        ctx.smalls = ctx.mask = None
        return dx, None, None
