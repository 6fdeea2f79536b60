"""A DNS provider whose zones live in this process: for tests, and for trying a Tunnel's DNS without a server.

Responsible for: holding zones while the process runs, with the same comparisons as a real server.
Must not know: ownership.
Invariant: a change is done whole or not at all.

Zones of one ``instance`` setting are shared by all providers of the process, as they would be on a server.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from culvert_operator.dns.endpoint import ADDRESS_TYPES, Endpoint, RecordSet
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
)

Records = dict[tuple[str, str], RecordSet]

_INSTANCES: dict[str, dict[str, Records]] = {}


def conflict(change: RecordChange, current: Records) -> str | None:
    """Why ``change`` does not fit the zone as it is now, or None. The comparison that every provider owes.

    TTLs are not compared: an RFC 2136 server cannot do it either (section 2.4).
    """
    expected = {(r.name, r.type): r for r in change.before}
    for key in expected.keys() | {(r.name, r.type) for r in change.after}:
        found, wanted = current.get(key), expected.get(key)
        if found is wanted is None or (found is not None and wanted is not None and found.same_data(wanted)):
            continue
        return f"{key[0]} ({key[1]}) is no longer as it was read; it is read again before the next try."
    written = {(r.name, r.type) for r in change.after}
    for name, kind in current.keys() - expected.keys():
        if name != change.name or not written:
            continue
        # A CNAME stands beside nothing (RFC 1034, 3.6.2), and nobody's address beside ours: it would share visitors.
        if kind in ADDRESS_TYPES or (name, "CNAME") in written:
            return f"{name} has a {kind} record since it was read; it is read again before the next try."
    return None


class MemoryProvider:
    """See the module."""

    def __init__(self, zones: dict[str, Records]) -> None:
        self._zones = zones

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The zones that the Tunnel names."""
        return tuple(self._zones)

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """Every record set of the zone."""
        if zone not in self._zones:
            raise ProviderError(f"there is no zone {zone!r} in memory.")
        return tuple(self._zones[zone].values())

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """Carry out each change on its own."""
        if zone not in self._zones:
            raise ProviderError(f"there is no zone {zone!r} in memory.")
        return tuple(self._apply(self._zones[zone], change) for change in changes)

    @staticmethod
    def _apply(current: Records, change: RecordChange) -> ChangeResult:
        if (problem := conflict(change, current)) is not None:
            return ChangeResult(change.name, change.action, Result.CONFLICT, problem)
        for record in change.before:
            del current[record.name, record.type]
        for record in change.after:
            current[record.name, record.type] = record
        return ChangeResult(change.name, change.action, Result.DONE)

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Memory stores endpoints as they are."""
        return tuple(endpoints)

    async def close(self) -> None:
        """The zones stay: they belong to the process."""


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point: ``zones`` are made empty when they do not exist yet."""
    if not config.zones:
        raise ProviderError("the memory provider needs dns.zones: the names of the zones to keep.")
    shared = _INSTANCES.setdefault(config.settings.get("instance", ""), {})
    zones = [zone.rstrip(".").lower() for zone in config.zones]
    return MemoryProvider({zone: shared.setdefault(zone, {}) for zone in zones})
