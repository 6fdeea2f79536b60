"""Nothing is left behind: descriptors and streams are back where they were after thousands of requests."""

import asyncio
import contextlib
import sys
from typing import Any

import pytest
from aiohttp import web

ROUNDS, AT_ONCE = 100, 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc, which only Linux has")
def test_a19_two_thousand_requests_half_of_them_abandoned_leave_no_descriptor(tunnel: Any, wait_for: Any) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/short":
            return web.Response(text=str(len(await request.read())))
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 1000)
                await asyncio.sleep(0.005)
        return response

    async def visit(number: int) -> None:
        async with tunnel.visitor() as visitor:
            kind = number % 4
            if kind in (0, 1):
                assert (await visitor.get("/short")).status == 200
            elif kind == 2:  # leaves within a download
                visitor.send(b"GET /endless HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
                assert (await visitor.head()).status == 200
                visitor.reset()
            else:  # leaves within an upload
                visitor.send(b"POST /short HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1000\r\n\r\nabc")
                await visitor.writer.drain()

    async def scenario() -> None:
        await tunnel.start()
        relay, (connector,) = tunnel.relay, tunnel.connectors
        processes = (relay, connector)

        async def burst(rounds: int) -> None:
            for start in range(0, rounds * AT_ONCE, AT_ONCE):
                await asyncio.gather(*(visit(start + number) for number in range(AT_ONCE)))
            await wait_for(quiet, "no stream is open")

        async def quiet() -> bool:
            sessions = await relay.sessions()
            return len(sessions) == 2 and not any(one["streams"] or one["queuedBytes"] for one in sessions)

        before = [0, 0]

        async def settled() -> bool:
            nonlocal before
            now = [one.descriptors() for one in processes]
            same, before = now == before, now
            return same

        async def back(*, more: int) -> None:
            await wait_for(
                lambda: all(one.descriptors() <= count + more for one, count in zip(processes, before, strict=True)),
                f"the descriptors are back at {before}, {more} more at most",
            )

        async with tunnel.origin(handler):
            await burst(5)
        await wait_for(settled, "what is opened once and kept is open now")
        async with tunnel.origin(handler):
            await burst(ROUNDS)
            await back(more=AT_ONCE)  # connections to the origin that wait for a next request
        await back(more=0)
        assert await relay.metric("culvert_relay_visitor_connections") == 0

    asyncio.run(scenario())
