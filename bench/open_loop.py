"""An open loop: requests start when they are due, whether or not earlier ones are answered.

Arrivals are Poisson; a latency counts from the intended start, so that a stall is not hidden (no coordinated omission).
A request that has no idle connection waits for one, or opens one up to the bound.
"""

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field

from bench.contenders import HOST

REQUEST = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
MOST_CONNECTIONS = 256


@dataclass
class Outcome:
    """What became of the requests. `latencies` in seconds, of those that were answered with 200."""

    sent: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, part: float) -> float:
        """A latency in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3 if ordered else float("nan")


class _Client(asyncio.Protocol):
    """One kept-alive connection, one request at a time."""

    def __init__(self, loop: "_Loop") -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._data = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._loop.idle_again(self)

    def ask(self, due: float) -> None:
        self._due = due
        self._data = b""
        assert self._transport is not None
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        status = head[9:12]
        self._loop.answered(self._due, status.decode("ascii", "replace"))
        self._due = 0.0
        if b"\r\nconnection: close" in head.lower():
            self._loop.gone(self)
            self._transport.close()  # type: ignore[union-attr]
        else:
            self._loop.idle_again(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.gone(self)
        if self._due:
            self._loop.answered(self._due, "connection lost")
            self._due = 0.0


class _Loop:
    def __init__(self, port: int) -> None:
        self.port = port
        self.outcome = Outcome()
        self.waiting: deque[float] = deque()
        self.idle: list[_Client] = []
        self.clients: set[_Client] = set()
        self.opening = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def ask(self, due: float) -> None:
        self.outcome.sent += 1
        if self.idle:
            self.idle.pop().ask(due)
            return
        self.waiting.append(due)
        if len(self.clients) + self.opening < MOST_CONNECTIONS:
            self.opening += 1
            task = asyncio.create_task(self._open())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Client(self), "127.0.0.1", self.port)
        except OSError as error:
            if self.waiting:
                self.answered(self.waiting.popleft(), str(error))
        finally:
            self.opening -= 1

    def idle_again(self, client: _Client) -> None:
        self.clients.add(client)
        if self.waiting:
            client.ask(self.waiting.popleft())
        else:
            self.idle.append(client)

    def gone(self, client: _Client) -> None:
        self.clients.discard(client)
        if client in self.idle:
            self.idle.remove(client)

    def answered(self, due: float, status: str) -> None:
        if status == "200":
            self.outcome.latencies.append(time.perf_counter() - due)
        else:
            self.outcome.failed += 1
            self.outcome.failures.append(status)

    @property
    def open_requests(self) -> int:
        return self.outcome.sent - self.outcome.failed - len(self.outcome.latencies)


async def poisson(port: int, *, rate: float, seconds: float, seed: int = 1) -> Outcome:
    """Asks 127.0.0.1:`port` `rate` times a second on average; waits up to 10 s for the last answers."""
    loop = _Loop(port)
    arrivals = random.Random(seed)
    begin = due = time.perf_counter()
    while due - begin < seconds:
        due += arrivals.expovariate(rate)
        delay = due - time.perf_counter()
        if delay > 0.0005:
            await asyncio.sleep(delay)
        else:
            await asyncio.sleep(0)
        loop.ask(due)
    end = time.perf_counter() + 10
    while loop.open_requests and time.perf_counter() < end:
        await asyncio.sleep(0.01)
    loop.outcome.failed += loop.open_requests
    for client in list(loop.clients):
        if client._transport is not None:
            client._transport.abort()
    return loop.outcome
