"""Names for requests: `X-Request-Id`, and `traceparent` of W3C Trace Context.

Responsible for which id a request goes by, and for the field lines that tell the origin. Pure but for the `random`
that it is given. Must not know connections or logs.

Invariants: an origin that gets an `X-Request-Id` gets one, and it is the one in the log and in the response; a stranger
cannot choose it. A `traceparent` that is there is never touched: without a span of its own the relay is no part of the
trace (Trace Context section 2, "forwarding the traceparent header without modification").
"""

import re
from collections.abc import Callable
from typing import Final

from culvert_http1.options import field_pattern, without_fields

REQUEST_ID: Final = b"X-Request-Id"
_NAMES: Final = frozenset({REQUEST_ID.lower()})
_ID_FIELD: Final = field_pattern(REQUEST_ID.lower())
_ACCEPTABLE: Final = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}")
_PARENT_FIELD: Final = field_pattern(b"traceparent")
_PARENT: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
_SAMPLED: Final = b"01"
"""Whoever asks for traces to be begun here wants them recorded."""


class Marking:
    """How requests are marked. `random(n)` returns an integer of n random bits."""

    __slots__ = ("_random", "_request_ids", "_traceparents")

    def __init__(self, *, request_ids: bool, traceparents: bool, random: Callable[[int], int]) -> None:
        self._request_ids = request_ids
        self._traceparents = traceparents
        self._random = random

    def mark(self, block: bytes, *, trusted: bool) -> tuple[bytes, bytes]:
        """A request's field block as the origin is to get it, and the request's id (b"" when it gets none).

        `trusted`: the block comes from a proxy whose id is taken over; anybody else's is replaced.
        """
        request_id = b""
        if self._request_ids:
            if b"x-request-id:" in block.lower():
                given = _ID_FIELD.findall(block)
                if trusted and len(given) == 1 and _ACCEPTABLE.fullmatch(given[0].strip(b" \t")):
                    request_id = given[0].strip(b" \t")
                block = without_fields(block, _NAMES)
            request_id = request_id or b"%032x" % self._random(128)
            block = b"%b: %b\r\n%b" % (REQUEST_ID, request_id, block)
        if self._traceparents and not _parents(block):
            # Ids of zeros alone are invalid, hence the 1 at the end.
            block = b"traceparent: 00-%032x-%016x-%b\r\n%b" % (
                self._random(128) | 1, self._random(64) | 1, _SAMPLED, block,
            )  # fmt: skip
        return block, request_id


def answer_fields(fields: bytes, request_id: bytes) -> bytes:
    """A response's field block with the request's id, unless the origin answered with one itself."""
    if b"x-request-id:" in fields.lower():
        return fields
    return b"%b%b: %b\r\n" % (fields, REQUEST_ID, request_id)


def traceparent_of(block: bytes) -> str | None:
    """A block's `traceparent` if there is exactly one and it is well-formed (Trace Context section 3.2)."""
    found = _parents(block)
    if len(found) != 1:
        return None
    value = found[0].strip(b" \t")
    return value[:128].decode("ascii") if _PARENT.fullmatch(value) else None


def _parents(block: bytes) -> list[bytes]:
    # Looking for the name first spares the expression, which costs 4 µs on a browser's head.
    return _PARENT_FIELD.findall(block) if b"traceparent:" in block.lower() else []
