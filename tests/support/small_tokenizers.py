"""Small real tokenizers (byte-level BPE, trained on a few words in milliseconds)."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_WORDS = ["a long description of a package", "Summary: a short text", "grün, λ und 試験", "to be or not to be 0123"]


def small_tokenizer(
    *, bos: bool = False, closing: bool = False, eos: bool = True, pad: bool = True
) -> PreTrainedTokenizerFast:
    """A tokenizer.

    Args:
        bos: puts ``<s>`` before a text, as Llama's does.
        closing: puts ``</s>`` after a text, as T5's does.
        eos: has an end token.
        pad: has a token for padding of its own.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_WORDS, trainer)
    if bos or closing:
        form = [*(["<s>"] if bos else []), "$A", *(["</s>"] if closing else [])]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(form), special_tokens=[(name, tokenizer.token_to_id(name)) for name in special]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>" if eos else None,
        pad_token="<pad>" if pad else None,
    )
