"""A paused Tunnel: nothing of it changes, its bindings say so, and what leaves it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_operator.conditions.condition import by_type
from culvert_operator.keys import ObjectKey

from .conftest import DNS
from .consistency import contradictions

MAIN = ObjectKey("culvert-system", "main")


def pause(world: Any, value: str | None = "true", key: ObjectKey = MAIN) -> None:
    annotations = world.tunnels[key]["metadata"].setdefault("annotations", {})
    annotations.pop("culvert.dev/paused", None)
    if value is not None:
        annotations["culvert.dev/paused"] = value
    world._touch(world.tunnels[key])


def watch(world: Any, *served: str) -> None:
    """Before every write nothing contradicts anything, and ``served`` hostnames have a Tunnel."""

    def look(what: str) -> bool:
        assert contradictions(world) == [], what
        assert all(world.serves(hostname) for hostname in served), what
        return True

    world.intercept = look


def resume(world: Any) -> None:
    pause(world, None)
    world.settle()


def claims(world: Any) -> dict[str, Any]:
    return {c["spec"]["hostname"]: c["spec"] for c in world.claims.values()}


@pytest.fixture
def paused(world: Any) -> Any:
    """A paused Tunnel that serves shop.example.com for shop/web, whose consistency is watched."""
    world.binding("web", "shop", "shop.example.com")
    world.settle()
    pause(world)
    world.settle()
    watch(world)
    world.history.clear()
    return world


def test_a_new_binding_says_at_first_sight_that_its_tunnel_is_paused(paused: Any) -> None:
    new = paused.binding("new", "shop", "new.example.com")
    paused.settle()
    for condition in ("Accepted", "ResolvedRefs", "Programmed", "DNSReady"):
        assert paused.condition(new, condition) == ("Unknown", "Pending")
    assert paused.condition(new, "PartiallyInvalid") == ("False", "AllRulesAccepted")
    assert paused.condition(new, "Ready") == ("Unknown", "Paused")
    assert paused.condition(new, "Paused") == ("True", "Paused")
    assert paused.status(new)["hostnamesText"] == "new.example.com"
    assert set(claims(paused)) == {"shop.example.com"}
    assert paused.routes(MAIN) == ["shop.example.com shop/web/r0"]
    resume(paused)
    assert paused.condition(new, "Ready") == ("True", "Ready")
    assert paused.condition(new, "Paused") == ("", "")


def test_a_binding_that_was_served_keeps_what_was_told_and_says_that_it_is_paused(paused: Any) -> None:
    key = ObjectKey("shop", "web")
    assert paused.condition(key, "Ready") == ("True", "Ready")
    assert paused.condition(key, "Paused") == ("True", "Paused")
    paused.binding("web", "shop", "other.example.com")
    paused.settle()
    assert paused.routes(MAIN) == ["shop.example.com shop/web/r0"]
    assert set(claims(paused)) == {"shop.example.com"}
    assert paused.status(key)["observedGeneration"] == 1
    resume(paused)
    assert paused.routes(MAIN) == ["other.example.com shop/web/r0"]
    assert "Paused" not in by_type(paused.status(key))


def test_a_binding_of_a_paused_tunnel_can_be_deleted(paused: Any) -> None:
    paused.binding("new", "shop", "new.example.com")
    paused.settle()
    versions = [t["metadata"]["generation"] for t in paused.tunnels.values()]
    paused.delete(ObjectKey("shop", "web"))
    paused.settle()
    assert ObjectKey("shop", "web") not in paused.bindings
    assert [line.split(" ")[0] for line in paused.history] == ["dns", "configured", "claim", "gone"]
    assert paused.zone == {}
    assert claims(paused) == {}
    assert paused.routes(MAIN) == []
    assert paused.granted(MAIN) == {}
    assert [t["metadata"]["generation"] for t in paused.tunnels.values()] == versions


def test_while_it_is_being_deleted_it_is_not_ready_and_says_why(paused: Any) -> None:
    paused.dns_error = "the zone cannot be read"
    paused.delete(ObjectKey("shop", "web"))
    paused.settle()
    assert paused.condition(ObjectKey("shop", "web"), "Ready") == ("False", "Deleting")
    assert paused.condition(ObjectKey("shop", "web"), "DNSReady") == ("False", "ProviderError")
    assert paused.routes(MAIN) == ["shop.example.com shop/web/r0"]
    assert 0 < paused.plan(MAIN).requeue_after <= 60
    paused.dns_error = None
    paused.settle()
    assert ObjectKey("shop", "web") not in paused.bindings


def test_rules_of_others_stay_what_they_were_when_one_leaves(paused: Any) -> None:
    pause(paused, None)
    api = paused.binding("api", "shop", "shop.example.com/api")
    paused.settle()
    pause(paused)
    paused.settle()
    paused.binding("api", "shop", "elsewhere.example.com")  # not heeded before the Tunnel is resumed
    paused.history.clear()
    paused.delete(ObjectKey("shop", "web"))
    paused.settle()
    assert ObjectKey("shop", "web") not in paused.bindings
    assert paused.routes(MAIN) == ["shop.example.com shop/api/r0"]
    assert [line for line in paused.history if line.startswith("dns")] == ["dns update shop.example.com"]
    assert [p["binding"] for p in claims(paused)["shop.example.com"]["paths"]] == ["api"]
    resume(paused)
    assert paused.condition(api, "Ready") == ("True", "Ready")
    assert paused.routes(MAIN) == ["elsewhere.example.com shop/api/r0"]


def test_who_waits_at_a_paused_tunnel_gets_the_name_once_it_is_resumed(paused: Any) -> None:
    pause(paused, None)
    heir = paused.binding("heir", "beta", "shop.example.com")
    paused.settle()
    pause(paused)
    paused.settle()
    paused.delete(ObjectKey("shop", "web"))
    paused.settle()
    assert ObjectKey("shop", "web") not in paused.bindings
    assert paused.routes(MAIN) == []
    assert claims(paused)["shop.example.com"]["owner"] == {"namespace": "beta"}
    resume(paused)
    assert paused.condition(heir, "Ready") == ("True", "Ready")


def test_a_binding_may_leave_a_paused_tunnel_for_another_without_a_gap(paused: Any) -> None:
    second = paused.tunnel("second", dns=DNS)
    paused.settle()
    paused.history.clear()
    watch(paused, "shop.example.com")
    key = paused.binding("web", "shop", "shop.example.com", tunnel=second)
    paused.settle()
    assert paused.condition(key, "Ready") == ("True", "Ready")
    assert paused.condition(key, "Paused") == ("", "")
    assert paused.routes(MAIN) == []
    assert [line for line in paused.history if line.startswith("dns")] == []


def test_a_tunnel_that_is_paused_from_the_beginning_has_all_its_conditions(paused: Any) -> None:
    new = paused.tunnel("new", dns=DNS)
    pause(paused, key=new)
    paused.settle()
    told = {c["type"]: c["status"] for c in paused.status(new)["conditions"]}
    assert told == {
        **dict.fromkeys(("Accepted", "CredentialsReady", "ConnectorsAvailable", "Connected", "Ready"), "Unknown"),
        "Paused": "True",
    }
    pause(paused, None, key=new)
    paused.settle()
    assert paused.condition(new, "Ready") == ("True", "Ready")


def test_a_paused_tunnel_at_rest_writes_nothing(paused: Any) -> None:
    paused.binding("new", "shop", "new.example.com")
    paused.settle()
    writes = dict(paused.writes)
    paused.now += 90_000
    paused.settle()
    assert dict(paused.writes) == writes
