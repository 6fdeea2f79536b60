"""Heads of visitors' requests (RFC 9112 sections 3, 5, 6; RFC 6455 section 4.1).

Responsible for: deciding, once and strictly, what a request asks for and where its body ends, and for leaving out
every field that ends at this hop. Must not know sessions, routes or limits of bodies.
Invariant: a head either comes out unambiguous or is refused; what is refused, and with which status, depends on the
bytes alone and not on how they were split.

One anchored expression checks a whole head; a second cuts out the few lines that mean something to a proxy. A head that
the first does not match is looked at again, slowly, by `malformed`, which finds the sentence to answer with. In front
stands an expression for the usual shape (Host first, no body), which takes one step for all this.
Where the documents leave a choice: an absolute-form target whose authority differs from `Host` is refused; a target
holds visible ASCII without `#`; all `X-Forwarded-*` fields are separated out; a handshake with `Content-Length: 0` is
one without body; a field whose name holds `_` is dropped.
"""

import re
from typing import Final

from .authority import parse_authority
from .errors import HTTPError
from .framing import Framing
from .grammar import PLAIN_TOKEN, TEXT, TOKEN, one_of, other_line
from .limits import DEFAULT_LIMITS, HeadLimits
from .malformed import refuse_request, refuse_request_line, refuse_sizes
from .options import field_pattern, field_values, parse_options, without_fields

ALLOWED_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""For the `Allow` field of a 405; other methods pass too, except CONNECT and TRACE."""

_START: Final = (
    rb"(?:\r\n)?+(" + TOKEN + rb"++) "
    rb"((/[!-\"$->@-~]*+)(?:\?[!-\"$-~]*+)?+|[!-\"$-~]++) "
    rb"HTTP/1\.([01])\r(\n"
)
_HEAD: Final = re.compile(_START + rb"(?:" + PLAIN_TOKEN + rb"++:" + TEXT + rb"*+\r\n)*+)\r\n")
_HEAD_UNDERSCORED: Final = re.compile(_START + rb"(?:" + TOKEN + rb"++:" + TEXT + rb"*+\r\n)*+)\r\n")
_UNDERSCORED: Final = re.compile(rb"\n" + PLAIN_TOKEN + rb"*+_[^\r]*+\r")

_SPECIAL_NAMES: Final = (
    b"connection", b"content-length", b"culvert-*", b"expect", b"forwarded", b"host", b"http2-settings", b"keep-alive",
    b"proxy", b"proxy-*", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"x-forwarded-*", b"x-real-ip",
)  # fmt: skip
_SPECIAL: Final = re.compile(rb"\n(" + one_of(_SPECIAL_NAMES) + rb"):[ \t]*+([^\r]*+)\r")
_ORDINARY: Final = rb"((?:" + other_line(_SPECIAL_NAMES, PLAIN_TOKEN) + rb")*+)"
ORDINARY_LINE: Final = rb"(?!CONNECT|TRACE)([A-Z]{1,16}+) ((/[!-\"$->@-~]*+)(?:\?[!-\"$-~]*+)?+) "
"""Method, target and path of a request line that needs no second look, up to its version."""
_USUAL: Final = re.compile(
    ORDINARY_LINE + rb"HTTP/1\.1\r\n"
    rb"[Hh]ost: ([!-~]++)\r\n" + _ORDINARY + rb"(?:[Cc]onnection: [Kk]eep-[Aa]live\r\n" + _ORDINARY + rb")?+\r\n"
)
"""The shape of nearly all requests without a body. It decides nothing of its own: whatever it matches, the general way
reads the same (a property test compares them); it only saves cutting lines out one by one."""
_FIELDS: Final = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_MAX_LENGTH: Final = 2**63 - 1
_CODINGS: Final = re.compile(rb"(?i)(?:(?:x-)?(?:gzip|compress)|deflate|br|zstd|identity|chunked|[ \t,])+")
_ABSOLUTE: Final = re.compile(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?]*+)(/[^?]*+)?+(\?.*+)?+")
_NONCE: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in canonical base64
_KEY: Final = field_pattern(b"sec-websocket-key")
_VERSION: Final = field_pattern(b"sec-websocket-version")

_NONE: Final = Framing.NONE
_BY_LENGTH: Final = Framing.LENGTH
_CHUNKED: Final = Framing.CHUNKED


class RequestHead:
    """One request head, end-to-end fields only."""

    __slots__ = (
        "authority", "block", "content_length", "expect_continue", "forwarded", "framing", "host", "keep_alive",
        "method", "minor", "path", "port", "size", "target", "upgrade", "usual",
    )  # fmt: skip

    method: bytes
    """As sent (methods are case-sensitive); never CONNECT or TRACE."""
    target: bytes
    """Origin form as sent; an absolute form is reduced to it. `*` for a request about the server itself."""
    path: bytes
    """`target` up to `?`."""
    authority: bytes
    """Value of `Host` as sent; b"" only for HTTP/1.0 without one."""
    host: bytes
    """Host in lower case, without port and trailing dot; b"" only for HTTP/1.0 without one."""
    port: int | None
    """Port that `authority` names."""
    minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    framing: Framing
    content_length: int
    """Bytes of body; 0 unless `framing` is LENGTH."""
    keep_alive: bool
    """The visitor wishes that the connection persists."""
    expect_continue: bool
    """The visitor waits for a 100 before it sends its body (never with HTTP/1.0 or without a body)."""
    upgrade: bytes
    """b"websocket" for a correct WebSocket handshake, which has no body; otherwise b""."""
    block: bytes
    """The end-to-end field lines as they were sent, `Name: value` CRLF each: no Host, framing, hop-by-hop, `Culvert-*`
    or forwarding field, no name with `_`. `Expect: 100-continue` comes last. Passes `check_fields(request=True)`."""
    forwarded: tuple[tuple[bytes, bytes], ...]
    """`Forwarded`, `X-Forwarded-*` and `X-Real-IP` as the visitor sent them: (name in lower case, value)."""
    size: int
    """Bytes that the head took, with an empty line before it."""
    usual: bool
    """It had the shape of nearly all requests without a body, in which no field but Host means anything to a proxy."""

    def __init__(
        self, method: bytes, target: bytes, path: bytes, authority: bytes, host: bytes, port: int | None,
        minor: int, framing: Framing, content_length: int, keep_alive: bool, expect_continue: bool, upgrade: bytes,
        block: bytes, forwarded: tuple[tuple[bytes, bytes], ...], size: int, usual: bool,
    ) -> None:  # fmt: skip
        self.method = method
        self.target = target
        self.path = path
        self.authority = authority
        self.host = host
        self.port = port
        self.minor = minor
        self.framing = framing
        self.content_length = content_length
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade
        self.block = block
        self.forwarded = forwarded
        self.size = size
        self.usual = usual

    def marked(self, block: bytes) -> "RequestHead":
        """The same head with another block."""
        return RequestHead(
            self.method, self.target, self.path, self.authority, self.host, self.port, self.minor, self.framing,
            self.content_length, self.keep_alive, self.expect_continue, self.upgrade, block, self.forwarded, self.size,
            self.usual,
        )  # fmt: skip

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """`block` as (name as spelled, value) pairs; made anew at each call, so not for the hot path."""
        return [(name, value.rstrip(b" \t")) for name, value in _FIELDS.findall(self.block)]

    @property
    def asterisk(self) -> bool:
        """`OPTIONS *`: about the server itself, so that the relay answers it."""
        return self.target == b"*"


def parse_request_head(
    data: bytes | bytearray, *, limits: HeadLimits = DEFAULT_LIMITS, scanned: int = 0
) -> RequestHead | None:
    """The head that `data` begins with, after at most one empty line; None when more bytes are needed.

    `scanned`: `len(data)` at the last call for this head, when that returned None. Then only what has come since is
    looked at, so that a head that arrives byte by byte costs one pass in all. Bytes after the head are not looked at.

    Raises `HTTPError` with status 400, 405, 414, 417, 431, 501 or 505, as early as the bytes show it.
    """
    if scanned and data.find(b"\r\n\r\n", scanned - 3 if scanned > 3 else 0) < 0:
        refuse_request(data, limits, scanned)
        return None
    usual = _USUAL.match(data)
    if usual is None:
        return _general(data, limits, scanned)
    method, target, path, authority, block, more = usual.groups()
    size = usual.end()
    if size > limits.unmeasured:
        if len(target) > limits.target or len(method) > limits.method:
            refuse_request_line(data, limits)
        refuse_sizes(data, size, limits, 431)
    host, port = parse_authority(authority)
    if more:
        block += more
    return RequestHead(
        method, target, path, authority, host, port, 1, _NONE, 0, True, False, b"", block, (), size, True
    )  # fmt: skip


def _general(data: bytes | bytearray, limits: HeadLimits, scanned: int) -> RequestHead | None:
    """`parse_request_head` for heads of any shape."""
    underscored = False
    match = _HEAD.match(data)
    if match is None:
        match = _HEAD_UNDERSCORED.match(data)
        underscored = True
        if match is None:
            refuse_request(data, limits, scanned)
            return None
    method: bytes
    target: bytes
    path: bytes | None
    block: bytes
    method, target, path, version, block = match.groups()
    size = match.end()
    if len(target) > limits.target or len(method) > limits.method:
        refuse_request_line(data, limits)
    if size > limits.unmeasured:
        refuse_sizes(data, size, limits, 431)
    if underscored:
        block = _UNDERSCORED.sub(b"", block)

    minor = 0 if version == b"0" else 1
    parts: list[bytes] = _SPECIAL.split(block)
    authority: bytes | None = None
    connection: bytes | None = None
    length: bytes | None = None
    coding: bytes | None = None
    upgrade: bytes | None = None
    expect: bytes | None = None
    forwarded: list[tuple[bytes, bytes]] | None = None
    index = 1
    end = len(parts)
    while index < end:
        name = parts[index].lower()
        value = parts[index + 1].rstrip(b" \t")
        index += 3
        if name == b"host":
            if authority is not None:
                raise HTTPError(400, "bad_host", "The Host field is given twice; send exactly one.")
            authority = value
        elif name == b"connection":
            connection = value if connection is None else connection + b"," + value
        elif name == b"content-length":
            if length is not None:
                raise HTTPError(400, "bad_framing", "Content-Length is given twice; send exactly one.")
            length = value
        elif name == b"transfer-encoding":
            if coding is not None:
                raise HTTPError(400, "bad_framing", "Transfer-Encoding is given twice; send exactly one 'chunked'.")
            coding = value
        elif name == b"upgrade":
            upgrade = value if upgrade is None else upgrade + b"," + value
        elif name == b"expect":
            expect = value if expect is None else expect + b"," + value
        elif name[0] == 0x78 or name == b"forwarded":
            if forwarded is None:
                forwarded = []
            forwarded.append((name, value))
        # The others end here: Culvert-*, HTTP2-Settings, Keep-Alive, Proxy, Proxy-*, TE, Trailer.
    block = (b"".join(parts[::3]) if end > 1 else block)[1:]

    framing = _NONE
    content_length = 0
    if coding is not None:
        _check_coding(coding, length, minor)
        framing = _CHUNKED
    elif length is not None:
        content_length = _content_length(length)
        framing = _BY_LENGTH

    if path is None:
        target, path, authority = _other_form(method, target, authority, minor)
    elif method == b"CONNECT":
        _refuse_method(method)
    if method == b"TRACE":
        _refuse_method(method)
    if authority is not None:
        host, port = parse_authority(authority)
    elif minor:
        raise HTTPError(400, "bad_host", "The Host field is missing; HTTP/1.1 needs exactly one.")
    else:
        authority = host = b""
        port = None

    protocol = b""
    if connection is None:
        keep_alive = minor == 1
    elif connection == b"keep-alive" or connection == b"Keep-Alive":
        keep_alive = True
    else:
        options = parse_options(connection)
        if options is None:
            raise HTTPError(400, "bad_field", "The Connection field is not a list of field names; separate by commas.")
        keep_alive = not options.close and (minor == 1 or options.keep_alive)
        block = without_fields(block, options.named)
        if upgrade is not None and options.upgrade and minor and method == b"GET" and content_length == 0:
            protocol = _handshake(upgrade, block, framing)
            if protocol:
                framing = _NONE

    waits = False
    if expect is not None:
        if minor:
            _check_expectation(expect)
        if minor and (framing is _CHUNKED or content_length):
            waits = True
            block += b"Expect: 100-continue\r\n"
    return RequestHead(
        method, target, path, authority, host, port, minor, framing, content_length, keep_alive, waits, protocol,
        block, () if forwarded is None else tuple(forwarded), size, False,
    )  # fmt: skip


def _check_coding(coding: bytes, length: bytes | None, minor: int) -> None:
    if length is not None:
        raise HTTPError(
            400, "bad_framing", "Both Content-Length and Transfer-Encoding are given; send only one of them."
        )
    if not minor:
        raise HTTPError(400, "bad_framing", "Transfer-Encoding came with HTTP/1.0; use Content-Length or HTTP/1.1.")
    if coding.lower() != b"chunked":
        if _CODINGS.fullmatch(coding):
            raise HTTPError(
                501, "unknown_coding", "Transfer-Encoding is not exactly 'chunked'; no other transfer coding is known."
            )
        raise HTTPError(400, "bad_framing", "Transfer-Encoding is malformed; send exactly 'chunked'.")


def _content_length(value: bytes) -> int:
    if _LENGTH.fullmatch(value):
        length = int(value)
        if length <= _MAX_LENGTH:
            return length
    raise HTTPError(400, "bad_framing", "Content-Length is not one decimal number below 2^63; send digits only.")


def _check_expectation(value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise HTTPError(
            417, "unknown_expectation", "The expectation is unknown; 'Expect: 100-continue' is the only one."
        )


def _refuse_method(method: bytes) -> None:
    if method == b"CONNECT":
        raise HTTPError(405, "method_not_allowed", "CONNECT is for forward proxies; ask for a path instead.")
    raise HTTPError(405, "method_not_allowed", "TRACE would reflect credentials; use another method.")


def _other_form(method: bytes, target: bytes, authority: bytes | None, minor: int) -> tuple[bytes, bytes, bytes | None]:
    """Target, path and authority for what is not in origin form (RFC 9112 sections 3.2.2 to 3.2.4)."""
    if method == b"CONNECT" or method == b"TRACE":
        _refuse_method(method)
    if target == b"*":
        if method != b"OPTIONS":
            raise HTTPError(400, "bad_target", "The target '*' is for OPTIONS only; ask for a path.")
        return target, target, authority
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise HTTPError(400, "bad_target", "The request target is neither a path nor an http URL; begin it with '/'.")
    scheme: bytes
    named: bytes
    scheme, named, path, query = match.groups()
    default = 443 if len(scheme) == 5 else 80
    host, port = parse_authority(named)
    if authority is None:
        if minor:
            raise HTTPError(400, "bad_host", "The Host field is missing; HTTP/1.1 needs exactly one.")
        authority = named
    else:
        other_host, other_port = parse_authority(authority)
        if (other_host, other_port or default) != (host, port or default):
            raise HTTPError(400, "bad_host", "The request target and the Host field name different hosts; name one.")
    if path is None:
        if query is None and method == b"OPTIONS":
            return b"*", b"*", authority
        path = b"/"
    return path + (query or b""), path, authority


def _handshake(upgrade: bytes, block: bytes, framing: Framing) -> bytes:
    """b"websocket" for a correct handshake (RFC 6455 section 4.2.1), b"" for an ordinary request."""
    if framing is _CHUNKED or b"websocket" not in [token.strip(b" \t") for token in upgrade.lower().split(b",")]:
        return b""
    keys = field_values(block, _KEY)
    if len(keys) == 1 and _NONCE.fullmatch(keys[0]) and field_values(block, _VERSION) == [b"13"]:
        return b"websocket"
    return b""
