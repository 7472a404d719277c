"""Tiny randomly initialised models with a real tokenizer, saved as folders: for behaviour, never for quality."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from support.small_tokenizers import small_tokenizer

WORDS = ["a", "long", "description", "of", "short", "text", "package", "to", "be", "or", "not", "summary"]


def tiny_llama(folder: Path, *, layers: int = 2, hidden: int = 32) -> Path:
    """A Llama of some ten thousand random parameters with its tokenizer."""
    tokenizer = small_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path, *, layers: int = 2) -> Path:
    """A T5 of some ten thousand random parameters with its tokenizer."""
    tokenizer = small_tokenizer(closing=True)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=layers,
            num_heads=4,
            decoder_start_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_examples(path: Path, count: int = 60) -> Path:
    """A JSONL file: the target is the source's first two words, so that there is something to learn."""
    lines = []
    for i in range(count):
        words = [WORDS[(i * 7 + 3 * j) % len(WORDS)] for j in range(3 + i % 5)]
        lines.append(json.dumps({"source": " ".join(words), "target": " ".join(words[:2])}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
