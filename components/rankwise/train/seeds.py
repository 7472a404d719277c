"""Random numbers of a trial: each purpose, and each step, has a seed of its own.

So nothing of a generator's state has to be kept in a checkpoint: dropout of step k is the same whether the process
began at step 0 or at step k, and an evaluation in between changes nothing.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, purpose: str, step: int = 0) -> int:
    """A seed in [0, 2**63) from the trial's seed, what it is for, and a step."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
