"""Field blocks that another party composed: `Name: value` lines, CRLF each, no empty line at the end.

Responsible for: one pass that decides whether a block may be copied into a message. The relay checks what connectors
send (they belong to tenants), the connector what the relay sends. Must not know the rest of the message.
Invariant: a block that passes can neither end the head early nor change framing, hops or culvert's own fields.
"""

import re
from typing import Final

from .grammar import other_line
from .limits import DEFAULT_LIMITS, HeadLimits

RESPONSE_ENDING_HERE: Final[tuple[bytes, ...]] = (
    b"connection", b"content-length", b"culvert-*", b"keep-alive", b"proxy", b"proxy-*", b"te", b"trailer",
    b"transfer-encoding", b"upgrade",
)  # fmt: skip
"""Fields of a response that framing, the hop or culvert itself owns (lower case; `*` is any rest)."""

REQUEST_ENDING_HERE: Final[tuple[bytes, ...]] = (*RESPONSE_ENDING_HERE, b"host", b"http2-settings")
"""The same for a request."""


def _block(names: tuple[bytes, ...]) -> re.Pattern[bytes]:
    # Names are tested before the line, at its beginning only: a value may hold anything.
    return re.compile(rb"(?:" + other_line(names) + rb")*+")


_RESPONSE_BLOCK: Final = _block(RESPONSE_ENDING_HERE)
_REQUEST_BLOCK: Final = _block(REQUEST_ENDING_HERE)


RELAYED_FIELDS: Final = 8
"""Field lines that a relay may add to a visitor's."""
RELAYED_BYTES: Final = 1024
"""Bytes that it may add to them in all, or to one of them."""


def check_fields(block: bytes, *, request: bool = False, limits: HeadLimits = DEFAULT_LIMITS) -> bool:
    """Whether `block` is well-formed, within the limits and free of framing, hop-by-hop and `Culvert-*` fields.

    It is of a response, or with `request` of a request: then what a relay adds about the visitor comes on top of the
    limits, and `Host` may not be in it. The empty block passes.
    """
    if (_REQUEST_BLOCK if request else _RESPONSE_BLOCK).fullmatch(block) is None:
        return False
    size = len(block)
    if size <= limits.unmeasured:
        return True
    count, more = (RELAYED_FIELDS, RELAYED_BYTES) if request else (0, 0)
    if size > limits.head + more or block.count(b"\n") > limits.fields + count:
        return False
    longest = limits.field + more
    return size <= longest or max(map(len, block.split(b"\r\n"))) <= longest
