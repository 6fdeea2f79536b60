"""From one version of culvert to the next: connectors are replaced when they are told to, and both versions are served.

The earlier version is the present image with another version number, which reads only schema 1 of the configuration and
whose operator makes Pods otherwise (see earlier_image.py). The relay stays as it is: a relay's restart is its own
visitors' business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import earlier_image
from .installation import ARCHIVE, IMAGE
from .test_journey_rollout import under_load

if TYPE_CHECKING:
    from .installation import Installation

EARLIER = "localhost/culvert:earlier"


def images(installation: Installation, *components: str) -> set[str]:
    """The images of which some component's Pods are there, those that are ending included."""
    pods = (pod for component in components for pod in installation.pods(component))
    return {container["image"] for pod in pods for container in pod["spec"]["containers"]}


def probed(installation: Installation) -> set[int]:
    """How often connectors' Pods are asked whether they are ready, which the two versions say differently."""
    containers = (pod["spec"]["containers"][0] for pod in installation.pods("connector"))
    return {container["readinessProbe"]["periodSeconds"] for container in containers}


def follow(installation: Installation, policy: str) -> None:
    patch = {"spec": {"connector": {"imageUpdatePolicy": policy}}}
    where = f"--namespace={installation.system}"
    installation.kubectl("patch", "tunnel", "main", where, "--type=merge", f"--patch={json.dumps(patch)}")


def reports(installation: Installation) -> list[Any]:
    """What the connectors say of themselves."""
    names = [pod["metadata"]["name"] for pod in installation.pods("connector")]
    uri = f"/api/v1/namespaces/{installation.system}/pods/{{}}:20241/proxy/v1/status"
    return [json.loads(installation.kubectl("get", "--raw", uri.format(name)).stdout) for name in names]


@pytest.fixture
def earlier(installation: Installation, tmp_path: Path) -> Iterator[str]:
    """The image of an earlier version, on the node for the duration of a test."""
    archive = tmp_path / "earlier.tar"
    earlier_image.earlier(ARCHIVE, EARLIER, archive)
    installation.cluster.load_image(archive)
    archive.unlink()
    try:
        yield EARLIER
    finally:
        installation.upgrade(IMAGE)
        follow(installation, "Automatic")
        installation.until(lambda: images(installation, "operator", "connector") == {IMAGE})
        installation.cluster.remove_image(EARLIER)


def test_an_upgraded_operator_serves_earlier_connectors_and_replaces_them_when_they_follow_it(
    installation: Installation, earlier: str, tmp_path: Path, record_property: Any
) -> None:
    host = f"upgrade.{installation.zone}"
    rewriting = installation.binding("upgrade", host)
    rewriting["spec"]["rules"][0] |= {
        "path": {"type": "PathPrefix", "value": "/api"},
        "originRequest": {"pathRewrite": {"stripPrefix": "/api"}},
    }
    follow(installation, "Automatic")
    installation.upgrade(earlier)
    installation.until(lambda: images(installation, "connector") == {earlier})
    installation.until(lambda: all(report["ready"] for report in reports(installation)))
    assert {(r["version"], *r["schemas"]) for r in reports(installation)} == {(earlier_image.VERSION, 1)}
    assert probed(installation) == {3}
    follow(installation, "Manual")
    before = installation.lives("connector")
    with under_load(installation, tmp_path, record_property, "upgrade from one version to the next under load"):
        installation.upgrade(IMAGE)
        with installation.bound(rewriting):
            # What an earlier connector cannot do is said and answered with 503; what it can do goes on.
            installation.wait_ready("tunnelbinding/upgrade", "shop", condition="Programmed")
            resolved = installation.condition("tunnelbinding", "upgrade", "shop", "ResolvedRefs")
            assert resolved[:2] == ("False", "ConnectorTooOld")
            assert "originRequest.pathRewrite" in resolved[2]
            assert installation.visit(host, "/api/orders").status == 503
            assert installation.document()["schema"] == 1
            assert installation.condition("tunnelbinding", "first", "shop", "Ready")[0] == "True"
            installation.at_rest()
            assert installation.lives("connector") == before
            assert images(installation, "connector") == {earlier}
            assert images(installation, "operator") == {IMAGE}

            follow(installation, "Automatic")
            installation.until(lambda: images(installation, "connector") == {IMAGE})
            assert probed(installation) == {2}
            installation.wait_ready("tunnelbinding/upgrade", "shop")
            assert installation.document()["schema"] == 2
            answer = installation.visit(host, "/api/orders")
            assert (answer.status, json.loads(answer.body)["path"]) == (200, "/orders")
    assert len(installation.lives("connector")) == 2
