"""One connector's session at the relay: who it is, what it may serve, whether it is well.

Responsible for the order of HELLO, proof, ROUTES and credentials, for the answers to them and for the end. Must not
know visitors or HTTP. Invariants: nothing but HELLO is heeded before the proof was checked; a grant never serves a
tunnel other than the credential's; of several grants the highest version is in force.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from culvert_protocol import messages
from culvert_protocol.codes import ProtocolError, ResetCode
from culvert_protocol.heads import Open
from culvert_protocol.statements import (
    Credential,
    StatementError,
    check_proof,
    verify_credential,
    verify_revocation,
)
from culvert_protocol.stream import Stream
from culvert_relay.tunnels.grants import (
    EXPIRED,
    LARGE_GRANT,
    PresentedGrant,
    RefusedGrant,
    digest_of,
    examine,
)
from culvert_relay.tunnels.link import TunnelLink
from culvert_relay.tunnels.probing import Probe
from culvert_relay.tunnels.registry import GrantPool, Slot
from culvert_relay.wheel import ticks

if TYPE_CHECKING:
    from culvert_relay.tunnels.tunnels import Tunnels

HELLO_TICKS: Final = ticks(10)
DRAIN_BEFORE_EXPIRY: Final = 60.0
"""Seconds before a credential expires at which its session is asked to move."""
SOFTWARE: Final = "culvert"
logger = logging.getLogger(__name__)


class TunnelSession:
    """A session between its 101 and its end; `Registered` for routing, `SessionListener` for the protocol."""

    def __init__(
        self,
        tunnels: "Tunnels",
        *,
        credential: Credential,
        nonce: str,
        connector: str,
        slot: int,
        generation: int,
        peer: str,
    ) -> None:
        self._tunnels = tunnels
        self._edge = tunnels.edge
        self.credential = credential
        self.tunnel = credential.tunnel
        self.connector = connector
        self.slot = slot
        self.generation = generation
        self.key = Slot(credential.tunnel, connector, slot)
        self.peer = peer
        self.pool: GrantPool | None = None
        self.grant_version = 0
        self.proven = False
        self.usable = False
        self.tally = self._edge.counters.tunnels.nobody
        self.heard = False
        self.software = ""
        self.pins = False
        self.opened_at = self._edge.wall()
        self.stream_limit = 0
        self.deadline = 0
        self.scheduled = 0
        self.link = TunnelLink(relay=True, listener=self, loop=self._edge.loop, edge=self._edge)
        self.link.on_round_trip = self._edge.counters.round_trips.observe
        self.session = self.link.session
        self.streams = self.session.streams
        self.probe = Probe(self)
        self._nonce = nonce
        self._examining = False
        self._next_routes: messages.Routes | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """Takes the connection over behind the 101 and sends our HELLO."""
        self._edge.wheel.arm(self, HELLO_TICKS)
        self.session.hello(messages.Hello(software=SOFTWARE, relay=self._edge.relay_id, ids=(self._edge.relay_id,)))
        self.link.attach(transport)

    @property
    def queued(self) -> int:
        """Bytes that wait in the session, which placement compares."""
        return self.session.queued

    @property
    def bulk_streams(self) -> int:
        """Streams that move bulk data."""
        return self.session.bulk_streams

    def update(self) -> None:
        """Settles anew whether this session may get streams."""
        session = self.session
        self.usable = (
            self.proven and not session.closed and not session.draining and self.probe.passed and self.pool is not None
        )

    def drain(self, reason: str) -> None:
        """Asks the connector to move; what is under way is still served."""
        self.session.drain(reason)
        self.update()

    def end(self, reason: str) -> None:
        """Ends the session; the connector reads the reason in a last DRAIN."""
        self.session.drain(reason)
        self.session.close(reason)

    def on_deadline(self) -> None:
        """The wheel's word: no HELLO in time."""
        self.end("no HELLO within 10 s")

    # -- SessionListener -----------------------------------------------------------------------------------------

    def on_hello(self, hello: messages.Hello) -> None:
        """The proof of possession: from here on the session counts."""
        self._edge.wheel.cancel(self)
        names = self._edge.server_names
        if not check_proof(self.credential, hello.proof, nonce=self._nonce, server_names=names):
            self._tunnels.refused(self.peer, "bad_proof")
            self.end("the proof does not fit the credential, this relay's nonce and its server names")
            return
        if self._edge.revocations.revokes(self.credential):
            self.end("the credential has been revoked")
            return
        self.stream_limit = self.session.peer_max_streams
        self.software = hello.software
        self.pins = messages.PINNING in hello.features
        self.proven = True
        self._tunnels.enter(self)

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A connector opens probes only, and those the protocol answers itself."""
        stream.reset(ResetCode.PROTOCOL_ERROR, "unexpected_open")

    def on_routes(self, routes: messages.Routes) -> None:
        """A grant; one at a time, and while one is examined only the newest of the following is kept."""
        if not self.proven:
            return
        if self._examining:
            self._next_routes = routes
            return
        self._learn(routes.revocations)
        if self.session.closed:
            return
        edge = self._edge
        known = edge.registry.known(self.tunnel, digest_of(routes.grant))
        if known is not None and not known.expired(edge.wall()):
            self._settle(known)
        elif len(routes.grant) > LARGE_GRANT:
            self._examining = True
            job = edge.loop.run_in_executor(self._tunnels.executor, self._examine, routes.grant)
            job.add_done_callback(self._examined)
        else:
            self._settle(self._examine(routes.grant))

    def on_routes_result(self, result: messages.RoutesResult) -> None:
        """Never heard by a relay."""

    def on_credential(self, credential: messages.Credential) -> None:
        """A newer credential of the same tunnel, with a proof over this session's nonce by its own key."""
        reason = self._change_credential(credential)
        self.session.credential_result(messages.CredentialResult(not reason, reason))

    def on_credential_result(self, result: messages.CredentialResult) -> None:
        """Never heard by a relay."""

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        """Signed revocations, of whichever tunnel."""
        if self.proven:
            self._learn(revocations)

    def on_drain(self, reason: str) -> None:
        """The connector is leaving: no new streams to it."""
        self.update()

    def on_drain_ack(self) -> None:
        """The connector opens nothing more: there was nothing but probes."""

    def on_pong(self, token: bytes) -> None:
        """The link measures the round trip."""

    def on_closed(self, reason: str) -> None:
        """The session is over."""
        self.usable = False
        self._edge.wheel.cancel(self)
        self._tunnels.closed(self, reason)

    # -- inside --------------------------------------------------------------------------------------------------

    def _learn(self, tokens: tuple[str, ...]) -> None:
        for token in tokens:
            if token in self._tunnels.learned:
                continue  # every session of an issuer's connectors repeats them: one signature is verified once
            try:
                revocation = verify_revocation(token, self._edge.issuers.keys, now=self._edge.wall())
            except StatementError:
                # Another relay's issuer, or a clock: not this session's fault, and of no effect.
                continue
            self._tunnels.revoke(revocation, token)

    def _examine(self, token: str) -> PresentedGrant | RefusedGrant:
        edge = self._edge
        return examine(token, tunnel=self.tunnel, issuers=edge.issuers, now=edge.wall())

    def _examined(self, job: "asyncio.Future[PresentedGrant | RefusedGrant]") -> None:
        self._examining = False
        if self.session.closed or job.cancelled():
            return
        error = job.exception()
        if error is not None:
            logger.error("a grant could not be examined", exc_info=error)
            self.end("the relay failed to examine the grant")
            return
        self._settle(job.result())
        routes, self._next_routes = self._next_routes, None
        if routes is not None:
            self.on_routes(routes)

    def _settle(self, grant: PresentedGrant | RefusedGrant) -> None:
        if isinstance(grant, RefusedGrant):
            logger.warning(
                "a grant was refused: %s",
                grant.sentence,
                extra={"fields": {"tunnel": self.tunnel.subject, "peer": self.peer}},
            )
            self.session.routes_result(messages.RoutesResult(grant.version, error=grant.reason))
            return
        if grant.version < self.grant_version:
            return
        self.grant_version = grant.version
        self._tunnels.route(self, grant)

    def expire_grant(self) -> None:
        """The grant in force holds no more: the session serves nothing until a new one comes."""
        version = self.grant_version
        self._tunnels.unroute(self)
        self.session.routes_result(messages.RoutesResult(version, error=EXPIRED))

    def _change_credential(self, presented: messages.Credential) -> str:
        """Takes a newer credential; returns the token of why not, or ""."""
        edge = self._edge
        try:
            credential = verify_credential(presented.credential, edge.issuers.keys, now=edge.wall())
        except StatementError as error:
            return error.reason
        if credential.tunnel != self.tunnel:
            return "wrong_tunnel"
        if credential.issued_at < self.credential.issued_at:
            return "older"
        if edge.revocations.revokes(credential):
            return "revoked"
        if not check_proof(credential, presented.proof, nonce=self._nonce, server_names=edge.server_names):
            return "bad_proof"
        self.credential = credential
        return ""

    def send(self, result: messages.RoutesResult) -> None:
        """Sends a ROUTES_RESULT; one that is too large for a message says so instead."""
        try:
            self.session.routes_result(result)
        except ValueError:
            self.session.routes_result(messages.RoutesResult(result.version, error="too_many_names"))
        except ProtocolError as error:
            self.session.close(str(error))
