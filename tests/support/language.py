"""Small language models, randomly initialised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    Gemma3TextModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5Model,
)

CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
KINDS = ("bert", "llama", "gpt2", "mistral", "gemma-bidirectional", "t5")
CAUSAL = ("llama", "gpt2", "mistral")


def character_tokenizer(max_length: int, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """One token for each character."""
    words = ["<pad>", "<unk>", "<eos>", *CHARACTERS]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        model_max_length=max_length,
        padding_side=padding_side,
    )


def random_model(kind: str) -> Any:
    """A model of the architecture with random weights from a fixed seed: 2 layers of width 32."""
    size = {"vocab_size": len(CHARACTERS) + 3, "initializer_range": 0.2}
    common = size | {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
    }
    grouped = common | {"num_key_value_heads": 2, "head_dim": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        match kind:
            case "bert":
                return BertModel(BertConfig(**common))
            case "llama":
                return LlamaModel(LlamaConfig(**grouped))
            case "mistral":
                return MistralModel(MistralConfig(**grouped, sliding_window=16))
            case "gemma-bidirectional":
                return Gemma3TextModel(Gemma3TextConfig(**grouped, use_bidirectional_attention=True))
            case "gpt2":
                return GPT2Model(GPT2Config(**size, n_embd=32, n_layer=2, n_head=4, n_positions=256))
            case "t5":
                config = T5Config(vocab_size=size["vocab_size"], d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
                return T5Model(config)
    raise ValueError(kind)


def save_random_model(folder: Path, kind: str, padding_side: str = "right") -> Path:
    """A transformers folder with a random model and the character tokenizer."""
    random_model(kind).save_pretrained(folder)
    character_tokenizer(256, padding_side).save_pretrained(folder)
    return folder
