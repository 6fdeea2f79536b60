"""Connectors that are replaced, evicted, added and taken away cost no visitor anything."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .installation import Installation

LOAD = Path(__file__).resolve().parents[2] / "hack" / "demo" / "load.py"
RATE = 60.0


@contextlib.contextmanager
def under_load(installation: Installation, folder: Path, record_property: Any, what: str) -> Iterator[None]:
    """An open-loop client around a block: requests leave at their times whatever became of earlier ones, and none is
    repeated. Afterwards none may have failed, been lost, or delivered twice."""
    stop, prefix = folder / "stop", f"load{time.monotonic_ns()}"
    counted = f"/delivered?prefix={prefix}"
    command = [sys.executable, str(LOAD), f"http://127.0.0.1:{installation.http_port}", installation.first, prefix]
    options = ["--until", str(stop), "--rate", str(RATE), "--seconds", "240"]
    client = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def arrived() -> int:
        return int(json.loads(installation.visit(installation.first, counted).body)["ids"])

    try:
        installation.until(lambda: arrived() > RATE)
        started = time.monotonic()
        yield
        took = time.monotonic() - started
        served = arrived()
        installation.until(lambda: arrived() > served + RATE)
        stop.touch()
        output, errors = client.communicate(timeout=90)
    finally:
        if client.poll() is None:
            client.kill()
            client.communicate()
    assert errors == ""
    result = json.loads(output)
    delivered = json.loads(installation.visit(installation.first, counted).body)
    record_property(
        what,
        f"{result['sent']} sent in {took:.0f} s, {result['failed']} failed, {len(delivered['twice'])} delivered twice, "
        f"{result['sent'] - delivered['ids']} lost; latency from the intended start {result['ms']} ms",
    )
    assert result["failures"] == []
    assert result["failed"] == 0
    assert delivered["twice"] == []
    assert delivered["ids"] == result["sent"]


def test_no_request_fails_is_lost_or_comes_twice_while_every_connector_is_replaced(
    installation: Installation, tmp_path: Path, record_property: Any
) -> None:
    installation.served(installation.first)
    installation.until(lambda: len(installation.lives("connector")) == 2)
    installation.logs()
    before = {uid for uid, _ in installation.lives("connector")}
    with under_load(installation, tmp_path, record_property, "rolling update of the connectors under load"):
        deployment = ("deployment/main-connector", f"--namespace={installation.system}")
        installation.kubectl("rollout", "restart", *deployment)
        installation.kubectl("rollout", "status", *deployment, "--timeout=200s")
        # The old ones drain and go; the load goes on until the last of them is away.
        installation.until(lambda: {uid for uid, _ in installation.lives("connector")}.isdisjoint(before))
    assert len(installation.lives("connector")) == 2


def test_a_connector_that_stops_says_farewell_before_it_goes(installation: Installation) -> None:
    """The old Pods of a rollout end by themselves: drained, with exit code 0, long before they would be killed."""
    names = [pod["metadata"]["name"] for pod in installation.pods("connector")]
    assert len(names) == 2
    sessions = '\nculvert_relay_sessions{state="serving"} 8.0\n'
    installation.until(lambda: sessions in installation.metrics("relay", 9901))
    started = time.monotonic()
    installation.kubectl("delete", "pod", names[0], f"--namespace={installation.system}", "--timeout=60s")
    assert time.monotonic() - started < 35, "the grace period of 20 s and its margin went by: it did not end by itself"
    assert installation.visit(installation.first).status == 200
    installation.until(lambda: sessions in installation.metrics("relay", 9901))


def test_an_eviction_takes_one_connector_at_a_time_and_no_request(
    installation: Installation, tmp_path: Path, record_property: Any
) -> None:
    """What `kubectl drain` does with each Pod of a node, without the node that would have to be there for the next."""
    installation.until(lambda: len(installation.lives("connector")) == 2)
    first, second = (pod["metadata"]["name"] for pod in installation.pods("connector"))

    def evict(name: str) -> str:
        path = f"/api/v1/namespaces/{installation.system}/pods/{name}/eviction"
        metadata = {"name": name, "namespace": installation.system}
        body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
        done = installation.kubectl("create", "--raw", path, "--filename=-", input=body, check=False)
        return done.stdout + done.stderr

    with under_load(installation, tmp_path, record_property, "evictions of the connectors under load"):
        assert '"status":"Success"' in evict(first)
        assert "disruption budget" in evict(second), "the other one may only go when there are two again"
        installation.until(lambda: '"status":"Success"' in evict(second), every=0.5)
        gone = {first, second}
        installation.until(lambda: gone.isdisjoint(pod["metadata"]["name"] for pod in installation.pods("connector")))
    installation.kubectl(
        "rollout", "status", "deployment/main-connector", f"--namespace={installation.system}", "--timeout=200s"
    )


def test_an_autoscaler_adds_connectors_and_their_going_costs_nothing(
    installation: Installation, tmp_path: Path, record_property: Any
) -> None:
    """Without a metrics server the cluster's autoscaler does what it can do without: it keeps the least number."""

    def connectors(spec: dict[str, Any]) -> None:
        patch = f"--patch={json.dumps({'spec': {'connector': spec}})}"
        installation.kubectl("patch", "tunnel", "main", f"--namespace={installation.system}", "--type=merge", patch)

    def running(number: int) -> bool:
        deployment = installation.get("deployment", "main-connector")
        return (deployment["spec"]["replicas"], deployment["status"].get("readyReplicas")) == (number, number)

    try:
        connectors({"autoscaling": {"minReplicas": 3, "maxReplicas": 4}})
        installation.until(lambda: running(3))
        names = {pod["metadata"]["name"] for pod in installation.pods("connector")}
        with under_load(installation, tmp_path, record_property, "from three connectors to one under load"):
            connectors({"autoscaling": None, "replicas": 1})
            installation.until(lambda: running(1))
            installation.until(lambda: len(installation.pods("connector")) == 1)
        (left,) = installation.pods("connector")
        assert left["metadata"]["name"] in names
        assert installation.get("hpa", "main-connector") is None
    finally:
        connectors({"autoscaling": None, "replicas": 2})
        installation.until(lambda: running(2))
