"""Bindings whose Tunnel stands in a namespace that the operator does not watch (--watch-namespaces)."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_operator.conditions.condition import moment
from culvert_operator.keys import ObjectKey
from culvert_operator.unseen import PATIENCE_SECONDS

ELSEWHERE, WEB = ObjectKey("their-system", "main"), ObjectKey("shop", "web")


@pytest.fixture
def world(simulate: Any) -> Any:
    made = simulate(watch_namespaces=("shop",))
    made.tunnel()
    return made


def bind(world: Any, tunnel: ObjectKey = ELSEWHERE) -> None:
    """Create or edit the binding, at this moment."""
    world.binding("web", "shop", "a.example.com", tunnel=tunnel)
    world.bindings[WEB]["metadata"]["managedFields"] = [
        {"manager": "kubectl", "operation": "Apply", "time": moment(world.now)},
        {"manager": "culvert", "operation": "Update", "time": moment(world.now + 5), "subresource": "status"},
    ]


def told(world: Any) -> list[Any]:
    return [c["type"] for c in world.status(WEB).get("conditions", ())]


def test_a_binding_that_nobody_takes_up_is_told_why_and_what_to_do(world: Any) -> None:
    bind(world)
    world.settle()
    assert told(world) == [], "another operator may be about to"
    assert world.plan(ELSEWHERE).requeue_after == PATIENCE_SECONDS
    world.now += PATIENCE_SECONDS
    world.settle()
    assert world.condition(WEB, "Accepted") == ("Unknown", "TunnelNotWatched")
    assert world.condition(WEB, "Ready") == ("Unknown", "TunnelNotWatched")
    assert "--watch-namespaces" in world.message(WEB, "Accepted")
    assert "their-system/main" in world.message(WEB, "Accepted")
    assert world.plan(ELSEWHERE).is_empty
    assert "finalizers" not in world.bindings[WEB]["metadata"]
    bind(world, ObjectKey("culvert-system", "main"))
    world.settle()
    assert world.condition(WEB, "Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    "said",
    [
        {
            "conditions": [
                {"type": "Accepted", "status": "False", "reason": "HostnameConflict", "observedGeneration": 1}
            ]
        },
        {"tunnels": ["their-system/main"]},
        {"publishedRecords": [{"tunnel": "their-system/main", "name": "a.example.com", "type": "CNAME"}]},
    ],
    ids=lambda said: next(iter(said)),
)
def test_a_binding_that_another_operator_speaks_for_is_left_alone(world: Any, said: Any) -> None:
    bind(world)
    world.bindings[WEB]["status"] = said
    world.now += 10 * PATIENCE_SECONDS
    assert world.plan(ELSEWHERE).is_empty
    world.bindings[WEB]["metadata"] |= {"deletionTimestamp": moment(world.now), "finalizers": ["culvert.dev/cleanup"]}
    world.now += 10 * PATIENCE_SECONDS
    assert world.plan(ELSEWHERE).is_empty == ("conditions" not in said)


def test_a_binding_that_went_from_a_served_tunnel_to_an_unseen_one_is_told_and_can_be_deleted(world: Any) -> None:
    bind(world, ObjectKey("culvert-system", "main"))
    world.settle()
    bind(world)
    world.now += PATIENCE_SECONDS
    world.settle()
    assert world.condition(WEB, "Accepted") == ("Unknown", "TunnelNotWatched")
    assert world.claims == {}
    world.delete(WEB)
    world.settle()
    assert WEB in world.bindings, "another operator may still have to let it go"
    world.now += PATIENCE_SECONDS
    world.settle()
    assert WEB not in world.bindings


def test_a_binding_whose_hostname_is_claimed_is_left_alone(world: Any) -> None:
    bind(world, ObjectKey("culvert-system", "main"))
    world.settle()
    assert world.claims
    bind(world)
    world.bindings[WEB]["status"] = {}  # whoever claimed it has not written its lists yet
    world.now += 10 * PATIENCE_SECONDS
    assert world.plan(ELSEWHERE).is_empty
