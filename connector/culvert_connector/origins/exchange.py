"""One request from a relay and its response: a stream on one side, an origin connection on the other.

Responsible for the order of things: head and body out, head and body back, back-pressure both ways, 100-continue,
the retry on a connection that had died while it was kept, and which RESET code an end deserves.

Must not know: sessions, rules beyond its target, how connections are made or kept.

Invariants: a request is sent a second time only if it is safe, has no body to come, and the first connection was a
kept one that answered not one byte; everything else gets one attempt. A response that the origin did not finish is
reset, never ended. Body bytes are given back as credit only when the origin's transport has room for more.
Hot path: callbacks only.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, Protocol

from culvert_connector.origins import request
from culvert_connector.origins.connection import OriginConnection
from culvert_connector.origins.proxy_header import proxy_header
from culvert_connector.origins.targets import OriginTarget
from culvert_connector.origins.upgrade import Pipe, switch_problem
from culvert_http1.chunked import LAST_CHUNK, encode_chunk
from culvert_http1.framing import Framing as OriginFraming
from culvert_http1.response import ResponseHead
from culvert_protocol.codes import SOURCE, VISITOR_STATUS, ResetCode
from culvert_protocol.heads import Framing, Kind, Open
from culvert_protocol.heads import ResponseHead as RecordHead
from culvert_protocol.stream import Stream
from culvert_transport.traffic import Traffic

CONTINUE_AFTER: Final = 1.0
"""Seconds after which the connector answers `Expect: 100-continue` itself when the origin has not."""
_RECORD_FRAMING: Final = {
    OriginFraming.NONE: int(Framing.NONE),
    OriginFraming.LENGTH: int(Framing.LENGTH),
    OriginFraming.CHUNKED: int(Framing.CHUNKED),
    OriginFraming.UNTIL_CLOSE: int(Framing.CHUNKED),
}
_CONTINUE: Final = RecordHead(100)
_NONE: Final = int(Framing.NONE)
_LENGTH: Final = int(Framing.LENGTH)
_CHUNKED: Final = int(Framing.CHUNKED)
_HTTP: Final = int(Kind.HTTP)
_UPGRADE: Final = int(Kind.UPGRADE)


class Connections(Protocol):
    """Where an exchange gets its connection from."""

    def acquire(
        self, user: ConnectionSeeker, target: OriginTarget, *, fresh: bool, safe: bool, preamble: bytes = b""
    ) -> None:
        """Calls `on_connection` (at once, when one was kept) or `on_no_connection`, exactly one of them.

        `preamble` goes first on a fresh connection, before TLS too.

        `fresh`: not a kept connection; `safe`: the request may be sent twice, so a kept one need not be examined.
        """

    def give_up(self, user: ConnectionSeeker) -> None:
        """Forgets the request for a connection; neither callback comes any more."""

    def await_response(self, user: ResponseAwaiter, seconds: float) -> None:
        """Calls `on_response_timeout` after `seconds`, or up to a second later, unless `response_came` is called."""

    def response_came(self, user: ResponseAwaiter, seconds: float) -> None:
        """Nothing is waited for any more."""


class ConnectionSeeker(Protocol):
    """Who waits for a connection."""

    def on_connection(self, connection: OriginConnection) -> None:
        """Here it is."""

    def on_no_connection(self, code: ResetCode, reason: str) -> None:
        """It could not be made."""


class ResponseAwaiter(Protocol):
    """Who waits for a response."""

    def on_response_timeout(self) -> None:
        """The response has not begun in time."""


class Exchange:
    """A stream's listener, and the user of an origin connection."""

    __slots__ = (
        "_began",
        "_connection",
        "_connections",
        "_expecting",
        "_framing",
        "_head",
        "_head_sent",
        "_outgoing",
        "_over",
        "_owed",
        "_pending",
        "_remaining",
        "_request",
        "_response_ended",
        "_stream",
        "_target",
        "_upload_ended",
        "_waiting",
        "traffic",
    )

    def __init__(
        self,
        stream: Stream,
        head: Open,
        target: OriginTarget,
        connections: Connections,
        traffic: Traffic,
        encoded: bytes = b"",
    ) -> None:
        """`encoded`: the head as the origin gets it, where that is known already."""
        self._stream = stream
        self._head = head
        self._target = target
        self._connections = connections
        self.traffic = traffic
        self._began = monotonic()
        self._framing = head.framing
        self._remaining = head.content_length if head.framing == _LENGTH else 0
        self._connection: OriginConnection | None = None
        self._expecting: asyncio.TimerHandle | None = None
        self._pending: list[bytes] = []
        self._request = encoded
        self._owed = 0
        self._upload_ended = False
        self._head_sent = False
        self._outgoing = 0
        self._response_ended = False
        self._over = False
        self._waiting = False

    def begin(self, body: bytes, fin: bool) -> None:
        """Starts with what OPEN brought; the stream's listener is this exchange from now on."""
        self._stream.listener = self
        if body:
            self.traffic.received += len(body)
            self._pending.append(body)
        self._upload_ended = fin
        if not self._request:
            self._request = request.encode(self._head, host=self._target.host_header)
        safe = self._head.method in request.SAFE_METHODS and self._framing == _NONE
        target = self._target
        if target.proxy_protocol:
            self._connections.acquire(self, target, fresh=True, safe=safe, preamble=self._preamble())
        else:
            self._connections.acquire(self, target, fresh=False, safe=safe)

    # -- the connection ----------------------------------------------------------------------------------------

    def on_connection(self, connection: OriginConnection) -> None:
        """Sends the request: its head and what has come of the body in one write."""
        self._connection = connection
        first = self._request
        if self._head.kind == _HTTP:
            pieces = [first]
            size = 0
            for data in self._pending:
                size += len(data)
                if not self._frame(data, pieces):
                    connection.close()
                    return
            self._pending.clear()
            if self._upload_ended and not self._frame_end(pieces):
                connection.close()
                return
            if len(pieces) > 1:
                first = b"".join(pieces)
            connection.start(self, method=self._head.method, request=first)
            if self._upload_ended:
                self._wait()
            if size:
                self._sent(size)
            if self._framing != _NONE and not self._upload_ended and not size and self._waits_for_continue():
                loop = asyncio.get_running_loop()
                self._expecting = loop.call_later(CONTINUE_AFTER, self._continue_ourselves)
            return
        connection.start(self, method=self._head.method, request=first)
        self._wait()

    def on_response_timeout(self) -> None:
        """The origin has the request and says nothing, or takes no more of it: 504. It may be at work: not again."""
        self._waiting = False
        connection = self._connection
        stuck = connection is not None and connection.blocked
        if connection is not None and stuck:
            before, self._outgoing = self._outgoing, connection.outgoing
            if before != self._outgoing:
                # Slow, but it reads.
                connection.bound()
                self._wait()
                return
        self._connection = None
        if connection is not None:
            connection.abort()
        if stuck:
            self._fail(ResetCode.ORIGIN_TIMEOUT, "upload_timeout")
        else:
            self._fail(ResetCode.ORIGIN_TIMEOUT, "response_timeout")

    def on_no_connection(self, code: ResetCode, reason: str) -> None:
        """No origin: 502, 503 or 504 by the code."""
        self._fail(code, reason)

    # -- from the visitor --------------------------------------------------------------------------------------

    def on_head(self, head: RecordHead) -> None:
        """A relay sends no response heads: the session's tables refuse the frame before it gets here."""
        self._fail(ResetCode.PROTOCOL_ERROR, "unexpected_head")

    def on_data(self, data: bytes) -> None:
        """Body bytes; held (within the stream's window) until there is a connection or, for a pipe, a 101."""
        connection = self._connection
        if self._over or self._response_ended:
            return
        self.traffic.received += len(data)
        if connection is None or self._head.kind == _UPGRADE:
            self._pending.append(data)
            return
        self._stop_expecting()
        pieces: list[bytes] = []
        if self._frame(data, pieces):
            connection.write(pieces[0])
            self._sent(len(data))

    def on_end(self) -> None:
        """The whole body has come."""
        self._upload_ended = True
        connection = self._connection
        if self._over or self._response_ended or connection is None or self._head.kind == _UPGRADE:
            return
        self._stop_expecting()
        pieces: list[bytes] = []
        if self._frame_end(pieces):
            if pieces:
                connection.write(pieces[0])
            if not self._head_sent:
                self._wait()

    def on_reset(self, code: int, reason: str) -> None:
        """The visitor went away, or the session was lost: the origin is left at once."""
        if self._over:
            return
        self._over = True
        if not self._response_ended:
            self.traffic.abort("session" if code == ResetCode.SESSION_LOST else "visitor")
        self._stop_expecting()
        if self._connection is not None:
            self._connection.abort()
        elif not self._response_ended:
            self._connections.give_up(self)

    def on_writable(self) -> None:
        """The visitor's side has room again, or the last held bytes have left."""
        if self._response_ended:
            self._stop_upload()
        elif self._connection is not None:
            self._connection.resume()

    # -- from the origin ---------------------------------------------------------------------------------------

    def on_informational(self, head: ResponseHead) -> None:
        """1xx: passed on, but 100 only while it is waited for (RFC 9110 15.2)."""
        if head.status == 100:
            if self._expecting is None:
                return
            self._expecting.cancel()
            self._expecting = None
        self._stream.send_head(RecordHead(head.status, fields=head.fields))

    def on_switch(self, head: ResponseHead, leftover: bytes) -> None:
        """101: a pipe from here on, if the origin switched to what the visitor asked for."""
        connection = self._connection
        assert connection is not None
        reason = "unexpected_switch"
        if self._head.kind == _UPGRADE:
            reason = switch_problem(self._head.fields, head) or ""
        if reason:
            self._refuse_response(reason)
            return
        self._stop_expecting()
        self._over = True
        self._count(101)
        self._stream.send_head(RecordHead(101, fields=head.fields))
        pipe = Pipe(self._stream, connection, self.traffic)
        pipe.begin(early=self._pending, visitor_ended=self._upload_ended, leftover=leftover)

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """The final head, and the body bytes behind it, in one frame."""
        self._stop_expecting()
        self._head_sent = True
        self._count(head.status)
        # An upload that is still under way will be cut short: the visitor's connection cannot be used again.
        close = not self._sent_whole() and self._framing != _NONE
        values = (head.status, _RECORD_FRAMING[head.declared], head.content_length, close, head.fields)
        record = tuple.__new__(RecordHead, values)
        stream = self._stream
        self.traffic.sent += len(body)
        stream.send_head(record, body, fin=ended)
        if ended:
            self._finish()
        elif stream.blocked and self._connection is not None:
            self.traffic.stalls += 1
            self._connection.pause()

    def on_body(self, data: bytes, ended: bool) -> None:
        """More of the body."""
        stream = self._stream
        self.traffic.sent += len(data)
        stream.write(data, fin=ended)
        if ended:
            self._finish()
        elif stream.blocked and self._connection is not None:
            self.traffic.stalls += 1
            self._connection.pause()

    def on_origin_writable(self) -> None:
        """The origin's transport has room again: the visitor may send more."""
        if self._waiting and not self._upload_ended and self._head.kind == _HTTP:
            self._stop_expecting()
        owed, self._owed = self._owed, 0
        if owed:
            self._stream.consumed(owed)

    def on_failed(self, code: ResetCode, reason: str, untouched: bool) -> None:
        """The connection broke before the response's end."""
        self._connection = None
        self._stop_expecting()
        if untouched:
            if self._head.method in request.SAFE_METHODS and self._framing == _NONE:
                # Once at most: the fresh connection cannot fail untouched.
                self._connections.acquire(self, self._target, fresh=True, safe=True, preamble=self._preamble())
                return
            reason = "kept_connection_closed"
        self._fail(code, reason)

    # -- its own -----------------------------------------------------------------------------------------------

    def _refuse_response(self, reason: str) -> None:
        """The origin's answer cannot be passed on."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._fail(ResetCode.ORIGIN_PROTOCOL, reason)

    def _frame(self, data: bytes, pieces: list[bytes]) -> bool:
        """Appends body bytes as the origin gets them; False (and the exchange failed) when they are too many."""
        if self._framing == _CHUNKED:
            pieces.append(encode_chunk(data))
            return True
        self._remaining -= len(data)
        if self._remaining < 0:
            self._abort_upload("body_longer_than_declared")
            return False
        pieces.append(data)
        return True

    def _frame_end(self, pieces: list[bytes]) -> bool:
        if self._framing == _CHUNKED:
            pieces.append(LAST_CHUNK)
        elif self._remaining:
            self._abort_upload("body_shorter_than_declared")
            return False
        return True

    def _abort_upload(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        self._fail(ResetCode.PROTOCOL_ERROR, reason)

    def _sent(self, size: int) -> None:
        connection = self._connection
        if connection is not None and connection.blocked:
            self._owed += size
            if not self._waiting and not self._head_sent:
                self._outgoing = connection.outgoing
                self._wait()
        else:
            self._stream.consumed(size)

    def _sent_whole(self) -> bool:
        """Whether the origin has all of the request, and so may be asked the next one."""
        if self._head.kind != _HTTP:
            return False
        return self._upload_ended or (self._framing != _CHUNKED and not self._remaining)

    def _finish(self) -> None:
        """The response is complete."""
        self._response_ended = True
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._sent_whole():
                connection.release()
            else:
                connection.abort()
        self._stop_upload()

    def _stop_upload(self) -> None:
        # A RESET before our FIN would forget response bytes that wait for credit; on_writable comes back here.
        if not self._upload_ended and self._stream.sent_fin:
            self._over = True
            if not self._sent_whole():
                self._stream.reset(ResetCode.NO_ERROR, "answered_before_the_upload_ended")

    def _fail(self, code: ResetCode, reason: str) -> None:
        if self._over:
            return
        self._stop_expecting()
        self._over = True
        if self._head_sent:
            self.traffic.abort(SOURCE.get(code, "session"))
        else:
            self.traffic.answers.add(VISITOR_STATUS[code], SOURCE.get(code, "session"))
        self._stream.reset(code, reason)

    def _count(self, status: int) -> None:
        """The origin has answered: its answer is passed on whatever it says."""
        self.traffic.answers.fine[status // 100] += 1
        self.traffic.first_byte.observe(monotonic() - self._began)

    def _preamble(self) -> bytes:
        return proxy_header(self._target.proxy_protocol, self._head)

    def _waits_for_continue(self) -> bool:
        return request.expects_continue(self._head)

    def _continue_ourselves(self) -> None:
        self._expecting = None
        self._stream.send_head(_CONTINUE)

    def _wait(self) -> None:
        seconds = self._target.response_timeout
        if seconds:
            self._waiting = True
            self._connections.await_response(self, seconds)

    def _stop_expecting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._connections.response_came(self, self._target.response_timeout)
        if self._expecting is not None:
            self._expecting.cancel()
            self._expecting = None
