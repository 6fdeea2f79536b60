"""Going down: nothing that is under way is lost, nothing new is taken, and it ends early or at the deadline."""

import asyncio
import time
from typing import Any

import pytest

from culvert_protocol.handshake import Refused, build_request
from culvert_protocol.heads import Framing, ResponseHead
from culvert_protocol.statements import generate_key

UUID = "00000000-0000-4000-8000-0000000000aa"


def test_an_idle_relay_is_down_at_once(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        idle = await world.visitor()
        assert (await idle.get("app.example.com")).status == 200
        started = time.monotonic()
        outcome = await world.relay.drain(force=asyncio.Event())
        assert (outcome.cut, outcome.forced) == (0, False)
        assert time.monotonic() - started < 2
        assert await idle.rest() == b""
        await wait_until(lambda: connector.closed is not None, "the session's end")
        assert connector.drained == "the relay is shutting down"

    play(scenario)


def test_a5_what_is_under_way_is_finished(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        waiting, streaming, uploading = [await world.visitor() for _ in range(3)]
        waiting.send(b"GET /w HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        streaming.send(b"GET /s HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        uploading.send(b"PUT /u HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 6\r\n\r\nabc")
        await wait_until(lambda: len(connector.requests) == 3, "three requests")
        requests = {request.head.target: request for request in connector.requests}
        requests[b"/s"].stream.send_head(ResponseHead(200, Framing.CHUNKED), b"first")
        await streaming.head()
        drain = asyncio.create_task(world.relay.drain(force=asyncio.Event()))
        await wait_until(lambda: connector.drained is not None, "the DRAIN")
        connector.on_body = lambda request: request.respond(200, bytes(request.body)) if request.fin else None
        uploading.send(b"def")
        response = await uploading.response()
        assert (response.body, response.field("connection")) == (b"abcdef", "close")
        requests[b"/w"].respond(200, b"waited for")
        response = await waiting.response()
        assert (response.body, response.field("connection")) == (b"waited for", "close")
        assert not drain.done()
        requests[b"/s"].stream.write(b"last", fin=True)
        assert (await streaming.rest()).endswith(b"4\r\nlast\r\n0\r\n\r\n")
        outcome = await asyncio.wait_for(drain, 10)
        assert outcome.cut == 0

    play(scenario)


def test_new_visitors_and_connectors_are_turned_away(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        busy = await world.visitor()
        busy.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        early = await world.visitor(sni="relay.test", port=world.relay.ports.tunnel[0])
        await wait_until(lambda: bool(connector.requests) and len(world.relay.tunnels.waiting) == 1, "both")
        drain = asyncio.create_task(world.relay.drain(force=asyncio.Event()))
        await wait_until(lambda: connector.drained is not None, "the DRAIN")
        assert world.relay._ready() == "the relay is shutting down"
        with pytest.raises(ConnectionRefusedError):
            await world.visitor()
        assert b" 503 " in await early.rest()
        connector.requests[0].respond(200)
        assert (await busy.response()).status == 200
        await asyncio.wait_for(drain, 10)

    play(scenario)


def test_a_handshake_during_the_drain_hears_503(play: Any) -> None:
    async def scenario(world: Any) -> None:
        world.edge.draining = True
        token = world.issuer.credential("main", generate_key())
        answer, _, _ = await world.dial(build_request("relay.test", token, UUID, 0, 1))
        assert isinstance(answer, Refused)
        assert (answer.status, answer.reason) == (503, "draining")

    play(scenario)


def test_the_deadline_cuts_what_never_ends(play: Any, world: Any, wait_until: Any) -> None:
    file = world.folder / "relay.yml"
    file.write_text(file.read_text() + "gracePeriod: 1s\n")

    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET /events HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        connector.requests[0].stream.send_head(ResponseHead(200, Framing.CHUNKED), b"event")
        await visitor.head()
        outcome = await world.relay.drain(force=asyncio.Event())
        assert (outcome.cut, outcome.forced) == (1, False)
        with pytest.raises(ConnectionResetError):
            await visitor.rest()

    play(scenario)


def test_force_ends_the_wait(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        force = asyncio.Event()
        drain = asyncio.create_task(world.relay.drain(force=force))
        await wait_until(lambda: connector.drained is not None, "the DRAIN")
        force.set()
        outcome = await asyncio.wait_for(drain, 5)
        assert (outcome.cut, outcome.forced) == (1, True)

    play(scenario)
