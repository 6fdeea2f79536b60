"""The children as they are rendered: safe, deterministic, and not restarted by a configuration."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.children.access import role, role_binding, service_account
from culvert_operator.children.metadata import APPLIED, at_version, is_ours, labels
from culvert_operator.children.workload import DEFAULT_RESOURCES, deployment, disruption_budget
from culvert_operator.options import Options

OPTIONS = Options(namespace="culvert-system", image="registry.example.com/culvert:1")
RAW: dict[str, Any] = {
    "metadata": {"name": "main", "namespace": "culvert-system", "uid": "u1"},
    "spec": {"relay": {"addresses": ["r:1"]}, "connector": {"replicas": 3, "gracePeriodSeconds": 20}},
}


def rendered(**connector: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    raw["spec"]["connector"] |= connector
    return deployment(parse_tunnel(raw), OPTIONS)


def pod(**connector: Any) -> dict[str, Any]:
    found: dict[str, Any] = rendered(**connector)["spec"]["template"]["spec"]
    return found


def test_pods_keep_the_restricted_pod_security_standard() -> None:
    spec = pod()
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert {tuple(v.keys() - {"name"}) for v in spec["volumes"]} == {("configMap",), ("secret",), ("emptyDir",)}


def test_the_group_can_read_the_secret_and_nobody_else() -> None:
    spec = pod()
    secret = next(v["secret"] for v in spec["volumes"] if "secret" in v)
    assert secret == {"secretName": "main-credential", "defaultMode": 0o440}
    assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]


def test_command_environment_and_mounts_are_the_connectors_interface() -> None:
    (container,) = pod()["containers"]
    assert [*container["command"], *container["args"]] == [
        *("culvert", "connector", "run"),
        *("--config-dir", "/etc/culvert/config", "--credentials-dir", "/etc/culvert/credential"),
    ]
    assert {e["name"]: e["value"] for e in container["env"]} == {
        "CULVERT_NAMESPACE": "culvert-system",
        "CULVERT_CONFIGMAP": "main-config",
        "CULVERT_SECRET": "main-credential",
        "CULVERT_LOG_LEVEL": "info",
        "CULVERT_LOG_FORMAT": "json",
    }
    assert {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]} == {
        "/etc/culvert/config": True,
        "/etc/culvert/credential": True,
        "/tmp": False,
    }


def test_probes_grace_and_rollout() -> None:
    body = rendered()
    spec = body["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 20241, "scheme": "HTTP"}
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert spec["terminationGracePeriodSeconds"] == 35
    assert body["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = disruption_budget(parse_tunnel(RAW))["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_defaults_and_a_persons_own_choices() -> None:
    spec = pod()
    assert spec["containers"][0]["resources"]["requests"]["cpu"]
    assert {c["whenUnsatisfiable"] for c in spec["topologySpreadConstraints"]} == {"ScheduleAnyway"}
    assert spec["containers"][0]["image"] == "registry.example.com/culvert:1"
    chosen = pod(
        image="other:2",
        imagePullSecrets=[{"name": "pull"}],
        nodeSelector={"disk": "ssd"},
        tolerations=[{"key": "a", "operator": "Exists", "value": None}],
        affinity={"podAffinity": {}},
        topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
        logLevel="debug",
    )
    assert chosen["containers"][0]["image"] == "other:2"
    assert chosen["imagePullSecrets"] == [{"name": "pull"}]
    assert chosen["nodeSelector"] == {"disk": "ssd"}
    assert chosen["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert chosen["affinity"] == {"podAffinity": {}}
    (spread,) = chosen["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"]["culvert.dev/tunnel"] == "main"
    assert pod(topologySpreadConstraints=[])["topologySpreadConstraints"] == []


@pytest.mark.parametrize(
    ("chosen", "made"),
    [
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}}),
        ({"requests": {"memory": "1Gi"}}, {"requests": {"cpu": "100m", "memory": "1Gi"}}),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "2"}}),
        ({"requests": {"cpu": 0, "memory": "1Gi"}}, {"requests": {"cpu": 0, "memory": "1Gi"}}),
        ({"limits": {"cpu": "50m"}}, {"limits": {"cpu": "50m"}}),
        ({"limits": None, "requests": {"cpu": None}}, {"requests": {"cpu": "100m"}}),
        ({}, DEFAULT_RESOURCES),
        (None, DEFAULT_RESOURCES),
    ],
)
def test_there_is_a_cpu_request_that_an_autoscaler_can_measure_against(chosen: Any, made: Any) -> None:
    assert pod(resources=chosen)["containers"][0]["resources"] == made


def test_a_persons_labels_never_replace_culverts() -> None:
    template = rendered(podLabels={"team": "x", "culvert.dev/tunnel": "evil"}, podAnnotations={"a": "b"})["spec"][
        "template"
    ]
    assert template["metadata"]["labels"] == {"team": "x", **labels("main")}
    assert template["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize(
    "change", [{"rules": 1}, {"grants": []}, {"fallback": {"httpStatus": 410}}, {"dns": {"memory": {}}}]
)
def test_the_pod_template_does_not_depend_on_the_configuration(change: dict[str, Any]) -> None:
    raw = copy.deepcopy(RAW)
    raw["spec"] |= change
    assert deployment(parse_tunnel(raw), OPTIONS) == rendered()


def test_a_field_that_is_no_longer_sent_shows_in_the_digest() -> None:
    before = rendered(nodeSelector={"disk": "ssd"})["metadata"]["annotations"][APPLIED]
    assert before != rendered()["metadata"]["annotations"][APPLIED]
    assert rendered()["metadata"]["annotations"][APPLIED] == rendered()["metadata"]["annotations"][APPLIED]


def test_connectors_may_read_their_two_objects_and_nothing_else() -> None:
    meta = parse_tunnel(RAW).meta
    assert role(meta)["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["main-config"],
            "verbs": ["get", "list", "watch"],
        },
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["main-credential"],
            "verbs": ["get", "list", "watch"],
        },
    ]
    (subject,) = role_binding(meta)["subjects"]
    assert (subject["name"], subject["namespace"]) == (service_account(meta)["metadata"]["name"], "culvert-system")


def test_nothing_in_a_child_is_more_than_json() -> None:
    hostile = '"\n${x}{{ .Values }}'
    body = rendered(image=hostile, nodeSelector={"a": hostile})
    assert json.loads(json.dumps(body)) == body
    assert body["spec"]["template"]["spec"]["containers"][0]["image"] == hostile


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        ({"ownerReferences": [{"uid": "u1", "controller": True}]}, True),
        ({"ownerReferences": [{"uid": "u2", "controller": True}], "labels": labels("main")}, False),
        ({"labels": labels("main")}, True),
        ({"labels": labels("other")}, False),
        ({}, False),
    ],
)
def test_whose_an_object_is(metadata: dict[str, Any], ours: bool) -> None:
    assert is_ours({"metadata": metadata}, parse_tunnel(RAW).meta) is ours


def test_an_apply_is_fenced_by_what_it_was_planned_on() -> None:
    body = rendered()
    assert "resourceVersion" not in at_version(body, None)["metadata"]
    assert at_version(body, {"metadata": {"resourceVersion": "9"}})["metadata"]["resourceVersion"] == "9"
    assert "resourceVersion" not in body["metadata"]
