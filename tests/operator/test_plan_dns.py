"""What a Tunnel's ``dns`` block decides, in the simulated world: withdrawal, adoption, the apex, moved relays."""

from __future__ import annotations

from typing import Any

from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.keys import ObjectKey

MAIN = ObjectKey("culvert-system", "main")
SHOP = "shop.example.com"
IDLE = {"ready": False, "appliedVersion": 0, "sessions": []}


def dns(**more: Any) -> dict[str, Any]:
    target = {"hostname": "relay.example.net"}
    return {"memory": {}, "zones": ["example.com"], "policy": "sync", "ttl": 300, "target": target, **more}


def test_records_are_withdrawn_after_the_configured_time_without_sessions_and_come_back(world: Any) -> None:
    world.tunnel(dns=dns(onUnavailable="Withdraw", withdrawAfterSeconds=120))
    shop = world.binding("shop", "shop", SHOP)
    world.settle()
    world.frozen = IDLE
    world.settle()
    assert world.condition(MAIN, "Connected")[0] == "False"
    assert world.plan(MAIN).requeue_after <= 120
    world.now += 119
    world.settle()
    assert world.condition(shop, "DNSReady") == ("True", "Published")
    assert len(world.zone) == 1
    world.now += 2
    world.settle()
    assert world.zone == {}
    assert world.condition(shop, "DNSReady") == ("False", "Withdrawn")
    assert world.status(shop)["publishedRecords"] == []
    assert world.routes(MAIN) != []
    world.frozen = None
    world.settle()
    assert world.condition(shop, "DNSReady") == ("True", "Published")
    assert len(world.zone) == 1


def test_more_than_twenty_records_are_withdrawn_without_asking(world: Any) -> None:
    world.tunnel(dns=dns(onUnavailable="Withdraw", withdrawAfterSeconds=60))
    for number in range(25):
        world.binding(f"b{number}", "shop", f"h{number}.example.com")
    world.settle()
    assert len(world.zone) == 25
    world.frozen = IDLE
    world.settle()
    world.now += 61
    world.settle()
    assert world.zone == {}


def test_a_connector_that_was_not_heard_yet_may_well_serve_and_withdraws_nothing(world: Any) -> None:
    world.tunnel(dns=dns(onUnavailable="Withdraw", withdrawAfterSeconds=60))
    world.binding("shop", "shop", SHOP)
    world.settle()
    world.frozen = IDLE
    world.settle()
    world.now += 61
    world.unheard = frozenset({"pod-1"})
    world.settle()
    assert len(world.zone) == 1
    world.unheard = frozenset()
    world.settle()
    assert world.zone == {}


def test_connectors_that_cannot_be_asked_are_no_evidence_for_a_withdrawal(world: Any) -> None:
    world.tunnel(dns=dns(onUnavailable="Withdraw", withdrawAfterSeconds=60))
    world.binding("shop", "shop", SHOP)
    world.settle()
    world.frozen = IDLE
    world.settle()
    world.frozen = {"not": "a report"}
    world.settle()
    world.now += 3600
    world.settle()
    assert len(world.zone) == 1
    world.frozen = IDLE
    world.settle()
    world.now += 59
    world.settle()
    assert len(world.zone) == 1
    world.now += 2
    world.settle()
    assert world.zone == {}


def test_without_withdraw_records_stay_whatever_connectors_do(world: Any) -> None:
    world.binding("shop", "shop", SHOP)
    world.settle()
    world.frozen = IDLE
    world.settle()
    world.now += 86400
    world.settle()
    assert len(world.zone) == 1


def test_an_unmarked_record_with_our_value_is_adopted_only_where_the_tunnel_says_so(world: Any) -> None:
    bare = Endpoint(SHOP, "CNAME", ("relay.example.net",), 60)
    world.zone[bare.key] = bare
    shop = world.binding("shop", "shop", SHOP)
    world.settle()
    assert world.condition(shop, "DNSReady") == ("False", "NotOwner")
    assert world.zone == {bare.key: bare}
    world.tunnel(dns=dns(adopt="SameValue"))
    world.settle()
    assert world.condition(shop, "DNSReady") == ("True", "Published")
    assert world.zone[bare.key].resource == "tunnelbinding/shop/shop"
    world.delete(shop)
    world.settle()
    assert world.zone == {}


def test_an_unmarked_record_with_another_value_is_never_adopted(world: Any) -> None:
    bare = Endpoint(SHOP, "CNAME", ("elsewhere.example.net",), 60)
    world.zone[bare.key] = bare
    world.tunnel(dns=dns(adopt="SameValue"))
    shop = world.binding("shop", "shop", SHOP)
    world.settle()
    assert world.condition(shop, "DNSReady") == ("False", "NotOwner")
    assert world.zone == {bare.key: bare}


def test_an_apex_gets_addresses_instead_of_a_cname_where_the_tunnel_names_some(world: Any) -> None:
    apex = world.binding("apex", "shop", "example.com", SHOP)
    world.settle()
    assert world.condition(apex, "DNSReady") == ("False", "ApexNeedsAddresses")
    assert "dns.target.addresses" in world.message(apex, "DNSReady")
    assert set(world.zone) == {(SHOP, "CNAME")}
    addresses = ["relay.example.net:443", "192.0.2.7:443", "[2001:db8::7]:443"]
    world.tunnel(relay={"addresses": addresses}, dns=dns())
    world.settle()
    assert world.condition(apex, "DNSReady") == ("True", "Published")
    assert {key: e.targets for key, e in world.zone.items()} == {
        (SHOP, "CNAME"): ("relay.example.net",),
        ("example.com", "A"): ("192.0.2.7",),
        ("example.com", "AAAA"): ("2001:db8::7",),
    }


def test_a_relay_that_moves_takes_all_records_along_in_one_round(world: Any) -> None:
    for number in range(30):
        world.binding(f"b{number}", "shop", f"h{number}.example.com")
    world.settle()
    world.tunnel(dns=dns(target={"addresses": ["192.0.2.9"]}))
    planned = world.plan(MAIN)
    while not planned.dns:
        world.step(MAIN)
        planned = world.plan(MAIN)
    assert [len(zone.changes) for zone in planned.dns] == [30]
    world.settle()
    assert {e.targets for e in world.zone.values()} == {("192.0.2.9",)}
    assert {e.type for e in world.zone.values()} == {"A"}


def test_records_never_point_at_the_name_of_a_service_unless_that_is_what_the_tunnel_asks_for(world: Any) -> None:
    inside = "culvert-relay-tunnel.culvert-system.svc.cluster.local"
    world.tunnel(relay={"addresses": [f"{inside}:7443"]}, dns=dns(target={}))
    shop = world.binding("shop", "shop", SHOP)
    world.settle()
    assert world.condition(shop, "DNSReady") == ("False", "NoTarget")
    assert "dns.target" in world.message(shop, "DNSReady")
    assert world.condition(shop, "Ready") == ("False", "NoTarget")
    assert world.zone == {}
    world.tunnel(relay={"addresses": [f"{inside}:7443", "relay.example.net:443"]}, dns=dns(target={}))
    world.settle()
    assert [e.targets for e in world.zone.values()] == [("relay.example.net",)]
    # What is published stays where it is, and what is asked for by name is done.
    world.tunnel(relay={"addresses": [f"{inside}:7443"]}, dns=dns(target={"hostname": inside}))
    world.settle()
    assert [e.targets for e in world.zone.values()] == [(inside,)]
    world.tunnel(relay={"addresses": [f"{inside}:7443"]}, dns=dns(target={}))
    world.settle()
    assert world.condition(shop, "DNSReady") == ("True", "Published")
    world.delete(shop)
    world.settle()
    assert world.zone == {}
