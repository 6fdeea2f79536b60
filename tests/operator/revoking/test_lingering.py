"""Hostnames of a Tunnel that goes: nobody else has them before the relays know that its sessions are void."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from culvert_operator.keys import ObjectKey
from culvert_operator.revoking.decision import LINGER_SECONDS

from ..conftest import SimulatedWorld
from ..consistency import contradictions

MAIN = ObjectKey("culvert-system", "main")
RELAY = ("relay.example.net:443",)
HOST = "shop.example.com"


@pytest.fixture
def contested(world: Any) -> Any:
    """A name that the namespace shop has in Tunnel main, and that beta waits for in another Tunnel."""
    other = world.tunnel("other")
    world.binding("web", "shop", HOST)
    world.settle()
    world.binding("rival", "beta", HOST, tunnel=other)
    world.settle()

    def look(what: str) -> bool:
        assert contradictions(world) == [], f"before {what}"
        return True

    world.intercept = look
    return world


def holder(world: Any) -> str:
    (claim,) = world.claims.values()
    return f"{claim['spec']['owner']['namespace']} in {claim['spec']['tunnel']}"


def waits(world: Any) -> None:
    world.now += LINGER_SECONDS


@pytest.mark.parametrize("ends", [SimulatedWorld.hear, waits])
def test_d22_another_tunnel_has_a_name_once_the_relays_know_that_its_tunnel_went_or_its_pods_have_ended(
    contested: Any, ends: Callable[[Any], None]
) -> None:
    contested.untold = RELAY
    contested.delete(MAIN)
    contested.settle()
    assert MAIN not in contested.tunnels, "no deletion waits for a relay"
    assert contested.condition(ObjectKey("shop", "web"), "Accepted") == ("False", "TunnelNotFound")
    assert holder(contested) == "shop in culvert-system/main"
    assert contested.condition(ObjectKey("beta", "rival"), "Accepted") == ("False", "HostnameConflict")
    assert 0 < contested.plan(MAIN).requeue_after <= LINGER_SECONDS
    ends(contested)
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"
    assert contested.condition(ObjectKey("beta", "rival"), "Accepted")[0] == "True"
    assert contested.plan(MAIN).requeue_after is None


def test_d22_a_tunnel_whose_relays_answer_gives_its_names_up_in_one_go(contested: Any) -> None:
    contested.delete(MAIN)
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"
    order = [what for what in contested.history if what.startswith(("revoked", "gone culvert-system"))]
    assert order == ["revoked culvert-system/main", "gone culvert-system/main"]


def test_d08_names_stay_with_a_tunnel_that_waits_for_dns(contested: Any) -> None:
    contested.dns_error = "the zone cannot be read"
    contested.delete(MAIN)
    contested.now += 10 * LINGER_SECONDS
    contested.settle()
    assert MAIN in contested.tunnels
    assert holder(contested) == "shop in culvert-system/main"
    contested.dns_error = None
    contested.untold = RELAY
    contested.settle()
    assert MAIN not in contested.tunnels
    assert holder(contested) == "shop in culvert-system/main", "its sessions served until just now"


def test_d12_a_binding_goes_though_no_relay_has_heard_that_its_tunnel_went(contested: Any) -> None:
    contested.untold = RELAY
    contested.delete(MAIN)
    contested.delete(ObjectKey("shop", "web"))
    contested.settle()
    assert ObjectKey("shop", "web") not in contested.bindings
    assert holder(contested) == "shop in culvert-system/main"
    contested.hear()
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"


def test_a_tunnel_made_anew_at_once_gets_its_names_back_and_gives_up_only_what_is_void(contested: Any) -> None:
    contested.untold = RELAY
    contested.delete(MAIN)
    contested.settle()
    contested.tunnel()
    contested.settle()
    assert contested.condition(ObjectKey("shop", "web"), "Accepted")[0] == "True"
    contested.delete(ObjectKey("shop", "web"))
    contested.settle()
    assert ObjectKey("shop", "web") not in contested.bindings
    assert holder(contested) == "shop in culvert-system/main", "sessions of the former one may still serve it"
    contested.hear()
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"


@pytest.mark.parametrize("written", [-86400, 86400])
def test_a_clock_that_was_wrong_keeps_no_name(contested: Any, written: int) -> None:
    contested.untold = RELAY
    contested.delete(MAIN)
    contested.settle()
    contested.now -= written
    contested.lingering.clear()
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"


def test_a_rotation_that_no_relay_has_heard_of_keeps_no_name(contested: Any) -> None:
    contested.now += 1
    contested.tunnels[MAIN]["metadata"]["annotations"] = {"culvert.dev/rotate": "today"}
    contested._touch(contested.tunnels[MAIN])
    contested.untold = RELAY
    contested.settle()
    assert len(contested.ledger) == 1
    contested.delete(ObjectKey("shop", "web"))
    contested.settle()
    assert holder(contested) == "beta in culvert-system/other"


def test_a_name_does_not_change_hands_inside_a_tunnel_while_a_former_ones_sessions_serve_it(contested: Any) -> None:
    inside = contested.binding("inside", "gamma", HOST)
    contested.untold = RELAY
    contested.delete(MAIN)
    contested.settle()
    contested.delete(ObjectKey("beta", "rival"))
    contested.delete(ObjectKey("shop", "web"))
    contested.tunnel()
    contested.settle()
    assert holder(contested) == "shop in culvert-system/main"
    assert contested.condition(inside, "Accepted") == ("False", "HostnameConflict")
    contested.hear()
    contested.settle()
    assert holder(contested) == "gamma in culvert-system/main"
    assert contested.condition(inside, "Accepted")[0] == "True"
