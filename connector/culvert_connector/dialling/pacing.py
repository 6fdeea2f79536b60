"""When a slot that wants to dial may start: the first session alone, then the rest one by one.

Responsible for spacing dials so that a relay that is down or has just come back meets one dialler per connector,
not one per slot; and so that a black-holed address does not hold up the addresses that work.

Must not know: sockets, addresses, how long a dial takes. Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection

SPACING = 0.05
"""Seconds between the starts of two dials; the wire document allows at most 0.1."""
PATIENCE = 1.0
"""Seconds a first dial may take before another slot tries another address beside it."""


def wait_before_dial(*, now: float, last_start: float | None, under_way: Collection[float], connected: int) -> float:
    """Seconds until another dial may start (0: now).

    `under_way` holds the start times of dials that have not ended, `last_start` the newest start of all.
    While nothing is connected a dial under way keeps the others back for PATIENCE.
    """
    wait = 0.0
    if last_start is not None:
        wait = last_start + SPACING - now
    if not connected and under_way:
        wait = max(wait, max(under_way) + PATIENCE - now)
    return max(wait, 0.0)
