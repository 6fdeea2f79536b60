"""The operator and the relay go away and come back on a real node."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .installation import Installation

OPERATOR = "app.kubernetes.io/component=operator"


def kill_operator(installation: Installation) -> str:
    """Kill the operator's Pod without a farewell; its uid."""
    installation.logs()
    (pod,) = installation.pods("operator")
    name, where = pod["metadata"]["name"], f"--namespace={installation.system}"
    installation.kubectl("delete", "pod", name, where, "--grace-period=0", "--force")
    return str(pod["metadata"]["uid"])


def operator_is_back(installation: Installation, killed: str) -> bool:
    """Whether another Pod than the killed one is the operator, and ready."""
    return [
        condition["status"]
        for pod in installation.pods("operator")
        if pod["metadata"]["uid"] != killed
        for condition in pod["status"].get("conditions", ())
        if condition["type"] == "Ready"
    ] == ["True"]


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


def test_an_operator_killed_midway_ends_where_an_undisturbed_one_does(installation: Installation) -> None:
    hosts = {f"k{number}": f"k{number}.{installation.zone}" for number in range(8)}
    bindings = [installation.binding(name, host) for name, host in hosts.items()]
    connectors = installation.lives("connector")
    with installation.bound(*bindings):
        for name in hosts:
            installation.wait_ready(f"tunnelbinding/{name}", "shop")
        undisturbed = end_state(installation)
    assert not [host for host in hosts.values() if host in installation.zone_text()]
    # The same again, with a kill in the middle of the first half and another while it works through what it missed.
    with installation.bound(*bindings[:4]):
        installation.until(lambda: installation.claims().keys() & set(hosts.values()), every=0)
        first = kill_operator(installation)
        with installation.bound(*bindings[4:]):
            installation.until(lambda: operator_is_back(installation, first))
            second = kill_operator(installation)
            installation.until(lambda: operator_is_back(installation, second))
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
    killed = kill_operator(installation)
    installation.until(lambda: operator_is_back(installation, killed))
    assert installation.visit(installation.first).status == 200
    started = {
        e["requestURI"].partition("?")[0]
        for e in installation.audit(since)
        if e["user"]["username"] == installation.operator and e["verb"] == "list"
    }
    assert {"/apis/culvert.dev/v1alpha1/tunnelbindings", "/api/v1/services"} <= started, started

    def renewed() -> bool:
        """Every kind's watch of the new Pod has ended once, as the operator asks for it, and was taken up again."""
        ended = {
            e["requestURI"].partition("?")[0]
            for e in installation.audit(since)
            if e["user"]["username"] == installation.operator
            and e["verb"] == "watch"
            and e["stage"] == "ResponseComplete"
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
    installation.until(lambda: installation.visit(installation.first).status != 0, every=0.02)
    open_again = time.monotonic()
    installation.served(installation.first)
    recovered = time.monotonic() - open_again
    record_property("relay back → first 200", f"{recovered:.1f} s after it took connections")
    assert recovered < 15
    installation.wait_ready("tunnel/main", installation.system)
    installation.wait_ready("tunnelbinding/first", "shop")
    assert connected() == "True"
    assert installation.zone_text() == serial
    assert installation.lives("connector") == connectors
