"""How many connections there are, in all and from each address.

Responsible for counting, and for the verdict on one more. Pure. Must not know sockets, or what a verdict leads to.
Invariants: a place is given back once however often it is left; an address without connections is not remembered.
"""

import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from culvert_relay.config_values import Network

FULL: Final = "connections"
CROWDED: Final = "connections_per_address"
"""The two refusals, by the limit that was reached."""


class Place:
    """One connection's entry in the book."""

    __slots__ = ("_admission", "_key")

    def __init__(self, admission: "Admission", key: str | None) -> None:
        self._admission: Admission | None = admission
        self._key = key

    def leave(self) -> None:
        """The connection is gone, or no visitor's any more."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left(self._key)


class Admission:
    """The book. `exempt` tells whether an address may hold as many connections as there are."""

    __slots__ = ("_exempt", "_per_address", "_total", "by_key", "count")

    def __init__(self, *, total: int, per_address: int, exempt: Callable[[str], bool] = lambda _address: False) -> None:
        self.count = 0
        self.by_key: dict[str, int] = {}
        self._total = total
        self._per_address = per_address
        self._exempt = exempt

    def enter(self, address: str) -> Place | str:
        """A place for a connection from `address` (an IP address as text), or the limit that is reached."""
        if self.count >= self._total:
            return FULL
        key: str | None = address_key(address)
        held = self.by_key.get(key, 0)  # type: ignore[arg-type]  # a text so far
        if held >= self._per_address:
            if not self._exempt(address):
                return CROWDED
            key = None
        if key is not None:
            self.by_key[key] = held + 1
        self.count += 1
        return Place(self, key)

    def left(self, key: str | None) -> None:
        """See `Place.leave`."""
        self.count -= 1
        if key is not None:
            held = self.by_key[key] - 1
            if held:
                self.by_key[key] = held
            else:
                del self.by_key[key]


@lru_cache(maxsize=4096)
def address_key(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 address is in, which is one subscriber's."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def membership(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """A test whether an address (as text; a zone is ignored) lies in one of `networks`."""
    if not networks:
        return lambda _address: False

    @lru_cache(maxsize=4096)
    def within(address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in networks)

    return within
