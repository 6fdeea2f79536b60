"""Refusals: the rules whose services lead to addresses that may not be dialled, for as long as they do.

Responsible for remembering them, and for looking again without waiting for a visitor. Must not know: sockets, rules,
who is told.

Invariants: a rule is refused from the first look that finds only addresses of that kind to the first that does not;
while it is, what is said of it stays the same (names answer with their addresses in any order); bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from culvert_connector.origins import addresses
from culvert_connector.origins.addresses import AddressRefused
from culvert_connector.origins.targets import OriginKey

LOOK_AGAIN: Final = 30.0
"""Seconds between two looks at the names of refused rules."""
MAX_REFUSALS: Final = 1024


class Refusals:
    """`lookup` resolves a name; `changed` hears of every rule that comes or goes."""

    def __init__(self, *, lookup: Callable[[str, int], Awaitable[Sequence[str]]], changed: Callable[[], None]) -> None:
        self._lookup = lookup
        self._changed = changed
        self._held: dict[str, tuple[OriginKey, str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None

    def current(self) -> tuple[tuple[str, str], ...]:
        """(rule, sentence) of each."""
        return tuple((rule, sentence) for rule, (_, sentence) in self._held.items())

    def refuse(self, rule: str, key: OriginKey, sentence: str) -> None:
        """A rule's service was refused."""
        known = self._held.get(rule)
        if (known is not None and known[0] == key) or (known is None and len(self._held) >= MAX_REFUSALS):
            return
        self._held[rule] = (key, sentence)
        self._arm()
        self._changed()

    def allow(self, rule: str) -> None:
        """A rule's service was not refused."""
        if self._held.pop(rule, None) is not None:
            self._changed()

    def keep(self, services: Mapping[str, tuple[str, int]]) -> None:
        """Forgets rules that are not among `services` (rule → host and port) any more, or lead elsewhere by now."""
        for rule, (key, _) in tuple(self._held.items()):
            if services.get(rule) != (key.host, key.port):
                self.allow(rule)

    async def close(self) -> None:
        """Ends it."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def look(self) -> None:
        """Looks again at every name."""
        for rule, (key, _) in tuple(self._held.items()):
            try:
                addresses.allowed(await self._lookup(key.host, key.port), policy=key.policy, host=key.host)
            except AddressRefused:
                continue
            except (OSError, UnicodeError):
                pass  # it leads nowhere: another trouble, of which visitors are told
            if self._held.get(rule, (None,))[0] == key:
                self.allow(rule)

    def _arm(self) -> None:
        if self._timer is None and self._held:
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._due)

    def _due(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self.look())
        self._looking.add_done_callback(self._looked)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._timer = self._looking = None
        if not task.cancelled():
            self._arm()
