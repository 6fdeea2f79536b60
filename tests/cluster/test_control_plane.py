"""The control plane that tests get: a real API server with its controllers and an exact audit log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Cluster

CONFIG_MAP = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s, namespace: %s}, data: {secret: s3cret}}"


def until(condition: Callable[[], bool], what: str, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout} s")
        time.sleep(0.1)


def test_namespaces_finish_deleting(control_plane: Cluster) -> None:
    control_plane.kubectl("create", "namespace", "short-lived")
    control_plane.kubectl("delete", "namespace", "short-lived", "--wait", "--timeout=30s")
    assert control_plane.kubectl("get", "namespace", "short-lived", check=False).returncode != 0


def test_orphans_are_garbage_collected(control_plane: Cluster) -> None:
    control_plane.apply(CONFIG_MAP % ("owner", "default"))
    uid = control_plane.get("configmap", "owner")["metadata"]["uid"]
    owner = f"ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]"
    control_plane.apply(f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: child, {owner}}}}}")
    control_plane.kubectl("delete", "configmap", "owner")
    until(
        lambda: control_plane.kubectl("get", "configmap", "child", check=False).returncode != 0,
        "the child's deletion",
    )


def test_the_audit_log_counts_writes_of_one_user_agent_and_holds_no_bodies(control_plane: Cluster) -> None:
    control_plane.apply(CONFIG_MAP % ("counted", "default"))
    control_plane.apply(CONFIG_MAP % ("counted", "default"))  # unchanged: kubectl does not even send it
    control_plane.kubectl("delete", "configmap", "counted")
    events = [one for one in control_plane.audit() if one.get("objectRef", {}).get("name") == "counted"]
    writes = [one["verb"] for one in events if one["verb"] not in ("get", "list", "watch")]
    assert writes == ["create", "delete"]
    assert {one["user"]["username"] for one in events} == {"admin"}
    assert all(one["userAgent"].startswith("kubectl/") for one in events)
    assert all(one["stage"] != "RequestReceived" for one in events)
    assert "s3cret" not in control_plane.audit_log.read_text()


def test_a_refused_request_is_in_the_audit_log(control_plane: Cluster) -> None:
    done = control_plane.kubectl("get", "secrets", "--as=nobody", check=False)
    assert done.returncode != 0
    refused = [one for one in control_plane.audit() if one.get("impersonatedUser", {}).get("username") == "nobody"]
    assert refused
    assert all(one["responseStatus"]["code"] == 403 for one in refused)
