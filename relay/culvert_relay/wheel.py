"""Coarse deadlines for many connections: one timer for all of them, an integer assignment to put one off.

Responsible for who is due when. Must not know what a deadline is for; time is ticks that the caller advances.
Invariant: `on_deadline` is called once an advance has reached the timer's deadline, in order of ticks, never before it,
and never for a timer that was cancelled. Putting a deadline off costs no data structure work; bringing it forward does.
"""

import sys
from typing import Final, Protocol

TICK_SECONDS: Final = 0.5
AT_ONCE: Final = 32
"""Deadlines that are carried out in one turn of the loop: hundreds of evictions must not hold up everybody else."""


def ticks(seconds: float) -> int:
    """How many ticks make up at least `seconds`, although the present one has begun already."""
    return 1 - int(-seconds // TICK_SECONDS)


class Timed(Protocol):
    """What can have a deadline. Both numbers are ticks and belong to the wheel; 0 means none."""

    deadline: int
    scheduled: int

    def on_deadline(self) -> None:
        """The deadline has come."""


class Wheel:
    """Buckets of timers by tick; `now` is the current tick, `_due` what is left of its bucket."""

    __slots__ = ("_buckets", "_due", "now")

    def __init__(self) -> None:
        self.now = 0
        self._buckets: dict[int, set[Timed]] = {}
        self._due: list[Timed] = []

    def arm(self, timed: Timed, after: int) -> None:
        """Sets the deadline `after` ticks from now, replacing the earlier one."""
        deadline = self.now + after
        timed.deadline = deadline
        scheduled = timed.scheduled
        if scheduled and scheduled <= deadline:
            return
        if scheduled:
            self._drop(timed, scheduled)
        self._put(timed, deadline)

    def cancel(self, timed: Timed) -> None:
        """Forgets the timer altogether, so that the wheel holds nothing of a closed connection."""
        timed.deadline = 0
        if timed.scheduled:
            self._drop(timed, timed.scheduled)
            timed.scheduled = 0

    def advance(self, now: int, *, most: int = sys.maxsize) -> bool:
        """Moves to tick `now`, which may be several ticks on, and looks at what is due there, `most` timers at once.

        Whether some are left: then it is to be called again, in a later turn.
        """
        due = self._due
        while True:
            while due:
                if not most:
                    return True
                most -= 1
                self._look_at(due.pop())
            if self.now >= now:
                return False
            self.now += 1
            due.extend(self._buckets.pop(self.now, ()))
            for timed in due:
                timed.scheduled = 0

    def _look_at(self, timed: Timed) -> None:
        if not timed.deadline or timed.scheduled:
            return  # cancelled, or armed anew, since its tick came
        if timed.deadline > self.now:
            self._put(timed, timed.deadline)
        else:
            timed.deadline = 0
            timed.on_deadline()

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values())) + len(self._due)

    def _put(self, timed: Timed, tick: int) -> None:
        timed.scheduled = tick
        self._buckets.setdefault(tick, set()).add(timed)

    def _drop(self, timed: Timed, tick: int) -> None:
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.discard(timed)
            if not bucket:
                del self._buckets[tick]
