"""Measure a model on a set of examples: loss by teacher forcing, texts by greedy generation.

Batches are of fixed size and sorted by length, whatever the trial's batch size is, so that all trials of a search are
measured alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rankwise.artifacts import Sample
from rankwise.data import Encoded, Example
from rankwise.train.flags import GENERATED_METRICS
from rankwise.train.loss import contiguous_head, token_losses
from rankwise.train.metrics import Measured, text_metrics, token_mean
from rankwise.train.model import Trainee, transformers

_LOSS_BATCH = 32
_GENERATION_BATCH = 32

Check = Callable[[], None]
"""Called between batches; may raise."""


@dataclass(frozen=True, slots=True)
class Held:
    """A held-out set.

    Attributes:
        examples: all of them, for the loss.
        encoded: the same as tokens.
        sampled: positions of those that texts are generated for.
    """

    examples: tuple[Example, ...]
    encoded: tuple[Encoded, ...]
    sampled: tuple[int, ...]


def measure(
    trainee: Trainee, held: Held, names: Sequence[str], max_new_tokens: int, check: Check
) -> tuple[dict[str, Measured], list[Sample]]:
    """Measure the loss, and what else is asked for.

    Args:
        trainee: the model; its mode (training or not) is restored.
        held: the examples.
        names: metrics; those that are not of quality (cost) are left out.
        max_new_tokens: longest generated text.
        check: called between batches.

    Returns:
        metrics in the order of ``names``, and the generated texts (empty when none was needed).
    """
    wanted = [name for name in names if name in GENERATED_METRICS]
    was_training = trainee.peft.training
    trainee.peft.eval()
    try:
        found = {"loss": _loss(trainee, held.encoded, check)}
        samples: list[Sample] = []
        if wanted:
            chosen = [held.examples[i] for i in held.sampled]
            texts = generate(trainee, chosen, max_new_tokens, check)
            samples = [Sample(e.source, e.target, text) for e, text in zip(chosen, texts, strict=True)]
            found |= text_metrics(wanted, [e.target for e in chosen], texts)
    finally:
        trainee.peft.train(was_training)
    return {name: found[name] for name in names if name in found}, samples


def _by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions in batches of like length, the longest first: what does not fit into memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _loss(trainee: Trainee, encoded: Sequence[Encoded], check: Check) -> Measured:
    sums = [0.0] * len(encoded)
    with torch.inference_mode():
        for positions in _by_length([e.length for e in encoded], _LOSS_BATCH):
            check()
            batch = to_device(trainee, trainee.collator.collate([encoded[i] for i in positions]))
            losses, rows = token_losses(trainee, batch)  # (K,), (K,)
            # float64: the sum must not depend on how many tokens an example has been added to
            of_rows = torch.zeros(len(positions), dtype=torch.float64).index_add_(0, rows.cpu(), losses.double().cpu())
            for i, value in zip(positions, of_rows.tolist(), strict=True):
                sums[i] = value
    return token_mean(sums, [_counted(trainee, e) for e in encoded])


def _counted(trainee: Trainee, encoded: Encoded) -> int:
    """Labels that count in the loss; a causal model cannot predict its first token."""
    labels = encoded.labels if trainee.is_seq2seq else encoded.labels[1:]
    return sum(label != -100 for label in labels)


def generate(trainee: Trainee, examples: Sequence[Example], max_new_tokens: int, check: Check) -> list[str]:
    """Greedy continuations up to the end token or the first line end, in the order of ``examples``."""
    tokenizer = trainee.tokenizer
    ends = [tokenizer.eos_token_id]
    if not trainee.is_seq2seq:
        ends += _line_ends(tokenizer)
    settings = transformers.GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=getattr(trainee.base.config, "decoder_start_token_id", None),
    )
    texts = [""] * len(examples)
    lengths = [len(e.input_ids) for e in trainee.collator.encode_all(examples)]
    with torch.inference_mode(), trainee.precision(), contiguous_head(trainee.base.get_output_embeddings()):
        for positions in _by_length(lengths, _GENERATION_BATCH):
            check()
            batch = trainee.collator.prompt([examples[i] for i in positions])
            out = trainee.base.generate(**to_device(trainee, batch), generation_config=settings)  # (B, T + new)
            for i, text in zip(positions, trainee.collator.decode(out.cpu(), batch), strict=True):
                texts[i] = text.split("\n")[0].strip()
    return texts


def _line_ends(tokenizer: Any) -> list[int]:
    """Tokens that are nothing but line ends."""
    found = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("\n", "\n\n"))
    return [ids[0] for ids in found if len(ids) == 1 and ids[0] != tokenizer.unk_token_id]


def to_device(trainee: Trainee, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch where the model is."""
    return {name: value.to(trainee.device, non_blocking=True) for name, value in batch.items()}


def lead_baseline(held: Held, names: Sequence[str], words: int) -> dict[str, Measured]:
    """Text metrics of the first words of each source: what a summary costs nothing to reach."""
    chosen = [held.examples[i] for i in held.sampled]
    leads = [" ".join(e.source.split()[:words]) for e in chosen]
    return text_metrics([n for n in names if n in GENERATED_METRICS], [e.target for e in chosen], leads)
