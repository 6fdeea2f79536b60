"""A byte pipe between a stream and an origin connection, after 101 or from the start.

Responsible for checking the origin's half of a WebSocket handshake and for moving bytes both ways with half-close
and back-pressure. WebSocket frames are not looked at.

Must not know: rules, pools, how the connection came to be.

Invariants: bytes are never reordered, dropped or held beyond the stream's window; a direction that ends passes its
end on after its last byte; an error in either half ends both, and never looks like a clean end.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from culvert_connector.origins.connection import OriginConnection
from culvert_http1.response import ResponseHead
from culvert_http1.websocket import accept_for
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import ResponseHead as RecordHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic

LINGER: Final = 10.0
"""Seconds an origin over TLS, which cannot be told of a half-close, may still send after the visitor's end."""


def field_values(fields: bytes, name: bytes) -> list[bytes]:
    """The values of every field of this name in a block, without surrounding blanks, in order."""
    pattern = rb"(?:^|\n)" + re.escape(name) + rb":[ \t]*([^\r\n]*?)[ \t]*\r"
    return re.findall(pattern, fields, re.IGNORECASE)


def switch_problem(request_fields: bytes, response: ResponseHead) -> str | None:
    """Why an origin's 101 is not the answer to this WebSocket handshake (RFC 6455 4.1); None when it is."""
    if response.upgrade != b"websocket":
        return "switched_to_another_protocol"
    keys = field_values(request_fields, b"Sec-WebSocket-Key")
    accepts = field_values(response.fields, b"Sec-WebSocket-Accept")
    if len(keys) != 1 or accepts != [accept_for(keys[0])]:
        return "wrong_websocket_accept"
    chosen = field_values(response.fields, b"Sec-WebSocket-Protocol")
    if chosen:
        offers = b",".join(field_values(request_fields, b"Sec-WebSocket-Protocol"))
        offered = {offer.strip(b" \t") for offer in offers.split(b",")}
        if len(chosen) > 1 or chosen[0] not in offered:
            return "wrong_websocket_protocol"
    return None


class Pipe:
    """Both the stream's listener and the connection's user, from 101 to the end."""

    __slots__ = ("_connection", "_gone", "_linger", "_origin_ended", "_owed", "_stream", "_visitor_ended", "traffic")

    def __init__(self, stream: Stream, connection: OriginConnection, traffic: Traffic) -> None:
        self.traffic = traffic
        self._stream = stream
        self._connection = connection
        self._owed = 0
        self._visitor_ended = False
        self._origin_ended = False
        self._gone = False
        self._linger: asyncio.TimerHandle | None = None

    def begin(self, *, early: list[bytes], visitor_ended: bool, leftover: bytes) -> None:
        """Takes over: `early` came from the visitor before 101, `leftover` from the origin right behind it."""
        self._stream.listener = self
        self._connection.adopt(self)
        for data in early:
            self._pass_on(data)
        if visitor_ended:
            self.on_end()
        if leftover:
            self.on_body(leftover, False)

    # -- from the visitor --------------------------------------------------------------------------------------

    def on_head(self, head: RecordHead) -> None:
        """A relay sends no response heads: the session's tables refuse the frame before it gets here."""
        self._fail(ResetCode.PROTOCOL_ERROR, "unexpected_head")

    def on_data(self, data: bytes) -> None:
        """Visitor → origin; credit goes back once the origin's transport has room."""
        if self._gone:
            return
        self.traffic.received += len(data)
        self._pass_on(data)

    def on_end(self) -> None:
        """The visitor's half-close."""
        self._visitor_ended = True
        if self._origin_ended:
            self._close()
        elif not self._connection.half_close():
            self._linger = asyncio.get_running_loop().call_later(LINGER, self._linger_over)

    def on_reset(self, code: int, reason: str) -> None:
        """The visitor is gone."""
        self._stop_linger()
        self._connection.reset()

    def on_writable(self) -> None:
        """The visitor's side has room again."""
        if self._gone:
            self._stop_upload()
        else:
            self._connection.resume()

    # -- from the origin ---------------------------------------------------------------------------------------

    def on_body(self, data: bytes, ended: bool) -> None:
        """Origin → visitor; `ended` is the origin's half-close."""
        stream = self._stream
        self.traffic.sent += len(data)
        if ended:
            self._origin_ended = True
            stream.write(data, fin=True)
            if self._visitor_ended:
                self._close()
            return
        stream.write(data)
        if stream.blocked:
            self.traffic.stalls += 1
            self._connection.pause()

    def on_origin_writable(self) -> None:
        """The origin's transport has room again."""
        owed, self._owed = self._owed, 0
        if owed:
            self._stream.consumed(owed)

    def on_failed(self, code: ResetCode, reason: str, untouched: bool) -> None:
        """The origin's connection broke, or closed both its halves."""
        self._stop_linger()
        if self._origin_ended:
            # All that the origin had to say is here; nobody is left to read what the visitor sends.
            self._gone = True
            self._stop_upload()
        else:
            self._stream.reset(code, reason)

    def on_informational(self, head: ResponseHead) -> None:
        """Never: the connection parses no heads in a pipe."""
        self._fail(ResetCode.INTERNAL, "unexpected_head")

    def on_switch(self, head: ResponseHead, leftover: bytes) -> None:
        """Never: the connection parses no heads in a pipe."""
        self._fail(ResetCode.INTERNAL, "unexpected_head")

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """Never: the connection parses no heads in a pipe."""
        self._fail(ResetCode.INTERNAL, "unexpected_head")

    def _pass_on(self, data: bytes) -> None:
        connection = self._connection
        connection.write(data)
        if connection.blocked:
            self._owed += len(data)
        else:
            self._stream.consumed(len(data))

    def _fail(self, code: ResetCode, reason: str) -> None:
        self._stop_linger()
        self._connection.abort()
        self._stream.reset(code, reason)

    def _stop_upload(self) -> None:
        # A RESET before our FIN would forget the bytes that still wait for credit; on_writable comes back here.
        if self._stream.sent_fin:
            self._stream.reset(ResetCode.NO_ERROR, "origin_closed")

    def _close(self) -> None:
        self._stop_linger()
        self._connection.close()

    def _linger_over(self) -> None:
        self._linger = None
        self._connection.close()
        self._stream.finish()

    def _stop_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
