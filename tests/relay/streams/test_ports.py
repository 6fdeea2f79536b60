"""TCP ports at a real relay: sockets on loopback, a connector that is a real end of the protocol."""

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_protocol.codes import ResetCode
from culvert_protocol.granted import GrantedPort
from culvert_protocol.heads import Kind
from culvert_protocol.messages import Routes
from culvert_protocol.statements import sign_grant

Play = Callable[..., None]
Wait = Callable[[Callable[[], bool], str], Awaitable[None]]


@pytest.fixture
def port(world: Any) -> int:
    """A free port that the relay's issuer may grant."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        found: int = sock.getsockname()[1]
    path = world.folder / "relay.yml"
    path.write_text(path.read_text().replace("hostnames:", f'tcpPorts: ["{found}"], hostnames:'))
    return found


def grant(world: Any, ports: list[GrantedPort], *, version: int = 1, subject: str = "main") -> str:
    now = int(time.time())
    return sign_grant(
        world.issuer.key, subject=subject, version=version, names=[], tcp_ports=ports, issued_at=now,
        expires_at=now + 3600,
    )  # fmt: skip


async def connector(world: Any, ports: list[GrantedPort], **options: Any) -> Any:
    """A connector that lets tests do what they like with its streams."""
    options.setdefault("handler", lambda request: None)
    return await world.connector([], grant=grant(world, ports, subject=options.get("subject", "main")), **options)


async def one_request(end: Any, wait_until: Wait) -> Any:
    await wait_until(lambda: bool(end.requests), "a stream")
    return end.requests[-1]


def test_c04_a_port_is_open_exactly_while_a_tunnel_holds_it(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        with pytest.raises(ConnectionRefusedError):
            await world.visitor(port=port)
        end = await connector(world, [GrantedPort(port, 1)])
        assert end.result() == {f"tcp:{port}": "accepted"}
        visitor = await world.visitor(port=port)
        request = await one_request(end, wait_until)
        assert (request.head.kind, request.head.local_port, request.head.host) == (Kind.TCP, port, b"")
        assert request.head.address == b"127.0.0.1"
        local = visitor.writer.get_extra_info("sockname")
        assert request.head.target == f"127.0.0.1:{local[1]}".encode()
        assert request.head.authority == f"127.0.0.1:{port}".encode()
        end.session.close("gone")
        await wait_until(lambda: world.relay.doors.open == [], "the port is closed")
        with pytest.raises(ConnectionRefusedError):
            await world.visitor(port=port)
        with pytest.raises(ConnectionResetError):
            await visitor.rest()

    play(scenario)


def test_c04_bytes_and_half_closes_travel_both_ways(play: Play, world: Any, port: int, wait_until: Wait) -> None:
    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)])
        visitor = await world.visitor(port=port)
        request = await one_request(end, wait_until)
        request.stream.write(b"server first")
        assert await visitor.exactly(12) == b"server first"
        visitor.send(b"hello")
        visitor.writer.write_eof()
        await wait_until(lambda: request.fin, "the visitor's FIN")
        assert bytes(request.body) == b"hello"
        request.stream.write(b"still here")
        assert await visitor.exactly(10) == b"still here"
        request.stream.finish()
        assert await visitor.rest() == b""
        await wait_until(lambda: not world.edge.visitors, "the connection is forgotten")
        other = await world.visitor(port=port)
        await wait_until(lambda: len(end.requests) == 2, "the second stream")
        end.requests[1].stream.write(b"bye", fin=True)
        assert await other.rest() == b"bye"
        other.send(b"and more")
        other.writer.write_eof()
        await wait_until(lambda: end.requests[1].fin, "the end")
        assert bytes(end.requests[1].body) == b"and more"
        await wait_until(lambda: not world.edge.visitors, "both are forgotten")

    play(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux about sockets that are not read")
def test_c04_a_reset_reaches_an_origin_that_reads_nothing_and_an_end_waits_behind_the_bytes(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    def stall(request: Any) -> None:
        request.consume = False

    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)], handler=stall)
        for number, ends in enumerate(("reset", "end")):
            visitor = await world.visitor(port=port)
            await wait_until(lambda number=number: len(end.requests) == number + 1, "a stream")
            request = end.requests[number]
            visitor.send(b"x" * 200_000)
            await wait_until(lambda: bool(world.edge.paused), "reading to pause")
            if ends == "reset":
                visitor.reset()
                await wait_until(lambda request=request: request.reset is not None, "the reset")
                assert request.reset == (ResetCode.CANCEL, "visitor_gone")
                continue
            visitor.writer.write_eof()
            now = world.edge.wheel.now
            await wait_until(lambda now=now: world.edge.wheel.now > now + 3, "more than one look")
            assert (request.reset, request.fin) == (None, False)
            end.on_body = lambda request: None
            request.consume = True
            request.stream.consumed(65_536)
            await wait_until(lambda request=request: request.fin, "the visitor's FIN")
            assert len(request.body) == 200_000

    play(scenario)


def test_c04_a_reset_of_either_side_reaches_the_other_as_a_reset(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)])
        visitor = await world.visitor(port=port)
        request = await one_request(end, wait_until)
        visitor.reset()
        await wait_until(lambda: request.reset is not None, "RESET")
        assert request.reset[0] == ResetCode.CANCEL
        visitor = await world.visitor(port=port)
        await wait_until(lambda: len(end.requests) == 2, "the second stream")
        end.requests[1].stream.reset(ResetCode.ORIGIN_PROTOCOL, "origin_reset")
        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        # An origin that has ended and then refuses more has ended all the same.
        visitor = await world.visitor(port=port)
        await wait_until(lambda: len(end.requests) == 3, "the third stream")
        stream = end.requests[2].stream
        stream.write(b"all of it", fin=True)
        stream.reset(ResetCode.NO_ERROR, "origin_closed")
        assert await visitor.rest() == b"all of it"

    play(scenario)


def test_a_visitor_outside_the_allowed_sources_never_reaches_the_tunnel(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1, ("192.0.2.0/24",))])
        visitor = await world.visitor(port=port)
        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        assert end.requests == []
        assert world.edge.counters.refused_sources == 1
        end.session.routes(Routes(grant(world, [GrantedPort(port, 1, ("127.0.0.0/8",))], version=2)))
        await wait_until(lambda: len(end.results) == 2, "the second result")
        await world.visitor(port=port)
        await one_request(end, wait_until)

    play(scenario)


def test_ports_outside_the_issuers_ranges_and_ports_in_use_are_refused_by_name(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            end = await connector(world, [GrantedPort(port, 1), GrantedPort(9, 1)])
            assert end.result() == {f"tcp:{port}": "port_unavailable", "tcp:9": "not_in_issuer"}
        assert world.relay.doors.settle()  # as the upkeep does every few seconds
        await world.visitor(port=port)
        await one_request(end, wait_until)

    play(scenario)


def test_an_origin_that_wants_nothing_more_does_not_cut_what_is_on_its_way(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)])
        visitor = await world.visitor(port=port)
        request = await one_request(end, wait_until)
        (line,) = world.edge.visitors
        sent = 0
        while not line._transport.get_write_buffer_size():  # until the visitor's side is full
            request.stream.write(b"x" * 16_384)
            sent += 16_384
            await asyncio.sleep(0)
        await wait_until(lambda: not request.stream.blocked, "all of it is at the relay")
        request.stream.finish()
        request.stream.reset(ResetCode.NO_ERROR, "origin_closed")
        assert len(await visitor.rest()) == sent

    play(scenario)


@pytest.mark.parametrize("hosts", ['["0.0.0.0", "127.0.0.1"]', '["127.0.0.1", "0.0.0.0", "localhost"]'])
def test_an_interface_that_stands_for_all_takes_the_place_of_the_others(
    play: Play, world: Any, port: int, wait_until: Wait, hosts: str
) -> None:
    path = world.folder / "relay.yml"
    path.write_text(path.read_text().replace("listen: {", f"listen: {{tcp: {hosts}, "))

    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)])
        assert end.result() == {f"tcp:{port}": "accepted"}
        await world.visitor(port=port)
        await one_request(end, wait_until)

    play(scenario)


def test_the_older_claim_has_the_port(play: Play, world: Any, port: int, wait_until: Wait) -> None:
    async def scenario(world: Any) -> None:
        young = await connector(world, [GrantedPort(port, 9)], subject="young")
        assert young.result() == {f"tcp:{port}": "accepted"}
        old = await connector(world, [GrantedPort(port, 1)], subject="old")
        await wait_until(lambda: young.result() == {f"tcp:{port}": "held_by_another_tunnel"}, "the loser hears")
        await world.visitor(port=port)
        await one_request(old, wait_until)
        assert young.requests == []
        old.session.close("gone")
        await wait_until(lambda: young.result() == {f"tcp:{port}": "accepted"}, "the heir hears")
        await world.visitor(port=port)
        await one_request(young, wait_until)

    play(scenario)


def test_a_connection_that_a_connector_refuses_goes_to_another_with_what_was_sent(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        def refuse(request: Any) -> None:
            if b"hello" in request.body:
                request.stream.reset(ResetCode.REFUSED, "no")

        ends = [await connector(world, [GrantedPort(port, 1)], handler=refuse)]
        visitor = await world.visitor(port=port)
        await one_request(ends[0], wait_until)
        ends.append(await connector(world, [GrantedPort(port, 1)]))
        visitor.send(b"hello")
        request = await one_request(ends[1], wait_until)
        assert bytes(request.body) == b"hello"
        assert request.head.attempt == 1
        request.stream.write(b"welcome", fin=True)
        assert await visitor.rest() == b"welcome"

    play(scenario)


def test_c04_a_visitor_who_does_not_read_holds_a_window_and_is_not_evicted(
    play: Play, world: Any, port: int, wait_until: Wait
) -> None:
    async def scenario(world: Any) -> None:
        end = await connector(world, [GrantedPort(port, 1)])
        reader = (await world.visitor(port=port)).reader
        request = await one_request(end, wait_until)
        sent = 0
        while not request.stream.blocked:
            request.stream.write(b"x" * 16_384)
            sent += 16_384
            await asyncio.sleep(0)
        held = max(line._transport.get_write_buffer_size() for line in world.edge.visitors)
        assert held <= 65_536 + 2 * 65_536
        for _ in range(400):  # more than three minutes of the relay's clock
            world.edge.wheel.advance(world.edge.wheel.now + 1)
        assert request.reset is None
        request.stream.write(b"", fin=True)
        assert len(await asyncio.wait_for(reader.read(-1), 10)) == sent

    play(scenario)
