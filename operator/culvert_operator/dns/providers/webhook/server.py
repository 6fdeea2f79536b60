"""external-dns's webhook protocol over one of culvert's providers, so that external-dns can drive it.

Responsible for: the four routes with their media type and status codes.
Must not know: ownership (external-dns keeps its own marks).
Invariant: a change is answered 204 only when every name of it was carried out.
"""

from __future__ import annotations

import json
from collections import defaultdict

from aiohttp import web

from culvert_operator.dns.endpoint import RecordSet
from culvert_operator.dns.names import zone_of
from culvert_operator.dns.policies import Action
from culvert_operator.dns.provider import DNSProvider, ProviderError, RecordChange, Result
from culvert_operator.dns.providers.webhook import wire

MAX_BODY = 16 * 1024 * 1024


class WebhookServer:
    """The routes of one provider."""

    def __init__(self, provider: DNSProvider) -> None:
        self._provider = provider

    def app(self) -> web.Application:
        """The application to be served."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get("/", self._negotiate)
        app.router.add_get("/records", self._records)
        app.router.add_post("/records", self._apply)
        app.router.add_post("/adjustendpoints", self._adjust)
        app.router.add_get("/healthz", self._healthz)
        return app

    async def _negotiate(self, request: web.Request) -> web.Response:
        _acceptable(request)
        try:
            zones = await self._provider.zones(())
        except ProviderError as error:
            return _failed(error)
        return _answer({"include": list(zones)})

    async def _records(self, request: web.Request) -> web.Response:
        _acceptable(request)
        try:
            zones = await self._provider.zones(())
            found = [r for zone in zones for r in await self._provider.records(zone)]
        except ProviderError as error:
            return _failed(error)
        return _answer([wire.endpoint(one) for one in found])

    async def _adjust(self, request: web.Request) -> web.Response:
        """Endpoints as culvert's providers store them: culvert's own properties are none of external-dns's."""
        _acceptable(request)
        body = await _body(request)
        if not isinstance(body, list):
            raise web.HTTPBadRequest(text="the body is not a list of endpoints\n")
        return _answer(body)

    async def _apply(self, request: web.Request) -> web.Response:
        body = await _body(request)
        try:
            asked = wire.changes(body)
        except wire.WireError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        before: dict[str, list[RecordSet]] = defaultdict(list)
        after: dict[str, list[RecordSet]] = defaultdict(list)
        for target, sources in ((before, ("updateOld", "delete")), (after, ("updateNew", "create"))):
            for source in sources:
                for one in asked[source]:
                    target[one.name].append(one)
        try:
            zones = await self._provider.zones(sorted({*before, *after}))
            problems = await self._carry_out(zones, before, after)
        except ProviderError as error:
            return _failed(error)
        if problems:
            return web.Response(status=500, text="\n".join(problems) + "\n")
        return web.Response(status=204)

    async def _carry_out(
        self, zones: tuple[str, ...], before: dict[str, list[RecordSet]], after: dict[str, list[RecordSet]]
    ) -> list[str]:
        problems: list[str] = []
        steps: dict[str, list[RecordChange]] = defaultdict(list)
        read = {zone: await self._provider.records(zone) for zone in zones}
        for name in sorted({*before, *after}):
            old, new = tuple(before[name]), tuple(after[name])
            if new:
                # What else stands at the name is external-dns's own business: it stays, and is told to stay. A zone's
                # SOA changes with every write to the zone, also with the one before this.
                touched = {(r.name, r.type) for r in (*old, *new)} | {(name, "SOA")}
                held = read.get(zone_of(name, zones) or "", ())
                beside = [r for r in held if r.name == name and (r.name, r.type) not in touched]
                old, new = (*old, *beside), (*new, *beside)
            action = Action.DELETE if not new else Action.UPDATE if old else Action.CREATE
            zone = zone_of(name, zones)
            if zone is None:
                problems.append(f"no zone for {name}.")
            else:
                steps[zone].append(RecordChange(name, action, old, new))
        for zone, changes in steps.items():
            results = await self._provider.apply(zone, changes)
            problems += [r.message for r in results if r.result is not Result.DONE]
        return problems

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")


def _acceptable(request: web.Request) -> None:
    accepted = [part.strip().replace(" ", "") for part in request.headers.get("Accept", "").split(",")]
    if wire.MEDIA_TYPE not in accepted:
        raise web.HTTPNotAcceptable(text=f"send Accept: {wire.MEDIA_TYPE}\n")


async def _body(request: web.Request) -> object:
    if request.headers.get("Content-Type", "").replace(" ", "") != wire.MEDIA_TYPE:
        raise web.HTTPUnsupportedMediaType(text=f"send Content-Type: {wire.MEDIA_TYPE}\n")
    try:
        found: object = json.loads(await request.read())
    except ValueError:
        raise web.HTTPBadRequest(text="the body is not JSON\n") from None
    return found


def _answer(data: object) -> web.Response:
    return web.Response(
        body=json.dumps(data).encode(), headers={"Content-Type": wire.MEDIA_TYPE, "Vary": "Content-Type"}
    )


def _failed(error: ProviderError) -> web.Response:
    headers = {"Retry-After": str(int(error.retry_after))} if error.retry_after else {}
    return web.Response(status=500, text=f"{error}\n", headers=headers)
