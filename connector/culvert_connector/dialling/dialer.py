"""One dial: TCP, TLS with a verified server name, the upgrade; a transport that speaks frames, or a reason why not.

Responsible for the connection and the HTTP/1.1 upgrade of one session, within a deadline, and for sorting every
failure into the three reasons that the status knows.

Must not know: when to dial, how often, which address, what a session does.

Invariants: nothing is sent before the relay's certificate and name were verified; a dial that fails or is cancelled
leaves no transport behind; bytes that came behind the 101 are handed on, none lost.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Final, cast

from culvert_connector.dialling import proxy as proxies
from culvert_connector.dialling.addresses import Address
from culvert_connector.dialling.proxy import Proxy, ProxyError
from culvert_protocol.handshake import (
    Accepted,
    Answer,
    HandshakeError,
    Refused,
    build_request,
    parse_answer,
)

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for TCP and TLS; a relay that needs longer is tried later, another one now."""
ANSWER_TIMEOUT: Final = 5.0
"""Seconds for the answer to the upgrade: the relay verifies one signature in it."""

UNREACHABLE: Final = "RelayUnreachable"
REFUSED: Final = "RelayRefused"
CERTIFICATE: Final = "CertificateError"

_FAST: Final = find_spec("aiofastnet") is not None


class RelayTLSError(ValueError):
    """The configured relay CA cannot be read; the text is a sentence with a fix."""


@dataclass(frozen=True, slots=True)
class Call:
    """All that one dial needs. `server_name` is verified, sent as SNI and Host, and signed in the proof; `proxy` sees
    the address and nothing else."""

    address: Address
    server_name: str
    context: ssl.SSLContext
    credential: str = field(repr=False)
    connector_id: str
    slot: int
    generation: int
    proxy: Proxy | None = None


class DialError(Exception):
    """A dial that failed. `reason` is one of the three above, the text a sentence; `status` of a refusal, else 0."""

    def __init__(self, reason: str, sentence: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Dialled:
    """An upgraded connection. `leftover` are the frames' first bytes."""

    transport: asyncio.Transport
    accepted: Accepted
    leftover: bytes


def relay_context(ca: str | None) -> ssl.SSLContext:
    """TLS towards relays: 1.2 or later, ALPN http/1.1, verified against `ca` (PEM text) or the system's roots."""
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise RelayTLSError(
            f"the relay's ca holds no readable certificate ({error}); give PEM text that begins with "
            "-----BEGIN CERTIFICATE-----"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Upgrade(asyncio.Protocol):
    """Sends the request and collects the answer; keeps what follows it."""

    def __init__(self, request: bytes, answer: asyncio.Future[Answer]) -> None:
        self._request = request
        self._answer = answer
        self.received = bytearray()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._parse(eof=False)

    def eof_received(self) -> None:
        self._parse(eof=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self._answer.done():
            if exc is None:
                self._parse(eof=True)
            else:
                self._answer.set_exception(exc)

    def _parse(self, *, eof: bool) -> None:
        if self._answer.done():
            return
        try:
            answer = parse_answer(self.received, eof=eof)
        except HandshakeError as error:
            self._answer.set_exception(error)
            return
        if answer is not None:
            self._answer.set_result(answer)


async def dial(call: Call) -> Dialled:
    """Dials once. Raises DialError; cancelling it closes what it had opened."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()
    request = build_request(call.server_name, call.credential, call.connector_id, call.slot, call.generation)
    upgrade = _Upgrade(request, answer)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            transport = await _connect(loop, upgrade, call)
    except ssl.SSLCertVerificationError as error:
        raise DialError(
            CERTIFICATE,
            f"the relay at {call.address} showed a certificate that is not accepted for {call.server_name}: "
            f"{error.verify_message}; give the relay's CA and, if its name differs, its server name",
        ) from error
    except ssl.SSLError as error:
        raise DialError(
            CERTIFICATE,
            f"the TLS handshake with {call.address} failed ({error.reason or error}); is it a relay's tunnel address?",
        ) from error
    except ProxyError as error:
        raise DialError(UNREACHABLE, f"no connection to the relay at {call.address}: {error}") from error
    except (OSError, TimeoutError) as error:
        why = f"no answer within {CONNECT_TIMEOUT:g} s" if isinstance(error, TimeoutError) else _said(error)
        way = f" through the proxy {call.proxy}" if call.proxy is not None else ""
        raise DialError(UNREACHABLE, f"no connection to the relay at {call.address}{way}: {why}") from error
    kept = False
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            result = await answer
        if isinstance(result, Refused):
            raise _refused(call, result)
        if upgrade.lost:
            raise DialError(UNREACHABLE, f"the relay at {call.address} closed the connection right after its answer")
        kept = True
        return Dialled(transport, result, bytes(upgrade.received[result.size :]))
    except HandshakeError as error:
        raise DialError(REFUSED, f"the relay at {call.address} gave no valid answer: {error}") from error
    except (OSError, TimeoutError) as error:
        why = f"no answer within {ANSWER_TIMEOUT:g} s" if isinstance(error, TimeoutError) else _said(error)
        raise DialError(UNREACHABLE, f"the relay at {call.address} did not answer the upgrade: {why}") from error
    finally:
        if not kept:
            transport.abort()


def _said(error: OSError) -> str:
    """What an error says; a peer that leaves within the TLS handshake makes one that says nothing."""
    return str(error) or "it closed the connection within the TLS handshake"


async def _connect(loop: asyncio.AbstractEventLoop, upgrade: _Upgrade, call: Call) -> asyncio.Transport:
    context, name = call.context, call.server_name
    if call.proxy is None:
        place: dict[str, Any] = {"host": call.address.ip, "port": call.address.port}
    else:
        place = {"sock": await _tunnel(loop, call.proxy, str(call.address))}
    try:
        if _FAST:
            # Twice the bulk throughput of the loop's own TLS.
            import aiofastnet

            fast: asyncio.Transport
            fast, _ = await aiofastnet.create_connection(
                loop, lambda: upgrade, **place, ssl=context, server_hostname=name
            )
            return fast
        transport, _ = await loop.create_connection(lambda: upgrade, **place, ssl=context, server_hostname=name)
        return transport
    except BaseException:
        if "sock" in place:
            place["sock"].close()
        raise


async def _tunnel(loop: asyncio.AbstractEventLoop, proxy: Proxy, authority: str) -> socket.socket:
    """A socket that `proxy` has connected to `authority`; raises ProxyError or OSError."""
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(f"the proxy {proxy} has no address")
    for family, kind, protocol, _, place in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, place)
            except OSError as error:
                failure = error
                sock.close()
                continue
            await loop.sock_sendall(sock, proxies.build_connect(proxy, authority))
            answer = bytearray()
            while not (size := proxies.parse_answer(answer, proxy)):
                data = await loop.sock_recv(sock, proxies.MAX_ANSWER)
                if not data:
                    raise ProxyError(f"the proxy {proxy} closed the connection without an answer to CONNECT")
                answer += data
            if size != len(answer):
                # A TLS server never speaks first: these bytes are not the relay's.
                raise ProxyError(f"the proxy {proxy} sent bytes of its own into the tunnel; use another one")
            return sock
        except BaseException:
            sock.close()
            raise
    raise failure


def _refused(call: Call, refused: Refused) -> DialError:
    words = refused.detail or refused.reason or "it gave no reason"
    return DialError(
        REFUSED,
        f"the relay at {call.address} refused the session with {refused.status}: {words}",
        status=refused.status,
        retry_after=float(refused.retry_after or 0),
    )
