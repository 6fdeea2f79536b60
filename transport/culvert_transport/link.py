"""A session on a transport: an asyncio protocol that pumps bytes both ways and keeps the session's time.

Responsible for coalescing (what one loop turn queues leaves as one write), backpressure between transport and
session, the heartbeat and noticing a dead peer. Decides nothing about streams or routes.
Invariants: no task and no timer per frame, nor a timer per session; reading is never paused for one stream; a session
that hears nothing ends within three seconds; where this very process was the one that slept, it reads for one more beat
first, and only one; whoever is asked answers, so that at rest one end's asking keeps both ends alive.
"""

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Final

from culvert_protocol.credit import Allowance
from culvert_protocol.frames import BEAT_SIZE, HEADER_SIZE, PING_HEAD, PONG_HEAD
from culvert_protocol.listeners import SessionListener
from culvert_protocol.messages import MAX_STREAMS
from culvert_protocol.session import Session
from culvert_transport.heartbeat import Heart
from culvert_transport.sockets import tune

PING_EVERY: Final = 1.0
"""Seconds between two PINGs of a session that has streams, and between those of one that nothing is heard from."""
CONNECTOR_ASKS: Final = 1.25
"""Seconds of silence after which a connector asks whether the relay is there."""
RELAY_ASKS: Final = 1.75
"""The same for a relay, which so has to ask only where its connector does not: it has a thousand times the sessions."""
MEASURE_EVERY: Final = 10.0
"""Seconds between two measured round trips of a session that is at rest."""
LATE: Final = 0.25
"""A heartbeat this late means that this process was stopped or starved: read first, judge later."""
DEAD_AFTER: Final = 3.0 - LATE
"""Seconds of silence that end a session: within 3 s, be the heartbeat as late as it may."""
FAREWELL: Final = 3.0
"""Seconds for a peer to take the last words."""
HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
ALLOWANCE: Final = Allowance()
"""Growth of windows that all sessions of this process share."""
_TOKEN: Final = Struct("<d")


class SessionLink(asyncio.Protocol):
    """Carries one `Session`. Hand it to a transport by `set_protocol` and call `attach`, after the upgrade.

    `round_trip` is the newest measured round-trip time in seconds, None before the first PONG.
    `on_round_trip` hears each of them.
    """

    def __init__(
        self,
        *,
        relay: bool,
        listener: SessionListener,
        loop: asyncio.AbstractEventLoop,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self.session = Session(
            relay=relay,
            listener=_Ears(listener, self),
            on_output=self._schedule,
            max_streams=max_streams,
            clock=loop.time,
            allowance=ALLOWANCE,
        )
        self._outbox = self.session.outbox
        self.round_trip: float | None = None
        self.on_round_trip: Callable[[float], None] | None = None
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._scheduled = False
        self._heard = loop.time()
        self._quiet = RELAY_ASKS if relay else CONNECTOR_ASKS
        self._asked = 0.0
        self._measured = 0.0
        self._slept = 0.0
        self._ending = False
        self._lost = asyncio.Event()

    # -- the owner's side ------------------------------------------------------------------------------------

    def attach(self, transport: asyncio.Transport, leftover: bytes = b"") -> None:
        """Takes the transport over; `leftover` is what arrived behind the handshake."""
        self._transport = transport
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        tune(transport)
        self._heard = self._asked = now = self._loop.time()
        # A second after the start both ends measure: without a round trip no window grows.
        self._measured = now - MEASURE_EVERY
        Heart.of(self._loop).start(self, now + PING_EVERY)
        if leftover:
            self.data_received(leftover)
        if self._outbox.ready:
            self._schedule()

    def close(self, reason: str) -> None:
        """Ends the session; what is queued as control (a DRAIN with the reason) still leaves."""
        self.session.close(reason)

    async def gone(self) -> None:
        """Until the transport is closed and what was queued has left or was given up; at once when there is none."""
        if self._transport is not None:
            await self._lost.wait()

    @property
    def queued(self) -> int:
        """Bytes on their way out that have not left this process."""
        written = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return self.session.queued + written

    # -- asyncio's side --------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        self._heard = self._loop.time()
        if len(data) == BEAT_SIZE and self._beats(data):
            return
        self.session.receive(data)

    def pause_writing(self) -> None:
        """The transport's buffer is above the high-water mark."""
        self._outbox.set_congested(True)

    def resume_writing(self) -> None:
        """The transport's buffer is below the low-water mark."""
        self._outbox.set_congested(False)

    def eof_received(self) -> None:
        """The peer closed its side: a session does not half-close."""
        self.session.close("the peer closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self._transport = None
        self._lost.set()
        self.session.close(f"connection lost: {exc}" if exc else "connection closed")

    # -- inside ----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled and self._transport is not None:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        transport = self._transport
        if transport is None or self._ending:
            return
        outbox = self._outbox
        output = outbox.take()
        if output:
            transport.write(output)
        if outbox.waiting and not outbox.backed_up:
            outbox.refill()
            if outbox.ready:
                self._schedule()

    def _beats(self, data: bytes) -> bool:
        """A PING or PONG that came alone, to a session with nothing to say: most of what thousands at rest ever get."""
        transport = self._transport
        session = self.session
        if transport is None or self._ending or not session.at_rest:
            return False
        head = data[:HEADER_SIZE]
        if head == PING_HEAD:
            transport.write(PONG_HEAD + data[HEADER_SIZE:])
            return True
        if head == PONG_HEAD:
            session.listener.on_pong(bytes(data[HEADER_SIZE:]))
            return True
        return False

    def beat(self, now: float, late: float) -> float:
        """The heart's word: asks the peer if it is time to, ends the session if it is dead."""
        session = self.session
        if self._transport is None or session.closed:
            return 0.0
        silence = now - self._heard
        ask = bool(session.streams) or silence >= self._quiet or now >= self._measured + MEASURE_EVERY
        if silence < DEAD_AFTER:
            self._slept = 0.0
        elif late > LATE and not self._slept:
            # Late ourselves: what the peer sent meanwhile still waits in the socket and is read before the next beat.
            self._slept = late
            self._asked = 0.0
        else:
            itself = f", {self._slept:.2f} s of which this process itself slept" if self._slept else ""
            self._abort(f"nothing heard for {silence:.2f} s{itself}")
            return 0.0
        if ask and now >= self._asked + PING_EVERY:
            self._asked = now
            session.ping(_TOKEN.pack(now))
            session.settle()
        if self._slept:
            return now + PING_EVERY
        if session.streams:
            return min(self._asked + PING_EVERY, self._heard + DEAD_AFTER)
        asks = max(self._heard + self._quiet, self._asked + PING_EVERY)
        return min(asks, self._heard + DEAD_AFTER)

    def _abort(self, reason: str) -> None:
        transport = self._transport
        self.session.close(reason)
        if transport is not None:
            transport.abort()

    def _session_closed(self) -> None:
        transport = self._transport
        if transport is None or self._ending:
            return
        last = self._outbox.take()
        self._ending = True
        if last:
            transport.write(last)
        transport.close()
        # A peer that reads nothing would keep the farewell, and with it the transport, for ever.
        self._loop.call_later(FAREWELL, transport.abort)

    def _ponged(self, token: bytes) -> None:
        if len(token) == 8:
            now = self._loop.time()
            elapsed = now - _TOKEN.unpack(token)[0]
            if 0 <= elapsed < 3600:
                self._measured = now
                self.round_trip = self.session.growth.round_trip = elapsed
                if self.on_round_trip is not None:
                    self.on_round_trip(elapsed)


class _Ears:
    """Passes a session's callbacks on to its owner; keeps PONG and the end for the link as well."""

    def __init__(self, owner: SessionListener, link: SessionLink) -> None:
        self._owner = owner
        self._link = link
        self.on_hello = owner.on_hello
        self.on_open = owner.on_open
        self.on_routes = owner.on_routes
        self.on_routes_result = owner.on_routes_result
        self.on_credential = owner.on_credential
        self.on_credential_result = owner.on_credential_result
        self.on_revoke = owner.on_revoke
        self.on_drain = owner.on_drain
        self.on_drain_ack = owner.on_drain_ack

    def on_pong(self, token: bytes) -> None:
        self._link._ponged(token)
        self._owner.on_pong(token)

    def on_closed(self, reason: str) -> None:
        self._link._session_closed()
        self._owner.on_closed(reason)
