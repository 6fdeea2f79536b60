"""Accepting connections, up to the moment at which a protocol takes one over.

Responsible for what stands between a listening socket and a visitor: admission by count and address, the PROXY
header of a load balancer, a look at what comes first, the TLS handshake with its deadline and bound, and rest when
descriptors run out.
Must not know HTTP, frames or certificates.
Invariants: at most `handshakes` sockets wait for a header or handshake over all doors, the oldest leaving first; a
place in the book is given back whatever becomes of the connection; a full descriptor table is asked about twice a
second, never in a loop.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Final, NamedTuple

from culvert_relay.admission import Admission, Place, membership
from culvert_relay.config_values import Network
from culvert_relay.limits import Limits
from culvert_relay.metrics import Counters
from culvert_relay.streams.client_hello import LIMIT, Hello, read_hello
from culvert_relay.visitors.proxy_protocol import MAX_HEADER, ProxyHeader, ProxyHeaderError, parse_header

AT_ONCE: Final = 64
"""Connections taken from one socket in one turn of the loop."""
REST_SECONDS: Final = 0.5
"""How long nothing is accepted after the system refused a descriptor."""
SAY_EVERY: Final = 10.0
"""Seconds between two log lines about that."""
TLS_SHUTDOWN_SECONDS: Final = 5.0
MAX_TURNED_AWAY: Final = 100
"""Connections beyond the limits that are told why at one time; any more are closed without a word."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_GONE: Final = (BlockingIOError, InterruptedError, ConnectionAbortedError)
_FAST: Final = find_spec("aiofastnet") is not None
logger = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A connection that is about to be taken over: its visitor's `address`, its `place` in the book, and the limit
    that keeps it out, "" when none does."""

    address: str
    place: Place | None = None
    refusal: str = ""


ProtocolFactory = Callable[[Arrival], asyncio.BaseProtocol]
Front = Callable[[socket.socket], Awaitable[ProtocolFactory | None]]
"""Who takes a connection before TLS, by what it says first; None: nobody does."""
Choose = Callable[[str], ssl.SSLContext]
"""The TLS context for a server name in lower case; "" when the client named none."""


class Gate:
    """What all doors share: the book of connections, and the sockets that are no connections yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        limits: Limits,
        *,
        trusted: Callable[[str], bool] = lambda _address: False,
        announced_by: tuple[Network, ...] = (),
    ) -> None:
        self.loop = loop
        self.counters = counters
        self.limits = limits
        self.admission = Admission(total=limits.connections, per_address=limits.connections_per_address, exempt=trusted)
        self.announces = membership(announced_by)
        self.turned_away = Admission(total=MAX_TURNED_AWAY, per_address=MAX_TURNED_AWAY)
        self.said = -SAY_EVERY
        self._waiting: dict[asyncio.Task[None], socket.socket] = {}

    @property
    def waiting(self) -> int:
        """Handshakes and headers under way."""
        return len(self._waiting)

    def wait(self, task: asyncio.Task[None], sock: socket.socket) -> None:
        """Counts a connection that is being made; beyond the bound the one that has waited longest is ended."""
        self._waiting[task] = sock
        if len(self._waiting) > self.limits.handshakes:
            oldest = next(iter(self._waiting))
            self.counters.reach("handshakes")
            # Not a cancellation: the handshake fails as if its peer had left, wherever it is.
            with suppress(OSError):
                self._waiting.pop(oldest).shutdown(socket.SHUT_RDWR)

    def done(self, task: asyncio.Task[None]) -> None:
        """The connection has been made, or has not."""
        self._waiting.pop(task, None)


class Acceptor:
    """One listening socket, and who answers behind it. `visitors`: its connections count as visitors' ones.

    With `choose` the TLS of connections is aiofastnet's where that is installed: for few connections that carry much.
    It must not be given a context with a callback for server names, so the name is read before it begins.
    """

    def __init__(
        self,
        sock: socket.socket,
        gate: Gate,
        factory: ProtocolFactory,
        *,
        context: ssl.SSLContext | None = None,
        choose: Choose | None = None,
        front: Front | None = None,
        visitors: bool = True,
    ) -> None:
        self._choose = choose if _FAST else None
        self._socket = sock
        self._gate = gate
        self._factory = factory
        self._context = context
        self._front = front
        self._visitors = visitors
        self._resting: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        gate.loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Stops accepting; connections stay, those that are being made too."""
        if self._socket.fileno() >= 0:
            self._gate.loop.remove_reader(self._socket)
            self._socket.close()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def abort(self) -> None:
        """Ends the connections that are being made."""
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        gate = self._gate
        for _ in range(AT_ONCE):
            try:
                sock, peer = self._socket.accept()
            except _GONE:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._rest(error)
                return
            sock.setblocking(False)
            task = gate.loop.create_task(self._meet(sock, str(peer[0]).partition("%")[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _rest(self, error: OSError) -> None:
        """The kernel's queue keeps who comes meanwhile."""
        gate = self._gate
        gate.counters.reach("descriptors")
        now = gate.loop.time()
        if now - gate.said >= SAY_EVERY:
            gate.said = now
            logger.warning("connections wait: %s; raise the limit of open files", error.strerror)
        gate.loop.remove_reader(self._socket)
        self._resting = gate.loop.call_later(REST_SECONDS, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._gate.loop.add_reader(self._socket, self._accept)

    async def _meet(self, sock: socket.socket, address: str) -> None:
        gate, place = self._gate, None
        task = asyncio.current_task()
        assert task is not None
        owned = True
        try:
            if gate.announces(address):
                gate.wait(task, sock)
                async with asyncio.timeout(gate.limits.handshake_seconds):
                    address = (await read_header(gate.loop, sock)).address or address
            verdict = gate.admission.enter(address) if self._visitors else None
            if isinstance(verdict, str):
                gate.counters.refused_connections += 1
                gate.counters.reach(verdict)
                place = self._turn_away(address)
                if place is None:
                    return
                arrival = Arrival(address, place, verdict)
            else:
                place = verdict
                arrival = Arrival(address, place)
            factory, context = self._factory, self._context
            if self._front is not None:
                gate.wait(task, sock)
                async with asyncio.timeout(gate.limits.handshake_seconds):
                    passed = await self._front(sock)
                if passed is not None:
                    factory, context = passed, None
            owned = False  # from here on the socket is its transport's to close
            await self._connect(task, sock, factory, context, arrival)
            place = None  # and the place is the protocol's to leave
        except (OSError, TimeoutError, ProxyHeaderError) as error:
            gate.counters.fail_handshake(_reason(error))
        finally:
            if place is not None:
                place.leave()
            if owned:
                sock.close()
            gate.done(task)

    async def _connect(
        self,
        task: asyncio.Task[None],
        sock: socket.socket,
        factory: ProtocolFactory,
        context: ssl.SSLContext | None,
        arrival: Arrival,
    ) -> None:
        gate = self._gate
        if context is None:
            await gate.loop.connect_accepted_socket(lambda: factory(arrival), sock)
            return
        gate.wait(task, sock)
        if self._choose is not None:
            await self._connect_fast(sock, factory, self._choose, arrival)
            return
        await gate.loop.connect_accepted_socket(
            lambda: factory(arrival),
            sock,
            ssl=context,
            ssl_handshake_timeout=gate.limits.handshake_seconds,
            ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS,
        )

    async def _connect_fast(
        self, sock: socket.socket, factory: ProtocolFactory, choose: Choose, arrival: Arrival
    ) -> None:
        import aiofastnet

        gate = self._gate
        try:
            async with asyncio.timeout(gate.limits.handshake_seconds):
                name = await read_server_name(gate.loop, sock)
        except BaseException:
            sock.close()
            raise
        await aiofastnet.connect_accepted_socket(
            gate.loop,
            lambda: factory(arrival),
            sock,
            ssl=choose(name.decode("ascii", "replace")),
            ssl_handshake_timeout=gate.limits.handshake_seconds,
            ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS,
        )

    def _turn_away(self, address: str) -> Place | None:
        """A place among those that are told why, if there is one; not over TLS, whose handshake is what costs."""
        if self._context is not None:
            return None
        place = self._gate.turned_away.enter(address)
        return None if isinstance(place, str) else place


async def read_header(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> ProxyHeader:
    """Takes the PROXY header off a socket, and no byte more. Raises ProxyHeaderError or OSError."""
    data = b""
    while True:
        await readable(loop, sock)
        try:
            seen = sock.recv(MAX_HEADER - len(data), socket.MSG_PEEK)
        except _GONE:
            continue
        if not seen:
            raise ProxyHeaderError("The connection ended before its PROXY header.")
        header = parse_header(data + seen)
        # Until it is complete everything that has come belongs to it: taken off, it cannot wake the loop again.
        data += sock.recv(len(seen) if header is None else header.size - len(data))
        if header is not None:
            return header


async def read_server_name(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """The server name of the ClientHello that arrives on `sock` and stays there; b"" when there is none. OSError when
    the connection ends before it."""
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


async def readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Until the socket has something to read, or has ended."""
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, tell)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _reason(error: BaseException) -> str:
    if isinstance(error, ProxyHeaderError):
        return "proxy_header"
    if isinstance(error, (TimeoutError, ConnectionAbortedError)):
        return "timeout"
    return "tls" if isinstance(error, ssl.SSLError) else "closed"
