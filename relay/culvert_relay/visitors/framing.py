"""A connector's response head as the visitor gets it: the relay writes the framing itself.

Responsible for the bytes of a final head and for how many body bytes may follow it. Pure.
Invariant: what a visitor reads as the end of a response is decided here and nowhere else, because the connector is a
tenant and the visitor's connection may be shared with others (RFC 9112 section 6).
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from culvert_http1.fields import check_fields
from culvert_http1.reasons import STATUS_LINES, status_line
from culvert_protocol.heads import Framing, ResponseHead

NOTHING: Final = 0
COUNTED: Final = 1
CHUNKED: Final = 2
UNTIL_CLOSE: Final = 3

_NONE, _LENGTH = int(Framing.NONE), int(Framing.LENGTH)
_ERROR_FIELD: Final = re.compile(rb"(?i)culvert-error:[ \t]*(connector|origin); *[a-z0-9_]{1,64}[ \t]*\r\n\Z")

REMEMBERED: Final = 1024
"""Bytes of a field block up to which it is remembered whether it may pass."""


class FinalHead(NamedTuple):
    """A head to write. `mode` is one of the four above, `length` the body bytes that COUNTED means."""

    data: bytes
    mode: int
    length: int
    keep_alive: bool


def final_head(head: ResponseHead, fields: bytes, *, method: bytes, minor: int, keep_alive: bool) -> FinalHead:
    """The head of the one final response to a request of this method, for an HTTP/1.`minor` visitor.

    `fields` are the head's after `checked_fields`.
    `keep_alive`: the visitor's connection could persist; it will not when the end of the body is its end.
    """
    status = head.status
    keep_alive = keep_alive and not head.close
    length = head.content_length
    framing = b""
    mode = NOTHING
    if method == b"HEAD" or status == 304:
        # The length of what is not sent (RFC 9110 sections 8.6 and 9.3.2).
        if head.framing == _LENGTH or length:
            framing = b"Content-Length: %d\r\n" % length
        length = 0
    elif status == 204:
        length = 0
    elif head.framing == _LENGTH:
        framing = b"Content-Length: %d\r\n" % length
        if length:
            mode = COUNTED
    elif head.framing == _NONE:
        framing = b"Content-Length: 0\r\n"
        length = 0
    elif minor:
        framing = b"Transfer-Encoding: chunked\r\n"
        mode = CHUNKED
    else:
        mode = UNTIL_CLOSE
        keep_alive = False
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif not minor:
        framing += b"Connection: keep-alive\r\n"
    line = STATUS_LINES.get(status) or status_line(status)
    return tuple.__new__(FinalHead, (b"".join((line, fields, framing, b"\r\n")), mode, length, keep_alive))


def informational_head(status: int, fields: bytes) -> bytes:
    """A 1xx head (RFC 9110 section 15.2)."""
    return status_line(status) + fields + b"\r\n"


def switching_head(fields: bytes) -> bytes:
    """The 101 of a WebSocket handshake (RFC 6455 section 4.2.2): hop-by-hop fields are the relay's to write."""
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + fields + b"\r\n"


def checked_fields(fields: bytes) -> tuple[bytes, str] | None:
    """A connector's field block as it may be passed on, and who decided the answer; None when it is malformed.

    Of culvert's own names only `Culvert-Error` of a connector or about an origin passes, and its source is returned;
    without it the answer is the origin's own, and its source "none". Everything else is `check_fields`' word.
    What was said of short blocks is remembered: an origin's answers of one second are mostly the same in them.
    """
    return _checked_repeated(fields) if len(fields) <= REMEMBERED else _checked_fields(fields)


def _checked_fields(fields: bytes) -> tuple[bytes, str] | None:
    if check_fields(fields):
        return fields, "none"
    if b"culvert-" not in fields.lower():
        return None
    kept, own, source = [], b"", "none"
    for line in fields.splitlines(keepends=True):
        if line[:8].lower() != b"culvert-":
            kept.append(line)
            continue
        match = _ERROR_FIELD.match(line)
        if match is not None:
            own, source = line, match[1].decode().lower()
    rest = b"".join(kept)
    return (rest + own, source) if check_fields(rest) else None


_checked_repeated = lru_cache(maxsize=512)(_checked_fields)
