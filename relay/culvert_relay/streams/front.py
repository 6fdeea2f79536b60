"""The HTTPS port's front: each connection's ClientHello is looked at before anybody answers it.

Responsible for accepting, for reading the ClientHello without consuming it (MSG_PEEK), and for handing the socket on:
to TLS as always, or untouched to the tunnel that its server name was granted to. Must not know HTTP or certificates.
Invariants: the relay's own names are never passed through; while no name is, nothing is peeked at; a connection
that has not sent its ClientHello is bounded in bytes and time and in number; descriptors that run out pause the
accepting, they do not spin it.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from culvert_relay.listeners import TLS_HANDSHAKE_SECONDS, TLS_SHUTDOWN_SECONDS, Listener
from culvert_relay.streams.client_hello import LIMIT, Hello, read_hello
from culvert_relay.streams.connection import StreamConnection
from culvert_relay.streams.ports import KEEP_ALIVE
from culvert_relay.wheel import ticks

if TYPE_CHECKING:
    from culvert_relay.edge import Edge

HELLO_TICKS: Final = ticks(10)
ACCEPTS: Final = 64
"""Connections accepted in one turn of the loop."""
PAUSE_SECONDS: Final = 0.5
"""How long accepting rests when there are no descriptors left."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
logger = logging.getLogger(__name__)


class Front:
    """Accepts at one listening socket of the HTTPS port. `factory` makes the protocol behind our own TLS."""

    def __init__(
        self,
        edge: "Edge",
        listener: Listener,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        context: ssl.SSLContext,
    ) -> None:
        self.edge = edge
        self.port = listener.port
        self._socket = listener.socket
        self._factory = factory
        self._context = context
        self._peeking: set[Peek] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Begins to accept."""
        self.edge.loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stops accepting; connections whose handshake has begun stay, those not yet known do not."""
        if self._closed:
            return
        self._closed = True
        if self._resting is not None:
            self._resting.cancel()
        else:
            self.edge.loop.remove_reader(self._socket)
        self._socket.close()
        for peek in tuple(self._peeking):
            peek.end()
            peek.socket.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                logger.warning("no connection can be accepted now: %s", error.strerror)
                self.edge.loop.remove_reader(self._socket)
                self._resting = self.edge.loop.call_later(PAUSE_SECONDS, self._go_on)
                return
            sock.setblocking(False)
            if not self.edge.registry.table.passing:
                self.terminate(sock)
            elif len(self._peeking) >= self.edge.max_visitors:
                self.edge.counters.refused_connections += 1
                sock.close()
            else:
                peek = Peek(self, sock)
                self._peeking.add(peek)
                peek.look()

    def _go_on(self) -> None:
        self._resting = None
        self.start()

    def known(self, peek: "Peek", hello: Hello | None) -> None:
        """A ClientHello is complete, or there is none (None): the socket goes to whom it is for."""
        self.forget(peek)
        name = hello.name if hello is not None else b""
        entry = self.edge.registry.table.find(name) if name and name not in self.edge.own_hosts else None
        if entry is None or not entry.terms.passthrough:
            self.terminate(peek.socket)
            return
        for option, value in KEEP_ALIVE:
            if hasattr(socket, option):
                with suppress(OSError):
                    peek.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        with suppress(OSError, AttributeError):
            # Inherited from the listener, but a reader who pauses must not be taken for one who is gone.
            peek.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
        found = entry
        self._connect(peek.socket, lambda: StreamConnection(self.edge, found, port=self.port, host=name), None)

    def terminate(self, sock: socket.socket) -> None:
        """Our own TLS, and HTTP behind it."""
        self._connect(sock, self._factory, self._context)

    def forget(self, peek: "Peek") -> None:
        """A connection is not waited for any more."""
        self._peeking.discard(peek)

    def _connect(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None
    ) -> None:
        task = self.edge.loop.create_task(self._connected(sock, factory, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], context: ssl.SSLContext | None
    ) -> None:
        loop = self.edge.loop
        try:
            if context is None:
                await loop.connect_accepted_socket(factory, sock)
            else:
                await loop.connect_accepted_socket(
                    factory,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS,
                )
        except OSError:  # ssl.SSLError is one
            # A client that breaks off in its handshake is no event.
            sock.close()


class Peek:
    """One connection whose ClientHello is still to come."""

    __slots__ = ("_front", "_reading", "_seen", "deadline", "scheduled", "socket")

    def __init__(self, front: Front, sock: socket.socket) -> None:
        self._front = front
        self._reading = False
        self._seen = 0
        self.socket = sock
        self.deadline = 0
        self.scheduled = 0

    def look(self) -> None:
        """Looks at what is there, without taking it."""
        try:
            data = self.socket.recv(LIMIT, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait(1)
            return
        except OSError:
            self._leave()
            return
        if len(data) <= self._seen:
            # Awake although no more has come: that is the end of what will.
            self._leave()
            return
        self._seen = len(data)
        hello = read_hello(data)
        if hello is None:
            # Asleep until more has come than is there: a partial ClientHello must not spin the loop.
            self._wait(len(data) + 1)
            return
        self.end()
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        self._front.known(self, hello if isinstance(hello, Hello) else None)

    def on_deadline(self) -> None:
        """The wheel's word: no ClientHello in time."""
        self._leave()

    def end(self) -> None:
        """Waits no longer."""
        if self._reading:
            self._reading = False
            self._front.edge.loop.remove_reader(self.socket)
        self._front.edge.wheel.cancel(self)

    def _wait(self, size: int) -> None:
        with suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
        if not self._reading:
            self._reading = True
            self._front.edge.wheel.arm(self, HELLO_TICKS)
            self._front.edge.loop.add_reader(self.socket, self.look)

    def _leave(self) -> None:
        self.end()
        self._front.forget(self)
        self.socket.close()
