"""Flow control: credit in body bytes, per stream and direction, and how a receiver lets windows grow and shrink.

Responsible for the arithmetic alone. Records (heads, metadata) do not count; DATA's and OPEN's body bytes do. Time
comes in as a clock; it is read only when credit is given back, never per frame.
Invariants: a window is never below the floor, so that no stream waits for another one's bytes; caps limit growth only,
and what is above them shrinks as it drains; `left + unconsumed + owed` of a stream is its window at any time, so giving
back less than was consumed is how a window shrinks, and nothing that was granted is ever taken back.
"""

from collections.abc import Callable
from typing import Final

from culvert_protocol.codes import ProtocolError

INITIAL_WINDOW: Final = 65_536
"""The floor: every stream's window at first, and never less."""
MAX_WINDOW: Final = 8 << 20
SESSION_CAP: Final = 32 << 20
"""Bytes that all windows of one session may have in all; the floor of its most streams is exactly this much."""
PROCESS_CAP: Final = 128 << 20
"""Bytes by which all windows of a process may exceed the floor."""
RETURN_AT: Final = INITIAL_WINDOW // 2
"""Credit goes back in portions of this many bytes or more, so that a bulk stream costs one WINDOW per 32 KiB."""
FAST: Final = 2
"""Round trips within which a window has to be used up to be doubled."""


def granted(left: int, increment: int) -> int:
    """A sender's credit after the peer's WINDOW; a zero, or more than MAX_WINDOW in all, is the peer's error."""
    if increment == 0 or left + increment > MAX_WINDOW:
        raise ProtocolError(f"WINDOW of {increment} bytes on top of {left}")
    return left + increment


class Allowance:
    """Bytes by which the windows of a process exceed the floor, and how many there may be."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = PROCESS_CAP) -> None:
        self.limit = limit
        self.used = 0


class Growth:
    """One session's growth of windows. `clock` returns seconds; without one, windows stay at the floor.

    `round_trip` is the newest measured one in seconds, None before the first; `cap` the session's, floors included.
    """

    __slots__ = ("_process", "cap", "clock", "grown", "round_trip")

    def __init__(self, clock: Callable[[], float] | None = None, process: Allowance | None = None) -> None:
        self.clock = clock
        self.cap = SESSION_CAP
        self.round_trip: float | None = None
        self.grown = 0
        self._process = process if process is not None else Allowance()

    def spare(self, streams: int) -> int:
        """Bytes by which the windows of so many streams may still grow; negative: by which they are above the caps."""
        process = self._process
        here = self.cap - streams * INITIAL_WINDOW - self.grown
        everywhere = process.limit - process.used
        return here if here < everywhere else everywhere

    def add(self, size: int) -> None:
        """A window has grown by so much, or shrunk when it is negative."""
        self.grown += size
        self._process.used += size

    def close(self) -> None:
        """The session is over, and all its windows with it."""
        self._process.used -= self.grown
        self.grown = 0


class Window:
    """The receiver's side of one direction that has moved enough to be given credit back.

    `size` is what the peer may have under way in all; `portion` how many bytes are worth a WINDOW.
    """

    __slots__ = ("_returned", "_since", "portion", "size")

    def __init__(self) -> None:
        self.size = INITIAL_WINDOW
        self.portion = RETURN_AT
        self._returned = 0
        self._since = -1.0

    def give_back(self, owed: int, growth: Growth, streams: int) -> int:
        """The increment for `owed` consumed bytes: as many, more when the window grows, fewer when it shrinks."""
        spare = growth.spare(streams)
        size = self.size
        if spare < 0 and size > INITIAL_WINDOW:
            kept = min(owed, size - INITIAL_WINDOW, -spare)
            self._resize(size - kept)
            growth.add(-kept)
            return owed - kept
        self._returned += owed
        if self._since >= 0 and self._returned < size:
            return owed
        clock = growth.clock
        if clock is None:
            return owed
        now = clock()
        since, round_trip = self._since, growth.round_trip
        self._since = now
        self._returned = 0
        if since < 0 or round_trip is None or now - since > FAST * round_trip:
            return owed
        more = min(size, MAX_WINDOW - size, spare)
        if more <= 0:
            return owed
        self._resize(size + more)
        growth.add(more)
        return owed + more

    def release(self, growth: Growth) -> None:
        """The stream is over: what its window had grown by is free for others."""
        if self.size > INITIAL_WINDOW:
            growth.add(INITIAL_WINDOW - self.size)
            self.size = INITIAL_WINDOW

    def _resize(self, size: int) -> None:
        self.size = size
        self.portion = max(RETURN_AT, size // 8)
