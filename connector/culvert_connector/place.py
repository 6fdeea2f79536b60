"""One of the sessions a connector wants, as a place that is filled again whenever its session ends.

Responsible for a place's state, and for the settings that every dial of it takes.

Must not know: how a place is filled (`sessions`), frames, rules.

Invariant: a place holds one session at most; one that takes over from another knows which.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final

from culvert_connector.dialling.addresses import Address, RelayName
from culvert_connector.dialling.backoff import Failures
from culvert_connector.dialling.proxy import DIRECT, Proxies
from culvert_connector.session import RelaySession

TAKE_OVER_TRIES: Final = 3
"""Dials that fail before a place gives up taking over from another one, whose session is better than none."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Where to dial and how to trust what answers."""

    names: tuple[RelayName, ...]
    server_name: str | None
    context: ssl.SSLContext
    sessions: int
    proxies: Proxies = DIRECT


class Place:
    """One of the wanted sessions: whatever happens, it dials again. `replaces` is the place it takes over from, `tries`
    how many dials that is worth."""

    def __init__(self, slot: int, *, replaces: Place | None = None, tries: int = TAKE_OVER_TRIES) -> None:
        self.slot = slot
        self.replaces = replaces
        self.tries = tries
        self.session: RelaySession | None = None
        self.dialling: Address | None = None
        self.failures = Failures()
        self.over = asyncio.Event()
        self.ended = ""
        """Why its last session ended: a token for the metrics."""
        self.task: asyncio.Task[None] | None = None

    @property
    def given_up(self) -> bool:
        """Whether it has tried often enough to take over."""
        return self.replaces is not None and self.failures.count >= self.tries


class Leaving(list[RelaySession]):
    """Sessions that left their place and still serve what they have; beyond `MOST` the oldest is closed."""

    MOST: Final = 32

    def depart(self, session: RelaySession) -> None:
        """One more."""
        self.append(session)
        if len(self) > self.MOST:
            self[0].close("too many sessions drain at once")

    def hold(self, slot: int) -> bool:
        """Whether one of them still has this slot: a higher generation of it would end it at the relay."""
        return any(session.slot == slot for session in self)
