"""Examples to tokens and tokens to padded batches.

Shapes: B examples in a batch, T tokens of the longest one (dynamic padding).

The prompt and the target are tokenized apart and joined as token ids, so that a batch for training and one for
generation hold exactly the same prompt. A blank at the end of the template moves to the front of the target: byte-pair
vocabularies keep a blank with the word that follows it, and a model has hardly seen a prompt that ends with one.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rankwise.data.load import Example
from rankwise.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that does not count in the loss (``ignore_index`` of ``torch.nn.functional.cross_entropy``)."""

CAUSAL_TEMPLATE = "{source}\nSummary: "
SEQ2SEQ_TEMPLATE = "{source}"
_FIELD = "{source}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids.

    Attributes:
        input_ids: what the model reads: prompt and target for a causal model, the prompt for a seq2seq one.
        labels: what it is taught: as long as ``input_ids`` and -100 on the prompt for a causal model; the target
            for a seq2seq one.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens that decide over the cost of a batch, for :func:`batches`."""
        return max(len(self.input_ids), len(self.labels))

    @property
    def target_tokens(self) -> int:
        """Tokens that count in the loss."""
        return sum(label != IGNORED for label in self.labels)


class Collator(Protocol):
    """Turns examples into what a model is trained on and generates from."""

    def encode(self, example: Example) -> Encoded: ...
    def encode_all(self, examples: Sequence[Example]) -> list[Encoded]:
        """Many at once, much faster than one by one."""
        ...

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """A batch for training: ``input_ids``, ``attention_mask``, ``labels``, each int64 (B, T)."""
        ...

    def prompt(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """A batch for generation, without targets: ``input_ids`` and ``attention_mask``, each int64 (B, T)."""
        ...

    def decode(self, generated: Tensor, batch: dict[str, Tensor]) -> list[str]:
        """Texts of what ``generate`` returned for a batch of :meth:`prompt`: int64 (B, T') to B texts."""
        ...


class _Tokens:
    """What both collators share: template, limits and the tokenizer's special tokens."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str, max_source_tokens: int, max_target_tokens: int
    ) -> None:
        problems = [
            Problem(path, repr(value), "a whole number from 1")
            for path, value in (("max-source-tokens", max_source_tokens), ("max-target-tokens", max_target_tokens))
            if value < 1
        ]
        if template.count(_FIELD) != 1:
            problems.append(Problem("template", template, f"a text that holds {_FIELD} exactly once"))
        if tokenizer.eos_token_id is None:
            problems.append(Problem("model", str(tokenizer.name_or_path), "a tokenizer with an end-of-text token"))
        if problems:
            raise InvalidInput(problems)
        self.tokenizer = tokenizer
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        before, _, after = template.partition(_FIELD)
        self.blank = after[len(after.rstrip(" ")) :]
        self.before = tuple(self.tokenize([before])[0])
        self.after = tuple(self.tokenize([after.rstrip(" ")])[0])
        self.eos = int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else self.eos
        # What the tokenizer itself puts around a text, e.g. (bos,) for Llama, (eos,) at the end for T5.
        around = list(tokenizer("", verbose=False)["input_ids"])
        self.opening = tuple(around[:1]) if around and around[0] == tokenizer.bos_token_id else ()
        self.closing = tuple(around[-1:]) if around and around[-1] == self.eos else ()

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def prompts(self, examples: Sequence[Example]) -> list[tuple[int, ...]]:
        """Prompts without closing tokens; only the source is cut, the template's words always stay."""
        sources = self.tokenize([example.source for example in examples])
        return [(*self.opening, *self.before, *source[: self.max_source_tokens], *self.after) for source in sources]

    def targets(self, examples: Sequence[Example], blank: str) -> list[tuple[int, ...]]:
        """Targets with the end token; one that had to be cut has none, since it does not end there."""
        whole = [(*ids, self.eos) for ids in self.tokenize([blank + example.target for example in examples])]
        return [ids[: self.max_target_tokens] for ids in whole]


class _PairCollator(abc.ABC):
    """What both collators do alike with pairs of tokens and labels."""

    _tokens: _Tokens

    @abc.abstractmethod
    def encode_all(self, examples: Sequence[Example]) -> list[Encoded]: ...

    def encode(self, example: Example) -> Encoded:
        return self.encode_all([example])[0]

    def collate(self, encoded: Sequence[Encoded]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, int64 (B, T), and ``labels``, int64 (B, T'); all right-padded.

        T' is T for decoder-only models.
        """
        ids, mask = _pad([e.input_ids for e in encoded], self._tokens.pad)
        labels, _ = _pad([e.labels for e in encoded], IGNORED)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class CausalCollator(_PairCollator):
    """Batches for decoder-only models: ``template`` with the source, then the target, then the end token.

    Args:
        tokenizer: the model's tokenizer.
        template: the prompt; holds ``{source}`` exactly once.
        max_source_tokens: the source is cut to so many tokens; the template's own words come on top.
        max_target_tokens: the target with its end token is cut to so many tokens.

    Raises:
        InvalidInput: with every problem of the arguments.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str = CAUSAL_TEMPLATE,
        max_source_tokens: int = 256,
        max_target_tokens: int = 64,
    ) -> None:
        self._tokens = _Tokens(tokenizer, template, max_source_tokens, max_target_tokens)

    def encode_all(self, examples: Sequence[Example]) -> list[Encoded]:
        if not examples:
            return []
        prompts = self._tokens.prompts(examples)
        targets = self._tokens.targets(examples, self._tokens.blank)
        return [
            Encoded(prompt + target, (IGNORED,) * len(prompt) + target)
            for prompt, target in zip(prompts, targets, strict=True)
        ]

    def prompt(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Left-padded ``input_ids`` and ``attention_mask``, each int64 (B, T): generation goes on at the right end."""
        ids, mask = _pad(self._tokens.prompts(examples), self._tokens.pad, left=True)
        return {"input_ids": ids, "attention_mask": mask}

    def decode(self, generated: Tensor, batch: dict[str, Tensor]) -> list[str]:
        return _decode(self._tokens.tokenizer, generated[:, batch["input_ids"].shape[1] :])


class Seq2SeqCollator(_PairCollator):
    """Batches for encoder-decoder models: the encoder reads ``template`` with the source, the decoder the target.

    Args and errors are those of :class:`CausalCollator`. Decoder inputs are made by the model from ``labels``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str = SEQ2SEQ_TEMPLATE,
        max_source_tokens: int = 256,
        max_target_tokens: int = 64,
    ) -> None:
        self._tokens = _Tokens(tokenizer, template, max_source_tokens, max_target_tokens)

    def encode_all(self, examples: Sequence[Example]) -> list[Encoded]:
        if not examples:
            return []
        return [
            Encoded(prompt, target)
            for prompt, target in zip(self._prompts(examples), self._tokens.targets(examples, ""), strict=True)
        ]

    def prompt(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Right-padded ``input_ids`` and ``attention_mask`` of the encoder, each int64 (B, T)."""
        ids, mask = _pad(self._prompts(examples), self._tokens.pad)
        return {"input_ids": ids, "attention_mask": mask}

    def decode(self, generated: Tensor, batch: dict[str, Tensor]) -> list[str]:  # noqa: ARG002 - the Protocol's form
        return _decode(self._tokens.tokenizer, generated)

    def _prompts(self, examples: Sequence[Example]) -> list[tuple[int, ...]]:
        return [prompt + self._tokens.closing for prompt in self._tokens.prompts(examples)]


def _pad(rows: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of B lengths to a padded tensor and its mask, both int64 (B, T)."""
    import torch  # here: loading and splitting data do not need it, and it takes seconds

    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), filler, dtype=np.int64)  # (B, T)
    mask = np.zeros_like(padded)  # (B, T)
    for i, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        padded[i, place] = row
        mask[i, place] = 1
    return torch.from_numpy(padded), torch.from_numpy(mask)


def _decode(tokenizer: PreTrainedTokenizerBase, tokens: Tensor) -> list[str]:
    texts: list[str] = tokenizer.batch_decode(tokens.tolist(), skip_special_tokens=True)
    return [text.strip() for text in texts]


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int, *, bucket: int = 16) -> list[list[int]]:
    """Positions of each batch of one epoch: shuffled, with examples of like length together.

    Examples are shuffled, cut into groups of ``bucket`` batches, sorted by length within a group and cut into
    batches; then the batches are shuffled. Padding is saved while batches stay random. The result depends on the
    arguments alone, so a training that was interrupted at step k goes on with entry k.

    Args:
        lengths: tokens of each example, (n,).
        batch_size: examples in a batch; the last one made may have fewer.
        seed: seed of the training.
        epoch: number of the epoch, from 0; each has its own order.
        bucket: batches in a group; 1 turns sorting by length off.

    Raises:
        ValueError: an argument is out of range.
    """
    if batch_size < 1 or bucket < 1 or seed < 0 or epoch < 0:
        raise ValueError(f"out of range: batch_size={batch_size}, bucket={bucket}, seed={seed}, epoch={epoch}")
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    order: list[int] = generator.permutation(len(lengths)).tolist()
    made: list[list[int]] = []
    for start in range(0, len(order), batch_size * bucket):
        group = order[start : start + batch_size * bucket]
        if bucket > 1:
            group.sort(key=lambda position: lengths[position])  # stable: ties keep the random order
        made += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
    return [made[i] for i in generator.permutation(len(made)).tolist()]
