"""Plans about connectors' life: autoscaling, the operator's image, rotation, pause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from culvert_operator.keys import ChildKey, ObjectKey

MAIN, WEB, MORE = ObjectKey("culvert-system", "main"), ObjectKey("shop", "web"), ObjectKey("shop", "more")
DNS = {"memory": {}, "zones": ["example.com"], "target": {"hostname": "relay.example.net"}}
DEPLOYMENT = ("culvert-system", ChildKey("Deployment", "main-connector"))
AUTOSCALER = ("culvert-system", ChildKey("HorizontalPodAutoscaler", "main-connector"))
SECRET = ("culvert-system", ChildKey("Secret", "main-credential"))


def annotate(world: Any, **annotations: str | None) -> None:
    found = world.tunnels[MAIN]["metadata"].setdefault("annotations", {})
    for name, value in annotations.items():
        key = f"culvert.dev/{name}"
        found.pop(key, None) if value is None else found.update({key: value})
    world._touch(world.tunnels[MAIN])


@pytest.fixture
def settled(world: Any) -> Any:
    world.service("web", "shop")
    world.binding("web", "shop", "shop.example.com")
    world.settle()
    return world


def scale(world: Any, **spec: Any) -> None:
    connector = {k: v for k, v in spec.items() if v is not None}
    world.tunnel(connector=connector)
    world.settle()


def test_autoscaling_hands_the_number_of_pods_over_before_it_stops_naming_it(settled: Any) -> None:
    scale(settled, replicas=7)
    numbers: list[int] = []
    apply = settled._apply

    def watched(op: Any) -> None:
        apply(op)
        if op.key.kind == "Deployment":
            numbers.append(settled.children[DEPLOYMENT]["spec"].get("replicas", 1))

    settled._apply = watched
    scale(settled, replicas=7, autoscaling={"minReplicas": 2, "maxReplicas": 9})
    assert numbers == [7, 7]
    spec = settled.children[AUTOSCALER]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)
    assert spec["scaleTargetRef"]["name"] == "main-connector"
    assert spec["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    # What the autoscaler chose is left alone, and told.
    settled.children[DEPLOYMENT]["spec"]["replicas"] = 5
    settled.children[DEPLOYMENT]["status"]["readyReplicas"] = 5
    settled._touch(settled.children[DEPLOYMENT])
    settled.settle()
    assert settled.children[DEPLOYMENT]["spec"]["replicas"] == 5
    assert settled.status(MAIN)["connectors"]["text"] == "5/5"


def test_without_autoscaling_the_autoscaler_goes_and_the_number_is_the_tunnels_again(settled: Any) -> None:
    scale(settled, autoscaling={"maxReplicas": 9})
    assert AUTOSCALER in settled.children
    scale(settled, replicas=3)
    assert AUTOSCALER not in settled.children
    assert settled.children[DEPLOYMENT]["spec"]["replicas"] == 3


def test_somebody_elses_autoscaler_is_not_deleted(settled: Any) -> None:
    foreign = {"metadata": {"uid": "theirs", "name": "main-connector"}}
    settled._touch(foreign)
    settled.children[AUTOSCALER] = foreign
    settled.settle()
    assert settled.children[AUTOSCALER] is foreign


@pytest.mark.parametrize(
    ("connector", "image"),
    [({}, "culvert:new"), ({"imageUpdatePolicy": "Manual"}, "culvert:test"), ({"image": "mine:1"}, "mine:1")],
)
def test_an_upgraded_operator_rolls_connectors_only_where_the_tunnel_follows_it(
    settled: Any, connector: dict[str, Any], image: str
) -> None:
    scale(settled, **connector)
    settled.options = replace(settled.options, image="culvert:new")
    settled.settle()
    (container,) = settled.children[DEPLOYMENT]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image


def test_a_new_value_of_the_rotate_annotation_is_a_new_credential_once(settled: Any) -> None:
    def credential() -> str:
        return str(settled.children[SECRET]["data"])

    first = credential()
    annotate(settled, rotate="today")
    settled.settle()
    second = credential()
    assert second != first
    settled.now += 60
    settled.settle()
    assert credential() == second
    annotate(settled, rotate="again")
    settled.settle()
    assert credential() != second
    third = credential()
    annotate(settled, rotate=None)
    settled.settle()
    assert credential() == third


def test_a_paused_tunnel_is_left_as_it_is_and_says_so(settled: Any) -> None:
    annotate(settled, paused="true")
    settled.settle()
    assert settled.condition(MAIN, "Paused") == ("True", "Paused")
    ready = settled.condition(MAIN, "Ready")
    writes = dict(settled.writes)
    settled.binding("other", "shop", "other.example.com")
    del settled.children[DEPLOYMENT]
    settled.settle()
    assert dict(settled.writes) == {**writes, "status": writes["status"] + 1}  # the new binding is told
    annotate(settled, paused=None)
    settled.settle()
    assert settled.condition(MAIN, "Paused") == ("", "")
    assert settled.condition(MAIN, "Ready")[0] == ready[0] or ready == ("", "")
    assert DEPLOYMENT in settled.children
    assert any("other.example.com" in route for route in settled.routes(MAIN))


def test_a_paused_tunnel_can_still_be_deleted(settled: Any) -> None:
    annotate(settled, paused="true")
    settled.settle()
    settled.delete(MAIN)
    settled.settle()
    assert MAIN not in settled.tunnels


@pytest.mark.parametrize("silent", [["pod-0", "pod-1"], ["pod-1"]], ids=["all", "one of two"])
def test_connectors_that_were_not_heard_yet_undo_nothing_and_hold_up_no_work(settled: Any, silent: list[str]) -> None:
    settled.tunnel(dns={**DNS, "onUnavailable": "Withdraw", "withdrawAfterSeconds": 60})
    settled.settle()
    told = settled.status(MAIN)
    # An operator that begins, and is kept from the connectors' status ports by a NetworkPolicy.
    settled.unheard = frozenset(silent)
    settled.now += 100
    assert settled.plan(MAIN).is_empty
    assert settled.status(MAIN) == told
    settled.binding("more", "shop", "more.example.com")
    settled.settle()
    assert "more.example.com" in settled.document(MAIN).hostnames()
    assert settled.condition(MORE, "Accepted")[0] == "True"
    assert settled.condition(MORE, "Programmed")[0] != "True"
    assert settled.condition(WEB, "Ready") == ("True", "Ready")
    assert {name for name, _ in settled.zone} == {"shop.example.com"}
    settled.unheard = frozenset()
    settled.settle()
    assert settled.condition(MORE, "Ready") == ("True", "Ready")


def test_a_tunnel_whose_connectors_were_given_up_says_so_once_in_an_event(settled: Any) -> None:
    settled.reports = lambda key: {"pod-0": None, "pod-1": None}
    settled.unheard = frozenset({"pod-0", "pod-1"})
    settled.settle()
    assert settled.condition(MAIN, "Connected")[0] == "True"
    settled.unheard = frozenset()
    settled.settle()
    settled.settle()
    assert settled.condition(MAIN, "Connected") == ("Unknown", "Unreachable")
    assert settled.condition(WEB, "Programmed") == ("Unknown", "Unreachable")
    told = [event for event in settled.events if event.reason == "Unreachable"]
    assert [(event.kind, event.type) for event in told] == [("Tunnel", "Warning")]
    assert "20241" in told[0].message
