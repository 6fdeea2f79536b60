"""One connection to an origin: HTTP/1.1 requests out, responses parsed, one exchange at a time.

Responsible for cutting an origin's bytes into heads and decoded body, for knowing when a response is complete and
whether the connection can serve another one, and for telling a clean end from a broken one.

Must not know: streams, sessions, rules, retries, the pool's limits; its user and its owner are ports.

Invariants: a response ends cleanly only as its framing says; a close-delimited one only on the origin's FIN (over
TLS: its close_notify), never on a reset. A connection is handed back only when its request was wholly sent, its
response wholly read, and not one byte came after it. Hot path: callbacks only.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
from contextlib import suppress
from enum import IntEnum
from typing import Final, Protocol, cast

from culvert_http1.chunked import ChunkedDecoder
from culvert_http1.errors import HTTPError
from culvert_http1.framing import Framing
from culvert_http1.response import ResponseHead, parse_response_head
from culvert_protocol.codes import ResetCode
from culvert_transport.sockets import bound, outgoing

MAX_INFORMATIONAL: Final = 16
"""1xx responses that one request may draw; an origin that sends more is broken."""
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
REMEMBERED: Final = 1024
"""Bytes of a response's head up to which it is remembered."""
WRITE_HIGH: Final = 65_536
WRITE_LOW: Final = 16_384
"""Bytes of an upload in the transport's buffer at which the visitor is paused and resumed."""


class State(IntEnum):
    """What the next bytes from the origin are."""

    IDLE = 0
    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    UNTIL_CLOSE = 4
    PIPE = 5
    DONE = 6


# Looking up a member of an Enum costs 0.1 µs on CPython 3.11; what the hot path needs has names of its own.
_IDLE: Final = State.IDLE
_HEAD: Final = State.HEAD
_LENGTH: Final = State.LENGTH
_CHUNKED: Final = State.CHUNKED
_UNTIL_CLOSE: Final = State.UNTIL_CLOSE
_PIPE: Final = State.PIPE
_DONE: Final = State.DONE
_BY_LENGTH: Final = Framing.LENGTH
_BY_CHUNKS: Final = Framing.CHUNKED
_BY_CLOSE: Final = Framing.UNTIL_CLOSE


class ConnectionUser(Protocol):
    """The exchange or pipe that a connection serves now."""

    def on_informational(self, head: ResponseHead) -> None:
        """A 1xx head other than 101; the final one is still to come."""

    def on_switch(self, head: ResponseHead, leftover: bytes) -> None:
        """101: from now on `on_body` brings the pipe's bytes; `leftover` are its first ones."""

    def on_response(self, head: ResponseHead, body: bytes, ended: bool) -> None:
        """The final head, with the decoded body bytes at hand; `ended`: that was all of it."""

    def on_body(self, data: bytes, ended: bool) -> None:
        """More decoded body (or pipe) bytes; `ended`: that was all of it (a pipe: the origin's half-close)."""

    def on_failed(self, code: ResetCode, reason: str, untouched: bool) -> None:
        """The connection is gone before its end; `untouched`: it was kept alive and answered not one byte."""

    def on_origin_writable(self) -> None:
        """What `write` had piled up has left: `blocked` is False again."""


class ConnectionOwner(Protocol):
    """Whoever keeps idle connections."""

    def on_open(self, connection: OriginConnection) -> None:
        """The connection stands."""

    def on_idle(self, connection: OriginConnection) -> None:
        """The connection may serve another request."""

    def on_closed(self, connection: OriginConnection) -> None:
        """The connection is gone, whether it was idle or in use."""


class OriginConnection(asyncio.Protocol):
    """An origin connection. `key` says which requests it may serve, `reused` that it has served one before.

    `quiet`: for a byte pipe. What the origin says before `pipe` is held, for it may speak first, and end.
    """

    __slots__ = (
        "_answered",
        "_buffer",
        "_decoder",
        "_ended",
        "_informational",
        "_keep",
        "_known",
        "_known_bytes",
        "_method",
        "_owner",
        "_paused",
        "_poll",
        "_quiet",
        "_remaining",
        "_state",
        "_tls",
        "_transport",
        "_user",
        "blocked",
        "key",
        "reused",
    )

    def __init__(self, *, key: object, owner: ConnectionOwner, tls: bool, quiet: bool = False) -> None:
        self.key = key
        self.reused = False
        self.blocked = False
        self._owner = owner
        self._tls = tls
        self._transport: asyncio.Transport | None = None
        self._user: ConnectionUser | None = None
        self._state = _IDLE
        self._method = b""
        self._known: ResponseHead | None = None
        self._known_bytes = b""
        self._buffer = bytearray()
        self._decoder: ChunkedDecoder | None = None
        self._remaining = 0
        self._informational = 0
        self._answered = False
        self._keep = False
        self._paused = False
        self._quiet = quiet
        self._ended = False
        self._poll: select.poll | None = None

    @property
    def gone(self) -> bool:
        """Whether the connection has ended or is about to."""
        return self._transport is None or self._transport.is_closing()

    # -- what its user does ------------------------------------------------------------------------------------

    def start(self, user: ConnectionUser, *, method: bytes, request: bytes) -> None:
        """Sends a request (its head and the body bytes at hand) for `user`. The connection must be idle."""
        assert self._user is None
        assert self._transport is not None
        self._user = user
        if method != self._method:
            self._method = method
            self._known = None
        self._state = _HEAD
        self._informational = 0
        self._answered = False
        self._keep = False
        self._transport.write(request)

    def write(self, data: bytes) -> None:
        """Sends more of the request; when `blocked` is True afterwards, wait for `on_origin_writable`."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def outgoing(self) -> int:
        """Bytes written that the origin has not taken."""
        return outgoing(self._transport) if self._transport is not None else 0

    def bound(self) -> None:
        """The origin has proved slow: nothing more is piled up for it in the kernel either."""
        if self._transport is not None:
            bound(self._transport)

    def pause(self) -> None:
        """Stops reading from the origin until `resume`."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads again."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def adopt(self, user: ConnectionUser) -> None:
        """Hands a switched connection from the exchange that made it to the pipe that runs on it."""
        self._user = user

    def pipe(self, user: ConnectionUser) -> tuple[bytes, bool]:
        """Makes a fresh connection a byte pipe for `user`: no heads are parsed.

        Returns what the origin has said already, and whether it has ended its direction.
        """
        assert self._user is None
        self._user = user
        self._state = State.PIPE
        early = bytes(self._buffer)
        self._buffer.clear()
        self.resume()
        return early, self._ended

    def half_close(self) -> bool:
        """Sends FIN after what was written; False when this transport cannot (TLS), and nothing was done."""
        if self._transport is None or self._tls:
            return False
        self._transport.write_eof()
        return True

    def release(self) -> None:
        """The exchange is over with its request wholly sent: keep the connection, or close it when it cannot be."""
        self._user = None
        if self._keep and self._transport is not None and not self._transport.is_closing():
            self._state = _IDLE
            self.reused = True
            self.resume()
            self._owner.on_idle(self)
        else:
            self.close()

    def close(self) -> None:
        """Closes after what was written has left."""
        self._user = None
        self._state = _DONE
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once: the rest of the request or response is not wanted."""
        self._user = None
        self._state = _DONE
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Closes at once with a RST: to the origin too this must not look like a clean end."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def stale(self) -> bool:
        """Whether an idle connection's end has already arrived although the loop has not said so yet.

        One system call. Asked before a request that must not be sent twice goes out on a kept connection.
        """
        if self._transport is None or self._transport.is_closing():
            return True
        if self._poll is None:
            descriptor = self._transport.get_extra_info("socket").fileno()
            if descriptor < 0:
                return True
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
        return bool(self._poll.poll(0))

    # -- what the transport brings -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands (over TLS: the handshake is done)."""
        # A cast, not a check: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH, low=WRITE_LOW)
        if self._quiet:
            self.pause()
        self._owner.on_open(self)

    def data_received(self, data: bytes) -> None:
        """Bytes from the origin. Bytes that nobody asked for end the connection."""
        user = self._user
        if user is None:
            if self._quiet and self._state is State.IDLE:
                # Reading is paused, but a loop may have had these bytes in its hands by then.
                self._buffer += data
            else:
                self.abort()
            return
        self._answered = True
        state = self._state
        if state is _PIPE:
            user.on_body(data, False)
            return
        try:
            if state is _HEAD:
                self._head(user, data)
            else:
                body, ended = self._decode(data)
                if body or ended:
                    user.on_body(body, ended)
        except HTTPError as error:
            self._fail(ResetCode.ORIGIN_PROTOCOL, error.reason)

    def eof_received(self) -> bool:
        """The origin's FIN (over TLS: close_notify). Returns True to keep our direction of a pipe open."""
        user = self._user
        if user is None:
            self._ended = self._quiet and self._state is State.IDLE
            return self._ended
        if self._state is _PIPE:
            user.on_body(b"", True)
            return not self._tls
        if self._state is _UNTIL_CLOSE and self._ended_in_order():
            self._state = _DONE
            user.on_body(b"", True)
        else:
            self._fail(ResetCode.ORIGIN_PROTOCOL, "origin_closed_early")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._transport = None
        self._poll = None
        self._owner.on_closed(self)
        if self._user is not None:
            self._fail(ResetCode.ORIGIN_PROTOCOL, "origin_reset" if error else "origin_closed_early")

    def pause_writing(self) -> None:
        """The origin reads slower than the visitor sends."""
        self.blocked = True

    def resume_writing(self) -> None:
        """The origin caught up."""
        self.blocked = False
        if self._user is not None:
            self._user.on_origin_writable()

    def _ended_in_order(self) -> bool:
        """Whether an end is the origin's own: over TLS a FIN alone may be anybody's (RFC 8446 6.1).

        Loops report both ends alike; reading once more tells them apart, since only close_notify ends the stream.
        """
        if not self._tls:
            return True
        assert self._transport is not None
        try:
            return not self._transport.get_extra_info("ssl_object").read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:
            return False

    # -- parsing -----------------------------------------------------------------------------------------------

    def _head(self, user: ConnectionUser, data: bytes) -> None:
        held = self._buffer
        scanned = len(held)
        whole: bytes | bytearray = data
        if scanned:
            held += data
            whole = held
        while True:
            head = self._known
            if head is None or not whole.startswith(self._known_bytes):
                head = self._read_head(whole, scanned)
            if head is None:
                if whole is not held:
                    held += whole
                return
            scanned = 0
            data = bytes(whole[head.size :])
            whole = data
            if held:
                held.clear()
            if head.status == 101:
                self._state = _PIPE
                user.on_switch(head, data)
                return
            if head.status >= 200:
                break
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                self._fail(ResetCode.ORIGIN_PROTOCOL, "too_many_informational_responses")
                return
            user.on_informational(head)
            if self._user is not user:
                return
            if not data:
                return
        self._keep = head.keep_alive
        framing = head.framing
        if framing is _BY_LENGTH and head.content_length:
            self._state = _LENGTH
            self._remaining = head.content_length
        elif framing is _BY_CHUNKS:
            self._state = _CHUNKED
            self._decoder = ChunkedDecoder(status=502)
        elif framing is _BY_CLOSE:
            self._state = _UNTIL_CLOSE
            self._keep = False
        else:
            self._state = _DONE
            if data:
                self._keep = False
            user.on_response(head, b"", True)
            return
        body, ended = self._decode(data) if data else (b"", False)
        user.on_response(head, body, ended)

    def _read_head(self, data: bytes | bytearray, scanned: int) -> ResponseHead | None:
        """The head that `data` begins with. A short one is remembered until another method is asked for: an origin's
        answers of one second often begin with the same bytes to the empty line, and then mean the same."""
        head = parse_response_head(data, method=self._method, scanned=scanned)
        if head is not None and head.status >= 200 and head.size <= REMEMBERED:
            self._known = head
            self._known_bytes = bytes(data[: head.size])
        return head

    def _decode(self, data: bytes) -> tuple[bytes, bool]:
        """Decoded body bytes in `data`, and whether the response is complete with them."""
        state = self._state
        if state is _UNTIL_CLOSE:
            return data, False
        if state is _LENGTH:
            size = len(data)
            if size < self._remaining:
                self._remaining -= size
                return data, False
            if size > self._remaining:
                data = data[: self._remaining]
                self._keep = False
            self._remaining = 0
            self._state = _DONE
            return data, True
        if state is _CHUNKED:
            decoder = self._decoder
            assert decoder is not None
            pieces = decoder.feed(data)
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if not decoder.done:
                return body, False
            if decoder.leftover:
                self._keep = False
            self._decoder = None
            self._state = _DONE
            return body, True
        # DONE: bytes behind a complete response whose user still sends its request.
        self._keep = False
        return b"", False

    def _fail(self, code: ResetCode, reason: str) -> None:
        user, self._user = self._user, None
        self._state = _DONE
        transport = self._transport
        if transport is not None:
            transport.abort()
        if user is not None:
            user.on_failed(code, reason, self.reused and not self._answered)
