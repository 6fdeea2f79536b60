"""Connections to origins: kept ones handed out, new ones made, idle ones closed in time.

Responsible for carrying out what the pool decides, for dialling (addresses checked, then dialled as checked; TLS;
Unix sockets) and for turning each way of failing into a RESET code and a reason token.

Must not know: HTTP, streams, the router.

Invariants: every `acquire` ends in exactly one of `on_connection`, `on_no_connection` or `give_up`; a name is resolved
for every new connection, lookups that run at the same time being shared; nothing is dialled that was not checked.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from culvert_connector.origins import addresses
from culvert_connector.origins.addresses import AddressRefused, Resolve
from culvert_connector.origins.connection import OriginConnection
from culvert_connector.origins.exchange import ConnectionSeeker, ResponseAwaiter
from culvert_connector.origins.pool import IdlePool
from culvert_connector.origins.refusals import Refusals
from culvert_connector.origins.targets import OriginKey, OriginTarget
from culvert_connector.origins.tls import Contexts, OriginCAError
from culvert_connector.origins.waits import Waits
from culvert_protocol.codes import ResetCode
from culvert_transport.sockets import NOTSENT_LOWAT

log = logging.getLogger(__name__)

SWEEP_EVERY: Final = 5.0
"""Seconds between two looks for connections that have been idle too long."""
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
LONGEST: Final = 60.0
"""Seconds after which a connection serves no further request, however busy: its service's name may lead elsewhere by
now, and without this a connection under load would be one to the old address for ever."""
LOOK_EVERY: Final = 1.0
"""Seconds between two looks for requests that their origins have not answered in time."""
LOG_EVERY: Final = 10.0
"""Seconds between two log lines about one origin that cannot be reached."""
_MAX_LOGGED: Final = 1024


class OriginError(Exception):
    """A connection that could not be made; `reason` is the token for `Culvert-Error`, the text a sentence."""

    def __init__(self, code: ResetCode, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = reason


class Origins:
    """All origin connections of a connector; belongs to one event loop."""

    def __init__(self, *, resolve: Resolve = addresses.resolve, on_refusal: Callable[[], None] = lambda: None) -> None:
        """`on_refusal`: what `refusals` holds has changed."""
        self._resolve = resolve
        self.refusals = Refusals(lookup=self._lookup, changed=on_refusal)
        self._contexts = Contexts()
        self._pools: dict[float, IdlePool[OriginConnection]] = {}
        self.longest = LONGEST
        self._open: dict[OriginConnection, float] = {}
        self._dials: dict[ConnectionSeeker, asyncio.Task[None]] = {}
        self._lookups: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._waits: Waits[ResponseAwaiter] = Waits()
        self._look: asyncio.TimerHandle | None = None
        self._logged: dict[OriginKey, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections kept for later requests."""
        return sum(map(len, self._pools.values()))

    @property
    def open(self) -> int:
        """Connections that exist, idle or in use."""
        return len(self._open)

    # -- for exchanges -----------------------------------------------------------------------------------------

    def acquire(
        self, user: ConnectionSeeker, target: OriginTarget, *, fresh: bool, safe: bool, preamble: bytes = b""
    ) -> None:
        """See `exchange.Connections.acquire`."""
        key = target.key
        if not fresh:
            pool = self._pools.get(key.keep_seconds)
            while pool is not None and (connection := pool.take(key)) is not None:
                # A request that may be sent twice is simply tried; any other one first asks whether the end is here.
                if safe or not connection.stale():
                    user.on_connection(connection)
                    return
                connection.abort()
        if self._closed:
            user.on_no_connection(ResetCode.UNAVAILABLE, "connector_stops")
            return
        self._dials[user] = asyncio.get_running_loop().create_task(self._dial(user, target, preamble))

    def give_up(self, user: ConnectionSeeker) -> None:
        """See `exchange.Connections.give_up`."""
        task = self._dials.pop(user, None)
        if task is not None:
            task.cancel()

    def await_response(self, user: ResponseAwaiter, seconds: float) -> None:
        """See `exchange.Connections.await_response`."""
        loop = self._running()
        self._waits.begin(user, seconds, now=loop.time())
        if self._look is None:
            self._look = loop.call_later(min(seconds, LOOK_EVERY), self._look_at_waits)

    def response_came(self, user: ResponseAwaiter, seconds: float) -> None:
        """See `exchange.Connections.response_came`."""
        self._waits.end(user, seconds)

    # -- for connections ---------------------------------------------------------------------------------------

    def on_open(self, connection: OriginConnection) -> None:
        """A new connection stands."""
        self._open[connection] = self._running().time()

    def on_idle(self, connection: OriginConnection) -> None:
        """A connection can serve again: into the pool, or closed when that is full or the connection is old."""
        key = connection.key
        assert isinstance(key, OriginKey)
        loop = self._running()
        now = loop.time()
        if key.keep == 0 or self._closed or now - self._open.get(connection, now) >= self.longest:
            connection.close()
            return
        pool = self._pools.get(key.keep_seconds)
        if pool is None:
            pool = self._pools[key.keep_seconds] = IdlePool(idle_timeout=key.keep_seconds)
        evicted = pool.give(key, connection, now=now, per_key=key.keep)
        if evicted is not None:
            evicted.close()
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_EVERY, self._sweep)

    def on_closed(self, connection: OriginConnection) -> None:
        """A connection is gone."""
        self._open.pop(connection, None)
        key = connection.key
        assert isinstance(key, OriginKey)
        pool = self._pools.get(key.keep_seconds)
        if pool is not None:
            pool.remove(connection)

    async def close(self) -> None:
        """Ends everything, also what is in use."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._look is not None:
            self._look.cancel()
            self._look = None
        tasks = [*self._dials.values(), *self._lookups.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.refusals.close()
        for connection in list(self._open):
            connection.abort()
        for _ in range(100):  # the loop tells of each end in one of its next turns
            if not self._open:
                break
            await asyncio.sleep(0)

    # -- inside ------------------------------------------------------------------------------------------------

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, asked for once: each asking is a system call (getpid) on CPython 3.11."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return loop

    def _look_at_waits(self) -> None:
        loop = asyncio.get_running_loop()
        for user in self._waits.due(now=loop.time()):
            user.on_response_timeout()
        shortest = self._waits.shortest()
        self._look = None if shortest is None else loop.call_later(min(shortest, LOOK_EVERY), self._look_at_waits)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for pool in self._pools.values():
            for connection in pool.expire(now=loop.time()):
                connection.close()
        # Other durations of `keepAliveTimeout` come and go with configurations; empty pools go with them.
        self._pools = {seconds: pool for seconds, pool in self._pools.items() if len(pool)}
        self._sweeper = loop.call_later(SWEEP_EVERY, self._sweep) if self._pools else None

    async def _dial(self, user: ConnectionSeeker, target: OriginTarget, preamble: bytes) -> None:
        try:
            try:
                async with asyncio.timeout(target.connect_timeout):
                    connection = await self._connect(target, preamble)
                if connection.gone:
                    raise ConnectionResetError
            except TimeoutError:
                seconds = f"{target.connect_timeout:g} s"
                raise OriginError(
                    ResetCode.ORIGIN_TIMEOUT, "connect_timeout", f"no connection within {seconds} (connectTimeout)"
                ) from None
            except (OSError, UnicodeError, AddressRefused, OriginCAError) as error:
                if isinstance(error, AddressRefused):
                    self.refusals.refuse(target.rule_id, target.key, str(error))
                raise _explained(error) from error
            except Exception as error:  # whatever it is, the request must have its outcome
                log.exception("A connection to an origin failed in an unforeseen way.")
                raise OriginError(ResetCode.INTERNAL, "connector_error", str(error)) from error
        except OriginError as error:
            if self._dials.pop(user, None) is not None:
                self._log(target, error)
                user.on_no_connection(error.code, error.reason)
            return
        if self._dials.pop(user, None) is None:
            connection.abort()
        else:
            user.on_connection(connection)

    async def _connect(self, target: OriginTarget, preamble: bytes) -> OriginConnection:
        key = target.key
        loop = asyncio.get_running_loop()
        context = self._contexts.get(key.tls) if key.tls is not None else None
        server_name = key.tls.server_name if key.tls is not None else None
        handshake = target.tls_timeout if key.tls is not None else None

        def factory() -> OriginConnection:
            return OriginConnection(key=key, owner=self, tls=context is not None, quiet=target.pipe)

        if key.port == 0 and preamble:
            _, begun = await loop.create_connection(
                factory,
                sock=await _begun(socket.AF_UNIX, key.host, preamble),
                ssl=context,
                server_hostname=server_name,
                ssl_handshake_timeout=handshake,
            )
            return begun
        if key.port == 0:
            _, unix = await loop.create_unix_connection(
                factory, key.host, ssl=context, server_hostname=server_name, ssl_handshake_timeout=handshake
            )
            return unix
        found = addresses.allowed(await self._lookup(key.host, key.port), policy=key.policy, host=key.host)
        self.refusals.allow(target.rule_id)
        deadline = loop.time() + target.connect_timeout
        for position, address in enumerate(found):
            rest = found[position + 1 :]
            # A silent address leaves time for the others.
            share = (deadline - loop.time()) / (len(rest) + 1)
            try:
                async with asyncio.timeout(share if rest else None):
                    place: dict[str, Any] = {"host": address, "port": key.port}
                    if preamble:
                        family = socket.AF_INET6 if ":" in address else socket.AF_INET
                        place = {"sock": await _begun(family, (address, key.port), preamble)}
                    transport, connection = await loop.create_connection(
                        factory,
                        **place,
                        ssl=context,
                        server_hostname=server_name,
                        ssl_handshake_timeout=handshake,
                    )
            except (OSError, TimeoutError):
                if not rest:
                    raise
                continue
            _tune(transport, target.tcp_keep_alive)
            return connection
        raise AssertionError("allowed() returns at least one address")

    async def _lookup(self, host: str, port: int) -> Sequence[str]:
        key = (host, port)
        task = self._lookups.get(key)
        if task is None:
            task = asyncio.ensure_future(self._resolve(host, port))
            self._lookups[key] = task
            task.add_done_callback(lambda done: self._lookup_done(key, done))
        return await asyncio.shield(task)

    def _lookup_done(self, key: tuple[str, int], task: asyncio.Task[Sequence[str]]) -> None:
        self._lookups.pop(key, None)
        if not task.cancelled():
            task.exception()  # its waiters may all have timed out; then nobody else asks for it

    def _log(self, target: OriginTarget, error: OriginError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._logged.get(target.key, -LOG_EVERY) < LOG_EVERY:
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[target.key] = now
        log.warning(
            "The service of rule %s cannot be reached: %s",
            target.rule_id,
            error,
            extra={"fields": {"rule": target.rule_id, "reason": error.reason}},
        )


async def _begun(family: int, place: str | tuple[str, int], preamble: bytes) -> socket.socket:
    """A connected socket on which `preamble` has been sent."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, place)
        await loop.sock_sendall(sock, preamble)
    except BaseException:
        sock.close()
        raise
    return sock


def _tune(transport: asyncio.BaseTransport, seconds: float) -> None:
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    with suppress(OSError, AttributeError):
        # An origin that reads slowly holds up the visitor, not megabytes in the kernel.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
    if seconds <= 0:
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, int(seconds)))


def _explained(error: Exception) -> OriginError:
    """One failure to connect as code, token and sentence."""
    unreachable = ResetCode.ORIGIN_UNREACHABLE
    if isinstance(error, AddressRefused):
        return OriginError(unreachable, "address_not_allowed", str(error))
    if isinstance(error, OriginCAError):
        return OriginError(unreachable, "bad_ca", str(error))
    if isinstance(error, ssl.SSLCertVerificationError):
        sentence = f"its certificate was not accepted: {error.verify_message}; set originServerName or caPool"
        return OriginError(unreachable, "certificate_not_trusted", sentence)
    if isinstance(error, ssl.SSLError):
        return OriginError(unreachable, "tls_failed", f"the TLS handshake failed: {error.reason or error}")
    if isinstance(error, (socket.gaierror, UnicodeError)):
        why = error.strerror if isinstance(error, socket.gaierror) else "it is not a host name"
        return OriginError(unreachable, "name_not_found", f"its name was not found: {why}")
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        sentence = f"this connector has run out of resources ({error.strerror}); raise its limit of open files"
        return OriginError(ResetCode.UNAVAILABLE, "connector_exhausted", sentence)
    if isinstance(error, ConnectionRefusedError):
        return OriginError(unreachable, "connection_refused", "it refused the connection; is it running on this port?")
    if isinstance(error, ConnectionResetError):
        return OriginError(unreachable, "connection_reset", "it reset the connection before it was ready")
    return OriginError(unreachable, "connection_failed", f"the connection failed: {error}")
