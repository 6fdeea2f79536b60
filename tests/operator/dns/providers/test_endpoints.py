"""The endpoints provider beyond the contract: which object has what, and what other people do to objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from culvert_operator.api.dns import parse_dns
from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.plan import plan_zones
from culvert_operator.dns.provider import ChangeResult, ProviderConfig, ProviderError, Result, provider
from culvert_operator.dns.providers.endpoints import MARKERS, object_name
from culvert_operator.dns.registry import Registry

OWNER, SHOP = "installation-1", "tunnelbinding/shop/shop"
NAME = "shop.example.com"


class Namespace:
    """Objects by name; a write against an older version is refused."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.number = 0
        for one in objects:
            self.keep(one)

    def keep(self, body: Any) -> None:
        self.number += 1
        name = body["metadata"]["name"]
        meta = {**body["metadata"], "uid": f"uid-{name}", "resourceVersion": str(self.number)}
        meta["annotations"] = {k: v for k, v in (meta.get("annotations") or {}).items() if v is not None}
        self.held[name] = {"metadata": meta, "spec": body["spec"]}

    async def list(self) -> Sequence[Mapping[str, Any]]:
        return json.loads(json.dumps(list(self.held.values())))

    async def create(self, body: Mapping[str, Any]) -> bool:
        if body["metadata"]["name"] in self.held:
            return False
        self.keep(body)
        return True

    async def patch(self, name: str, body: Mapping[str, Any]) -> bool:
        if not self.same(name, body["metadata"]["resourceVersion"]):
            return False
        old = self.held[name]["metadata"]
        merged = {key: {**(old.get(key) or {}), **body["metadata"][key]} for key in ("annotations", "labels")}
        self.keep({"metadata": {**old, **merged}, "spec": body["spec"]})
        return True

    async def delete(self, name: str, *, uid: str, version: str) -> bool:
        return self.same(name, version) and self.held.pop(name) is not None

    def same(self, name: str, version: str) -> bool:
        return name in self.held and self.held[name]["metadata"]["resourceVersion"] == version

    def endpoints(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.held[name]["spec"]["endpoints"]
        return found


def made(namespace: Namespace, *zones: str, **block: Any) -> Registry:
    settings = dict(parse_dns({"endpoints": block}).settings)
    return Registry(provider("endpoints", ProviderConfig(settings, zones, objects=namespace)))


def publish(registry: Registry, *wanted: Endpoint, former: Sequence[Endpoint] = (), **more: Any) -> list[ChangeResult]:
    async def once() -> list[ChangeResult]:
        view = await registry.view([e.name for e in (*wanted, *former)])
        assert view.error is None, view.error
        listed = [Published(e.name, e.type, e.resource) for e in {*wanted, *former}]
        plan = plan_zones(wanted, listed=listed, view=view, owner=OWNER, **more)
        return list(await registry.apply(plan.changes))

    return asyncio.run(once())


def alias(name: str = NAME, target: str = "relay.example.net") -> Endpoint:
    return Endpoint(name, "CNAME", (target,), 300, "", SHOP)


def foreign(name: str, *endpoints: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "spec": {"endpoints": list(endpoints)}}


THEIRS = {
    "dnsName": "www.example.com",
    "recordType": "A",
    "recordTTL": 60,
    "targets": ["192.0.2.9"],
    "setIdentifier": "a",
}


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        (NAME, "culvert.shop.example.com"),
        ("*.example.com", "culvert-wildcard.example.com"),
        ("wildcard.example.com", "culvert.wildcard.example.com"),
    ],
)
def test_an_object_is_named_after_its_hostname(hostname: str, name: str) -> None:
    assert object_name(hostname) == name


def test_a_name_that_is_too_long_for_an_object_gets_a_digest() -> None:
    long = ".".join(["a" * 60] * 4) + ".example"
    assert len(object_name(long)) <= 63
    assert object_name(long) != object_name(f"*.{long}")


def test_external_dns_is_given_endpoints_and_never_markers() -> None:
    namespace = Namespace()
    registry = made(namespace, labels={"team": "edge"}, providerSpecific={"x/proxied": "true"})
    assert [r.result for r in publish(registry, alias())] == [Result.DONE]
    (held,) = namespace.held.values()
    assert held["spec"]["endpoints"] == [
        {
            "dnsName": NAME, "recordType": "CNAME", "recordTTL": 300, "targets": ["relay.example.net"],
            "providerSpecific": [{"name": "x/proxied", "value": "true"}],
        }
    ]  # fmt: skip
    assert held["metadata"]["labels"] == {"team": "edge", "app.kubernetes.io/managed-by": "culvert"}
    assert SHOP in held["metadata"]["annotations"][MARKERS]
    assert publish(registry, alias()) == []
    assert [r.result for r in publish(registry, former=[alias()])] == [Result.DONE]
    assert namespace.held == {}


@pytest.mark.parametrize("change", [{"labels": {"team": "new"}}, {"providerSpecific": {"x/proxied": "false"}}])
def test_changed_labels_and_properties_reach_objects_that_are_there(change: dict[str, Any]) -> None:
    namespace = Namespace()
    publish(made(namespace, labels={"team": "edge"}), alias())
    registry = made(namespace, **change)
    assert [r.result for r in publish(registry, alias())] == [Result.DONE]
    assert publish(registry, alias()) == []
    (held,) = namespace.held.values()
    assert "new" in held["metadata"]["labels"].values() or "providerSpecific" in held["spec"]["endpoints"][0]


def test_what_a_person_adds_to_our_object_stays_also_when_ours_goes() -> None:
    namespace = Namespace()
    registry = made(namespace)
    publish(registry, alias())
    name = object_name(NAME)
    body = namespace.held[name]
    namespace.keep({**body, "spec": {"endpoints": [THEIRS, *namespace.endpoints(name)]}})
    publish(registry, alias(target="other.example.net"))
    assert namespace.endpoints(name)[0] == THEIRS
    publish(registry, former=[alias()])
    assert namespace.endpoints(name) == [THEIRS]
    assert MARKERS not in namespace.held[name]["metadata"]["annotations"]


def test_a_record_in_somebodys_object_is_theirs_until_it_is_adopted() -> None:
    mine = {"dnsName": NAME, "recordType": "CNAME", "recordTTL": 300, "targets": ["relay.example.net"]}
    namespace = Namespace(foreign("people", THEIRS, mine, annotations={"note": "by hand"}))
    before = json.dumps(namespace.held)
    registry = made(namespace)
    assert publish(registry, alias()) == []
    assert publish(registry, alias(target="other.example.net"), adopt=True) == []
    assert json.dumps(namespace.held) == before
    assert [r.result for r in publish(registry, alias(), adopt=True)] == [Result.DONE]
    assert list(namespace.held) == ["people"]
    assert namespace.held["people"]["metadata"]["annotations"]["note"] == "by hand"
    publish(registry, former=[alias()])
    assert namespace.endpoints("people") == [THEIRS]


@pytest.mark.parametrize("order", [("a", "z"), ("z", "a")])
def test_a_marker_says_nothing_of_a_record_that_stands_in_another_object(order: tuple[str, str]) -> None:
    marker = {
        f"cname._culvert.{NAME}": [
            300,
            f'"heritage=external-dns,external-dns/owner={OWNER},external-dns/resource={SHOP}"',
        ]
    }
    theirs = {"dnsName": NAME, "recordType": "CNAME", "recordTTL": 300, "targets": ["elsewhere.example.net"]}
    namespace = Namespace(
        foreign(order[0], annotations={MARKERS: json.dumps(marker)}),
        foreign(order[1], theirs),
    )
    assert publish(made(namespace), alias()) == []
    assert namespace.endpoints(order[1]) == [theirs]


@pytest.mark.parametrize("said", ["", "[]", "{", '{"x": 1}', '{"cname._culvert.shop.example.com": ["a", 1]}', "null"])
def test_an_annotation_that_somebody_wrote_is_no_marker(said: str) -> None:
    theirs = {"dnsName": NAME, "recordType": "CNAME", "recordTTL": 300, "targets": ["elsewhere.example.net"]}
    namespace = Namespace(foreign("a", theirs, annotations={MARKERS: said}))
    assert publish(made(namespace), alias()) == []


def test_without_zones_no_name_is_taken_for_an_apex() -> None:
    namespace = Namespace()
    names = [alias("example.com"), alias("a.example.com"), alias("*.example.com"), alias("b.a.example.org")]
    results = publish(made(namespace), *names)
    assert {r.result for r in results} == {Result.DONE}
    assert len(namespace.held) == 4


def test_an_object_that_changed_since_it_was_read_is_left_and_tried_again() -> None:
    namespace = Namespace()
    registry = made(namespace)
    publish(registry, alias())

    async def faster() -> list[ChangeResult]:
        view = await registry.view([NAME])
        listed = [Published(NAME, "CNAME", SHOP)]
        plan = plan_zones([alias(target="new.example.net")], listed=listed, view=view, owner=OWNER)
        patch = namespace.patch

        async def late(name: str, body: Mapping[str, Any]) -> bool:
            namespace.keep(namespace.held[name])
            return await patch(name, body)

        namespace.patch = late  # type: ignore[method-assign]
        return list(await registry.apply(plan.changes))

    assert [r.result for r in asyncio.run(faster())] == [Result.CONFLICT]


def test_what_cannot_be_read_is_an_error_and_no_empty_zone() -> None:
    broken = foreign("broken", {"dnsName": 5, "recordType": "A", "targets": []})
    view = asyncio.run(made(Namespace(broken)).view([NAME]))
    assert view.error is not None
    assert "'broken'" in view.error


def test_outside_a_cluster_there_are_no_objects() -> None:
    with pytest.raises(ProviderError, match="kubectl get dnsendpoints"):
        provider("endpoints", ProviderConfig())
