"""The relay's front doors: listening sockets and what answers behind them.

Responsible for binding addresses, the socket options that accepted connections inherit, and one sentence when an
address cannot be had. Must not know HTTP or frames.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from culvert_relay.accepting import Acceptor, Choose, Front, Gate, ProtocolFactory
from culvert_relay.config import Address, ConfigError
from culvert_transport.sockets import NOTSENT_LOWAT

BACKLOG: Final = 1024
VISITOR_USER_TIMEOUT_MS: Final = 30_000
"""Unacknowledged data for this long ends a visitor's connection (RFC 5482): a reader that vanished."""


@dataclass(frozen=True, slots=True)
class Door:
    """A door for visitors: `scheme` 0 http or 1 https, its port, and who takes the relay's own paths over.

    `own` returns the protocol that answers a path under the relay's own names, or None when it serves no such path.
    """

    scheme: int
    port: int
    own: Callable[[bytes], asyncio.Protocol | None] = lambda _path: None


class Listener:
    """One address that is being listened on; `port` is the real one when any free port was asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.port: int = sock.getsockname()[1]
        self._acceptor: Acceptor | None = None

    def serve(
        self,
        gate: Gate,
        factory: ProtocolFactory,
        *,
        context: ssl.SSLContext | None = None,
        choose: Choose | None = None,
        front: Front | None = None,
        visitors: bool = True,
    ) -> None:
        """Begins to accept; with a `context` connections reach the factory's protocol after their TLS handshake,
        but for those that `front` gives to somebody else before it; `choose`: see `Acceptor`."""
        self._acceptor = Acceptor(
            self.socket, gate, factory, context=context, choose=choose, front=front, visitors=visitors
        )

    def close(self) -> None:
        """Stops accepting; connections stay."""
        if self._acceptor is not None:
            self._acceptor.close()
        else:
            self.socket.close()

    def abort(self) -> None:
        """Ends what is neither accepted nor refused yet."""
        if self._acceptor is not None:
            self._acceptor.abort()


async def bind(loop: asyncio.AbstractEventLoop, address: Address, *, where: str) -> list[Listener]:
    """Listens on every address that `address` stands for; ConfigError names `where` in `relay.yml` it stands."""
    try:
        found = await loop.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(f"{where} {address} cannot be resolved: {error.strerror or error}.") from None
    listeners: list[Listener] = []
    for family, kind, protocol, _, place in dict.fromkeys(found):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError:
            continue  # an address family that this machine does not have
        try:
            _prepare(sock, family)
            sock.bind(place)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            for listener in listeners:
                listener.close()
            raise ConfigError(
                f"{where} {address} cannot be listened on: {error.strerror or error}. Use a free one."
            ) from None
        listeners.append(Listener(sock))
    if not listeners:
        raise ConfigError(f"{where} {address} is of an address family that this machine does not have.")
    return listeners


def _prepare(sock: socket.socket, family: int) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Set here once: accepted sockets inherit them (tcp(7)), which saves three system calls per connection.
    for name, value in (
        ("TCP_NODELAY", 1),
        ("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT),
        ("TCP_USER_TIMEOUT", VISITOR_USER_TIMEOUT_MS),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
