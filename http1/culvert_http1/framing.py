"""How the end of a body is known.

Responsible for: the names of the framings. The values 0–2 are those of culvert's wire format, so that they can be
passed on as plain integers. Must not know how a message says it (see `request`, `response`).
"""

from enum import IntEnum


class Framing(IntEnum):
    """RFC 9112 section 6.3."""

    NONE = 0
    """There is no body."""
    LENGTH = 1
    """`Content-Length` bytes."""
    CHUNKED = 2
    """Chunked transfer coding; on the session between relay and connector: until FIN."""
    UNTIL_CLOSE = 3
    """Responses only: until the peer closes the connection cleanly."""
