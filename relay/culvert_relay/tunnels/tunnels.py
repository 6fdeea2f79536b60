"""All tunnels of the relay: what sessions tell it, and what it tells them.

Responsible for carrying out what the registry decides: replacing, routing, telling pools whose outcome changed,
revoking, the second-by-second upkeep (probes, expiry). Must not know sockets or handshakes' bytes.
Invariant: a revoked or replaced session is ended in the same loop turn in which the relay learns of it.
"""

import logging
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final, Protocol

from culvert_protocol.granted import port_name
from culvert_protocol.messages import RoutesResult
from culvert_protocol.statements import LEEWAY_SECONDS, Revocation
from culvert_relay.edge import Edge
from culvert_relay.routing.pools import Pool
from culvert_relay.tunnels.grants import PresentedGrant, RefusedGrant, examine, routes_result
from culvert_relay.tunnels.probing import EVERY
from culvert_relay.tunnels.registry import GrantPool
from culvert_relay.tunnels.session import DRAIN_BEFORE_EXPIRY, TunnelSession

if TYPE_CHECKING:
    import asyncio

MAX_LEARNED: Final = 4096
"""Only what an issuer of this relay signed gets in; beyond, signatures are verified once more."""

logger = logging.getLogger(__name__)


class Waiting(Protocol):
    """A connection that has not been answered yet."""

    def close(self) -> None:
        """The relay is shutting down."""


class Doors(Protocol):
    """The TCP ports that follow the table."""

    unavailable: set[str]
    """Names (`tcp:<port>`) of those that could not be listened on."""

    def settle(self) -> bool:
        """Opens what is held and closes what is not; True when `unavailable` changed."""


class Tunnels:
    """The sessions of one relay. `executor` is where large grants are verified; `remember` hears that a revocation was
    learned."""

    def __init__(
        self,
        edge: Edge,
        *,
        executor: Executor | None = None,
        doors: Doors | None = None,
        remember: Callable[[], None] = lambda: None,
    ) -> None:
        self.edge = edge
        self._remember = remember
        self._doors = doors
        self.executor = executor
        self.unproven: set[TunnelSession] = set()
        self.waiting: set[Waiting] = set()
        self.learned: set[str] = set()
        """Revocations that sessions need not have verified again, as they came."""
        self._touched: set[Pool] = set()
        self._telling = False
        self._beat: asyncio.TimerHandle | None = None
        self._beats = 0

    def sessions(self) -> list[TunnelSession]:
        """Every proven session."""
        return [session for session in self.edge.registry if isinstance(session, TunnelSession)]

    # -- what sessions say ---------------------------------------------------------------------------------------

    def enter(self, session: TunnelSession) -> None:
        """A session has proven itself."""
        registry = self.edge.registry
        self.unproven.discard(session)
        try:
            older = registry.enter(session)
        except ValueError as error:
            session.end(str(error))
            return
        session.tally = self.edge.counters.tunnels.enter(
            session.tunnel, issuer=self.edge.issuer_label(session.tunnel.issuer)
        )
        if isinstance(older, TunnelSession):
            older.end(f"replaced by generation {session.generation} of its slot")
        if self.edge.draining:
            session.drain("the relay is shutting down")
        logger.info("session opened", extra={"fields": _fields(session)})

    def closed(self, session: TunnelSession, reason: str) -> None:
        """A session is over."""
        self.unproven.discard(session)
        if session.proven:
            self.edge.counters.end_session(reason)
            self.edge.counters.tunnels.leave(session.tally)
            logger.info("session ended", extra={"fields": {**_fields(session), "reason": reason}})
        self._tell_later(self.edge.registry.leave(session))
        self._settle()

    def route(self, session: TunnelSession, grant: PresentedGrant) -> None:
        """A session presents a good grant: it is answered, and so are the tunnels that lose or win by it."""
        registry = self.edge.registry
        touched = registry.route(session, grant)
        session.update()
        self._settle()
        if session.pool is not None:
            session.send(self._result(session.pool))
        self._tell_later(touched)

    def unroute(self, session: TunnelSession) -> None:
        """A session serves nothing any more."""
        touched = self.edge.registry.unroute(session)
        session.update()
        self._settle()
        self._tell_later(touched)

    def revoke(self, revocation: Revocation, token: str) -> None:
        """A verified revocation, and its text: sessions with older credentials end now."""
        if len(self.learned) >= MAX_LEARNED:
            self.learned.clear()
        self.learned.add(token)
        if not self.edge.revocations.learn(revocation):
            return
        self._remember()
        ended = 0
        for session in (*self.sessions(), *self.unproven):
            if revocation.revokes(session.credential):
                session.end("the credential has been revoked")
                ended += 1
        logger.info(
            "revocation learned",
            extra={"fields": {"tunnel": revocation.tunnel.subject, "sessions_ended": ended}},
        )

    def refused(self, peer: str, reason: str) -> bool:
        """A handshake failed to authenticate; returns True when `peer` has failed too often."""
        self.edge.counters.refuse_handshake(reason)
        return self.edge.limiter.failed(peer, now=self.edge.loop.time())

    def keys_changed(self) -> None:
        """The issuers' keys were read anew: sessions whose issuer or key is gone end."""
        keys = self.edge.issuers.keys
        for session in (*self.sessions(), *self.unproven):
            if session.credential.signed_by not in keys:
                session.end("the issuer's key is no longer accepted here")

    def names_changed(self, issuers: Collection[str]) -> None:
        """What these issuers (their ids) may grant was changed: the grants in force are judged anew.

        In one turn of the loop, so that a name which stays is never without its sessions.
        """
        edge, touched = self.edge, set[Pool]()
        for pool in edge.registry.pools():
            if pool.tunnel.issuer not in issuers or pool.tunnel.issuer not in edge.issuers.by_id:
                continue
            grant = examine(pool.grant.token, tunnel=pool.tunnel, issuers=edge.issuers, now=edge.wall())
            members = [session for session in pool.sessions() if isinstance(session, TunnelSession)]
            for session in members:
                touched |= edge.registry.unroute(session)
            for session in members:
                if isinstance(grant, RefusedGrant):
                    session.send(RoutesResult(grant.version, error=grant.reason))
                else:
                    touched |= edge.registry.route(session, grant)
                    touched |= {session.pool} if session.pool is not None else set()
                session.update()
        self._settle()
        self._tell_later(touched)

    # -- upkeep --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins the upkeep, once a second."""
        self._beat = self.edge.loop.call_later(1.0, self._upkeep)

    def stop(self) -> None:
        """Ends it."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _upkeep(self) -> None:
        self._beat = self.edge.loop.call_later(1.0, self._upkeep)
        self._beats += 1
        for session in self.sessions():
            # Spread over the seconds, so that a relay with thousands of sessions does not probe all at once.
            if (self._beats + id(session) // 64) % EVERY == 0 and not session.session.draining:
                session.probe.look()
        if self._beats % EVERY == 0:
            self._check_expiry()
            self._settle()

    def _check_expiry(self) -> None:
        now = self.edge.wall()
        for session in self.sessions():
            expires = session.credential.expires_at
            if now - LEEWAY_SECONDS >= expires:
                session.end("the credential has expired")
            elif now + DRAIN_BEFORE_EXPIRY >= expires and not session.session.drain_sent:
                session.drain("the credential is about to expire")
        for pool in self.edge.registry.pools():
            if pool.grant.expired(now):
                for member in pool.sessions():
                    if isinstance(member, TunnelSession):
                        member.expire_grant()

    # -- telling what changed ------------------------------------------------------------------------------------

    def _result(self, pool: GrantPool) -> RoutesResult:
        unavailable = self._doors.unavailable if self._doors is not None else ()
        return routes_result(pool.grant, self.edge.registry.table.held(pool), unavailable=unavailable)

    def _settle(self) -> None:
        if self._doors is not None and self._doors.settle():
            # Rare: everyone with a TCP port hears of it, whether one became available or not.
            ports = {port_name(port) for port in self.edge.registry.table.ports()}
            self._tell_later({pool for pool in self.edge.registry.pools() if not ports.isdisjoint(pool.claims)})

    def _tell_later(self, touched: set[Pool]) -> None:
        if not touched:
            return
        self._touched |= touched
        if not self._telling:
            self._telling = True
            self.edge.loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        touched, self._touched = self._touched, set()
        for pool in touched:
            if isinstance(pool, GrantPool) and pool.connectors:
                result = self._result(pool)
                for session in pool.sessions():
                    if isinstance(session, TunnelSession):
                        session.send(result)


def _fields(session: TunnelSession) -> dict[str, object]:
    return {
        "tunnel": session.tunnel.subject,
        "connector": session.connector,
        "slot": session.slot,
        "generation": session.generation,
        "peer": session.peer,
    }
