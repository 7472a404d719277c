"""Our own suggestion service for the time of one run: in this process, on a free port of the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rankwise.settings import Settings


@contextmanager
def embedded_service(settings: Settings) -> Iterator[str]:
    """Start the service; give its ``host:port``; stop it at the end.

    Raises:
        SurroundingsError: no port can be listened on.
    """
    # torch and its friends are loaded only when suggestions are needed, not for --help or a run that has ended.
    from rankwise.strategies.registry import Resources, strategies
    from rankwise.suggest.server import serve

    raise NotImplementedError
