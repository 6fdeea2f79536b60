"""Connectors of a Tunnel that does not follow the operator stay as they are, whatever a later operator would render."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.children import workload
from culvert_operator.children.keeping import KEPT, MAX_KEPT
from culvert_operator.options import Options

OPTIONS = Options(namespace="culvert-system", image="culvert:1")
LATER = Options(namespace="culvert-system", image="culvert:2", image_pull_policy="Always")


def rendered(options: Options, existing: Any = None, **connector: Any) -> Any:
    raw = {
        "metadata": {"name": "main", "namespace": "culvert-system", "uid": "u1"},
        "spec": {"relay": {"addresses": ["r:1"]}, "connector": {"imageUpdatePolicy": "Manual", **connector}},
    }
    return copy.deepcopy(workload.deployment(parse_tunnel(raw), options, existing))


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({}, True),
        ({"replicas": 7}, True),
        ({"sessions": 7}, True),
        ({"imageUpdatePolicy": "Automatic"}, False),
        ({"image": "mine:1"}, False),
        ({"logLevel": "debug"}, False),
        ({"topologySpreadConstraints": []}, False),
        ({"podLabels": {"a": "b"}}, False),
        ({"gracePeriodSeconds": 77}, False),
    ],
    ids=str,
)
def test_pods_stay_as_they_are_while_the_tunnel_asks_for_the_same(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], stays: bool
) -> None:
    first = rendered(OPTIONS)
    container = workload._container
    monkeypatch.setattr(workload, "_container", lambda *given: {**container(*given), "args": ["--new"]})
    second = rendered(LATER, first, **change)
    assert (second["spec"]["template"] == first["spec"]["template"]) is stays
    assert ("--new" in str(second["spec"]["template"])) is not stays
    assert rendered(LATER, second, **change) == second, "and then it is at rest"
    if change.get("imageUpdatePolicy") != "Automatic" and "image" not in change:
        assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "culvert:1"


def test_an_edited_template_is_put_back() -> None:
    first = rendered(OPTIONS)
    edited = copy.deepcopy(first)
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = "evil:1"
    assert rendered(LATER, edited)["spec"]["template"] == first["spec"]["template"]


@pytest.mark.parametrize("damaged", ["", "{", "[]", '"x"', '{"asked": 1}', '{"template": {"spec": {}}}'])
def test_what_cannot_be_read_keeps_the_image_at_least(damaged: str) -> None:
    first = rendered(OPTIONS)
    first["metadata"]["annotations"][KEPT] = damaged
    second = rendered(LATER, first)
    assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "culvert:1"
    assert json.loads(second["metadata"]["annotations"][KEPT])["template"] == second["spec"]["template"]


def test_a_template_that_is_too_long_is_not_remembered() -> None:
    assert KEPT not in rendered(OPTIONS, podAnnotations={"long": "x" * MAX_KEPT})["metadata"]["annotations"]
