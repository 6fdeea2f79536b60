"""Who waits for how long, where most wait equally long: a book of deadlines that costs two dictionary steps.

Responsible for order and for saying whose time is up. Pure. Must not know sockets, HTTP or clocks; a waiter is any
object that can be a dictionary's key.

Invariant: among those who wait equally long the first to begin is the first due, so that the book of one duration is
in order by itself and only its beginning is ever looked at.
"""

from __future__ import annotations

from typing import Generic, TypeVar

W = TypeVar("W")


class Waits(Generic[W]):
    """Waiters by the seconds that they wait, each with its deadline."""

    __slots__ = ("_by_duration",)

    def __init__(self) -> None:
        self._by_duration: dict[float, dict[W, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_duration.values()))

    def begin(self, waiter: W, seconds: float, *, now: float) -> None:
        """`waiter` waits from `now` on; once more if it had begun already."""
        waiting = self._by_duration.get(seconds)
        if waiting is None:
            waiting = self._by_duration[seconds] = {}
        else:
            waiting.pop(waiter, None)
        waiting[waiter] = now + seconds

    def end(self, waiter: W, seconds: float) -> None:
        """`waiter` has what it waited for; one that does not wait is no error."""
        waiting = self._by_duration.get(seconds)
        if waiting is not None:
            waiting.pop(waiter, None)

    def due(self, *, now: float) -> list[W]:
        """Takes out and returns everyone whose time is up."""
        found: list[W] = []
        for waiting in self._by_duration.values():
            for waiter, deadline in waiting.items():
                if deadline > now:
                    break
                found.append(waiter)
        self._by_duration = {
            seconds: kept
            for seconds, waiting in self._by_duration.items()
            if (kept := {waiter: deadline for waiter, deadline in waiting.items() if deadline > now})
        }
        return found

    def shortest(self) -> float | None:
        """The shortest duration that anyone waits; None when nobody does."""
        return min((seconds for seconds, waiting in self._by_duration.items() if waiting), default=None)
