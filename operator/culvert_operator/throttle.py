"""Throttling marks: the first at once, later ones at most once in a while.

Responsible for: turning many marks of a key into few. Must not know: what a mark is for.
Invariants: no mark is lost (the last one of a burst is passed on when the while is over); a key that is quiet for a
while costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from culvert_operator.keys import ObjectKey

SECONDS = 1.0
"""Connectors report every change of their sessions; a round for each would be all that an operator of many does."""


class Throttle:
    """Passes ``mark(key)`` on at most once in ``seconds`` for each key."""

    def __init__(self, mark: Callable[[ObjectKey], None], *, seconds: float = SECONDS) -> None:
        self._mark = mark
        self._seconds = seconds
        self._waiting: dict[ObjectKey, bool] = {}  # keys whose while is running, and whether there is a mark to pass on
        self._timers: dict[ObjectKey, asyncio.TimerHandle] = {}

    def __call__(self, key: ObjectKey) -> None:
        """A mark."""
        if key in self._waiting:
            self._waiting[key] = True
        else:
            self._pass_on(key)

    def _pass_on(self, key: ObjectKey) -> None:
        self._waiting[key] = False
        self._timers[key] = asyncio.get_running_loop().call_later(self._seconds, self._over, key)
        self._mark(key)

    def _over(self, key: ObjectKey) -> None:
        del self._timers[key]
        if self._waiting.pop(key):
            self._pass_on(key)

    def close(self) -> None:
        """Pass nothing on any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
