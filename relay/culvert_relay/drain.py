"""Going down without losing a request.

Responsible for the order: say that we are leaving, take nothing new, finish what is under way, leave early when
nothing is. Must not know signals. Invariant: it is over at the deadline, or at once when `force` is set.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from culvert_relay.edge import Edge
from culvert_relay.tunnels.tunnels import Tunnels

_LOOK_EVERY: Final = 0.05
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: requests cut off at the deadline (or by force), and whether it was by force."""

    cut: int
    forced: bool


async def drain(
    edge: Edge,
    tunnels: Tunnels,
    *,
    close_listeners: Callable[[], None],
    force: asyncio.Event,
    deadline: float,
    delay: float,
) -> Outcome:
    """Drains visitors and sessions; `deadline` is in seconds from when that begins, `delay` seconds from now.

    Until then everything is served and taken as ever: whoever asks `/readyz` has the time to send visitors elsewhere.

    Connectors are told first, so that they move to other relays while their streams here end. A visitor's next
    request on a kept connection cannot be served any more, hence idle connections are closed in the same turn.
    """
    if delay:
        with suppress(TimeoutError):
            await asyncio.wait_for(force.wait(), delay)
    edge.draining = True
    close_listeners()
    for visitor in tuple(edge.visitors):
        visitor.drain()
    for waiting in tuple(tunnels.waiting):
        waiting.close()
    for session in (*tunnels.sessions(), *tunnels.unproven):
        session.drain("the relay is shutting down")
    until = edge.loop.time() + deadline
    while not force.is_set() and edge.loop.time() < until and any(visitor.busy for visitor in edge.visitors):
        try:
            await asyncio.wait_for(force.wait(), _LOOK_EVERY)
        except TimeoutError:
            continue
    cut = [visitor for visitor in edge.visitors if visitor.busy]
    for visitor in tuple(edge.visitors):
        visitor.abort()
    for session in (*tunnels.sessions(), *tunnels.unproven):
        session.end("the relay is shutting down")
    if cut:
        logger.warning("requests were cut off", extra={"fields": {"requests": len(cut)}})
    # One more turn of the loop, for the farewells to leave.
    await asyncio.sleep(0)
    return Outcome(cut=len(cut), forced=force.is_set())
