"""What a stranger may say on the tunnel listener: ask for a session, or deliver a revocation.

Responsible for one connection until its first answer: reading at most one bounded request, checking it in the order
of cost, answering. After a 101 the session has the connection. Must not know frames.
Invariants: a stranger hears one uniform text for every authentication failure; nothing a stranger sends is kept
longer than its connection; a valid credential is never held up by others' failures.
"""

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

from culvert_protocol.handshake import (
    SESSION_PATH,
    HandshakeError,
    SessionRequest,
    build_accept,
    build_refusal,
    parse_request,
)
from culvert_protocol.http_text import MAX_HEAD
from culvert_protocol.revocation_post import (
    REVOCATIONS_PATH,
    build_revocation_accepted,
    parse_revocation_request,
)
from culvert_protocol.statements import (
    MAX_REVOCATION_SIZE,
    StatementError,
    verify_credential,
    verify_revocation,
)
from culvert_relay.tunnels.registry import Slot
from culvert_relay.tunnels.session import TunnelSession
from culvert_relay.wheel import ticks

if TYPE_CHECKING:
    from culvert_relay.tunnels.tunnels import Tunnels

REQUEST_TICKS: Final = ticks(10)
LINGER_TICKS: Final = ticks(2)
MAX_REQUEST: Final = MAX_HEAD + MAX_REVOCATION_SIZE
MAX_WAITING: Final = 2_000
"""Connections that may be between TLS and their answer at once."""
OWN_PATHS: Final = frozenset({SESSION_PATH.encode(), REVOCATIONS_PATH.encode()})
WRONG_NAME: Final = "This relay does not go by the name in Host. Dial one of its serverNames."


class TunnelHandshake(asyncio.Protocol):
    """A connection at the tunnel listener, or one that the HTTPS listener hands over."""

    __slots__ = ("_answered", "_data", "_peer", "_transport", "_tunnels", "deadline", "scheduled")

    def __init__(self, tunnels: "Tunnels") -> None:
        self._tunnels = tunnels
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self._data = bytearray()
        self._peer = ""
        self._answered = False
        self.deadline = 0
        self.scheduled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is over."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else "unknown"
        waiting = self._tunnels.waiting
        waiting.add(self)
        if len(waiting) > MAX_WAITING:
            self._refuse(503, "too_many_waiting")
            return
        self._tunnels.edge.wheel.arm(self, REQUEST_TICKS)

    def data_received(self, data: bytes) -> None:
        """Bytes of the request."""
        if self._answered:
            return
        self._data += data
        try:
            if self._data[:5] == b"POST ":
                self._revocation()
            else:
                request = parse_request(self._data)
                if request is not None:
                    self._session(request)
        except HandshakeError as error:
            status = error.status
            if status == 401:
                self._unauthenticated("no_credential")
            else:
                self._refuse(status, f"http_{status}", detail=str(error) if status == 400 else None)
            return
        if not self._answered and len(self._data) > MAX_REQUEST:
            self._refuse(413, "http_413")

    def eof_received(self) -> None:
        """A connector does not half-close; the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone before a session came of it."""
        self._forget()

    def on_deadline(self) -> None:
        """No request in time, or a refusal that was not taken."""
        self._forget()
        self._transport.abort()

    def close(self) -> None:
        """The relay is shutting down."""
        if not self._answered:
            self._refuse(503, "draining", retry_after=1)

    def _session(self, request: SessionRequest) -> None:
        tunnels = self._tunnels
        edge = tunnels.edge
        if request.host not in edge.server_names:
            self._refuse(400, "wrong_name", detail=WRONG_NAME)
            return
        if edge.draining:
            self._refuse(503, "draining", retry_after=1)
            return
        try:
            credential = verify_credential(request.credential, edge.issuers.keys, now=edge.wall())
        except StatementError as error:
            self._unauthenticated(error.reason)
            return
        if edge.revocations.revokes(credential):
            self._unauthenticated("revoked")
            return
        if credential.tunnel.issuer not in edge.issuers.by_id:
            self._refuse(403, "issuer_unknown")
            return
        if not edge.registry.wants(Slot(credential.tunnel, request.connector_id, request.slot), request.generation):
            self._refuse(409, "enough_sessions")
            return
        if len(tunnels.unproven) >= MAX_WAITING:
            self._refuse(503, "too_many_waiting", retry_after=1)
            return
        nonce = secrets.token_urlsafe(32)
        session = TunnelSession(
            tunnels,
            credential=credential,
            nonce=nonce,
            connector=request.connector_id,
            slot=request.slot,
            generation=request.generation,
            peer=self._peer,
        )
        self._answered = True
        self._forget()
        self._transport.write(build_accept(nonce, edge.relay_id))
        tunnels.unproven.add(session)
        session.begin(self._transport)

    def _revocation(self) -> None:
        tunnels = self._tunnels
        edge = tunnels.edge
        request = parse_revocation_request(self._data)
        if request is None:
            return
        if request.host not in edge.server_names:
            self._refuse(400, "wrong_name", detail=WRONG_NAME)
            return
        try:
            revocation = verify_revocation(request.token, edge.issuers.keys, now=edge.wall())
        except StatementError as error:
            self._unauthenticated(error.reason)
            return
        tunnels.revoke(revocation, request.token)
        self._answer(build_revocation_accepted())

    def _unauthenticated(self, reason: str) -> None:
        if self._tunnels.refused(self._peer, reason):
            self._answer(build_refusal(429, retry_after=10))
        else:
            self._answer(build_refusal(401))

    def _refuse(self, status: int, reason: str, *, detail: str | None = None, retry_after: int | None = None) -> None:
        self._tunnels.edge.counters.refuse_handshake(reason)
        self._answer(build_refusal(status, detail=detail, retry_after=retry_after))

    def _answer(self, data: bytes) -> None:
        self._answered = True
        self._data.clear()
        self._transport.write(data)
        self._transport.close()
        # A peer that does not take the answer would keep the connection.
        self._tunnels.edge.wheel.arm(self, LINGER_TICKS)

    def _forget(self) -> None:
        self._tunnels.waiting.discard(self)
        self._tunnels.edge.wheel.cancel(self)
