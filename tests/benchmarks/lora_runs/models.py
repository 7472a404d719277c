"""BERT and Llama over batches without padding, with the linear layers left to the adapters.

Only what MiniLM and SmolLM2 need; the tests hold both against the transformers library's own models. The base model's
own dropout is off, so that the parameter ``dropout`` is all the dropout there is.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.lora_runs.adapters import Bank, Site, state_type
from benchmarks.lora_runs.packed import Layout, attend, gelu, mean_of_sequences, root_mean_square, rotate

transformers: Any = importlib.import_module("transformers")


class PackedModel(Protocol):
    """A frozen model."""

    sites: list[Site]
    compute: torch.dtype
    width: int

    def hidden(self, layout: Layout, bank: Bank) -> Tensor:
        """Last hidden states, (R, H)."""
        ...


class _Weights:
    """A state dict: linear layers in the computing type, all else in the type of states."""

    def __init__(self, model: Any, compute: torch.dtype) -> None:
        self._state = model.state_dict()
        self._compute, self._kind = compute, state_type(compute)

    def __getitem__(self, name: str) -> Tensor:
        return self._state[name].detach().to(self._kind).contiguous()

    def product(self, name: str) -> Tensor:
        return self._state[name].detach().to(self._compute).contiguous()

    def site(self, name: str) -> Site:
        bias = f"{name}.bias"
        return Site(name, self.product(f"{name}.weight"), self.product(bias) if bias in self._state else None)


class PackedBert:
    """A ``BertModel``; :meth:`pooled` is the mean over a text's tokens."""

    PER_LAYER = (
        *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        *("intermediate.dense", "output.dense"),
    )

    def __init__(self, model: Any, compute: torch.dtype) -> None:
        config, weights = model.config, _Weights(model, compute)
        if config.hidden_act != "gelu":
            raise ValueError(f"hidden_act is {config.hidden_act!r}, expected 'gelu'")
        self.compute, self.width = compute, int(config.hidden_size)
        self._size = self.width // config.num_attention_heads
        self._epsilon = float(config.layer_norm_eps)
        self._layers = int(config.num_hidden_layers)
        self._words = weights["embeddings.word_embeddings.weight"]
        self._places = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        norms = ["embeddings.LayerNorm"]
        for i in range(self._layers):
            norms += [f"encoder.layer.{i}.attention.output.LayerNorm", f"encoder.layer.{i}.output.LayerNorm"]
        self._norms = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in norms]
        self.sites = [weights.site(f"encoder.layer.{i}.{name}") for i in range(self._layers) for name in self.PER_LAYER]

    def _norm(self, number: int, x: Tensor) -> Tensor:
        weight, bias = self._norms[number]
        return nn.functional.layer_norm(x, (self.width,), weight, bias, self._epsilon)

    def hidden(self, layout: Layout, bank: Bank) -> Tensor:
        x = self._norm(0, self._words[layout.ids] + self._places[layout.positions])  # (R, H)
        if bank.training:
            x.requires_grad_()  # else autograd would not visit the first layers' adapters
        mask = layout.padding(x.dtype)
        for i in range(self._layers):
            at = len(self.PER_LAYER) * i
            q, k, v = (bank.linear(at + j, x) for j in range(3))
            mixed = attend(q, k, v, layout, self._size, mask)
            x = self._norm(2 * i + 1, bank.linear(at + 3, mixed) + x)
            x = self._norm(2 * i + 2, bank.linear(at + 5, gelu(bank.linear(at + 4, x))) + x)
        return x

    def pooled(self, layout: Layout, bank: Bank) -> Tensor:
        """Mean hidden state of each text, (N, H)."""
        return mean_of_sequences(self.hidden(layout, bank), layout)


class PackedLlama:
    """A ``LlamaForCausalLM`` up to its last norm; :attr:`vocabulary` makes logits of it."""

    PER_LAYER = (
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    )

    def __init__(self, model: Any, compute: torch.dtype) -> None:
        config, weights = model.config, _Weights(model, compute)
        if config.hidden_act != "silu":
            raise ValueError(f"hidden_act is {config.hidden_act!r}, expected 'silu'")
        self.compute, self.width = compute, int(config.hidden_size)
        self._size = int(getattr(config, "head_dim", None) or self.width // config.num_attention_heads)
        self._epsilon = float(config.rms_norm_eps)
        self._layers = int(config.num_hidden_layers)
        self._words = weights["model.embed_tokens.weight"]
        self.vocabulary = weights.product("lm_head.weight")  # (V, H)
        norms = []
        for i in range(self._layers):
            norms += [f"model.layers.{i}.input_layernorm", f"model.layers.{i}.post_attention_layernorm"]
        self._norms = [weights[f"{name}.weight"] for name in (*norms, "model.norm")]
        self.sites = [weights.site(f"model.layers.{i}.{name}") for i in range(self._layers) for name in self.PER_LAYER]
        self._rotary = model.model.rotary_emb

    def hidden(self, layout: Layout, bank: Bank) -> Tensor:
        x = self._words[layout.ids]  # (R, H)
        if bank.training:
            x.requires_grad_()
        cosine, sine = (part[0][:, None, :] for part in self._rotary(x[None], layout.positions[None]))  # (R, 1, d)
        mask = layout.causal(x.dtype)
        for i in range(self._layers):
            at = len(self.PER_LAYER) * i
            normed = root_mean_square(x, self._norms[2 * i], self._epsilon)
            q, k, v = (bank.linear(at + j, normed) for j in range(3))
            q, k = (rotate(tokens, cosine, sine, self._size) for tokens in (q, k))
            x = x + bank.linear(at + 3, attend(q, k, v, layout, self._size, mask))
            normed = root_mean_square(x, self._norms[2 * i + 1], self._epsilon)
            gated = nn.functional.silu(bank.linear(at + 4, normed)) * bank.linear(at + 5, normed)
            x = x + bank.linear(at + 6, gated)
        return root_mean_square(x, self._norms[-1], self._epsilon)


def pack_model(model: Any, compute: torch.dtype) -> PackedBert | PackedLlama:
    """Take over the weights of a transformers model, the linear layers in the type that they compute in.

    Raises:
        ValueError: an architecture that is not written out here.
    """
    kinds = {"bert": PackedBert, "llama": PackedLlama}
    if model.config.model_type not in kinds:
        raise ValueError(f"model type {model.config.model_type!r}, expected one of {', '.join(kinds)}")
    return kinds[model.config.model_type](model, compute)


def target_modules(model: PackedBert | PackedLlama) -> Sequence[str]:
    """The sites' names, as PEFT's ``target_modules`` takes them."""
    return [site.name for site in model.sites]
