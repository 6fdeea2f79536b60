"""A visitor's WebSocket on one side, a TCP origin on the other: what `culvert access tcp` and its like speak.

Responsible for the server's half of the handshake (RFC 6455 section 4.2) and for turning messages into bytes and back,
with half-close, back-pressure and resets. Must not know rules, sessions or how connections are made.
Invariants: 101 is sent only when the origin stands, so that a visitor sees a dead origin as 502; a client that agreed
on the subprotocol learns each direction's end by an empty message; an origin's reset never looks like a clean end.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from culvert_connector.origins.connection import OriginConnection
from culvert_connector.origins.exchange import Connections
from culvert_connector.origins.proxy_header import proxy_header
from culvert_connector.origins.targets import OriginTarget
from culvert_connector.origins.upgrade import field_values
from culvert_http1.response import ResponseHead
from culvert_http1.websocket import ACCESS_PROTOCOL, FrameDecoder, Opcode, WebSocketError, accept_for, encode
from culvert_protocol.codes import SOURCE, VISITOR_STATUS, ResetCode
from culvert_protocol.heads import Open
from culvert_protocol.heads import ResponseHead as RecordHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic

_BINARY: Final = int(Opcode.BINARY)
_END: Final = encode(_BINARY, b"")
_CLOSE: Final = encode(Opcode.CLOSE, b"\x03\xe8")  # 1000: a normal end


def handshake_problem(fields: bytes) -> str | None:
    """Why the fields of an upgrade request are no WebSocket handshake of version 13; None when they are."""
    keys = field_values(fields, b"Sec-WebSocket-Key")
    try:
        if len(keys) != 1 or len(base64.b64decode(keys[0], validate=True)) != 16:
            return "bad_websocket_key"
    except binascii.Error:
        return "bad_websocket_key"
    if field_values(fields, b"Sec-WebSocket-Version") != [b"13"]:
        return "unknown_websocket_version"
    return None


class Bridge:
    """The stream's listener and the connection's user. `traffic` is the rule's."""

    __slots__ = (
        "_agreed", "_connection", "_connections", "_decoder", "_early", "_gone", "_head", "_origin_ended", "_owed",
        "_stream", "_target", "_visitor_ended", "traffic",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        head: Open,
        target: OriginTarget,
        connections: Connections,
        traffic: Traffic,
    ) -> None:
        self._stream = stream
        self._head = head
        self._target = target
        self._connections = connections
        self.traffic = traffic
        self._connection: OriginConnection | None = None
        self._decoder = FrameDecoder(masked=True)
        self._early: list[bytes] = []
        self._agreed = False
        self._owed = 0
        self._visitor_ended = False
        self._origin_ended = False
        self._gone = False

    def begin(self) -> None:
        """Dials the origin; the visitor hears of it by 101 or by the reset that becomes its answer."""
        self._stream.listener = self
        target = self._target
        preamble = proxy_header(target.proxy_protocol, self._head)
        self._connections.acquire(self, target, fresh=True, safe=False, preamble=preamble)

    # -- the connection ----------------------------------------------------------------------------------------

    def on_connection(self, connection: OriginConnection) -> None:
        """The origin is there."""
        self._connection = connection
        self.traffic.answers.add(101, "none")
        fields = self._head.fields
        key = field_values(fields, b"Sec-WebSocket-Key")[0]
        answer = b"Sec-WebSocket-Accept: %b\r\n" % accept_for(key)
        offers = b",".join(field_values(fields, b"Sec-WebSocket-Protocol")).split(b",")
        if ACCESS_PROTOCOL.encode() in (offer.strip(b" \t") for offer in offers):
            self._agreed = True
            answer += b"Sec-WebSocket-Protocol: %b\r\n" % ACCESS_PROTOCOL.encode()
        self._stream.send_head(RecordHead(101, fields=answer))
        leftover, ended = connection.pipe(self)
        early, self._early = self._early, []
        for data in early:
            self.on_data(data)
        if (leftover or ended) and not self._gone:
            self.on_body(leftover, ended)

    def on_no_connection(self, code: ResetCode, reason: str) -> None:
        """No origin: an ordinary answer."""
        self._gone = True
        self.traffic.answers.add(VISITOR_STATUS[code], SOURCE.get(code, "session"))
        self._stream.reset(code, reason)

    # -- from the visitor --------------------------------------------------------------------------------------

    def on_head(self, head: RecordHead) -> None:
        """A relay sends no response heads: the session's tables refuse the frame before it gets here."""

    def on_data(self, data: bytes) -> None:
        """Frames; credit goes back once the origin's transport has room for what was in them."""
        connection = self._connection
        if self._gone:
            return
        if connection is None:
            self._early.append(data)
            return
        try:
            events = self._decoder.feed(data)
        except WebSocketError:
            self._fail(ResetCode.BAD_REQUEST, "bad_websocket_frame")
            return
        for event in events:
            if event.opcode == _BINARY:
                if event.data:
                    self.traffic.received += len(event.data)
                    connection.write(event.data)
                elif event.empty and self._agreed:
                    self._end_of_visitor(connection)
            elif event.opcode == Opcode.PING:
                if not self._stream.blocked:  # a visitor who only asks must not make us hold answers
                    self._stream.write(encode(Opcode.PONG, event.data))
            elif event.opcode == Opcode.CLOSE:
                self._closed_by_visitor(connection)
            if self._gone:
                return
        if connection.blocked:
            self._owed += len(data)
        else:
            self._stream.consumed(len(data))

    def on_end(self) -> None:
        """The visitor's connection ended; without a Close before it, it broke."""
        if self._gone:
            return
        if self._connection is None:
            self._connections.give_up(self)
            self.traffic.abort("visitor")
            self._fail(ResetCode.CANCEL, "visitor_gone")
        else:
            self._fail(ResetCode.CANCEL, "visitor_gone")

    def on_reset(self, code: int, reason: str) -> None:
        """The visitor is gone."""
        if self._connection is not None:
            self._connection.reset()
        elif not self._gone:
            self.traffic.abort("session" if code == ResetCode.SESSION_LOST else "visitor")
            self._connections.give_up(self)
        self._gone = True

    def on_writable(self) -> None:
        """The visitor's side has room again."""
        if self._connection is not None and not self._gone:
            self._connection.resume()

    # -- from the origin ---------------------------------------------------------------------------------------

    def on_body(self, data: bytes, ended: bool) -> None:
        """Bytes of the origin, or its half-close."""
        stream = self._stream
        if data:
            self.traffic.sent += len(data)
            stream.write(encode(_BINARY, data))
        if ended:
            self._origin_ended = True
            if self._visitor_ended or not self._agreed:
                self._finish()
                return
            stream.write(_END)
        if stream.blocked and self._connection is not None:
            self.traffic.stalls += 1
            self._connection.pause()

    def on_origin_writable(self) -> None:
        """The origin's transport has room again."""
        owed, self._owed = self._owed, 0
        if owed:
            self._stream.consumed(owed)

    def on_failed(self, code: ResetCode, reason: str, untouched: bool) -> None:
        """The origin's connection broke, or closed both its halves."""
        if self._gone:
            return
        if self._origin_ended:
            self._finish()
        else:
            self._fail(code, reason)

    def on_informational(self, head: ResponseHead) -> None:
        """Never: the connection parses no heads in a pipe."""

    def on_switch(self, head: ResponseHead, leftover: bytes) -> None:
        """Never: the connection parses no heads in a pipe."""

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """Never: the connection parses no heads in a pipe."""

    # -- its own -----------------------------------------------------------------------------------------------

    def _end_of_visitor(self, connection: OriginConnection) -> None:
        self._visitor_ended = True
        if self._origin_ended:
            self._finish()
        else:
            connection.half_close()

    def _closed_by_visitor(self, connection: OriginConnection) -> None:
        if self._agreed and not (self._visitor_ended and self._origin_ended):
            # With ends of their own, a Close before both is a visitor who leaves in the middle.
            self._fail(ResetCode.CANCEL, "visitor_closed")
        else:
            self._finish()

    def _finish(self) -> None:
        """Both directions are complete."""
        self._gone = True
        self._stream.write(_CLOSE, fin=True)
        if self._connection is not None:
            self._connection.close()

    def _fail(self, code: ResetCode, reason: str) -> None:
        self._gone = True
        if self._connection is not None:
            self._connection.reset()
        self._stream.reset(code, reason)
