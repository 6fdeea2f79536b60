"""When a request may be sent again over another session.

Responsible for the table by RESET code. Pure. Must not know streams.
Invariant: a request whose method is not safe is sent twice only when the connector swears that nothing reached an
origin (RFC 9110 section 9.2.2).
"""

from enum import Enum
from typing import Final

from culvert_protocol.codes import ResetCode

MAX_RETAINED: Final = 65_536
"""Body bytes that are kept for sending again, until the first sign of a response."""
MAX_ATTEMPTS_REFUSED: Final = 4
"""Times a request is offered in all when sessions refuse it."""
MAX_ATTEMPTS_SAFE: Final = 2
"""Times a safe request is sent in all when it may have reached an origin."""
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Again(Enum):
    """Who may be sent again after a reset."""

    ANY = "any"
    SAFE = "safe"
    NONE = "none"


AGAIN: Final[dict[int, Again]] = {
    ResetCode.REFUSED: Again.ANY,
    ResetCode.SESSION_LOST: Again.SAFE,
    ResetCode.ORIGIN_UNREACHABLE: Again.SAFE,
    ResetCode.INTERNAL: Again.SAFE,
}
"""A timeout is not retried: the visitor has waited long enough. Codes that are not here are never retried."""


def may_retry(code: int, *, method: bytes, attempts: int) -> bool:
    """Whether a request that was sent `attempts` times, and whose body is still here, may be sent once more."""
    again = AGAIN.get(code, Again.NONE)
    if again is Again.ANY:
        return attempts < MAX_ATTEMPTS_REFUSED
    return again is Again.SAFE and method in SAFE_METHODS and attempts < MAX_ATTEMPTS_SAFE
