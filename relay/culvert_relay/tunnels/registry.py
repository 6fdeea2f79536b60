"""The registry: every live session by its slot, the pools they form, and the table over the pools.

Responsible for joining and leaving, for one session per slot (the highest generation wins) and for telling whose
outcome a change touched. Must not know sockets or frames; what a session is, it knows through `Registered`.
Invariant: a pool is in the table exactly while it has sessions, and a session is in at most one pool.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol, TypeVar

from culvert_protocol.statements import TunnelIdentity
from culvert_relay.routing.pools import Member, Pool
from culvert_relay.routing.table import Entry, Table
from culvert_relay.tunnels.grants import PresentedGrant

MAX_PER_CONNECTOR: Final = 16
MAX_PER_TUNNEL: Final = 1_000
MAX_SESSIONS: Final = 20_000


class Slot(NamedTuple):
    """Where a session lives: one tunnel's, one connector process's, one number."""

    tunnel: TunnelIdentity
    connector: str
    number: int


class Registered(Member, Protocol):
    """A session, as the registry sees it."""

    key: Slot
    generation: int
    pool: "GrantPool | None"


class GrantPool(Pool):
    """A pool and the grant that its sessions present."""

    __slots__ = ("grant",)

    def __init__(self, grant: PresentedGrant) -> None:
        judgement = grant.judgement
        super().__init__(grant.tunnel, grant.version, judgement.claims, judgement.terms)
        self.grant = grant


class Registry:
    """All sessions of this relay."""

    def __init__(self) -> None:
        self.table = Table()
        self._sessions: dict[Slot, Registered] = {}
        self._pools: dict[tuple[TunnelIdentity, bytes], GrantPool] = {}
        self._per_connector: dict[tuple[TunnelIdentity, str], int] = {}
        self._per_tunnel: dict[TunnelIdentity, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Registered]:
        return iter(tuple(self._sessions.values()))

    @property
    def tunnels(self) -> int:
        """How many tunnels have a session."""
        return len(self._per_tunnel)

    def find(self, host: bytes) -> Entry | None:
        """Who serves a host; see `Table.find`."""
        return self.table.find(host)

    def wants(self, slot: Slot, generation: int) -> bool:
        """Whether a session for this slot would be taken: newer than what is there, and not one too many."""
        present = self._sessions.get(slot)
        if present is not None:
            return generation > present.generation
        return (
            self._per_connector.get((slot.tunnel, slot.connector), 0) < MAX_PER_CONNECTOR
            and self._per_tunnel.get(slot.tunnel, 0) < MAX_PER_TUNNEL
            and len(self._sessions) < MAX_SESSIONS
        )

    def enter(self, session: Registered) -> Registered | None:
        """Takes a proven session in; returns the older one of its slot, which the caller ends.

        Raises ValueError when `wants` says no (another session was faster).
        """
        slot = session.key
        if not self.wants(slot, session.generation):
            raise ValueError("this slot has a session of the same or a later generation, or there are enough")
        older = self._sessions.get(slot)
        if older is not None:
            self.leave(older)
        self._sessions[slot] = session
        connector = (slot.tunnel, slot.connector)
        self._per_connector[connector] = self._per_connector.get(connector, 0) + 1
        self._per_tunnel[slot.tunnel] = self._per_tunnel.get(slot.tunnel, 0) + 1
        return older

    def leave(self, session: Registered) -> set[Pool]:
        """Forgets a session, wherever it stands; returns the pools whose outcome changed by it."""
        touched = self.unroute(session)
        slot = session.key
        if self._sessions.get(slot) is session:
            del self._sessions[slot]
            _decrement(self._per_connector, (slot.tunnel, slot.connector))
            _decrement(self._per_tunnel, slot.tunnel)
        return touched

    def known(self, tunnel: TunnelIdentity, digest: bytes) -> PresentedGrant | None:
        """The grant of that exact text when some session presents it already: it need not be verified again."""
        pool = self._pools.get((tunnel, digest))
        return pool.grant if pool is not None else None

    def route(self, session: Registered, grant: PresentedGrant) -> set[Pool]:
        """Puts a session behind a grant's names, replacing its old ones; returns the other pools touched by it.

        The new names are entered before the old ones go, so no name is without a session in between.
        """
        key = (grant.tunnel, grant.digest)
        pool = self._pools.get(key)
        if pool is not None and session.pool is pool:
            return set()
        old = session.pool
        touched: set[Pool] = set()
        if pool is None:
            pool = self._pools[key] = GrantPool(grant)
            touched |= self.table.add(pool)
        pool.add(session)
        session.pool = pool
        if old is not None:
            touched |= self._drop(session, old)
        touched.discard(pool)
        return touched

    def unroute(self, session: Registered) -> set[Pool]:
        """Takes a session out of routing; it stays registered. Returns the pools whose outcome changed by it."""
        pool, session.pool = session.pool, None
        return self._drop(session, pool) if pool is not None else set()

    def pools(self) -> Iterable[GrantPool]:
        """Every pool."""
        return tuple(self._pools.values())

    def _drop(self, session: Registered, pool: GrantPool) -> set[Pool]:
        pool.remove(session)
        if pool.connectors:
            return set()
        del self._pools[pool.tunnel, pool.grant.digest]
        return self.table.remove(pool)


K = TypeVar("K")


def _decrement(counts: dict[K, int], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
