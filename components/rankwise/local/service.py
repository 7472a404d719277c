"""Our own suggestion service for the time of one run: in this process, on a free port of the loopback interface.

The engine talks to it through the socket all the same, so that what works here works on a cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rankwise.settings import Settings
from rankwise.suggest.earlier import EarlierSearches


@contextmanager
def embedded_service(settings: Settings, earlier: EarlierSearches) -> Iterator[str]:
    """Start the service; give its ``host:port``; stop it at the end.

    Args:
        settings: where caches lie.
        earlier: where earlier searches are looked up.

    Raises:
        SurroundingsError: no port can be listened on.
    """
    # torch and its friends are loaded only when suggestions are needed, not for --help or a run that has ended.
    from rankwise.suggest.server import serve
    from rankwise.suggest.wiring import wire

    server = serve("127.0.0.1:0", wire(settings).strategies, earlier=earlier)
    try:
        yield server.address
    finally:
        # Nobody waits for an answer any more. A fit cannot be stopped from outside; see :func:`still_computing`.
        server.stop(grace=0.0)


def still_computing() -> bool:
    """Whether a fit that nobody waits for goes on in this process: the interpreter's end would abort in it."""
    return any(thread.name.startswith("fit-") for thread in threading.enumerate())
