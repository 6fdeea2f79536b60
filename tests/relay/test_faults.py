"""Connectors that are stuck, full or hostile, and clocks that jump: what the relay makes of them, that neighbours
notice nothing, and what would come of it without the defence."""

import asyncio
import functools
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from culvert_protocol.frames import FrameReader, FrameType, encode_frame
from culvert_protocol.handshake import Accepted, Refused, build_request
from culvert_protocol.heads import Framing, ResponseHead, encode_response_head
from culvert_protocol.session import Session
from culvert_protocol.statements import generate_key
from culvert_relay.tunnels.probing import Probe
from culvert_relay.visitors import exchange as exchange_module
from culvert_relay.wheel import TICK_SECONDS

UUID = "00000000-0000-4000-8000-0000000000cc"


def test_a8_a_session_whose_heart_beats_but_whose_data_is_stuck_is_out_within_ten_seconds(
    play: Any, wait_until: Any
) -> None:
    async def scenario(world: Any) -> None:
        stuck = await world.connector(["app.example.com"], handler=lambda request: None)
        reader, deliver = FrameReader(), stuck.link.data_received
        beats = 0

        def only_heartbeats(data: bytes) -> None:
            nonlocal beats
            for stream, kind, flags, payload in reader.read(data):
                beats += kind == FrameType.PING
                if kind in (FrameType.PING, FrameType.PONG, FrameType.DRAIN):
                    deliver(encode_frame(stream, kind, payload, flags))

        stuck.link.data_received = only_heartbeats
        (session,) = world.relay.tunnels.sessions()
        await world.connector(["app.example.com"])
        began = time.monotonic()
        visitor = await world.visitor()
        # The fixture's patience is ten seconds, which is the time that this may take.
        await wait_until(lambda: not session.usable, "the probe's verdict")
        assert time.monotonic() - began <= 10.5
        assert beats >= 3
        assert stuck.closed is None
        for _ in range(20):
            assert (await visitor.get("app.example.com")).status == 200
        assert not stuck.requests

    play(scenario)


def test_a22_a_connector_at_its_stream_cap_is_a_503_with_a_reason_and_recovers(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None, max_streams=4)
        waiting = [await world.visitor() for _ in range(4)]
        for visitor in waiting:
            visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: len(connector.requests) == 4, "four requests under way")
        fifth = await world.visitor()
        response = await fifth.get("app.example.com")
        assert response.status == 503
        assert response.field("retry-after") is not None
        assert response.field("culvert-error") == "relay; sessions_busy"
        connector.requests[0].respond(200, b"done")
        assert {(await visitor.response()).body for visitor in waiting[:1]} == {b"done"}
        fifth.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: len(connector.requests) == 5, "a request in the freed place")
        for request in connector.requests[1:]:
            request.respond(200, b"done")
        assert (await fifth.response()).body == b"done"

    play(scenario)


@pytest.mark.parametrize("hours", [1, -1])
def test_a27_a_clock_that_jumps_moves_no_timer_and_a_token_it_invalidates_is_a_clear_error_until_it_is_back(
    play: Any, wait_until: Any, hours: int
) -> None:
    async def scenario(world: Any) -> None:
        key = generate_key()
        token = world.issuer.credential("main", key, valid_for=7200)
        grant = world.issuer.grant("main", ["app.example.com"], valid_for=7200)
        connector = await world.connector(["app.example.com"], credential=token, key=key, grant=grant)
        short = world.issuer.credential("main", generate_key(), valid_for=1800)
        true_time = world.edge.wall
        kept = await world.visitor()
        assert (await kept.get("app.example.com")).status == 200

        world.edge.wall = lambda: true_time() + hours * 3600
        world.relay.tunnels._check_expiry()
        await asyncio.sleep(0)  # the verdict on the sessions is in the same turn
        assert connector.closed is None
        assert connector.drained is None
        assert (await kept.get("app.example.com")).status == 200  # no deadline of a connection has passed
        answer, _, _ = await world.dial(build_request("relay.test", short, UUID, 0, 1))
        assert isinstance(answer, Refused)
        assert answer.status == 401
        reasons = world.edge.counters.handshakes_refused
        assert ("expired" if hours > 0 else "not_yet_valid") in reasons

        world.edge.wall = true_time
        answer, transport, _ = await world.dial(build_request("relay.test", short, UUID, 0, 1))
        assert isinstance(answer, Accepted)
        transport.close()

    play(scenario)


def second_response(stream: int) -> bytes:
    whole = encode_response_head(ResponseHead(200, Framing.LENGTH, 3), b"abc")
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    return encode_frame(stream, FrameType.DATA, whole, 2) + encode_frame(stream, FrameType.DATA, smuggled)


def split_fields(stream: int) -> bytes:
    head = ResponseHead(200, Framing.LENGTH, 3, False, b"X: y\r\n\r\nevil\r\n")
    return encode_frame(stream, FrameType.DATA, encode_response_head(head, b"abc"), 3)


@functools.cache
def other_streams(stream: int) -> bytes:
    whole = encode_response_head(ResponseHead(200, Framing.LENGTH, 4), b"evil")
    return b"".join(encode_frame(number, FrameType.DATA, whole, 3) for number in range(stream + 2, stream + 2002, 2))


@functools.cache
def beyond_its_window(stream: int) -> bytes:
    head = encode_frame(stream, FrameType.DATA, encode_response_head(ResponseHead(200, Framing.CHUNKED)), 2)
    return head + encode_frame(stream, FrameType.DATA, b"evil" * 15_000) * 100


@functools.cache
def million_streams(stream: int) -> bytes:
    return b"".join(encode_frame(number, FrameType.OPEN, b"\0" * 64) for number in range(2, 2_000_002, 2))


HOSTILE = [second_response, split_fields, other_streams, beyond_its_window, million_streams]


@pytest.mark.parametrize("attack", HOSTILE, ids=[one.__name__ for one in HOSTILE])
def test_a29_a_hostile_connector_harms_its_own_session_and_no_other_visitor(
    play: Any, wait_until: Any, attack: Callable[[int], bytes]
) -> None:
    async def scenario(world: Any) -> None:
        def strike(request: Any) -> None:
            request.connector.link._transport.write(attack(request.stream.id))

        hostile = await world.connector(["evil.example.com"], subject="hostile", handler=strike)
        await world.connector(["app.example.com"])
        ended: list[str] = []
        closed = world.relay.tunnels.closed
        world.relay.tunnels.closed = lambda session, why: (ended.append(why), closed(session, why))
        stop, served = asyncio.Event(), 0

        async def neighbour(number: int) -> None:
            nonlocal served
            visitor = await world.visitor()
            while not stop.is_set():
                path = f"/{number}/{served}"
                response = await visitor.get("app.example.com", path)
                assert (response.status, response.body) == (200, f"GET {path} ".encode())
                served += 1

        neighbours = [asyncio.create_task(neighbour(number)) for number in range(8)]
        await wait_until(lambda: served > 50, "the neighbours' requests")
        victim = await world.visitor()
        victim.reader._limit = 1  # it does not read: no credit comes back
        victim.send(b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
        victim.send(b"GET /next HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
        await wait_until(lambda: hostile.closed is not None, "the hostile session's end")
        if hostile.link._transport is not None:  # what nobody reads any more would be written for ever
            hostile.link._transport.abort()
        await hostile.link.gone()
        assert ended, "a session ended without a reason"
        assert all(ended)
        at = served
        await wait_until(lambda: served > at + 50, "the neighbours' requests after it")
        stop.set()
        await asyncio.gather(*neighbours)
        assert [session.tunnel.subject for session in world.relay.tunnels.sessions()] == ["main"]
        try:
            seen = await victim.rest()
        except ConnectionResetError:
            seen = b""
        if attack is not beyond_its_window:  # whose bytes are a body that never ends
            assert b"evil" not in seen
        if attack in (second_response, split_fields):
            assert seen.count(b"HTTP/1.1") <= 1, "the connection went on after a violation"

    play(scenario)


# -- without its defence each of them does what the checks above look for --------------------------------------------


def test_a8_without_probes_a_stuck_session_would_stay_in_use(
    play: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: Any) -> None:
        stuck = await world.connector(["app.example.com"], handler=lambda request: None)
        stuck.link.data_received = lambda data: None
        (session,) = world.relay.tunnels.sessions()
        tunnels = world.relay.tunnels

        def ten_seconds() -> None:
            for _ in range(10):
                tunnels.stop()
                tunnels._upkeep()

        with monkeypatch.context() as off:
            off.setattr(Probe, "look", lambda self: None)
            ten_seconds()
            assert session.usable
        ten_seconds()
        assert not session.usable

    play(scenario)


def test_a22_without_the_cap_a_connector_would_be_sent_more_than_it_takes(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None, max_streams=4)
        (session,) = world.relay.tunnels.sessions()
        session.stream_limit = session.session.peer_max_streams = 1_000
        visitors = [await world.visitor() for _ in range(5)]
        for visitor in visitors:
            visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: len(connector.requests) == 5, "a fifth request")

    play(scenario)


def test_a27_with_timers_on_the_wall_clock_a_jump_would_end_connections(play: Any) -> None:
    class WallClock:
        def __init__(self, loop: asyncio.AbstractEventLoop, wall: Callable[[], float]) -> None:
            self._loop = loop
            self.time = wall

        def __getattr__(self, name: str) -> Any:
            return getattr(self._loop, name)

    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"])
        kept = await world.visitor()
        assert (await kept.get("app.example.com")).status == 200
        edge, true_time = world.edge, world.edge.wall
        edge.stop()
        edge.loop = WallClock(edge.loop, true_time)
        edge._started = true_time() - edge.wheel.now * TICK_SECONDS
        edge.loop.time = lambda: true_time() + 3600
        edge.wheel.advance(int((edge.loop.time() - edge._started) / TICK_SECONDS))
        assert await kept.rest() == b"", "the connection has been closed as idle"

    play(scenario)


def open_anything(session: Session, stream: int, flags: int, payload: bytes) -> None:
    """A relay that takes every OPEN of its connector."""
    if not session.relay:
        _on_open(session, stream, flags, payload)


_on_open = Session._on_open
WITHOUT: dict[str, tuple[Callable[[int], bytes], str, Any]] = {
    "counting the bytes of a response": (second_response, "culvert_relay.visitors.exchange.COUNTED", -1),
    "checking fields": (
        split_fields,
        "culvert_relay.visitors.exchange.checked_fields",
        lambda fields: (fields, "none"),
    ),
    "knowing which streams there are": (other_streams, "culvert_protocol.session.Session._check_known", None),
    "counting a stream's window": (beyond_its_window, "culvert_protocol.stream.Stream._take", None),
    "refusing streams of a connector": (million_streams, "culvert_protocol.session.Session._on_open", open_anything),
}


@pytest.mark.skipif(
    not str(exchange_module.__file__).endswith(".py"), reason="no defence of a compiled module can be switched off"
)
@pytest.mark.parametrize("defence", WITHOUT)
def test_a29_without_a_defence_its_attack_is_not_noticed_or_reaches_a_visitor(
    play: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch, defence: str
) -> None:
    attack, place, instead = WITHOUT[defence]
    monkeypatch.setattr(place, instead or (lambda *_: None))

    async def scenario(world: Any) -> None:
        def strike(request: Any) -> None:
            request.connector.link._transport.write(attack(request.stream.id))

        hostile = await world.connector(["evil.example.com"], subject="hostile", handler=strike)
        await world.connector(["app.example.com"])
        victim = await world.visitor()
        victim.send(b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n")
        (session,) = (one for one in world.relay.tunnels.sessions() if one.tunnel.subject == "hostile")
        taken = 0
        receive = session.link.session.receive

        def receiving(data: bytes) -> None:
            nonlocal taken
            taken += len(data)
            receive(data)

        session.link.session.receive = receiving
        seen = b""
        neighbour = await world.visitor()
        smuggles = attack in (second_response, split_fields)
        while hostile.closed is None and (b"evil" not in seen if smuggles else taken < len(attack(1))):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    seen += await victim.reader.read(65_536)
            assert (await neighbour.get("app.example.com")).status == 200
        if smuggles:
            assert b"evil" in seen, "the visitor is shown what was smuggled"
        else:
            assert hostile.closed is None, "the session goes on"
        hostile.link._transport.abort()

    play(scenario)
