"""Socket options for sessions and visitors.

Responsible for the few options that latency and bounded buffers need; where a platform lacks one it is skipped.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Final

NOTSENT_LOWAT: Final = 128 * 1024
"""Unsent bytes that the kernel may hold: beyond it our own queue holds them, where control frames overtake."""
USER_TIMEOUT_MS: Final = 10_000
"""Unacknowledged data for this long ends the connection (RFC 5482)."""

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


def tune(transport: asyncio.BaseTransport, *, lowat: int = NOTSENT_LOWAT) -> None:
    """Sets TCP_NODELAY, TCP_NOTSENT_LOWAT and TCP_USER_TIMEOUT on a transport's socket, where they exist."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = ((socket.TCP_NODELAY, 1), (_TCP_NOTSENT_LOWAT, lowat), (_TCP_USER_TIMEOUT, USER_TIMEOUT_MS))
    for option, value in options:
        if option is not None:
            # The peer may be gone already, or the platform may know the name but not the option.
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
