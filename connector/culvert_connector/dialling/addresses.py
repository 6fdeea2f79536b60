"""The relay addresses a connector may dial, and which of them is next: values in, an address out.

Responsible for the order in which addresses are tried (uncovered ones first, those that
failed last, those that rest not at all), for how many sessions are wanted, and for which session should move when
an address or a relay id has none.

Must not know: DNS, sockets, clocks; the caller hands in what a name resolved to and the time.

Invariants: an address that rests is never chosen; an address that failed is avoided for a time that starts short and
grows with each failure after such a time, and is chosen meanwhile only when every other one is avoided or rests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from culvert_ingress.addresses import split_address

REST = 10.0
"""Seconds an address rests at least after a relay said that it has enough of this connector's sessions."""
AVOID_FIRST = 1.0
"""Seconds for which an address is tried last after its first failure; each further round of failures doubles it."""
AVOID_LONGEST = 30.0
"""Seconds after which a relay that has come back gets its sessions at the latest."""
MAX_ADDRESSES = 64
"""Addresses that one connector keeps of all its names; more would be a mistake in DNS, not a fleet of relays."""


@dataclass(frozen=True, slots=True)
class RelayName:
    """One configured relay: a name or IP literal, and a port; `via` is the proxy that the configuration names for it.

    Another proxy makes another relay of it, so that sessions move there.
    """

    host: str
    port: int
    via: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One socket address that a relay's name resolved to."""

    ip: str
    port: int
    name: RelayName

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Record:
    """What happened at an address: when it last failed (0: never since its last success), until when it rests.

    `failures` counts rounds: dials that fail while the address is avoided anyway belong to the round that began it.
    """

    failed_at: float = 0.0
    resting_until: float = 0.0
    failures: int = 0

    @property
    def avoided_until(self) -> float:
        """When it counts again as an address like any other."""
        if not self.failures:
            return 0.0
        return self.failed_at + min(AVOID_FIRST * 2.0 ** min(self.failures - 1, 16), AVOID_LONGEST)

    def failed(self, now: float) -> Record:
        """The record after a failure at `now`."""
        first = now >= self.avoided_until
        return Record(now if first else self.failed_at, self.resting_until, self.failures + first)

    def rests(self, until: float) -> Record:
        """The record of an address that is not dialled before `until`."""
        return Record(self.failed_at, until, self.failures)


NEVER = Record()


def parse(text: str) -> RelayName:
    """`host:port` or `[v6]:port` as a relay to dial. Raises `culvert_ingress.addresses.AddressError`."""
    host, port = split_address(text)
    return RelayName(host=host, port=port)


def merge(names: Sequence[RelayName], resolved: Mapping[RelayName, Sequence[str]]) -> tuple[Address, ...]:
    """All addresses of all names, each once, names interleaved so that the first few are of distinct names."""
    rows = [[Address(ip, name.port, name) for ip in resolved.get(name, ())] for name in names]
    seen: dict[tuple[str, int], Address] = {}
    for depth in range(max((len(row) for row in rows), default=0)):
        for row in rows:
            if depth < len(row):
                seen.setdefault((row[depth].ip, row[depth].port), row[depth])
    return tuple(seen.values())[:MAX_ADDRESSES]


def wanted(sessions: int, *, addresses: int, relay_ids: int) -> int:
    """How many sessions to keep: as configured, but one for every address and for every relay worker at least."""
    return max(sessions, min(addresses, MAX_ADDRESSES), min(relay_ids, MAX_ADDRESSES))


def choose(
    addresses: Sequence[Address],
    *,
    in_use: Iterable[Address],
    records: Mapping[Address, Record],
    now: float,
) -> Address | None:
    """The address to dial next, or None when there is none or all of them rest.

    `in_use` holds the address of every session and of every dial under way, with repetitions.
    """
    load = Counter(in_use)
    known = [(position, address, records.get(address, NEVER)) for position, address in enumerate(addresses)]
    free = [
        (record.failed_at if now < record.avoided_until else 0.0, load[address], position, address)
        for position, address, record in known
        if record.resting_until <= now
    ]
    return min(free)[3] if free else None


def good(addresses: Sequence[Address], records: Mapping[Address, Record], *, now: float) -> list[Address]:
    """The addresses that are not avoided: those that should have a session."""
    return [address for address in addresses if records.get(address, NEVER).avoided_until <= now]


def next_good(addresses: Iterable[Address], records: Mapping[Address, Record], *, now: float) -> float | None:
    """When the next address ceases to be avoided; None when none is avoided."""
    times = [records.get(address, NEVER).avoided_until for address in addresses]
    return min((time for time in times if time > now), default=None)


def rested_at(addresses: Sequence[Address], records: Mapping[Address, Record]) -> float | None:
    """When the first of these addresses may be dialled; None without addresses."""
    return min((records.get(address, NEVER).resting_until for address in addresses), default=None)


def uncovered(
    places: Mapping[int, tuple[Address, str]], *, addresses: Sequence[Address], relay_ids: Iterable[str]
) -> frozenset[str]:
    """The addresses and relay ids that have no session. `places` holds each session's address and relay id."""
    held = {str(address) for address, _ in places.values()}
    ids = {relay_id for _, relay_id in places.values()}
    return frozenset({str(address) for address in addresses} - held) | frozenset(set(relay_ids) - ids)


def behind(places: Mapping[int, tuple[Address, str]], *, addresses: Sequence[Address]) -> frozenset[str]:
    """The addresses that hold at least two sessions fewer than another one: a move would make the two more alike."""
    load = dict.fromkeys(addresses, 0) | Counter(address for address, _ in places.values())
    most = max((load[address] for address in addresses), default=0)
    return frozenset(str(address) for address in addresses if load[address] < most - 1)


def crowded(places: Mapping[int, tuple[Address, str]], *, addresses: Sequence[Address]) -> int | None:
    """The session (its key in `places`) that can best move to where one is missing; None: each is needed.

    Sessions at addresses that are gone move first, then those of the address that carries most, newest key first, so
    that the oldest sessions stay. A session that alone covers its address or its relay id never moves.
    """
    by_address = Counter(address for address, _ in places.values())
    by_id = Counter(relay_id for _, relay_id in places.values())
    gone = [key for key, (address, one) in places.items() if address not in addresses and by_id[one] > 1]
    if gone:
        return max(gone)
    spare = [(by_address[at], key) for key, (at, one) in places.items() if by_address[at] > 1 and by_id[one] > 1]
    return max(spare)[1] if spare else None


def heaviest(places: Mapping[int, tuple[Address, str]], *, addresses: Sequence[Address]) -> int | None:
    """The session that can best move to an address that is `behind`; None: none can without uncovering its relay id."""
    by_address = Counter(address for address, _ in places.values())
    moving = crowded(places, addresses=addresses)
    least = min((by_address[address] for address in addresses), default=0)
    return moving if moving is not None and by_address[places[moving][0]] > least + 1 else None
