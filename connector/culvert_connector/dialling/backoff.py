"""How long to wait before dialling again: pure arithmetic over a count of failures.

Responsible for the retry schedule of docs/protocol: at once with 0-100 ms of jitter, then full jitter over
0.2 s * 2^n up to 4 s, for ever; and for when the count falls back.

Must not know: clocks, sleeping, addresses, sessions. Random numbers come in as arguments (0 <= random < 1).

Invariant: a session that dies young never resets the count, so a relay that accepts and then cuts every session
sees a backoff that grows all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_JITTER = 0.1
"""Seconds: the first retry comes within this."""
BASE = 0.2
"""Seconds: the window of the second retry; each further one doubles it."""
CEILING = 4.0
"""Seconds: no retry waits longer, so that a relay that comes back has every session within five seconds."""
GRACE_FROM, GRACE_TO = 5.0, 15.0
"""Seconds a session must stay up, drawn per session, before its slot's count of failures falls back to none."""


def delay(failures: int, random: float) -> float:
    """Seconds to wait before the next dial after `failures` failures in a row (0: there was none)."""
    if failures <= 0:
        return 0.0
    if failures == 1:
        return FIRST_JITTER * random
    window = BASE * 2.0 ** min(failures - 2, 16)
    return min(window, CEILING) * random


def grace(random: float) -> float:
    """Seconds a new session has to live to be called a success."""
    return GRACE_FROM + (GRACE_TO - GRACE_FROM) * random


@dataclass(frozen=True, slots=True)
class Failures:
    """A slot's count of failures in a row."""

    count: int = 0

    def after(self, *, lived: float | None, needed: float) -> Failures:
        """The count after a dial failed (`lived` is None) or a session ended after `lived` seconds.

        `needed` is that session's grace. A session that outlived it starts a new row, of which its own end is the
        first failure: the next dial comes within the first jitter.
        """
        if lived is not None and lived >= needed:
            return Failures(1)
        return Failures(self.count + 1)

    def delay(self, random: float) -> float:
        """Seconds until the next dial."""
        return delay(self.count, random)
