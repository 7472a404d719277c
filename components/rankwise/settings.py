"""Settings that come from the process's surroundings (environment variables), read once, as frozen values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankwise.errors import InvalidInput, Problem


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are kept and how many threads are used."""

    cache: Path
    """Folder for what can be made again: vectors, converted models. ``RANKWISE_CACHE``; default
    ``$XDG_CACHE_HOME/rankwise`` or ``~/.cache/rankwise``. On a cluster: a mounted volume, which a restart keeps."""
    threads: int | None = None
    """Threads that torch may use. ``RANKWISE_THREADS``; unset leaves torch's own choice. Trials that run side by side
    on one machine need it: two processes with all cores each are slower than two with half of them."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings.

        Args:
            environment: variables; ``os.environ`` when None. An empty variable counts as unset, so that a
                manifest with ``value: ""`` does not erase a default.

        Raises:
            InvalidInput: a variable is set to something that is not allowed.
        """
        env = os.environ if environment is None else environment
        problems: list[Problem] = []
        threads: int | None = None
        if text := env.get("RANKWISE_THREADS", ""):
            if text.isascii() and text.isdigit() and int(text) > 0:
                threads = int(text)
            else:
                problems.append(Problem("RANKWISE_THREADS", text, "a whole number greater than 0"))
        if problems:
            raise InvalidInput(problems)
        home = env.get("XDG_CACHE_HOME") or str(Path(env.get("HOME") or "~").expanduser() / ".cache")
        cache = Path(env.get("RANKWISE_CACHE") or Path(home) / "rankwise").expanduser()
        return cls(cache=cache, threads=threads)
