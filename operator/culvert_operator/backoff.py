"""How long to wait before the next try.

Responsible for: exponential growth with full jitter. Must not know: what is tried. Randomness comes in.
Invariant: ``0 < next() <= most``, and after :meth:`reset` it starts small again.
"""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Delays in seconds: about ``first``, doubling to ``most``, each between half of itself and all of it."""

    def __init__(self, *, first: float, most: float, random: Callable[[], float]) -> None:
        self.first = first
        self._most = most
        self._random = random
        self.count = 0

    def next(self) -> float:
        """The next delay."""
        whole = min(self._most, self.first * 2.0 ** min(self.count, 62))
        self.count += 1
        return whole * (0.5 + 0.5 * self._random())

    def reset(self) -> None:
        """After a success."""
        self.count = 0
