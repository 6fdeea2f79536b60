"""The HTTPS port's front: each connection's ClientHello is looked at before anybody answers it.

Responsible for reading the ClientHello without consuming it (MSG_PEEK), and for saying whose connection it is: our own
TLS's, or, untouched, the tunnel's that its server name was granted to. Must not know HTTP, certificates or accepting.
Invariants: the relay's own names are never passed through; while no name is, nothing is peeked at; a partial
ClientHello is bounded in bytes (its time and number are the gate's to bound) and never spins the loop.
"""

import socket
from typing import TYPE_CHECKING

from culvert_relay.accepting import Arrival, ProtocolFactory, read_server_name
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
        name = await read_server_name(edge.loop, sock)
        entry = edge.registry.table.find(name) if name and name not in edge.own_hosts else None
        if entry is None or not entry.terms.passthrough:
            return None
        await_slow_readers(sock)
        found = entry

        def connection(arrival: Arrival) -> StreamConnection:
            return StreamConnection(edge, found, arrival, port=self._port, host=name)

        return connection
