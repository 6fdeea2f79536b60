"""Hundreds of slow visitors in one process: `python -m bench.slow_crowd --http PORT --https PORT [--of-each 500]`.

Five kinds: heads and bodies that come a byte a second, readers who take nothing, kept connections that ask nothing, TLS
handshakes that stop after three bytes; or, with `--sippers`, readers who take 4 KiB a tenth of a second of a large
download. They come one after the other over ten seconds, as different people do, and whoever is let go comes again, so
that there are always about as many. Prints `here` when all have come, and runs until SIGTERM.
"""

import argparse
import asyncio
import resource
import signal
import socket
from contextlib import suppress

from bench.contenders import HOST

from culvert_transport.loop import loop_factory

HEAD = f"Host: {HOST}\r\n".encode()
BEGINNINGS = {
    "head": b"GET / HTTP/1.1\r\n" + HEAD,
    "body": b"POST /body HTTP/1.1\r\n" + HEAD + b"Content-Length: 1000000\r\n\r\n",
    "reader": b"GET /big HTTP/1.1\r\n" + HEAD + b"\r\n",
    "idle": b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n",
    "tls": b"\x16\x03\x01",
    "sipper": b"GET /big HTTP/1.1\r\n" + HEAD + b"\r\n",
}
"""What a visitor of each kind says at first."""
DRIP_EVERY = 1.0
SIP_EVERY = 0.1
GROUPS = 20
"""Into how many parts of a second the dripping is spread, as that of five hundred different people is."""
COMING_SECONDS = 10.0


class Slow(asyncio.Protocol):
    """One of them."""

    def __init__(self, crowd: "Crowd", kind: str) -> None:
        self.crowd = crowd
        self.kind = kind
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says its beginning."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio's classes
        if self.kind == "reader":
            # Not at once: uvloop begins to read when this returns.
            asyncio.get_running_loop().call_soon(self.transport.pause_reading)
        self.crowd.here[self.kind].append(self)
        self.transport.write(BEGINNINGS[self.kind])

    def data_received(self, data: bytes) -> None:
        """Sippers take a little and then rest."""
        if self.kind == "sipper":
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(SIP_EVERY, self._again)

    def _again(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Comes again."""
        self.crowd.here[self.kind].remove(self)
        self.crowd.missing.put_nowait(self.kind)


class Crowd:
    """All of them: `here` those that are connected, `missing` the kinds of those that are not."""

    def __init__(self, ports: dict[str, int], count: dict[str, int]) -> None:
        self.ports = ports
        self.count = count
        self.here: dict[str, list[Slow]] = {kind: [] for kind in count}
        self.missing: asyncio.Queue[str] = asyncio.Queue()
        for number in range(max(count.values())):
            for kind, wanted in count.items():
                if number < wanted:
                    self.missing.put_nowait(kind)

    async def come(self) -> None:
        """Connects whoever is missing, one after the other."""
        loop = asyncio.get_running_loop()
        pause = COMING_SECONDS / sum(self.count.values())
        due = loop.time()
        while True:
            kind = await self.missing.get()
            due = max(due + pause, loop.time() - 1.0)
            await asyncio.sleep(max(due - loop.time(), 0))
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                await loop.sock_connect(sock, ("127.0.0.1", self.ports["https" if kind == "tls" else "http"]))
                await loop.create_connection(lambda kind=kind: Slow(self, kind), sock=sock)  # type: ignore[misc]
            except OSError:
                sock.close()
                await asyncio.sleep(0.1)
                self.missing.put_nowait(kind)

    async def drip(self) -> None:
        """A byte a second of every head and body."""
        turn = 0
        while True:
            await asyncio.sleep(DRIP_EVERY / GROUPS)
            turn += 1
            for kind in ("head", "body"):
                for slow in self.here.get(kind, [])[turn % GROUPS :: GROUPS]:
                    slow.transport.write(b"x")

    async def gathered(self) -> None:
        """Returns when all have come."""
        while any(len(self.here[kind]) < 0.9 * wanted for kind, wanted in self.count.items()):
            await asyncio.sleep(0.05)


async def run(given: argparse.Namespace) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    count = {kind: given.of_each for kind in BEGINNINGS if kind != "sipper"}
    if given.sippers:
        count = {"sipper": given.sippers}
    crowd = Crowd({"http": given.http, "https": given.https}, count)
    tasks = [asyncio.create_task(crowd.drip()), asyncio.create_task(crowd.come())]
    await crowd.gathered()
    print("here", flush=True)
    await stop.wait()
    for task in tasks:
        task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description="Slow visitors of five kinds.")
    parser.add_argument("--http", type=int, required=True, help="the relay's port")
    parser.add_argument("--https", type=int, required=True, help="the relay's port with TLS")
    parser.add_argument("--of-each", type=int, default=500, help="visitors of each kind (default 500)")
    parser.add_argument("--sippers", type=int, default=0, help="instead: so many who read slowly (default 0)")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run(given))


if __name__ == "__main__":
    main()
