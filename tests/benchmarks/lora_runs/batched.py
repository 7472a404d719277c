"""Train many LoRA adapters over one frozen model at once, each as ``rankwise train`` would train it alone.

Each run has its own rank, alpha, dropout, batch size, learning rate, seed and therefore order of the data. In one step
of the builder every run that is not finished puts in at most ``micro`` examples (its batch, or a part of it). Where a
batch is made of several parts, the gradient is gathered until it is whole; then the run's own AdamW makes a step. The
base model's products run over the rows of all runs together; a run that is finished or diverged leaves.

What is as in :mod:`rankwise.train`: AdamW without weight decay, linear fall of the rate without warm-up, gradients cut
at norm 1, every target token of a batch weighs the same, order of the data and its seed, bfloat16 weights and products
with a float32 adapter, :data:`diverged <Result.status>` as soon as a loss or gradient is not finite. What differs:
the start of A has the same distribution but comes from another stream of random numbers, and so does dropout; of
bfloat16 the products' rounding may differ in the last bit, since other shapes are multiplied; and classification
heads, which ``rankwise train`` has not, are trained in float32 at the adapter's rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmarks.lora_runs.adapters import Adapter, Bank, Slice
from benchmarks.lora_runs.models import PackedBert, PackedLlama
from benchmarks.lora_runs.packed import Layout, pack
from rankwise.data import batches
from rankwise.train.metrics import plain_mean, token_mean
from rankwise.train.schedule import rate_factor
from rankwise.train.seeds import derive

MAX_GRAD_NORM = 1.0
EVALUATION_ROWS = 4096
"""Tokens in one forward pass of an evaluation, about."""
_LOGIT_ROWS = 1024
"""Target tokens whose logits are in memory at once."""


@dataclass(frozen=True, slots=True)
class Item:
    """One example as tokens.

    Attributes:
        ids: what the model reads, at least one.
        label: the class (encoder); -1 for decoders.
        targets: so many of the last ids are targets (decoder, fewer than there are ids); 0 for encoders.
    """

    ids: tuple[int, ...]
    label: int = -1
    targets: int = 0

    @property
    def weight(self) -> int:
        """What it counts in a batch's mean: target tokens, or one class."""
        return self.targets or 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of one run; ``scale`` is alpha / rank."""

    rank: int
    scale: float
    dropout: float
    batch_size: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True)
class State:
    """Where a run ended, for another one to go on from.

    Attributes:
        flat: all parameters of the adapter and its head.
        first, second: AdamW's moments of them.
        steps: optimizer steps made so far, those that were inherited included.
    """

    flat: Tensor
    first: Tensor
    second: Tensor
    steps: int


@dataclass(slots=True)
class Result:
    """What came out of one run.

    Attributes:
        status: ``ok`` or ``diverged``.
        steps: optimizer steps made.
        losses: training loss of each batch, in nats (a target token or an example).
        measured: by set: loss, its standard error, and the accuracy (encoders); empty if diverged.
        seconds: processor seconds: the run's share of its group, by tokens and by parameters trained.
        state: where it ended; None if diverged.
    """

    status: str = "ok"
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    measured: dict[str, tuple[float, float | None, float | None]] = field(default_factory=dict)
    seconds: float = 0.0
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is and how its rate falls.

    Attributes:
        epochs: passes over the examples.
        steps: optimizer steps, in place of epochs.
        schedule: of :func:`rankwise.train.schedule.rate_factor`; begins anew in a run that goes on from another.
    """

    epochs: int = 1
    steps: int | None = None
    schedule: str = "linear"


class _Run:
    """A run in progress."""

    def __init__(
        self, plan: Plan, adapter: Adapter, items: Sequence[Item], length: Length, micro: int, start: State | None
    ) -> None:
        self.plan, self.adapter, self.items = plan, adapter, items
        self.result = Result()
        self.schedule = length.schedule
        self.begun = 0 if start is None else start.steps
        self.order = _order(plan, items, length, self.begun)
        self.micro = micro
        self.place = 0  # within the batch
        self.gathered = 0.0
        parameter = nn.Parameter(adapter.flat, requires_grad=False)
        parameter.grad = adapter.grad
        self.parameter = parameter
        self.optimizer = torch.optim.AdamW([parameter], lr=plan.learning_rate, weight_decay=0.0, fused=True)
        if start is not None:
            adapter.flat.copy_(start.flat)
            adapter.refresh()
            adapter.draw_masks_from(start.steps)
            moments = {"exp_avg": start.first.clone(), "exp_avg_sq": start.second.clone()}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(start.steps)), **moments}

    def state(self) -> State:
        """Where it is, copied."""
        moments = self.optimizer.state[self.parameter]
        steps = self.begun + self.result.steps
        return State(self.adapter.flat.clone(), moments["exp_avg"].clone(), moments["exp_avg_sq"].clone(), steps)

    @property
    def active(self) -> bool:
        return self.result.status == "ok" and self.result.steps < len(self.order)

    def part(self) -> list[Item]:
        batch = self.order[self.result.steps]
        return [self.items[i] for i in batch[self.place : self.place + self.micro]]

    def whole(self) -> int:
        """Weight of the whole batch."""
        return sum(self.items[i].weight for i in self.order[self.result.steps])

    def count(self, loss: float, examples: int) -> None:
        """Note the loss of a part; make a step if the batch is whole."""
        self.gathered += loss
        if not math.isfinite(loss):
            self.result.status = "diverged"
            return
        self.place += examples
        if self.place < len(self.order[self.result.steps]):
            return
        norm = torch.linalg.vector_norm(self.adapter.grad)
        if not math.isfinite(norm.item()):
            self.result.status = "diverged"
            return
        # As torch.nn.utils.clip_grad_norm_ does.
        self.adapter.grad.mul_(torch.clamp(MAX_GRAD_NORM / (norm + 1e-6), max=1.0))
        factor = rate_factor(self.schedule, self.result.steps, len(self.order), 0.0)
        self.optimizer.param_groups[0]["lr"] = self.plan.learning_rate * factor
        self.optimizer.step()
        self.adapter.grad.zero_()
        self.adapter.refresh()
        self.result.losses.append(self.gathered)
        self.result.steps += 1
        self.place, self.gathered = 0, 0.0


def _order(plan: Plan, items: Sequence[Item], length: Length, begun: int) -> list[list[int]]:
    """The batches of a run, from step ``begun`` of a training on."""
    lengths, seed = [len(item.ids) for item in items], derive(plan.seed, "order")
    each = math.ceil(len(items) / plan.batch_size)  # steps of an epoch
    stop = begun + (length.epochs * each if length.steps is None else length.steps)
    epochs = {epoch: batches(lengths, plan.batch_size, seed, epoch) for epoch in range(begun // each, -(-stop // each))}
    return [epochs[step // each][step % each] for step in range(begun, stop)]


def train(
    model: PackedBert | PackedLlama,
    plans: Sequence[Plan],
    items: Sequence[Item],
    held: dict[str, Sequence[Item]],
    *,
    classes: int = 0,
    epochs: int = 1,
    micro: int = 4,
    length: Length | None = None,
    starts: Sequence[State | None] = (),
) -> list[Result]:
    """Train and measure a group of runs.

    Args:
        model: the frozen model.
        plans: the runs.
        items: training examples, the same for all; each run has its own order.
        held: sets to measure on after training, by name.
        classes: number of classes; 0 for decoders.
        epochs: passes over ``items``.
        micro: examples of a run in one step of the builder, at most.
        length: in place of ``epochs``, with a schedule.
        starts: for each plan the run that it goes on from; empty: all begin anew.

    Returns:
        one result a plan, in their order.
    """
    began = time.process_time()
    head = (classes, model.width) if classes else None
    runs = [
        _Run(
            plan,
            Adapter(model.sites, plan.rank, plan.scale, plan.dropout, plan.seed, head, model.compute),
            items,
            length or Length(epochs),
            micro,
            start,
        )
        for plan, start in zip(plans, starts or [None] * len(plans), strict=True)
    ]
    while active := [run for run in runs if run.active]:
        parts = [run.part() for run in active]
        layout, filled, slices = _arrange(parts, [run.adapter for run in active])
        bank = Bank(model.sites, slices, training=True)
        losses = _losses(model, bank, layout, filled, [run.whole() for run in active])
        for run, part, loss in zip(active, parts, losses, strict=True):
            run.count(loss, len(part))
    alive = [run for run in runs if run.result.status == "ok"]
    for name, examples in held.items():
        found = _measure(model, [run.adapter for run in alive], examples)
        for run, measured in zip(alive, found, strict=True):
            run.result.measured[name] = measured
    for run in alive:
        if not all(math.isfinite(loss) for loss, _, _ in run.result.measured.values()):
            run.result.status = "diverged"
            run.result.measured = {}
        elif run.result.steps:
            run.result.state = run.state()
    _share(runs, time.process_time() - began)
    return [run.result for run in runs]


def _share(runs: Sequence[_Run], seconds: float) -> None:
    """Share the group's time. A run costs what its tokens cost, forward and backward: 4 products with the base's
    parameters and 6 with its own; which is not its time alone, but adds up to what was spent."""
    costs = [(run.result.steps + 1) / (len(run.order) + 1) * (1.0 + len(run.adapter.flat) / _BASE) for run in runs]
    for run, cost in zip(runs, costs, strict=True):
        run.result.seconds = seconds * cost / sum(costs)


_BASE = 2e7


def _arrange(
    parts: Sequence[Sequence[Item]], adapters: Sequence[Adapter]
) -> tuple[Layout, list[list[Item]], list[Slice]]:
    """The examples of all runs end to end, run by run, each run's followed by fillers that nothing reads.

    A matrix product of a shape that was not met before makes oneDNN generate code for it, which takes as long as ten
    small products. So rows come in few different numbers.
    """
    longest = max(len(item.ids) for part in parts for item in part)
    filled: list[list[Item]] = []
    slices, at = [], 0
    for part, adapter in zip(parts, adapters, strict=True):
        rows = sum(len(item.ids) for item in part)
        lacking = -rows % (16 if rows < 128 else 32 if rows < 512 else 64)
        fillers = [min(longest, lacking - done) for done in range(0, lacking, longest)]
        filled.append([*part, *(Item((0,) * length) for length in fillers)])
        slices.append(Slice(at, at + rows + lacking, adapter))
        at += rows + lacking
    return pack([item.ids for part in filled for item in part]), filled, slices


def _losses(
    model: PackedBert | PackedLlama,
    bank: Bank,
    layout: Layout,
    parts: Sequence[Sequence[Item]],
    wholes: Sequence[int],
) -> list[float]:
    """Each run's part of its batch's mean loss; adds the gradients to the adapters' own.

    What one run's numbers do, NaN included, stays in its rows: no product, norm or softmax mixes rows of two runs.
    """
    if isinstance(model, PackedBert):
        states = model.pooled(layout, bank)  # (N, H)
        counts = [len(part) for part in parts]
        chosen = states
    else:
        states = model.hidden(layout, bank)  # (R, H)
        where, wanted = _targets(layout, [item for part in parts for item in part])
        counts = [sum(item.targets for item in part) for part in parts]
        chosen = states.index_select(0, where)  # (K, H)
    values, rows = chosen.detach(), list(_cuts(counts))
    grad = torch.zeros_like(values)
    sums: list[float] = []
    if isinstance(model, PackedBert):
        for part, (start, _), adapter, whole in zip(parts, rows, bank.slices, wholes, strict=True):
            labels = torch.tensor([item.label for item in part if item.label >= 0])
            stop = start + len(labels)  # the fillers' rows come last and keep the gradient 0
            loss, grad[start:stop] = _head(adapter.adapter, values[start:stop], labels, 1.0 / whole)
            sums.append(float(loss.sum()) / whole)
    else:
        # All runs at once: each product with the vocabulary reads all of it, however few rows there are.
        weights = torch.repeat_interleave(1.0 / torch.tensor(wholes, dtype=values.dtype), torch.tensor(counts))
        losses = torch.empty_like(weights)  # (K,)
        for low in range(0, len(values), _LOGIT_ROWS):
            at = slice(low, low + _LOGIT_ROWS)
            losses[at], grad[at] = _vocabulary(model, values[at], wanted[at], weights[at])
        sums = [float(losses[start:stop].sum()) / whole for (start, stop), whole in zip(rows, wholes, strict=True)]
    chosen.backward(grad)
    return sums


def _cuts(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    at = 0
    for count in counts:
        yield at, at + count
        at += count


def _targets(layout: Layout, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Rows that predict a target token, and these tokens: both int64 (K,), in the order of the examples."""
    ends = torch.cumsum(layout.lengths, 0).tolist()[: len(items)]
    wanted = torch.cat([torch.arange(end - item.targets, end) for end, item in zip(ends, items, strict=True)])
    return wanted - 1, layout.ids[wanted]


def _head(adapter: Adapter, states: Tensor, labels: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Losses (n,) of the classes, and the gradient (n, H) of weight times their sum; adds the head's own gradient."""
    matrix, bias = adapter.head
    logits = torch.addmm(bias, states, matrix.t())  # (n, C)
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    back = torch.softmax(logits, -1)
    back[torch.arange(len(labels)), labels] -= 1.0
    back.mul_(weight)
    adapter.grad_head[0].add_(back.t().mm(states))
    adapter.grad_head[1].add_(back.sum(0))
    return losses, back.mm(matrix)


def _vocabulary(model: PackedLlama, states: Tensor, wanted: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Losses (k,) of target tokens, and the gradient (k, H) of their sum with the weights (k,)."""
    logits = states.to(model.compute).mm(model.vocabulary.t())  # (k, V)
    back = torch.log_softmax(logits.to(states.dtype), -1)
    at = torch.arange(len(wanted))
    losses = -back[at, wanted]
    back.exp_()
    back[at, wanted] -= 1.0
    return losses, back.mul_(weights[:, None]).to(model.compute).mm(model.vocabulary).to(states.dtype)


@torch.no_grad()
def _measure(
    model: PackedBert | PackedLlama, adapters: Sequence[Adapter], items: Sequence[Item]
) -> list[tuple[float, float | None, float | None]]:
    """Loss, its standard error and accuracy (encoders) of each adapter, without dropout."""
    sums = [[0.0] * len(items) for _ in adapters]
    right = [0] * len(adapters)
    order = sorted(range(len(items)), key=lambda i: -len(items[i].ids))  # like lengths together: less padding
    mean = sum(len(item.ids) for item in items) / len(items)
    size = max(1, int(EVALUATION_ROWS / mean))
    for number, adapter in enumerate(adapters):
        for start in range(0, len(order), size):
            at = order[start : start + size]
            part = [items[i] for i in at]
            layout, _, slices = _arrange([part], [adapter])
            bank = Bank(model.sites, slices, training=False)
            if isinstance(model, PackedBert):
                matrix, bias = adapter.head
                pooled = model.pooled(layout, bank)[: len(part)]  # (n, H), without the fillers
                logits = torch.addmm(bias, pooled, matrix.t())  # (n, C)
                labels = torch.tensor([item.label for item in part])
                losses = nn.functional.cross_entropy(logits.double(), labels, reduction="none").tolist()
                right[number] += int((logits.argmax(-1) == labels).sum())
            else:
                losses = _of_examples(model, model.hidden(layout, bank), layout, part)
            for i, loss in zip(at, losses, strict=True):
                sums[number][i] = loss
    found: list[tuple[float, float | None, float | None]] = []
    for number in range(len(adapters)):
        if isinstance(model, PackedBert):
            measured = plain_mean(sums[number])
            found.append((measured.value, measured.error, right[number] / len(items)))
        else:
            measured = token_mean(sums[number], [item.targets for item in items])
            found.append((measured.value, measured.error, None))
    return found


def _of_examples(model: PackedLlama, states: Tensor, layout: Layout, items: Sequence[Item]) -> list[float]:
    """Summed loss of each example's target tokens."""
    where, wanted = _targets(layout, items)
    losses = []
    for low in range(0, len(where), _LOGIT_ROWS):
        chosen = states.index_select(0, where[low : low + _LOGIT_ROWS])  # (k, H)
        logits = chosen.to(model.compute).mm(model.vocabulary.t()).to(states.dtype)  # (k, V)
        part = nn.functional.cross_entropy(logits, wanted[low : low + _LOGIT_ROWS], reduction="none")
        losses.append(part.double())
    rows = torch.repeat_interleave(torch.arange(len(items)), torch.tensor([item.targets for item in items]))
    return torch.zeros(len(items), dtype=torch.float64).index_add_(0, rows, torch.cat(losses)).tolist()
