"""Ownership of record sets, written into the zone beside them as TXT records.

Responsible for: joining a zone's record sets with their markers into endpoints, and turning planned changes into
record changes that write marker and record together.
Must not know: which changes are right (the planner), how a zone is stored (the provider).
Invariants: every record set that is written has its marker in the same change; a marker's step is compared with the
value that was read, so that of two writers with one owner id the later one is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from culvert_operator.dns.endpoint import PUBLISHED_TYPES, Endpoint, RecordSet, endpoint
from culvert_operator.dns.names import (
    check_name,
    in_zone,
    marker_name,
    marker_text,
    parse_marker,
    record_of_marker,
    txt_presentation,
    txt_text,
)
from culvert_operator.dns.plan import Change, DNSView, ZoneChanges, ZoneView
from culvert_operator.dns.policies import Action
from culvert_operator.dns.provider import ChangeResult, DNSProvider, ProviderError, RecordChange, Result


def endpoints_of(records: Sequence[RecordSet]) -> tuple[Endpoint, ...]:
    """A zone's record sets as endpoints, each with its marker's owner and resource; markers themselves left out.

    A marker whose record is missing is an endpoint without targets. A TXT record at a marker's name that is no
    marker, or says two things, is a foreign record like any other.
    """
    markers: dict[tuple[str, str], tuple[str, str]] = {}
    plain: list[RecordSet] = []
    for one in records:
        target = record_of_marker(one.name) if one.type == "TXT" and len(one.values) == 1 else None
        said = parse_marker(txt_text(one.values[0])) if target is not None else None
        if target is None or said is None:
            plain.append(one)
        else:
            markers[target] = said
    found: list[Endpoint] = []
    for one in plain:
        owner, resource = markers.pop((one.name, one.type), ("", ""))
        found.append(endpoint(one.name, one.type, one.values, ttl=one.ttl, owner=owner, resource=resource))
    found.extend(Endpoint(*key, (), 0, owner, resource) for key, (owner, resource) in markers.items())
    return tuple(sorted(found, key=lambda e: e.key))


def record_sets_of(one: Endpoint) -> tuple[RecordSet, ...]:
    """The record set of an endpoint and its marker; only what exists (no targets: no record; no owner: no marker)."""
    made = []
    if one.targets:
        values = tuple(f"{t}." if one.type == "CNAME" else t for t in one.targets)
        made.append(RecordSet(one.name, one.type, one.ttl, values))
    if one.owner:
        text = txt_presentation(marker_text(one.owner, one.resource))
        made.append(RecordSet(marker_name(one.name, one.type), "TXT", one.ttl or 300, (text,)))
    return tuple(made)


Raw = dict[tuple[str, str], RecordSet]


def record_change(change: Change, raw: Raw) -> RecordChange | None:
    """The step of records and markers for a planned change of one name; None when ``raw`` is not what was planned on.

    ``before`` is taken from ``raw``, the record sets as they were read: a marker's TTL, quotes or further labels are
    compared as they are, not as culvert would have written them.
    """
    before = tuple(raw[key] for e in change.before for key in (e.key, (marker_name(*e.key), "TXT")) if key in raw)
    if endpoints_of(before) != change.before:
        return None
    after = tuple(made for one in change.after for made in record_sets_of(one))
    return RecordChange(change.name, change.action, before, after)


class Registry:
    """A provider seen as endpoints with owners."""

    def __init__(self, provider: DNSProvider) -> None:
        self.provider = provider
        self._raw: dict[str, Raw] = {}

    async def view(self, names: Collection[str] = ()) -> DNSView:
        """The provider's zones (of ``names`` at least), read whole; with ``error`` when any could not be read."""
        try:
            read = {zone: await self.provider.records(zone) for zone in await self.provider.zones(names)}
        except ProviderError as error:
            return DNSView(error=str(error), retry_after=error.retry_after)
        self._raw = {zone: {(r.name, r.type): r for r in records} for zone, records in read.items()}
        zones = tuple(ZoneView(zone, endpoints_of(records)) for zone, records in read.items())
        return DNSView(zones, adjust=self.provider.adjust)

    async def apply(self, planned: Sequence[ZoneChanges]) -> tuple[ChangeResult, ...]:
        """Carry out planned changes; one result per name. A zone that cannot be written fails its own names only."""
        results: list[ChangeResult] = []
        for zone in planned:
            steps: list[RecordChange] = []
            for change in zone.changes:
                step = record_change(change, self._raw.get(zone.zone, {}))
                problem = _misfit(change, zone.zone)
                if problem is not None:
                    results.append(ChangeResult(change.name, change.action, Result.FAILED, problem))
                elif step is None:
                    said = f"{change.name} was read again since it was planned; it is planned anew."
                    results.append(ChangeResult(change.name, change.action, Result.CONFLICT, said))
                else:
                    steps.append(step)
            if not steps:
                continue
            try:
                results.extend(await self.provider.apply(zone.zone, steps))
            except ProviderError as error:
                failed = Result.FAILED
                results.extend(ChangeResult(s.name, s.action, failed, str(error), error.retry_after) for s in steps)
        return tuple(results)


def _misfit(change: Change, zone: str) -> str | None:
    """Why a change must not reach a provider at all: the last check before the first write."""
    if change.action is not Action.DELETE and (problem := check_name(change.name)) is not None:
        return problem
    if not in_zone(change.name.removeprefix("*."), zone):
        return f"{change.name} does not lie in the zone {zone}."
    strange = [e for e in (*change.before, *change.after) if e.type not in PUBLISHED_TYPES]
    if strange:
        return f"{change.name}: culvert does not write {strange[0].type} records."
    return None
