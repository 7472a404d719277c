"""One run alone, by PEFT and the transformers library, padded and step by step: what the builder is checked against.

Nothing but the start of the adapter, the order of the data and the schedule is shared with :mod:`batched`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import peft
import torch
from torch import Tensor, nn

from benchmarks.lora_runs.adapters import Adapter
from benchmarks.lora_runs.batched import MAX_GRAD_NORM, Item, Plan
from benchmarks.lora_runs.models import PackedBert, PackedLlama
from rankwise.data import batches
from rankwise.train.schedule import rate_factor
from rankwise.train.seeds import derive


def train_alone(
    base: Any, packed: PackedBert | PackedLlama, plan: Plan, items: Sequence[Item], classes: int, epochs: int = 1
) -> list[float]:
    """Losses of all batches of one run, without dropout.

    Args:
        base: the transformers model (``AutoModel`` or ``AutoModelForCausalLM``); gets the adapter and is changed.
        packed: the same model as the builder has it: gives the adapter's start and the layers' names.
        plan: options; ``dropout`` must be 0, since the builder draws its masks elsewhere.
        items: training examples.
        classes: number of classes; 0 for decoders.
        epochs: passes over the examples.
    """
    model, parameters, head = _start(base, packed, plan, classes)
    optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=0.0)
    lengths = [len(item.ids) for item in items]
    order = [b for e in range(epochs) for b in batches(lengths, plan.batch_size, derive(plan.seed, "order"), e)]
    found = []
    for step, batch in enumerate(order):
        loss = _loss(model, head, [items[i] for i in batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.param_groups[0]["lr"] = plan.learning_rate * rate_factor("linear", step, len(order), 0.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def _start(
    base: Any, packed: PackedBert | PackedLlama, plan: Plan, classes: int
) -> tuple[Any, list[nn.Parameter], nn.Linear | None]:
    """The model with PEFT's adapter on it, at the start that the builder gives the run; what is trained; the head."""
    start = Adapter(
        packed.sites,
        plan.rank,
        plan.scale,
        plan.dropout,
        plan.seed,
        (classes, packed.width) if classes else None,
        base.dtype,
    )
    names = [site.name for site in packed.sites]
    options = peft.LoraConfig(
        r=plan.rank, lora_alpha=plan.scale * plan.rank, lora_dropout=plan.dropout, target_modules=names
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers for a property by its old name
        model = peft.get_peft_model(base, options)
    for name, a in zip(names, start.a, strict=True):
        layer = model.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data.copy_(a)
    model.eval()  # no dropout of the base's own, as in the builder
    parameters = [value for value in model.parameters() if value.requires_grad]
    if not classes:
        return model, parameters, None
    head = nn.Linear(packed.width, classes, dtype=base.dtype)
    head.weight.data.copy_(start.head[0])
    head.bias.data.copy_(start.head[1])
    return model, [*parameters, *head.parameters()], head


def _loss(model: Any, head: nn.Linear | None, items: Sequence[Item]) -> Tensor:
    """Mean loss of a batch: an example (with a head) or a target token."""
    longest = max(len(item.ids) for item in items)
    ids = torch.tensor([[*item.ids, *[0] * (longest - len(item.ids))] for item in items])  # (B, T)
    mask = torch.tensor([[1] * len(item.ids) + [0] * (longest - len(item.ids)) for item in items])
    if head is not None:
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, H)
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return nn.functional.cross_entropy(head(pooled), torch.tensor([item.label for item in items]))
    labels = ids.clone()
    for row, item in enumerate(items):
        labels[row, : len(item.ids) - item.targets] = -100
        labels[row, len(item.ids) :] = -100
    logits = model(input_ids=ids, attention_mask=mask).logits  # (B, T, V)
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
