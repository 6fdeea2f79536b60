"""Five hundred visitors of each kind of slowness at once: everybody else is served, and all of them are let go.

How much longer everybody else waits is measured by `python -m bench.rows --only slow`.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aiohttp import web

OF_EACH = 500
HOST = b"Host: app.example.com\r\n"
BEGINNINGS = {
    "head": b"GET /small HTTP/1.1\r\n" + HOST,
    "body": b"POST /small HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n",
    "reader": b"GET /big HTTP/1.1\r\n" + HOST + b"\r\n",
    "idle": b"GET /small HTTP/1.1\r\n" + HOST + b"\r\n",
    "tls": b"\x16\x03\x01",
}
"""What a visitor of each kind says at first. Heads and bodies go on byte by byte, TLS never goes on."""
TIMEOUTS = {"head": "4s", "stall": "4s", "tlsHandshake": "4s", "idle": "4s"}
LET_GO = {
    "head": 'culvert_relay_limits_reached_total{limit="head_time"}',
    "body": 'culvert_relay_limits_reached_total{limit="body_rate"}',
    "reader": 'culvert_relay_limits_reached_total{limit="reader"}',
    "tls": 'culvert_relay_connections_failed_total{reason="timeout"}',
}
GROWTH = OF_EACH * (256 + 4 * 64) * 1024
"""Bytes by which the relay may grow: a quarter of a MiB for a reader who takes nothing, 64 KiB for every other one."""


@pytest.fixture
def descriptors(unavailable: Callable[[str], NoReturn]) -> Iterator[None]:
    """Enough of them, for the processes that the test starts too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 6 * OF_EACH + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        unavailable(f"the test needs {wanted} open files, and {hard} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Slow(asyncio.Protocol):
    """One of them. When it is let go it comes again, so that there are always about as many."""

    def __init__(self, crowd: "Crowd", kind: str) -> None:
        self.crowd = crowd
        self.kind = kind
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.crowd.here[self.kind].add(self)
        if self.kind == "reader":
            transport.pause_reading()
        transport.write(BEGINNINGS[self.kind])

    def connection_lost(self, error: Exception | None) -> None:
        self.crowd.here[self.kind].discard(self)
        self.crowd.come(self.kind)


class Crowd:
    """All of them; `here` are those that are connected."""

    def __init__(self, relay: Any, wait_for: Any) -> None:
        self.relay = relay
        self._wait_for = wait_for
        self.here: dict[str, set[Slow]] = {kind: set() for kind in BEGINNINGS}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False
        self._room = asyncio.Semaphore(50)

    def come(self, kind: str) -> None:
        if not self._over:
            task = asyncio.ensure_future(self._connect(kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, kind: str) -> None:
        async with self._room:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(sock, ("127.0.0.1", self.relay.https if kind == "tls" else self.relay.http))
                await loop.create_connection(lambda: Slow(self, kind), sock=sock)
            except OSError:
                sock.close()
                await asyncio.sleep(0.1)
                self.come(kind)
            except asyncio.CancelledError:
                sock.close()
                raise

    async def drip(self) -> None:
        """A byte a second of every head and body."""
        while True:
            await asyncio.sleep(1.0)
            for slow in (*self.here["head"], *self.here["body"]):
                slow.transport.write(b"x")

    @contextlib.asynccontextmanager
    async def gathered(self) -> AsyncIterator[None]:
        for kind in BEGINNINGS:
            for _ in range(OF_EACH):
                self.come(kind)
        dripping = asyncio.create_task(self.drip())
        try:
            yield
        finally:
            self._over = True
            tasks = [dripping, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for kind in self.here.values():
                for slow in tuple(kind):
                    slow.transport.abort()
            await self._wait_for(lambda: not any(self.here.values()), "the slow ones have left")


async def handler(request: web.Request) -> web.Response:
    if request.method == "POST":
        await request.read()
    return web.Response(body=bytes(600_000) if request.path == "/big" else b"small")


async def served(tunnel: Any, count: int) -> None:
    """So many requests on connections that are kept, four at once, each with the answer that it should have."""

    async def one() -> None:
        async with tunnel.visitor() as visitor:
            for _ in range(count // 4):
                response = await visitor.get("/small")
                assert (response.status, response.body) == (200, b"small")

    await asyncio.gather(*(one() for _ in range(4)))


def peak(pid: int) -> int:
    """Bytes that the process held at most."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.usefixtures("descriptors")
def test_b12_beside_five_hundred_of_each_slow_visitor_the_others_are_served(
    tunnel: Any, wait_for: Any, record_property: Any
) -> None:
    async def scenario() -> None:
        relay = tunnel.add_relay(config={"timeouts": TIMEOUTS, "limits": {"connectionsPerAddress": 6 * OF_EACH}})
        await relay.ready()
        async with tunnel.origin(handler):
            await tunnel.add_connector(sessions=4).ready()
            await served(tunnel, 200)
            before = peak(relay.pid)
            crowd = Crowd(relay, wait_for)
            async with crowd.gathered():
                await wait_for(
                    lambda: all(len(kind) > 0.8 * OF_EACH for kind in crowd.here.values()),
                    "nearly all of them are here",
                )
                await served(tunnel, 1000)

                async def let_go() -> bool:
                    _, body, _ = await relay.fetch(relay.admin, "/metrics")
                    counts = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line[:1] != "#")
                    return all(float(counts.get(name, 0)) >= OF_EACH for name in LET_GO.values())

                await wait_for(let_go, "as many of each kind are let go as came")
                # They have all been let go once, and come again: still everybody else is served.
                await served(tunnel, 100)
            grown = peak(relay.pid) - before
            assert grown < GROWTH, f"the relay has grown by {grown} bytes"
            record_property("growth of the relay by 2,500 slow visitors, MiB", grown >> 20)

            async def empty() -> bool:
                return await relay.metric("culvert_relay_visitor_connections") == 0

            await wait_for(empty, "nobody is left")

    asyncio.run(scenario())
