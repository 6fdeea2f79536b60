"""WebSocket handshakes, and the byte pipe behind a 101."""

import hashlib
import socket
from typing import Any

import pytest

from culvert_protocol.heads import Kind, ResponseHead

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: app.example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"


def switch_and_echo(request: Any) -> None:
    """101, then every byte comes back; the visitor's end is answered with ours."""
    if request.connector.requests and not getattr(request, "switched", False):
        request.switched = True
        request.stream.send_head(ResponseHead(101, fields=ACCEPT))
    if request.body:
        request.stream.write(bytes(request.body))
        request.body.clear()
    if request.fin:
        request.stream.finish()


@pytest.mark.parametrize("sni", [None, "app.example.com"])
def test_c01_after_a_101_bytes_pass_unchanged_both_ways(play: Any, sni: str | None) -> None:
    data = bytes(range(256)) * 16_384

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=switch_and_echo)
        visitor = await world.visitor(sni=sni)
        visitor.send(HANDSHAKE)
        response = await visitor.head()
        assert response.fields == [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]
        head = connector.requests[0].head
        assert (head.kind, head.framing) == (Kind.UPGRADE, 0)
        assert "connection" not in connector.requests[0].fields
        assert connector.requests[0].fields["sec-websocket-version"] == "13"
        for piece in (b"x", data):
            visitor.send(piece)
            assert hashlib.sha256(await visitor.exactly(len(piece))).digest() == hashlib.sha256(piece).digest()
        assert world.edge.counters.upgrades == 1

    play(scenario)


@pytest.mark.parametrize("sni", [None, "app.example.com"])
def test_c01_a_visitor_who_pauses_a_pipe_keeps_it_and_costs_a_window(
    play: Any, wait_until: Any, sni: str | None
) -> None:
    data = bytes(range(256)) * 120_000

    def pour(request: Any) -> None:
        request.stream.send_head(ResponseHead(101, fields=ACCEPT))
        request.stream.write(data)

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=pour)
        visitor = await world.visitor(sni=sni)
        visitor.send(HANDSHAKE)
        assert (await visitor.head()).status == 101
        visitor.writer.transport.pause_reading()
        (line,) = world.edge.visitors
        await wait_until(lambda: line.congested, "congestion")
        world.edge.stop()
        for _ in range(5):
            world.edge.wheel.advance(world.edge.wheel.now + 2 * world.edge.stall_ticks)
        assert connector.requests[0].reset is None
        assert world.edge.counters.limits_reached["reader"] == 0
        sock = line._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert line._transport.get_write_buffer_size() < 1 << 20, "what is held for a visitor who does not read"
        visitor.writer.transport.resume_reading()
        assert hashlib.sha256(await visitor.exactly(len(data))).digest() == hashlib.sha256(data).digest()

    play(scenario)


def test_c03_bytes_ahead_of_the_101_are_held_and_follow_it(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(HANDSHAKE + b"early")
        await wait_until(lambda: bool(connector.requests), "the handshake")
        visitor.send(b" bird")
        (connection,) = world.edge.visitors
        await wait_until(lambda: bytes(connection._held) == b"early bird", "the bytes to be held")
        assert connector.requests[0].body == b""
        connector.on_body = switch_and_echo
        switch_and_echo(connector.requests[0])
        assert (await visitor.head()).status == 101
        assert await visitor.exactly(10) == b"early bird"

    play(scenario)


def test_c03_bytes_ahead_of_the_101_are_bounded(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(HANDSHAKE + b"x" * 10_000_000)
        await wait_until(lambda: bool(connector.requests), "the handshake")
        (connection,) = world.edge.visitors
        await wait_until(lambda: bool(connection._paused), "reading to pause")
        assert len(connection._held) < 600_000
        connector.on_body = switch_and_echo
        switch_and_echo(connector.requests[0])
        assert (await visitor.head()).status == 101
        assert await visitor.exactly(10_000_000) == b"x" * 10_000_000

    play(scenario)


@pytest.mark.parametrize("early", [b"", b"GET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n"])
def test_c02_a_refused_handshake_is_an_ordinary_response(play: Any, early: bytes) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: request.respond(403, b"no"))
        visitor = await world.visitor()
        visitor.send(HANDSHAKE + early)
        response = await visitor.response()
        assert (response.status, response.body) == (403, b"no")
        if early:
            assert response.field("connection") == "close"
            assert await visitor.rest() == b""
        else:
            visitor.send(HANDSHAKE)
            assert (await visitor.response()).status == 403
        assert all(request.head.target == b"/ws" for request in connector.requests)
        assert not connector.session.streams

    play(scenario)


@pytest.mark.parametrize(
    "handshake",
    [
        HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        HANDSHAKE.replace(b"Connection: keep-alive, Upgrade\r\n", b""),
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"websocket", b"h2c"),
    ],
    ids=["HTTP/1.0", "no Connection", "POST", "h2c"],
)
def test_c03_what_is_no_handshake_is_an_ordinary_request(play: Any, handshake: bytes) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(handshake)
        assert (await visitor.response()).status == 200
        assert connector.requests[0].head.kind == Kind.HTTP

    play(scenario)


def test_c01_half_closes_pass_in_both_directions(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=switch_and_echo)
        connector.on_body = lambda request: None
        first, second = await world.visitor(), await world.visitor()
        for visitor in (first, second):
            visitor.send(HANDSHAKE)
            assert (await visitor.head()).status == 101
        one, two = connector.requests
        first.writer.write_eof()
        await wait_until(lambda: one.fin, "the visitor's end at the connector")
        one.stream.write(b"still here", fin=True)
        assert await first.rest() == b"still here"
        two.stream.write(b"bye", fin=True)
        assert await second.rest() == b"bye"
        second.send(b"and I talk on")
        second.writer.write_eof()
        await wait_until(lambda: two.fin, "the visitor's later end")
        assert two.body == b"and I talk on"
        await wait_until(lambda: not world.edge.visitors, "both connections' end")
        assert not connector.session.streams

    play(scenario)


def test_a_reset_on_either_side_reaches_the_other(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=switch_and_echo)
        first, second = await world.visitor(), await world.visitor()
        for visitor in (first, second):
            visitor.send(HANDSHAKE)
            assert (await visitor.head()).status == 101
        first.reset()
        await wait_until(lambda: connector.requests[0].reset is not None, "the reset at the connector")
        connector.requests[1].stream.reset(7)
        with pytest.raises(ConnectionResetError):
            await second.rest()
        assert connector.closed is None

    play(scenario)


def test_c01_an_idle_pipe_outlives_the_deadlines_of_http(play: Any) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=switch_and_echo)
        visitor = await world.visitor()
        visitor.send(HANDSHAKE)
        assert (await visitor.head()).status == 101
        world.edge.stop()
        world.edge.wheel.advance(world.edge.wheel.now + 2 * 3600)
        visitor.send(b"still there?")
        assert await visitor.exactly(12) == b"still there?"

    play(scenario)
