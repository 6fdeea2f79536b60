"""Heads of origins' responses (RFC 9112 sections 4, 5, 6.3).

Responsible for: deciding, strictly, what an origin answered and where the body ends, and for leaving out the fields
that end at this hop. Must not know connections or visitors. Invariant: a head comes out with exactly one framing, or
it is a 502 `bad_response`; `fields` of a head that comes out passes `check_fields`.

Where the documents leave a choice: several Content-Length lines are refused unless equal; obs-fold and white space
before a colon are refused (RFC 9112 section 5.2 allows it); a status line may end without the space before an empty
reason, as many servers write it.
"""

import re
from typing import Final

from .errors import HTTPError
from .fields import RESPONSE_ENDING_HERE, check_fields
from .framing import Framing
from .grammar import FIELD_LINE, TEXT, one_of, other_line
from .limits import DEFAULT_LIMITS, HeadLimits
from .malformed import refuse_response, refuse_sizes
from .options import parse_options, without_fields

__all__ = ["ResponseHead", "check_fields", "parse_response_head"]

_HEAD: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: " + TEXT + rb"*+)?+\r(\n(?:" + FIELD_LINE + rb")*+)\r\n")
_SPECIAL: Final = re.compile(rb"\n(" + one_of(RESPONSE_ENDING_HERE) + rb"):[ \t]*+([^\r]*+)\r")
_ORDINARY: Final = rb"((?:" + other_line(RESPONSE_ENDING_HERE) + rb")*+)"
_USUAL: Final = re.compile(
    rb"HTTP/1\.1 (?!204|304)([2-5][0-9]{2})(?: " + TEXT + rb"*+)?+\r\n" + _ORDINARY
    + rb"(?:[Cc]ontent-[Ll]ength: ([0-9]{1,18}+)|[Tt]ransfer-[Ee]ncoding: chunked)\r\n" + _ORDINARY
    + rb"(?:[Cc]onnection: [Kk]eep-[Aa]live\r\n" + _ORDINARY + rb")?+\r\n"
)  # fmt: skip
"""The shape of most responses that have a body; as in `request`, it decides nothing of its own."""
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_MAX_LENGTH: Final = 2**63 - 1

_NONE: Final = Framing.NONE
_BY_LENGTH: Final = Framing.LENGTH
_CHUNKED: Final = Framing.CHUNKED
_UNTIL_CLOSE: Final = Framing.UNTIL_CLOSE


class ResponseHead:
    """One response head, end-to-end fields only."""

    __slots__ = (
        "content_length", "declared", "fields", "framing", "keep_alive", "minor", "size", "status", "upgrade",
    )  # fmt: skip

    status: int
    """100 to 999; below 200 another head follows, except for 101."""
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    fields: bytes
    """End-to-end field lines as the origin spelled them, in order, `Name: value` CRLF each."""
    framing: Framing
    """How the body that really follows is delimited: NONE after HEAD and for 1xx, 204 and 304, whatever is declared."""
    declared: Framing
    """What the fields say, which after HEAD and for a 304 is about the response that GET would have had."""
    content_length: int
    """The declared length; 0 unless `declared` is LENGTH."""
    keep_alive: bool
    """The connection can carry another request once the body has ended."""
    upgrade: bytes
    """For a 101 with `Connection: upgrade`, its `Upgrade` value in lower case; otherwise b""."""
    size: int
    """Bytes that the head took."""

    def __init__(
        self, status: int, minor: int, fields: bytes, framing: Framing, declared: Framing, content_length: int,
        keep_alive: bool, upgrade: bytes, size: int,
    ) -> None:  # fmt: skip
        self.status = status
        self.minor = minor
        self.fields = fields
        self.framing = framing
        self.declared = declared
        self.content_length = content_length
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.size = size

    def edited(self, fields: bytes) -> "ResponseHead":
        """The same head with other fields."""
        return ResponseHead(
            self.status, self.minor, fields, self.framing, self.declared, self.content_length, self.keep_alive,
            self.upgrade, self.size,
        )  # fmt: skip


def parse_response_head(
    data: bytes | bytearray, *, method: bytes, limits: HeadLimits = DEFAULT_LIMITS, scanned: int = 0
) -> ResponseHead | None:
    """The response head that `data` begins with, in answer to a request by `method`; None when more is needed.

    `scanned` as in `parse_request_head`. Raises `HTTPError` 502 `bad_response`.
    """
    if scanned and data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0) < 0:
        refuse_response(data, limits, scanned)
        return None
    usual = _USUAL.match(data)
    if usual is None:
        return _general(data, method, limits, scanned)
    status, block, length, second, third = usual.groups()
    size = usual.end()
    if size > limits.unmeasured:
        refuse_sizes(data, size, limits, 502)
    if second:
        block += second
    if third:
        block += third
    framing = _CHUNKED if length is None else _BY_LENGTH
    return ResponseHead(
        int(status), 1, block, _NONE if method == b"HEAD" else framing, framing, int(length or 0), True, b"", size
    )  # fmt: skip


def _general(data: bytes | bytearray, method: bytes, limits: HeadLimits, scanned: int) -> ResponseHead | None:
    """`parse_response_head` for heads of any shape."""
    match = _HEAD.match(data)
    if match is None:
        refuse_response(data, limits, scanned)
        return None
    block: bytes
    version, digits, block = match.groups()
    size = match.end()
    if size > limits.unmeasured:
        refuse_sizes(data, size, limits, 502)
    status = int(digits)
    minor = 0 if version == b"0" else 1

    parts: list[bytes] = _SPECIAL.split(block)
    connection: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    upgrade: bytes | None = None
    index = 1
    end = len(parts)
    while index < end:
        name = parts[index].lower()
        value = parts[index + 1].rstrip(b" \t")
        index += 3
        if name == b"content-length":
            if length is not None and length != value:
                raise _bad("The origin's Content-Length fields differ; send one.")
            length = value
        elif name == b"connection":
            connection = value if connection is None else connection + b"," + value
        elif name == b"transfer-encoding":
            if coding is not None:
                raise _bad("The origin gave Transfer-Encoding twice; send exactly one 'chunked'.")
            coding = value
        elif name == b"upgrade":
            upgrade = value if upgrade is None else upgrade + b"," + value
        # The others end here: Culvert-*, Keep-Alive, Proxy, Proxy-*, TE, Trailer.
    block = (b"".join(parts[::3]) if end > 1 else block)[1:]

    declared = _UNTIL_CLOSE
    content_length = 0
    if coding is not None:
        if length is not None:
            raise _bad("The origin gave both Content-Length and Transfer-Encoding; send only one of them.")
        if not minor:
            raise _bad("The origin gave Transfer-Encoding with HTTP/1.0; use HTTP/1.1.")
        if coding != b"chunked" and coding.lower() != b"chunked":
            raise _bad("The origin's Transfer-Encoding is not exactly 'chunked'; no other transfer coding is known.")
        declared = _CHUNKED
    elif length is not None:
        content_length = int(length) if _LENGTH.fullmatch(length) else _MAX_LENGTH + 1
        if content_length > _MAX_LENGTH:
            raise _bad("The origin's Content-Length is not one decimal number below 2^63; send digits only.")
        declared = _BY_LENGTH

    switched = b""
    if connection is None:
        keep_alive = minor == 1
    else:
        options = parse_options(connection)
        if options is None:
            raise _bad("The origin's Connection field is not a list of field names; separate by commas.")
        keep_alive = not options.close and (minor == 1 or options.keep_alive)
        block = without_fields(block, options.named)
        if status == 101 and options.upgrade and upgrade is not None:
            switched = upgrade.lower()

    if status < 200 or status == 204:
        declared = framing = _NONE
        content_length = 0
    elif status == 304 or method == b"HEAD":
        framing = _NONE
        if declared is _UNTIL_CLOSE:
            declared = _NONE
    else:
        framing = declared
        if framing is _UNTIL_CLOSE:
            keep_alive = False
    return ResponseHead(status, minor, block, framing, declared, content_length, keep_alive, switched, size)


def _bad(sentence: str) -> HTTPError:
    return HTTPError(502, "bad_response", sentence)
