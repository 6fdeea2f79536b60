"""The cloudflare provider in front of a server of its API: pages, proxied records, refusals, partial failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import DNSView, plan_zones
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.registry import Registry

OWNER, SHOP, ZONE = "installation-1", "tunnelbinding/shop/shop", "z0.test"
Found = TypeVar("Found")


def run(made: Any, doing: Coroutine[Any, Any, Found]) -> Found:
    async def whole() -> Found:
        try:
            return await doing
        finally:
            await made.close()

    return asyncio.run(whole())


async def publish(made: Any, *names: str, kind: str = "A") -> list[ChangeResult]:
    registry = Registry(made)
    view = await registry.view(names)
    assert view.error is None, view.error
    target = ("relay.example.net",) if kind == "CNAME" else ("192.0.2.1",)
    ones = [Endpoint(name, kind, target, 300, "", SHOP) for name in names]
    listed = [Published(e.name, e.type, e.resource) for e in ones]
    return list(await registry.apply(plan_zones(ones, listed=listed, view=view, owner=OWNER).changes))


def view_of(made: Any, *names: str) -> DNSView:
    return run(made, Registry(made).view(names))


def test_zones_are_chosen_by_longest_suffix_over_all_pages(cloudflare: Any) -> None:
    fake, make = cloudflare
    fake.largest_page = 1
    made = make()
    assert run(made, made.zones(["shop.z0.test", "*.other.example", "x.test", "a.nowhere"])) == (
        "other.example",
        "test",
        "z0.test",
    )
    assert run(made, made.zones(["shop.z0.test"])) == ("z0.test",)


def test_d30_a_list_that_is_shorter_than_its_count_is_a_failed_read(cloudflare: Any) -> None:
    fake, make = cloudflare
    fake.hidden = 1
    view = view_of(make(ZONE), f"shop.{ZONE}")
    assert view.zones == ()
    assert view.error is not None
    assert "gave 3 of 4" in view.error


def test_proxied_records_settle_although_their_ttl_is_cloudflares(cloudflare: Any) -> None:
    fake, make = cloudflare
    made = make(ZONE, proxied="true")
    assert [r.result for r in run(made, publish(made, f"shop.{ZONE}", kind="CNAME"))] == [Result.DONE]
    held = [r for r in fake.records[fake.zones[ZONE]].values() if r["name"] == f"shop.{ZONE}"]
    assert [(r["proxied"], r["ttl"], r["comment"]) for r in held] == [(True, 1, "managed by culvert")]
    assert run(made, publish(made, f"shop.{ZONE}", kind="CNAME")) == []


def test_a_short_ttl_is_raised_to_what_cloudflare_takes(cloudflare: Any) -> None:
    _, make = cloudflare
    short = Endpoint("a.test", "A", ("192.0.2.1",), 5)
    assert [e.ttl for e in make(ZONE).adjust([short])] == [60]


def test_429_ends_the_round_and_tells_for_how_long(cloudflare: Any) -> None:
    fake, make = cloudflare
    fake.refusals.append((429, {"Retry-After": "42"}))
    made = make(ZONE)
    results = run(made, publish(made, f"a.{ZONE}", f"b.{ZONE}", f"c.{ZONE}"))
    assert [(r.result, r.retry_after) for r in results] == [(Result.FAILED, 42.0)] * 3
    assert [path for method, path in fake.requests if method == "POST"] == ["/zones/id-1/dns_records/batch"]


def test_one_names_refusal_does_not_hold_up_the_others(cloudflare: Any) -> None:
    fake, make = cloudflare
    fake.refusals.append((400, {}))
    made = make(ZONE)
    results = run(made, publish(made, f"a.{ZONE}", f"b.{ZONE}", f"c.{ZONE}"))
    assert [r.result for r in results] == [Result.FAILED, Result.DONE, Result.DONE]
    assert "refused by the test (10000)" in results[0].message


def test_d20_a_wrong_token_is_a_failed_read_that_does_not_show_it(cloudflare: Any) -> None:
    _, make = cloudflare
    view = view_of(make(ZONE, token="not-the-token"), f"shop.{ZONE}")
    assert view.error is not None
    assert "403" in view.error
    assert "Zone:Read" in view.error
    assert "not-the-token" not in view.error


def test_a_rotated_token_is_used_at_the_next_request(cloudflare: Any) -> None:
    class Rotated:
        """A secret that is replaced once it has been read."""

        tokens = iter(["an-old-token", *["cloudflare-token-of-the-tests"] * 20])

        async def value(self) -> str:
            return next(self.tokens)

    _, make = cloudflare
    url = make(ZONE)._client.base
    made = provider("cloudflare", ProviderConfig({"api-url": url}, (ZONE,), secret=Rotated()))

    async def twice() -> tuple[str | None, list[ChangeResult]]:
        refused = (await Registry(made).view([])).error
        return refused, await publish(made, f"shop.{ZONE}")

    refused, results = run(made, twice())
    assert refused is not None
    assert [r.result for r in results] == [Result.DONE]


def test_a_zone_that_the_token_cannot_see_is_named(cloudflare: Any) -> None:
    _, make = cloudflare
    view = view_of(make("hidden.example"), "shop.hidden.example")
    assert view.error is not None
    assert "hidden.example" in view.error


def test_without_a_token_there_is_no_provider() -> None:
    try:
        provider("cloudflare", ProviderConfig())
    except ProviderError as error:
        assert "apiTokenSecretRef" in str(error)
    else:
        raise AssertionError("a provider was made")
