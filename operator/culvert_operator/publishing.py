"""DNS of each Tunnel: its provider, what the zones hold, and the changes that are tried.

Responsible for: one registry per Tunnel's settings, the last failure of each name, and waiting after failures.
Must not know: which records are right (the DNS planner), Kubernetes but for where a zone's text lives.
Invariants: a name's failure is remembered until a change of it succeeds; after failures a zone is left alone for a
growing while, other zones are not.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from culvert_operator.api.dns import DNSSettings
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.backoff import Backoff
from culvert_operator.cluster.dns_endpoints import DNSEndpointObjects
from culvert_operator.cluster.texts import ConfigMapText, Contents, SecretKey
from culvert_operator.dns.limits import refusal
from culvert_operator.dns.metrics import DNSMetrics
from culvert_operator.dns.plan import DNSView, ZoneChanges
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.registry import Registry
from culvert_operator.keys import ObjectKey

FIRST_RETRY = 1.0
LAST_RETRY = 300.0


@dataclass(slots=True)
class _Zone:
    backoff: Backoff
    not_before: float = 0.0


@dataclass(slots=True)
class _Desk:
    settings: DNSSettings
    registry: Registry
    failures: dict[str, str] = field(default_factory=dict)
    zones: dict[str, _Zone] = field(default_factory=dict)
    refused: DNSView = field(default_factory=DNSView)
    not_before: float = 0.0


class Publishing:
    """The DNS side of all Tunnels."""

    def __init__(
        self,
        contents: Contents,
        *,
        metrics: DNSMetrics,
        webhook_urls: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._contents = contents
        self._metrics = metrics
        self._webhook_urls = tuple(webhook_urls)
        self._clock = clock
        self._now = now
        self._desks: dict[ObjectKey, _Desk] = {}

    async def view(self, tunnel: Tunnel | None, key: ObjectKey, names: Collection[str] = ()) -> DNSView | None:
        """What the Tunnel's zones hold (those of ``names``, where it lists none); None without DNS.

        A view with ``error`` when that cannot be told.
        """
        if tunnel is None or tunnel.dns is None:
            await self._drop(key)
            return None
        try:
            desk = await self._desk(tunnel, tunnel.dns)
        except ProviderError as error:
            return DNSView(error=str(error))
        started = self._clock()
        if started < desk.not_before:
            return desk.refused
        view = await desk.registry.view(names)
        ended = self._clock()
        self._metrics.read(key, ended - started, succeeded_at=self._now() if view.error is None else None)
        if view.retry_after:
            desk.refused, desk.not_before = view, ended + min(view.retry_after, LAST_RETRY)
        return replace(view, failures=dict(desk.failures))

    async def apply(self, key: ObjectKey, changes: Sequence[ZoneChanges]) -> tuple[tuple[ChangeResult, ...], float]:
        """Try the changes; the results, and seconds until zones that are being left alone may be tried again."""
        desk = self._desks.get(key)
        if desk is None:
            return (), 0.0
        now, due, wait = self._clock(), [], 0.0
        for zone in changes:
            state = desk.zones.setdefault(
                zone.zone, _Zone(Backoff(first=FIRST_RETRY, most=LAST_RETRY, random=random.random))
            )
            if now < state.not_before:
                wait = max(wait, state.not_before - now)
            else:
                due.append(zone)
        found: list[ChangeResult] = []
        for zone in due:
            started = self._clock()
            results = await desk.registry.apply([zone])
            self._metrics.wrote(self._clock() - started)
            state = desk.zones[zone.zone]
            if any(result.result is Result.FAILED for result in results):
                asked = max(result.retry_after for result in results)
                delay = max(state.backoff.next(), min(asked, LAST_RETRY))
                state.not_before = self._clock() + delay
                wait = max(wait, delay)
            else:
                state.backoff.reset()
            found.extend(results)
        for result in found:
            self._metrics.change(result)
            if result.result is Result.FAILED:
                desk.failures[result.name] = result.message
            else:
                desk.failures.pop(result.name, None)
        return tuple(found), wait

    async def _desk(self, tunnel: Tunnel, settings: DNSSettings) -> _Desk:
        key = tunnel.meta.key
        desk = self._desks.get(key)
        if desk is not None and desk.settings == settings:
            return desk
        await self._drop(key)
        refused = refusal(settings.provider, dict(settings.settings), webhook_urls=self._webhook_urls)
        if refused is not None:
            raise ProviderError(refused)
        text, secret = None, None
        if settings.config_map is not None:
            where = settings.config_map
            text = ConfigMapText(self._contents, ObjectKey(key.namespace, where.name), where.key)
        if settings.secret is not None:
            where = settings.secret
            secret = SecretKey(self._contents.client, ObjectKey(key.namespace, where.name), where.key)
        objects = DNSEndpointObjects(self._contents.client, key.namespace)
        config = ProviderConfig(dict(settings.settings), settings.zones, text, secret, objects)
        made = self._desks[key] = _Desk(settings, Registry(provider(settings.provider, config)))
        return made

    async def _drop(self, key: ObjectKey) -> None:
        desk = self._desks.pop(key, None)
        if desk is not None:
            await desk.registry.provider.close()
        self._metrics.forget(key)

    async def close(self) -> None:
        """Close all providers."""
        for key in list(self._desks):
            await self._drop(key)
