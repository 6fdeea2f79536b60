"""Flow control: credit in body bytes, per stream and direction.

Responsible for the arithmetic alone. Records (heads, metadata) do not count; DATA's and OPEN's body bytes do.
Invariant: a sender never has more than its credit under way; a receiver never holds more than it granted.
Windows are fixed at INITIAL_WINDOW in version 1; a sender must accept any growth that WINDOW announces.
"""

from typing import Final

from culvert_protocol.codes import ProtocolError

INITIAL_WINDOW: Final = 65_536
MAX_WINDOW: Final = 8 << 20
RETURN_AT: Final = INITIAL_WINDOW // 2
"""Credit goes back in portions of this many bytes, so that a bulk stream costs one WINDOW per 32 KiB."""


class SendCredit:
    """What we may still send. `left` is read on the hot path and only changed here and by `Stream`."""

    __slots__ = ("left",)

    def __init__(self, window: int = INITIAL_WINDOW) -> None:
        self.left = window

    def grant(self, increment: int) -> None:
        """Adds the peer's WINDOW; a zero or an overflow beyond MAX_WINDOW is the peer's error."""
        if increment == 0 or self.left + increment > MAX_WINDOW:
            raise ProtocolError(f"WINDOW of {increment} bytes on top of {self.left}")
        self.left += increment


class ReceiveCredit:
    """What the peer may still send to us, and what has been consumed but not yet given back."""

    __slots__ = ("left", "owed")

    def __init__(self, window: int = INITIAL_WINDOW) -> None:
        self.left = window
        self.owed = 0

    def take(self, size: int) -> None:
        """Accounts for arriving body bytes; raises ProtocolError on an overrun."""
        self.left -= size
        if self.left < 0:
            raise ProtocolError(f"a stream overran its window by {-self.left} bytes")

    def consumed(self, size: int) -> int:
        """Notes bytes that left towards the slow side; returns the increment to announce now, or 0."""
        self.owed += size
        if self.owed < RETURN_AT:
            return 0
        increment = self.owed
        self.owed = 0
        self.left += increment
        return increment
