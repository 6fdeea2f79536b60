"""Whose turn it is to dial: the starts of one connector's dials, spaced as `pacing` says.

Responsible for remembering which dials are under way, and for holding a caller back until its turn has come.

Must not know: what is dialled, where, what becomes of it.

Invariant: between `await my_turn(who, ...)` and `done(who)` the dial of `who` counts as under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress

from culvert_connector.dialling import pacing


class Turns:
    """The turns of one connector. `connected` is how many sessions stand."""

    def __init__(self, *, connected: Callable[[], int]) -> None:
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Hashable, float] = {}
        self._last_start: float | None = None
        self._changed = asyncio.Event()

    async def my_turn(self, who: Hashable) -> None:
        """Returns when `who` may dial."""
        while True:
            wait = pacing.wait_before_dial(
                now=self._loop.time(),
                last_start=self._last_start,
                under_way=self._under_way.values(),
                connected=self._connected(),
            )
            if wait <= 0:
                self._last_start = self._under_way[who] = self._loop.time()
                return
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def waits(self, who: Hashable) -> None:
        """`who` has nothing to dial for now, and holds nobody back."""
        self._under_way.pop(who, None)

    def done(self, who: Hashable) -> None:
        """The dial of `who` has ended."""
        self._under_way.pop(who, None)
        self.wake()

    def wake(self) -> None:
        """Looks again whose turn it is: a session stands, or fell."""
        self._changed.set()
