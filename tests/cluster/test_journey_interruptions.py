"""The operator and the relay go away and come back on a real node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .installation import Installation


def remove_operator(installation: Installation) -> list[tuple[str, int]]:
    """Delete the operator's Pod by force; the lives that it had."""
    installation.logs()
    lives = installation.lives("operator")
    (pod,) = installation.pods("operator")
    name, where = pod["metadata"]["name"], f"--namespace={installation.system}"
    installation.kubectl("delete", "pod", name, where, "--grace-period=0", "--force")
    return lives


def process_of(pod: Any) -> int:
    """The process id of a Pod's only container on this machine, which is the node."""
    uid, found = pod["metadata"]["uid"], []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            if f"pod{uid}" in (process / "cgroup").read_text() and b"culvert" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    (only,) = found
    return only


def operator_is_back(installation: Installation, before: list[tuple[str, int]]) -> bool:
    """Whether the operator lives another life than before, and is ready."""
    ready = [
        condition["status"]
        for pod in installation.pods("operator")
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "Ready"
    ]
    return ready == ["True"] and not set(installation.lives("operator")) & set(before)


def not_ready(installation: Installation) -> set[str]:
    """The bindings of namespace shop that are not Ready."""
    items = installation.cluster.get("tunnelbindings", "--namespace=shop")["items"]
    return {
        item["metadata"]["name"]
        for item in items
        if ("Ready", "True") not in {(c["type"], c["status"]) for c in item.get("status", {}).get("conditions", ())}
    }


def end_state(installation: Installation) -> dict[str, Any]:
    """All that the operator is answerable for, without what time and order alone decide (versions, serials, dates)."""
    zone = [line for line in installation.zone_text().splitlines() if " SOA " not in line]
    document = installation.document()
    return {
        "zone": sorted(zone),
        "rules": sorted(json.dumps(rule, sort_keys=True) for rule in document["rules"]),
        "claims": installation.claims(),
        "children": {
            kind: installation.get(kind, name)["metadata"]["uid"]
            for kind, name in (
                ("deployment", "main-connector"), ("configmap", "main-config"), ("secret", "main-credential"),
                ("serviceaccount", "main-connector"), ("role", "main-connector"), ("rolebinding", "main-connector"),
                ("poddisruptionbudget", "main-connector"),
            )
        },
        "credential": installation.get("secret", "main-credential")["data"],
    }  # fmt: skip


def test_d01_an_operator_killed_midway_ends_where_an_undisturbed_one_does(installation: Installation) -> None:
    hosts = {f"k{number}": f"k{number}.{installation.zone}" for number in range(8)}
    bindings = [installation.binding(name, host) for name, host in hosts.items()]
    connectors = installation.lives("connector")
    with installation.bound(*bindings):
        for name in hosts:
            installation.wait_ready(f"tunnelbinding/{name}", "shop")
        undisturbed = end_state(installation)
    assert not [host for host in hosts.values() if host in installation.zone_text()]
    # The same again, killed as soon as it has begun, and once more while it works through what it missed.
    lives, process = installation.lives("operator"), process_of(installation.pods("operator")[0])
    command = installation.cluster.kubectl_command("get", "hostnameclaims", "--watch", "--output=name")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()  # the claim of `first`: the watch is on
        installation.apply(*bindings[:4])
        watch.stdout.readline()
        os.kill(process, signal.SIGKILL)
        watch.kill()
    with installation.bound(*bindings[:4]):
        assert not_ready(installation), "it was killed too late for this test to tell anything"
        with installation.bound(*bindings[4:]):
            installation.until(lambda: operator_is_back(installation, lives), every=0.02)
            lives = remove_operator(installation)
            installation.until(lambda: operator_is_back(installation, lives))
            for name in hosts:
                installation.wait_ready(f"tunnelbinding/{name}", "shop")
            for host in hosts.values():
                assert installation.visit(host).status == 200
            assert end_state(installation) == undisturbed
            assert installation.lives("connector") == connectors
    installation.until(lambda: installation.claims().keys() == {installation.first})
    assert installation.document()["rules"][0]["hostname"] == installation.first
    assert not [host for host in hosts.values() if host in installation.zone_text()]


def test_an_operator_that_restarts_over_an_unchanged_world_writes_nothing(
    installation: Installation, record_property: Any
) -> None:
    """Counted by the API server, from the restart until every kind was listed anew and each watch was renewed."""
    installation.wait_ready("tunnel/main", installation.system)
    installation.wait_ready("tunnelbinding/first", "shop")
    installation.at_rest()
    since = len(installation.cluster.audit())
    restarted = datetime.now(UTC)
    lives = remove_operator(installation)
    installation.until(lambda: operator_is_back(installation, lives))
    assert installation.visit(installation.first).status == 200
    lists = {
        e["requestURI"].partition("?")[0]: datetime.fromisoformat(e["requestReceivedTimestamp"])
        for e in installation.audit(since)
        if e["user"]["username"] == installation.operator and e["verb"] == "list"
    }
    started, first_list = lists.keys(), min(lists.values())
    assert {"/apis/culvert.dev/v1alpha1/tunnelbindings", "/api/v1/services"} <= started, started
    assert first_list > restarted

    def renewed() -> bool:
        """Every kind's watch of the new Pod has ended once, as the operator asks for it, and was taken up again."""
        ended = {
            e["requestURI"].partition("?")[0]
            for e in installation.audit(since)
            if e["user"]["username"] == installation.operator
            and e["verb"] == "watch"
            and e["stage"] == "ResponseComplete"
            and datetime.fromisoformat(e["requestReceivedTimestamp"]) > first_list
        }
        return started <= ended

    installation.until(renewed, every=1)
    assert 'culvert_operator_reconcile_total{result="success"} 0.0' not in installation.metrics("operator", 9902)
    writes = installation.writes(since)
    record_property("writes by culvert on a restart over an unchanged world", str(len(writes)))
    assert writes == []
    assert "\nculvert_operator_writes_total 0.0\n" in installation.metrics("operator", 9902)


def test_the_record_stays_while_the_relay_is_away_and_visitors_return_with_it(
    installation: Installation, record_property: Any
) -> None:
    where = f"--namespace={installation.system}"
    record = f"{installation.first}.\t5\tIN\tCNAME\trelay.{installation.zone}.\n"
    assert record in installation.zone_text()
    connectors = installation.lives("connector")
    serial = installation.zone_text()
    installation.logs()

    def connected() -> str:
        return installation.condition("tunnel", "main", installation.system, "Connected")[0]

    try:
        installation.kubectl("scale", "statefulset/culvert-relay", where, "--replicas=0")
        installation.until(lambda: not installation.pods("relay"))
        installation.until(lambda: connected() in ("False", "Unknown"))
        installation.until(
            lambda: installation.condition("tunnel", "main", installation.system, "Ready")[0] in ("False", "Unknown")
        )
        installation.at_rest()
        assert installation.zone_text() == serial
        assert installation.published(installation.first)
        assert installation.visit(installation.first).status == 0
    finally:
        installation.kubectl("scale", "statefulset/culvert-relay", where, "--replicas=1")
    installation.served(installation.first)
    answered = datetime.now(UTC)
    (relay,) = installation.pods("relay")
    log = installation.kubectl("logs", relay["metadata"]["name"], where).stdout.splitlines()
    (started,) = (json.loads(line) for line in log if '"relay started"' in line)
    recovered = (answered - datetime.fromisoformat(started["time"])).total_seconds()
    record_property("relay listens again → first 200", f"{recovered:.1f} s")
    assert 0 < recovered < 15
    installation.wait_ready("tunnel/main", installation.system)
    installation.wait_ready("tunnelbinding/first", "shop")
    assert connected() == "True"
    assert installation.zone_text() == serial
    assert installation.lives("connector") == connectors


def test_d33_without_an_operator_traffic_goes_on_and_connectors_that_restart_serve(
    installation: Installation,
) -> None:
    where = f"--namespace={installation.system}"
    before = installation.document()["version"]
    installation.logs()
    installation.kubectl("scale", "deployment/culvert-operator", where, "--replicas=0")
    try:
        installation.until(lambda: not installation.pods("operator"))
        with installation.watching(lambda: installation.visit(installation.first).status) as visits:
            # One container dies and starts again in its Pod; then every Pod is replaced.
            process, lives = process_of(installation.pods("connector")[0]), installation.lives("connector")
            os.kill(process, signal.SIGKILL)
            installation.until(lambda: sum(n for _, n in installation.lives("connector")) > sum(n for _, n in lives))
            installation.kubectl("rollout", "status", "deployment/main-connector", where, "--timeout=100s")
            quiet = len(visits.seen)
            installation.kubectl("rollout", "restart", "deployment/main-connector", where)
            installation.kubectl("rollout", "status", "deployment/main-connector", where, "--timeout=200s")
            installation.until(lambda: {u for u, _ in installation.lives("connector")}.isdisjoint(u for u, _ in lives))
            installation.until(lambda: len(visits.seen) > quiet + 50)
        # A process that is killed takes what it was serving with it: nothing else is lost, and nothing after that.
        assert set(visits.seen[quiet:]) == {200}
        assert [status for status in visits.seen if status != 200][1:] == []
        assert installation.published(installation.first)
    finally:
        installation.kubectl("scale", "deployment/culvert-operator", where, "--replicas=1")
        installation.until(lambda: installation.pods("operator"))
        installation.kubectl("rollout", "status", "deployment/culvert-operator", where, "--timeout=200s")
    installation.wait_ready("tunnel/main", installation.system)
    # The rollout restart was an edit of a child: a person's annotation on its Pods stays.
    assert installation.document()["version"] == before
