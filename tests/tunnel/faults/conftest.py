"""A faulty network between connector and relay: a TCP proxy on loopback that delays, slices, throttles, corrupts, holds
or resets what passes, as a test says."""

import asyncio
import base64
import contextlib
import hashlib
import random
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

UP, DOWN = "up", "down"
"""Directions: towards the relay, towards the connector."""
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455
LOST = 100
"""Attempts in a row that must not all fail when nothing is wrong any more."""


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


def content(number: int, size: int) -> bytes:
    """The body of request `number`: no two requests share one."""
    return hashlib.shake_128(b"%d" % number).digest(size)


@dataclass(eq=False)
class Visit:
    """One request as its visitor sees it. `moved` counts what came or went, `outcome` is "" until it has one."""

    number: int
    kind: str
    size: int
    relay: str
    moved: int = 0
    status: int = 0
    outcome: str = ""

    def end(self, outcome: str) -> None:
        assert not self.outcome, f"a second outcome, {outcome}: {self}"
        self.outcome = outcome


class Visits:
    """Requests of many kinds, each with content of its own, the origin that serves them, and what became of each."""

    KINDS: Final = (
        "length",
        "length",
        "chunked",
        "close",
        "broken",
        "hash",
        "hash",
        "upload",
        "early",
        "leave",
        "pipe",
    )

    SIZES: Final = (0, 1, 100, 5_000, 70_000, 300_000, 1_000_000)

    def __init__(self, tunnel: Any, chance: random.Random) -> None:
        self.tunnel = tunnel
        self.chance = chance
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self.visits: list[Visit] = []
        self.delivered: Counter[int] = Counter()
        self._out: set[Visit] = set()

    def out(self) -> list[Visit]:
        """Requests without an outcome."""
        return list(self._out)

    def summary(self) -> str:
        """How many requests had which outcome."""
        counts = Counter(visit.outcome for visit in self.visits)
        return ", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items()))

    def check(self) -> None:
        """One outcome each, and no POST twice; what was answered with 200 was delivered."""
        for visit in self.visits:
            assert visit.outcome, f"no outcome: {visit}"
            if visit.kind in ("hash", "upload", "early"):
                times = self.delivered[visit.number]
                assert times <= 1, f"delivered {times} times: {visit}"
                assert times or visit.outcome != "200", f"answered but never delivered: {visit}"

    # -- the origin ----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def origin(self) -> AsyncIterator[None]:
        """Serves every kind at the port of "app"."""
        async with self.tunnel.tcp_origin(self._serve, "app"):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # asyncio's streams would log a cancelled task as an error

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection can serve another one."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        _, kind, digits, extent = head.split(" ", 2)[1].split("/")
        number, size = int(digits), int(extent)
        mark = b"X-Number: %d\r\n" % number
        self.delivered[number] += 1
        if kind == "pipe":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
            writer.write(b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (ACCEPT, mark))
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            return False
        if kind in ("hash", "upload"):
            digest = hashlib.sha256()
            if "transfer-encoding: chunked" in head:
                while length := int(await reader.readuntil(b"\r\n"), 16):
                    digest.update(await reader.readexactly(length))
                    await reader.readexactly(2)
                await reader.readexactly(2)
            else:
                left = size
                while left:
                    data = await reader.read(min(left, 65_536))
                    if not data:
                        return False
                    left -= len(data)
                    digest.update(data)
            text = digest.hexdigest().encode()
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (mark, len(text), text))
            await writer.drain()
            return True
        body = content(number, size)
        if kind == "early":
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (mark, size, body))
            await writer.drain()
            return False
        if kind == "chunked":
            writer.write(b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % mark)
            for start in range(0, size, 10_000):
                piece = body[start : start + 10_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        elif kind == "close":
            writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n%b" % (mark, body))
            await writer.drain()
            return False
        elif kind == "broken":
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (mark, size, body[: size // 2]))
            await writer.drain()
            writer.transport.abort()
            return False
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (mark, size, body))
        await writer.drain()
        return True

    # -- visitors ------------------------------------------------------------------------------------------------

    async def visitor(self, stop: asyncio.Event) -> None:
        """Connection after connection with a few requests on each, until `stop`; what is under way then is read on."""
        while not stop.is_set():
            relay = self.chance.choice(self.tunnel.relays)
            port, options = relay.http, {}
            if relay.https and self.chance.random() < 0.3:
                port, options = relay.https, {"ssl": self._tls, "server_hostname": "app.example.com"}
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                for last in (*[False] * self.chance.randrange(4), True):
                    if stop.is_set() or not await self._one(reader, writer, relay.name, stop, last=last):
                        break
            finally:
                await self.tunnel.hang_up(writer.transport)

    async def calm(self, *, per_relay: int) -> None:
        """So many requests at each relay, one after the other, each of them served."""
        for relay in self.tunnel.relays:
            for _ in range(per_relay):
                for _ in range(LOST):
                    reader, writer = await asyncio.open_connection("127.0.0.1", relay.http)
                    try:
                        visit = self._begin("length", 100, relay.name)
                        self._send(writer, visit, close=True)
                        async with asyncio.timeout(120):
                            await self._receive(reader, visit, None)
                    finally:
                        await self.tunnel.hang_up(writer.transport)
                    if visit.outcome == "200":
                        break
                    await asyncio.sleep(0.1)
                else:
                    raise AssertionError(f"nothing is served at {relay.name}: {visit}")

    def _begin(self, kind: str, size: int, relay: str) -> Visit:
        visit = Visit(len(self.visits) + 1, kind, size, relay)
        self.visits.append(visit)
        self._out.add(visit)
        return visit

    def _end(self, visit: Visit, outcome: str) -> None:
        visit.end(outcome)
        self._out.discard(visit)

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, relay: str, stop: asyncio.Event, *, last: bool
    ) -> bool:
        """One request to its end; whether the connection can carry another one."""
        chance = self.chance
        kind = chance.choice(self.KINDS)
        size = chance.choice(self.SIZES)
        visit = self._begin(kind, size, relay)
        slow = stop if chance.random() < 0.1 else None
        sending: asyncio.Task[None] | None = None
        try:
            if kind == "pipe":
                return await self._pipe(reader, writer, visit)
            chunked = kind == "upload"
            self._send(writer, visit, close=last, chunked=chunked)
            if kind in ("hash", "upload", "early"):
                sending = asyncio.create_task(self._upload(writer, visit, chunked=chunked))
            if kind == "leave":
                await asyncio.sleep(chance.uniform(0, 0.2))
                self._end(visit, "left")
                return False
            again = await self._receive(reader, visit, slow)
            return again and not last and kind != "early"
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    def _send(self, writer: asyncio.StreamWriter, visit: Visit, *, close: bool, chunked: bool = False) -> None:
        lines = [b"Host: app.example.com"]
        method = b"GET"
        if visit.kind in ("hash", "upload", "early"):
            method = b"POST"
            lines.append(b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % visit.size)
        if close:
            lines.append(b"Connection: close")
        path = f"/{visit.kind}/{visit.number}/{visit.size}".encode()
        writer.write(b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (method, path, b"\r\n".join(lines)))

    async def _upload(self, writer: asyncio.StreamWriter, visit: Visit, *, chunked: bool) -> None:
        body = content(visit.number, visit.size)
        with contextlib.suppress(OSError):
            for start in range(0, len(body), 30_000):
                piece = body[start : start + 30_000]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await writer.drain()
                visit.moved += len(piece)
            if chunked:
                writer.write(b"0\r\n\r\n")

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> bool:
        """A switched connection: what is sent comes back."""
        path = f"/pipe/{visit.number}/{visit.size}".encode()
        writer.write(b"GET %b HTTP/1.1\r\nHost: app.example.com\r\nConnection: Upgrade\r\n" % path)
        writer.write(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY)
        try:
            status, fields = await self._head(reader, visit)
            if status != 101:
                await self._error(reader, visit, status, fields)
                return False
            assert fields.get("x-number") == str(visit.number), f"another one's pipe: {visit} {fields}"
            sending = asyncio.create_task(self._upload(writer, visit, chunked=False))
            try:
                await self._expect(reader, visit, content(visit.number, visit.size), None)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except (asyncio.IncompleteReadError, OSError):
            self._end(visit, "aborted")
            return False
        self._end(visit, "101")
        return False

    async def _receive(self, reader: asyncio.StreamReader, visit: Visit, slow: asyncio.Event | None) -> bool:
        """Reads the response, compares every byte of it; whether the connection can carry another request."""
        try:
            status, fields = await self._head(reader, visit)
            if status != 200:
                return await self._error(reader, visit, status, fields)
            assert fields.get("x-number") == str(visit.number), f"another one's response: {visit} {fields}"
            body = content(visit.number, visit.size)
            if visit.kind in ("hash", "upload"):
                body = hashlib.sha256(body).hexdigest().encode()
            if fields.get("transfer-encoding") == "chunked":
                await self._chunks(reader, visit, body, slow)
            else:
                assert int(fields["content-length"]) == len(body), visit
                await self._expect(reader, visit, body, slow)
            keeps = "close" not in fields.get("connection", "")
            if not keeps:
                assert await reader.read(-1) == b"", f"bytes behind the end of {visit}"
        except (asyncio.IncompleteReadError, OSError):
            self._end(visit, "aborted")
            return False
        assert visit.kind != "broken" or not visit.size, f"a broken response ended as if it were whole: {visit}"
        self._end(visit, "200")
        return keeps

    async def _head(self, reader: asyncio.StreamReader, visit: Visit) -> tuple[int, dict[str, str]]:
        data = await reader.readuntil(b"\r\n\r\n")
        visit.moved += len(data)
        first, *lines = data[:-4].decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        visit.status = int(first.split(" ")[1])
        return visit.status, fields

    async def _error(self, reader: asyncio.StreamReader, visit: Visit, status: int, fields: dict[str, str]) -> bool:
        """An answer that is not the origin's."""
        assert status in (408, 502, 503, 504), f"{status} {fields}: {visit}"
        assert fields.get("culvert-error"), f"nobody's {status}: {visit}"
        await reader.readexactly(int(fields["content-length"]))
        keeps = "close" not in fields.get("connection", "")
        if not keeps:
            assert await reader.read(-1) == b"", f"bytes behind the end of {visit}"
        self._end(visit, str(status))
        return keeps

    async def _expect(
        self, reader: asyncio.StreamReader, visit: Visit, body: bytes, slow: asyncio.Event | None
    ) -> None:
        at = 0
        while at < len(body):
            data = await reader.read(min(len(body) - at, 65_536))
            if not data:
                raise asyncio.IncompleteReadError(b"", len(body) - at)
            assert data == body[at : at + len(data)], f"another one's bytes at {at}: {visit}"
            at += len(data)
            visit.moved += len(data)
            if slow is not None and not slow.is_set():
                await asyncio.sleep(self.chance.uniform(0, 0.2))

    async def _chunks(
        self, reader: asyncio.StreamReader, visit: Visit, body: bytes, slow: asyncio.Event | None
    ) -> None:
        at = 0
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await self._expect(reader, visit, body[at : at + size], slow)
            at += size
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
        assert at == len(body), f"{at} of {len(body)} bytes and a clean end: {visit}"


@pytest.fixture(name="content")
def content_maker() -> Callable[[int, int], bytes]:
    """See `content`."""
    return content


@pytest.fixture
def visits() -> type[Visits]:
    """Makes the requests of a soak and their history."""
    return Visits
