"""The trained adapter as PEFT reads it: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rankwise.train.model import Trainee


def save_adapter(trainee: Trainee, reference: str, folder: Path) -> None:
    """Write the adapter for the *unchanged* pretrained model.

    PiSSA trains on a changed one (W minus its start): what it learned, s (B A - B0 A0), is saved as plain LoRA of
    twice the rank, with A' = [A; A0] and B' = [B, -B0] (Meng et al. 2024, appendix C); alpha doubles with the rank.

    Args:
        trainee: the trained model.
        reference: name of the pretrained model that goes into the configuration, in place of a path of this machine.
        folder: exists and is empty.
    """
    from peft import get_peft_model_state_dict

    options: dict[str, Any] = trainee.peft.peft_config["default"].to_dict()
    tensors: dict[str, Tensor] = get_peft_model_state_dict(trainee.peft, save_embedding_layers=False)
    if trainee.initial:
        start = {name.replace(".default.", "."): value for name, value in trainee.initial.items()}
        joined = {}
        for name, value in tensors.items():
            if ".lora_A." in name:
                joined[name] = torch.cat([value, start[name].to(value)], dim=0)  # (2r, in)
            elif ".lora_B." in name:
                joined[name] = torch.cat([value, -start[name].to(value)], dim=1)  # (out, 2r)
        tensors = joined
        options |= {"r": 2 * options["r"], "lora_alpha": 2 * options["lora_alpha"], "init_lora_weights": True}
    options |= {"base_model_name_or_path": reference, "inference_mode": True}
    text = json.dumps(options, indent=1, sort_keys=True, default=_plain) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        folder / "adapter_model.safetensors",
    )


def _plain(value: object) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"no JSON form for {type(value).__name__}")
