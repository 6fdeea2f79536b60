"""On what terms a name or port is served: which visitors may come, and whether TLS is passed through.

Responsible for the values and for the question whether an address may come. Pure. Must not know who holds a name.
Invariant: a restriction that was granted is asked before anything of a visitor reaches a tunnel; an address that
cannot be read is not allowed. Hot path: most names have no terms, which costs one comparison.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_REMEMBERED: Final = 4096
"""Addresses whose answer is remembered, per restriction."""


class Sources:
    """The networks whose visitors may come (CIDR texts in normal form)."""

    __slots__ = ("_known", "_networks", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._networks = tuple(ipaddress.ip_network(text) for text in self.texts)
        self._known: dict[bytes, bool] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sources) and other.texts == self.texts

    def __hash__(self) -> int:
        return hash(self.texts)

    def allow(self, address: bytes) -> bool:
        """Whether a visitor with this IP address (text) may come."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look(address)
        return known

    def _look(self, address: bytes) -> bool:
        try:
            visitor = ipaddress.ip_address(address.decode("ascii"))
        except ValueError:
            return False
        if isinstance(visitor, ipaddress.IPv6Address) and visitor.ipv4_mapped is not None:
            visitor = visitor.ipv4_mapped
        return any(visitor in network for network in self._networks)


class Terms(NamedTuple):
    """`sources` None: everybody may come. `passthrough`: chosen by TLS server name and never decrypted here."""

    sources: Sources | None = None
    passthrough: bool = False


OPEN_TO_ALL: Final = Terms()


def terms_of(allowed_sources: tuple[str, ...], *, passthrough: bool = False) -> Terms:
    """The terms of one entry of a grant; entries without any share one value."""
    if not allowed_sources and not passthrough:
        return OPEN_TO_ALL
    return Terms(Sources(allowed_sources) if allowed_sources else None, passthrough)
