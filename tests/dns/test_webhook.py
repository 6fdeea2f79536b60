"""external-dns's webhook protocol: media types, status codes, adjusted endpoints, and a provider that fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from culvert_operator.dns.endpoint import Endpoint, Published, RecordSet
from culvert_operator.dns.limits import refusal
from culvert_operator.dns.plan import plan_zones
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.providers.memory import MemoryProvider
from culvert_operator.dns.providers.webhook import wire
from culvert_operator.dns.providers.webhook.server import WebhookServer
from culvert_operator.dns.registry import Registry

OWNER, SHOP = "installation-1", "tunnelbinding/shop/shop"
TYPED = {"Accept": wire.MEDIA_TYPE, "Content-Type": wire.MEDIA_TYPE}


def ask(url: str, method: str, path: str, *, headers: dict[str, str], body: Any = None) -> tuple[int, str, str]:
    """(status, content type, text)."""

    async def one() -> tuple[int, str, str]:
        data = json.dumps(body) if body is not None else None
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url + path, headers=headers, data=data) as response,
        ):
            return response.status, response.headers.get("Content-Type", ""), await response.text()

    return asyncio.run(one())


@pytest.fixture
def zone() -> dict[tuple[str, str], RecordSet]:
    return {("www.example.com", "A"): RecordSet("www.example.com", "A", 60, ("192.0.2.9",))}


@pytest.fixture
def url(serve: Callable[[web.Application], str], zone: dict[tuple[str, str], RecordSet]) -> str:
    return serve(WebhookServer(MemoryProvider({"example.com": zone})).app())


def test_the_server_speaks_the_protocol_as_external_dns_does(url: str, zone: dict[Any, RecordSet]) -> None:
    accept = {"Accept": wire.MEDIA_TYPE}
    assert ask(url, "GET", "/", headers=accept) == (200, wire.MEDIA_TYPE, '{"include": ["example.com"]}')
    status, kind, text = ask(url, "GET", "/records", headers=accept)
    assert (status, kind) == (200, wire.MEDIA_TYPE)
    www = {"dnsName": "www.example.com", "recordType": "A", "recordTTL": 60, "targets": ["192.0.2.9"]}
    assert json.loads(text) == [www]
    made = {"dnsName": "new.example.com", "recordType": "CNAME", "recordTTL": 60, "targets": ["r.example.net"]}
    assert json.loads(ask(url, "POST", "/adjustendpoints", headers=TYPED, body=[made])[2]) == [made]
    changed = {**www, "targets": ["192.0.2.10"]}
    body = {"create": [made], "updateOld": [www], "updateNew": [changed]}
    assert ask(url, "POST", "/records", headers=TYPED, body=body)[0] == 204
    assert zone["new.example.com", "CNAME"].values == ("r.example.net.",)
    assert zone["www.example.com", "A"].values == ("192.0.2.10",)
    assert ask(url, "POST", "/records", headers=TYPED, body={"Delete": [made]})[0] == 204
    assert set(zone) == {("www.example.com", "A")}
    assert ask(url, "GET", "/healthz", headers={})[0] == 200


def test_the_server_refuses_other_media_types_and_bodies(url: str, zone: dict[Any, RecordSet]) -> None:
    plain = {"Accept": "application/json", "Content-Type": "application/json"}
    assert ask(url, "GET", "/", headers=plain)[0] == 406
    assert ask(url, "GET", "/records", headers=plain)[0] == 406
    assert ask(url, "POST", "/records", headers=plain, body={})[0] == 415
    for body in ([], {"create": {}}, {"create": [{"dnsName": "a"}]}, {"erase": []}):
        assert ask(url, "POST", "/records", headers=TYPED, body=body)[0] == 400
    assert set(zone) == {("www.example.com", "A")}


def test_the_server_answers_500_when_a_name_was_not_carried_out(url: str, zone: dict[Any, RecordSet]) -> None:
    stale = {"dnsName": "www.example.com", "recordType": "A", "recordTTL": 60, "targets": ["192.0.2.1"]}
    status, _, text = ask(url, "POST", "/records", headers=TYPED, body={"delete": [stale]})
    assert (status, "www.example.com" in text) == (500, True)
    outside = {**stale, "dnsName": "a.example.org"}
    assert ask(url, "POST", "/records", headers=TYPED, body={"create": [outside]})[0] == 500
    assert zone["www.example.com", "A"].values == ("192.0.2.9",)


class Theirs:
    """A webhook of somebody else's: it raises TTLs, can fail for one name, and counts what it is told."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Any] = {}
        self.posts: list[Any] = []
        self.bad = ""
        self.answer: tuple[int, dict[str, str]] | None = None
        self.app = web.Application()
        self.app.router.add_get("/", self._root)
        self.app.router.add_get("/records", self._records)
        self.app.router.add_post("/records", self._apply)
        self.app.router.add_post("/adjustendpoints", self._adjust)

    async def _root(self, request: web.Request) -> web.Response:
        assert request.headers["Accept"] == wire.MEDIA_TYPE
        return web.json_response({"include": ["example.com", ".example.org"]}, content_type="application/json")

    async def _records(self, request: web.Request) -> web.Response:
        assert request.headers["Accept"] == wire.MEDIA_TYPE
        if self.answer is not None:
            return web.Response(status=self.answer[0], headers=self.answer[1])
        return web.json_response(list(self.held.values()))

    async def _adjust(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == wire.MEDIA_TYPE
        return web.json_response(
            [{**e, "recordTTL": max(600, e["recordTTL"])} for e in json.loads(await request.read())]
        )

    async def _apply(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == wire.MEDIA_TYPE
        body = json.loads(await request.read())
        everything = [e for part in body.values() for e in part]
        if self.bad and any(e["dnsName"].endswith(self.bad) for e in everything):
            return web.Response(status=500)
        self.posts.append(body)
        for one in (*body.get("delete", ()), *body.get("updateOld", ())):
            del self.held[one["dnsName"], one["recordType"]]
        for one in (*body.get("create", ()), *body.get("updateNew", ())):
            self.held[one["dnsName"], one["recordType"]] = one
        return web.Response(status=204)


async def publish(made: Any, *names: str) -> list[ChangeResult]:
    registry = Registry(made)
    view = await registry.view(names)
    assert view.error is None, view.error
    ones = [Endpoint(name, "A", ("192.0.2.1",), 300, "", SHOP) for name in names]
    listed = [Published(e.name, e.type, e.resource) for e in ones]
    try:
        return list(await registry.apply(plan_zones(ones, listed=listed, view=view, owner=OWNER).changes))
    finally:
        await made.close()


def test_adjusted_endpoints_settle_and_are_not_written_again_after_a_restart(serve: Any) -> None:
    theirs = Theirs()
    url = serve(theirs.app)
    made = provider("webhook", ProviderConfig({"url": url}))
    assert [r.result for r in asyncio.run(publish(made, "shop.example.com"))] == [Result.DONE]
    assert theirs.held["shop.example.com", "A"]["recordTTL"] == 600
    assert asyncio.run(publish(made, "shop.example.com")) == []
    posts = len(theirs.posts)
    asyncio.run(publish(provider("webhook", ProviderConfig({"url": url})), "shop.example.com"))
    assert len(theirs.posts) == posts


def test_the_marker_is_written_before_its_record(serve: Any) -> None:
    theirs = Theirs()
    made = provider("webhook", ProviderConfig({"url": serve(theirs.app)}))
    asyncio.run(publish(made, "shop.example.com"))
    assert [[e["recordType"] for e in post["create"]] for post in theirs.posts] == [["TXT"], ["A"]]


def test_one_name_that_the_webhook_refuses_does_not_hold_up_the_others(serve: Any) -> None:
    theirs = Theirs()
    theirs.bad = "b.example.com"
    made = provider("webhook", ProviderConfig({"url": serve(theirs.app)}))
    results = {r.name: r.result for r in asyncio.run(publish(made, *(f"{n}.example.com" for n in "abc")))}
    assert results["b.example.com"] is Result.FAILED
    assert results["a.example.com"] is results["c.example.com"] is Result.DONE


@pytest.mark.parametrize("status", [500, 404, 302])
def test_d30_an_answer_that_is_no_list_is_a_failed_read(serve: Any, status: int) -> None:
    theirs = Theirs()
    theirs.answer = (status, {"Retry-After": "7"})
    made = provider("webhook", ProviderConfig({"url": serve(theirs.app)}))

    async def view() -> tuple[str | None, float]:
        found = await Registry(made).view()
        await made.close()
        return found.error, found.retry_after

    error, wait = asyncio.run(view())
    assert error is not None
    assert str(status) in error
    assert wait == 7


def test_a_webhook_that_the_administrator_did_not_allow_is_refused() -> None:
    settings = {"url": "http://10.0.0.1:8888/"}
    assert "--dns-webhook-urls" in (refusal("webhook", settings, webhook_urls=()) or "")
    assert refusal("webhook", settings, webhook_urls=["http://10.0.0.1:8889"]) is not None
    assert refusal("webhook", settings, webhook_urls=["http://10.0.0.1:8888"]) is None
    assert refusal("memory", {}, webhook_urls=()) is None
    with pytest.raises(ProviderError, match=r"dns\.webhook\.url"):
        provider("webhook", ProviderConfig({"url": "file:///etc/passwd"}))
