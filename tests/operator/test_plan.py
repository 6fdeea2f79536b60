"""The journey of Tunnels and bindings through the planner, carried out in a simulated world."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from culvert_operator import compile as compiling
from culvert_operator.api.claim import milliseconds
from culvert_operator.api.cluster import Namespace
from culvert_operator.conditions.reasons import BY_NAME, REASONS
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.plan import plan

MAIN = ObjectKey("culvert-system", "main")
TARGET = {"hostname": "relay.example.net"}


def dns(**more: Any) -> dict[str, Any]:
    return {"memory": {}, "zones": ["example.com"], "policy": "sync", "ttl": 300, "target": TARGET, **more}


def test_a_binding_becomes_ready_and_the_world_comes_to_rest(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    for name in ("Accepted", "ResolvedRefs", "Programmed", "DNSReady", "Ready"):
        assert world.condition(shop, name)[0] == "True", name
    assert world.condition(shop, "PartiallyInvalid")[0] == "False"
    for name in ("Accepted", "CredentialsReady", "ConnectorsAvailable", "Connected", "Ready"):
        assert world.condition(MAIN, name)[0] == "True", name
    assert world.status(shop)["hostnamesText"] == "shop.example.com"
    assert world.status(MAIN)["connectors"]["text"] == "2/2"
    assert world.zone["shop.example.com", "CNAME"].targets == ("relay.example.net",)
    before = world.writes.copy()
    for _ in range(3):
        for key in world.tunnel_keys():
            assert world.step(key).is_empty
    assert world.writes == before
    assert world.conflicts == 0


def test_conditions_are_there_before_anything_is_known(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.intercept = lambda what: what != "claim"
    for _ in range(3):
        world.step(MAIN)
    assert world.condition(shop, "Accepted") == ("Unknown", "Pending")
    assert world.condition(shop, "Ready") == ("Unknown", "Pending")


def test_nothing_is_programmed_because_a_config_map_was_written(world: Any) -> None:
    world.frozen = {"ready": True, "appliedVersion": 0, "sessions": []}
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    assert world.routes(MAIN) == ["shop.example.com shop/shop/r0"]
    assert world.condition(shop, "Programmed") == ("False", "NotApplied")
    assert world.condition(shop, "DNSReady") == ("False", "Pending")
    assert world.zone == {}
    world.frozen = None
    world.settle()
    assert world.condition(shop, "Ready") == ("True", "Ready")


def lagging(world: Any) -> dict[str, Any]:
    """Connectors that stay with the configuration that they have now."""
    version = world.document(MAIN).version
    session = {"relay": "relay-1", "state": "connected", "probed": True, "grantVersion": version}
    return {"ready": True, "appliedVersion": version, "sessions": [session]}


def test_a_new_hostname_is_not_served_because_the_old_one_was(world: Any) -> None:
    shop = world.binding("shop", "shop", "old.example.com")
    world.settle()
    world.frozen = lagging(world)
    world.binding("shop", "shop", "new.example.com")
    world.settle()
    assert world.condition(shop, "Programmed") == ("False", "NotApplied")
    assert "new.example.com" not in {e.name for e in world.zone.values()}


def test_a_rule_that_takes_a_name_over_is_not_served_because_its_neighbour_was(world: Any) -> None:
    first = world.binding("first", "alpha", "b.example.com/x")
    world.settle()
    both = world.binding("both", "alpha", "a.example.com", "b.example.com/x")
    world.settle()
    assert world.condition(both, "Programmed") == ("True", "Programmed")
    world.frozen = lagging(world)
    world.delete(first)
    world.settle()
    assert [r["accepted"] for r in world.status(both)["rules"]] == [True, True]
    assert world.condition(both, "Programmed") == ("False", "NotApplied")


def test_a_binding_is_proven_by_the_version_that_held_it_first(world: Any) -> None:
    world.settle()
    world.frozen = lagging(world)
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    held = lagging(world)
    world.binding("busy", "shop", "busy.example.com")  # others go on changing the configuration
    world.settle()
    assert world.condition(shop, "Programmed") == ("False", "NotApplied")
    world.frozen = held
    world.settle()
    assert world.document(MAIN).version > held["appliedVersion"]
    assert world.condition(shop, "Ready") == ("True", "Ready")


def test_a_refused_hostname_reaches_its_binding_only(world: Any) -> None:
    world.refused = [{"hostname": "bad.example.com", "relay": "relay-1", "reason": "not_in_issuer"}]
    bad = world.binding("bad", "shop", "bad.example.com")
    good = world.binding("good", "shop", "good.example.com")
    world.settle()
    assert world.condition(bad, "Programmed") == ("False", "RouteRefused")
    assert "not_in_issuer" in world.message(bad, "Programmed")
    assert world.condition(good, "Ready") == ("True", "Ready")
    assert {e.name for e in world.zone.values()} == {"good.example.com"}


def test_another_bindings_edit_leaves_the_status_of_this_one_alone(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    before = world.bindings[shop]["metadata"]["resourceVersion"]
    world.binding("other", "shop", "other.example.com")
    world.settle()
    assert world.bindings[shop]["metadata"]["resourceVersion"] == before


def test_connectors_that_come_and_go_do_not_undo_dns(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.frozen = {"ready": False, "appliedVersion": 0, "sessions": []}
    world.settle()
    assert world.condition(shop, "Programmed") == ("False", "NoConnector")
    assert world.condition(shop, "DNSReady") == ("True", "Published")
    assert len(world.zone) == 1
    world.frozen = {"not": "a report"}
    world.settle()
    assert world.condition(shop, "Programmed") == ("Unknown", "Unreachable")
    assert world.condition(MAIN, "Connected") == ("Unknown", "Unreachable")
    assert len(world.zone) == 1


def test_a_rule_whose_service_is_missing_answers_503_and_says_so(world: Any) -> None:
    rules = [
        {"name": "web", "hostname": "shop.example.com", "service": {"name": "web", "port": 80}},
        {"name": "api", "hostname": "api.example.com", "service": {"name": "missing", "port": 80}},
    ]
    shop = world.binding("shop", "shop", rules=rules)
    world.settle()
    document = world.document(MAIN)
    services = {r.hostname: r.service for r in document.rules}
    assert type(services["api.example.com"]).__name__ == "UnavailableService"
    assert world.condition(shop, "ResolvedRefs") == ("False", "ServiceNotFound")
    assert world.condition(shop, "Accepted") == ("True", "Accepted")
    assert world.condition(shop, "Ready") == ("False", "ServiceNotFound")
    world.service("missing", "shop")
    world.settle()
    assert world.condition(shop, "Ready") == ("True", "Ready")


def test_a_bad_rule_rejects_itself_only(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com", "not_a_host.example.com", "elsewhere.test")
    world.settle()
    assert world.routes(MAIN) == ["shop.example.com shop/shop/r0"]
    assert world.condition(shop, "Accepted") == ("True", "Accepted")
    assert world.condition(shop, "PartiallyInvalid") == ("True", "SomeRulesRejected")
    assert world.condition(shop, "Ready") == ("False", "SomeRulesRejected")
    assert [(r["accepted"], r["reason"]) for r in world.status(shop)["rules"]] == [
        (True, "Accepted"),
        (False, "InvalidRule"),
        (False, "HostnameNotAllowed"),
    ]


def test_d29_of_fifty_bindings_one_bad_one_leaves_all_others_alone(world: Any) -> None:
    good = [world.binding(f"good{i}", "shop", f"good{i}.example.com") for i in range(25)]
    bad = world.binding("bad", "shop", "evilexample.com")
    good += [world.binding(f"good{i}", "shop", f"good{i}.example.com") for i in range(25, 49)]
    world.settle()
    assert world.condition(bad, "Accepted") == ("False", "HostnameNotAllowed")
    assert all(world.condition(key, "Ready")[0] == "True" for key in good)
    assert world.status(MAIN)["bindings"] == {"accepted": 49, "rejected": 1}


def test_deleting_goes_dns_then_route_then_claim_then_the_object(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.history.clear()
    world.delete(shop)
    world.settle()
    kinds = [line.rsplit(" ", 1)[0] for line in world.history]
    assert kinds == ["dns delete", "configured over", "claim gone", "gone"]
    assert (world.bindings, world.claims, world.zone, world.routes(MAIN)) == ({}, {}, {}, [])


def test_d11_the_route_stays_while_its_record_cannot_be_deleted(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    other = world.binding("other", "shop", "other.example.com")
    world.settle()
    world.dns_error = "the zone cannot be read"
    world.delete(shop)
    world.binding("third", "shop", "third.example.com")
    world.settle()
    assert shop in world.bindings
    assert world.condition(shop, "DNSReady") == ("False", "ProviderError")
    assert world.condition(other, "Ready") == ("True", "Ready")
    assert [r.split()[0] for r in world.routes(MAIN)] == ["other.example.com", "shop.example.com", "third.example.com"]
    world.dns_error = None
    world.settle()
    assert shop not in world.bindings
    assert "shop.example.com" not in {e.name for e in world.zone.values()}


def test_d08_a_failed_write_is_one_names_trouble(world: Any) -> None:
    world.dns_failures = {"shop.example.com": "REFUSED by the server"}
    world.intercept = lambda what: what != "dns"
    shop = world.binding("shop", "shop", "shop.example.com")
    for _ in range(8):
        world.step(MAIN)
    assert world.condition(shop, "DNSReady") == ("False", "ProviderError")
    assert "REFUSED" in world.message(shop, "DNSReady")


def test_d11_an_abandoned_record_lets_the_object_go_and_is_named_in_an_event(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.dns_error = "the provider is gone for good"
    world.delete(shop)
    world.settle()
    assert shop in world.bindings
    world.bindings[shop]["metadata"]["annotations"] = {"culvert.dev/abandon-dns-records": "true"}
    world.settle()
    assert shop not in world.bindings
    left = [e for e in world.events if e.reason == "RecordsLeft"]
    assert len(left) == 1
    assert "shop.example.com CNAME" in left[0].message


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
def test_deletion_policy_decides_about_records_of_what_is_deleted(simulate: Any, policy: str) -> None:
    world = simulate()
    world.tunnel(dns=dns(), deletionPolicy=policy)
    shop = world.binding("shop", "shop", "shop.example.com")
    other = world.binding("other", "shop", "other.example.com")
    world.settle()
    world.delete(shop)
    world.settle()
    kept = {"Retain": {"shop.example.com", "other.example.com"}, "Delete": {"other.example.com"}}
    assert {e.name for e in world.zone.values()} == kept[policy]
    assert shop not in world.bindings
    world.delete(MAIN)
    world.settle()
    assert {e.name for e in world.zone.values()} == (kept["Retain"] if policy == "Retain" else set())
    assert MAIN not in world.tunnels
    assert world.condition(other, "Accepted") == ("False", "TunnelNotFound")
    assert world.claims == {}
    assert world.status(other)["tunnels"] == []


def test_renaming_a_hostname_keeps_the_old_route_until_its_record_is_gone(world: Any) -> None:
    shop = world.binding("shop", "shop", "old.example.com")
    world.settle()
    world.intercept = lambda what: what != "dns"
    world.binding("shop", "shop", "new.example.com")
    for _ in range(8):
        world.step(MAIN)
    assert [r.split()[0] for r in world.routes(MAIN)] == ["new.example.com", "old.example.com"]
    assert {p["name"] for p in world.status(shop)["publishedRecords"]} == {"new.example.com", "old.example.com"}
    world.intercept = lambda what: True
    world.settle()
    assert world.routes(MAIN) == ["new.example.com shop/shop/r0"]
    assert {e.name for e in world.zone.values()} == {"new.example.com"}
    assert [c["spec"]["hostname"] for c in world.claims.values()] == ["new.example.com"]


def test_moving_to_another_tunnel_ends_clean(world: Any) -> None:
    second = world.tunnel("second", dns=dns())
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.binding("shop", "shop", "shop.example.com", tunnel=second)
    world.settle()
    assert world.routes(MAIN) == []
    assert world.routes(second) == ["shop.example.com shop/shop/r0"]
    assert world.status(shop)["tunnels"] == ["culvert-system/second"]
    assert [p["tunnel"] for p in world.status(shop)["publishedRecords"]] == ["culvert-system/second"]
    assert len(world.zone) == 1
    assert [c["spec"]["tunnel"] for c in world.claims.values()] == ["culvert-system/second"]


def test_d12_a_binding_whose_tunnel_has_gone_can_be_deleted(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    del world.tunnels[MAIN]  # its finalizer was removed by force
    world.delete(shop)
    world.settle()
    assert world.bindings == {}
    assert world.claims == {}
    assert [e.reason for e in world.events].count("RecordsLeft") == 1


def test_a_binding_without_tunnel_is_told_so(simulate: Any) -> None:
    world = simulate()
    shop = world.binding("shop", "shop", "shop.example.com")
    del world.bindings[shop]["spec"]["tunnelRef"]
    world.settle()
    assert world.condition(shop, "Accepted") == ("False", "TunnelNotFound")
    assert "default" in world.message(shop, "Accepted")
    assert world.claims == {}


def test_the_default_tunnel_serves_bindings_that_name_none(simulate: Any) -> None:
    world = simulate(default_tunnel=MAIN)
    world.tunnel()
    shop = world.binding("shop", "shop", "shop.example.com")
    del world.bindings[shop]["spec"]["tunnelRef"]
    world.settle()
    assert world.condition(shop, "Ready") == ("True", "Ready")
    assert world.condition(shop, "DNSReady") == ("True", "Disabled")


def test_d18_a_service_that_connectors_do_not_dial_is_told_by_its_binding_alone(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com", "api.example.com")
    other = world.binding("other", "shop", "other.example.com")
    world.settle()
    before = world.document(MAIN)
    said = "the address of web.shop.svc.cluster.local is not allowed here: 169.254.169.254 is link-local"
    world.refused_origins = [{"rule": "shop/shop/r1", "reason": "address_not_allowed", "message": said}]
    world.settle()
    assert world.condition(shop, "ResolvedRefs") == ("False", "AddressNotAllowed")
    assert (
        world.message(shop, "ResolvedRefs")
        == f"r1: A connector does not dial the Service: {said}. The rule answers 502."
    )
    assert world.condition(shop, "Ready") == ("False", "AddressNotAllowed")
    assert [(r["accepted"], r["reason"]) for r in world.status(shop)["rules"]] == [
        (True, "Accepted"),
        (True, "AddressNotAllowed"),
    ]
    assert world.condition(other, "Ready") == ("True", "Ready")
    assert world.document(MAIN) == before, "nobody would look again at a rule that is not dialled"
    world.refused_origins = []
    world.settle()
    assert world.condition(shop, "Ready") == ("True", "Ready")


def test_a_tunnel_where_none_may_stand_is_not_served(simulate: Any) -> None:
    world = simulate()
    key = world.tunnel("mine", "tenant", dns=dns())
    shop = world.binding("shop", "tenant", "shop.example.com", tunnel=key)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "NamespaceNotAllowed")
    assert world.condition(shop, "Accepted") == ("False", "TunnelNotFound")
    told = [(c["type"], c["status"]) for c in world.status(key)["conditions"]]
    assert told == [
        ("Accepted", "False"),
        ("CredentialsReady", "Unknown"),
        ("ConnectorsAvailable", "Unknown"),
        ("Connected", "Unknown"),
        ("Ready", "False"),
    ]
    assert (world.children, world.claims, world.zone) == ({}, {}, {})
    assert "finalizers" not in world.tunnels[key]["metadata"]


def test_a_tunnel_that_is_no_longer_allowed_keeps_what_it_has(simulate: Any) -> None:
    world = simulate(tunnel_namespaces=("tenant",))
    key = world.tunnel("mine", "tenant", dns=dns())
    shop = world.binding("shop", "tenant", "shop.example.com", tunnel=key)
    other = world.binding("other", "tenant", "other.example.com", tunnel=key)
    world.settle()
    routes = world.routes(key)
    world.options = simulate().options
    world.settle()
    assert world.routes(key) == routes
    assert len(world.zone) == len(world.claims) == 2
    assert world.condition(shop, "Accepted") == ("False", "TunnelNotFound")
    world.delete(other)
    world.settle()
    assert other not in world.bindings
    world.delete(key)
    world.settle()
    assert key not in world.tunnels
    assert world.claims == {}


def test_after_a_deletion_timestamp_no_child_is_applied(world: Any) -> None:
    world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.children.clear()  # the namespace is going
    world.dns_error = "the zone cannot be read"
    world.delete(MAIN)
    world.settle()
    assert world.children == {}
    planned = world.plan(MAIN)
    assert (planned.apply, planned.credential, planned.configuration) == ((), None, None)
    assert MAIN in world.tunnels
    world.dns_error = None
    world.settle()
    assert MAIN not in world.tunnels


def test_d12_in_a_namespace_that_is_going_nothing_is_applied_and_the_tunnel_is_let_go_in_time(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    world.namespaces["culvert-system"] = Namespace("culvert-system", {}, terminating=True)
    world.children.clear()
    world.settle()
    assert world.children == {}
    world.delete(MAIN)
    world.dns_error = "the zone's ConfigMap has gone"
    world.now = milliseconds(world.tunnels[MAIN]["metadata"]["deletionTimestamp"]) / 1000 + 60
    world.settle()
    assert MAIN in world.tunnels
    assert world.plan(MAIN).requeue_after <= 30
    world.now += 61
    world.settle()
    assert MAIN not in world.tunnels
    assert [e.reason for e in world.events if e.key == shop].count("RecordsLeft") == 1
    assert world.status(shop)["publishedRecords"] == []


def test_a_grant_that_is_taken_back_ends_clean(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    grants = [{"namespaces": {"from": "Same"}, "hostnames": ["*.example.com"], "maxRules": 9}]
    world.tunnel(dns=dns(), grants=grants)
    world.settle()
    assert world.condition(shop, "Accepted") == ("False", "NamespaceNotAllowed")
    assert (world.zone, world.claims, world.routes(MAIN)) == ({}, {}, [])


def test_d30_a_suspicious_mass_deletion_stops_and_asks(world: Any) -> None:
    keys = [world.binding(f"b{i}", "shop", f"h{i}.example.com") for i in range(25)]
    world.settle()
    for key in keys:
        world.delete(key)
    world.settle()
    assert len(world.zone) == len(world.bindings) == 25
    figures = world.plan(MAIN).dns_figures
    assert (figures.owned, figures.held, figures.refused) == (25, 25, 0)
    assert world.condition(keys[0], "DNSReady") == ("False", "DeletionHeld")
    assert [e.reason for e in world.events if e.key == keys[0]][-1] == "DeletionHeld"
    assert "culvert.dev/allow-mass-deletion=25" in world.message(keys[0], "DNSReady")
    world.tunnels[MAIN]["metadata"]["annotations"] = {"culvert.dev/allow-mass-deletion": "24"}
    world.settle()
    assert len(world.zone) == 25
    assert len(world.routes(MAIN)) == 25
    world.tunnels[MAIN]["metadata"]["annotations"] = {"culvert.dev/allow-mass-deletion": "25"}
    world.settle()
    assert (world.zone, world.bindings) == ({}, {})


def test_deleting_a_tunnel_says_that_all_its_records_are_to_go(world: Any) -> None:
    for i in range(25):
        world.binding(f"b{i}", "shop", f"h{i}.example.com")
    world.settle()
    world.delete(MAIN)
    world.settle()
    assert world.zone == {}
    assert MAIN not in world.tunnels


def test_d27_children_that_were_edited_or_deleted_come_back(world: Any) -> None:
    world.settle()
    where = ("culvert-system", ChildKey("Deployment", "main-connector"))
    world.children[where]["spec"]["replicas"] = 7
    world.children[where]["metadata"]["annotations"]["mesh.example/injected"] = "yes"
    world.children[where]["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})
    del world.children["culvert-system", ChildKey("PodDisruptionBudget", "main-connector")]
    planned = world.step(MAIN)
    assert sorted(a.key.kind for a in planned.apply) == ["Deployment", "PodDisruptionBudget"]
    world.settle()
    assert world.children[where]["spec"]["replicas"] == 2
    assert world.children[where]["metadata"]["annotations"]["mesh.example/injected"] == "yes"


def test_a_deleted_config_map_comes_back_with_a_higher_version(world: Any) -> None:
    world.binding("shop", "shop", "shop.example.com")
    world.settle()
    version = world.document(MAIN).version
    routes = world.routes(MAIN)
    world.now -= 86_400  # and the clock went back
    del world.children["culvert-system", ChildKey("ConfigMap", "main-config")]
    world.settle()
    assert world.document(MAIN).version > version
    assert world.routes(MAIN) == routes


def test_a_config_map_that_was_edited_is_made_anew(world: Any) -> None:
    world.binding("shop", "shop", "shop.example.com")
    world.settle()
    stored = world.children["culvert-system", ChildKey("ConfigMap", "main-config")]
    version = world.document(MAIN).version
    stored["binaryData"]["config.json.gz"] = "AAAA"
    world.settle()
    assert world.document(MAIN).version > version
    stored["metadata"]["labels"].pop("app.kubernetes.io/name")
    planned = world.step(MAIN)
    assert planned.configuration is None  # nothing of the content has changed
    assert [a.key.kind for a in planned.apply] == ["ConfigMap"]
    world.settle()


def test_a_secret_of_somebody_else_is_never_written(simulate: Any) -> None:
    world = simulate()
    world.tunnel()
    foreign = {"metadata": {"name": "main-credential", "resourceVersion": "1"}, "data": {"password": "aHVudGVyMg=="}}
    world.children["culvert-system", ChildKey("Secret", "main-credential")] = json.loads(json.dumps(foreign))
    world.settle()
    assert world.children["culvert-system", ChildKey("Secret", "main-credential")] == foreign
    assert world.condition(MAIN, "CredentialsReady") == ("False", "SecretConflict")


def test_a_deployment_of_somebody_else_is_never_written(simulate: Any) -> None:
    world = simulate()
    world.tunnel()
    owner = {"uid": "another", "controller": True}
    foreign = {"metadata": {"name": "main-connector", "resourceVersion": "1", "ownerReferences": [owner]}}
    world.children["culvert-system", ChildKey("Deployment", "main-connector")] = foreign
    world.settle()
    assert "spec" not in foreign
    assert world.condition(MAIN, "ConnectorsAvailable") == ("False", "ChildConflict")


def test_a_refused_write_is_shown(world: Any) -> None:
    world.settle()
    world.failures = {ChildKey("Deployment", "main-connector"): "exceeded quota"}
    world.settle()
    assert world.condition(MAIN, "ConnectorsAvailable") == ("False", "WriteRefused")
    assert "exceeded quota" in world.message(MAIN, "ConnectorsAvailable")


def test_a_missing_relay_ca_keeps_the_last_good_configuration_but_rules_may_leave(simulate: Any) -> None:
    world = simulate()
    pem = _certificate()
    world.config_maps[ObjectKey("culvert-system", "relay-ca")] = {"ca.crt": pem}
    relay = {"addresses": ["relay.example.net:443"], "caConfigMapRef": {"name": "relay-ca", "key": "ca.crt"}}
    world.tunnel(relay=relay)
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    assert world.document(MAIN).relay.ca == pem
    world.config_maps.clear()
    world.delete(shop)
    world.settle()
    assert world.condition(MAIN, "Accepted") == ("False", "ConfigMapNotFound")
    assert world.document(MAIN).relay.ca == pem
    assert world.routes(MAIN) == []
    assert world.bindings == {}


def test_nothing_runs_before_there_is_something_to_mount(simulate: Any) -> None:
    world = simulate()
    world.tunnel(relay={"addresses": ["relay.example.net:443"], "caConfigMapRef": {"name": "relay-ca"}})
    world.settle()
    kinds = {child.kind for _, child in world.children}
    assert "Deployment" not in kinds
    assert "ConfigMap" not in kinds
    assert world.condition(MAIN, "Ready") == ("False", "ConfigMapNotFound")


def test_credential_and_grant_are_renewed_daily_and_pods_are_not_touched(world: Any) -> None:
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    first = world.status(MAIN)["credential"]["keyId"]
    version = world.document(MAIN).version
    pods = json.dumps(world.children["culvert-system", ChildKey("Deployment", "main-connector")]["spec"])
    waits = world.plan(MAIN).requeue_after
    assert 0 < waits <= 300  # DNS is looked at sooner than a renewal is due
    world.now += 86_400 - 60
    assert world.plan(MAIN).is_empty
    world.now += 61
    world.settle()
    assert world.status(MAIN)["credential"]["keyId"] != first
    assert world.document(MAIN).version > version
    assert json.dumps(world.children["culvert-system", ChildKey("Deployment", "main-connector")]["spec"]) == pods
    assert world.condition(shop, "Ready") == ("True", "Ready")


def test_events_tell_transitions_once(world: Any) -> None:
    world.binding("shop", "shop", "shop.example.com")
    world.settle()
    told = [(e.kind, e.reason) for e in world.events]
    assert told.count(("TunnelBinding", "Ready")) == 1
    assert told.count(("Tunnel", "Ready")) == 1
    world.settle()
    assert [(e.kind, e.reason) for e in world.events] == told


def test_every_condition_that_is_ever_written_is_in_the_table_of_reasons(simulate: Any) -> None:
    world = simulate()
    world.tunnel(dns=dns())
    world.binding("a", "shop", "shop.example.com", "bad_name", "elsewhere.test")
    world.binding("b", "other", "shop.example.com")
    rules = [{"name": "x", "hostname": "x.example.com", "service": {"name": "no", "port": 1}}]
    world.binding("c", "shop", rules=rules)
    world.binding("d", "shop", "d.example.com", tunnel=ObjectKey("culvert-system", "none"))
    seen = set()
    reports = [{"ready": True, "appliedVersion": 0, "sessions": []}, {"ready": False}, {"no": "report"}, None]
    for report in reports:
        world.frozen = report
        for _ in range(6):
            for key in world.tunnel_keys():
                world.step(key)
            for kind, store in (("Tunnel", world.tunnels), ("TunnelBinding", world.bindings)):
                for item in store.values():
                    for c in item.get("status", {}).get("conditions", ()):
                        seen.add((kind, c["type"], c["reason"]))
    loose = {row.reason for row in REASONS}
    unknown = {s for s in seen if s not in BY_NAME and not (s[1] == "Ready" and s[2] in loose)}
    assert not unknown
    assert len(seen) > 20


def test_d26_rules_beyond_what_a_config_map_holds_leave_the_last_configuration_in_force(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = world.binding("first", "shop", "first.example.com")
    world.settle()
    before = world.document(MAIN)
    # Random names do not compress: what fits now, and a little more.
    names = [f"{random.Random(n).randbytes(20).hex()}.example.com" for n in range(60)]
    monkeypatch.setattr(compiling, "MAX_CONFIG_BYTES", 3000)
    big = world.binding("big", "shop", *names)
    world.settle()
    assert world.condition(MAIN, "Accepted") == ("False", "ConfigurationTooLarge")
    assert "spread the bindings over several Tunnels" in world.message(MAIN, "Accepted")
    assert world.document(MAIN) == before
    assert world.condition(first, "Ready")[0] == "True"
    assert world.condition(big, "Programmed") == ("False", "Pending")
    world.binding("big", "shop", "big.example.com")
    world.settle()
    assert world.condition(MAIN, "Accepted") == ("True", "Accepted")
    assert world.condition(big, "Ready")[0] == "True"


def test_d30_bindings_that_vanish_without_a_word_cost_no_record(world: Any) -> None:
    for number in range(20):
        world.binding(f"b{number}", "shop", f"h{number}.example.com")
    world.settle()
    records, kept = dict(world.zone), dict(world.bindings)
    assert len(records) == 20
    world.bindings.clear()
    world.settle()
    assert world.zone == records
    world.bindings.update(kept)
    world.settle()
    assert world.zone == records
    assert all(world.condition(key, "Ready")[0] == "True" for key in kept)


def test_many_bindings_settle_in_few_rounds_and_then_plan_nothing(simulate: Any) -> None:
    world = simulate()
    world.tunnel(grants=[{"namespaces": {"from": "All"}, "hostnames": ["*.example.com"], "maxRules": 5000}])
    for number in range(300):
        world.binding(f"b{number:04d}", f"ns{number % 20}", f"h{number}.example.com")
    assert world.settle(rounds=10) <= 8
    snapshot = world.snapshot(MAIN)
    assert plan(snapshot).is_empty
    assert len(world.document(MAIN).rules) == 300


def _certificate() -> str:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    start = datetime(2025, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=1))
    return builder.sign(key, None).public_bytes(Encoding.PEM).decode()


def test_d02_a_configuration_that_was_never_stored_is_not_waited_for(world: Any) -> None:
    """Its write conflicted with an earlier one whose answer was lost; the statuses had been written all the same."""
    shop = world.binding("shop", "shop", "shop.example.com")
    world.settle()
    stored = world.document(MAIN).version
    status = world.bindings[shop]["status"]
    status["configVersion"] = stored + 5_000
    for condition in status["conditions"]:
        if condition["type"] in ("Programmed", "Ready"):
            condition |= {"status": "False", "reason": "NotApplied"}
    world.settle()
    assert world.document(MAIN).version == stored
    assert world.status(shop)["configVersion"] == stored
    assert world.condition(shop, "Ready")[0] == "True"
