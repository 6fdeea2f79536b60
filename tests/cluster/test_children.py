"""A Tunnel's children on a real API server: applied once, they are never applied again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.children.access import config_map, role, role_binding, secret, service_account
from culvert_operator.children.autoscaling import KEEPER, autoscaler, hand_over
from culvert_operator.children.drift import says
from culvert_operator.children.metadata import is_ours
from culvert_operator.children.workload import deployment, disruption_budget
from culvert_operator.options import Options

OPTIONS = Options(namespace="default", image="registry.example.com/culvert:1")
CONNECTOR: dict[str, Any] = {
    "replicas": 0,
    "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"cpu": 1, "memory": "2000M"}},
    "imagePullSecrets": [{"name": "pull"}],
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [
        {"key": "a", "operator": "Exists", "value": None},
        {"key": "b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 5},
        {"operator": "Exists"},
    ],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
            }
        },
        "podAffinity": None,
    },
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "podLabels": {"team": "x"},
    "podAnnotations": {"a": "b"},
    "priorityClassName": "system-cluster-critical",
    "logLevel": "debug",
    "logFormat": "text",
}


def rendered(name: str, connector: dict[str, Any]) -> list[dict[str, Any]]:
    tunnel = parse_tunnel(
        {
            "metadata": {"name": name, "namespace": "default", "uid": "00000000-0000-0000-0000-000000000001"},
            "spec": {"relay": {"addresses": ["r.example.com:443"]}, "connector": connector},
        }
    )
    meta = tunnel.meta
    access = [service_account(meta), role(meta), role_binding(meta), secret(meta), config_map(meta)]
    children = [*access, deployment(tunnel, OPTIONS), disruption_budget(tunnel)]
    for child in children:
        # The garbage collector would take objects whose owner does not exist: this test is about the rest.
        child["metadata"].pop("ownerReferences")
        child["metadata"]["labels"]["test"] = "children"
    return children


def apply(cluster: Any, child: Any, manager: str = "culvert") -> None:
    cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", f"--field-manager={manager}", "--filename=-"),
        input=json.dumps(child),
    )


@pytest.mark.parametrize(("name", "connector"), [("plain", {"replicas": 0}), ("full", CONNECTOR)])
def test_what_was_applied_says_what_it_should(control_plane: Any, name: str, connector: dict[str, Any]) -> None:
    children = rendered(name, connector)
    try:
        for child in children:
            apply(control_plane, child)
        for child in children:
            stored = control_plane.get(child["kind"], child["metadata"]["name"])
            assert says(child, stored), f"{child['kind']} would be applied for ever"
            assert is_ours(stored, parse_tunnel({"metadata": {"name": name}}).meta)
            version = stored["metadata"]["resourceVersion"]
            apply(control_plane, child)
            again = control_plane.get(child["kind"], child["metadata"]["name"])
            assert says(child, again)
            if child["kind"] not in ("Deployment", "PodDisruptionBudget"):  # whose controllers write status
                assert again["metadata"]["resourceVersion"] == version
    finally:
        kinds = "serviceaccount,role,rolebinding,secret,configmap,deployment,poddisruptionbudget"
        control_plane.kubectl("delete", kinds, "--selector=test=children")


def test_an_edit_is_seen_and_a_field_that_is_no_longer_sent_goes(control_plane: Any) -> None:
    *_, before, _ = rendered("edited", CONNECTOR)
    *_, after, _ = rendered("edited", {"replicas": 0})
    try:
        apply(control_plane, before)
        patch = json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "connector", "image": "evil:1"}]}}}})
        control_plane.kubectl("patch", "deployment", "edited-connector", f"--patch={patch}")
        assert not says(before, control_plane.get("deployment", "edited-connector"))
        assert not says(after, control_plane.get("deployment", "edited-connector"))
        apply(control_plane, after)
        stored = control_plane.get("deployment", "edited-connector")
        assert says(after, stored)
        spec = stored["spec"]["template"]["spec"]
        assert "nodeSelector" not in spec
        assert "tolerations" not in spec
        assert spec["containers"][0]["image"] == "registry.example.com/culvert:1"
    finally:
        control_plane.kubectl("delete", "deployment", "--selector=test=children")


def test_the_number_of_pods_is_handed_over_without_ever_dropping(control_plane: Any) -> None:
    """The API server's default for replicas is 1: that is what a field that nobody names any more becomes."""
    *_, before, _ = rendered("scaled", {"replicas": 7})
    *_, after, _ = rendered("scaled", {"autoscaling": {"maxReplicas": 9}})
    assert "replicas" not in after["spec"]
    try:
        apply(control_plane, before)
        stored = control_plane.get("deployment", "scaled-connector", "--show-managed-fields")
        keeper = hand_over(stored)
        assert keeper is not None
        assert keeper["spec"] == {"replicas": 7}
        apply(control_plane, keeper, KEEPER)
        again = control_plane.get("deployment", "scaled-connector", "--show-managed-fields")
        assert hand_over(again) is None
        apply(control_plane, after)
        kept = control_plane.get("deployment", "scaled-connector", "--show-managed-fields")
        assert kept["spec"]["replicas"] == 7
        assert says(after, kept)
        control_plane.kubectl("scale", "deployment/scaled-connector", "--replicas=3")
        assert says(after, control_plane.get("deployment", "scaled-connector"))
        tunnel = parse_tunnel(
            {
                "metadata": {"name": "scaled", "namespace": "default", "uid": "u"},
                "spec": {"connector": {"autoscaling": {"maxReplicas": 9}}},
            }
        )
        assert tunnel.connector.autoscaling is not None
        scaler = autoscaler(tunnel, tunnel.connector.autoscaling)
        scaler["metadata"].pop("ownerReferences")
        scaler["metadata"]["labels"]["test"] = "children"
        apply(control_plane, scaler)
        assert says(scaler, control_plane.get("horizontalpodautoscaler", "scaled-connector"))
    finally:
        control_plane.kubectl("delete", "deployment,horizontalpodautoscaler", "--selector=test=children")
