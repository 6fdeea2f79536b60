"""Two sessions back to back: what one takes as output the other receives, split as each test says."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_protocol.codes import ResetCode, SessionBusy
from culvert_protocol.credit import INITIAL_WINDOW, RETURN_AT
from culvert_protocol.frames import FIN, HEAD, FrameReader, FrameType, encode_frame
from culvert_protocol.heads import Framing, Kind, Open, ResponseHead, encode_open, encode_response_head
from culvert_protocol.messages import (
    Credential,
    CredentialResult,
    Hello,
    RouteResult,
    Routes,
    RoutesResult,
)
from culvert_protocol.outbox import CONTROL_LIMIT
from culvert_protocol.session import Session
from culvert_protocol.stream import Stream


class Recorder:
    """Hears a session and its streams and writes everything down; adjacent data is joined."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.streams: list[Stream] = []
        self.closed = ""
        self.output = 0
        self.on_stream: Callable[[Stream, Open, bytes, bool], None] | None = None

    def on_output(self) -> None:
        self.output += 1

    def on_hello(self, hello: Hello) -> None:
        self.events.append(("hello", hello))

    def on_open(self, stream: Stream, head: Open, body: bytes, fin: bool) -> None:
        self.streams.append(stream)
        stream.listener = Ear(self, stream.id)
        self.events.append(("open", stream.id, head, fin))
        if body:
            stream.listener.on_data(body)
        if self.on_stream is not None:
            self.on_stream(stream, head, body, fin)

    def on_routes(self, routes: Routes) -> None:
        self.events.append(("routes", routes))

    def on_routes_result(self, result: RoutesResult) -> None:
        self.events.append(("routes_result", result))

    def on_credential(self, credential: Credential) -> None:
        self.events.append(("credential", credential))

    def on_credential_result(self, result: CredentialResult) -> None:
        self.events.append(("credential_result", result))

    def on_revoke(self, revocations: tuple[str, ...]) -> None:
        self.events.append(("revoke", revocations))

    def on_drain(self, reason: str) -> None:
        self.events.append(("drain", reason))

    def on_drain_ack(self) -> None:
        self.events.append(("drain_ack",))

    def on_pong(self, token: bytes) -> None:
        self.events.append(("pong", token))

    def on_closed(self, reason: str) -> None:
        assert not self.closed, "on_closed comes once"
        self.closed = reason or "closed"


class Ear:
    def __init__(self, recorder: Recorder, stream_id: int) -> None:
        self.recorder = recorder
        self.id = stream_id

    def _note(self, *event: Any) -> None:
        self.recorder.events.append(event)

    def on_head(self, head: ResponseHead) -> None:
        self._note("head", self.id, head)

    def on_data(self, data: bytes) -> None:
        events = self.recorder.events
        if events and events[-1][:2] == ("data", self.id):
            events[-1] = ("data", self.id, events[-1][2] + data)
        else:
            self._note("data", self.id, data)

    def on_end(self) -> None:
        self._note("end", self.id)

    def on_reset(self, code: int, reason: str) -> None:
        self._note("reset", self.id, code, reason)

    def on_writable(self) -> None:
        self._note("writable", self.id)


class Pair:
    """A relay's and a connector's session, past HELLO."""

    def __init__(self, *, max_streams: int = 512, greet: bool = True) -> None:
        self.relay_ear, self.connector_ear = Recorder(), Recorder()
        self.relay = Session(
            relay=True, listener=self.relay_ear, on_output=self.relay_ear.on_output, max_streams=max_streams
        )
        self.connector = Session(
            relay=False,
            listener=self.connector_ear,
            on_output=self.connector_ear.on_output,
            max_streams=max_streams,
        )
        if greet:
            self.relay.hello(Hello(relay="relay-1", ids=("relay-1",)))
            self.connector.hello(Hello(proof="cHJvb2Y"))
            self.move()
            self.relay_ear.events.clear()
            self.connector_ear.events.clear()

    def move(self) -> None:
        while True:
            down, up = self.relay.outbox.take(), self.connector.outbox.take()
            self.relay.outbox.refill()
            self.connector.outbox.refill()
            if not down and not up:
                return
            if down:
                self.connector.receive(down)
            if up:
                self.relay.receive(up)

    def request(self, body: bytes = b"", *, fin: bool = True, kind: int = Kind.HTTP) -> tuple[Stream, Stream]:
        ours = self.relay.open(
            Open(kind=kind, method=b"GET", target=b"/"), Ear(self.relay_ear, self.relay._next_id), body, fin=fin
        )
        self.move()
        return ours, self.connector_ear.streams[-1]


def data_of(ear: Recorder, stream: int) -> bytes:
    return b"".join(e[2] for e in ear.events if e[:2] == ("data", stream))


def frames_of(wire: bytes) -> list[tuple[int, int, int, bytes]]:
    return FrameReader().read(wire)


def test_a_request_and_its_response_leave_nothing_behind() -> None:
    pair = Pair()
    ours, theirs = pair.request(b"ping")
    theirs.send_head(ResponseHead(200, Framing.LENGTH, 4), b"pong", fin=True)
    pair.move()
    assert data_of(pair.connector_ear, ours.id) == b"ping"
    assert pair.relay_ear.events == [
        ("head", 2, ResponseHead(200, Framing.LENGTH, 4)),
        ("data", 2, b"pong"),
        ("end", 2),
    ]
    assert not pair.relay.streams
    assert not pair.connector.streams
    assert ours.closed
    assert theirs.closed


def test_a_small_response_is_one_frame() -> None:
    pair = Pair()
    _, theirs = pair.request()
    theirs.send_head(ResponseHead(200, Framing.LENGTH, 4), b"pong", fin=True)
    ((_, type_, flags, _),) = frames_of(pair.connector.outbox.take())
    assert (type_, flags) == (FrameType.DATA, HEAD | FIN)


@given(st.binary(min_size=1, max_size=3000), st.lists(st.integers(1, 400), min_size=1), st.booleans())
@settings(max_examples=60)
def test_any_split_of_the_bytes_gives_the_same_events(body: bytes, sizes: list[int], chunked: bool) -> None:
    def run(pieces: Callable[[bytes], Iterator[bytes]]) -> list[tuple[Any, ...]]:
        pair = Pair(greet=False)
        pair.relay.hello(Hello(relay="r", ids=("r",)))
        pair.connector.hello(Hello(proof="p"))
        up = pair.connector.outbox.take()
        pair.connector.receive(pair.relay.outbox.take())
        pair.relay.receive(up)
        pair.relay.open(Open(method=b"PUT"), Ear(pair.relay_ear, 2), body[:100])
        stream = pair.relay.streams[2]
        stream.write(body[100:], fin=not chunked)
        if chunked:
            stream.finish()
        pair.relay.ping(b"12345678")
        pair.relay.drain("bye")
        for piece in pieces(pair.relay.outbox.take()):
            pair.connector.receive(piece)
        return pair.connector_ear.events

    def whole(wire: bytes) -> Iterator[bytes]:
        yield wire

    def split(wire: bytes) -> Iterator[bytes]:
        position, turn = 0, 0
        while position < len(wire):
            size = sizes[turn % len(sizes)]
            yield wire[position : position + size]
            position, turn = position + size, turn + 1

    assert run(split) == run(whole)


def test_a_sender_stops_at_the_window_and_goes_on_with_credit() -> None:
    pair = Pair()
    ours, theirs = pair.request(fin=False)
    body = bytes(range(256)) * 1000
    ours.write(body, fin=True)
    pair.move()
    assert ours.blocked
    assert len(data_of(pair.connector_ear, 2)) == INITIAL_WINDOW
    given_back = 0
    while not any(e == ("end", 2) for e in pair.connector_ear.events):
        size = len(data_of(pair.connector_ear, 2)) - given_back
        assert 0 < size <= INITIAL_WINDOW
        theirs.consumed(size)
        given_back += size
        pair.move()
    assert data_of(pair.connector_ear, 2) == body
    assert not ours.blocked
    assert ("writable", 2) in pair.relay_ear.events
    assert pair.relay.outbox.held == 0


def test_credit_comes_back_in_portions_and_only_for_what_was_consumed() -> None:
    pair = Pair()
    ours, theirs = pair.request(fin=False)
    ours.write(bytes(INITIAL_WINDOW))
    pair.move()
    theirs.consumed(RETURN_AT - 1)
    assert pair.connector.outbox.take() == b""
    theirs.consumed(1)
    ((_, type_, _, payload),) = frames_of(pair.connector.outbox.take())
    assert (type_, int.from_bytes(payload, "little")) == (FrameType.WINDOW, RETURN_AT)


def test_an_overrun_of_the_window_ends_the_session() -> None:
    pair = Pair()
    _, theirs = pair.request(fin=False)
    wire = encode_frame(theirs.id, FrameType.DATA, bytes(16_384)) * 4
    pair.connector.receive(wire)
    assert not pair.connector_ear.closed
    pair.connector.receive(encode_frame(theirs.id, FrameType.DATA, b"x"))
    assert "overran its window by 1" in pair.connector_ear.closed
    assert pair.connector_ear.events[-1][0] == "reset"


def test_credit_of_a_response_counts_body_bytes_in_the_head_frame() -> None:
    pair = Pair()
    ours, _ = pair.request()
    record = encode_response_head(ResponseHead(200, Framing.CHUNKED), bytes(16_000))
    pair.relay.receive(encode_frame(ours.id, FrameType.DATA, record, HEAD))
    pair.relay.receive(encode_frame(ours.id, FrameType.DATA, bytes(49_536)))
    assert not pair.relay_ear.closed
    pair.relay.receive(encode_frame(ours.id, FrameType.DATA, b"x"))
    assert "overran" in pair.relay_ear.closed


@pytest.mark.parametrize("increment", [0, 8 << 20])
def test_a_window_of_zero_or_beyond_the_maximum_ends_the_session(increment: int) -> None:
    pair = Pair()
    pair.request(fin=False)
    pair.relay.receive(encode_frame(2, FrameType.WINDOW, increment.to_bytes(4, "little")))
    assert "WINDOW of" in pair.relay_ear.closed


def test_control_frames_overtake_queued_data_but_drain_ack_keeps_its_place() -> None:
    pair = Pair()
    ours, _ = pair.request(fin=False)
    ours.write(b"bulk")
    pair.relay.receive(encode_frame(0, FrameType.PING, b"12345678"))
    pair.relay.receive(encode_frame(0, FrameType.DRAIN, b""))
    types = [f[1] for f in frames_of(pair.relay.outbox.take())]
    assert types == [FrameType.PONG, FrameType.DATA, FrameType.DRAIN_ACK]


def test_a_congested_transport_gets_control_frames_only() -> None:
    pair = Pair()
    ours, _ = pair.request(fin=False)
    pair.relay.outbox.set_congested(True)
    ours.write(b"later")
    assert ours.blocked
    pair.relay.ping(b"12345678")
    assert [f[1] for f in frames_of(pair.relay.outbox.take())] == [FrameType.PING]
    pair.relay.outbox.set_congested(False)
    assert [f[1] for f in frames_of(pair.relay.outbox.take())] == [FrameType.DATA]
    assert not ours.blocked


def test_streams_that_wait_for_a_backed_up_session_take_turns() -> None:
    pair = Pair()
    streams = [pair.request(fin=False)[0] for _ in range(3)]
    pair.relay.outbox.set_congested(True)
    for stream in streams:
        stream.write(bytes(60_000))
    assert pair.relay.outbox.held == 180_000
    pair.relay.outbox.set_congested(False)
    pair.move()
    assert pair.relay.outbox.held == 0
    assert [len(data_of(pair.connector_ear, s.id)) for s in streams] == [60_000] * 3


def test_reset_ends_a_stream_on_both_sides_and_late_frames_are_dropped() -> None:
    pair = Pair()
    ours, theirs = pair.request(fin=False)
    theirs.write(b"")
    ours.reset(ResetCode.CANCEL, "visitor_left")
    assert not pair.relay.streams
    theirs.send_head(ResponseHead(200, Framing.CHUNKED), b"late")
    pair.move()
    assert ("reset", 2, ResetCode.CANCEL, "visitor_left") in pair.connector_ear.events
    assert not any(e[0] == "head" for e in pair.relay_ear.events)
    assert not pair.relay_ear.closed
    assert not pair.connector.streams


def test_reset_no_error_after_fin_stops_only_the_upload() -> None:
    pair = Pair()
    ours, theirs = pair.request(b"half", fin=False)
    theirs.send_head(ResponseHead(413, Framing.NONE), fin=True)
    theirs.reset(ResetCode.NO_ERROR)
    pair.move()
    assert pair.relay_ear.events[-2:] == [("end", 2), ("reset", 2, ResetCode.NO_ERROR, "")]
    assert ours.closed


def test_a_stream_reset_before_its_open_was_written_still_reaches_the_peer_in_order() -> None:
    pair = Pair()
    stream = pair.relay.open(Open(method=b"GET"), Ear(pair.relay_ear, 2))
    stream.reset(ResetCode.CANCEL)
    pair.move()
    assert [e[0] for e in pair.connector_ear.events] == ["open", "reset"]
    assert not pair.connector_ear.closed


HEAD_200 = encode_response_head(ResponseHead(200))
HEAD_103 = encode_response_head(ResponseHead(103))


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (encode_frame(2, FrameType.DATA, b"body"), "BYTES on stream 2 in state HEAD"),
        (encode_frame(2, FrameType.DATA, b"", FIN), "FIN on stream 2 in state HEAD"),
        (encode_frame(2, FrameType.DATA, HEAD_200, HEAD) * 2, "FINAL on stream 2 in state BODY"),
        (
            encode_frame(2, FrameType.DATA, HEAD_200, HEAD) + encode_frame(2, FrameType.DATA, HEAD_103, HEAD),
            "INFORMATIONAL on stream 2 in state BODY",
        ),
        (encode_frame(2, FrameType.DATA, HEAD_103 + b"x", HEAD), "1xx head record"),
        (encode_frame(2, FrameType.DATA, HEAD_103, HEAD | FIN), "1xx head record"),
        (encode_frame(4, FrameType.DATA, b"x"), "never opened"),
        (encode_frame(4, FrameType.WINDOW, b"\1\0\0\0"), "never opened"),
        (encode_frame(1, FrameType.RESET, b"\1\0"), "never opened"),
        (encode_frame(1, FrameType.OPEN, encode_open(Open(kind=Kind.HTTP)), FIN), "probes only"),
        (encode_frame(2, FrameType.OPEN, encode_open(Open(kind=Kind.PROBE)), FIN), "ours to give"),
        (encode_frame(1, FrameType.OPEN, encode_open(Open(kind=Kind.PROBE))), "probe without FIN"),
        (encode_frame(0, FrameType.OPEN, b""), "on stream 0"),
        (encode_frame(2, FrameType.PING, b"12345678"), "on stream 2"),
        (encode_frame(0, FrameType.PING, b"short"), "not 8 bytes"),
        (encode_frame(0, FrameType.DRAIN_ACK), "DRAIN_ACK without DRAIN"),
        (encode_frame(0, FrameType.HELLO, b"{}"), "in phase RUNNING"),
        (encode_frame(0, FrameType.ROUTES_RESULT, b"{}"), "in phase RUNNING"),
        (encode_frame(0, FrameType.ROUTES, b"[]"), "not a JSON object"),
        (encode_frame(0, FrameType.ROUTES, b"{}"), "without a grant"),
        (encode_frame(2, FrameType.RESET, b"\1"), "RESET without a code"),
    ],
)
def test_what_the_tables_do_not_list_ends_the_session_with_a_reason(wire: bytes, problem: str) -> None:
    pair = Pair()
    pair.request()
    pair.relay.receive(wire)
    assert problem in pair.relay_ear.closed
    assert pair.relay_ear.events[-1][:3] == ("reset", 2, ResetCode.SESSION_LOST)
    farewell = frames_of(pair.relay.outbox.take())
    assert farewell[-1][1] == FrameType.DRAIN
    assert problem.encode() in farewell[-1][3]


def test_hello_comes_first() -> None:
    pair = Pair(greet=False)
    pair.relay.receive(encode_frame(0, FrameType.PING, b"12345678"))
    assert "in phase HELLO" in pair.relay_ear.closed


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b'{"versions":[2],"window":65536,"maxStreams":1}',
        b'{"versions":[1],"window":1,"maxStreams":1}',
        b'{"versions":[1],"window":true,"maxStreams":1}',
        b'{"versions":"1"}',
        b"[" * 10_000,
    ],
)
def test_a_hello_that_cannot_be_is_refused(payload: bytes) -> None:
    pair = Pair(greet=False)
    pair.relay.receive(encode_frame(0, FrameType.HELLO, payload))
    assert pair.relay_ear.closed


def test_streams_over_the_limit_are_refused_by_the_opener_and_end_a_session_that_ignores_it() -> None:
    pair = Pair(max_streams=2)
    pair.request()
    pair.request()
    with pytest.raises(SessionBusy, match="most streams"):
        pair.relay.open(Open(), Ear(pair.relay_ear, 6))
    pair.connector.receive(encode_frame(6, FrameType.OPEN, encode_open(Open()), FIN))
    assert "more than 2 streams" in pair.connector_ear.closed


def test_stream_ids_are_never_reused() -> None:
    pair = Pair()
    pair.request()
    pair.connector.receive(encode_frame(2, FrameType.OPEN, encode_open(Open()), FIN))
    assert "reuses stream id 2" in pair.connector_ear.closed


def test_a_session_that_runs_out_of_ids_drains() -> None:
    pair = Pair()
    pair.relay._next_id = (1 << 31) - 2
    pair.relay.open(Open(), Ear(pair.relay_ear, 0), fin=True)
    with pytest.raises(SessionBusy):
        pair.relay.open(Open(), Ear(pair.relay_ear, 0))
    pair.move()
    assert any(e[0] == "drain" for e in pair.connector_ear.events)


def test_after_drain_what_was_opened_before_the_ack_is_served_and_nothing_after() -> None:
    pair = Pair()
    pair.connector.drain("rolling update")
    stream = pair.relay.open(Open(method=b"GET"), Ear(pair.relay_ear, 2), fin=True)
    pair.move()
    assert pair.connector_ear.streams[-1].id == stream.id
    assert pair.connector_ear.events[-1] == ("drain_ack",)
    with pytest.raises(SessionBusy):
        pair.relay.open(Open(), Ear(pair.relay_ear, 4))
    pair.connector_ear.streams[-1].send_head(ResponseHead(204), fin=True)
    pair.move()
    assert ("end", 2) in pair.relay_ear.events
    pair.connector.receive(encode_frame(4, FrameType.OPEN, encode_open(Open()), FIN))
    assert "after DRAIN_ACK" in pair.connector_ear.closed


def test_a_probe_is_echoed_behind_queued_data() -> None:
    pair = Pair()
    ours, theirs = pair.request()
    theirs.send_head(ResponseHead(200, Framing.CHUNKED), b"body")
    pair.connector.receive(encode_frame(4, FrameType.OPEN, encode_open(Open(kind=Kind.PROBE), b"token"), FIN))
    sent = frames_of(pair.connector.outbox.take())
    assert [f[0] for f in sent] == [ours.id, 4]
    assert sent[-1][1:] == (FrameType.DATA, FIN, b"token")


def test_a_probe_ends_in_data_and_end() -> None:
    pair = Pair()
    pair.connector.probe(Ear(pair.connector_ear, 1), b"abc")
    pair.move()
    assert pair.connector_ear.events == [("data", 1, b"abc"), ("end", 1)]
    assert not pair.connector.streams


def test_session_level_messages_arrive_whole_on_the_right_side() -> None:
    pair = Pair()
    routes = Routes("g" * 300_000, ("r1", "r2"))
    result = RoutesResult(7, (RouteResult("a.example.com", False, "not_in_issuer"),))
    pair.connector.routes(routes)
    pair.connector.credential(Credential("c", "p"))
    pair.connector.revoke(("r",))
    pair.relay.routes_result(result)
    pair.relay.credential_result(CredentialResult(False, "expired"))
    pair.move()
    assert pair.relay_ear.events == [("routes", routes), ("credential", Credential("c", "p")), ("revoke", ("r",))]
    assert pair.connector_ear.events == [
        ("routes_result", result),
        ("credential_result", CredentialResult(False, "expired")),
    ]


def test_a_peer_that_pings_without_reading_is_cut_off() -> None:
    pair = Pair()
    pings = encode_frame(0, FrameType.PING, b"12345678") * 4096
    for _ in range(100):
        pair.relay.receive(pings)
        if pair.relay.closed:
            break
    assert "does not read" in pair.relay_ear.closed


def test_a_peer_that_probes_without_reading_is_cut_off() -> None:
    pair = Pair()
    pair.relay.outbox.set_congested(True)
    payload = encode_open(Open(kind=Kind.PROBE), bytes(64))
    for stream_id in range(1, CONTROL_LIMIT // 10, 2):
        pair.relay.receive(encode_frame(stream_id, FrameType.OPEN, payload, FIN))
        if pair.relay.closed:
            break
    assert "does not read" in pair.relay_ear.closed


def test_closing_tells_every_stream_once_and_sends_nothing_more() -> None:
    pair = Pair()
    ours, _ = pair.request(fin=False)
    pair.relay.close("shutting down")
    pair.relay.close("again")
    ours.write(b"x")
    ours.finish()
    ours.reset(ResetCode.CANCEL)
    assert pair.relay_ear.events == [("reset", 2, ResetCode.SESSION_LOST, "shutting down")]
    assert pair.relay_ear.closed == "shutting down"
    assert pair.relay.outbox.take() == b""


@given(st.binary(max_size=600))
def test_arbitrary_bytes_raise_nothing(data: bytes) -> None:
    for greeted in (True, False):
        pair = Pair(greet=greeted)
        if greeted:
            pair.request(fin=False)
        pair.relay.receive(data)
        pair.connector.receive(data)


def test_session_lost_is_never_believed_from_the_wire() -> None:
    pair = Pair()
    pair.request()
    pair.relay.receive(encode_frame(2, FrameType.RESET, ResetCode.SESSION_LOST.to_bytes(2, "little")))
    assert pair.relay_ear.events[-1] == ("reset", 2, ResetCode.PROTOCOL_ERROR, "")


def test_a_stream_that_moves_much_is_known_as_bulk_until_it_ends() -> None:
    pair = Pair()
    ours, theirs = pair.request(fin=False)
    ours.write(bytes(40_000))
    pair.move()
    theirs.consumed(40_000)
    pair.move()
    assert (pair.relay.bulk_streams, pair.connector.bulk_streams) == (1, 1)
    ours.reset(ResetCode.CANCEL)
    pair.move()
    assert (pair.relay.bulk_streams, pair.connector.bulk_streams) == (0, 0)


def test_a_fin_that_only_a_backed_up_session_held_lets_its_source_go_on() -> None:
    pair = Pair()
    ours, _ = pair.request(fin=False)
    pair.relay.outbox.set_congested(True)
    ours.finish()
    assert ours.blocked
    pair.relay.outbox.set_congested(False)
    pair.move()
    assert not ours.blocked
    assert ("writable", 2) in pair.relay_ear.events
    assert ("end", 2) in pair.connector_ear.events


@pytest.mark.parametrize("ends", ["in order", "by a reset"])
def test_a_stream_that_is_over_holds_its_listener_no_more(ends: str) -> None:
    """They would be garbage in a cycle, of which every request leaves some for a collection to find."""
    pair = Pair()
    _, stream = pair.request()
    listener = weakref.ref(stream.listener)
    if ends == "in order":
        stream.send_head(ResponseHead(204), fin=True)
    else:
        stream.reset(ResetCode.INTERNAL)
    pair.move()
    assert stream.closed
    assert listener() is None
