"""The table: hostname or TCP port → the pools that serve it.

Responsible for who holds a name: between tunnels the older claimedAt, then (iss, sub), so that all relays decide
alike, also after a restart. An exact name wins over a wildcard, a longer wildcard over a shorter one.
Must not know grants' signatures, issuers or sessions' states. Invariant: every entry has at least one claim, and
`pools` are the holder's alone, newest grant first, and the newest one's terms hold.
"""

from collections.abc import Iterable
from typing import Final

from culvert_protocol.statements import TunnelIdentity
from culvert_relay.routing.pools import Pool
from culvert_relay.routing.terms import OPEN_TO_ALL, Terms

_PORT: Final = "tcp:"


class Entry:
    """One name: every claim on it, the holder's pools, and the terms on which it is served."""

    __slots__ = ("_name", "claims", "pools", "terms", "tunnel")

    def __init__(self, name: str) -> None:
        self._name = name
        self.claims: list[tuple[int, TunnelIdentity, Pool]] = []
        self.pools: tuple[Pool, ...] = ()
        self.tunnel: TunnelIdentity | None = None
        self.terms: Terms = OPEN_TO_ALL

    def decide(self) -> None:
        """Settles who holds the name after a change of claims."""
        self.tunnel = min((claimed_at, tunnel) for claimed_at, tunnel, _ in self.claims)[1]
        pools = (pool for _, tunnel, pool in self.claims if tunnel == self.tunnel)
        self.pools = tuple(sorted(pools, key=lambda pool: -pool.version))
        self.terms = self.pools[0].terms.get(self._name, OPEN_TO_ALL)


class Table:
    """Exact names and wildcards, looked up by the bytes of a visitor's Host (lower case, A-labels, no port)."""

    __slots__ = ("_exact", "_ports", "_wildcard", "passing")

    def __init__(self) -> None:
        self._exact: dict[bytes, Entry] = {}
        self._wildcard: dict[bytes, Entry] = {}
        self._ports: dict[bytes, Entry] = {}
        self.passing = 0
        """How many claims there are of names that are passed through as TLS."""

    def find(self, host: bytes) -> Entry | None:
        """The entry that serves `host`, or None."""
        entry = self._exact.get(host)
        if entry is not None or not self._wildcard:
            return entry
        dot = host.find(b".")
        while dot >= 0:
            entry = self._wildcard.get(host[dot + 1 :])
            if entry is not None:
                return entry
            dot = host.find(b".", dot + 1)
        return None

    def port(self, port: int) -> Entry | None:
        """The entry of a TCP port, or None."""
        return self._ports.get(b"%d" % port)

    def ports(self) -> list[int]:
        """Every TCP port that is held by someone."""
        return [int(key) for key in self._ports]

    def add(self, pool: Pool) -> set[Pool]:
        """Enters a pool's claims; returns the other pools that lost or won a name by it."""
        touched: set[Pool] = set()
        for pattern, claimed_at in pool.claims.items():
            names, key = self._place(pattern)
            entry = names.get(key)
            if entry is None:
                entry = names[key] = Entry(pattern)
            entry.claims.append((claimed_at, pool.tunnel, pool))
            self._decide(entry, touched)
        self.passing += _passing(pool)
        touched.discard(pool)
        return touched

    def remove(self, pool: Pool) -> set[Pool]:
        """Takes a pool's claims out; returns the other pools that lost or won a name by it."""
        touched: set[Pool] = set()
        for pattern in pool.claims:
            names, key = self._place(pattern)
            entry = names.get(key)
            if entry is None:
                continue
            entry.claims = [claim for claim in entry.claims if claim[2] is not pool]
            if entry.claims:
                self._decide(entry, touched)
            else:
                del names[key]
        self.passing -= _passing(pool)
        touched.discard(pool)
        return touched

    def held(self, pool: Pool) -> dict[str, bool]:
        """For each of a pool's names whether its tunnel holds it."""
        result = {}
        for pattern in pool.claims:
            names, key = self._place(pattern)
            entry = names.get(key)
            result[pattern] = entry is not None and entry.tunnel == pool.tunnel
        return result

    def names(self) -> Iterable[str]:
        """Every name that is held by someone, wildcards as `*.suffix`, ports as `tcp:<port>`."""
        yield from (key.decode() for key in self._exact)
        yield from ("*." + key.decode() for key in self._wildcard)
        yield from (_PORT + key.decode() for key in self._ports)

    def entry(self, pattern: str) -> Entry | None:
        """The entry of a name as it was granted, not of a host that it matches."""
        names, key = self._place(pattern)
        return names.get(key)

    def __len__(self) -> int:
        return len(self._exact) + len(self._wildcard)

    def _place(self, pattern: str) -> tuple[dict[bytes, Entry], bytes]:
        if pattern.startswith("*."):
            return self._wildcard, pattern[2:].encode()
        if pattern.startswith(_PORT):
            return self._ports, pattern[len(_PORT) :].encode()
        return self._exact, pattern.encode()

    @staticmethod
    def _decide(entry: Entry, touched: set[Pool]) -> None:
        before = entry.tunnel
        entry.decide()
        if entry.tunnel != before:
            touched.update(pool for _, tunnel, pool in entry.claims if tunnel in (before, entry.tunnel))


def _passing(pool: Pool) -> int:
    return sum(1 for terms in pool.terms.values() if terms.passthrough)
