"""The access log between the requests that end and the file.

Responsible for taking a request's end in as little time as possible and for turning what has gathered into lines, many
at once. Must not know files. Invariant: a request costs one tuple when it ends; its line is made in a batch, at most
`GATHER_SECONDS` later, and at most MAX_GATHERED wait for that.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from culvert_http1.request import RequestHead
from culvert_relay.access.lines import Line, render

if TYPE_CHECKING:
    from culvert_relay.visitors.exchange import Exchange
    from culvert_relay.visitors.opening import Forwarding

GATHER_SECONDS: Final = 0.02
MAX_GATHERED: Final = 10_000


class Said(NamedTuple):
    """An answer of the relay's own: its status, who is to blame and the reason token."""

    status: int
    blame: str
    reason: str


class Sink(Protocol):
    """Where lines go."""

    lost: int
    """Lines that it took and could not write."""

    def put(self, data: bytes) -> bool:
        """Takes whole lines without waiting; False when it has no room for them."""

    def close(self, timeout: float) -> None:
        """Writes what it has taken, within so many seconds."""


class Visitor(Protocol):
    """A visitor's connection, as the log sees it."""

    request_id: bytes
    forwarding: "Forwarding"


class AccessLog:
    """Lines for every request of one relay. `wall` is unix seconds; `issuer_label` names an issuer by its id."""

    def __init__(
        self,
        sink: Sink,
        *,
        query: bool,
        issuer_label: Callable[[str], str],
        loop: asyncio.AbstractEventLoop,
        wall: Callable[[], float],
    ) -> None:
        self._sink = sink
        self._query = query
        self._issuer_label = issuer_label
        self._loop = loop
        self._wall = wall
        self._refused = 0
        self._gathered: list[tuple[float, bytes, bytes, int, RequestHead | None, Exchange | None, Said | None]] = []

    @property
    def dropped(self) -> int:
        """Lines that never came to the file."""
        return self._refused + self._sink.lost

    def add(self, visitor: Visitor, head: RequestHead | None, exchange: "Exchange | None", said: Said | None) -> None:
        """A request is over. Without `head` it was not understood, without `exchange` it came to no tunnel."""
        gathered = self._gathered
        if not gathered:
            self._loop.call_later(GATHER_SECONDS, self.flush)
        elif len(gathered) >= MAX_GATHERED:
            self._refused += 1
            return
        who = visitor.forwarding
        gathered.append((monotonic(), visitor.request_id, who.address, who.scheme, head, exchange, said))

    def flush(self) -> None:
        """Hands the lines of what has gathered to the sink."""
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        moment = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        time = moment.replace("+00:00", "Z")
        lines = b"".join([render(self._line(*one), time=time, query=self._query) for one in gathered])
        if not self._sink.put(lines):
            self._refused += len(gathered)

    def close(self, timeout: float) -> None:
        """Writes what there is, within `timeout` seconds."""
        self.flush()
        self._sink.close(timeout)

    def _line(
        self,
        ended: float,
        request_id: bytes,
        visitor: bytes,
        scheme: int,
        head: RequestHead | None,
        exchange: "Exchange | None",
        said: Said | None,
    ) -> Line:
        if head is None:
            request_id = block = method = host = target = b""
        else:
            block, method, host, target = head.block, head.method, head.host, head.target
        status, blame, error = said or (0, "", "")
        if exchange is None:
            return Line(request_id, block, visitor, scheme, method, host, target, status, blame, error)
        if said is None:
            status, blame = exchange.status, exchange.broken or exchange.source
        tunnel, member = exchange.tunnel, exchange.member
        return Line(
            request_id,
            block,
            visitor,
            scheme,
            method,
            host,
            target,
            status,
            blame,
            error,
            said is None and exchange.broken != "",
            exchange.received,
            exchange.sent,
            ended - exchange.began,
            exchange.first_byte or None,
            self._issuer_label(tunnel.issuer) if tunnel is not None else "",
            tunnel.subject if tunnel is not None else "",
            member.connector if member is not None else "",
        )
