"""What each tunnel's requests come to: the plain numbers that exchanges add to.

Responsible for finding a tunnel's numbers once, when its session enters, and for how many tunnels have numbers of
their own. Must not know metrics' names or how a request is served.

Invariant: at most `limit` tunnels are told apart, however many come and go. Beyond it a tunnel without sessions gives
its place up, its numbers with it (a counter that starts again, which is what Prometheus takes a smaller value for);
when all have sessions, what comes later is counted together as `_other`.
"""

from collections.abc import Iterator
from typing import Final

from culvert_protocol.statements import TunnelIdentity
from culvert_transport.instruments import OTHER
from culvert_transport.traffic import Traffic

MAX_TUNNELS: Final = 100


class Tally(Traffic):
    """One tunnel's numbers, labelled (issuer, tunnel), and how many sessions count there."""

    __slots__ = ("sessions",)

    def __init__(self, issuer: str, tunnel: str) -> None:
        super().__init__(issuer, tunnel)
        self.sessions = 0


class Tallies:
    """All tallies. `nobody` counts requests that belong to no tunnel, `other` those of tunnels beyond the bound."""

    def __init__(self, limit: int = MAX_TUNNELS) -> None:
        self.nobody = Tally("", "")
        self.other = Tally(OTHER, OTHER)
        self._limit = limit
        self._tunnels: dict[TunnelIdentity, Tally] = {}

    def enter(self, tunnel: TunnelIdentity, *, issuer: str) -> Tally:
        """A session of this tunnel begins: where its requests are counted. `issuer` is what people call its issuer."""
        tally = self._tunnels.get(tunnel)
        if tally is None:
            tally = self._admit(tunnel, issuer)
        tally.sessions += 1
        return tally

    def leave(self, tally: Tally) -> None:
        """A session that was counted there has ended."""
        tally.sessions -= 1

    def of(self, tunnel: TunnelIdentity | None) -> Tally:
        """Where a request that found no session is counted."""
        if tunnel is None:
            return self.nobody
        return self._tunnels.get(tunnel, self.other)

    def __iter__(self) -> Iterator[Tally]:
        yield self.nobody
        yield from self._tunnels.values()
        yield self.other

    def _admit(self, tunnel: TunnelIdentity, issuer: str) -> Tally:
        if len(self._tunnels) >= self._limit:
            gone = next((known for known, tally in self._tunnels.items() if not tally.sessions), None)
            if gone is None:
                return self.other
            del self._tunnels[gone]
        tally = self._tunnels[tunnel] = Tally(issuer, tunnel.subject)
        return tally
