"""Who holds a hostname: first come, first kept, in every spelling, and what happens when the holder leaves."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_operator.api.claim import (
    Claim,
    ClaimPath,
    Former,
    Keeps,
    Waiter,
    claim_body,
    claim_name,
    parse_claim,
    timestamp,
)
from culvert_operator.compile import name_of
from culvert_operator.keys import ObjectKey
from culvert_operator.register import Register
from culvert_operator.succession import PASSING_SECONDS

from .consistency import contradictions

MAIN = ObjectKey("culvert-system", "main")
DNS = {
    "memory": {},
    "zones": ["example.com"],
    "policy": "sync",
    "ttl": 300,
    "target": {"hostname": "relay.example.net"},
}


def claims(world: Any) -> dict[str, Any]:
    return {c["spec"]["hostname"]: c["spec"] for c in world.claims.values()}


def holder(world: Any, hostname: str) -> str:
    return str(claims(world)[hostname]["owner"]["namespace"])


@pytest.mark.parametrize(
    "spelling", ["shop.example.com", "SHOP.Example.COM", "shop.example.com.", "*.example.com", "*.shop.example.com"]
)
def test_d14_the_first_claim_wins_in_every_spelling_and_the_winner_is_not_named(world: Any, spelling: str) -> None:
    first = world.binding("first", "alpha", "shop.example.com" if "*" not in spelling else "a.shop.example.com")
    world.settle()
    second = world.binding("second", "beta", spelling)
    world.settle()
    assert world.condition(first, "Ready") == ("True", "Ready")
    assert world.condition(second, "Accepted") == ("False", "HostnameConflict")
    assert "alpha" not in world.message(second, "Accepted")
    assert all("beta" not in route for route in world.routes(MAIN))
    assert world.plan(MAIN).requeue_after <= 60


@pytest.mark.parametrize("spelling", ["xn--bcher-kva.example.com", "BÜCHER.example.com.", "XN--BCHER-KVA.example.com"])
def test_d14_an_international_name_is_one_name_however_it_is_written(world: Any, spelling: str) -> None:
    world.binding("first", "alpha", "bücher.example.com")
    world.settle()
    second = world.binding("second", "beta", spelling)
    world.settle()
    assert world.condition(second, "Accepted") == ("False", "HostnameConflict")
    assert set(claims(world)) == {"xn--bcher-kva.example.com"}


@pytest.mark.parametrize("below", ["shop.example.com", "a.b.example.com", "*.b.example.com"])
def test_d16_a_wildcard_reserves_its_subtree_against_other_namespaces(world: Any, below: str) -> None:
    world.binding("wild", "alpha", "*.example.com")
    world.settle()
    other = world.binding("other", "beta", below)
    mine = world.binding("mine", "alpha", below)
    apex = world.binding("apex", "beta", "example.com")
    world.settle()
    assert world.condition(other, "Accepted") == ("False", "HostnameConflict")
    assert world.condition(mine, "Ready") == ("True", "Ready")
    assert world.condition(apex, "Programmed") == ("True", "Programmed")


def test_d15_an_old_object_cannot_take_a_newer_name(world: Any) -> None:
    old = world.binding("old", "alpha", "mine.example.com")
    world.settle()
    new = world.binding("new", "beta", "new.example.com")
    world.settle()
    world.binding("old", "alpha", "new.example.com")
    world.settle()
    assert world.condition(new, "Ready") == ("True", "Ready")
    assert world.condition(old, "Accepted") == ("False", "HostnameConflict")
    assert "mine.example.com" not in claims(world)


def test_d14_the_first_in_the_queue_takes_over_and_the_record_is_changed_not_deleted(world: Any) -> None:
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    second = world.binding("second", "beta", "shop.example.com")
    world.settle()
    third = world.binding("third", "gamma", "shop.example.com")
    world.settle()
    assert [w["namespace"] for w in claims(world)["shop.example.com"]["waiting"]] == ["beta", "gamma"]
    world.history.clear()
    world.now += 500
    world.delete(first)
    world.settle()
    assert holder(world, "shop.example.com") == "beta"
    assert claims(world)["shop.example.com"]["claimedAt"] == timestamp(world.now)  # not the former holder's age
    assert world.condition(second, "Ready") == ("True", "Ready")
    assert world.condition(third, "Accepted") == ("False", "HostnameConflict")
    assert first not in world.bindings
    assert [line for line in world.history if line.startswith("dns")] == ["dns update shop.example.com"]
    assert world.zone["shop.example.com", "CNAME"].resource == "tunnelbinding/beta/second"


def test_d14_waiting_bindings_take_over_in_the_order_in_which_they_came_and_one_at_a_time(world: Any) -> None:
    queue = [world.binding("web", "alpha", "shop.example.com")]
    world.settle()
    for namespace in ("zeta", "beta", "mid"):  # an order that no name gives
        world.now += 10
        queue.append(world.binding("web", namespace, "shop.example.com"))
        world.settle()
    world.history.clear()
    while len(queue) > 1:
        world.delete(queue.pop(0))
        world.settle()
        ready = [key for key in queue if world.condition(key, "Ready") == ("True", "Ready")]
        assert ready == queue[:1]
        assert all(world.condition(key, "Accepted") == ("False", "HostnameConflict") for key in queue[1:])
    # Changed, never deleted in between: neither the claim nor the record.
    assert [line for line in world.history if line.startswith(("claim gone", "dns"))] == [
        "dns update shop.example.com"
    ] * 3


def with_crash_after(world: Any, writes: int) -> bool:
    """A few rounds of an operator that crashes after so many writes, then one that goes on; never a contradiction.
    Whether there were so many."""
    left = iter(range(writes))

    def looked(what: str) -> bool:
        assert contradictions(world) == [], f"before {what}, with a crash after {writes} writes"
        return True

    world.intercept = lambda what: looked(what) and next(left, None) is not None
    for _ in range(3):
        for tunnel in world.tunnel_keys():
            world.step(tunnel)
    crashed = next(left, None) is None
    world.intercept = looked
    world.settle()
    looked("the end")
    return crashed


def test_d13_a_changed_tunnel_reference_leaves_nothing_behind_whenever_the_operator_crashes(simulate: Any) -> None:
    for writes in itertools.count():
        world = simulate()
        world.tunnel(dns=DNS)
        second = world.tunnel("second", dns=DNS)
        key = world.binding("web", "shop", "shop.example.com")
        world.settle()
        world.binding("web", "shop", "shop.example.com", tunnel=second)
        crashed = with_crash_after(world, writes)
        assert world.routes(MAIN) == [], writes
        assert world.routes(second) == ["shop.example.com shop/web/r0"], writes
        assert world.status(key)["tunnels"] == [str(second)], writes
        assert claims(world)["shop.example.com"]["tunnel"] == str(second), writes
        assert world.condition(key, "Ready") == ("True", "Ready"), writes
        if not crashed:
            break
    assert writes > 5


def test_d13_a_renamed_host_goes_to_whom_waits_and_leaves_nothing_whenever_the_operator_crashes(simulate: Any) -> None:
    for writes in itertools.count():
        world = simulate()
        world.tunnel(dns=DNS)
        second = world.tunnel("second", dns=DNS)
        key = world.binding("web", "shop", "old.example.com")
        world.settle()
        heir = world.binding("web", "blog", "old.example.com", tunnel=second)
        world.settle()
        world.binding("web", "shop", "new.example.com")
        crashed = with_crash_after(world, writes)
        assert world.routes(MAIN) == ["new.example.com shop/web/r0"], writes
        assert world.routes(second) == ["old.example.com blog/web/r0"], writes
        assert {name: claim["owner"]["namespace"] for name, claim in claims(world).items()} == {
            "new.example.com": "shop",
            "old.example.com": "blog",
        }
        assert {name: record.resource for (name, _), record in world.zone.items()} == {
            "new.example.com": "tunnelbinding/shop/web",
            "old.example.com": "tunnelbinding/blog/web",
        }
        assert [world.condition(one, "Ready") for one in (key, heir)] == [("True", "Ready")] * 2, writes
        if not crashed:
            break
    assert writes > 5


def test_while_a_name_cannot_change_hands_its_route_and_record_stay(world: Any) -> None:
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    world.binding("second", "beta", "shop.example.com")
    world.settle()
    world.intercept = lambda what: what != "claim"  # the API server refuses it
    world.delete(first)
    for _ in range(6):
        world.step(MAIN)
    assert world.routes(MAIN) == ["shop.example.com alpha/first/r0"]
    assert world.zone["shop.example.com", "CNAME"].resource == "tunnelbinding/alpha/first"
    assert first in world.bindings


def test_a_waiter_of_another_tunnel_takes_over_too(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    other = world.binding("other", "alpha", "shop.example.com", tunnel=second)
    world.settle()
    assert world.condition(other, "Accepted") == ("False", "HostnameConflict")
    assert "culvert-system/main" in world.message(other, "Accepted")  # the same namespace may know
    world.delete(first)
    world.settle()
    assert world.condition(other, "Ready") == ("True", "Ready")
    assert claims(world)["shop.example.com"]["tunnel"] == "culvert-system/second"


def answered(world: Any, hostname: str) -> Any:
    """Watches that from now on a visitor of ``hostname`` is always led to a relay where some Tunnel serves it."""

    def look(what: str) -> bool:
        assert any(name == hostname for name, _ in world.zone), f"no record before {what}"
        key = world.serves(hostname)
        assert key is not None, f"no Tunnel serves it before {what}"
        assert hostname in {name_of(rule) for rule in world.document(key).rules}, f"no rule before {what}"
        assert contradictions(world) == [], what
        return True

    world.intercept = look
    return world


def watched(world: Any) -> None:
    """Before every write from now on nothing contradicts anything."""

    def look(what: str) -> bool:
        assert contradictions(world) == [], what
        return True

    world.intercept = look


def dns_changes(world: Any) -> list[str]:
    return [line for line in world.history if line.startswith("dns")]


def test_d14_a_waiter_of_another_tunnel_takes_over_without_a_gap(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    other = world.binding("other", "beta", "shop.example.com", tunnel=second)
    world.settle()
    world.history.clear()
    world.now += 500
    answered(world, "shop.example.com")
    world.delete(first)
    world.settle()
    assert world.condition(other, "Ready") == ("True", "Ready")
    assert claims(world)["shop.example.com"]["tunnel"] == str(second)
    assert "former" not in claims(world)["shop.example.com"]
    assert first not in world.bindings
    assert world.routes(MAIN) == []
    assert "shop.example.com" not in world.granted(MAIN)
    assert dns_changes(world) == ["dns update shop.example.com"]
    assert world.zone["shop.example.com", "CNAME"].resource == "tunnelbinding/beta/other"
    assert not [e for e in world.events if e.reason == "RouteRefused"]


def test_d13_a_changed_tunnel_reference_has_no_gap_and_leaves_the_record_alone(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    key = world.binding("web", "shop", "shop.example.com")
    world.settle()
    world.history.clear()
    world.events.clear()
    answered(world, "shop.example.com")
    world.binding("web", "shop", "shop.example.com", tunnel=second)
    world.settle()
    assert world.condition(key, "Ready") == ("True", "Ready")
    assert world.status(key)["tunnels"] == [str(second)]
    assert {p["tunnel"] for p in world.status(key)["publishedRecords"]} == {str(second)}
    assert dns_changes(world) == []
    assert [e for e in world.events if e.type == "Warning"] == []


def test_d13_a_changed_tunnel_reference_changes_a_record_that_leads_elsewhere_once(world: Any) -> None:
    second = world.tunnel("second", dns={**DNS, "target": {"hostname": "other.example.net"}})
    world.binding("web", "shop", "shop.example.com")
    world.settle()
    world.history.clear()
    answered(world, "shop.example.com")
    world.binding("web", "shop", "shop.example.com", tunnel=second)
    world.settle()
    assert dns_changes(world) == ["dns update shop.example.com"]


@pytest.mark.parametrize(
    "spec",
    [
        {"dns": DNS, "relay": {"addresses": ["elsewhere.example.net:443"]}},
        {"dns": {**DNS, "ownerId": "another"}},
        {"dns": {**DNS, "zones": []}},
    ],
    ids=["relays", "owner", "provider"],
)
def test_between_tunnels_of_different_places_the_record_goes_first(world: Any, spec: dict[str, Any]) -> None:
    second = world.tunnel("second", **spec)
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    other = world.binding("other", "beta", "shop.example.com", tunnel=second)
    world.settle()
    world.history.clear()
    watched(world)
    world.delete(first)
    world.settle()
    assert world.condition(other, "Ready") == ("True", "Ready")
    assert dns_changes(world) == ["dns delete shop.example.com", "dns create shop.example.com"]


def test_an_heir_of_whose_connectors_one_was_not_heard_yet_does_not_stand_by(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    world.binding("other", "beta", "shop.example.com", tunnel=second)
    world.settle()
    world.pods, world.unheard = 2, frozenset({"pod-1"})
    world.delete(first)
    world.settle()
    assert world.serves("shop.example.com") == MAIN
    world.unheard = frozenset()
    world.settle()
    assert world.serves("shop.example.com") == second
    assert first not in world.bindings


def test_nobody_waits_for_ever_for_an_heir_that_does_not_get_ready(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    world.binding("other", "beta", "shop.example.com", tunnel=second)
    world.settle()
    world.tunnels[second]["metadata"]["annotations"] = {}
    silent = world.reports
    world.reports = lambda key: {} if key == second else silent(key)
    world.delete(first)
    world.settle()
    assert first in world.bindings
    assert world.serves("shop.example.com") == MAIN
    assert 0 < world.plan(MAIN).requeue_after <= PASSING_SECONDS
    world.now += PASSING_SECONDS
    world.settle()
    assert first not in world.bindings
    assert world.routes(MAIN) == []
    assert claims(world)["shop.example.com"]["tunnel"] == str(second)
    assert "former" not in claims(world)["shop.example.com"]


def test_a_reference_that_goes_there_and_back_ends_where_it_was(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    for rounds in range(12):
        key = world.binding("web", "shop", "shop.example.com")
        world.settle()
        world.binding("web", "shop", "shop.example.com", tunnel=second)
        for _ in range(rounds):
            for tunnel in world.tunnel_keys():
                world.step(tunnel)
                assert contradictions(world) == []
        world.binding("web", "shop", "shop.example.com")
        world.settle()
        assert world.condition(key, "Ready") == ("True", "Ready"), rounds
        assert world.routes(second) == [], rounds
        assert world.status(key)["tunnels"] == [str(MAIN)], rounds
        assert "former" not in claims(world)["shop.example.com"], rounds


def test_d1_a_takeover_across_tunnels_that_is_interrupted_after_any_write_has_no_gap(simulate: Any) -> None:
    for writes in range(1, 40):
        world = simulate()
        world.tunnel(dns=DNS)
        second = world.tunnel("second", dns=DNS)
        first = world.binding("first", "alpha", "shop.example.com")
        world.settle()
        other = world.binding("other", "beta", "shop.example.com", tunnel=second)
        world.settle()
        world.history.clear()
        world.delete(first)
        answered(world, "shop.example.com")
        left, watching = iter(range(writes)), world.intercept
        world.intercept = lambda what, left=left, watching=watching: watching(what) and next(left, None) is not None
        for _ in range(3):
            for tunnel in world.tunnel_keys():
                world.step(tunnel)
        world.intercept = watching
        world.settle()
        assert world.condition(other, "Ready") == ("True", "Ready"), writes
        assert dns_changes(world) == ["dns update shop.example.com"], writes
        assert first not in world.bindings, writes


def test_a_waiter_that_has_gone_does_not_keep_a_name(world: Any) -> None:
    first = world.binding("first", "alpha", "shop.example.com")
    world.settle()
    second = world.binding("second", "beta", "shop.example.com")
    world.settle()
    del world.bindings[second]  # by force, without its finalizer
    world.delete(first)
    world.settle()
    assert world.claims == {}


def test_inside_a_namespace_bindings_share_a_hostname_by_path(world: Any) -> None:
    web = world.binding("web", "alpha", "shop.example.com")
    world.settle()
    api = world.binding("api", "alpha", "shop.example.com/api")
    twin = world.binding("twin", "alpha", "shop.example.com/api/")
    world.settle()
    assert world.routes(MAIN) == ["shop.example.com alpha/api/r0", "shop.example.com alpha/web/r0"]
    assert world.condition(api, "Ready") == ("True", "Ready")
    assert world.condition(twin, "Accepted") == ("False", "HostnameConflict")
    assert "alpha/api" in world.message(twin, "Accepted")
    world.history.clear()
    world.delete(web)
    world.settle()
    assert world.routes(MAIN) == ["shop.example.com alpha/api/r0"]
    assert [line for line in world.history if line.startswith("dns")] == ["dns update shop.example.com"]
    world.delete(api)
    world.settle()
    assert world.condition(twin, "Ready") == ("True", "Ready")


def test_two_rules_of_one_object_with_the_same_path_are_told_apart(world: Any) -> None:
    shop = world.binding("shop", "alpha", "shop.example.com/x", "SHOP.example.com/x/")
    world.settle()
    assert [r["reason"] for r in world.status(shop)["rules"]] == ["Accepted", "HostnameConflict"]


def test_nothing_is_claimed_for_an_object_without_finalizer(world: Any) -> None:
    world.binding("shop", "alpha", "shop.example.com")
    first = world.plan(MAIN)
    assert first.claims == ()
    assert [op.key.name for op in first.finalizers_add] == ["shop", "main"]


def test_a_finalizer_that_somebody_removed_costs_no_name(world: Any) -> None:
    shop = world.binding("shop", "alpha", "shop.example.com")
    world.settle()
    before = claims(world)
    world.bindings[shop]["metadata"]["finalizers"] = []
    assert world.plan(MAIN).claims == ()
    world.settle()
    assert world.bindings[shop]["metadata"]["finalizers"] == ["culvert.dev/cleanup"]
    assert claims(world) == before


def test_routes_wait_for_stored_claims(world: Any) -> None:
    world.binding("shop", "alpha", "shop.example.com")
    world.intercept = lambda what: what != "claim"
    for _ in range(5):
        world.step(MAIN)
    assert world.routes(MAIN) == []


def test_d14_of_two_conflicting_claims_the_older_one_holds(world: Any) -> None:
    exact = world.binding("exact", "alpha", "a.example.com")
    world.settle()
    wild = world.binding("wild", "beta", "*.example.com")
    world.bindings[wild]["metadata"]["finalizers"] = ["culvert.dev/cleanup"]
    late = Claim(
        hostname="*.example.com",
        namespace="beta",
        tunnel=MAIN,
        claimed_at=timestamp(world.now + 1),
        paths=(ClaimPath("PathPrefix", "/", "wild"),),
    )
    body = dict(claim_body(late))
    body["metadata"] = {**body["metadata"], "uid": "other-writer", "resourceVersion": "1"}
    world.claims[claim_name("*.example.com")] = body  # written by an operator that did not see the other claim yet
    world.settle()
    assert world.condition(exact, "Ready") == ("True", "Ready")
    assert world.condition(wild, "Accepted") == ("False", "HostnameConflict")
    assert set(claims(world)) == {"a.example.com"}


def test_a_claim_keeps_its_time_when_paths_change(world: Any) -> None:
    world.binding("web", "alpha", "shop.example.com")
    world.settle()
    since = claims(world)["shop.example.com"]["claimedAt"]
    world.now += 1000
    world.binding("web", "alpha", "shop.example.com/other")
    world.settle()
    assert claims(world)["shop.example.com"]["claimedAt"] == since
    assert [p["value"] for p in claims(world)["shop.example.com"]["paths"]] == ["/other"]


def wild(world: Any, name: str, namespace: str, mode: str, hostname: str = "*.example.com", **more: Any) -> Any:
    rule = {"name": "r0", "hostname": hostname, "path": {"type": "PathPrefix", "value": "/"}, "wildcard": mode, **more}
    return world.binding(name, namespace, rules=[{**rule, "service": {"name": "web", "port": 80}}])


def test_a_wildcard_that_falls_back_leaves_the_names_below_it_to_others(world: Any) -> None:
    rest = wild(world, "rest", "alpha", "Fallback")
    world.settle()
    exact = world.binding("exact", "beta", "a.example.com")
    narrower = wild(world, "narrower", "gamma", "Reserve", "*.x.example.com")
    world.settle()
    assert [world.condition(one, "Ready")[0] for one in (rest, exact, narrower)] == ["True"] * 3
    assert claims(world)["*.example.com"]["wildcard"] == "Fallback"
    assert "wildcard" not in claims(world)["*.x.example.com"]
    # What is narrower reserves as ever, and the order of a document does not depend on who came first.
    below = world.binding("below", "beta", "y.x.example.com")
    world.settle()
    assert world.condition(below, "Accepted") == ("False", "HostnameConflict")
    assert [rule.hostname for rule in world.document(MAIN).rules] == [
        "a.example.com",
        "*.x.example.com",
        "*.example.com",
    ]


def queue(world: Any, hostname: str) -> list[tuple[str, str]]:
    """(namespace, wanted hostname) of those who wait at a claim, in their order."""
    waiting = claims(world).get(hostname, {}).get("waiting", [])
    return [(w["namespace"], w.get("hostname", hostname)) for w in waiting]


def test_d16_who_waits_under_a_wildcard_is_served_in_the_order_of_coming(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    holder_of_all = world.binding("wild", "alpha", "*.example.com")
    world.settle()
    world.now += 10
    zeta = world.binding("web", "zeta", "x.example.com", tunnel=second)
    world.settle()
    world.now += 100
    beta = world.binding("wild", "beta", "*.example.com")
    world.settle()
    world.now += 100
    eta = world.binding("web", "eta", "y.example.com", tunnel=second)
    world.settle()
    assert queue(world, "*.example.com") == [
        ("zeta", "x.example.com"),
        ("beta", "*.example.com"),
        ("eta", "y.example.com"),
    ]
    watched(world)
    world.delete(holder_of_all)
    world.settle()
    # beta came after zeta, in whose way its wildcard would be; then it holds up nobody.
    assert world.condition(zeta, "Ready") == ("True", "Ready")
    assert world.condition(eta, "Ready") == ("True", "Ready")
    assert world.condition(beta, "Accepted") == ("False", "HostnameConflict")
    assert sorted(claims(world)) == ["x.example.com", "y.example.com"]
    # It has kept its place: whoever asks for zeta's name now comes after it.
    world.now += 100
    late = world.binding("late", "gamma", "x.example.com")
    world.settle()
    world.delete(eta)
    world.settle()
    assert queue(world, "x.example.com") == [("beta", "*.example.com"), ("gamma", "x.example.com")]
    world.delete(zeta)
    world.settle()
    assert world.condition(beta, "Ready") == ("True", "Ready")
    assert world.condition(late, "Accepted") == ("False", "HostnameConflict")
    assert queue(world, "*.example.com") == [("gamma", "x.example.com")]


def test_d16_a_wildcard_that_came_first_goes_before_the_names_below_it(world: Any) -> None:
    first = world.binding("wild", "alpha", "*.example.com")
    world.settle()
    heir = world.binding("wild", "beta", "*.example.com")
    world.settle()
    world.now += 10
    world.binding("web", "zeta", "x.example.com")
    world.settle()
    world.history.clear()
    world.delete(first)
    world.settle()
    assert world.condition(heir, "Ready") == ("True", "Ready")
    assert queue(world, "*.example.com") == [("zeta", "x.example.com")]
    assert dns_changes(world) == ["dns update *.example.com"]


def test_d16_a_newcomer_does_not_overtake_those_who_wait_for_a_vacant_claim(world: Any) -> None:
    second = world.tunnel("second", dns=DNS)
    first = world.binding("wild", "alpha", "*.example.com")
    world.settle()
    zeta = world.binding("web", "zeta", "x.example.com", tunnel=second)
    world.settle()
    world.delete(first)
    for _ in range(8):
        world.step(MAIN)  # the planner of the other Tunnel is away
    assert claims(world)["*.example.com"]["state"] == "Vacant"
    late = world.binding("late", "beta", "*.example.com")
    for _ in range(8):
        world.step(MAIN)
    assert world.condition(late, "Accepted")[0] != "True"
    same = world.binding("same", "gamma", "x.example.com")
    for _ in range(8):
        world.step(MAIN)
    assert sorted(claims(world)) == ["*.example.com"], "the name below is the one for which zeta has waited"
    other = world.binding("other", "beta", "z.example.com")  # it is in nobody's way
    for _ in range(8):
        world.step(MAIN)
    assert world.condition(other, "Accepted") == ("True", "Accepted")
    world.settle()
    assert world.condition(zeta, "Ready") == ("True", "Ready")
    assert world.condition(late, "Accepted") == ("False", "HostnameConflict")
    assert world.condition(same, "Accepted") == ("False", "HostnameConflict")
    assert sorted(claims(world)) == ["x.example.com", "z.example.com"]


def test_d16_a_place_is_kept_when_another_claim_is_in_the_way_next(world: Any) -> None:
    first = world.binding("web", "alpha", "a.example.com")
    world.settle()
    world.now += 10
    second = world.binding("web", "gamma", "b.example.com")
    world.settle()
    world.now += 10
    beta = world.binding("wild", "beta", "*.example.com")
    world.settle()
    assert (queue(world, "a.example.com"), queue(world, "b.example.com")) == ([("beta", "*.example.com")], [])
    world.now += 10
    zeta = world.binding("web", "zeta", "b.example.com")
    world.settle()
    world.now += 10
    world.delete(first)
    world.settle()
    assert queue(world, "b.example.com") == [("beta", "*.example.com"), ("zeta", "b.example.com")]
    world.delete(second)
    world.settle()
    assert world.condition(beta, "Ready") == ("True", "Ready")
    assert world.condition(zeta, "Accepted") == ("False", "HostnameConflict")


def test_d16_a_wildcard_that_leaves_names_to_others_takes_over_above_them(world: Any) -> None:
    first = world.binding("rest", "alpha", "*.example.com", wildcard="Fallback")
    world.settle()
    world.binding("web", "gamma", "a.example.com")
    world.settle()
    heir = world.binding("rest", "beta", "*.example.com", wildcard="Fallback")
    world.settle()
    world.delete(first)
    world.settle()
    assert world.condition(heir, "Ready") == ("True", "Ready")


def test_a_void_claim_is_kept_until_its_route_has_gone(world: Any) -> None:
    world.binding("rest", "alpha", "*.example.com", wildcard="Fallback")
    world.settle()
    world.now += 10
    world.binding("web", "beta", "b.example.com")
    world.settle()
    world.now += 10
    watched(world)
    world.binding("rest", "alpha", "*.example.com", wildcard="Reserve")
    world.settle()
    assert contradictions(world) == []
    assert sorted(claims(world)) == ["b.example.com"]


def test_a_wildcard_that_falls_back_comes_after_names_that_others_hold(world: Any) -> None:
    exact = world.binding("exact", "beta", "a.example.com")
    world.settle()
    rest = wild(world, "rest", "alpha", "Reserve")
    world.settle()
    assert world.condition(rest, "Accepted") == ("False", "HostnameConflict")
    wild(world, "rest", "alpha", "Fallback")
    world.settle()
    assert world.condition(rest, "Ready") == world.condition(exact, "Ready") == ("True", "Ready")


@pytest.mark.parametrize("ahead", [-10, 0, 3600], ids=["behind", "the same", "ahead"])
def test_d16_a_wildcard_that_begins_to_reserve_takes_no_name_from_anybody(world: Any, ahead: int) -> None:
    rest = wild(world, "rest", "alpha", "Fallback")
    world.settle()
    world.now += 10
    exact = world.binding("exact", "beta", "a.example.com")
    world.settle()
    world.now -= ahead  # the clock of the operator that wrote the claim, as another one's sees it
    wild(world, "rest", "alpha", "Reserve")
    world.settle()
    assert world.condition(exact, "Ready") == ("True", "Ready")
    assert world.condition(rest, "Accepted") == ("False", "HostnameConflict")
    assert "beta" not in world.message(rest, "Accepted")
    world.delete(exact)
    world.settle()
    assert world.condition(rest, "Ready") == ("True", "Ready")
    assert "wildcard" not in claims(world)["*.example.com"]
    late = world.binding("late", "beta", "b.example.com")
    world.settle()
    assert world.condition(late, "Accepted") == ("False", "HostnameConflict")


def test_an_undisturbed_wildcard_keeps_its_time_when_it_falls_back(world: Any) -> None:
    wild(world, "rest", "alpha", "Reserve")
    world.settle()
    since = claims(world)["*.example.com"]["claimedAt"]
    world.now += 1000
    wild(world, "rest", "alpha", "Fallback")
    world.settle()
    assert claims(world)["*.example.com"]["claimedAt"] == since
    writes = dict(world.writes)
    world.settle()
    assert dict(world.writes) == writes, "nothing is written at rest"


def test_rules_of_one_wildcard_say_the_same_and_the_older_one_is_heard(world: Any) -> None:
    first = wild(world, "first", "alpha", "Fallback")
    world.settle()
    second = wild(world, "second", "alpha", "Reserve", path={"type": "PathPrefix", "value": "/x"})
    world.settle()
    assert world.condition(first, "Ready") == ("True", "Ready")
    assert world.condition(second, "Accepted") == ("False", "HostnameConflict")
    assert "another wildcard by first/r0" in world.message(second, "Accepted")
    assert claims(world)["*.example.com"]["wildcard"] == "Fallback"


def test_wildcard_is_about_wildcards(world: Any) -> None:
    key = wild(world, "rest", "alpha", "Fallback", "a.example.com")
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "InvalidRule")
    assert "such as *.example.com" in world.message(key, "Accepted")


names = st.sampled_from(["a", "b", "*.a", "x.a", "*.x.a", "y.x.a", "*.b"])


@given(st.lists(st.tuples(names, st.sampled_from("pq"), st.integers(0, 9)), unique_by=lambda c: c[0]), names)
def test_the_register_finds_every_conflicting_claim(held: list[tuple[str, str, int]], hostname: str) -> None:
    from culvert_ingress.hostnames import covers

    made = [
        Claim(hostname=h, namespace=n, tunnel=MAIN, claimed_at=timestamp(1000 + age), paths=()) for h, n, age in held
    ]
    expected = {
        c.hostname
        for c in made
        if c.namespace != "p"
        and c.hostname != hostname
        and (covers(c.hostname, hostname) or covers(hostname, c.hostname))
    }
    found = Register(made).conflicting(hostname, "p")
    assert {c.hostname for c in found} == expected
    assert [c.claimed_at for c in found] == sorted(c.claimed_at for c in found)


@given(
    st.builds(
        Claim,
        hostname=st.just("shop.example.com"),
        namespace=st.sampled_from(["a", "b"]),
        tunnel=st.just(MAIN),
        claimed_at=st.integers(0, 2**31).map(timestamp),
        paths=st.lists(st.builds(ClaimPath, st.just("Exact"), st.text(), st.text())).map(tuple),
        waiting=st.lists(
            st.builds(
                Waiter, st.text(), st.text(), st.just(MAIN), st.text(), st.sampled_from(["", "*.a.com"]), st.booleans()
            )
        ).map(tuple),
        uid=st.sampled_from(["", "u"]),
        resource_version=st.just("7"),
        yields=st.booleans(),
        vacant=st.booleans(),
        former=st.none() | st.builds(Former, st.just(MAIN), st.text(min_size=1), st.sampled_from(Keeps)),
    )
)
def test_a_claim_is_read_back_as_it_was_written(claim: Claim) -> None:
    stored = replace(claim, name=claim_name(claim.hostname), resource_version="7" if claim.uid else "")
    assert parse_claim(claim_body(claim)) == stored


def test_d14_a_name_that_changes_hands_is_younger_than_all_that_others_hold_whatever_the_clocks_say(world: Any) -> None:
    first = world.binding("first", "alpha", "*.example.com")
    world.settle()
    wild(world, "first", "alpha", "Fallback")
    heir = world.binding("heir", "beta", "*.example.com")
    exact = world.binding("exact", "gamma", "a.example.com")
    world.settle()
    world.now -= 3600  # another operator's clock
    world.delete(first)
    world.settle()
    assert world.condition(exact, "Ready") == ("True", "Ready")
    assert world.condition(heir, "Accepted") == ("False", "HostnameConflict")
    assert set(claims(world)) == {"a.example.com"}
