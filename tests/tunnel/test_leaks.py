"""Nothing is left behind: origins, descriptors and streams are where they were after ten thousand visitors who left."""

import asyncio
import socket
import struct
import sys
import time
from statistics import median
from typing import Any, ClassVar

import pytest

LEAVING = 10_000
AT_ONCE = 40
AT_ONCE_OF_EVERY_KIND = 20
DEAF = """
from culvert_relay.visitors.exchange import Exchange
class Nobody:
    congested = False
    def __getattr__(self, name):
        return lambda *_: None
def abandon(exchange, *_):
    exchange._visitor = Nobody()
Exchange.abandon = abandon
"""
"""A relay that lets a response go on when its visitor has left."""


class Origin(asyncio.Protocol):
    """Answers `/short` at once and every other path with a download that never ends; notes when it is cancelled."""

    since: ClassVar[dict[str, float]] = {}
    """When the visitor of each download left, by its path."""
    cancelled: ClassVar[list[float]] = []
    """Seconds until the origin heard of it."""
    live: ClassVar[set["Origin"]] = set()

    def __init__(self) -> None:
        self.path = ""
        self._data = b""
        self._more: asyncio.TimerHandle | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.live.add(self)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        path = head.split(b" ", 2)[1].decode() if end else ""
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return
        self._data = b""
        if path == "/short":
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort")
            return
        self.path = path
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + bytes(20_000))
        self._go_on()

    def _go_on(self) -> None:
        self._transport.write(bytes(1000))
        self._more = asyncio.get_running_loop().call_later(0.02, self._go_on)

    def connection_lost(self, error: Exception | None) -> None:
        self.live.discard(self)
        if self._more is not None:
            self._more.cancel()
        if self.path:
            self.cancelled.append(time.monotonic() - self.since.get(self.path, float("inf")))


async def leave(tunnel: Any, number: int) -> None:
    """Within a download: one visitor by a reset, the next one by an ordinary close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.relay.http)
    try:
        writer.write(f"GET /{number} HTTP/1.1\r\nHost: app.example.com\r\n\r\n".encode())
        assert (await reader.readexactly(12))[-3:] == b"200"
        await reader.readexactly(10_000)
        if number % 2:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        Origin.since[f"/{number}"] = time.monotonic()
        await tunnel.hang_up(writer.transport)


async def visit(tunnel: Any, number: int) -> None:
    """Somebody who stays to the end, or leaves within an upload."""
    async with tunnel.visitor() as visitor:
        if number % 4:
            assert (await visitor.get("/short")).status == 200
        else:
            visitor.send(b"POST /short HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 1000\r\n\r\nabc")
            await visitor.writer.drain()


async def all_of(count: int, at_once: int, coming: Any) -> None:
    """`coming(number)` so often, so many of them at any time."""
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await coming(number)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for kept in (Origin.since, Origin.cancelled, Origin.live):
        kept.clear()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts descriptors in /proc, which only Linux has")
def test_a19_ten_thousand_visitors_who_leave_within_a_download_leave_nothing(
    tunnel: Any, wait_for: Any, record_property: Any
) -> None:
    async def scenario() -> None:
        await tunnel.start()
        relay, (connector,) = tunnel.relay, tunnel.connectors
        processes = (relay, connector)
        before: list[tuple[int, float]] = []

        async def serve(leaving: int) -> None:
            """Visitors of every kind; then the origin goes, and its connections that wait for a next request."""
            server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", tunnel.port("app"))
            async with server:
                await all_of(leaving // 5, AT_ONCE_OF_EVERY_KIND, lambda number: visit(tunnel, number))
                await all_of(leaving, AT_ONCE, lambda number: leave(tunnel, number))
                await wait_for(lambda: len(Origin.cancelled) == leaving, "every download is cancelled")
                await wait_for(quiet, "no stream is open")
                await wait_for(lambda: len(Origin.live) <= 2 * AT_ONCE, "only idle connections are left")
                for one in tuple(Origin.live):
                    one._transport.abort()

        async def quiet() -> bool:
            sessions = await relay.sessions()
            return len(sessions) == 2 and not any(one["streams"] or one["queuedBytes"] for one in sessions)

        async def kept() -> list[tuple[int, float]]:
            tasks = (await relay.metric("culvert_relay_tasks"), await connector.metric("culvert_connector_tasks"))
            return [(one.descriptors(), count) for one, count in zip(processes, tasks, strict=True)]

        async def settled() -> bool:
            nonlocal before
            now = await kept()
            same, before = now == before, now
            return same

        async def back() -> bool:
            return all(now <= then for now, then in zip(await kept(), before, strict=True))

        await serve(200)
        await wait_for(settled, "what is opened once and kept is open now")
        Origin.cancelled.clear()
        await serve(LEAVING)
        await wait_for(back, f"descriptors and tasks are back at {before}")
        assert await relay.metric("culvert_relay_visitor_connections") == 0
        # Half of them, so that a moment in which the machine does something else does not count.
        assert median(Origin.cancelled) < 1.0
        times = f"median {median(Origin.cancelled):.3f}, longest {max(Origin.cancelled):.3f}"
        record_property("seconds until an origin hears that its visitor has left, 10,000 times", times)

    asyncio.run(scenario())


def test_a19_without_the_relays_word_the_origin_would_go_on(tunnel: Any, wait_for: Any) -> None:
    async def scenario() -> None:
        relay = tunnel.add_relay(without=DEAF)
        await relay.ready()
        await tunnel.add_connector(grace="1s").ready()
        server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", tunnel.port("app"))
        async with server:
            await all_of(8, 4, lambda number: leave(tunnel, number))
            await all_of(40, 1, lambda number: visit(tunnel, 4 * number + 1))
            assert Origin.cancelled == []
            assert sum(one["streams"] for one in await relay.sessions()) == 8
            for one in tuple(Origin.live):
                one._transport.abort()
            await wait_for(lambda: not Origin.live, "the origin's own end")

    asyncio.run(scenario())
