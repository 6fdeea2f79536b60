"""Visitors who leave while nothing is read from them: a stream that takes no more pauses their socket, and with it the
word that they have gone.

Responsible for asking the kernel, a few times a second and about all such connections at once. Must not know what is
under way on them, or what their leaving means. Elsewhere than on Linux nothing is asked, and time-outs end them.
"""

import select
import socket
import sys
from collections.abc import Iterable
from struct import Struct
from typing import Final, Protocol

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import FIONREAD

_INT: Final = Struct("i")
MOST_PEEKED: Final = 1 << 20
"""Unread bytes that are looked at; more than this is not judged."""


class Paused(Protocol):
    """A connection that is not read at the moment."""

    def descriptor(self) -> int:
        """Of its socket; -1 when it has none any more."""

    def vanished(self) -> None:
        """Its visitor has reset it."""

    def ended(self) -> None:
        """Its visitor will send nothing beyond what is unread."""


def look(lines: Iterable[Paused]) -> None:
    """Tells each of them what its visitor has done meanwhile; who has only paused too hears nothing."""
    if sys.platform != "linux":
        return
    poll = select.poll()
    by_descriptor: dict[int, Paused] = {}
    for line in lines:
        descriptor = line.descriptor()
        if descriptor >= 0:
            by_descriptor[descriptor] = line
            poll.register(descriptor, select.POLLRDHUP)
    for descriptor, events in poll.poll(0) if by_descriptor else ():
        if events & select.POLLERR:
            by_descriptor[descriptor].vanished()
        elif events & select.POLLRDHUP:
            by_descriptor[descriptor].ended()


def unread(descriptor: int) -> int:
    """Bytes that wait in a socket."""
    if sys.platform != "linux":
        return 0
    size: int = _INT.unpack(ioctl(descriptor, FIONREAD, bytes(4)))[0]
    return size


def peek(descriptor: int) -> bytes | None:
    """The bytes that wait in a socket, which stay there; None when they are too many."""
    size = unread(descriptor)
    if size > MOST_PEEKED:
        return None
    # A transport's own socket object cannot be read from.
    with socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as sock:
        return sock.recv(size, socket.MSG_PEEK) if size else b""
