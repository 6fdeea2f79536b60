"""Why a head is refused, found in the order of its bytes.

Responsible for: judging heads that the parsers' expressions do not match: incomplete ones (is there already something
wrong?) and malformed ones (what is it?). Must not know what fields mean. Off the hot path.
Invariant: the earliest byte that makes a fault evident decides, so that the answer does not depend on how the bytes
were split into pieces. In order: bad bytes and the start line at their place, the size at the limit, field lines at
the end of the head.
"""

import re
from collections.abc import Callable
from typing import Final, NoReturn

from .errors import HTTPError
from .grammar import TOKEN, bad_byte, field_fault
from .limits import HeadLimits

_METHOD: Final = re.compile(TOKEN + rb"++")
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
_TARGET: Final = re.compile(rb"[!-\"$-~]++")
_VERSION_ROOM: Final = len(b"  HTTP/1.1\r\n")
_STATUS_LINE_ROOM: Final = 1024


def refuse_request(data: bytes | bytearray, limits: HeadLimits, scanned: int) -> None:
    """Raises the `HTTPError` that the request head at the beginning of `data`, not accepted so far, has earned.

    Returns when it is incomplete and nothing is wrong with it yet. Of the first `scanned` bytes that is known.
    """
    base = 2 if data[:2] == b"\r\n" else 0
    room = limits.target + limits.method + _VERSION_ROOM

    def check(line: bytes) -> None:
        check_request_line(line, limits)

    def too_long() -> NoReturn:
        raise HTTPError(414, "target_too_long", f"The request target is over {limits.target} bytes; shorten the URL.")

    _refuse(data, base, room, limits, scanned, 400, "bad_request", 431, check, too_long)


def refuse_response(data: bytes | bytearray, limits: HeadLimits, scanned: int) -> None:
    """The same for a response head; every fault is a 502 `bad_response`."""

    def too_long() -> NoReturn:
        raise HTTPError(502, "bad_response", "The origin's status line is over 1024 bytes; shorten its reason.")

    _refuse(data, 0, _STATUS_LINE_ROOM, limits, scanned, 502, "bad_response", 502, check_status_line, too_long)


def _refuse(
    data: bytes | bytearray,
    base: int,
    line_room: int,
    limits: HeadLimits,
    scanned: int,
    status: int,
    reason: str,
    size_status: int,
    check_line: Callable[[bytes], None],
    line_too_long: Callable[[], NoReturn],
) -> None:
    """`base`: where the start line begins; `line_room`: its longest length with CRLF; the rest names the answers."""
    end = data.find(b"\r\n\r\n", max(base, scanned - 3))
    stop = min(len(data) if end < 0 else end + 4, limits.head + 1)
    bad, sentence = bad_byte(data, max(scanned - 1, 0), stop)
    line_feed = data.find(b"\n", base, stop)
    line_known = line_feed if line_feed >= 0 else stop
    if line_known - base >= line_room and not 0 <= bad < base + line_room:
        line_too_long()
    if scanned <= line_feed and (bad < 0 or line_feed < bad):
        check_line(bytes(data[base : line_feed - 1]))
    if bad >= 0:
        raise HTTPError(status, reason, sentence)
    if stop > limits.head:
        refuse_size(limits, size_status)
    if end >= 0:
        for line in bytes(data[line_feed + 1 : end]).split(b"\r\n") if end > line_feed else ():
            fault = field_fault(line)
            if fault:
                raise HTTPError(status, "bad_field" if status == 400 else reason, fault)
        raise HTTPError(status, reason, "The head is malformed; follow RFC 9112.")


def refuse_size(limits: HeadLimits, status: int) -> NoReturn:
    """For a head over `limits.head`."""
    raise HTTPError(
        status, _size_reason(status), f"The head is over {limits.head} bytes; send fewer or shorter fields."
    )


def refuse_sizes(data: bytes | bytearray, size: int, limits: HeadLimits, status: int) -> None:
    """Raises when the well-formed head `data[:size]`, whose start line is not too long, is beyond `limits`."""
    if size > limits.head:
        refuse_size(limits, status)
    around = 3 if data[:2] == b"\r\n" else 2  # lines that are not fields: start line, empty lines
    if data.count(b"\n", 0, size) > limits.fields + around:
        raise HTTPError(status, _size_reason(status), f"There are over {limits.fields} fields; send fewer.")
    if size > limits.field and max(map(len, bytes(data[:size]).split(b"\r\n")[around - 1 :])) > limits.field:
        raise HTTPError(status, _size_reason(status), f"A field is over {limits.field} bytes; send shorter ones.")


def _size_reason(status: int) -> str:
    return "head_too_large" if status == 431 else "bad_response"


def refuse_request_line(data: bytes | bytearray, limits: HeadLimits) -> NoReturn:
    """For a complete head whose method or target is too long."""
    refuse_request(data, limits, 0)
    raise HTTPError(400, "bad_request", "The request line is malformed; follow RFC 9112.")


def check_request_line(line: bytes, limits: HeadLimits) -> None:
    """Raises 400, 414, 501 or 505 for a request line, without its CRLF, that is not well-formed."""
    parts = line.split(b" ")
    if len(parts) != 3 or _METHOD.fullmatch(parts[0]) is None:
        raise HTTPError(400, "bad_request_line", "The request line is not 'METHOD target HTTP/1.1'.")
    version = _VERSION.fullmatch(parts[2])
    if version is None:
        raise HTTPError(400, "bad_request_line", "The request line does not end with an HTTP version; use HTTP/1.1.")
    if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise HTTPError(505, "unknown_version", "This HTTP version is not spoken here; use HTTP/1.1.")
    if len(parts[0]) > limits.method:
        raise HTTPError(501, "unknown_method", f"The method is over {limits.method} bytes; use a registered one.")
    if len(parts[1]) > limits.target:
        raise HTTPError(414, "target_too_long", f"The request target is over {limits.target} bytes; shorten the URL.")
    if _TARGET.fullmatch(parts[1]) is None:
        raise HTTPError(400, "bad_target", "The request target holds '#' or bytes that are not ASCII; percent-encode.")


_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: [\t -~\x80-\xff]*+)?+")


def check_status_line(line: bytes) -> None:
    """Raises 502 for a status line, without its CRLF, that is not well-formed."""
    if _STATUS_LINE.fullmatch(line) is None:
        raise HTTPError(
            502, "bad_response", "The origin's status line is not 'HTTP/1.1 <100-999> <reason>'; check the origin."
        )
