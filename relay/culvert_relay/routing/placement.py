"""Placement: which session gets the next stream.

Responsible for the choice alone. Across connectors the better of two random ones by open streams, because an
autoscaler needs load on every replica. Within a connector packed, then spilled: the first session with little
queued and no bulk stream, because batching halves CPU; otherwise the least queued.
Randomness comes in as a function; nothing here changes anything.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final

from culvert_relay.routing.pools import Connector, Member, Pool

LITTLE_QUEUED: Final = 65_536
_NONE: Final[frozenset[Member]] = frozenset()


def place(pools: Sequence[Pool], *, random: Callable[[], float], excluded: Collection[Member] = _NONE) -> Member | None:
    """The session for a new stream; None when none may get one. `random` returns a float in [0, 1)."""
    if len(pools) == 1:
        connectors: Sequence[Connector] = pools[0].connectors
    else:
        connectors = [connector for pool in pools for connector in pool.connectors]
    count = len(connectors)
    if count == 1:
        return pick(connectors[0].sessions, excluded)
    if count == 0:
        return None
    first = int(random() * count)
    second = int(random() * (count - 1))
    if second >= first:
        second += 1
    better, other = connectors[first], connectors[second]
    if other.outstanding < better.outstanding:
        better, other = other, better
    chosen = pick(better.sessions, excluded) or pick(other.sessions, excluded)
    if chosen is None and count > 2:
        for connector in connectors:
            chosen = pick(connector.sessions, excluded)
            if chosen is not None:
                break
    return chosen


def place_elsewhere(pools: Sequence[Pool], tried: Collection[Member], *, random: Callable[[], float]) -> Member | None:
    """The session for a request that the sessions in `tried` have failed: another connector's if there is one.

    Sessions of one connector share its fate; the siblings of one that was lost will be lost in a moment.
    """
    suspects = {member.connector for member in tried}
    siblings = {
        session
        for pool in pools
        for connector in pool.connectors
        if connector.id in suspects
        for session in connector.sessions
    }
    chosen = place(pools, random=random, excluded=siblings.union(tried))
    return chosen or place(pools, random=random, excluded=tried)


def pick(sessions: Sequence[Member], excluded: Collection[Member] = _NONE) -> Member | None:
    """The session of one connector: the first with little queued and no bulk stream, else the least queued."""
    best: Member | None = None
    least = 0
    for session in sessions:
        if not session.usable or (excluded and session in excluded):
            continue
        if len(session.streams) >= session.stream_limit:
            continue
        queued = session.queued
        if queued < LITTLE_QUEUED and not session.bulk_streams:
            return session
        if best is None or queued < least:
            best, least = session, queued
    return best
