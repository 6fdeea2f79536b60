"""What all visitors' connections and all sessions of one relay share.

Responsible for holding it together: registry, issuers, counters, deadlines, the flags that change while it runs.
Decides nothing itself. Invariant: used from the event loop's thread only.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from culvert_relay.accepting import Gate
from culvert_relay.admission import membership
from culvert_relay.config_front import DEFAULT_FRONT, Front
from culvert_relay.issuers import Issuers
from culvert_relay.metrics import Counters
from culvert_relay.tunnels.limiter import FailureLimiter
from culvert_relay.tunnels.registry import Registry
from culvert_relay.tunnels.revocations import Revocations
from culvert_relay.visitors.departures import look
from culvert_relay.wheel import AT_ONCE, TICK_SECONDS, Wheel, ticks

if TYPE_CHECKING:
    from culvert_relay.access.log import AccessLog
    from culvert_relay.access.marking import Marking
    from culvert_relay.visitors.exchange import Exchange
    from culvert_relay.visitors.line import VisitorLine


class Edge:
    """One relay's shared state. `random` returns a float in [0, 1); `wall` is unix seconds."""

    def __init__(
        self,
        *,
        relay_id: str,
        server_names: tuple[str, ...],
        issuers: Issuers,
        loop: asyncio.AbstractEventLoop,
        front: Front = DEFAULT_FRONT,
        revocations: Revocations | None = None,
        random: Callable[[], float] = random.random,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.relay_id = relay_id
        self.server_names = server_names
        self.own_hosts = frozenset(_host(name) for name in server_names)
        self.issuers = issuers
        self.loop = loop
        self.front = front
        self.limits = limits = front.limits
        self.head_ticks = ticks(limits.head_seconds)
        self.idle_ticks = ticks(limits.idle_seconds)
        self.stall_ticks = ticks(limits.stall_seconds)
        self.request_ticks = ticks(limits.request_seconds) if limits.request_seconds else 0
        self.trusts = membership(front.trusted_proxies)
        self.random = random
        self.wall = wall
        self.registry = Registry()
        self.revocations = revocations or Revocations()
        self.limiter = FailureLimiter()
        self.counters = Counters()
        self.gate = Gate(loop, self.counters, limits, trusted=self.trusts, announced_by=front.proxy_protocol_from)
        self.wheel = Wheel()
        self.visitors: set[VisitorLine] = set()
        self.paused: set[VisitorLine] = set()
        """Those that are not read at the moment."""
        self.unflushed: list[Exchange] = []
        self.access_log: AccessLog | None = None
        self.marking: Marking | None = None
        self.draining = False
        self.accepting = True
        self._ticking: asyncio.TimerHandle | None = None
        self._started = loop.time()

    def issuer_label(self, issuer_id: str) -> str:
        """What `relay.yml` calls an issuer."""
        issuer = self.issuers.by_id.get(issuer_id)
        return issuer.label if issuer is not None else issuer_id

    def flush(self) -> None:
        """Writes what responses have gathered; called after each batch of a session's frames."""
        unflushed = self.unflushed
        if unflushed:
            self.unflushed = []
            for exchange in unflushed:
                exchange.flush()

    def start(self) -> None:
        """Begins to advance the deadlines."""
        self._started = self.loop.time()
        self._tick()

    def stop(self) -> None:
        """Stops advancing them."""
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    def _tick(self) -> None:
        now = int((self.loop.time() - self._started) / TICK_SECONDS)
        self._ticking = self.loop.call_at(self._started + (now + 1) * TICK_SECONDS, self._tick)
        self._expire(now)
        look(tuple(self.paused))

    def _expire(self, now: int) -> None:
        if self.wheel.advance(now, most=AT_ONCE) and self._ticking is not None:
            self.loop.call_soon(self._expire, now)


def _host(name: str) -> bytes:
    """A server name as it comes out of a visitor's Host: IPv6 addresses in brackets."""
    return f"[{name}]".encode() if ":" in name else name.encode()
