"""``host:port`` of a command line."""

from __future__ import annotations

from rankwise.errors import InvalidInput, Problem


def split_address(argument: str, text: str) -> tuple[str, int]:
    """Host and port; the host of an IPv6 address without its brackets.

    Args:
        argument: where the text stands, for the message.
        text: such as ``127.0.0.1:0``.

    Raises:
        InvalidInput: it is not of that form.
    """
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise InvalidInput([Problem(argument, text, "host:port, such as [::]:6789 or 127.0.0.1:0")])
    return (host[1:-1] if host.startswith("[") and host.endswith("]") else host), int(port)
