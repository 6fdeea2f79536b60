"""DNSEndpoint objects for external-dns: culvert says what should be published, external-dns writes it.

Responsible for: record sets ↔ ``spec.endpoints`` of DNSEndpoint objects, one object for each hostname.
Must not know: the API server (it is given its namespace's objects), which zone external-dns writes.
Source: external-dns, docs/sources/crd.md; ``DNSEndpoint`` of ``externaldns.k8s.io/v1alpha1``.
Invariants: an object's endpoints and the markers in its annotation are written together, against the version that was
read; endpoints of other people, also in one of our objects, stay; markers are never endpoints, for in DNS external-dns
keeps its own.

A record that somebody else's object holds is theirs like any other, and adopting it marks that object. A name that has
labels or properties other than the wanted ones is read with a TTL of 0, which no plan leaves as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from culvert_operator.dns.endpoint import Endpoint, RecordSet
from culvert_operator.dns.names import record_of_marker, zone_of
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    Objects,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
)
from culvert_operator.dns.providers.memory import conflict
from culvert_operator.dns.providers.webhook import wire

API_VERSION = "externaldns.k8s.io/v1alpha1"
KIND = "DNSEndpoint"
MARKERS = "culvert.dev/dns-markers"
"""Annotation: marker's name → [TTL, presentation text], as JSON."""
MANAGED_BY = {"app.kubernetes.io/managed-by": "culvert"}
MAX_OBJECT_NAME = 253

Key = tuple[str, str]


def object_name(hostname: str) -> str:
    """The name of the object for a hostname: readable, and no other hostname's."""
    bare = hostname.removeprefix("*.")
    name = f"culvert-wildcard.{bare}" if bare != hostname else f"culvert.{bare}"
    if len(name) <= MAX_OBJECT_NAME and "_" not in name:
        return name
    return f"culvert-{hashlib.sha256(hostname.encode()).hexdigest()[:40]}"


@dataclass(slots=True)
class _Object:
    """One DNSEndpoint as it was read; ``markers`` are culvert's, by their names."""

    name: str
    uid: str
    version: str
    endpoints: list[Mapping[str, Any]]
    markers: dict[str, RecordSet]
    labels: Mapping[str, str]

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> _Object:
        """Raises WireError for what is no DNSEndpoint."""
        meta = raw.get("metadata") or {}
        endpoints = (raw.get("spec") or {}).get("endpoints") or []
        if not isinstance(endpoints, list) or not all(isinstance(e, Mapping) for e in endpoints):
            raise wire.WireError("spec.endpoints is not a list of objects.")
        return cls(
            name=str(meta.get("name", "")),
            uid=str(meta.get("uid", "")),
            version=str(meta.get("resourceVersion", "")),
            endpoints=endpoints,
            markers=_markers((meta.get("annotations") or {}).get(MARKERS)),
            labels=meta.get("labels") or {},
        )

    def marked(self) -> set[Key]:
        """The records that the markers speak of."""
        return {key for name in self.markers if (key := record_of_marker(name)) is not None}


def _markers(said: object) -> dict[str, RecordSet]:
    """The annotation's markers; none when somebody made something else of it."""
    try:
        read = json.loads(said) if isinstance(said, str) else {}
        return {
            name: RecordSet(name, "TXT", int(ttl), (str(text),))
            for name, (ttl, text) in read.items()
            if record_of_marker(name) is not None
        }
    except (ValueError, TypeError, AttributeError):
        return {}


@dataclass(slots=True)
class _World:
    """All objects, the record sets in them, and which object has each (ours before anybody else's)."""

    objects: dict[str, _Object] = field(default_factory=dict)
    records: dict[Key, RecordSet] = field(default_factory=dict)
    holder: dict[Key, str] = field(default_factory=dict)


class EndpointsProvider:
    """See the module. ``labels`` are set on every object, ``properties`` (``providerSpecific``) on every endpoint."""

    def __init__(
        self, objects: Objects, zones: tuple[str, ...], labels: Mapping[str, str], properties: Mapping[str, str]
    ) -> None:
        self._objects = objects
        self._given = zones
        self._labels = {**labels, **MANAGED_BY}
        self._properties = [{"name": name, "value": value} for name, value in sorted(properties.items())]
        self._zones: tuple[str, ...] = ()
        self._seen = _World()

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The Tunnel's zones. Without any, top-level domains stand for the zones that only external-dns knows."""
        self._seen = world = await self._read()
        held = {name for name, _ in world.records}
        self._zones = self._given or tuple(sorted({name.rpartition(".")[2] for name in (*names, *held)}))
        return self._zones

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """The record sets of the zone, out of the objects that ``zones`` has read."""
        zones = self._zones or (zone,)
        return tuple(r for r in self._seen.records.values() if zone_of(_placed(r.name), zones) == zone)

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """Each change on its own objects, one after the other."""
        world = await self._read()
        results = []
        for change in changes:
            problem = conflict(change, world.records)
            if problem is None:
                results.append(await self._change(change, world))
            else:
                results.append(ChangeResult(change.name, change.action, Result.CONFLICT, problem))
        return tuple(results)

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Objects hold endpoints as they are."""
        return tuple(endpoints)

    async def close(self) -> None:
        """Nothing is held open."""

    # --- inside ---------------------------------------------------------------------------------------------

    async def _read(self) -> _World:
        world = _World()
        others: list[tuple[_Object, RecordSet]] = []
        for raw in await self._objects.list():
            try:
                one = _Object.read(raw)
                found = wire.record_sets(list(one.endpoints))
            except wire.WireError as error:
                name = (raw.get("metadata") or {}).get("name")
                raise ProviderError(f"the DNSEndpoint {name!r} cannot be read: {error}") from error
            world.objects[one.name] = one
            marked = one.marked()
            for record in found:
                key = (record.name, record.type)
                if key in marked:
                    world.holder[key] = one.name
                    world.records[key] = record if self._as_wanted(one, key) else _stale(record)
                else:
                    others.append((one, record))
        for one, record in others:
            if (record.name, record.type) not in world.holder:
                world.holder[record.name, record.type] = one.name
                world.records[record.name, record.type] = record
        for one in world.objects.values():
            for marker in one.markers.values():
                subject = _subject(marker)
                # A marker says nothing of a record that stands in another object.
                if subject is not None and world.holder.setdefault(subject, one.name) == one.name:
                    world.records[marker.name, "TXT"] = marker
        return world

    def _as_wanted(self, one: _Object, key: Key) -> bool:
        labelled = self._labels.items() <= one.labels.items()
        return labelled and all(_properties(e) == self._properties for e in one.endpoints if _key(e) == key)

    async def _change(self, change: RecordChange, world: _World) -> ChangeResult:
        """Write every object that holds, or is to hold, something of the change."""
        records = {(r.name, r.type): r for r in change.after if r.type != "TXT"}
        markers = {r.name: r for r in change.after if r.type == "TXT"}
        touched = {key for r in (*change.before, *change.after) if (key := _subject(r)) is not None}
        own = object_name(change.name)
        places: dict[str, set[Key]] = {}
        for key in touched:
            places.setdefault(world.holder.get(key, own), set()).add(key)
        for name, keys in sorted(places.items()):
            held = world.objects.get(name)
            kept = [e for e in held.endpoints if _key(e) not in keys] if held is not None else []
            new = [self._endpoint(records[key]) for key in sorted(keys) if key in records]
            said = dict(held.markers) if held is not None else {}
            said = {n: m for n, m in said.items() if record_of_marker(n) not in keys}
            said |= {n: m for n, m in markers.items() if record_of_marker(n) in keys}
            try:
                fits = await self._write(name, held, [*kept, *new], said)
            except ProviderError as error:
                return ChangeResult(change.name, change.action, Result.FAILED, str(error), error.retry_after)
            if not fits:
                problem = f"the DNSEndpoint {name} was changed since it was read; it is read again before the next try."
                return ChangeResult(change.name, change.action, Result.CONFLICT, problem)
        return ChangeResult(change.name, change.action, Result.DONE)

    async def _write(
        self, name: str, held: _Object | None, endpoints: list[Mapping[str, Any]], markers: Mapping[str, RecordSet]
    ) -> bool:
        if held is not None and not endpoints and not markers:
            return await self._objects.delete(name, uid=held.uid, version=held.version)
        text = json.dumps({n: [m.ttl, m.values[0]] for n, m in sorted(markers.items())}) if markers else None
        body: dict[str, Any] = {
            "metadata": {"annotations": {MARKERS: text}, "labels": self._labels},
            "spec": {"endpoints": endpoints},
        }
        if held is None:
            body |= {"apiVersion": API_VERSION, "kind": KIND}
            body["metadata"]["name"] = name
            return await self._objects.create(body)
        body["metadata"] |= {"uid": held.uid, "resourceVersion": held.version}
        return await self._objects.patch(name, body)

    def _endpoint(self, record: RecordSet) -> dict[str, Any]:
        made = wire.endpoint(record)
        if self._properties:
            made["providerSpecific"] = self._properties
        return made


def _subject(record: RecordSet) -> Key | None:
    """The record that a record set is, or is the marker of."""
    return record_of_marker(record.name) if record.type == "TXT" else (record.name, record.type)


def _placed(name: str) -> str:
    """The name by which a record set's zone is told: its own, or that of the record that it marks."""
    marked = record_of_marker(name)
    return marked[0] if marked is not None else name


def _key(value: Mapping[str, Any]) -> Key:
    return str(value.get("dnsName", "")).rstrip(".").lower(), str(value.get("recordType", "")).upper()


def _properties(value: Mapping[str, Any]) -> list[dict[str, str]]:
    found: Iterable[Any] = value.get("providerSpecific") or []
    listed = [{"name": str(p.get("name")), "value": str(p.get("value"))} for p in found if isinstance(p, Mapping)]
    return sorted(listed, key=lambda p: p["name"])


def _stale(record: RecordSet) -> RecordSet:
    return RecordSet(record.name, record.type, 0, record.values)


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point. Settings: ``labels`` and ``provider-specific``, each a JSON object of texts."""
    if config.objects is None:
        raise ProviderError(
            "the endpoints provider writes DNSEndpoint objects and needs a cluster; look at them with kubectl get "
            "dnsendpoints."
        )
    labels, properties = (json.loads(config.settings.get(key, "{}")) for key in ("labels", "provider-specific"))
    return EndpointsProvider(config.objects, tuple(z.rstrip(".").lower() for z in config.zones), labels, properties)
