"""Where the microseconds go: requests through the relay's and the connector's code in one process, without sockets.

The objects are those of the real roles, joined by transports that only hold bytes, so what is left out is the kernel,
TLS and the event loop. 32 visitors ask at once, as in `bench.requests`. `python -m bench.in_process --help`.
"""

import argparse
import asyncio
import cProfile
import pstats
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from bench.http1_heads import BROWSER_REQUEST, SMALL_REQUEST

from culvert_connector.configuration import Applied
from culvert_connector.metrics import Counters as ConnectorCounters
from culvert_connector.origins.connection import OriginConnection
from culvert_connector.origins.origins import Origins
from culvert_connector.requests import Requests
from culvert_ingress.config_file import load
from culvert_protocol.statements import TunnelIdentity
from culvert_protocol.states import Phase
from culvert_relay.accepting import Arrival
from culvert_relay.edge import Edge
from culvert_relay.routing.pools import Pool
from culvert_relay.tunnels.session import TunnelSession
from culvert_relay.visitors.connection import VisitorConnection
from culvert_transport.link import SessionLink

HEADS = {"small": SMALL_REQUEST, "browser": BROWSER_REQUEST}
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 23 Nov 2025 10:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 100\r\nConnection: keep-alive\r\n\r\n" + b"x" * 100
)
VISITORS = 32
CONFIG = """
tunnel: bench
relay: ["relay.test:443"]
ingress:
  - hostname: app.example.com
    service: http://127.0.0.1:1
  - service: http_status:404
"""


class Wire:
    """A transport that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def take(self) -> bytes:
        """Everything written since the last call."""
        data = b"".join(self.written)
        self.written.clear()
        return data

    def write(self, data: bytes) -> None:
        """See asyncio.Transport."""
        self.written.append(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """A peer, but no socket."""
        return ("127.0.0.1", 40000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        """Nothing waits."""
        return 0

    def is_closing(self) -> bool:
        """It lives as long as the benchmark."""
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class Journey:
    """A relay, a connector and 32 visitors; `turn` takes one request of each visitor there and back."""

    def __init__(self, head: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.head = head
        edge = self.edge = Edge(relay_id="bench", server_names=("relay.test",), issuers=SimpleNamespace(), loop=loop)  # type: ignore[arg-type]
        tunnel = TunnelIdentity("issuer", "tunnel")
        credential = SimpleNamespace(tunnel=tunnel)
        self.session = TunnelSession(
            SimpleNamespace(edge=edge),
            credential=credential,
            nonce="",
            connector="c",
            slot=0,
            generation=0,
            peer="",  # type: ignore[arg-type]
        )
        self.session.usable = True
        self.session.stream_limit = 512
        pool = Pool(tunnel, 1, {"app.example.com": 1})
        pool.add(self.session)
        edge.registry.table.add(pool)
        applied = Applied(load(CONFIG).compile(version=1, grant=""))
        origins = Origins()
        requests = Requests(current=lambda: applied, connections=origins, counters=ConnectorCounters())
        self.connector = SessionLink(relay=False, listener=_Listener(requests), loop=loop)  # type: ignore[arg-type]
        self.down, self.up = Wire(), Wire()
        for link, wire in ((self.session.link, self.down), (self.connector, self.up)):
            link.attach(wire)  # type: ignore[arg-type]
            link.session._phase = Phase.RUNNING
        self.origins: list[tuple[OriginConnection, Wire]] = []
        key = applied.target("app.example.com", b"/").key  # type: ignore[union-attr]
        for _ in range(VISITORS):
            origin, wire = OriginConnection(key=key, owner=origins, tls=False), Wire()
            origin.connection_made(wire)  # type: ignore[arg-type]
            origins.on_idle(origin)
            self.origins.append((origin, wire))
        door = SimpleNamespace(scheme=0, port=80, own=lambda _path: None)
        self.visitors: list[tuple[VisitorConnection, Wire]] = []
        for _ in range(VISITORS):
            visitor, wire = VisitorConnection(edge, door, Arrival("127.0.0.1")), Wire()  # type: ignore[arg-type]
            visitor.connection_made(wire)  # type: ignore[arg-type]
            self.visitors.append((visitor, wire))
        self.spent = [0.0, 0.0, 0.0, 0.0]

    def turn(self) -> None:
        """One request of every visitor."""
        clock = time.process_time
        begin = clock()
        for visitor, _ in self.visitors:
            visitor.data_received(self.head)
        self.session.link._flush()
        opened = clock()
        self.connector.data_received(self.down.take())
        asked = clock()
        for origin, wire in self.origins:
            if wire.written:
                wire.written.clear()
                origin.data_received(RESPONSE)
        self.connector._flush()
        answered = clock()
        self.session.link.data_received(self.up.take())
        end = clock()
        for index, spent in enumerate((opened - begin, asked - opened, answered - asked, end - answered)):
            self.spent[index] += spent

    def check(self) -> None:
        """Every visitor has had one answer, whole."""
        for _, wire in self.visitors:
            data = wire.take()
            if not data.startswith(b"HTTP/1.1 200 OK\r\n") or not data.endswith(b"x" * 100):
                raise SystemExit(f"a visitor got {data!r}")

    def forget(self) -> None:
        """Drops what the visitors got."""
        for _, wire in self.visitors:
            wire.written.clear()


class _Listener:
    """The connector's listener, with the hops that a real session's callbacks take."""

    def __init__(self, requests: Requests) -> None:
        self.on_open = requests.open

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


async def measure(head: bytes, turns: int, rounds: int) -> list[float]:
    """Microseconds of each of the four parts, of the best round."""
    journey = Journey(head, asyncio.get_running_loop())
    journey.turn()
    journey.check()
    best = [1e9] * 4
    for _ in range(rounds):
        journey.spent = [0.0] * 4
        for _ in range(turns):
            journey.turn()
            journey.forget()
        parts = [spent / turns / VISITORS * 1e6 for spent in journey.spent]
        if sum(parts) < sum(best):
            best = parts
    return best


async def profile(head: bytes, turns: int) -> None:
    """Prints the functions that take the time."""
    journey = Journey(head, asyncio.get_running_loop())
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(turns):
        journey.turn()
        journey.forget()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(60)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100, help="requests of each visitor in a round (default 100)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds, of which the best counts (default 15)")
    parser.add_argument("--profile", action="store_true", help="print cProfile's table instead")
    given = parser.parse_args()
    for name, head in HEADS.items():
        if given.profile:
            asyncio.run(profile(head, given.turns))
            continue
        parts = asyncio.run(measure(head, given.turns, given.rounds))
        words = ("relay, request", "connector, request", "connector, response", "relay, response")
        figures = ", ".join(f"{word} {part:.1f}" for word, part in zip(words, parts, strict=True))
        print(f"{name} head: {sum(parts):.1f} µs a request ({figures})")


if __name__ == "__main__":
    main()
