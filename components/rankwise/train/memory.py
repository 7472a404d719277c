"""Telling "out of memory" from other failures: every allocator has its own way to say it."""

from __future__ import annotations

import torch

_SIGNS = (
    "DefaultCPUAllocator",
    "can't allocate memory",
    "cannot allocate memory",
    "CUDA out of memory",
    "out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the configuration does not fit into memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign.lower() in str(error).lower() for sign in _SIGNS)
