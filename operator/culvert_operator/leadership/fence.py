"""The fence: until when this process may write.

Responsible for: one deadline, asked before every write to the API server and to DNS. Must not know: why it is open.
Invariant: the deadline is on a clock that goes on while the process is stopped and while the machine sleeps, so that
a leader that is resumed after its lease has passed does not write what it was about to write.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


def boot_time() -> float:
    """Seconds since the machine booted, its sleep included (CLOCK_BOOTTIME, where there is one)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class NotLeader(Exception):
    """A write was held back because the process does not, or no longer, lead."""


class Fence:
    """``clock`` gives seconds; closed until :meth:`extend`. ``refused`` is told of every write that is held back."""

    def __init__(self, clock: Callable[[], float] = boot_time, *, refused: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._refused = refused
        self._until = -math.inf

    def extend(self, until: float) -> None:
        """Writes are allowed until then."""
        self._until = until

    def close(self) -> None:
        """Writes are no longer allowed."""
        self._until = -math.inf

    def left(self) -> float:
        """Seconds for which writes are allowed. Raises NotLeader when they are not."""
        left = self._until - self._clock()
        if left <= 0:
            self._refused()
            raise NotLeader("this operator does not lead: the write is left to the one that does.")
        return left


def always() -> Fence:
    """The fence of a process that needs no election."""
    fence = Fence()
    fence.extend(math.inf)
    return fence
