"""Batches without padding, and the few operations that need whole sequences.

Shapes: N sequences, T tokens of the longest (rounded up), R tokens of all together (no padding), H hidden size, h heads
of size d.

The linear layers hold nearly all the work of a transformer and see each token alone; so the tokens of all sequences
are laid end to end, (R, H), and padded for attention only. Short texts of unequal length then cost what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each token stands.

    Attributes:
        ids: token ids, int64 (R,).
        positions: place of each token in its sequence, int64 (R,).
        slots: place of each token among (N, T) padded ones, int64 (R,).
        rows: number of each token's sequence, int64 (R,).
        lengths: tokens of each sequence, int64 (N,).
        longest: T, a multiple of 4.
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    rows: Tensor
    lengths: Tensor
    longest: int

    @property
    def count(self) -> int:
        return len(self.lengths)

    def padding(self, dtype: torch.dtype) -> Tensor:
        """0 where a key may be read, the lowest number where it is padding: (N, 1, 1, T)."""
        inside = torch.arange(self.longest)[None, :] < self.lengths[:, None]  # (N, T)
        return torch.zeros(inside.shape, dtype=dtype).masked_fill_(~inside, torch.finfo(dtype).min)[:, None, None, :]

    def causal(self, dtype: torch.dtype) -> Tensor:
        """0 where key <= query: (1, 1, T, T). Sequences begin at 0, so this covers padding behind them as well."""
        ahead = torch.ones(self.longest, self.longest, dtype=torch.bool).triu(1)
        return torch.zeros(ahead.shape, dtype=dtype).masked_fill_(ahead, torch.finfo(dtype).min)[None, None]


def pack(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay sequences end to end.

    Raises:
        ValueError: there is none, or one is empty.
    """
    if not sequences or not all(sequences):
        raise ValueError("needs at least one sequence, and none that is empty")
    lengths = torch.tensor([len(ids) for ids in sequences])
    longest = -(-int(lengths.max()) // 4) * 4  # few different shapes: see batched.py
    rows = torch.repeat_interleave(torch.arange(len(sequences)), lengths)  # (R,)
    starts = torch.cumsum(lengths, 0) - lengths
    positions = torch.arange(int(lengths.sum())) - starts[rows]
    ids = torch.tensor([token for sequence in sequences for token in sequence])
    return Layout(ids, positions, rows * longest + positions, rows, lengths, longest)


class _Pad(torch.autograd.Function):
    """(R, H) -> (N * T, H), zeros between. A plain gather backwards, where torch's own would add with care."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor, places: int) -> Tensor:
        ctx.save_for_backward(slots)
        return tokens.new_zeros(places, tokens.shape[1]).index_copy_(0, slots, tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slots,) = ctx.saved_tensors
        return grad.index_select(0, slots), None, None


class _Unpad(torch.autograd.Function):
    """(N * T, H) -> (R, H)."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.places = len(padded)
        return padded.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slots,) = ctx.saved_tensors
        return grad.new_zeros(ctx.places, grad.shape[1]).index_copy_(0, slots, grad), None


def attend(query: Tensor, key: Tensor, value: Tensor, layout: Layout, size: int, mask: Tensor) -> Tensor:
    """Softmax attention within each sequence.

    Args:
        query: (R, h * d).
        key: (R, g * d); each of the g heads serves h / g heads of the query.
        value: (R, g * d).
        layout: where the tokens stand.
        size: d.
        mask: added to the scores, broadcast to (N, h, T, T).

    Returns:
        (R, h * d).
    """
    n, t = layout.count, layout.longest

    def heads(tokens: Tensor) -> Tensor:
        padded = _Pad.apply(tokens, layout.slots, n * t)
        return padded.view(n, t, -1, size).transpose(1, 2)  # (N, heads, T, d)

    q, k, v = heads(query), heads(key), heads(value)
    if k.shape[1] != q.shape[1]:
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    scores = torch.matmul(q, k.transpose(2, 3)) * size**-0.5 + mask  # (N, h, T, T)
    mixed = torch.matmul(torch.softmax(scores, -1), v)  # (N, h, T, d)
    return _Unpad.apply(mixed.transpose(1, 2).reshape(n * t, -1), layout.slots)


class _RootMeanSquare(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; weight is frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        inverse = x.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()  # (R, 1)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        unit = x * inverse  # (R, H)
        scaled = grad * weight
        along = (scaled * unit).mean(-1, keepdim=True)  # (R, 1)
        return scaled.sub_(unit.mul_(along)).mul_(inverse), None, None


def root_mean_square(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMSNorm of (R, H)."""
    return _RootMeanSquare.apply(x, weight, epsilon)


def rotate(tokens: Tensor, cosine: Tensor, sine: Tensor, size: int) -> Tensor:
    """Rotary position embedding.

    Args:
        tokens: (R, h * d).
        cosine: of each token's position, (R, 1, d).
        sine: the same.
        size: d.
    """
    heads = tokens.view(len(tokens), -1, size)  # (R, h, d)
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (heads * cosine + turned * sine).view(tokens.shape)


def mean_of_sequences(tokens: Tensor, layout: Layout) -> Tensor:
    """Mean over the tokens of each sequence: (R, H) -> (N, H)."""
    padded = _Pad.apply(tokens, layout.slots, layout.count * layout.longest)
    sums = padded.view(layout.count, layout.longest, -1).sum(1)  # (N, H)
    return sums / layout.lengths[:, None].to(sums.dtype)


def gelu(x: Tensor) -> Tensor:
    """The exact one, as BERT has it."""
    return nn.functional.gelu(x)
