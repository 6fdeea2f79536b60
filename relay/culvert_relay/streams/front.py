"""The HTTPS port's front: each connection's ClientHello is looked at before anybody answers it.

Responsible for reading the ClientHello without consuming it (MSG_PEEK), and for saying whose connection it is: our own
TLS's, or, untouched, the tunnel's that its server name was granted to. Must not know HTTP, certificates or accepting.
Invariants: the relay's own names are never passed through; while no name is, nothing is peeked at; a partial
ClientHello is bounded in bytes (its time and number are the gate's to bound) and never spins the loop.
"""

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from culvert_relay.accepting import Arrival, ProtocolFactory, readable
from culvert_relay.streams.client_hello import LIMIT, Hello, read_hello
from culvert_relay.streams.connection import StreamConnection
from culvert_transport.sockets import await_slow_readers

if TYPE_CHECKING:
    from culvert_relay.edge import Edge


class Front:
    """What one HTTPS port passes through."""

    def __init__(self, edge: "Edge", port: int) -> None:
        self._edge = edge
        self._port = port

    async def __call__(self, sock: socket.socket) -> ProtocolFactory | None:
        """Who takes the connection as it is; None when it is our own TLS's. OSError when it ends before it says."""
        edge = self._edge
        if not edge.registry.table.passing:
            return None
        name = await _name(edge.loop, sock)
        entry = edge.registry.table.find(name) if name and name not in edge.own_hosts else None
        if entry is None or not entry.terms.passthrough:
            return None
        await_slow_readers(sock)
        found = entry

        def connection(arrival: Arrival) -> StreamConnection:
            return StreamConnection(edge, found, arrival, port=self._port, host=name)

        return connection


async def _name(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """The server name of the ClientHello that arrives on `sock`, b"" when there is none."""
    seen = 0
    try:
        while True:
            await readable(loop, sock)
            try:
                data = sock.recv(LIMIT, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            if len(data) <= seen:
                raise ConnectionResetError("the connection ended before its ClientHello")
            seen = len(data)
            hello = read_hello(data)
            if hello is not None:
                return hello.name if isinstance(hello, Hello) else b""
            # Asleep until more has come than is there: a partial ClientHello must not spin the loop.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
    finally:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
