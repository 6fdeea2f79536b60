"""Processes that die or leave under load: connectors by kill -9 and SIGTERM, the relay by kill -9, SIGTERM of both."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

WHOLE = bool(os.environ.get("CULVERT_WHOLE_NUMBERS"))
"""`make faults` kills a connector within 200 downloads of 20 MiB, `make test` within 24 of 4 MiB."""
DOWNLOADS = 200 if WHOLE else 24
PATIENCE = 600.0 if WHOLE else 60.0
PIECE = random.Random(5).randbytes((10 if WHOLE else 2) << 20)


@dataclass
class Load:
    """Requests at their appointed times whatever became of the earlier ones (an open loop): every other one a POST.

    `failed` holds what went wrong; `delivered` counts at the origin how often each POST arrived.
    """

    every: float = 0.01
    sent: int = 0
    failed: list[str] = field(default_factory=list)
    delivered: Counter[str] = field(default_factory=Counter)
    posted: set[str] = field(default_factory=set)

    async def handler(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.delivered[request.path] += 1
            await request.read()
        await asyncio.sleep(0.02)  # so that some request is always under way
        return web.Response(text="ok")

    async def run(self, browser: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        start = loop.time()
        for number in itertools.count():
            await asyncio.sleep(max(start + number * self.every - loop.time(), 0))
            if stop.is_set():
                break
            tasks.append(asyncio.create_task(self._one(browser, number)))
        await asyncio.gather(*tasks)

    async def _one(self, browser: aiohttp.ClientSession, number: int) -> None:
        self.sent += 1
        path = f"/{number}"
        try:
            if number % 2:
                self.posted.add(path)
                request = browser.post(path, data=b"x" * 2000)
            else:
                request = browser.get(path)
            async with request as response:
                if response.status != 200 or await response.text() != "ok":
                    self.failed.append(f"{path}: {response.status} {response.headers.get('Culvert-Error')}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(f"{path}: {error!r}")

    def check(self, *, least: int) -> None:
        assert self.failed == []
        assert self.sent >= least
        assert self.delivered == Counter(self.posted)  # each once, none lost


@pytest.mark.timeout(1200)
def test_a1_kill_of_one_connector_aborts_its_downloads_alone_and_new_requests_succeed(
    tunnel: Any, wait_for: Any, record_property: Any
) -> None:
    go = asyncio.Event()
    delivered: Counter[str] = Counter()
    waiting: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            delivered[request.path] += 1
            if request.path.startswith("/held"):
                await go.wait()
            return web.Response(text="posted")
        if request.path == "/quick":
            return web.Response(text="quick")
        if request.path == "/held":
            waiting.append(request.app["name"])
            await go.wait()
            return web.Response(text="late")
        response = web.StreamResponse(headers={"X-Origin": request.app["name"]})
        await response.prepare(request)
        await response.write(PIECE)
        await go.wait()
        await response.write(PIECE)
        return response

    def by(name: str) -> Any:
        async def named(request: web.Request) -> web.StreamResponse:
            if "name" not in request.app._state:
                request.app._state["name"] = name
            return await handler(request)

        return named

    async def scenario() -> None:
        await tunnel.start(connectors=0)
        survivor, victim = (
            tunnel.add_connector(ingress=[{"service": tunnel.url(name)}]) for name in ("survivor", "victim")
        )
        await asyncio.gather(survivor.ready(), victim.ready())
        begun: list[str] = []
        outcomes: list[tuple[str, str]] = []
        aborted_at: list[float] = []

        async def download(browser: Any) -> None:
            async with browser.get("/download") as response:
                name = response.headers["X-Origin"]
                digest = hashlib.sha256(await response.content.readexactly(len(PIECE)))
                begun.append(name)
                try:
                    while data := await response.content.read(65_536):
                        digest.update(data)
                    exact = digest.digest() == hashlib.sha256(PIECE * 2).digest()
                    outcomes.append((name, "exact" if exact else "a clean end of wrong bytes"))
                except aiohttp.ClientError:
                    outcomes.append((name, "aborted"))
                    aborted_at.append(time.monotonic())

        async def get(browser: Any) -> tuple[int, str]:
            async with browser.get("/held") as response:
                return response.status, await response.text()

        async def quick(browser: Any) -> None:
            async with browser.get("/quick") as response:
                assert (response.status, await response.text()) == (200, "quick")

        async def post(browser: Any, path: str) -> int:
            try:
                async with browser.post(path, data=b"once") as response:
                    await response.read()
                    return int(response.status)
            except aiohttp.ClientError:
                return 0

        async with (
            tunnel.origin(by("survivor"), "survivor"),
            tunnel.origin(by("victim"), "victim"),
            tunnel.browser(seconds=PATIENCE) as browser,
        ):
            downloads = [asyncio.create_task(download(browser)) for _ in range(DOWNLOADS)]
            await wait_for(lambda: len(begun) == DOWNLOADS, "the downloads are under way", seconds=PATIENCE)
            posts = [asyncio.create_task(post(browser, f"/held/{number}")) for number in range(12)]
            gets = [asyncio.create_task(get(browser)) for _ in range(12)]
            await wait_for(lambda: len(delivered) == len(waiting) == 12, "all are under way")
            assert "victim" in waiting
            doomed = begun.count("victim")
            assert 0 < doomed < DOWNLOADS
            victim.signal(signal.SIGKILL, exits=-signal.SIGKILL)
            killed = time.monotonic()
            # At once, noticed or not: a GET that meets a dead session is sent over another one.
            await asyncio.gather(*(quick(browser) for _ in range(20)))
            await wait_for(lambda: len(aborted_at) == doomed, "the victim's downloads are aborted")
            assert max(aborted_at) - killed < 10  # at once; a time-out that noticed it would be 30 s
            longest = f"{max(aborted_at) - killed:.3f} s after the kill"
            record_property(f"the last of {doomed} downloads of a killed connector was aborted", longest)

            async def noticed() -> bool:
                return len(await tunnel.relay.sessions()) == 2

            await wait_for(noticed, "the victim's sessions are gone")
            for number in range(20):
                await quick(browser)
                assert await post(browser, f"/new/{number}") == 200
            go.set()
            await asyncio.gather(*downloads)
            statuses = Counter(await asyncio.gather(*posts))
            # No byte of their responses had come: the survivor was asked instead.
            assert await asyncio.gather(*gets) == [(200, "late")] * 12
        assert Counter(outcomes) == {("survivor", "exact"): DOWNLOADS - doomed, ("victim", "aborted"): doomed}
        assert set(statuses) <= {200, 502}
        assert statuses[502] > 0
        assert set(delivered.values()) == {1}

    asyncio.run(scenario())


def test_a2_sigterm_of_one_connector_under_load_loses_no_request_and_repeats_none(tunnel: Any, wait_for: Any) -> None:
    load = Load()

    async def scenario() -> None:
        await tunnel.start(connectors=2, grace="20s")
        stop = asyncio.Event()
        async with tunnel.origin(load.handler), tunnel.browser() as browser:
            running = asyncio.create_task(load.run(browser, stop))
            await wait_for(lambda: load.sent >= 100, "the load runs")
            leaving = tunnel.connectors[0]
            leaving.signal(signal.SIGTERM)
            start = time.monotonic()
            assert await leaving.ended() == 0
            assert time.monotonic() - start < 15  # long before its grace is over
            at = load.sent
            tunnel.add_connector(grace="20s")  # its successor, as in a rolling update
            await tunnel.connectors[-1].ready()
            second = tunnel.connectors[1]
            second.signal(signal.SIGTERM)
            assert await second.ended() == 0
            await wait_for(lambda: load.sent >= at + 100, "the load goes on")
            stop.set()
            await running
        load.check(least=200)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["events", "websocket"])
def test_a3_sigterm_ends_an_endless_stream_at_the_grace_deadline(tunnel: Any, kind: str) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        if kind == "websocket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await socket.send_str("tick")
                    await asyncio.sleep(0.05)
            return socket
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"data: tick\n\n")
                await asyncio.sleep(0.05)
        return response

    async def scenario() -> None:
        await tunnel.start(grace="1s")
        (connector,) = tunnel.connectors

        async def events(browser: Any) -> AsyncIterator[None]:
            async with browser.get("/") as response:
                while await response.content.readuntil(b"\n\n") == b"data: tick\n\n":
                    yield

        async def messages(browser: Any) -> AsyncIterator[None]:
            async with browser.ws_connect("/") as socket:
                while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    yield
                assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)  # no close frame of ours

        async with tunnel.origin(endless), tunnel.browser() as browser:
            ticks = (events if kind == "events" else messages)(browser)
            await anext(ticks)
            start = time.monotonic()
            connector.signal(signal.SIGTERM)
            with contextlib.suppress(aiohttp.ClientError):
                async for _ in ticks:
                    pass
            lasted = time.monotonic() - start
            assert 0.9 < lasted < 10
            assert await connector.ended() == 0

    asyncio.run(scenario())


def test_a2_a_second_sigterm_ends_connector_and_relay_at_once(tunnel: Any, wait_for: Any) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"tick")
                await asyncio.sleep(0.05)
        return response

    async def scenario() -> None:
        await tunnel.start(connectors=2, grace="60s")
        async with tunnel.origin(endless), tunnel.browser() as browser:
            responses = [await browser.get("/") for _ in range(8)]
            for connector in tunnel.connectors:
                connector.signal(signal.SIGTERM, exits=1)

            async def draining() -> bool:
                return all([(await one.status()).get("draining") for one in tunnel.connectors if one.running])

            await wait_for(draining, "both drain")
            start = time.monotonic()
            for connector in tunnel.connectors:
                assert connector.running
                connector.signal(signal.SIGTERM, exits=1)
            for connector in tunnel.connectors:
                assert await connector.ended() == 1
            for response in responses:
                with contextlib.suppress(aiohttp.ClientError):
                    await response.read()
                response.close()
            assert time.monotonic() - start < 20

    asyncio.run(scenario())


def test_a4_after_kill_and_restart_of_the_relay_every_session_comes_back(tunnel: Any, wait_for: Any) -> None:
    async def ok(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def scenario() -> None:
        await tunnel.start(connectors=3, sessions=4)
        async with tunnel.origin(ok):
            assert (await tunnel.get()).status == 200
            before = tunnel.relay
            before.signal(signal.SIGKILL, exits=-signal.SIGKILL)
            await before.ended()
            for connector in tunnel.connectors:
                await connector.reports(lambda status: not status["ready"], "that nothing is connected")
            after = tunnel.again(before)
            opened = 0.0
            statuses: Counter[int] = Counter()
            while len(await after.sessions()) < 12 or not statuses[200]:
                assert not opened or time.monotonic() - opened < 60
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    response = await tunnel.get()
                    opened = opened or time.monotonic()
                    statuses[response.status] += 1
                    if response.status == 503:
                        assert response.blame == "relay; no_session"
                        assert int(response.field("retry-after")) > 0
                await asyncio.sleep(0.01)
            assert time.monotonic() - opened < 15  # within 5 s; as much again and more for a loaded machine
            assert set(statuses) <= {200, 503}
            names = {(one["connector"], one["slot"]) for one in await after.sessions()}
            assert len(names) == 12
            for connector in tunnel.connectors:
                await connector.ready()

    asyncio.run(scenario())


def test_a5_sigterm_of_one_of_two_relays_moves_its_sessions_before_it_closes(tunnel: Any, wait_for: Any) -> None:
    load = Load()
    go = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path != "/held":
            return await load.handler(request)
        await go.wait()
        return web.Response(body=PIECE)

    async def scenario() -> None:
        await tunnel.start(relays=2, connectors=2, sessions=2)
        leaving, staying = tunnel.relays
        for relay in tunnel.relays:
            sessions = await relay.sessions()
            assert len({one["connector"] for one in sessions}) == 2  # both connectors are at both relays
        stop = asyncio.Event()
        async with tunnel.origin(handler), tunnel.visitor() as held:
            held.send(b"GET /held HTTP/1.1\r\nHost: app.example.com\r\n\r\n")  # keeps the relay from leaving at once

            async def under_way() -> bool:
                return any(one["streams"] for one in await leaving.sessions())

            await wait_for(under_way, "the held request is under way")
            tunnel.relays.reverse()  # all other visitors go to the one that stays
            async with tunnel.browser() as browser, tunnel.visitor() as kept:
                running = asyncio.create_task(load.run(browser, stop))
                await wait_for(lambda: load.sent >= 50, "the load runs")
                assert (await kept.get()).status == 200
                leaving.signal(signal.SIGTERM)

                async def moved() -> bool:
                    return len(await staying.sessions()) == 4

                await wait_for(moved, "all sessions are at the other relay", seconds=20)
                assert leaving.running
                go.set()
                assert (await held.response()).body == PIECE
                assert await leaving.ended() == 0
                at = load.sent
                await wait_for(lambda: load.sent >= at + 50, "the load goes on")
                assert (await kept.get()).status == 200
                stop.set()
                await running
        load.check(least=100)

    asyncio.run(scenario())


def test_a5_a_relay_that_leaves_finishes_what_it_has_begun(tunnel: Any) -> None:
    go = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(PIECE)
        await go.wait()
        await response.write(PIECE)
        return response

    async def scenario() -> None:
        await tunnel.start()
        relay = tunnel.relay
        async with tunnel.origin(slow), tunnel.browser() as browser, browser.get("/") as response:
            assert await response.content.readexactly(len(PIECE)) == PIECE
            async with tunnel.visitor() as idle:
                assert (await idle.get(host="none.example.org")).status == 404
                relay.signal(signal.SIGTERM)
                assert await idle.rest() == b""  # an idle connection is closed at once
            assert relay.running
            go.set()
            assert await response.content.readexactly(len(PIECE)) == PIECE
            assert await response.content.read() == b""
        assert await relay.ended() == 0

    asyncio.run(scenario())
