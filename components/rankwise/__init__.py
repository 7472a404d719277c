"""Rankwise: good LoRA fine-tuning hyperparameters in about 30 short trainings."""

from __future__ import annotations

__version__ = "0.1.0"
