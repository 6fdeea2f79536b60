"""How much of a head, a chunk line and trailers a stranger may send.

Responsible for: the numbers. Must not know how they are enforced or which status follows.
Invariant: every limit is finite, and a head within the limits (with its path once more) fits one OPEN frame
of at most 65,535 bytes.
"""

from dataclasses import dataclass
from dataclasses import field as attribute


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Sizes in bytes; a message exactly at a limit passes."""

    head: int = 32 * 1024
    """Whole head, from the first byte of the start line to the empty line's LF (431)."""
    fields: int = 200
    """Number of field lines (431)."""
    field: int = 16 * 1024
    """One field line without its CRLF (431)."""
    target: int = 8 * 1024
    """Request target as sent (414)."""
    method: int = 32
    """Method token (501: longer than any method there is, RFC 9112 section 3)."""
    extension: int = 256
    """Chunk extensions of one chunk, from the first byte after the size to the CR."""
    trailers: int = 8 * 1024
    """All trailer lines of one body, with their CRLFs."""

    unmeasured: int = attribute(init=False)
    """A head up to this size keeps all other limits of a head whatever is in it, so that nothing need be counted:
    a field line takes four bytes at least. 0 when methods are limited to fewer than 16 bytes."""

    def __post_init__(self) -> None:
        least = min(self.head, self.field, self.target, 4 * self.fields) if self.method >= 16 else 0
        object.__setattr__(self, "unmeasured", least)


DEFAULT_LIMITS: HeadLimits = HeadLimits()
