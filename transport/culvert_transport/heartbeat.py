"""The time of all links of one event loop: one timer, however many sessions there are.

Responsible for looking at each link when that link wants to be looked at, at most a tick later, and for saying how late
the look itself is. Must not know frames or what makes a peer dead.
Invariants: a link that puts its moment off costs nothing until that moment; without links there is no timer.
"""

import asyncio
from typing import Final, Protocol
from weakref import WeakKeyDictionary

TICK: Final = 0.125
"""Seconds between two looks at what is due. Thousands of links share them, so that they are no finer than needed."""


class Beating(Protocol):
    """What has a heart."""

    def beat(self, now: float, late: float) -> float:
        """The moment it asked for has come, `late` seconds ago; returns the next one, 0 to be left alone."""


class Heart:
    """Links by the tick at which they are due; `of` gives a loop its one heart."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[int, list[Beating]] = {}
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> "Heart":
        """The heart of this loop."""
        heart = _HEARTS.get(loop)
        if heart is None:
            heart = _HEARTS[loop] = Heart(loop)
        return heart

    def start(self, one: Beating, moment: float) -> None:
        """Has `one` looked at from `moment` on, until it returns 0; once for each."""
        if self._timer is None:
            self._tick = int(self._loop.time() / TICK)
            self._arm()
        self._put(one, moment)

    def _put(self, one: Beating, moment: float) -> None:
        # Never before its moment, and never in a tick that has been already.
        tick = max(-int(-moment // TICK), self._tick + 1)
        due = self._due.get(tick)
        if due is None:
            self._due[tick] = [one]
        else:
            due.append(one)

    def _arm(self) -> None:
        self._timer = self._loop.call_at((self._tick + 1) * TICK, self._turn)

    def _turn(self) -> None:
        # A timer of uvloop may come a millisecond before its time.
        now = max(self._loop.time(), (self._tick + 1) * TICK)
        last = int(now / TICK)
        while self._tick < last:
            self._tick += 1
            late = now - self._tick * TICK
            for one in self._due.pop(self._tick, ()):
                moment = one.beat(now, late)
                if moment:
                    self._put(one, moment)
        if self._due:
            self._arm()
        else:
            self._timer = None


_HEARTS: "WeakKeyDictionary[asyncio.AbstractEventLoop, Heart]" = WeakKeyDictionary()
