"""One session with one relay, from its HELLO to its end, as the connector sees it.

Responsible for saying HELLO with the proof, presenting grant, revocations and newer credentials, probing the data
path, and draining; and for remembering what the relay answered.

Must not know: when sessions are dialled or replaced, rules, origins; it reports to an owner.

Invariants: `probed` is True only while the newest probe came back through the relay's data queue; a session that was
asked to drain (by either side) never becomes active again; `closed` is reported exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from culvert_connector.dialling.addresses import Address
from culvert_connector.dialling.dialer import Dialled
from culvert_protocol.codes import SessionBusy
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.heads import Open, ResponseHead
from culvert_protocol.messages import (
    PINNING,
    Credential,
    CredentialResult,
    Hello,
    RouteResult,
    Routes,
    RoutesResult,
)
from culvert_protocol.statements import prove
from culvert_protocol.stream import Stream
from culvert_transport.link import SessionLink

log = logging.getLogger(__name__)

PROBE_EVERY: Final = 5.0
"""Seconds between two probes; one that has not come back when the next is due has failed."""
HELLO_TIMEOUT: Final = 5.0
"""Seconds for the relay's HELLO after the upgrade."""
MISSED_PROBES: Final = 2
"""Probes in a row that may fail before the session is replaced: ten seconds at most without a data path."""
STUCK_FOR: Final = 30.0
"""Seconds in which a session that was given up for its data path may still prove that it moves; then what is left on
it is ended, so that nobody waits for it for ever."""
CREDENTIAL_TIMEOUT: Final = 10.0
"""Seconds for the answer to a newer credential."""
STUCK: Final = "its data path is stuck"
IDLE_CHECK: Final = 0.05
"""Seconds between two looks at a draining session's streams."""


class State(StrEnum):
    """A session's state, as the status shows it."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DRAINING = "draining"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Offer:
    """What every session presents: the grant (and its version), and the issuer's revocations."""

    grant: str = field(repr=False)
    version: int
    revocations: tuple[str, ...] = field(default=(), repr=False)


class SessionOwner(Protocol):
    """Who keeps the sessions."""

    def session_changed(self, session: RelaySession) -> None:
        """Something that the status shows has changed."""

    def session_ready(self, session: RelaySession) -> None:
        """The relay said HELLO."""

    def session_draining(self, session: RelaySession, reason: str) -> None:
        """The relay opens nothing more here: another session is needed."""

    def session_stuck(self, session: RelaySession) -> None:
        """Its data path does not work although its heartbeat does."""

    def session_credential(self, session: RelaySession, accepted: bool, reason: str) -> None:
        """The relay's answer (or its absence) to a newer credential."""

    def session_closed(self, session: RelaySession, reason: str) -> None:
        """It is over."""

    def session_opened(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A request; takes over `stream.listener`."""


class RelaySession:
    """A `SessionListener` on a link. `relay_ids` are the ids the relay's HELLO listed, its own included."""

    def __init__(
        self,
        *,
        slot: int,
        address: Address,
        server_name: str,
        credentials: CredentialsFile,
        owner: SessionOwner,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.slot = slot
        self.address = address
        self.relay = ""
        self.relay_ids: tuple[str, ...] = ()
        self.state = State.CONNECTING
        self.probed = False
        self.grant_version = 0
        self.refused: tuple[RouteResult, ...] = ()
        self.routes_error = ""
        self.started_at = loop.time()
        self.close_reason = ""
        self.credentials = credentials
        self.outdated = False
        """Whether the relay refused the newer credential, or did not answer it."""
        self.link = SessionLink(relay=False, listener=self, loop=loop)
        self._server_name = server_name
        self._owner = owner
        self._loop = loop
        self._nonce = ""
        self._offer: Offer | None = None
        self._settled_version = -1
        self._offered: CredentialsFile | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._credential_timer: asyncio.TimerHandle | None = None
        self._probe_pending = False
        self._missed = 0
        self._acknowledged = False
        self._idle_timer: asyncio.TimerHandle | None = None

    # -- the owner's side --------------------------------------------------------------------------------------

    def start(self, dialled: Dialled) -> None:
        """Takes the upgraded connection over and says HELLO."""
        self._nonce = dialled.accepted.nonce
        self.relay = dialled.accepted.relay_id
        proof = prove(self.credentials.private_key, nonce=self._nonce, server_name=self._server_name)
        self.link.session.hello(Hello(software="culvert-connector", proof=proof, features=(PINNING,)))
        self._timer = self._loop.call_later(HELLO_TIMEOUT, self._no_hello)
        self.link.attach(dialled.transport, dialled.leftover)

    @property
    def active(self) -> bool:
        """Whether the relay may open streams here."""
        return self.state is State.CONNECTED

    @property
    def said_hello(self) -> bool:
        """Whether the relay has said HELLO and the session has not ended: it may drain."""
        return self.state in (State.CONNECTED, State.DRAINING)

    @property
    def streams(self) -> int:
        """Streams that are open, probes aside."""
        return sum(1 for stream_id in self.link.session.streams if stream_id % 2 == 0)

    def present(self, offer: Offer) -> None:
        """Presents a grant unless the relay has this very one already, and revocations that are new."""
        before, self._offer = self._offer, offer
        if self.state is not State.CONNECTED:
            return
        session = self.link.session
        if before is None or before.grant != offer.grant:
            if offer.grant:
                session.routes(Routes(offer.grant, offer.revocations))
                return
            self._settled_version = offer.version
        if (before is None or before.revocations != offer.revocations) and offer.revocations:
            session.revoke(offer.revocations)

    def settled(self, version: int) -> bool:
        """Whether the relay has answered the grant of this version or a later one, or will never answer."""
        return self.state in (State.CLOSED, State.DRAINING) or self._settled_version >= version

    def renew(self, credentials: CredentialsFile) -> None:
        """Presents a newer credential of the same tunnel; the owner hears `session_credential`.

        Also while it drains: what it still serves must outlast the revocation of the older one.
        """
        if not self.said_hello:
            return
        self._offered = credentials
        proof = prove(credentials.private_key, nonce=self._nonce, server_name=self._server_name)
        self.link.session.credential(Credential(credentials.credential, proof))
        if self._credential_timer is not None:
            self._credential_timer.cancel()
        self._credential_timer = self._loop.call_later(CREDENTIAL_TIMEOUT, self._no_credential_result)

    def drain(self, reason: str) -> None:
        """Asks the relay for no new streams; closes once it agreed and the last stream ended."""
        if self.state is State.CLOSED:
            return
        if self.state is State.CONNECTING:
            self.close(reason)
            return
        self.link.session.drain(reason)
        self._begin_draining()

    def leave_stuck(self) -> None:
        """Drains a session whose probes are lost; closes it when not even the answer to that comes in time.

        DRAIN_ACK goes the way of data: with it, what is left here still moves.
        """
        self.drain(STUCK)
        if self.state is State.DRAINING:
            self._timer = self._loop.call_later(STUCK_FOR, self._still_stuck)

    def close(self, reason: str) -> None:
        """Ends the session and every stream on it now."""
        self.link.close(reason)

    # -- the session's side ------------------------------------------------------------------------------------

    def on_hello(self, hello: Hello) -> None:
        """The relay is there: grant, revocations and the first probe go out."""
        self._stop_timer()
        self.relay = hello.relay or self.relay
        self.relay_ids = hello.ids or (self.relay,)
        self.state = State.CONNECTED
        offer, self._offer = self._offer, None
        if offer is not None:
            self.present(offer)
        self._owner.session_ready(self)
        self._probe()

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        """A request."""
        self._owner.session_opened(stream, head, body, fin)

    def on_routes(self, routes: Routes) -> None:
        """Never: the session's tables refuse it."""

    def on_credential(self, credential: Credential) -> None:
        """Never: the session's tables refuse it."""

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        """Never: the session's tables refuse it."""

    def on_routes_result(self, result: RoutesResult) -> None:
        """Which hostnames the relay serves for this tunnel."""
        offer = self._offer
        if offer is None or (result.version != offer.version and not result.error):
            return  # an older grant's answer: the newest one's is on its way
        self._settled_version = offer.version
        self.grant_version = 0 if result.error else result.version
        self.routes_error = result.error
        self.refused = tuple(one for one in result.results if not one.accepted)
        if result.error:
            log.warning(
                "Relay %s refused the grant of version %d: %s.", self.relay, offer.version, result.error,
                extra={"fields": {"relay": self.relay, "reason": result.error}},
            )  # fmt: skip
        for one in self.refused[:20]:
            log.warning(
                "Relay %s refused the hostname %s: %s.", self.relay, one.hostname, one.reason,
                extra={"fields": {"relay": self.relay, "hostname": one.hostname, "reason": one.reason}},
            )  # fmt: skip
        self._owner.session_changed(self)

    def on_credential_result(self, result: CredentialResult) -> None:
        """The relay took the newer credential, or keeps to the old one."""
        offered, self._offered = self._offered, None
        if self._credential_timer is not None:
            self._credential_timer.cancel()
            self._credential_timer = None
        if offered is None:
            return
        self.outdated = not result.accepted
        if result.accepted:
            self.credentials = offered
        self._owner.session_credential(self, result.accepted, result.reason)

    def on_drain(self, reason: str) -> None:
        """The relay leaves. Its DRAIN may have overtaken requests: our own DRAIN's answer comes after the last one."""
        self.link.session.drain("the relay drains")
        if self.state is State.CONNECTED:
            self._begin_draining()
            self._owner.session_draining(self, reason)

    def on_drain_ack(self) -> None:
        """Every stream the relay opened has arrived."""
        self._acknowledged = True
        self._check_idle()

    def on_pong(self, token: bytes) -> None:
        """The link measures round trips by itself."""

    def on_closed(self, reason: str) -> None:
        """The end; all streams have heard of it."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self.probed = False
        self.close_reason = reason
        self._stop_timer()
        for timer in (self._credential_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._owner.session_closed(self, reason)

    # -- probing -----------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        if self.state is not State.CONNECTED:
            return
        if self._probe_pending:
            self._missed += 1
            if self.probed:
                self.probed = False
                self._owner.session_changed(self)
            if self._missed >= MISSED_PROBES:
                self._owner.session_stuck(self)
                return
        else:
            try:
                self.link.session.probe(_Probe(self))
            except SessionBusy:
                return
            self._probe_pending = True
        self._timer = self._loop.call_later(PROBE_EVERY, self._probe)

    def probe_ended(self, came_back: bool) -> None:
        """A probe's outcome; called by the probe."""
        self._probe_pending = False
        if not came_back or self.state is not State.CONNECTED:
            return
        self._missed = 0
        if not self.probed:
            self.probed = True
            self._owner.session_changed(self)

    # -- inside ------------------------------------------------------------------------------------------------

    def _begin_draining(self) -> None:
        if self.state is State.DRAINING:
            return
        self.state = State.DRAINING
        self.probed = False
        self._stop_timer()
        self._owner.session_changed(self)
        self._idle_timer = self._loop.call_later(IDLE_CHECK, self._check_idle)

    def _check_idle(self) -> None:
        if self.state is not State.DRAINING:
            return
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._acknowledged and not self.streams and not self.link.queued:
            self.link.close("drained")
            return
        self._idle_timer = self._loop.call_later(IDLE_CHECK, self._check_idle)

    def _still_stuck(self) -> None:
        self._timer = None
        if not self._acknowledged:
            self.close(STUCK)

    def _no_hello(self) -> None:
        self._timer = None
        self.close(f"the relay sent no HELLO within {HELLO_TIMEOUT:g} s")

    def _no_credential_result(self) -> None:
        self._credential_timer = None
        if self._offered is not None and self.said_hello:
            self._offered = None
            self.outdated = True
            self._owner.session_credential(self, False, "no_answer")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Probe:
    """The listener of a probe's stream: an echo that went through both data queues."""

    __slots__ = ("_session",)

    def __init__(self, session: RelaySession) -> None:
        self._session = session

    def on_head(self, head: ResponseHead) -> None:
        """Never: a probe has no head."""

    def on_data(self, data: bytes) -> None:
        """The token, echoed."""

    def on_end(self) -> None:
        """The echo is complete."""
        self._session.probe_ended(True)

    def on_reset(self, code: int, reason: str) -> None:
        """The relay refused it, or the session ended."""
        self._session.probe_ended(False)

    def on_writable(self) -> None:
        """Nothing was held."""
