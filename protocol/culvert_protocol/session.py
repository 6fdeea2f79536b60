"""One session's state machine: bytes in, callbacks out, bytes out.

Responsible for the order of frames (by the tables of `states`), stream ids and limits, and draining. What leaves when
is `outbox`'s; how far windows grow is `credit`'s. It must not know sockets, HTTP routing or who verifies what; time
comes in as a clock. Invariant: after an error nothing more is sent or heard except one `on_closed`.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from culvert_protocol import messages
from culvert_protocol.codes import ProtocolError, ResetCode, SessionBusy
from culvert_protocol.conversation import Conversation
from culvert_protocol.credit import INITIAL_WINDOW, Allowance, Growth
from culvert_protocol.frames import (
    CONNECTION_LEVEL,
    FIN,
    HEADER,
    IGNORABLE,
    MAX_DATA,
    MAX_PAYLOAD,
    MAX_STREAM_ID,
    MORE,
    PONG_HEAD,
    FrameReader,
    FrameType,
    encode_frame,
)
from culvert_protocol.heads import Kind, Open, decode_open, encode_open
from culvert_protocol.listeners import SessionListener, StreamListener
from culvert_protocol.outbox import CONTROL_LIMIT, QUEUE_LIMIT, Outbox
from culvert_protocol.states import RECEIVED_BY_CONNECTOR, RECEIVED_BY_RELAY, Phase, Receiving
from culvert_protocol.stream import Stream, reset_code

_U32: Final = Struct("<I")
_U16: Final = Struct("<H")
# Looking up a member of an Enum costs 0.1 µs on CPython 3.11; what the hot path needs has names of its own.
_DATA: Final = int(FrameType.DATA)
_WINDOW: Final = int(FrameType.WINDOW)
_OPEN: Final = int(FrameType.OPEN)
_RUNNING: Final = Phase.RUNNING
_PROBE: Final = int(Kind.PROBE)
_UPGRADE: Final = int(Kind.UPGRADE)
_EXPECT_HEAD: Final = Receiving.HEAD
_EXPECT_BODY: Final = Receiving.BODY
_INTERNAL: Final = int(ResetCode.INTERNAL)
_SESSION_LOST: Final = int(ResetCode.SESSION_LOST)
_pack: Final = HEADER.pack
MAX_PROBE: Final = 64


class Session(Conversation):
    """One end of a session. `relay` tells which; `on_output` is called when output becomes available.

    With a `clock` (seconds) windows grow once `round_trip` has been measured; `allowance` is the process' for that.
    """

    def __init__(
        self,
        *,
        relay: bool,
        listener: SessionListener,
        on_output: Callable[[], None],
        max_streams: int = messages.MAX_STREAMS,
        clock: Callable[[], float] | None = None,
        allowance: Allowance | None = None,
    ) -> None:
        super().__init__(listener, Outbox(on_output, self._overrun))
        self.relay = relay
        self.max_streams = max_streams
        self.peer_max_streams = max_streams
        self.peer_window = INITIAL_WINDOW
        self.streams: dict[int, Stream] = {}
        self.growth = Growth(clock, allowance)
        self.bulk_streams = 0
        self.drain_sent = False
        self.drain_received = False
        self._bulk: set[Stream] = set()
        self._phase = Phase.HELLO
        self._allowed = RECEIVED_BY_RELAY if relay else RECEIVED_BY_CONNECTOR
        self._reader = FrameReader()
        self._next_id = 2 if relay else 1
        self._highest_peer_id = 0
        self._peer_streams = 0
        self._peer_done = False

    # -- what the owner does ---------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """True when either end asked for no new streams."""
        return self.drain_sent or self.drain_received

    @property
    def queued(self) -> int:
        """Data bytes that wait in this session: queued frames and what its streams hold."""
        outbox = self.outbox
        return outbox.size + outbox.held

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits to be sent and the next byte begins a frame: a PING may be answered past the queues."""
        return self._phase is _RUNNING and not self.outbox.ready and not self._reader.pending

    def hello(self, hello: messages.Hello) -> None:
        """Sends our HELLO; the first thing either end does."""
        self.control_frame(encode_frame(0, FrameType.HELLO, hello.encode()))

    def open(self, head: Open, listener: StreamListener, body: bytes = b"", *, fin: bool = False) -> Stream:
        """Opens a stream with the body bytes at hand; `fin` says that they are all.

        Raises SessionBusy when no stream can be opened here now and ValueError for a head that does not fit.
        """
        return self.open_encoded(head.kind, encode_open(head), listener, body, fin=fin)

    def open_encoded(
        self, kind: int, payload: bytes, listener: StreamListener, body: bytes = b"", *, fin: bool = False
    ) -> Stream:
        """`open` for a head that is encoded already: `payload`, which says that it is of this kind."""
        if self.closed or self._phase is not _RUNNING or self.drain_received or self.drain_sent:
            raise SessionBusy("the session is closed or draining")
        if len(self.streams) - self._peer_streams >= self.peer_max_streams:
            raise SessionBusy("the session has its most streams")
        if self.outbox.size > QUEUE_LIMIT + CONTROL_LIMIT // 2:
            raise SessionBusy("the session is backed up")
        stream_id = self._next_id
        if stream_id > MAX_STREAM_ID:
            raise SessionBusy("the session has used up its stream ids")
        room = min(self.peer_window, MAX_DATA, MAX_PAYLOAD - len(payload))
        if len(body) <= room:
            first, rest = body, b""
        else:
            first, rest = (b"", body) if self.outbox.backed_up else (body[:room], body[room:])
        self._next_id = stream_id + 2
        receiving = _EXPECT_HEAD if kind <= _UPGRADE else _EXPECT_BODY
        stream = Stream(self, stream_id, kind, listener, receiving=receiving)
        self.streams[stream_id] = stream
        last = fin and not rest
        stream.opening_sent(len(first), fin=last)
        self.outbox.data(
            _pack(stream_id, len(payload) + len(first), _OPEN, FIN if last else 0),
            payload + first if first else payload,
        )
        if rest:
            stream.write(rest, fin=fin)
        if self._next_id > MAX_STREAM_ID:
            self.drain("stream ids are used up")
        return stream

    def probe(self, listener: StreamListener, token: bytes = b"") -> Stream:
        """Opens a stream that the peer echoes through its data queue; `token` is at most 64 bytes."""
        return self.open(Open(kind=Kind.PROBE), listener, token[:MAX_PROBE], fin=True)

    def drain(self, reason: str) -> None:
        """Asks the peer to open nothing more; what it has sent until its DRAIN_ACK is still served."""
        if not self.drain_sent and not self.closed:
            self.drain_sent = True
            self.control_frame(encode_frame(0, FrameType.DRAIN, reason.encode()[:256]))

    def settle(self) -> None:
        """Once a second or so: streams that have moved little since the last call are not bulk any more."""
        for stream in tuple(self._bulk):
            if stream.moved:
                stream.moved = False
            else:
                self._not_bulk(stream)

    def close(self, reason: str) -> None:
        """Ends the session from this side: streams hear SESSION_LOST, the owner `on_closed`, once."""
        if self.closed:
            return
        self.closed = True
        self._phase = Phase.CLOSED
        streams = list(self.streams.values())
        self.streams.clear()
        self._bulk.clear()
        self.bulk_streams = 0
        self.outbox.drop_data()
        self.growth.close()
        for stream in streams:
            stream.lost(_SESSION_LOST, reason)
        self.listener.on_closed(reason)

    # -- what the transport brings ---------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Takes arriving bytes; any error of the peer closes the session with its reason."""
        if self.closed:
            return
        try:
            streams = self.streams
            for stream_id, type_, flags, payload in self._reader.read(data):
                if type_ == _DATA and (stream := streams.get(stream_id)) is not None:
                    stream.data_arrived(payload, flags)
                elif type_ == _OPEN and stream_id and self._phase is _RUNNING:
                    self._on_open(stream_id, flags, payload)
                else:
                    self._frame(stream_id, type_, flags, payload)
                if self.closed:
                    return
        except ProtocolError as error:
            self.drain(str(error))
            self.close(str(error))

    def _frame(self, stream_id: int, type_: int, flags: int, payload: bytes) -> None:
        if type_ not in self._allowed[self._phase]:
            if flags & IGNORABLE and type_ > FrameType.REVOKE:
                return
            raise ProtocolError(f"frame of type {type_} in phase {self._phase.name}")
        if (type_ in CONNECTION_LEVEL) != (stream_id == 0):
            raise ProtocolError(f"frame of type {type_} on stream {stream_id}")
        if flags & MORE or type_ in self._partial:
            whole = self.assemble(type_, payload, more=bool(flags & MORE))
            if whole is None:
                return
            payload = whole
        _HANDLERS[type_](self, stream_id, flags, payload)

    def _on_hello(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        hello = messages.Hello.decode(payload)
        self.peer_window = hello.window
        self.peer_max_streams = min(hello.max_streams, self.max_streams)
        self._phase = Phase.RUNNING
        self.listener.on_hello(hello)

    def _on_open(self, stream_id: int, flags: int, payload: bytes) -> None:
        if (stream_id % 2 == 0) == self.relay:
            raise ProtocolError(f"OPEN with stream id {stream_id}, which is ours to give")
        if stream_id <= self._highest_peer_id:
            raise ProtocolError(f"OPEN reuses stream id {stream_id}")
        if self._peer_done:
            raise ProtocolError("OPEN after DRAIN_ACK")
        self._highest_peer_id = stream_id
        head, body = decode_open(payload)
        if head.kind == _PROBE:
            if not flags & FIN or len(body) > MAX_PROBE:
                raise ProtocolError("a probe without FIN or over 64 bytes")
            self.outbox.data(_pack(stream_id, len(body), _DATA, FIN), body)
            return
        if self.relay:
            raise ProtocolError("a connector may open probes only")
        if self._peer_streams >= self.max_streams:
            raise ProtocolError(f"more than {self.max_streams} streams")
        fin = bool(flags & FIN)
        stream = Stream(self, stream_id, head.kind, None, receiving=_EXPECT_BODY)
        stream.opened_with(len(body), fin=fin)
        self.streams[stream_id] = stream
        self._peer_streams += 1
        self.listener.on_open(stream, head, body, fin)
        if stream.listener is None:
            stream.reset(_INTERNAL, "nobody_listens")

    def _on_data(self, stream_id: int, _flags: int, _payload: bytes) -> None:
        self._check_known(stream_id)

    def _on_window(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("WINDOW is not 4 bytes")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
        else:
            stream.window_arrived(_U32.unpack(payload)[0])

    def _on_reset(self, stream_id: int, _flags: int, payload: bytes) -> None:
        if len(payload) < 2:
            raise ProtocolError("RESET without a code")
        stream = self.streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        code = reset_code(_U16.unpack_from(payload)[0])
        reason = payload[2:].decode("ascii", "replace")
        self._forget(stream)
        stream.lost(code, reason)

    def _on_ping(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        if len(payload) != 8:
            raise ProtocolError("PING is not 8 bytes")
        self.control_frame(PONG_HEAD + payload)

    def _on_drain(self, _stream_id: int, _flags: int, payload: bytes) -> None:
        if self.drain_received:
            return
        self.drain_received = True
        self.outbox.data(encode_frame(0, FrameType.DRAIN_ACK), b"")
        self.listener.on_drain(payload.decode("utf-8", "replace"))

    def _on_drain_ack(self, _stream_id: int, _flags: int, _payload: bytes) -> None:
        if not self.drain_sent or self._peer_done:
            raise ProtocolError("DRAIN_ACK without DRAIN")
        self._peer_done = True
        self.listener.on_drain_ack()

    def _check_known(self, stream_id: int) -> None:
        """A frame for a stream that is closed is dropped; one for a stream that never was is an error."""
        ours = (stream_id % 2 == 0) == self.relay
        if stream_id >= self._next_id if ours else stream_id > self._highest_peer_id:
            raise ProtocolError(f"a frame for stream {stream_id}, which was never opened")

    # -- what streams do -------------------------------------------------------------------------------------

    def queue_window(self, stream_id: int, increment: int) -> None:
        """Queues a WINDOW ahead of data."""
        self.control_frame(_pack(stream_id, 4, _WINDOW, 0) + _U32.pack(increment))

    def reset_stream(self, stream: Stream, code: int, reason: str) -> None:
        """Queues RESET and forgets the stream."""
        self._forget(stream)
        stream.release_listener()
        stream.drop_held()
        payload = _U16.pack(code) + reason.encode("ascii", "replace")[:64]
        # In order behind the stream's own OPEN and DATA, or the peer would see a stream that never was.
        self.outbox.data(encode_frame(stream.id, FrameType.RESET, payload), b"")

    def forget(self, stream: Stream) -> None:
        """Both ends are done with the stream."""
        self._forget(stream)
        stream.release_listener()

    def mark_bulk(self, stream: Stream) -> None:
        """The stream moved more than half a window: placement keeps others off this session."""
        stream.bulk = True
        self._bulk.add(stream)
        self.bulk_streams += 1

    def _not_bulk(self, stream: Stream) -> None:
        stream.bulk = False
        self._bulk.discard(stream)
        self.bulk_streams -= 1

    def _forget(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        stream.closed = True
        if (stream.id % 2 == 0) != self.relay:
            self._peer_streams -= 1
        if stream.bulk:
            self._not_bulk(stream)
        if stream.window is not None:
            stream.window.release(self.growth)
        self.outbox.waiting.pop(stream, None)

    def _overrun(self) -> None:
        self.close("the peer does not read what it asks for")


_HANDLERS: Final[dict[int, Callable[[Session, int, int, bytes], None]]] = {
    FrameType.HELLO: Session._on_hello,
    FrameType.ROUTES: Session.on_routes,
    FrameType.ROUTES_RESULT: Session.on_routes_result,
    FrameType.OPEN: Session._on_open,
    FrameType.DATA: Session._on_data,
    FrameType.WINDOW: Session._on_window,
    FrameType.RESET: Session._on_reset,
    FrameType.PING: Session._on_ping,
    FrameType.PONG: Session.on_pong,
    FrameType.DRAIN: Session._on_drain,
    FrameType.DRAIN_ACK: Session._on_drain_ack,
    FrameType.CREDENTIAL: Session.on_credential,
    FrameType.CREDENTIAL_RESULT: Session.on_credential_result,
    FrameType.REVOKE: Session.on_revoke,
}
