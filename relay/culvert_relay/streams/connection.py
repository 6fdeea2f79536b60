"""One visitor's TCP connection and the stream that carries its bytes.

Responsible for placing it, for both directions with their half-closes and back-pressure, and for ends that look like
the other side's: a FIN for a FIN, a RST for anything else. Must not know what the bytes mean, or how a connection
came to be chosen. Callbacks only: this is the hot path.
Invariants: nothing of a visitor that the terms refuse reaches a session; what one side ended in error never looks like
a clean end to the other; at most a window of bytes is held for a visitor who does not read, however long it takes, and
for that reason nobody is evicted for reading slowly; a connection that no origin has seen may be offered elsewhere.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from culvert_protocol.codes import ProtocolError, ResetCode, SessionBusy
from culvert_protocol.heads import Kind, Open, ResponseHead
from culvert_protocol.stream import Stream
from culvert_relay.routing.placement import place, place_elsewhere
from culvert_relay.routing.table import Entry
from culvert_relay.visitors.line import BY_STREAM, LINGER_TICKS, VisitorLine
from culvert_relay.visitors.retries import MAX_ATTEMPTS_REFUSED, MAX_RETAINED

if TYPE_CHECKING:
    from culvert_relay.accepting import Arrival
    from culvert_relay.edge import Edge
    from culvert_relay.tunnels.session import TunnelSession

_TCP: Final = int(Kind.TCP)


class StreamConnection(VisitorLine):
    """A connection at a TCP port (`host` empty), or one whose ClientHello names `host`. `entry` is who serves it."""

    __slots__ = (
        "_address", "_attempts", "_entry", "_host", "_origin_ended", "_peer", "_port", "_refused", "_retained",
        "_retained_size", "_stream", "_tally", "_tried", "_uncredited",
    )  # fmt: skip

    def __init__(self, edge: "Edge", entry: Entry | None, arrival: "Arrival", *, port: int, host: bytes = b"") -> None:
        super().__init__(edge, arrival.place)
        self._entry = entry
        self._host = host
        self._port = port
        self._address = arrival.address.encode()
        self._refused = bool(arrival.refusal)
        self._peer = b""
        self._stream: Stream | None = None
        self._tally = edge.counters.tunnels.nobody
        self._tried: set[TunnelSession] = set()
        self._attempts = 0
        self._retained: list[bytes] | None = []
        self._retained_size = 0
        self._origin_ended = False
        self._uncredited = 0

    # -- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A visitor has connected."""
        super().connection_made(transport)
        edge, entry = self.edge, self._entry
        counters = edge.counters
        counters.connections += 1
        peer = transport.get_extra_info("peername")
        if peer:
            self._peer = _joined(peer)
        if entry is None or self._refused:
            self.sever()
            return
        sources = entry.terms.sources
        if sources is not None and not sources.allow(self._address):
            counters.refused_sources += 1
            self.sever()
            return
        counters.tcp_connections += 1
        self._open(entry)

    def data_received(self, data: bytes) -> None:
        """Bytes of the visitor."""
        stream = self._stream
        if stream is None:
            return
        self._tally.received += len(data)
        self._retain(data)
        stream.write(data)
        if stream.blocked:
            self.pause(BY_STREAM)

    def eof_received(self) -> bool:
        """The visitor's FIN: its direction ends, the origin's goes on."""
        self._eof = True
        stream = self._stream
        if stream is None:
            return False
        stream.finish()
        if self._origin_ended:
            self._stream = None
            self.close()
            return False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: by us, or by the visitor's RST."""
        self.forget()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(ResetCode.CANCEL, "visitor_gone")

    def pause_writing(self) -> None:
        """The visitor reads slower than the origin sends: credit stops, and with it the origin."""
        self.congested = True

    def on_drained(self) -> None:
        """The visitor takes bytes again."""
        size, self._uncredited = self._uncredited, 0
        if size and self._stream is not None:
            self._stream.consumed(size)

    def on_deadline(self) -> None:
        """The wheel's word while a last answer is on its way: once it has left, the connection ends."""
        if self._transport.get_write_buffer_size():
            self.edge.wheel.arm(self, LINGER_TICKS)
        else:
            self._transport.abort()

    def abort(self) -> None:
        """The relay ends it."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.reset(ResetCode.CANCEL, "relay_stops")
        self.sever()

    @property
    def busy(self) -> bool:
        """Whether either direction is still open."""
        return self._stream is not None or super().busy

    # -- the stream: StreamListener ------------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """Never: the session's tables refuse heads on such a stream."""

    def on_data(self, data: bytes) -> None:
        """Bytes of the origin."""
        self._retained = None
        stream = self._stream
        if stream is None:
            return
        size = len(data)
        self._tally.sent += size
        self.write(data)
        if self.congested:
            self._uncredited += size
        else:
            stream.consumed(size)

    def on_end(self) -> None:
        """The origin's FIN, after its last byte."""
        self._retained = None
        self._origin_ended = True
        if self._eof:
            self._stream = None
            self.close()
        else:
            self._transport.write_eof()

    def on_reset(self, code: int, reason: str) -> None:
        """The stream is gone: elsewhere if no origin has seen it, else the visitor sees it too."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        entry = self._entry if self._retained is not None else None
        if code == ResetCode.REFUSED and entry is not None and self._attempts < MAX_ATTEMPTS_REFUSED:
            self.edge.counters.retries += 1
            self._open(entry)
            return
        if self._origin_ended and code == ResetCode.NO_ERROR:
            # All that the origin had to say is on its way; a RST now would destroy what the visitor has not read.
            self.linger()
            return
        self.sever()

    def on_writable(self) -> None:
        """The stream takes bytes again."""
        if self._paused:
            self.resume(BY_STREAM)

    # -- inside --------------------------------------------------------------------------------------------------

    def _retain(self, data: bytes) -> None:
        retained = self._retained
        if retained is None:
            return
        self._retained_size += len(data)
        if self._retained_size > MAX_RETAINED:
            self._retained = None
        else:
            retained.append(data)

    def _open(self, entry: Entry) -> None:
        """Gives the connection to a session, with what has been read of it; severs it when none takes it."""
        tried = self._tried
        body = b"".join(self._retained or ())
        local = self._transport.get_extra_info("sockname")
        while True:
            pools, random = entry.pools, self.edge.random
            member = place_elsewhere(pools, tried, random=random) if tried else place(pools, random=random)
            if member is None:
                self.sever()
                return
            session: TunnelSession = member  # type: ignore[assignment]  # the registry holds nothing else
            tried.add(session)
            head = Open(
                kind=_TCP,
                attempt=self._attempts,
                scheme=1 if self._host else 0,
                local_port=self._port,
                grant_version=session.grant_version,
                address=self._address,
                host=self._host,
                authority=_joined(local) if local else b"",
                target=self._peer,
            )
            try:
                self._stream = session.session.open(head, self, body, fin=self._eof)
            except SessionBusy:
                continue
            except ProtocolError as error:
                # The session's peer does not read: it is as good as dead.
                session.end(str(error))
                continue
            self._attempts += 1
            self._tally = session.tally
            if self._stream is not None and self._stream.blocked:
                self.pause(BY_STREAM)
            elif self._paused:
                self.resume(BY_STREAM)
            return


def _joined(place: tuple[str, int]) -> bytes:
    """An address of the socket layer as `host:port`, IPv6 in brackets."""
    host = place[0].partition("%")[0]
    return (f"[{host}]:{place[1]}" if ":" in host else f"{host}:{place[1]}").encode()
