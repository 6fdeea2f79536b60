"""Limits: what reaching one looks like, that it is counted, and that everything is as before afterwards."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from culvert_protocol.heads import Framing, ResponseHead
from culvert_relay.admission import CROWDED, FULL, Admission, Place, address_key, membership
from culvert_relay.config_values import networks


@pytest.fixture
def configure(world: Any) -> Callable[[str], None]:
    """Adds lines to relay.yml before the relay starts."""

    def add(text: str) -> None:
        with (world.folder / "relay.yml").open("a") as file:
            file.write(text + "\n")

    return add


def reached(world: Any, limit: str) -> int:
    return int(world.edge.counters.limits_reached[limit])


POST = b"POST / HTTP/1.1\r\nHost: app.example.com\r\n"


@pytest.mark.parametrize(
    ("data", "delivered"),
    [
        (POST + b"Content-Length: 1001\r\n\r\n", 0),
        (POST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 0),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 0),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n", 1),
    ],
    ids=["length", "length-with-expect", "chunk-at-once", "chunk-at-the-crossing"],
)
def test_b12_a_body_over_the_limit_is_a_413_before_or_at_the_crossing(
    play: Any, configure: Any, wait_until: Any, data: bytes, delivered: int
) -> None:
    configure("limits: {bodyBytes: 1000}")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        visitor.send(data)
        await wait_until(lambda: len(connector.requests) == delivered, "the request")
        if delivered:
            visitor.send(b"x\r\n")
        response = await visitor.response()
        assert (response.status, response.field("culvert-error")) == (413, "relay; body_too_large")
        assert await visitor.rest() == b""
        assert reached(world, "body") == 1
        for request in connector.requests:
            await wait_until(lambda request=request: request.reset is not None, "the request's end")
        other = await world.visitor()
        other.send(POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 1000)
        assert (await other.response()).status == 200

    play(scenario)


def test_b12_heads_have_the_sizes_of_the_file(play: Any, configure: Any) -> None:
    configure("limits: {headBytes: 2048, fieldBytes: 600, targetBytes: 200, headFields: 10}")

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        for number, (path, extra, status) in enumerate(
            [
                ("/" + "a" * 200, "", 414),
                ("/", "X-A: " + "a" * 600 + "\r\n", 431),
                ("/", "X-A: y\r\n" * 10, 431),
                ("/", ("X-A: " + "a" * 500 + "\r\n") * 4, 431),
            ],
            start=1,
        ):
            visitor = await world.visitor()
            assert (await visitor.get("app.example.com", path, extra=extra)).status == status
            assert reached(world, "head") == number
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com", "/" + "a" * 199, extra="X-A: y\r\n" * 9)).status == 200

    play(scenario)


def test_b12_one_address_has_its_share_of_connections(play: Any, configure: Any, wait_until: Any) -> None:
    configure("limits: {connectionsPerAddress: 2}")

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        first, second = await world.visitor(), await world.visitor()
        await wait_until(lambda: world.edge.gate.admission.count == 2, "two connections")
        third = await world.visitor()
        response = await third.response()
        assert (response.status, response.field("culvert-error")) == (429, "relay; too_many_from_address")
        assert await third.rest() == b""
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await world.visitor(sni="app.example.com")
        assert reached(world, "connections_per_address") == 2
        assert (await second.get("app.example.com")).status == 200
        await first.close()
        await wait_until(lambda: world.edge.gate.admission.count == 1, "a place")
        fourth = await world.visitor(sni="app.example.com")
        assert (await fourth.get("app.example.com")).status == 200

    play(scenario)


def test_a_trusted_proxys_connections_are_many_visitors(play: Any, configure: Any) -> None:
    configure('limits: {connectionsPerAddress: 1}\ntrustedProxies: ["127.0.0.0/8"]')

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        for _ in range(3):
            visitor = await world.visitor()
            assert (await visitor.get("app.example.com")).status == 200
        assert world.edge.gate.admission.count == 3

    play(scenario)


def test_b12_stalled_tls_handshakes_are_bounded_and_the_oldest_makes_room(
    play: Any, configure: Any, wait_until: Any
) -> None:
    configure("limits: {handshakes: 3}")

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        gate = world.edge.gate
        stalled = []
        try:
            for number in range(1, 6):
                stalled.append(await asyncio.open_connection("127.0.0.1", world.relay.ports.https[0]))
                await wait_until(lambda number=number: gate.waiting == min(number, 3), "a stalled handshake")
                await wait_until(lambda number=number: reached(world, "handshakes") == max(0, number - 3), "room")
            for reader, _ in stalled[:2]:
                assert await asyncio.wait_for(reader.read(), 10) == b""
            assert all(not reader.at_eof() for reader, _ in stalled[2:])
            visitor = await world.visitor(sni="app.example.com")
            assert (await visitor.get("app.example.com")).status == 200
        finally:
            for _, writer in stalled:
                writer.close()
        await wait_until(lambda: gate.waiting == 0 and gate.admission.count == 1, "nothing is left of them")

    play(scenario)


def test_b12_a_stalled_tls_handshake_ends_in_time(play: Any, configure: Any, wait_until: Any) -> None:
    configure("timeouts: {tlsHandshake: 1s}")

    async def scenario(world: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.relay.ports.https[0])
        started = asyncio.get_running_loop().time()
        writer.write(b"\x16\x03\x01")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        assert 0.5 < asyncio.get_running_loop().time() - started < 8
        writer.close()
        await wait_until(lambda: world.edge.counters.handshakes_failed == {"timeout": 1}, "the count")
        assert world.edge.gate.admission.count == 0

    play(scenario)


@pytest.mark.parametrize("begun", [False, True], ids=["before-the-answer", "within-the-answer"])
def test_b12_a_request_has_a_total_time_when_the_file_says_so(
    play: Any, configure: Any, wait_until: Any, begun: bool
) -> None:
    configure("timeouts: {request: 20s}")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        (request,) = connector.requests
        world.edge.stop()
        wheel = world.edge.wheel
        if begun:
            request.stream.send_head(ResponseHead(200, Framing.CHUNKED), b"")
            assert (await visitor.head()).status == 200
        wheel.advance(wheel.now + 39)
        assert request.reset is None
        wheel.advance(wheel.now + 4)
        if begun:
            with pytest.raises(ConnectionError):
                await visitor.rest()
        else:
            response = await visitor.response()
            assert (response.status, response.field("culvert-error")) == (504, "relay; request_timeout")
        await wait_until(lambda: request.reset is not None, "the request's end")
        assert reached(world, "request_time") == 1

    play(scenario)


def test_b12_a_websocket_outlives_the_total_time(play: Any, configure: Any, wait_until: Any) -> None:
    configure("timeouts: {request: 20s}")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(
            b"GET / HTTP/1.1\r\nHost: app.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await wait_until(lambda: bool(connector.requests), "the request")
        (request,) = connector.requests
        request.stream.send_head(ResponseHead(101))
        assert (await visitor.head()).status == 101
        world.edge.stop()
        wheel = world.edge.wheel
        wheel.advance(wheel.now + 500)
        request.stream.write(b"still here")
        assert await visitor.exactly(10) == b"still here"
        request.stream.finish()

    play(scenario)


def test_an_admission_gives_every_place_back_once() -> None:
    book = Admission(total=3, per_address=2)
    first, second = book.enter("192.0.2.1"), book.enter("192.0.2.1")
    assert book.enter("192.0.2.1") == CROWDED
    third = book.enter("192.0.2.2")
    assert book.enter("192.0.2.3") == FULL
    for place in (first, second, third):
        assert isinstance(place, Place)
        place.leave()
        place.leave()
    assert book.count == 0
    assert book.by_key == {}


def test_a_subscriber_of_ipv6_is_one_address() -> None:
    assert address_key("2001:db8:1:2:3::4") == address_key("2001:db8:1:2::ffff") == "2001:db8:1:2::/64"
    assert address_key("2001:db8:1:3::") != address_key("2001:db8:1:2::")
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1") == "192.0.2.1"


def test_membership_reads_addresses_in_every_form() -> None:
    within = membership(networks(["10.0.0.0/8", "fe80::/10", "2001:db8::1"], "here"))
    assert [within(text) for text in ("10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0", "2001:db8::1")] == [True] * 4
    assert not any(within(text) for text in ("11.0.0.1", "2001:db8::2", "", "unix", "10.0.0.0.1"))


def test_a23_a_full_descriptor_table_is_waited_out(play: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Any) -> None:
    """Here with a kernel that says so when it is told to; tests/tunnel does it with a real limit."""

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        calls = 0
        real = socket.socket.accept

        def accept(self: socket.socket) -> Any:
            nonlocal calls
            calls += 1
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, "accept", accept)
            visitor = await world.visitor()
            visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            await wait_until(lambda: calls >= 2, "another look")
            assert calls == 2
        assert socket.socket.accept is real
        assert (await visitor.response()).status == 200
        assert reached(world, "descriptors") == 2

    play(scenario)
