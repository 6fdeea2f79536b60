"""What a visitor reads of a connector's response: framed by the relay, counted, and cut when the connector lies."""

import asyncio
import socket
from typing import Any

import pytest

from culvert_protocol.codes import ResetCode
from culvert_protocol.credit import INITIAL_WINDOW
from culvert_protocol.frames import FIN, HEAD, FrameType, encode_frame
from culvert_protocol.heads import Framing, ResponseHead, encode_response_head
from culvert_relay.visitors.line import CLOSED
from culvert_transport.sockets import SLOW_BUFFER, outgoing

BAD_FIELDS = [
    b"X-A: b\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"X-A: b\nX-C: d\r\n",
    b"X-A: b\rX-C: d\r\n",
    b"X-A: b\0\r\n",
    b"X-A: b",
    b"X A: b\r\n",
    b": b\r\n",
    b"X-A : b\r\n",
    b" folded: b\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: keep-alive\r\n",
    b"Keep-Alive: timeout=5\r\n",
    b"Upgrade: h2c\r\n",
    b"X-A: b\r\ncontent-length: 3\r\nX-C: d\r\n",
]


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_a29_a_malformed_head_costs_the_connector_its_session(play: Any, wait_until: Any, fields: bytes) -> None:
    def lie(request: Any) -> None:
        request.respond(200, b"abc", fields=fields)

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lie)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        response = await visitor.response()
        assert (response.status, response.field("culvert-error")) == (502, "connector; bad_response")
        await wait_until(lambda: connector.closed is not None, "the session's end")
        assert connector.drained == "a response head is not well-formed"
        assert world.edge.counters.violations == 1
        assert (await (await world.visitor()).get("app.example.com")).status == 503

    play(scenario)


LIES: list[tuple[str, list[tuple[int, bytes]], str]] = [
    (
        "longer than declared",
        [(HEAD, encode_response_head(ResponseHead(200, Framing.LENGTH, 3), b"abc")), (0, b"HTTP/1.1 200 OK\r\n")],
        "a response is longer than it declared",
    ),
    (
        "longer in one frame",
        [(HEAD | FIN, encode_response_head(ResponseHead(200, Framing.LENGTH, 3), b"abcd"))],
        "a response is longer than it declared",
    ),
    (
        "shorter than declared",
        [(HEAD | FIN, encode_response_head(ResponseHead(200, Framing.LENGTH, 3), b"ab"))],
        "a response is shorter than it declared",
    ),
    (
        "a body where there is none",
        [(HEAD | FIN, encode_response_head(ResponseHead(204), b"abc"))],
        "a response without a body has one",
    ),
    (
        "two final heads",
        [
            (HEAD, encode_response_head(ResponseHead(200, Framing.CHUNKED), b"a")),
            (HEAD, encode_response_head(ResponseHead(200, Framing.CHUNKED), b"b")),
        ],
        "FINAL on stream",
    ),
    (
        "a 101 that nobody asked for",
        [(HEAD, encode_response_head(ResponseHead(101)))],
        "a 101 answers a request that asked for none",
    ),
    (
        "endless 1xx heads",
        [(HEAD, encode_response_head(ResponseHead(103)))] * 40,
        "a response has too many 1xx heads",
    ),
    (
        "more than its window",
        [(HEAD, encode_response_head(ResponseHead(200, Framing.CHUNKED)))] + [(0, b"x" * 60_000)] * 40,
        "overran its window",
    ),
]


@pytest.mark.parametrize(("frames", "reason"), [row[1:] for row in LIES], ids=[row[0] for row in LIES])
def test_a29_a_connector_that_lies_about_its_response_is_cut_off(
    play: Any, wait_until: Any, frames: list[tuple[int, bytes]], reason: str
) -> None:
    async def scenario(world: Any) -> None:
        async def read() -> bytes:
            data = b""
            while piece := await asyncio.wait_for(visitor.reader.read(65_536), 10):
                data += piece
            return data

        def lie(request: Any) -> None:
            connection = request.connector.link._transport
            for flags, payload in frames:
                connection.write(encode_frame(request.stream.id, FrameType.DATA, payload, flags))

        connector = await world.connector(["app.example.com"], handler=lie)
        ended: list[str] = []
        closed = world.relay.tunnels.closed
        world.relay.tunnels.closed = lambda session, why: (ended.append(why), closed(session, why))
        visitor = await world.visitor()
        if reason == "overran its window":
            # A visitor that does not read gives no credit back.
            visitor.reader._limit = 1
        visitor.send(
            b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\nGET /next HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
        )
        await wait_until(lambda: connector.closed is not None, "the session's end")
        assert reason in ended[0]
        try:
            seen = await read()
        except ConnectionResetError:
            seen = b""
        # Nothing behind what was declared, no second response, and no end of a body that has not ended.
        assert b"HTTP/1.1 200 OK\r\n" not in seen[1:]
        assert not seen.endswith(b"0\r\n\r\n")
        await visitor.close()
        await wait_until(lambda: not world.edge.visitors, "the connection's end")

    play(scenario)


def test_b08_a_head_that_answers_head_declares_a_length_without_a_body(play: Any) -> None:
    def answer(request: Any) -> None:
        request.stream.send_head(ResponseHead(200, Framing.LENGTH, 1234, False, b"ETag: x\r\n"), fin=True)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=answer)
        visitor = await world.visitor()
        for _ in range(2):
            visitor.send(b"HEAD / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            response = await visitor.response(method="HEAD")
            assert (response.status, response.field("content-length")) == (200, "1234")

    play(scenario)


@pytest.mark.parametrize("status", [204, 304])
def test_b08_statuses_that_never_have_a_body(play: Any, status: int) -> None:
    def answer(request: Any) -> None:
        request.stream.send_head(ResponseHead(status), fin=True)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=answer)
        visitor = await world.visitor()
        for _ in range(2):
            response = await visitor.get("app.example.com")
            assert response.status == status
            assert response.field("content-length") is None
            assert response.field("transfer-encoding") is None

    play(scenario)


def test_b11_fields_keep_their_order_case_and_repetition(play: Any) -> None:
    fields = b"SeT-CooKie: a=1\r\nX-Obs: \xe4\r\nset-cookie: b=2\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=lambda request: request.respond(200, b"x", fields=fields))
        visitor = await world.visitor()
        response = await visitor.get("app.example.com")
        assert response.fields[:4] == [
            ("SeT-CooKie", "a=1"), ("X-Obs", "ä"), ("set-cookie", "b=2"), ("Date", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ]  # fmt: skip

    play(scenario)


def test_b07_1xx_heads_are_passed_on_but_not_to_http_1_0(play: Any) -> None:
    def answer(request: Any) -> None:
        request.stream.send_head(ResponseHead(103, fields=b"Link: </a>\r\n"))
        request.stream.send_head(ResponseHead(103, fields=b"Link: </b>\r\n"))
        request.respond(200, b"done")

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=answer)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        for link in ("</a>", "</b>"):
            early = await visitor.head()
            assert (early.status, early.field("link")) == (103, link)
        assert (await visitor.response()).body == b"done"
        visitor.send(b"GET / HTTP/1.0\r\nHost: app.example.com\r\n\r\n")
        assert (await visitor.response()).body == b"done"

    play(scenario)


def test_a_connectors_own_answer_says_so_and_cannot_blame_the_relay(play: Any) -> None:
    fields = [b"Culvert-Error: connector; no_rule\r\n", b"Culvert-Error: relay; lies\r\nCulvert-Nonce: x\r\n"]

    async def scenario(world: Any) -> None:
        await world.connector(
            ["app.example.com"], handler=lambda request: request.respond(404, b"no", fields=fields.pop(0))
        )
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com")).field("culvert-error") == "connector; no_rule"
        response = await visitor.get("app.example.com")
        assert response.field("culvert-error") is None
        assert response.field("culvert-nonce") is None
        (_, tally, _) = world.edge.counters.tunnels
        assert list(tally.answers.samples()) == [("4xx", "none", 1), ("4xx", "connector", 1)]

    play(scenario)


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
@pytest.mark.parametrize("minor", [0, 1])
def test_a16_a_response_that_breaks_off_never_ends_cleanly(
    play: Any, wait_until: Any, framing: int, minor: int
) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.%d\r\nHost: app.example.com\r\n\r\n" % minor)
        await wait_until(lambda: bool(connector.requests), "the request")
        stream = connector.requests[0].stream
        stream.send_head(ResponseHead(200, framing, 100), b"part")
        await visitor.head()
        stream.reset(ResetCode.ORIGIN_PROTOCOL, "origin_died")
        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        assert connector.closed is None

    play(scenario)


def test_a_streamed_piece_arrives_before_the_next_is_there(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        stream = connector.requests[0].stream
        stream.send_head(ResponseHead(200, Framing.CHUNKED))
        assert (await visitor.head()).field("transfer-encoding") == "chunked"
        for number in range(3):
            stream.write(b"event %d" % number)
            assert await visitor.exactly(12) == b"7\r\nevent %d\r\n" % number
        stream.finish()
        assert await visitor.exactly(5) == b"0\r\n\r\n"

    play(scenario)


def test_a13_a_slow_reader_holds_back_its_own_origin_and_nobody_else(play: Any, wait_until: Any) -> None:
    total = 20_000_000

    def handler(request: Any) -> None:
        if request.head.target == b"/bulk":
            request.stream.send_head(ResponseHead(200, Framing.LENGTH, total))
            request.stream.write(b"x" * total, fin=True)
        else:
            request.respond(200, b"quick")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=handler)
        slow, quick = await world.visitor(), await world.visitor()
        slow.writer.transport.pause_reading()
        slow.send(b"GET /bulk HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the bulk request")
        for _ in range(50):
            assert (await quick.get("app.example.com")).body == b"quick"
        bulk = connector.requests[0].stream
        await wait_until(lambda: bulk.blocked, "the origin's side to be held")
        slowly = next(visitor for visitor in world.edge.visitors if visitor.congested)
        assert slowly._transport.get_write_buffer_size() < 300_000
        slow.writer.transport.resume_reading()
        response = await slow.response()
        assert len(response.body) == total

    play(scenario)


def test_b12_a_reader_that_makes_no_progress_is_cut(play: Any, wait_until: Any) -> None:
    def pour(request: Any) -> None:
        request.stream.send_head(ResponseHead(200, Framing.CHUNKED))
        request.stream.write(b"x" * 20_000_000)

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=pour)
        slow = await world.visitor()
        slow.writer.transport.pause_reading()
        slow.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: any(visitor.congested for visitor in world.edge.visitors), "congestion")
        world.edge.stop()
        for _ in range(3):
            world.edge.wheel.advance(world.edge.wheel.now + 31)
        await wait_until(lambda: not world.edge.visitors, "the end of the connection")
        await wait_until(lambda: connector.requests[0].reset is not None, "the end of the request")

    play(scenario)


def test_b12_a_reader_that_is_slow_but_steady_is_served_to_the_end(play: Any, wait_until: Any) -> None:
    size = 20_000_000

    def pour(request: Any) -> None:
        request.stream.send_head(ResponseHead(200, Framing.LENGTH, size))
        request.stream.write(b"x" * size, fin=True)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=pour)
        slow = await world.visitor()
        slow.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await slow.head()
        slow.reader._limit = 1  # it reads what is asked for, and no more
        (line,) = world.edge.visitors
        await wait_until(lambda: line.congested, "congestion")
        world.edge.stop()
        sock = line._transport.get_extra_info("socket")
        for _ in range(8):
            # Too little for the relay's own buffer to move; what the visitor takes is seen in the kernel's.
            waiting = outgoing(line._transport)
            await slow.exactly(200_000)
            await wait_until(lambda before=waiting: outgoing(line._transport) != before, "the kernel's word")
            await wait_until(lambda: line.congested, "congestion again")
            world.edge.wheel.advance(world.edge.wheel.now + world.edge.stall_ticks)
            assert line in world.edge.visitors, "cut although it reads"
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SLOW_BUFFER
        assert await slow.exactly(size - 1_600_000) == b"x" * (size - 1_600_000)

    play(scenario)


@pytest.mark.parametrize("reads", [True, False], ids=["steadily", "nothing"])
def test_b12_what_was_written_last_waits_for_a_slow_reader_and_not_for_one_who_takes_nothing(
    play: Any, wait_until: Any, reads: bool
) -> None:
    size = INITIAL_WINDOW

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=lambda request: request.respond(200, b"x" * size))
        slow = await world.visitor(small_buffer=True)
        slow.reader._limit = 1000
        slow.writer.transport.pause_reading()
        (line,) = world.edge.visitors
        line._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        slow.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
        await wait_until(lambda: line._ending == CLOSED and outgoing(line._transport) > 0, "the end of the response")
        world.edge.stop()
        if reads:
            slow.writer.transport.resume_reading()
            await slow.head()
            slow.reader._limit = 1
            for _ in range(6):
                waiting = outgoing(line._transport)
                await slow.exactly(9_000)
                await wait_until(lambda before=waiting: outgoing(line._transport) < before, "a piece is taken")
                world.edge.wheel.advance(world.edge.wheel.now + world.edge.stall_ticks)
                assert line in world.edge.visitors, "cut although it reads"
            assert await slow.rest() == b"x" * (size - 54_000)
        else:
            world.edge.wheel.advance(world.edge.wheel.now + world.edge.stall_ticks)
            await wait_until(lambda: not world.edge.visitors, "the end of the connection")
            assert world.edge.counters.limits_reached["reader"] == 1

    play(scenario)


def test_a14_an_origin_that_does_not_read_holds_back_the_upload(play: Any, wait_until: Any) -> None:
    def stall(request: Any) -> None:
        request.consume = False

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=stall)
        visitor = await world.visitor()
        visitor.send(b"PUT / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        await wait_until(lambda: any(item._paused for item in world.edge.visitors), "reading to pause")
        await wait_until(lambda: bool(connector.requests), "the request")
        await wait_until(lambda: len(connector.requests[0].body) == 65_536, "a window full")
        assert world.edge.counters.bytes_from_visitors < 1_000_000
        request = connector.requests[0]
        request.consume = True
        connector.on_body = lambda request: request.respond(200, b"all of it") if request.fin else None
        request.stream.consumed(65_536)
        assert (await visitor.response()).body == b"all of it"
        assert len(request.body) == 30_000_000

    play(scenario)
