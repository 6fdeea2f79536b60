"""The socket's side of a visitor's connection.

Responsible for the transport: reading that pauses for more than one reason, the visitor's own slowness, and the three
ways to end (after what was written, after a moment in which late bytes are dropped, or visibly in the middle).
Must not know requests. Callbacks only: this is the hot path.
Invariant: an aborted response is never a clean end; a final response is not destroyed by a RST for bytes unread.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from culvert_relay.wheel import ticks
from culvert_transport.sockets import bound, outgoing

if TYPE_CHECKING:
    from culvert_relay.admission import Place
    from culvert_relay.edge import Edge

LINGER_TICKS: Final = ticks(2)
HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

BY_STREAM: Final = 1
"""Reading is paused because the stream takes no more."""
BY_HELD: Final = 2
"""Reading is paused because enough is held behind the running exchange."""

OPEN: Final = 0
LINGERING: Final = 1
"""The last response has been written; what arrives is dropped."""
CLOSED: Final = 2


class VisitorLine(asyncio.Protocol):
    """A transport with its reasons to pause and its ways to end."""

    __slots__ = (
        "_ending", "_eof", "_outgoing", "_paused", "_place", "_transport", "congested", "deadline", "edge", "scheduled",
    )  # fmt: skip

    def __init__(self, edge: "Edge", place: "Place | None" = None) -> None:
        self.edge = edge
        self._place = place
        self.congested = False
        self.deadline = 0
        self.scheduled = 0
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self._ending = OPEN
        self._paused = 0
        self._eof = False
        self._outgoing = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A visitor has connected; with TLS the handshake is over."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self.edge.visitors.add(self)

    def pause_writing(self) -> None:
        """The visitor reads slower than its response arrives."""
        self.congested = True
        self._outgoing = -1
        self.edge.wheel.arm(self, self.edge.stall_ticks)

    def resume_writing(self) -> None:
        """What was written has left."""
        self.congested = False
        self.on_drained()

    def on_drained(self) -> None:
        """The transport takes bytes again."""

    def on_deadline(self) -> None:
        """The wheel's word."""

    def drain(self) -> None:
        """The relay is shutting down: close now if nothing is under way, else after the response."""

    def abort(self) -> None:
        """Ends whatever is under way, without a clean end of a response."""

    @property
    def busy(self) -> bool:
        """Whether something is under way, if only the last bytes of an answer on their way out."""
        return self._ending != OPEN

    def write(self, data: bytes) -> None:
        """Sends bytes to the visitor."""
        self._transport.write(data)

    def pause(self, why: int) -> None:
        """Stops reading for one more reason."""
        if not self._paused:
            self._transport.pause_reading()
            self.edge.paused.add(self)
        self._paused |= why

    def resume(self, why: int) -> None:
        """One reason less; reads again when it was the last."""
        if self._paused:
            self._paused &= ~why
            if not self._paused:
                self.edge.paused.discard(self)
                if self._ending != CLOSED:
                    self._transport.resume_reading()

    def descriptor(self) -> int:
        """The socket's, -1 when it is closed."""
        sock = self._transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    def vanished(self) -> None:
        """The visitor has reset the connection, whose socket was not read: it is gone."""
        self._transport.abort()

    def ended(self) -> None:
        """The visitor has closed its side while the socket was not read, which may have been all that it had to say.

        Heard once, until reading has gone on: nothing more can come.
        """
        self.edge.paused.discard(self)

    def stuck(self) -> bool:
        """Whether the visitor has taken nothing since the last look, which this is, although bytes wait for it."""
        if not self.congested:
            return False
        before, self._outgoing = self._outgoing, outgoing(self._transport)
        if before < 0:
            bound(self._transport)
        return before == self._outgoing

    def takes(self) -> bool:
        """Whether the visitor has taken something since the last look, which this is."""
        before, self._outgoing = self._outgoing, outgoing(self._transport)
        return self._outgoing < before

    def close(self) -> None:
        """Ends the connection after what was written."""
        if self._ending != CLOSED:
            self._ending = CLOSED
            if self._transport.get_write_buffer_size():
                # A visitor who takes nothing of it would keep the connection.
                self._outgoing = outgoing(self._transport)
                self.edge.wheel.arm(self, self.edge.stall_ticks)
            self._transport.close()

    def linger(self) -> None:
        """The same, but bytes may still come, and a RST for them would destroy what was written (RFC 9112 9.6)."""
        if self._eof:
            self.close()
            return
        if self._ending != OPEN:
            return
        self._ending = LINGERING
        if self._paused:
            self.resume(self._paused)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.edge.wheel.arm(self, LINGER_TICKS)

    def sever(self) -> None:
        """Ends the connection at once with a RST: a bare FIN may read as the end of a response (RFC 9112 8)."""
        if self._ending == CLOSED:
            return
        self._ending = CLOSED
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def hand_over(self, protocol: asyncio.Protocol, data: bytes) -> None:
        """Gives the connection, and what has been read of it, to another protocol."""
        self._ending = CLOSED
        self.forget()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def forget(self) -> None:
        """Leaves the relay's books."""
        self.edge.visitors.discard(self)
        self.edge.paused.discard(self)
        self.edge.wheel.cancel(self)
        if self._place is not None:
            self._place.leave()
