"""A faulty network between connector and relay: a TCP proxy on loopback that delays, slices, throttles, corrupts, holds
or resets what passes, as a test says."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

UP, DOWN = "up", "down"
"""Directions: towards the relay, towards the connector."""


@dataclass
class Network:
    """What happens to bytes that pass. Knobs may change at any time; `ways` names the directions that they act on."""

    port: int
    upstream: int
    seed: int = 1
    latency: float = 0.0
    jitter: float = 0.0
    slice: int = 1 << 16
    rate: float = 0.0
    """Bytes per second in each direction of each connection; 0: no limit."""
    held: frozenset[str] = frozenset()
    """Directions in which nothing passes any more; the sender is not even acknowledged beyond the kernel's buffers."""
    flips: int = 0
    """How many more pieces get a flipped bit."""
    accepted: int = 0
    flipped: int = 0
    passed: int = 0
    _links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = field(default_factory=set)
    _tasks: set["asyncio.Task[Any]"] = field(default_factory=set)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._open.set()

    def hold(self, *ways: str) -> None:
        """A black hole in these directions."""
        self.held = frozenset(ways)
        self._open.clear()

    def heal(self) -> None:
        """What was held stays lost with its connections' senders: it passes now, as after a route's return."""
        self.held = frozenset()
        self._open.set()

    def well(self) -> None:
        """No delay, no slices, no flips."""
        self.latency, self.jitter, self.slice, self.rate, self.flips = 0.0, 0.0, 1 << 16, 0.0, 0

    def reset(self) -> int:
        """RST to both ends of every connection; returns how many there were."""
        links = list(self._links)
        for link in links:
            for writer in link:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        return len(links)

    @property
    def connections(self) -> int:
        return len(self._links)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        onward: asyncio.StreamWriter | None = None
        link: Any = None
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self.upstream)
            link = (writer, onward)
            self._links.add(link)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, onward, UP))
                group.create_task(self._pump(back, writer, DOWN))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # asyncio's streams would log a cancelled task as an error
        finally:
            self._links.discard(link)
            self._tasks.discard(task)
            for one in (writer, onward):
                if one is not None:
                    one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        loop = asyncio.get_running_loop()

        async def deliver() -> None:
            while True:
                at, data = await due.get()
                await asyncio.sleep(max(at - loop.time(), 0))
                while way in self.held:
                    await self._open.wait()
                if not data:
                    writer.write_eof()
                    return
                for start in range(0, len(data), self.slice):
                    piece = data[start : start + self.slice]
                    if self.flips and len(piece) > 32:
                        self.flips -= 1
                        self.flipped += 1
                        at_byte = self.random.randrange(16, len(piece))
                        piece = piece[:at_byte] + bytes([piece[at_byte] ^ 1]) + piece[at_byte + 1 :]
                    writer.write(piece)
                    await writer.drain()
                    self.passed += len(piece)
                    if self.rate:
                        await asyncio.sleep(len(piece) / self.rate)

        delivering = asyncio.create_task(deliver())
        last = 0.0
        try:
            while True:
                while way in self.held:
                    await self._open.wait()
                data = await reader.read(1 << 14)
                delay = self.latency + self.jitter * (2 * self.random.random() - 1) if self.latency else 0.0
                last = max(loop.time() + delay, last)  # late, but in order
                await due.put((last, data))
                if not data:
                    await delivering
                    return
                if delivering.done():
                    await delivering
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def close(self) -> None:
        self.heal()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
def network() -> Callable[..., Any]:
    """`async with network(relay) as net:` - a faulty network in front of a relay's tunnel port; dial `net.port`."""

    @contextlib.asynccontextmanager
    async def between(relay: Any, *, seed: int = 1) -> AsyncIterator[Network]:
        made: Network | None = None

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert made is not None
            await made.serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        made = Network(server.sockets[0].getsockname()[1], relay.tunnel, seed)
        try:
            yield made
        finally:
            server.close()
            await made.close()

    return between
