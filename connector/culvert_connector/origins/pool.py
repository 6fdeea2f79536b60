"""Which kept-alive origin connection serves the next request: a pure book of idle connections.

Responsible for handing out the most recently used idle connection of a key, for the limits (per key, in all) and
for saying which connections have been idle too long. It decides and returns what to close; the caller closes.

Must not know: sockets, HTTP, clocks; a connection is any object that can be told apart by identity.

Invariant: a connection is in the book at most once, and never while an exchange uses it; the book never holds more
than `per_key` connections of one key nor more than `total`.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

C = TypeVar("C", bound=Hashable)

PER_KEY: Final = 100
"""`keepAliveConnections`: idle connections kept to one service."""
TOTAL: Final = 1000
"""Idle connections kept in all, so that thousands of rules cannot hold every descriptor."""
IDLE_TIMEOUT: Final = 90.0
"""`keepAliveTimeout`: seconds after which an idle connection is closed."""


class IdlePool(Generic[C]):
    """Idle connections by key, each with the time since when it has been idle."""

    __slots__ = ("_by_key", "_idle_timeout", "_key_of", "_total")

    def __init__(self, *, total: int = TOTAL, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._total = total
        self._idle_timeout = idle_timeout
        self._by_key: dict[Hashable, dict[C, float]] = {}
        # Oldest first over all keys: a plain dict keeps the order of insertion.
        self._key_of: dict[C, Hashable] = {}

    def __len__(self) -> int:
        return len(self._key_of)

    def take(self, key: Hashable) -> C | None:
        """The connection of `key` that became idle last, no longer in the book; None when there is none.

        The newest is the one whose origin is least likely to have closed it meanwhile; the oldest ones are left to
        age out, so a pool shrinks to what the load needs.
        """
        idle = self._by_key.get(key)
        if idle is None:
            return None
        connection, _ = idle.popitem()
        if not idle:
            del self._by_key[key]
        del self._key_of[connection]
        return connection

    def give(self, key: Hashable, connection: C, *, now: float, per_key: int = PER_KEY) -> C | None:
        """Puts an idle connection into the book; returns the connection that must be closed for it, if any."""
        idle = self._by_key.setdefault(key, {})
        idle[connection] = now
        self._key_of[connection] = key
        if len(idle) > per_key:
            evicted = next(iter(idle))
        elif len(self._key_of) > self._total:
            evicted = next(iter(self._key_of))
        else:
            return None
        self.remove(evicted)
        return evicted

    def remove(self, connection: C) -> None:
        """Forgets a connection that closed while idle; one that is not in the book is no error."""
        key = self._key_of.pop(connection, None)
        if key is not None:
            idle = self._by_key[key]
            del idle[connection]
            if not idle:
                del self._by_key[key]

    def expire(self, *, now: float) -> list[C]:
        """Takes out and returns every connection that has been idle for the timeout or longer."""
        old: list[C] = []
        for connection, key in self._key_of.items():
            if now - self._by_key[key][connection] < self._idle_timeout:
                break
            old.append(connection)
        for connection in old:
            self.remove(connection)
        return old

    def clear(self) -> list[C]:
        """Takes out and returns everything: the program stops."""
        everything = list(self._key_of)
        self._by_key.clear()
        self._key_of.clear()
        return everything
