"""The TCP ports that tunnels have been granted: listened on exactly while somebody holds them.

Responsible for opening and closing them as the table changes, and for remembering which could not be had. Must not
know sessions, grants or how a connection's bytes travel.
Invariant: a port is open only while the table has an entry for it, so a visitor without a tunnel is refused by the
kernel; a port that is taken by something else never stops the relay, it is reported and tried again.
"""

import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from culvert_protocol.granted import port_name
from culvert_relay.accepting import Arrival
from culvert_relay.config import ConfigError
from culvert_relay.listeners import BACKLOG, Listener
from culvert_relay.streams.connection import StreamConnection
from culvert_transport.sockets import KEEP_ALIVE, NOTSENT_LOWAT

if TYPE_CHECKING:
    from culvert_relay.edge import Edge

_EVERY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
logger = logging.getLogger(__name__)


class PortDoors:
    """The listeners by port. `hosts` are the interfaces (names or IP addresses; "" = every one)."""

    def __init__(self, edge: "Edge", hosts: tuple[str, ...]) -> None:
        self.unavailable: set[str] = set()
        """Names (`tcp:<port>`) of held ports that could not be listened on at the last try."""
        self._edge = edge
        self._hosts = hosts
        self._places: list[tuple[int, str]] = []
        self._open: dict[int, list[Listener]] = {}
        self._closed = False

    async def resolve(self) -> None:
        """Looks the interfaces up, once; raises ConfigError for one that cannot be found."""
        places: dict[tuple[int, str], None] = {}
        for host in self._hosts:
            try:
                found = await self._edge.loop.getaddrinfo(
                    host or None, 1, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                )
            except OSError as error:
                raise ConfigError(f"listen.tcp {host} cannot be resolved: {error.strerror or error}.") from None
            for family, _, _, _, place in found:
                places[int(family), str(place[0])] = None
        every = {family for family, host in places if host in _EVERY}
        # One that stands for all of its family takes the port from the others.
        self._places = [(family, host) for family, host in places if family not in every or host in _EVERY]

    @property
    def open(self) -> list[int]:
        """The ports that are listened on."""
        return sorted(self._open)

    def settle(self) -> bool:
        """Opens what is held, closes what is not; True when `unavailable` has changed by it."""
        if self._closed:
            return False
        wanted = self._edge.registry.table.ports()
        if not wanted and not self._open and not self.unavailable:
            return False
        before = set(self.unavailable)
        self.unavailable.clear()
        for port in [port for port in self._open if port not in wanted]:
            self._shut(port)
        for port in wanted:
            if port in self._open:
                continue
            try:
                self._open[port] = [self._serve(sock, port) for sock in self._bind(port)]
            except OSError as error:
                self.unavailable.add(port_name(port))
                if port_name(port) not in before:
                    logger.warning(
                        "TCP port %d cannot be listened on: %s.",
                        port,
                        error.strerror or error,
                        extra={"fields": {"port": port}},
                    )
        return self.unavailable != before

    def close(self) -> None:
        """Stops accepting, for good; connections stay."""
        self._closed = True
        for port in list(self._open):
            self._shut(port)

    def _shut(self, port: int) -> None:
        for listener in self._open.pop(port):
            listener.close()

    def _serve(self, sock: socket.socket, port: int) -> Listener:
        edge, listener = self._edge, Listener(sock)

        def connection(arrival: Arrival) -> StreamConnection:
            return StreamConnection(edge, edge.registry.table.port(port), arrival, port=port)

        listener.serve(edge.gate, connection)
        return listener

    def _bind(self, port: int) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        try:
            for family, host in self._places:
                try:
                    sock = socket.socket(family, socket.SOCK_STREAM)
                except OSError:
                    continue  # an address family that this machine does not have
                sockets.append(sock)
                _prepare(sock)
                sock.bind((host, port))
                sock.listen(BACKLOG)
        except OSError:
            for sock in sockets:
                sock.close()
            raise
        return sockets


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Set here once: accepted sockets inherit them (tcp(7)). No TCP_USER_TIMEOUT: a reader may pause.
    for name, value in (("TCP_NODELAY", 1), ("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT), *KEEP_ALIVE):
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
