"""The webhook provider: any provider that speaks external-dns's webhook protocol.

Responsible for: the protocol's four requests, and writing in an order that never leaves a record without its marker.
Must not know: ownership beyond which record sets are TXT.
Invariants: the protocol has no preconditions, so every name is compared with a fresh read before it is written; the
marker comes before its record and goes after it; adjusted endpoints are remembered, so that plans settle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from culvert_operator.dns.endpoint import Endpoint, RecordSet, endpoint
from culvert_operator.dns.names import zone_of
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
)
from culvert_operator.dns.providers.http import JSONClient
from culvert_operator.dns.providers.memory import conflict
from culvert_operator.dns.providers.webhook import wire

MAX_ADJUSTED = 20_000
Records = dict[tuple[str, str], RecordSet]


class WebhookProvider:
    """See the module."""

    def __init__(self, client: JSONClient, zones: tuple[str, ...]) -> None:
        self._client = client
        self._given = zones
        self._zones: tuple[str, ...] = ()
        self._adjusted: dict[tuple[str, str, tuple[str, ...], int], tuple[tuple[str, ...], int]] = {}

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The Tunnel's zones, else those that the webhook's domain filter includes."""
        data = await self._get("/")
        included = data.get("include") if isinstance(data, dict) else None
        filtered = [z.strip(".").lower() for z in included or [] if isinstance(z, str) and z.strip(".")]
        self._zones = self._given or tuple(sorted(set(filtered)))
        if not self._zones:
            raise ProviderError("the webhook names no zones in its domain filter; write them into dns.zones.")
        return self._zones

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """The record sets of the zone, out of all that the webhook has."""
        zones = self._zones or (zone,)
        found = (await self._all()).values()
        return tuple(one for one in found if zone_of(one.name, zones) == zone)

    async def _all(self) -> Records:
        try:
            return {(r.name, r.type): r for r in wire.record_sets(await self._get("/records"))}
        except wire.WireError as error:
            raise ProviderError(f"GET {self._client.base}/records: {error}") from error

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """All changes that fit in three requests; when one fails, each change by itself."""
        changes = [await self._as_stored(change) for change in changes]
        current = await self._all()
        problems = {change.name: conflict(change, current) for change in changes}
        fitting = [change for change in changes if problems[change.name] is None]
        failed: dict[str, ProviderError] = {}
        try:
            await self._write(fitting)
        except ProviderError as error:
            if len(fitting) == 1 or error.retry_after:
                failed = {change.name: error for change in fitting}
            else:
                return tuple([(await self.apply(zone, [change]))[0] for change in changes])
        return tuple(_result(change, problems[change.name], failed.get(change.name)) for change in changes)

    async def _write(self, changes: Iterable[RecordChange]) -> None:
        first: dict[str, list[dict[str, Any]]] = {}
        second: dict[str, list[dict[str, Any]]] = {}
        third: dict[str, list[dict[str, Any]]] = {}
        for change in changes:
            before = {(r.name, r.type): r for r in change.before}
            after = {(r.name, r.type): r for r in change.after}
            for key in sorted(before.keys() | after.keys()):
                old, new = before.get(key), after.get(key)
                if old == new:
                    continue
                marker = key[1] == "TXT"
                if new is None and old is not None:
                    (third if marker else first).setdefault("delete", []).append(wire.endpoint(old))
                elif old is None and new is not None:
                    (first if marker else second).setdefault("create", []).append(wire.endpoint(new))
                elif old is not None and new is not None:
                    step = first if marker else second
                    step.setdefault("updateOld", []).append(wire.endpoint(old))
                    step.setdefault("updateNew", []).append(wire.endpoint(new))
        for body in (first, second, third):
            if body:
                await self._ask("POST", "/records", body, (204, 200))

    async def _as_stored(self, change: RecordChange) -> RecordChange:
        """The change with the records that the webhook would store, as ``POST /adjustendpoints`` says."""
        records = [r for r in change.after if r.type != "TXT"]
        if not records:
            return change
        data = await self._ask("POST", "/adjustendpoints", [wire.endpoint(r) for r in records], (200,))
        try:
            adjusted = {(r.name, r.type): r for r in wire.record_sets(data)}
        except wire.WireError as error:
            raise ProviderError(f"POST {self._client.base}/adjustendpoints: {error}") from error
        if len(self._adjusted) > MAX_ADJUSTED:
            self._adjusted.clear()
        after = []
        for one in change.after:
            new = adjusted.get((one.name, one.type), one)
            after.append(new)
            if one.type != "TXT":
                key, stored = _endpoint(one), _endpoint(new)
                self._adjusted[key.name, key.type, key.targets, key.ttl] = (stored.targets, stored.ttl)
        return replace(change, after=tuple(after))

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """The endpoints as the webhook said, when they were last written, that it stores them."""
        return tuple(
            replace(e, targets=found[0], ttl=found[1])
            if (found := self._adjusted.get((e.name, e.type, e.targets, e.ttl))) is not None
            else e
            for e in endpoints
        )

    async def _get(self, path: str) -> Any:
        return await self._ask("GET", path, None, (200,))

    async def _ask(self, method: str, path: str, body: object, expected: tuple[int, ...]) -> Any:
        headers = {"Accept": wire.MEDIA_TYPE} | ({"Content-Type": wire.MEDIA_TYPE} if body is not None else {})
        answer = await self._client.request(method, path, headers=headers, body=body)
        if answer.status not in expected:
            said = f"the webhook answers {answer.status} to {method} {path}; see its log."
            raise ProviderError(said, retry_after=answer.retry_after)
        return answer.data

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _endpoint(one: RecordSet) -> Endpoint:
    return endpoint(one.name, one.type, one.values, ttl=one.ttl)


def _result(change: RecordChange, problem: str | None, failed: ProviderError | None) -> ChangeResult:
    if problem is not None:
        return ChangeResult(change.name, change.action, Result.CONFLICT, problem)
    if failed is not None:
        return ChangeResult(change.name, change.action, Result.FAILED, str(failed), failed.retry_after)
    return ChangeResult(change.name, change.action, Result.DONE)


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point. Settings: ``url``."""
    url = config.settings.get("url", "")
    if not url.startswith(("http://", "https://")):
        raise ProviderError("the webhook provider needs dns.webhook.url, for instance http://webhook.dns:8888.")
    return WebhookProvider(JSONClient(url), tuple(zone.rstrip(".").lower() for zone in config.zones))
