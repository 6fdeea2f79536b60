"""Every row of the table of reasons has a world that produces it: a reason that nothing can have explains nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from culvert_operator import compile as compiling
from culvert_operator.conditions.reasons import REASONS, Reason
from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.reports import parse_report
from culvert_operator.unseen import PATIENCE_SECONDS

MAIN, WEB = ObjectKey("culvert-system", "main"), ObjectKey("shop", "web")
DNS = {
    "memory": {},
    "zones": ["example.com"],
    "policy": "sync",
    "ttl": 300,
    "target": {"hostname": "relay.example.net"},
}
SERVICE = {"name": "web", "port": 80}
IDLE = {"ready": True, "appliedVersion": 0, "sessions": []}
DEPLOYMENT = ("culvert-system", ChildKey("Deployment", "main-connector"))
EVERYONE = {"from": "All"}

Scene = Callable[[Any], None]


def serve(world: Any, hostname: str = "shop.example.com", **more: Any) -> None:
    """shop/web with one rule, to the end."""
    world.binding("web", "shop", rules=[rule(hostname, **more)])
    world.settle()


def rule(hostname: str = "shop.example.com", name: str = "r0", **more: Any) -> dict[str, Any]:
    return {"name": name, "hostname": hostname, "service": SERVICE, **more}


def nothing(world: Any) -> None:
    """What a world is that nothing happens to: shop/web is served."""


def again(**spec: Any) -> Scene:
    """The Tunnel with another spec."""

    def scene(world: Any) -> None:
        world.tunnel(**{"dns": DNS, **spec})
        world.settle()

    return scene


def bound(*rules: dict[str, Any]) -> Scene:
    """shop/web with other rules."""

    def scene(world: Any) -> None:
        world.binding("web", "shop", rules=list(rules))
        world.settle()

    return scene


def annotated(name: str, value: str, key: ObjectKey = MAIN) -> Scene:
    def scene(world: Any) -> None:
        found = world.tunnels[key]
        found["metadata"].setdefault("annotations", {})[f"culvert.dev/{name}"] = value
        world._touch(found)
        world.settle()

    return scene


def foreign(kind: str, name: str) -> Scene:
    """Somebody else's object at a child's name."""

    def scene(world: Any) -> None:
        world.children["culvert-system", ChildKey(kind, name)] = {"metadata": {"name": name, "resourceVersion": "1"}}
        world.settle()

    return scene


def refused(kind: str, name: str) -> Scene:
    """The API server takes a child no more."""

    def scene(world: Any) -> None:
        world.failures = {ChildKey(kind, name): "exceeded quota"}
        world.settle()

    return scene


def deployed(status: dict[str, Any]) -> Scene:
    def scene(world: Any) -> None:
        world.children[DEPLOYMENT]["status"] = status
        world.settle()

    return scene


def reporting(report: object) -> Scene:
    """What every connector says."""

    def scene(world: Any) -> None:
        world.frozen = report
        world.settle()

    return scene


def trouble(reason: str) -> Scene:
    return reporting({**IDLE, "relayErrors": [{"address": "relay:443", "reason": reason, "message": "no"}]})


def reading(*schemas: int, then: Scene) -> Scene:
    """Connectors of an earlier version."""

    def scene(world: Any) -> None:
        real = world.reports
        version = world.document(MAIN).version
        old = {"ready": True, "appliedVersion": version, "schemas": list(schemas)}
        world.reports = lambda key: real(key) | {"pod-0": parse_report(old)}
        then(world)

    return scene


def too_large(world: Any) -> None:
    # Random names do not compress: what fits now, and a little more.
    names = [f"{random.Random(n).randbytes(20).hex()}.example.com" for n in range(60)]
    world.monkeypatch.setattr(compiling, "MAX_CONFIG_BYTES", 3000)
    world.binding("big", "shop", *names)
    world.settle()


def beyond(world: Any) -> None:
    """The Tunnel may not stand any more where it stands."""
    world.options = type(world.options)(namespace="elsewhere", image="culvert:test")
    world.settle()


def rotating(world: Any) -> None:
    held = world.snapshot(MAIN).credential.key_id
    world.now += 1
    world.key_ids = {"pod-0": held}
    annotated("rotate", "today")(world)


def untold(world: Any) -> None:
    world.now += 1
    world.untold = ("relay.example.net:443",)
    annotated("rotate", "today")(world)


def expired(world: Any) -> None:
    real = world._apply
    world._apply = lambda op: None if op.key.kind == "Secret" else real(op)  # the API server is slow to take it
    world.now += 60 * 86_400
    for _ in range(5):
        world.step(MAIN)


def at_once(world: Any) -> None:
    """Before a connector has said anything: no Pod is there yet."""
    world.frozen = IDLE
    world.settle()


def leaving(key: ObjectKey) -> Scene:
    """An object that is being deleted while its zone cannot be read."""

    def scene(world: Any) -> None:
        world.dns_error = "the zone cannot be read"
        world.delete(key)
        world.settle()

    return scene


def paused_at_first_sight(world: Any) -> None:
    del world.tunnels[MAIN]
    world.children.clear()
    world.tunnel(dns=DNS)
    annotated("paused", "true")(world)


def claiming(world: Any) -> None:
    world.intercept = lambda what: what != "claim"
    world.binding("web", "shop", "new.example.com")
    for _ in range(3):
        world.step(MAIN)


def taken(world: Any) -> None:
    world.binding("first", "other", "taken.example.com")
    world.settle()
    serve(world, "taken.example.com")


def port_taken(world: Any) -> None:
    ssh = {"name": "ssh", "protocol": "TCP", "relayPort": 20022, "service": SERVICE}
    world.tunnel(dns=DNS, grants=[{"namespaces": EVERYONE, "hostnames": [], "tcpPorts": ["20022"]}])
    world.binding("first", "other", rules=[ssh])
    world.settle()
    bound(ssh)(world)


def service(**spec: Any) -> Scene:
    def scene(world: Any) -> None:
        world.service("web", "shop", **spec)
        world.settle()

    return scene


def without_service(world: Any) -> None:
    world.services.clear()
    world.settle()


def not_dialled(world: Any) -> None:
    world.refused_origins = [{"rule": "shop/web/r0", "reason": "address_not_allowed", "message": "it is link-local"}]
    world.settle()


def refused_by_the_relay(world: Any) -> None:
    world.refused = [{"hostname": "shop.example.com", "relay": "relay-1", "reason": "not_in_issuer"}]
    world.settle()


def lagging(world: Any) -> None:
    world.frozen = {"ready": True, "appliedVersion": 1, "sessions": []}
    bound(rule("new.example.com"))(world)


def not_ours(world: Any) -> None:
    theirs = Endpoint("theirs.example.com", "A", ("192.0.2.9",), 60)
    world.zone[theirs.key] = theirs
    serve(world, "theirs.example.com")


def unread(world: Any) -> None:
    world.dns_error = "the zone cannot be read"
    serve(world, "new.example.com")


def elsewhere(world: Any) -> None:
    world.tunnel(dns=DNS, grants=[{"namespaces": EVERYONE, "hostnames": ["other.test"]}])
    serve(world, "other.test")


def too_long(world: Any) -> None:
    serve(world, ".".join(["a" * 60] * 3 + ["b" * 45, "example.com"]))


def not_changed(world: Any) -> None:
    again(dns={**DNS, "policy": "create-only", "ttl": 60})(world)


def many_gone(world: Any) -> None:
    names = [f"h{number}.example.com" for number in range(25)]
    world.binding("web", "shop", *names)
    world.settle()
    world.binding("web", "shop", "h0.example.com")
    world.settle()


def withdrawn(world: Any) -> None:
    again(dns={**DNS, "onUnavailable": "Withdraw", "withdrawAfterSeconds": 60})(world)
    reporting(IDLE)(world)
    world.now += 61
    world.settle()


PARTLY = bound(rule(), rule("beyond.test", "r1"))


def aimless(world: Any) -> None:
    inside = "culvert-relay-tunnel.culvert-system.svc:7443"
    again(relay={"addresses": [inside]}, dns={**DNS, "target": {}})(world)
    bound(rule("new.example.com"))(world)


def strayed(world: Any) -> None:
    """A Tunnel's namespace that the operator no longer watches."""
    world.options = replace(world.options, watch_namespaces=("shop",))
    world.binding("web", "shop", "shop.example.com", tunnel=ObjectKey("their-system", "main"))
    world.settle()
    world.now += PATIENCE_SECONDS
    world.settle()


WORLDS: dict[tuple[str, str, str], Scene] = {
    ("Tunnel", "Accepted", "Accepted"): nothing,
    ("Tunnel", "Accepted", "NamespaceNotAllowed"): beyond,
    ("Tunnel", "Accepted", "InvalidTunnel"): again(relay={"addresses": ["no address"]}),
    ("Tunnel", "Accepted", "ConfigMapNotFound"): again(
        relay={"addresses": ["relay.example.net:443"], "caConfigMapRef": {"name": "none"}}
    ),
    ("Tunnel", "Accepted", "ConfigurationTooLarge"): too_large,
    ("Tunnel", "Accepted", "ConnectorTooOld"): reading(
        1, then=again(relay={"addresses": ["relay.example.net:443"], "proxyURL": "http://proxy:3128"})
    ),
    ("Tunnel", "Accepted", "Pending"): paused_at_first_sight,
    ("Tunnel", "CredentialsReady", "Issued"): nothing,
    ("Tunnel", "CredentialsReady", "RotationPending"): rotating,
    ("Tunnel", "CredentialsReady", "RevocationPending"): untold,
    ("Tunnel", "CredentialsReady", "Pending"): expired,
    ("Tunnel", "CredentialsReady", "SecretConflict"): foreign("Secret", "main-credential"),
    ("Tunnel", "CredentialsReady", "WriteRefused"): refused("Secret", "main-credential"),
    ("Tunnel", "ConnectorsAvailable", "Available"): nothing,
    ("Tunnel", "ConnectorsAvailable", "Pending"): deployed({}),
    ("Tunnel", "ConnectorsAvailable", "Unavailable"): deployed({"observedGeneration": 1}),
    ("Tunnel", "ConnectorsAvailable", "ChildConflict"): foreign("Deployment", "main-connector"),
    ("Tunnel", "ConnectorsAvailable", "WriteRefused"): refused("Deployment", "main-connector"),
    ("Tunnel", "Connected", "Connected"): nothing,
    ("Tunnel", "Connected", "Pending"): at_once,
    ("Tunnel", "Connected", "Unreachable"): reporting({"unlike": "a report"}),
    ("Tunnel", "Connected", "RelayUnreachable"): trouble("RelayUnreachable"),
    ("Tunnel", "Connected", "RelayRefused"): trouble("RelayRefused"),
    ("Tunnel", "Connected", "CertificateError"): trouble("CertificateError"),
    ("Tunnel", "Paused", "Paused"): annotated("paused", "true"),
    ("Tunnel", "Ready", "Ready"): nothing,
    ("Tunnel", "Ready", "Deleting"): leaving(MAIN),
    ("TunnelBinding", "Accepted", "Accepted"): nothing,
    ("TunnelBinding", "Accepted", "Pending"): claiming,
    ("TunnelBinding", "Accepted", "InvalidRule"): bound(rule("bad_host.example.com")),
    ("TunnelBinding", "Accepted", "HostnameConflict"): taken,
    ("TunnelBinding", "Accepted", "PortConflict"): port_taken,
    ("TunnelBinding", "Accepted", "HostnameNotAllowed"): bound(rule("beyond.test")),
    ("TunnelBinding", "Accepted", "NamespaceNotAllowed"): again(
        grants=[{"namespaces": {"from": "Same"}, "hostnames": ["*.example.com"]}]
    ),
    ("TunnelBinding", "Accepted", "TunnelNotFound"): beyond,
    ("TunnelBinding", "Accepted", "TunnelNotWatched"): strayed,
    ("TunnelBinding", "Accepted", "QuotaExceeded"): again(
        grants=[{"namespaces": EVERYONE, "hostnames": ["*.example.com"], "maxRules": 0}]
    ),
    ("TunnelBinding", "PartiallyInvalid", "AllRulesAccepted"): nothing,
    ("TunnelBinding", "PartiallyInvalid", "SomeRulesRejected"): PARTLY,
    ("TunnelBinding", "ResolvedRefs", "Resolved"): nothing,
    ("TunnelBinding", "ResolvedRefs", "Pending"): claiming,
    ("TunnelBinding", "ResolvedRefs", "ServiceNotFound"): without_service,
    ("TunnelBinding", "ResolvedRefs", "PortNotFound"): service(port=81),
    ("TunnelBinding", "ResolvedRefs", "ServiceNotSupported"): service(type="ExternalName"),
    ("TunnelBinding", "ResolvedRefs", "AddressNotAllowed"): not_dialled,
    ("TunnelBinding", "ResolvedRefs", "ConfigMapNotFound"): bound(
        rule(service={**SERVICE, "scheme": "https"}, originRequest={"caConfigMapRef": {"name": "none"}})
    ),
    ("TunnelBinding", "ResolvedRefs", "ConnectorTooOld"): reading(
        1, then=bound(rule(originRequest={"pathRewrite": {"replacePrefix": "/x"}}))
    ),
    ("TunnelBinding", "Programmed", "Programmed"): nothing,
    ("TunnelBinding", "Programmed", "Pending"): bound(rule("beyond.test")),
    ("TunnelBinding", "Programmed", "NoConnector"): reporting({**IDLE, "ready": False}),
    ("TunnelBinding", "Programmed", "Unreachable"): reporting({"unlike": "a report"}),
    ("TunnelBinding", "Programmed", "NotApplied"): lagging,
    ("TunnelBinding", "Programmed", "RouteRefused"): refused_by_the_relay,
    ("TunnelBinding", "DNSReady", "Published"): nothing,
    ("TunnelBinding", "DNSReady", "Disabled"): again(dns=None),
    ("TunnelBinding", "DNSReady", "Pending"): lagging,
    ("TunnelBinding", "DNSReady", "NotOwner"): not_ours,
    ("TunnelBinding", "DNSReady", "ProviderError"): unread,
    ("TunnelBinding", "DNSReady", "ZoneNotFound"): elsewhere,
    ("TunnelBinding", "DNSReady", "InvalidName"): too_long,
    ("TunnelBinding", "DNSReady", "KeptByPolicy"): not_changed,
    ("TunnelBinding", "DNSReady", "DeletionHeld"): many_gone,
    ("TunnelBinding", "DNSReady", "ApexNeedsAddresses"): bound(rule("example.com")),
    ("TunnelBinding", "DNSReady", "NoTarget"): aimless,
    ("TunnelBinding", "DNSReady", "Withdrawn"): withdrawn,
    ("TunnelBinding", "Paused", "Paused"): annotated("paused", "true"),
    ("TunnelBinding", "Ready", "Ready"): nothing,
    ("TunnelBinding", "Ready", "Deleting"): leaving(WEB),
}


@pytest.mark.parametrize("row", REASONS, ids=lambda row: f"{row.kind}-{row.type}-{row.reason}")
def test_every_reason_has_a_world_that_produces_it(world: Any, row: Reason, monkeypatch: pytest.MonkeyPatch) -> None:
    world.monkeypatch = monkeypatch
    serve(world)
    assert world.condition(WEB, "Ready") == ("True", "Ready")
    WORLDS[row.kind, row.type, row.reason](world)
    key = MAIN if row.kind == "Tunnel" else WEB
    assert world.condition(key, row.type)[1] == row.reason


def test_no_world_is_left_of_a_reason_that_has_gone() -> None:
    assert set(WORLDS) == {(row.kind, row.type, row.reason) for row in REASONS}
