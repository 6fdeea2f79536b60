"""Socket options for sessions, visitors and origins, and what a socket still holds.

Responsible for the few options that latency and bounded buffers need; where a platform lacks one it is skipped.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # not on Windows: there a socket's own bytes are not seen
    ioctl = None  # type: ignore[assignment]

NOTSENT_LOWAT: Final = 128 * 1024
"""Unsent bytes that the kernel may hold: beyond it our own queue holds them, where control frames overtake."""
USER_TIMEOUT_MS: Final = 10_000
"""Unacknowledged data for this long ends the connection (RFC 5482)."""

SLOW_BUFFER: Final = 65_536
"""What the kernel may keep for a peer that has proved slow (socket(7) doubles it); for others it finds out itself."""
KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A peer that vanished is noticed within a minute; one that only does not read is not."""
_INT: Final = struct.Struct("i")

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


def await_slow_readers(sock: socket.socket) -> None:
    """For a pipe of bytes: its peer may pause for as long as it likes, and is gone when keep-alive says so.

    TCP_USER_TIMEOUT would take a reader who pauses for one who is gone: it counts a window that stays closed.
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (*KEEP_ALIVE, ("TCP_USER_TIMEOUT", 0)):
        if hasattr(socket, option):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def bound(transport: asyncio.BaseTransport) -> None:
    """The kernel keeps no more for this peer from now on, who does not take what it has already."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SLOW_BUFFER)


def outgoing(transport: asyncio.WriteTransport) -> int:
    """Bytes written that the peer has not acknowledged: here, and in the socket where that can be asked (tcp(7)).

    What a slow but steady reader takes shows in it at once, long before the transport may write again.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if ioctl is None or sock is None:
        return size
    with suppress(OSError, ValueError):
        size += _INT.unpack(ioctl(sock.fileno(), TIOCOUTQ, bytes(4)))[0]
    return size
