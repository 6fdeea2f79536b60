"""Coarse deadlines for many connections: one timer for all of them, an integer assignment to put one off.

Responsible for who is due when. Must not know what a deadline is for; time is ticks that the caller advances.
Invariant: `on_deadline` is called at the first advance that reaches the timer's deadline, never before it, and never
for a timer that was cancelled. Putting a deadline off costs no data structure work; bringing it forward does.
"""

from typing import Final, Protocol

TICK_SECONDS: Final = 0.5


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
    """Buckets of timers by tick; `now` is the current tick."""

    __slots__ = ("_buckets", "now")

    def __init__(self) -> None:
        self.now = 0
        self._buckets: dict[int, set[Timed]] = {}

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

    def advance(self, now: int) -> None:
        """Moves to tick `now`, which may be several ticks on, and calls everything that is due."""
        while self.now < now:
            self.now += 1
            bucket = self._buckets.pop(self.now, None)
            for timed in bucket or ():
                timed.scheduled = 0
                if not timed.deadline:
                    continue
                if timed.deadline > self.now:
                    self._put(timed, timed.deadline)
                else:
                    timed.deadline = 0
                    timed.on_deadline()

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def _put(self, timed: Timed, tick: int) -> None:
        timed.scheduled = tick
        self._buckets.setdefault(tick, set()).add(timed)

    def _drop(self, timed: Timed, tick: int) -> None:
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.discard(timed)
            if not bucket:
                del self._buckets[tick]
