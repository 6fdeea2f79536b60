"""When a session moves to an address or relay that has none, or has fewer than another address has.

Responsible for not moving again and again when moving does not help: the interval doubles while the same addresses and
relay ids stay without a session, or behind.

Must not know: sessions, sockets, clocks; times are seconds of any one monotonic clock.

Invariant: a session that alone covers its address or relay never moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from culvert_connector.dialling import addresses as choosing
from culvert_connector.dialling.addresses import Address


class Spread:
    """What has been missing, and since when it is looked for."""

    __slots__ = ("_missing", "_move_at", "_moves")

    def __init__(self) -> None:
        self._missing: frozenset[str] = frozenset()
        self._move_at = 0.0
        self._moves = 0

    def moving(
        self,
        held: Mapping[int, tuple[Address, str]],
        *,
        addresses: Sequence[Address],
        relay_ids: Iterable[str],
        now: float,
        every: float,
    ) -> int | None:
        """The slot whose session should move now, or None. `held` and the rest as for `addresses.crowded`."""
        missing, mover = choosing.uncovered(held, addresses=addresses, relay_ids=relay_ids), choosing.crowded
        if not missing:
            behind = choosing.behind(held, addresses=addresses)
            # Not the same trouble as having none: where the first session has come, the second is not put off.
            missing, mover = frozenset(f"more at {address}" for address in behind), choosing.heaviest
        if missing != self._missing:
            self._missing, self._moves, self._move_at = missing, 0, now
        moving = mover(held, addresses=addresses) if missing and now >= self._move_at else None
        if moving is not None:
            self._move_at = now + every * 2.0 ** min(self._moves, 6)
            self._moves += 1
        return moving
