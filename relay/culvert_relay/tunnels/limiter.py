"""How often one address may fail to authenticate before it hears 429 instead of 401.

Responsible for counting failures only: a valid credential is never held up, so connectors behind a shared NAT do not
suffer for a neighbour. Pure: the caller brings the monotonic time. Invariant: bounded memory, oldest entry first out.
"""

from collections import OrderedDict
from typing import Final

BURST: Final = 20.0
PER_SECOND: Final = 0.2
MAX_ADDRESSES: Final = 10_000


class FailureLimiter:
    """A token bucket per address: BURST failures at once, one more every five seconds."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def failed(self, address: str, *, now: float) -> bool:
        """Notes a failure; returns True when this address has failed too often."""
        tokens, since = self._buckets.pop(address, (BURST, now))
        tokens = min(BURST, tokens + (now - since) * PER_SECOND)
        excessive = tokens < 1.0
        self._buckets[address] = (tokens if excessive else tokens - 1.0, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return excessive
