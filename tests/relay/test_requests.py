"""Requests through a real relay and a real session: what arrives at the connector and what the visitor reads."""

import asyncio
import hashlib
import sys
from typing import Any

import pytest

from culvert_protocol.codes import ResetCode
from culvert_protocol.credit import INITIAL_WINDOW
from culvert_protocol.heads import Framing, Kind, ResponseHead


def test_a_request_reaches_the_connector_and_its_answer_the_visitor(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        assert connector.result() == {"app.example.com": "accepted"}
        visitor = await world.visitor()
        response = await visitor.get("app.example.com", "/a?b=c")
        assert (response.status, response.body) == (200, b"GET /a?b=c ")
        assert response.field("connection") is None
        again = await visitor.get("APP.example.com.:8080", "/again")
        assert again.body == b"GET /again "

    play(scenario)


def test_what_a_connector_learns_of_a_request(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["*.example.com"], version=7)
        visitor = await world.visitor()
        visitor.send(
            b"POST /a/../b%7Ec?d HTTP/1.1\r\nHost: App.Example.com:8080\r\nContent-Length: 4\r\n"
            b"X-Forwarded-For: 6.6.6.6\r\nX-FORWARDED-PROTO: gopher\r\nForwarded: for=6.6.6.6\r\nX-Real-Ip: 6.6.6.6\r\n"
            b"X_Forwarded_For: 6.6.6.6\r\nCulvert-Error: relay; lies\r\nTE: trailers\r\nProxy-Authorization: x\r\n"
            b"Connection: x-mine, keep-alive\r\nX-Mine: gone\r\nX-Kept: yes\r\n\r\nbody"
        )
        assert (await visitor.response()).status == 200
        (request,) = connector.requests
        head = request.head
        assert (head.kind, head.method, head.target, head.path) == (Kind.HTTP, b"POST", b"/a/../b%7Ec?d", b"/b~c")
        assert (head.host, head.authority) == (b"app.example.com", b"App.Example.com:8080")
        assert (head.framing, head.content_length, bytes(request.body)) == (Framing.LENGTH, 4, b"body")
        assert (head.scheme, head.address, head.local_port) == (0, b"127.0.0.1", world.relay.ports.http[0])
        assert (head.grant_version, head.attempt) == (7, 0)
        assert request.fields == {
            "x-kept": "yes",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-proto": "http",
            "x-forwarded-host": "App.Example.com:8080",
            "x-real-ip": "127.0.0.1",
        }

    play(scenario)


def test_a_path_with_more_than_one_meaning_matches_no_rule(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        await visitor.get("app.example.com", "/a%2f..%2fadmin")
        assert connector.requests[0].head.path == b"?"
        assert connector.requests[0].head.target == b"/a%2f..%2fadmin"

    play(scenario)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_pass_exactly_in_both_directions(play: Any, size: int, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    def echo(request: Any) -> None:
        if request.fin:
            request.respond(200, bytes(request.body), stream=chunked)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=echo)
        visitor = await world.visitor()
        for _ in range(2):
            if chunked:
                visitor.send(b"PUT /u HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
                for start in range(0, size, 50_001):
                    piece = body[start : start + 50_001]
                    visitor.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
                visitor.send(b"0\r\nTrailer: dropped\r\n\r\n")
            else:
                head = b"PUT /u HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: %d\r\n\r\n" % size
                visitor.send(head + body)
            response = await visitor.response()
            assert response.status == 200
            assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()
            assert response.field("transfer-encoding") == ("chunked" if chunked else None)
        assert world.edge.counters.bytes_to_visitors == 2 * size
        assert world.edge.counters.bytes_from_visitors == 2 * size

    play(scenario)


def test_a_request_that_arrives_byte_by_byte_is_the_same_request(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        whole = (
            b"POST /x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        for index in range(len(whole)):
            visitor.send(whole[index : index + 1])
            await visitor.writer.drain()
            await asyncio.sleep(0)
        assert (await visitor.response()).body == b"POST /x abcde"
        assert len(connector.requests) == 1

    play(scenario)


def test_b07_pipelined_requests_are_answered_in_order_and_one_at_a_time(play: Any, wait_until: Any) -> None:
    waiting: list[Any] = []

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=waiting.append)
        visitor = await world.visitor()
        visitor.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: app.example.com\r\n\r\n" % n for n in range(5)))
        for number in range(5):
            await wait_until(lambda n=number: len(waiting) == n + 1, f"request {number}")
            waiting[number].respond(200, b"answer %d" % number)
            assert (await visitor.response()).body == b"answer %d" % number
        assert [request.head.target for request in waiting] == [b"/%d" % n for n in range(5)]

    play(scenario)


def test_b07_what_is_pipelined_behind_a_running_exchange_is_bounded(play: Any, wait_until: Any) -> None:
    waiting: list[Any] = []

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=waiting.append)
        visitor = await world.visitor()
        one = b"GET / HTTP/1.1\r\nHost: app.example.com\r\nX-Long: " + b"a" * 8000 + b"\r\n\r\n"
        visitor.send(one * 4_000)
        await wait_until(lambda: len(waiting) == 1, "the first request")
        (connection,) = world.edge.visitors
        await wait_until(lambda: bool(connection._paused), "reading to pause")
        assert len(connection._held) < 600_000
        connector.handler = lambda request: request.respond(200)
        waiting[0].respond(200)
        for _ in range(4_000):
            assert (await visitor.response()).status == 200

    play(scenario)


def test_pipelined_requests_of_a_visitor_that_has_closed_its_side_are_all_answered(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: app.example.com\r\n\r\n" % n for n in range(3)))
        visitor.writer.write_eof()
        for number in range(3):
            assert (await visitor.response()).body == b"GET /%d " % number
        assert await visitor.rest() == b""
        assert len(connector.requests) == 3

    play(scenario)


def test_a20_a_visitor_that_half_closes_still_gets_its_response(play: Any, wait_until: Any) -> None:
    waiting: list[Any] = []

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=waiting.append)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        visitor.writer.write_eof()
        await wait_until(lambda: bool(waiting), "the request")
        waiting[0].respond(200, b"late")
        assert (await visitor.response()).body == b"late"
        assert await visitor.rest() == b""

    play(scenario)


def test_a19_a_visitor_that_leaves_cancels_its_request(play: Any, wait_until: Any) -> None:
    waiting: list[Any] = []

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=waiting.append)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(waiting), "the request")
        visitor.reset()
        await wait_until(lambda: waiting[0].reset is not None, "the reset")
        assert waiting[0].reset == (2, "visitor_gone")
        assert not world.edge.visitors
        assert not connector.session.streams

    play(scenario)


def test_a19_a_visitor_that_leaves_in_the_middle_of_a_download_cancels_it(play: Any, wait_until: Any) -> None:
    def pour(request: Any) -> None:
        request.stream.send_head(ResponseHead(200, Framing.CHUNKED))
        request.stream.write(b"x" * 10_000_000)

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=pour)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await visitor.head()
        await visitor.close()
        await wait_until(lambda: connector.requests[0].reset is not None, "the reset")
        assert not world.edge.visitors
        assert not connector.session.streams

    play(scenario)


SOME = b"x" * 200_000
PUT = b"PUT / HTTP/1.1\r\nHost: app.example.com\r\n"
BY_LENGTH, BY_MORE_LENGTH = (PUT + b"Content-Length: %d\r\n\r\n" % length + SOME for length in (200_000, 200_001))
IN_CHUNKS = PUT + b"Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + SOME + b"\r\n"
FAR_FROM_IT = PUT + b"Content-Length: 50000000\r\n\r\n" + 3 * SOME
STOPPED = {
    "reset": (BY_MORE_LENGTH, True, None),
    "reset after all of it": (BY_LENGTH, True, None),
    "closed within a length": (BY_MORE_LENGTH, False, None),
    "closed within the chunks": (IN_CHUNKS, False, None),
    "reset over TLS": (FAR_FROM_IT, True, "app.example.com"),
    "closed over TLS": (FAR_FROM_IT, False, "app.example.com"),
}
"""What a visitor sends of an upload, whether a reset follows or the connection's end, and the server's name in TLS."""


async def stalled(world: Any, wait_until: Any, data: bytes, *, sni: str | None = None) -> tuple[Any, Any]:
    """A request whose origin takes none of its body, and its visitor, who is not read any more."""

    def stall(request: Any) -> None:
        request.consume = False

    connector = await world.connector(["app.example.com"], handler=stall)
    visitor = await world.visitor(sni=sni)
    visitor.send(data)
    await wait_until(lambda: any(item._paused for item in world.edge.visitors), "reading to pause")
    await wait_until(lambda: bool(connector.requests), "the request")
    return connector.requests[0], visitor


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about sockets that are not read")
@pytest.mark.parametrize("way", STOPPED)
def test_a19_a_visitor_that_leaves_an_upload_which_is_not_read_cancels_it_at_once(
    play: Any, wait_until: Any, way: str
) -> None:
    data, reset, sni = STOPPED[way]

    async def scenario(world: Any) -> None:
        request, visitor = await stalled(world, wait_until, data, sni=sni)
        now = world.edge.wheel.now
        visitor.reset() if reset else visitor.writer.transport.abort()
        await wait_until(lambda: request.reset is not None, "the request's end")
        assert request.reset == (2, "visitor_gone")
        # Two looks of half a second each: no time-out is as short.
        assert world.edge.wheel.now - now <= 3
        await wait_until(lambda: not world.edge.visitors, "the connection's end")
        assert not world.edge.paused

    play(scenario)


@pytest.mark.parametrize("data", [BY_LENGTH, IN_CHUNKS + b"0\r\n\r\n"], ids=["length", "chunks"])
def test_a20_a_visitor_that_half_closes_behind_a_body_which_is_not_read_yet_gets_its_response(
    play: Any, wait_until: Any, data: bytes
) -> None:
    async def scenario(world: Any) -> None:
        request, visitor = await stalled(world, wait_until, data)
        visitor.writer.write_eof()
        now = world.edge.wheel.now
        await wait_until(lambda: world.edge.wheel.now > now + 3, "more than one look")
        request.consume = True
        request.connector.on_body = lambda request: request.respond(200, b"all of it") if request.fin else None
        request.stream.consumed(65_536)
        assert (await visitor.response()).body == b"all of it"
        assert request.body == SOME

    play(scenario)


def test_a_body_that_ends_early_cancels_the_request(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(b"POST / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 10\r\n\r\nabc")
        await wait_until(lambda: bool(connector.requests), "the request")
        visitor.writer.write_eof()
        await wait_until(lambda: connector.requests[0].reset is not None, "the reset")
        assert not connector.requests[0].fin
        assert await visitor.rest() == b""

    play(scenario)


def test_b02_a_broken_chunk_cancels_the_request_and_answers_400(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(b"POST / HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        visitor.send(b"zz\r\nGET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        response = await visitor.response()
        assert (response.status, response.field("culvert-error")) == (400, "relay; bad_chunk")
        assert await visitor.rest() == b""
        await wait_until(lambda: connector.requests[0].reset is not None, "the reset")
        assert len(connector.requests) == 1

    play(scenario)


def test_b07_expect_goes_to_the_origin_and_its_100_to_the_visitor(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(b"PUT /x HTTP/1.1\r\nHost: app.example.com\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request before its body")
        request = connector.requests[0]
        assert request.fields["expect"] == "100-continue"
        request.stream.send_head(ResponseHead(100))
        assert (await visitor.head()).status == 100
        visitor.send(b"ok")
        assert (await visitor.response()).body == b"PUT /x ok"

    play(scenario)


def test_b07_an_early_final_answer_ends_the_upload_and_the_connection(play: Any, wait_until: Any) -> None:
    def refuse(request: Any) -> None:
        request.respond(413, b"too much")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=refuse)
        connector.on_body = lambda request: None
        visitor = await world.visitor()
        visitor.send(b"PUT /x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 100000000\r\n\r\n" + b"a" * 1000)
        response = await visitor.response()
        assert (response.status, response.body, response.field("connection")) == (413, b"too much", "close")
        assert await visitor.rest() == b""
        await wait_until(lambda: connector.requests[0].reset is not None, "the upload's end")
        assert connector.requests[0].reset[0] == 0

    play(scenario)


@pytest.mark.parametrize("end", ["answered", "reset", "session lost"])
def test_a_connection_whose_request_waited_for_credit_when_it_ended_reads_the_next_request(
    play: Any, wait_until: Any, end: str
) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(
            ["app.example.com"], handler=lambda request: setattr(request, "consume", False)
        )
        connector.on_body = lambda request: None
        visitor = await world.visitor()
        size = INITIAL_WINDOW + 1
        visitor.send(b"POST /first HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: %d\r\n\r\n" % size)
        await wait_until(lambda: bool(connector.requests), "the request")
        (request,) = connector.requests
        visitor.send(b"x" * size)
        (line,) = world.edge.visitors
        # The request has been read to its last byte, which waits in the relay for credit.
        await wait_until(lambda: line._paused and line._upload is None, "the connection pauses behind a whole request")
        if end == "answered":
            request.respond(200, b"first")
            assert (await visitor.response()).body == b"first"
            await wait_until(lambda: request.reset is not None, "the rest of the upload is cancelled")
            assert not connector.session.streams
        elif end == "reset":
            request.stream.reset(ResetCode.ORIGIN_PROTOCOL, "origin_reset")
            assert (await visitor.response()).status == 502
        else:
            connector.session.close("lost")
            assert (await visitor.response()).status == 502
            await world.connector(["app.example.com"])
        visitor.send(b"GET /second HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        if end == "session lost":
            assert (await visitor.response()).status == 200
        else:
            await wait_until(lambda: len(connector.requests) == 2, "the next request is read")
            connector.requests[1].respond(200, b"second")
            assert (await visitor.response()).body == b"second"

    play(scenario)


def test_http_1_0_visitors(play: Any) -> None:
    def stream(request: Any) -> None:
        request.respond(200, b"streamed", stream=True)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        await world.connector(["stream.example.com"], subject="other", handler=stream)
        visitor = await world.visitor()
        visitor.send(b"GET /a HTTP/1.0\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\r\n")
        response = await visitor.response()
        assert (response.body, response.field("connection")) == (b"GET /a ", "keep-alive")
        visitor.send(b"GET /s HTTP/1.0\r\nHost: stream.example.com\r\nConnection: keep-alive\r\n\r\n")
        response = await visitor.response()
        assert response.field("transfer-encoding") is None
        assert response.field("content-length") is None
        assert (response.body, response.field("connection")) == (b"streamed", "close")

    play(scenario)


def test_connection_close_is_honoured(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        visitor = await world.visitor()
        response = await visitor.get("app.example.com", extra="Connection: close\r\n")
        assert response.field("connection") == "close"
        assert await visitor.rest() == b""

    play(scenario)


def test_b06_options_asterisk_is_the_relays_own(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(b"OPTIONS * HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        assert (await visitor.response()).status == 204
        assert (await visitor.get("app.example.com")).status == 200
        assert len(connector.requests) == 1

    play(scenario)


@pytest.mark.parametrize(
    ("host", "status", "reason"),
    [
        ("gone.example.com", 503, "relay; no_session"),
        ("example.com", 503, "relay; no_session"),
        ("evilexample.com", 404, "relay; unknown_host"),
        ("relay.test", 404, "relay; unknown_host"),
    ],
)
def test_a21_hosts_without_a_session(play: Any, host: str, status: int, reason: str) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        visitor = await world.visitor()
        response = await visitor.get(host)
        assert (response.status, response.field("culvert-error")) == (status, reason)
        assert response.field("cache-control") == "no-store"
        assert (response.field("retry-after") is not None) == (status == 503)
        # The connection is as good as before.
        assert (await visitor.get("app.example.com")).status == 200

    play(scenario)


def test_connections_beyond_the_limit_are_told_so(play: Any, world: Any, wait_until: Any) -> None:
    with (world.folder / "relay.yml").open("a") as file:
        file.write("limits: {connections: 2}\n")

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        first, second = await world.visitor(), await world.visitor()
        await wait_until(lambda: len(world.edge.visitors) == 2, "two connections")
        third = await world.visitor()
        response = await third.response()
        assert (response.status, response.field("culvert-error")) == (503, "relay; too_many_connections")
        assert await third.rest() == b""
        for visitor in (first, second):
            assert (await visitor.get("app.example.com")).status == 200

    play(scenario)


def test_b12_deadlines_of_heads_bodies_and_idle_connections(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        wheel = world.edge.wheel
        silent, slow, idle, stalled = [await world.visitor() for _ in range(4)]
        slow.send(b"GET / HTTP/1.1\r\nHost:")
        assert (await idle.get("app.example.com")).status == 200
        stalled.send(b"POST / HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 100\r\n\r\nabc")
        await wait_until(lambda: len(connector.requests) == 2, "the stalled request")
        world.edge.stop()
        wheel.advance(wheel.now + 25)
        assert await silent.rest() == b""
        response = await slow.response()
        assert (response.status, response.field("culvert-error")) == (408, "relay; head_timeout")
        assert await slow.rest() == b""
        assert (await idle.get("app.example.com")).status == 200
        wheel.advance(wheel.now + 20)
        response = await stalled.response()
        assert (response.status, response.field("culvert-error")) == (408, "relay; body_timeout")
        await wait_until(lambda: connector.requests[1].reset is not None, "the stalled request's end")
        wheel.advance(wheel.now + 160)
        assert await idle.rest() == b""
        await wait_until(lambda: not world.edge.visitors, "every connection's end")
        assert len(wheel) == 0

    play(scenario)
