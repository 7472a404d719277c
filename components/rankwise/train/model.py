"""The frozen pretrained model with a fresh LoRA adapter on it.

LoRA (Hu et al. 2022, arXiv:2106.09685): W x + (alpha / r) B A x, with A (r, in) and B (out, r); rsLoRA (Kalajdzievski
2023, arXiv:2312.03732) divides by sqrt(r); DoRA (Liu et al. 2024, arXiv:2402.09353) trains a magnitude as well; PiSSA
(Meng et al. 2024, arXiv:2404.02948) starts B A at the leading singular directions of W and freezes the rest of W.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rankwise.data import CausalCollator, Collator, Seq2SeqCollator
from rankwise.errors import InvalidInput, Problem
from rankwise.pretrained import ResolvedModel
from rankwise.train.config import TrainConfig
from rankwise.train.seeds import derive

# As Any: its modules do not say which names are public, and few of its functions have types.
transformers: Any = importlib.import_module("transformers")

_T5_TARGETS = ["q", "v"]
_SHOWN_NAMES = 30

_VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    # Four subspace iterations of a randomized SVD: as good as the exact one for this purpose, in seconds (PiSSA, §4).
    "pissa": {"init_lora_weights": "pissa_niter_4"},
}


@dataclass(slots=True)
class Trainee:
    """A model that is being trained.

    Attributes:
        peft: the model with its adapter, as PEFT wraps it.
        base: the transformers model within; its layers carry the adapter.
        tokenizer: the model's.
        collator: text to batches.
        device: where it runs.
        autocast: type of the matrix products when it is not the weights'; None: as they are.
        initial: for PiSSA the adapter's start (name -> tensor): what is learned is the difference to it.
    """

    peft: Any
    base: Any
    tokenizer: Any
    collator: Collator
    device: torch.device
    autocast: torch.dtype | None
    initial: dict[str, Tensor]

    @property
    def is_seq2seq(self) -> bool:
        return bool(self.base.config.is_encoder_decoder)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of the adapter, in a fixed order."""
        return {name: value for name, value in self.peft.named_parameters() if value.requires_grad}

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context that all computing happens in."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)


def choose_device(wanted: str) -> torch.device:
    """The device to run on.

    Raises:
        InvalidInput: ``cuda`` is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InvalidInput([Problem("--device", wanted, "auto or cpu: no CUDA device can be used here")])
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The type of the frozen weights and of matrix products; the adapter itself is always float32.

    ``auto`` is bfloat16 where the device multiplies it in hardware made for it: CUDA devices that say so, and x86
    CPUs with AMX tiles. Elsewhere bfloat16 on a CPU is emulated and far slower than float32. The rule asks for a
    feature and measures nothing, so that the same machine always gives the same answer.
    """
    if wanted == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
            fast = bool(tiles()) and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        wanted = "bf16" if fast else "fp32"
    return torch.bfloat16 if wanted == "bf16" else torch.float32


def build(config: TrainConfig, resolved: ResolvedModel, *, plain_start: bool = False) -> Trainee:
    """Load the model, put the adapter on it and make its collator.

    Args:
        config: the trial's options.
        resolved: where the weights are.
        plain_start: start PiSSA's adapter as plain LoRA, because :func:`restart_pissa` follows.

    Raises:
        InvalidInput: model and options do not fit; every mistake that can be seen at this point.
    """
    device = choose_device(config.device)
    dtype = choose_precision(config.precision, device)
    with _quiet():
        base = _load(config, resolved, "eager" if device.type == "cpu" and dtype != torch.float32 else None)
        tokenizer = transformers.AutoTokenizer.from_pretrained(resolved.path_or_id, trust_remote_code=False)
        collator = _collator(config, tokenizer)
        # PiSSA moves part of the weights into the adapter: rounding the rest to bfloat16 would change the model.
        base.to(device=device, dtype=torch.float32 if config.variant == "pissa" else dtype)
        peft = _with_adapter(config, base, plain_start=plain_start)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    peft.train()
    initial: dict[str, Tensor] = {}
    if config.variant == "pissa" and not plain_start:
        initial = {name: value.detach().clone() for name, value in peft.named_parameters() if value.requires_grad}
    return Trainee(peft, base, tokenizer, collator, device, None if dtype == torch.float32 else dtype, initial)


def restart_pissa(trainee: Trainee, initial: dict[str, Tensor]) -> None:
    """Take PiSSA's start from a checkpoint: subtract scale * B0 A0 from the frozen weights, as its first start did.

    The randomized SVD is not asked again: it need not give the same bits on another machine.
    """
    for name, layer in trainee.peft.named_modules():
        if not hasattr(layer, "lora_A") or "default" not in layer.lora_A:
            continue
        a = initial[f"{name}.lora_A.default.weight"].to(trainee.device)  # (r, in)
        b = initial[f"{name}.lora_B.default.weight"].to(trainee.device)  # (out, r)
        weight = layer.get_base_layer().weight  # (out, in)
        weight.data = (weight.data.float() - layer.scaling["default"] * b @ a).to(weight.dtype)
    trainee.initial = {name: value.to(trainee.device) for name, value in initial.items()}


def _load(config: TrainConfig, resolved: ResolvedModel, attention: str | None) -> Any:
    """The pretrained model in float32.

    Args:
        config: options.
        resolved: where the weights are.
        attention: implementation; None: the library's choice. On a CPU the fused kernel's backward pass in bfloat16
            takes four times as long as in float32, longer than plain matrix products do.
    """
    try:
        shape = transformers.AutoConfig.from_pretrained(resolved.path_or_id, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput([Problem("--model", config.model, f"a model that transformers knows ({error})")]) from error
    problems = []
    if bool(getattr(shape, "is_encoder_decoder", False)) != (config.task == "seq2seq"):
        right = "causal" if config.task == "seq2seq" else "seq2seq"
        problems.append(Problem("--task", config.task, f"{right}: that is what this model ({shape.model_type}) is"))
    if config.num_layers is not None:
        problems += _cut(shape, config.num_layers)
    if problems:
        raise InvalidInput(problems)
    kind = transformers.AutoModelForSeq2SeqLM if config.task == "seq2seq" else transformers.AutoModelForCausalLM
    try:
        base, report = kind.from_pretrained(
            resolved.path_or_id,
            config=shape,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise InvalidInput([Problem("--model", config.model, f"a folder with a whole model ({error})")]) from error
    # transformers fills what a file lacks with random numbers and only warns.
    if missing := sorted(report["missing_keys"]):
        allowed = f"a model with all its weights; {len(missing)} are missing, e.g. {missing[0]}"
        raise InvalidInput([Problem("--model", config.model, allowed)])
    base.config.use_cache = False
    return base


def _cut(shape: Any, layers: int) -> list[Problem]:
    """Keep the first layers only, by the model's configuration."""
    total = int(getattr(shape, "num_hidden_layers", 0))
    if layers > total:
        return [Problem("--num-layers", str(layers), f"a whole number from 1 to {total}")]
    shape.num_hidden_layers = layers
    if hasattr(shape, "num_decoder_layers"):
        shape.num_decoder_layers = min(layers, int(shape.num_decoder_layers))
    if getattr(shape, "layer_types", None):  # one entry a layer, e.g. full or sliding attention
        shape.layer_types = list(shape.layer_types)[:layers]
    return []


def _collator(config: TrainConfig, tokenizer: Any) -> Collator:
    limits: dict[str, Any] = {
        "max_source_tokens": config.max_source_tokens,
        "max_target_tokens": config.max_target_tokens,
    }
    if config.template is not None:
        limits["template"] = config.template
    return Seq2SeqCollator(tokenizer, **limits) if config.task == "seq2seq" else CausalCollator(tokenizer, **limits)


def _targets(config: TrainConfig, base: Any) -> str | list[str]:
    """Layers that get an adapter, checked against the model's.

    Raises:
        InvalidInput: a name that no linear layer ends with.
    """
    if config.target_modules == ("auto",):
        return _T5_TARGETS if base.config.model_type in ("t5", "mt5", "umt5", "longt5") else "all-linear"
    if config.target_modules == ("all-linear",):
        return "all-linear"
    linear = [name for name, layer in base.named_modules() if isinstance(layer, nn.Linear)]
    known = sorted({name.rsplit(".", 1)[-1] for name in linear})
    problems = [
        Problem("--target-modules", name, f"auto, all-linear, or some of {', '.join(known[:_SHOWN_NAMES])}")
        for name in config.target_modules
        if not any(full == name or full.endswith("." + name) for full in linear)
    ]
    if problems:
        raise InvalidInput(problems)
    return list(config.target_modules)


def _with_adapter(config: TrainConfig, base: Any, *, plain_start: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    options = dict(_VARIANTS[config.variant])
    if plain_start:
        options.pop("init_lora_weights", None)
    # The start of the adapter is drawn from torch's global generator.
    torch.manual_seed(derive(config.seed, "adapter"))
    return get_peft_model(
        base,
        LoraConfig(
            task_type="SEQ_2_SEQ_LM" if config.task == "seq2seq" else "CAUSAL_LM",
            r=config.rank,
            lora_alpha=config.scale,  # type: ignore[arg-type, unused-ignore]  # PEFT takes a float as well
            lora_dropout=config.dropout,
            target_modules=_targets(config, base),
            **options,
        ),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither bars nor notes of the libraries: what they warn of is checked here, or wanted (a model cut short)."""
    notes = transformers.utils.logging
    level, bars = notes.get_verbosity(), notes.is_progress_bar_enabled()
    notes.set_verbosity(logging.CRITICAL)
    notes.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.set_verbosity(level)
        if bars:
            notes.enable_progress_bar()
