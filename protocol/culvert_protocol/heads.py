"""The two records that carry HTTP's metadata: OPEN's and the response head's.

Responsible for their byte layout (docs/protocol.md, "OPEN" and "Response head"). What the fields mean to a
router, and whether a field block is acceptable to a visitor, is decided elsewhere.
Both are named tuples because a frozen dataclass of 14 fields costs 2 µs more a request. The hot path makes them by
`tuple.__new__`, which is what their own constructors do in an interpreted function that costs more than it.
Invariant: decode(encode(x)) == x, and decode refuses any record whose lengths do not add up.
"""

from enum import IntEnum
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from culvert_protocol.codes import ProtocolError

_OPEN: Final = Struct("<BBBBHBBHHHHHQQ")
_RESPONSE: Final = Struct("<HBBHQ")
_OPEN_SIZE: Final = _OPEN.size
_RESPONSE_SIZE: Final = _RESPONSE.size
MAX_HEAD: Final = 32_768
"""Bytes of one field block, RFC 9112 heads included; also the bound on OPEN's text in all but the body."""
MAX_OPEN_TEXT: Final = 48_000
REMEMBERED: Final = 2048
"""Bytes of an OPEN up to which it is remembered: the same visitor mostly asks again in the same words."""


class Kind(IntEnum):
    """What a stream is for."""

    HTTP = 0
    UPGRADE = 1
    TCP = 2
    PROBE = 3


class Framing(IntEnum):
    """How the body that follows ends: not there, after `content_length` bytes, or at FIN."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2


class Open(NamedTuple):
    """A request as the relay hands it to the connector.

    `host` and `path` are the normalised copies that rules match on; `authority` and `target` are the visitor's
    own spelling, which is what the origin gets. `fields` is a block of `Name: value CRLF` lines without Host,
    framing and hop-by-hop fields. `content_length` is meaningful only for Framing.LENGTH.
    """

    kind: int = Kind.HTTP
    attempt: int = 0
    scheme: int = 0
    framing: int = Framing.NONE
    content_length: int = 0
    local_port: int = 0
    grant_version: int = 0
    method: bytes = b""
    address: bytes = b""
    host: bytes = b""
    authority: bytes = b""
    path: bytes = b""
    target: bytes = b""
    fields: bytes = b""


class ResponseHead(NamedTuple):
    """A response's head as the connector reports it. CHUNKED means "until the stream's FIN".

    `close` says that the origin asked to close; `fields` has no framing and no hop-by-hop field.
    """

    status: int
    framing: int = Framing.NONE
    content_length: int = 0
    close: bool = False
    fields: bytes = b""


def encode_open(head: Open, body: bytes = b"") -> bytes:
    """OPEN's payload: the fixed part, the texts in order, then the first bytes of the body.

    Raises ValueError when a text is longer than its length field or all together are over MAX_OPEN_TEXT.
    """
    (
        kind,
        attempt,
        scheme,
        framing,
        length,
        port,
        version,
        method,
        address,
        host,
        authority,
        path,
        target,
        fields,
    ) = head
    n_method = len(method)
    n_address = len(address)
    n_host = len(host)
    n_authority = len(authority)
    n_path = len(path)
    n_target = len(target)
    n_fields = len(fields)
    size = n_method + n_address + n_host + n_authority + n_path + n_target + n_fields
    if size > MAX_OPEN_TEXT or n_method > 255 or n_address > 255:
        raise ValueError(f"a request head of {size} bytes does not fit into OPEN")
    fixed = _OPEN.pack(
        kind,
        attempt,
        scheme,
        framing,
        port,
        n_method,
        n_address,
        n_host,
        n_authority,
        n_path,
        n_target,
        n_fields,
        version,
        length,
    )
    return b"".join((fixed, method, address, host, authority, path, target, fields, body))


def decode_open(payload: bytes) -> tuple[Open, bytes]:
    """The record and the body bytes behind it; raises ProtocolError when the lengths do not fit.

    Of records that are the same to the byte, and short and without a body, the last few hundred share one `Open`.
    """
    if len(payload) <= REMEMBERED and payload[3:4] == b"\0":
        return _decode_repeated(payload)
    return _decode_open(payload)


def _decode_open(payload: bytes) -> tuple[Open, bytes]:
    if len(payload) < _OPEN_SIZE:
        raise ProtocolError("OPEN is shorter than its fixed part")
    (
        kind,
        attempt,
        scheme,
        framing,
        port,
        n_method,
        n_address,
        n_host,
        n_authority,
        n_path,
        n_target,
        n_fields,
        version,
        length,
    ) = _OPEN.unpack_from(payload)
    if kind > 3 or scheme > 1 or framing > 2:
        raise ProtocolError("OPEN with an unknown kind, scheme or framing")
    a = _OPEN_SIZE
    b = a + n_method
    c = b + n_address
    d = c + n_host
    e = d + n_authority
    f = e + n_path
    g = f + n_target
    end = g + n_fields
    if end > len(payload):
        raise ProtocolError("OPEN's texts are longer than the frame")
    head = (
        kind,
        attempt,
        scheme,
        framing,
        length,
        port,
        version,
        payload[a:b],
        payload[b:c],
        payload[c:d],
        payload[d:e],
        payload[e:f],
        payload[f:g],
        payload[g:end],
    )
    return tuple.__new__(Open, head), payload[end:]


_decode_repeated = lru_cache(maxsize=512)(_decode_open)


def encode_response_head(head: ResponseHead, body: bytes = b"") -> bytes:
    """The record at the start of a DATA|HEAD frame; raises ValueError for a field block over MAX_HEAD."""
    fields = head.fields
    if len(fields) > MAX_HEAD:
        raise ValueError(f"a response head of {len(fields)} bytes is over {MAX_HEAD}")
    return _RESPONSE.pack(head.status, head.framing, head.close, len(fields), head.content_length) + fields + body


def decode_response_head(payload: bytes) -> tuple[ResponseHead, bytes]:
    """The record and the body bytes behind it; raises ProtocolError when it is not one."""
    if len(payload) < _RESPONSE_SIZE:
        raise ProtocolError("a response head is shorter than its fixed part")
    status, framing, close, n_fields, length = _RESPONSE.unpack_from(payload)
    end = _RESPONSE_SIZE + n_fields
    if not 100 <= status <= 999 or framing > 2 or close > 1 or n_fields > MAX_HEAD or end > len(payload):
        raise ProtocolError("a response head with an impossible status, framing or length")
    head = (status, framing, length, close == 1, payload[_RESPONSE_SIZE:end])
    return tuple.__new__(ResponseHead, head), payload[end:]
