"""How sessions end when the connector stops: drained while their streams last, then closed with a word of farewell.

Responsible for the order and for the two deadlines. Must not know places, dials, signals.

Invariant: it returns, whatever a relay does: no peer holds up the exit beyond the deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from culvert_connector.session import RelaySession, State

FAREWELL_WITHIN: Final = 0.5
"""Seconds that a peer which reads nothing may hold up the exit."""
LOOK_EVERY: Final = 0.05


async def drain(sessions: Sequence[RelaySession], reason: str, *, acknowledged_within: float, deadline: float) -> None:
    """Drains them, and returns when all have ended or `deadline` (loop time) is here: what is left then is cut.

    A relay that does not acknowledge within `acknowledged_within` seconds does not hold up the exit once its streams
    are served.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for session in sessions:
        session.drain(reason)
    while loop.time() < deadline:
        live = [one for one in sessions if one.state is not State.CLOSED]
        late = loop.time() - begun > acknowledged_within
        if not live or (late and not any(one.streams or one.link.queued for one in live)):
            break
        await asyncio.sleep(min(LOOK_EVERY, max(deadline - loop.time(), 0.0)))
    await end(sessions)


async def end(sessions: Sequence[RelaySession]) -> None:
    """Closes them, and lets the farewells leave before the loop ends."""
    for session in sessions:
        session.close("the connector stops")
    leaving = [asyncio.ensure_future(session.link.gone()) for session in sessions]
    if leaving:
        _, slow = await asyncio.wait(leaving, timeout=FAREWELL_WITHIN)
        for waiting in slow:
            waiting.cancel()
