"""A visitor's TCP connection on its way to an origin: dialled, then a pipe.

Responsible for the time between OPEN and the pipe: what comes early is held (within the stream's window), and whoever
leaves first ends the attempt. Must not know rules, sessions or how connections are made.
Invariants: the stream has exactly one outcome; a visitor's bytes reach the origin in order and after the connection
stands; nothing is read from the origin before somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable

from culvert_connector.origins.connection import OriginConnection
from culvert_connector.origins.exchange import Connections
from culvert_connector.origins.proxy_header import proxy_header
from culvert_connector.origins.targets import OriginTarget
from culvert_connector.origins.upgrade import Pipe
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Open
from culvert_protocol.heads import ResponseHead as RecordHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic


class Passage:
    """A stream's listener until its connection stands; `ended(connected)` is called once, for counting."""

    __slots__ = ("_connections", "_early", "_ended", "_fin", "_head", "_stream", "_target", "traffic")

    def __init__(
        self,
        stream: Stream,
        head: Open,
        target: OriginTarget,
        connections: Connections,
        traffic: Traffic,
        ended: Callable[[bool], None],
    ) -> None:
        self.traffic = traffic
        self._stream = stream
        self._head = head
        self._target = target
        self._connections = connections
        self._ended = ended
        self._early: list[bytes] = []
        self._fin = False

    def begin(self, body: bytes, fin: bool) -> None:
        """Starts with what OPEN brought."""
        self._stream.listener = self
        if body:
            self.on_data(body)
        self._fin = fin
        target = self._target
        preamble = proxy_header(target.proxy_protocol, self._head)
        self._connections.acquire(self, target, fresh=True, safe=False, preamble=preamble)

    def on_connection(self, connection: OriginConnection) -> None:
        """The origin is there."""
        self._ended(True)
        pipe = Pipe(self._stream, connection, self.traffic)
        leftover, ended = connection.pipe(pipe)
        pipe.begin(early=self._early, visitor_ended=self._fin, leftover=leftover)
        if ended:
            pipe.on_body(b"", True)

    def on_no_connection(self, code: ResetCode, reason: str) -> None:
        """No origin: the visitor's connection is reset."""
        self._ended(False)
        self._stream.reset(code, reason)

    def on_head(self, head: RecordHead) -> None:
        """A relay sends no response heads: the session's tables refuse the frame before it gets here."""

    def on_data(self, data: bytes) -> None:
        """Early bytes; their credit is not given back before the origin takes them."""
        self.traffic.received += len(data)
        self._early.append(data)

    def on_end(self) -> None:
        """The visitor's half-close, passed on after the early bytes."""
        self._fin = True

    def on_reset(self, code: int, reason: str) -> None:
        """The visitor is gone."""
        self._connections.give_up(self)
        self._ended(False)

    def on_writable(self) -> None:
        """Nothing was sent yet."""
