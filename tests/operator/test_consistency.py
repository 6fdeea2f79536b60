"""The checker of worlds itself: a world at rest passes, and each impossible one is told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.keys import ObjectKey

from .consistency import contradictions

MAIN, SHOP = ObjectKey("culvert-system", "main"), ObjectKey("shop", "web")


def settled(world: Any) -> Any:
    world.binding("web", "shop", "a.example.com")
    world.settle()
    return world


def the_claim(world: Any) -> Any:
    (claim,) = world.claims.values()
    return claim


def test_a_world_at_rest_contradicts_nothing(world: Any) -> None:
    assert contradictions(settled(world)) == []


def misplaced(world: Any) -> None:
    world.claims["h-elsewhere"] = copy.deepcopy(the_claim(world))


def shared(world: Any) -> None:
    the_claim(world)["spec"]["paths"] *= 2


def queued_twice(world: Any) -> None:
    waiter = {"namespace": "shop", "name": "web", "tunnel": str(MAIN), "since": ""}
    the_claim(world)["spec"]["waiting"] = [waiter, waiter]


def forgotten(world: Any) -> None:
    world.bindings[SHOP]["metadata"]["finalizers"] = []


def unclaimed(world: Any) -> None:
    world.claims.clear()


def taken(world: Any) -> None:
    the_claim(world)["spec"]["tunnel"] = "culvert-system/other"


def given_up_early(world: Any) -> None:
    world.tunnels[MAIN]["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    world.claims.clear()


def given_up_before_relays_know(world: Any) -> None:
    world.untold = ("relay.example.net:443",)
    world.delete(MAIN)
    world.settle()
    world.claims.clear()


def served_twice(world: Any) -> None:
    other = world.tunnel("other")
    kept = {child: raw for (_, child), raw in world.children.items() if child.kind == "ConfigMap"}
    for child, raw in kept.items():
        world.children[other.namespace, child._replace(name="other-config")] = raw


def unlisted(world: Any) -> None:
    world.bindings[SHOP]["status"]["publishedRecords"] = []


def astray(world: Any) -> None:
    stray = Endpoint("b.example.com", "A", ("192.0.2.9",), 60, owner="inst")
    world.zone[stray.key] = stray
    world.bindings[SHOP]["status"]["publishedRecords"].append({"tunnel": str(MAIN), "name": stray.name, "type": "A"})


def doubled(world: Any) -> None:
    world.bindings[SHOP]["status"]["conditions"] *= 2


def unexplained(world: Any) -> None:
    world.bindings[SHOP]["status"]["conditions"][0]["reason"] = "Because"


def pretended(world: Any) -> None:
    conditions = {c["type"]: c for c in world.bindings[SHOP]["status"]["conditions"]}
    conditions["Accepted"].update(status="False", reason="InvalidRule")


def orphaned(world: Any) -> None:
    world.tunnels[MAIN]["metadata"]["uid"] = "another"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (misplaced, "is claimed twice"),
        (shared, "two holders"),
        (queued_twice, "waits twice"),
        (forgotten, "could go without a word"),
        (unclaimed, "without holding its claim"),
        (taken, "without holding its claim"),
        (given_up_early, "without holding its claim"),
        (given_up_before_relays_know, "without holding its claim"),
        (served_twice, "is served by 2 Tunnels"),
        (unlisted, "nobody remembers"),
        (astray, "which nobody serves"),
        (doubled, "a condition twice"),
        (unexplained, "no table explains Accepted Because"),
        (pretended, "Ready and not Accepted"),
        (orphaned, "has no owner"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_impossible_world_is_told(world: Any, spoil: Callable[[Any], None], told: str) -> None:
    spoil(settled(world))
    assert any(told in said for said in contradictions(world)), contradictions(world)
