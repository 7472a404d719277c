"""Negative log-likelihood of the target tokens, with logits for these alone.

Shapes: B examples, T tokens (T' in the decoder), H hidden size, V vocabulary, K target tokens in the batch.

The output layer is the most expensive product of a small model (V of some ten thousands), and a prompt's tokens do not
count in the loss. A hook on that layer passes on the hidden states of target positions only, so that whatever the
model does with logits afterwards (scaling, capping) still happens, in any architecture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.train.model import Trainee

_IGNORED = -100


def token_losses(trainee: Trainee, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Losses of all target tokens of a batch.

    Args:
        trainee: the model.
        batch: ``input_ids``, ``attention_mask`` and ``labels`` of a collator, int64 (B, T), on the model's device.

    Returns:
        losses in nats, float32 (K,), and the row of the batch that each belongs to, int64 (K,).
    """
    labels = batch["labels"]  # (B, T)
    inputs: dict[str, Any] = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if trainee.is_seq2seq:
        # Position t of the decoder reads label t-1 and predicts label t.
        inputs["decoder_input_ids"] = trainee.base.prepare_decoder_input_ids_from_labels(labels)  # (B, T')
        wanted = labels != _IGNORED  # (B, T')
        targets = labels[wanted]  # (K,)
    else:
        # Position t predicts token t+1; the last one predicts nothing.
        wanted = torch.zeros_like(labels, dtype=torch.bool)  # (B, T)
        wanted[:, :-1] = labels[:, 1:] != _IGNORED
        targets = labels[:, 1:][wanted[:, :-1]]  # (K,)
    with trainee.precision():
        with _only(trainee.base.get_output_embeddings(), wanted):
            logits = trainee.base(**inputs, use_cache=False).logits  # (1, K, V); (B, T, V) without the hook
        chosen = logits[wanted] if logits.shape[:2] == wanted.shape else logits[0]  # (K, V)
    losses = nn.functional.cross_entropy(chosen.float(), targets, reduction="none")  # (K,)
    return losses, wanted.nonzero()[:, 0]


@contextlib.contextmanager
def contiguous_head(head: nn.Module | None) -> Iterator[None]:
    """While this is entered, ``head`` gets its input as one block of memory.

    Generation passes on a slice, the last position of each row. For such an input torch's linear layer falls back to
    a batched product and copies the weights once for each row: gigabytes and seconds for a large vocabulary.
    """
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, arguments: (arguments[0].contiguous(), *arguments[1:]))
    try:
        yield
    finally:
        hook.remove()


@contextlib.contextmanager
def _only(head: nn.Module | None, wanted: Tensor) -> Iterator[None]:
    """While this is entered, ``head`` sees the hidden states at ``wanted`` (B, T) alone: (B, T, H) -> (1, K, H)."""

    def select(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not arguments or arguments[0].shape[:2] != wanted.shape:
            return None  # another use of the layer: leave it alone
        return (arguments[0][wanted].unsqueeze(0), *arguments[1:])

    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
