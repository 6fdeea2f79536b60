"""The cloudflare provider: zones at Cloudflare, by its API version 4 with an API token.

Responsible for: zones by longest suffix, paged lists, one batch per name (which Cloudflare carries out whole or not at
all), Retry-After. Source: https://developers.cloudflare.com/api, "DNS Records for a Zone" and "Batch DNS Records".
Must not know: ownership.
Invariants: a list that is shorter than its own count is a failed read; every name is compared with a fresh read before
it is written; the token is in the Authorization header and nowhere else. The token needs Zone:Read and DNS:Edit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from culvert_operator.dns.endpoint import PUBLISHED_TYPES, Endpoint, RecordSet
from culvert_operator.dns.names import txt_presentation, txt_text, zone_of
from culvert_operator.dns.provider import (
    ChangeResult,
    DNSProvider,
    ProviderConfig,
    ProviderError,
    RecordChange,
    Result,
    Secret,
)
from culvert_operator.dns.providers.http import JSONClient
from culvert_operator.dns.providers.memory import conflict

API = "https://api.cloudflare.com/client/v4"
ZONES_PER_PAGE = 50
RECORDS_PER_PAGE = 1000
MAX_PAGES = 500
AUTOMATIC = 1
"""The TTL that Cloudflare chooses; the only one of a proxied record."""
LEAST_TTL = 60
COMMENT = "managed by culvert"
_NAME_TYPES = frozenset({"CNAME", "NS", "PTR"})
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Held:
    """One record as Cloudflare keeps it."""

    id: str
    name: str
    type: str
    ttl: int
    value: str
    proxied: bool


class CloudflareProvider:
    """See the module."""

    def __init__(self, client: JSONClient, token: Secret, zones: tuple[str, ...], *, proxied: bool) -> None:
        self._client = client
        self._token = token
        self._given = zones
        self._proxied = proxied
        self._ids: dict[str, str] = {}

    async def zones(self, names: Collection[str]) -> tuple[str, ...]:
        """The Tunnel's zones, else those of the token's that hold one of ``names``."""
        found = await self._pages("/zones", {}, ZONES_PER_PAGE)
        self._ids = {str(zone["name"]).lower(): str(zone["id"]) for zone in found if "name" in zone and "id" in zone}
        if self._given:
            missing = sorted(set(self._given) - self._ids.keys())
            if missing:
                raise ProviderError(f"the API token cannot see the zone {missing[0]}; give it Zone:Read for it.")
            return self._given
        held = (zone_of(name, tuple(self._ids)) for name in names)
        return tuple(sorted({zone for zone in held if zone is not None}))

    async def records(self, zone: str) -> tuple[RecordSet, ...]:
        """Every record set of the zone."""
        return tuple(_record_sets(await self._held(zone, {})).values())

    async def _held(self, zone: str, query: Mapping[str, str]) -> list[Held]:
        path = f"/zones/{await self._id(zone)}/dns_records"
        return [_held(one, path) for one in await self._pages(path, query, RECORDS_PER_PAGE)]

    async def apply(self, zone: str, changes: Sequence[RecordChange]) -> tuple[ChangeResult, ...]:
        """One batch per change; when Cloudflare asks to be left alone, the rest fails with that."""
        results: list[ChangeResult] = []
        for at, change in enumerate(changes):
            try:
                results.append(await self._change(zone, change))
            except ProviderError as error:
                rest = changes[at:] if error.retry_after else [change]
                results += [ChangeResult(c.name, c.action, Result.FAILED, str(error), error.retry_after) for c in rest]
                if error.retry_after:
                    break
        return tuple(results)

    async def _change(self, zone: str, change: RecordChange) -> ChangeResult:
        names = sorted({r.name for r in (*change.before, *change.after)})
        held = [one for name in names for one in await self._held(zone, {"name.exact": name})]
        if (problem := conflict(change, _record_sets(held))) is not None:
            return ChangeResult(change.name, change.action, Result.CONFLICT, problem)
        batch = self._batch(change, held)
        if batch:
            await self._ask("POST", f"/zones/{await self._id(zone)}/dns_records/batch", body=batch)
        return ChangeResult(change.name, change.action, Result.DONE)

    def _batch(self, change: RecordChange, held: Sequence[Held]) -> dict[str, list[dict[str, Any]]]:
        """Deletions, changes and creations from what is held to ``change.after``; done in this order."""
        touched = {(r.name, r.type) for r in (*change.before, *change.after)}
        wanted = {(r.name, r.type, value): r.ttl for r in change.after for value in r.values}
        batch: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for one in held:
            if (one.name, one.type) not in touched:
                continue
            ttl = wanted.pop((one.name, one.type, one.value), None)
            proxied = self._proxied and one.type in PUBLISHED_TYPES
            if ttl is None:
                batch["deletes"].append({"id": one.id})
            elif one.ttl != ttl or one.proxied != proxied:
                batch["patches"].append({"id": one.id, "ttl": ttl, "proxied": proxied})
        for (name, kind, value), ttl in sorted(wanted.items()):
            content = value.removesuffix(".") if kind in _NAME_TYPES else value
            made = {"name": name, "type": kind, "content": content, "ttl": ttl, "comment": COMMENT}
            if kind in PUBLISHED_TYPES:
                made["proxied"] = self._proxied
            batch["posts"].append(made)
        return dict(batch)

    def adjust(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Proxied records have the automatic TTL, others at least a minute."""
        if self._proxied:
            return tuple(replace(e, ttl=AUTOMATIC) for e in endpoints)
        return tuple(replace(e, ttl=max(e.ttl, LEAST_TTL)) for e in endpoints)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _id(self, zone: str) -> str:
        if zone not in self._ids:
            await self.zones(())
        if zone not in self._ids:
            raise ProviderError(f"the API token cannot see the zone {zone}; give it Zone:Read for it.")
        return self._ids[zone]

    async def _pages(self, path: str, query: Mapping[str, str], size: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in range(1, MAX_PAGES + 1):
            data = await self._ask("GET", path, query={**query, "page": str(page), "per_page": str(size)})
            result, info = data.get("result"), data.get("result_info")
            if not isinstance(result, list) or not isinstance(info, dict):
                raise ProviderError(f"Cloudflare's answer to GET {path} is no list.")
            found += result
            if page >= int(info.get("total_pages") or 1):
                total = info.get("total_count", len(found))
                if len(found) != total:
                    raise ProviderError(f"Cloudflare gave {len(found)} of {total} entries of {path}; it is read again.")
                return found
        raise ProviderError(f"Cloudflare has more than {MAX_PAGES} pages of {path}.")

    async def _ask(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {await self._token.value()}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        answer = await self._client.request(method, path, headers=headers, query=query, body=body)
        data = answer.data if isinstance(answer.data, dict) else {}
        if answer.status == 200 and data.get("success") is True:
            return data
        errors = data.get("errors")
        said = "; ".join(f"{e.get('message')} ({e.get('code')})" for e in errors or [] if isinstance(e, dict))
        hint = {401: " Check the API token.", 403: " Give the API token Zone:Read and DNS:Edit for the zone."}
        sentence = f"Cloudflare answers {answer.status} to {method} {path}: {said or 'no reason given'}."
        raise ProviderError(sentence + hint.get(answer.status, ""), retry_after=answer.retry_after)


def _held(one: Mapping[str, Any], path: str) -> Held:
    try:
        kind, content = str(one["type"]), str(one["content"])
        name, ttl = str(one["name"]).rstrip(".").lower(), int(one["ttl"])
        return Held(str(one["id"]), name, kind, ttl, _value(kind, content, one), one.get("proxied") is True)
    except (KeyError, TypeError, ValueError) as error:
        raise ProviderError(f"Cloudflare's list {path} holds a record that cannot be read: {error!r}.") from error


def _value(kind: str, content: str, one: Mapping[str, Any]) -> str:
    if kind == "TXT":
        return txt_presentation(txt_text(content) if content.startswith('"') else content)
    if kind == "MX":
        return f"{one['priority']} {content.rstrip('.')}."
    if kind == "SRV":
        data = one["data"]
        return f"{data['priority']} {data['weight']} {data['port']} {str(data['target']).rstrip('.')}."
    return f"{content.rstrip('.')}." if kind in _NAME_TYPES else content


def _record_sets(held: Sequence[Held]) -> dict[Key, RecordSet]:
    values: dict[Key, set[str]] = defaultdict(set)
    ttls: dict[Key, int] = {}
    for one in held:
        values[one.name, one.type].add(one.value)
        ttls.setdefault((one.name, one.type), one.ttl)
    return {key: RecordSet(*key, ttls[key], tuple(sorted(found))) for key, found in values.items()}


def create(config: ProviderConfig) -> DNSProvider:
    """Entry point. Settings: ``proxied`` (``true``), ``api-url`` for another server of the same API; the token."""
    if config.secret is None:
        raise ProviderError(
            "the cloudflare provider needs dns.cloudflare.apiTokenSecretRef, a Secret with an API token."
        )
    zones = tuple(zone.rstrip(".").lower() for zone in config.zones)
    client = JSONClient(config.settings.get("api-url") or API)
    return CloudflareProvider(client, config.secret, zones, proxied=config.settings.get("proxied") == "true")
