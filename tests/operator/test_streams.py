"""TCP ports and TLS names from bindings: claimed, granted, compiled and reported like hostnames."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_ingress.rules import HTTPService, TCPService
from culvert_operator.api.claim import parse_claim
from culvert_operator.keys import ObjectKey
from culvert_protocol.statements import GrantedName, GrantedPort, read_grant

MAIN = ObjectKey("culvert-system", "main")
SERVICE = {"name": "web", "port": 80}
GRANTS = [
    {"namespaces": {"from": "All"}, "hostnames": ["example.com", "*.example.com"], "tcpPorts": ["20000-20099", "22"]}
]
DNS = {"memory": {}, "zones": ["example.com"], "policy": "sync", "ttl": 300, "target": {"hostname": "r.example.net"}}


def tcp(port: int, name: str = "ssh", **more: Any) -> dict[str, Any]:
    return {"name": name, "protocol": "TCP", "relayPort": port, "service": SERVICE, **more}


def tls(hostname: str, name: str = "db", **more: Any) -> dict[str, Any]:
    return {"name": name, "protocol": "TLS", "hostname": hostname, "service": SERVICE, **more}


def http(hostname: str, name: str = "web", **more: Any) -> dict[str, Any]:
    return {"name": name, "hostname": hostname, "service": SERVICE, **more}


@pytest.fixture
def streams(simulate: Any) -> Any:
    made = simulate()
    made.tunnel(dns=DNS, grants=GRANTS)
    return made


def grant(world: Any) -> Any:
    return read_grant(world.document(MAIN).grant)


def test_a_port_a_tls_name_and_a_hostname_become_rules_and_a_grant(streams: Any) -> None:
    streams.service("web", "shop")
    shop = streams.binding(
        "shop",
        "shop",
        rules=[tcp(20022), tls("db.example.com", originRequest={"proxyProtocol": "V2"}), http("a.example.com")],
    )
    streams.settle()
    assert streams.condition(shop, "Ready") == ("True", "Ready")
    document = streams.document(MAIN)
    host = "web.shop.svc.cluster.local"
    served = {rule.id: (rule.hostname, rule.relay_port, rule.service) for rule in document.rules}
    assert served == {
        "shop/shop/ssh": ("", 20022, TCPService("tcp", host, 80)),
        "shop/shop/db": ("db.example.com", None, TCPService("tls", host, 80)),
        "shop/shop/web": ("a.example.com", None, HTTPService("http", host, 80)),
    }
    assert [r.origin_request.proxy_protocol for r in document.rules if r.id == "shop/shop/db"] == [2]
    assert type(document).loads(document.dumps()) == document
    granted = grant(streams)
    assert [name.hostname for name in granted.names] == ["a.example.com"]
    assert [name.hostname for name in granted.tls_names] == ["db.example.com"]
    assert [port.port for port in granted.tcp_ports] == [20022]
    # Records are for names alone.
    assert {name for name, _ in streams.zone} == {"a.example.com", "db.example.com"}
    status = streams.status(shop)
    assert {rule["name"]: rule["hostname"] for rule in status["rules"]} == {
        "ssh": "tcp:20022", "db": "db.example.com", "web": "a.example.com",
    }  # fmt: skip
    assert streams.step(MAIN).is_empty


def test_a_binding_with_ports_alone_is_ready_without_a_record(streams: Any) -> None:
    shop = streams.binding("shop", "shop", rules=[tcp(20022)])
    streams.settle()
    assert streams.condition(shop, "DNSReady") == ("True", "Disabled")
    assert streams.condition(shop, "Ready") == ("True", "Ready")
    assert streams.zone == {}
    (claim,) = [parse_claim(raw) for raw in streams.claims.values()]
    assert (claim.hostname, claim.namespace) == ("tcp:20022", "shop")
    (raw,) = streams.claims.values()
    assert raw["spec"]["tcpPort"] == 20022
    assert "hostname" not in raw["spec"]
    streams.delete(shop)
    streams.settle()
    assert (streams.claims, streams.routes(MAIN)) == ({}, [])


def test_a_port_is_had_once_in_an_object_and_in_a_namespace(streams: Any) -> None:
    twice = streams.binding("twice", "one", rules=[tcp(20022), tcp(20022, "again")])
    streams.settle()
    later = streams.binding("later", "one", rules=[tcp(20022)])
    streams.settle()
    assert [r["reason"] for r in streams.status(twice)["rules"]] == ["Accepted", "PortConflict"]
    assert streams.condition(later, "Accepted") == ("False", "PortConflict")


def test_d14_the_first_namespace_keeps_a_port_and_the_next_inherits_it(streams: Any) -> None:
    first = streams.binding("one", "one", rules=[tcp(20022)])
    streams.settle()
    second = streams.binding("two", "two", rules=[tcp(20022)])
    streams.settle()
    assert streams.condition(first, "Ready")[0] == "True"
    assert streams.condition(second, "Accepted") == ("False", "PortConflict")
    assert streams.status(second)["rules"][0]["reason"] == "PortConflict"
    assert streams.plan(MAIN).requeue_after <= 60
    assert "choose another port" in streams.message(second, "Accepted")
    streams.delete(first)
    streams.settle()
    assert streams.condition(second, "Ready")[0] == "True"
    assert [rule.id for rule in streams.document(MAIN).rules] == ["two/two/ssh"]


def test_a_port_outside_the_grants_is_refused_alone(streams: Any) -> None:
    shop = streams.binding("shop", "shop", rules=[tcp(443), http("a.example.com")])
    streams.settle()
    assert streams.condition(shop, "PartiallyInvalid")[0] == "True"
    refused = next(rule for rule in streams.status(shop)["rules"] if rule["name"] == "ssh")
    assert (refused["accepted"], refused["reason"]) == (False, "HostnameNotAllowed")
    assert "grants.tcpPorts" in refused["message"]
    assert grant(streams).tcp_ports == ()


def test_sources_are_granted_for_a_whole_hostname_and_a_port(streams: Any) -> None:
    networks = ["192.0.2.0/24", "10.0.0.0/8"]
    streams.binding(
        "shop",
        "shop",
        rules=[tcp(20022, allowedSources=["10.0.0.0/8"]), http("a.example.com", allowedSources=networks)],
    )
    streams.settle()
    (name,), (port,) = grant(streams).names, grant(streams).tcp_ports
    assert name == GrantedName("a.example.com", name.claimed_at, ("10.0.0.0/8", "192.0.2.0/24"))
    assert port == GrantedPort(20022, port.claimed_at, ("10.0.0.0/8",))
    version = streams.document(MAIN).version
    streams.binding("shop", "shop", rules=[http("a.example.com", allowedSources=["10.0.0.0/8"])])
    streams.settle()
    assert grant(streams).names[0].allowed_sources == ("10.0.0.0/8",)
    assert streams.document(MAIN).version > version


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (tls("a.example.com"), "is served as HTTP by shop/web"),
        (
            http("a.example.com", path={"type": "PathPrefix", "value": "/x"}, name="x"),
            "other allowedSources by shop/web",
        ),
    ],
)
def test_a_hostname_has_one_protocol_and_one_restriction(streams: Any, second: dict[str, Any], said: str) -> None:
    shop = streams.binding(
        "shop", "shop",
        rules=[http("a.example.com", path={"type": "PathPrefix", "value": "/a"}, allowedSources=["10.0.0.0/8"])],
    )  # fmt: skip
    streams.settle()
    later = streams.binding("later", "shop", rules=[second])
    streams.settle()
    assert streams.condition(shop, "Ready")[0] == "True"
    assert streams.condition(later, "Accepted") == ("False", "HostnameConflict")
    assert said in streams.message(later, "Accepted")
    (name,) = grant(streams).names
    assert name.allowed_sources == ("10.0.0.0/8",)
    assert grant(streams).tls_names == ()


def test_a_service_that_is_missing_leaves_the_name_what_it_is(streams: Any) -> None:
    missing = {"name": "gone", "port": 80}
    rules = [{**tls("db.example.com"), "service": missing}, {**tcp(20022), "service": missing}]
    shop = streams.binding("shop", "shop", rules=rules)
    streams.settle()
    assert streams.condition(shop, "ResolvedRefs") == ("False", "ServiceNotFound")
    assert [name.hostname for name in grant(streams).tls_names] == ["db.example.com"]
    assert {rule.service.host for rule in streams.document(MAIN).rules} == {"unresolved.invalid"}


def test_what_the_schema_would_refuse_is_refused_here_too(streams: Any) -> None:
    rules = [
        {**tcp(0), "name": "a"},
        {**tls("db.example.com"), "name": "b", "path": {"type": "Exact", "value": "/x"}},
        {**http("a.example.com"), "name": "c", "protocol": "UDP"},
        {**http("a.example.com"), "name": "d", "allowedSources": ["10.0.0.1/8"]},
        {**http("a.example.com"), "name": "e", "originRequest": {"proxyProtocol": "V9"}},
        {"name": "f", "protocol": "TLS", "hostname": "x.example.com", "httpStatus": 404},
    ]
    shop = streams.binding("shop", "shop", rules=rules)
    streams.settle()
    assert [rule["reason"] for rule in streams.status(shop)["rules"]] == ["InvalidRule"] * 6
