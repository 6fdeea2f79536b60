"""The operator as a process: its parts put together.

Responsible for: composition, supervision and the address for probes and metrics. Must not know: any rule.
Invariants: a part that fails is started again, with backoff, while the others go on; the process is ready once every
store is complete and, while it leads, the issuer's key is there; it works on nothing before, and on nothing while
another operator leads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from culvert_operator.api.cluster import Namespace
from culvert_operator.aside import Aside
from culvert_operator.backoff import Backoff
from culvert_operator.cluster.apply import Hand
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import Access, LoginError, log_in
from culvert_operator.cluster.elector import Elector
from culvert_operator.cluster.events import post
from culvert_operator.cluster.stores import Held
from culvert_operator.cluster.texts import Contents
from culvert_operator.cluster.world import World
from culvert_operator.connectors import Connectors
from culvert_operator.flags import Settings
from culvert_operator.gather import Gatherer
from culvert_operator.host import host
from culvert_operator.issuer import Issuer, IssuerError, ensure_issuer
from culvert_operator.keys import ObjectKey
from culvert_operator.leadership.election import Terms
from culvert_operator.leadership.fence import Fence, always
from culvert_operator.metrics import CONTENT_TYPE, Metrics
from culvert_operator.plan import plan
from culvert_operator.publishing import Publishing
from culvert_operator.reconcile import Reconciler
from culvert_operator.relay_certificate import ensure_relay_certificate, relay_names
from culvert_operator.retirement import retire
from culvert_operator.revoking.herald import Herald
from culvert_operator.revoking.herald import Watcher as HeraldWatcher
from culvert_operator.throttle import Throttle
from culvert_operator.worker import Watcher, Workers
from culvert_operator.world import Event
from culvert_transport.logs import configure

CERTIFICATE_SECONDS = 3600.0
FIRST_RETRY = 0.5
LAST_RETRY = 15.0
LEASE_NAME = "culvert-operator"

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Operator:
    """One running operator."""

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time.time,
        log_in: Callable[[], Awaitable[Access]] = log_in,
    ) -> None:
        self._log_in = log_in
        self._settings = settings
        self._now = now
        self._metrics = Metrics()
        self._aside = Aside()
        self._fence = Fence(refused=self._metrics.fenced) if settings.election is not None else always()
        self._client = Client(self._log_in, fence=self._fence, answered=self._metrics.answered)
        self._leading = settings.election is None
        self._synced = False
        self._workers = Workers(self._work, watcher=Watcher(finished=self._metrics.finished, depth=self._metrics.depth))
        self._world = World(settings.options, self._workers.mark)
        self._reported = Throttle(self._workers.mark)
        self._connectors = Connectors(self._reported)
        self._world.pods.listen(self._connectors.on_pod)
        self._evicted = asyncio.Event()
        self._world.namespaces.listen(self._on_namespace)
        self._contents = Contents(self._client, self._world.config_maps)
        self._publishing = Publishing(
            self._contents, metrics=self._metrics.dns, webhook_urls=settings.options.dns_webhook_urls
        )
        self._reconciler: Reconciler | None = None

    async def run(self) -> None:
        """Until cancelled."""
        runner = await self._serve()
        try:
            async with asyncio.TaskGroup() as group:
                for reflector in self._world.reflectors(self._client, self._settings.watch_seconds):
                    group.create_task(self._supervised(reflector.run))
                await self._world.synced()
                self._synced = True
                if self._settings.election is None:
                    await self._lead()
                else:
                    await self._stand_for_election(self._settings.election)
        finally:
            await self._workers.close()
            await self._connectors.close()
            self._reported.close()
            self._aside.close()
            await self._publishing.close()
            await self._client.close()
            await runner.cleanup()

    async def _stand_for_election(self, terms: Terms) -> None:
        """Lead whenever the Lease is ours. The stores are kept true meanwhile, so that taking over needs no reading."""
        client = Client(self._log_in, answered=self._metrics.answered)
        elector = Elector(
            client,
            self._fence,
            namespace=self._settings.options.namespace,
            name=LEASE_NAME,
            identity=f"{_host_name()}_{uuid.uuid4()}",
            terms=terms,
            told=self._turned,
        )
        try:
            await elector.run(self._lead)
        finally:
            await client.close()

    def _turned(self, leading: bool) -> None:
        self._leading = leading
        self._metrics.leads(leading)

    async def _lead(self) -> None:
        """All that writes, until cancelled."""
        self._turned(True)
        herald: Herald | None = None
        try:
            async with asyncio.TaskGroup() as group:
                if self._settings.relay_services:
                    group.create_task(self._supervised(self._keep_relay_certificate))
                issuer = await self._issuer()
                herald = await self._herald(issuer)
                self._reconciler = self._make_reconciler(issuer, herald)
                self._mark_all()
                self._workers.resume()
                group.create_task(self._supervised(self._retire_with_namespace))
                _log.info("the operator is ready", extra={"fields": {"tunnels": len(self._world.tunnels)}})
                await asyncio.Event().wait()
        finally:
            self._reconciler = None
            await self._workers.pause()
            if herald is not None:
                await herald.close()
            self._metrics.stands_by()

    def _mark_all(self) -> None:
        for key in self._world.all_keys():
            self._workers.mark(key)

    def _on_namespace(self, before: Held[Namespace] | None, after: Held[Namespace] | None) -> None:
        if after is not None and after.value.terminating and after.value.name == self._settings.options.namespace:
            self._evicted.set()

    async def _retire_with_namespace(self) -> None:
        """When the operator's own namespace goes it has seconds: nobody would be left to release what it holds."""
        await self._evicted.wait()
        _log.warning("the operator's namespace is being deleted: every object is released")
        await self._workers.pause()
        await retire(self._client, self._settings.options, now=self._now(), instance=_instance())

    async def _work(self, key: ObjectKey) -> float | None:
        assert self._reconciler is not None, "workers are paused until there is one"
        return await self._reconciler.work(key)

    def _make_reconciler(self, issuer: Issuer, herald: Herald) -> Reconciler:
        gatherer = Gatherer(
            client=self._client,
            world=self._world,
            contents=self._contents,
            connectors=self._connectors,
            publishing=self._publishing,
            issuer=issuer,
            herald=herald,
            options=self._settings.options,
            now=self._now,
        )
        return Reconciler(
            client=self._client,
            hand=Hand(self._client, self._world),
            gatherer=gatherer,
            publishing=self._publishing,
            issuer=issuer,
            herald=herald,
            metrics=self._metrics,
            fence=self._fence,
            aside=self._aside,
            plan=plan,
            looks=self._workers.looks,
            now=self._now,
            instance=_instance(),
        )

    async def _herald(self, issuer: Issuer) -> Herald:
        """Whoever tells relays of revocations, with what an earlier leader left to tell."""
        watcher = HeraldWatcher(
            changed=self._workers.mark,
            repeats=self._mark_all,
            event=self._show,
            attempt=self._metrics.delivered,
            held=self._metrics.revocations,
        )
        herald = Herald(self._client, self._settings.options.namespace, issuer, watcher=watcher, now=self._now)
        await self._insistently(herald.load, "the revocations cannot be read yet")
        return herald

    async def _show(self, event: Event) -> None:
        await post(self._client, event, now=self._now(), instance=_instance())

    async def _issuer(self) -> Issuer:
        """The issuer's key, without which there is nothing to do."""
        namespace, name = self._settings.options.namespace, self._settings.issuer_secret
        return await self._insistently(
            lambda: ensure_issuer(self._client, namespace, name),
            "the issuer's key is not there yet",
            secret=f"{namespace}/{name}",
        )

    async def _insistently(self, what: Callable[[], Awaitable[T]], complaint: str, **fields: str) -> T:
        """Tried for as long as it takes."""
        backoff = Backoff(first=FIRST_RETRY, most=LAST_RETRY, random=random.random)
        while True:
            try:
                return await what()
            except (APIError, IssuerError) as error:
                delay = backoff.next()
                _log.warning(complaint, extra={"fields": {**fields, "reason": str(error), "after": round(delay, 2)}})
                await asyncio.sleep(delay)

    async def _keep_relay_certificate(self) -> None:
        options = self._settings.options
        names = relay_names(
            self._settings.relay_services,
            options.namespace,
            options.cluster_domain,
            self._settings.relay_server_names,
        )
        while True:
            ends = await ensure_relay_certificate(self._client, options.namespace, names, now=self._now())
            self._metrics.relay_certificate(ends)
            await asyncio.sleep(CERTIFICATE_SECONDS)

    async def _supervised(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part that should never end, again and again."""
        backoff = Backoff(first=FIRST_RETRY, most=LAST_RETRY, random=random.random)
        while True:
            try:
                await part()
            except (APIError, LoginError) as error:
                _log.warning("a part of the operator failed", extra={"fields": {"reason": str(error)}})
            except Exception:
                _log.exception("a part of the operator failed")
            await asyncio.sleep(backoff.next())

    async def _serve(self) -> web.AppRunner:
        """Probes and metrics."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._exposition)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        await runner.setup()
        host_name, port = self._settings.listen
        await web.TCPSite(runner, host_name, port).start()
        return runner

    async def _livez(self, request: web.Request) -> web.Response:
        """The event loop answers: that is all that a restart could cure."""
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if not self._synced or (self._leading and self._reconciler is None):
            missing = [store.kind.name for store in self._world.stores() if not store.synced.is_set()]
            return web.Response(status=503, text=f"waiting for {', '.join(missing) or 'the issuer key'}\n")
        return web.Response(text="ok\n")

    async def _exposition(self, request: web.Request) -> web.Response:
        self._metrics.holds(tunnels=self._world.tunnels, bindings=self._world.bindings, claims=self._world.claims)
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})


def _instance() -> str:
    return f"culvert-operator-{_host_name()}"


def _host_name() -> str:
    return os.environ.get("HOSTNAME") or socket.gethostname()


def run(settings: Settings) -> int:
    """Run the operator until a signal; the exit code."""
    configure(settings.log_level, settings.log_format)
    # kopf tells of its own life in many words; what goes wrong between it and the API server, culvert tells itself.
    logging.getLogger("kopf").setLevel(logging.ERROR)
    try:
        return asyncio.run(_run(settings))
    except LoginError as error:
        print(f"culvert: {error}", file=sys.stderr)
        return 1


async def _run(settings: Settings) -> int:
    await log_in()  # a missing kubeconfig is told at once, not retried for ever
    return await host(Operator(settings))
