"""Deletion in every order on a real API server with its controllers: everything ends, and says what stays behind."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from culvert_operator.revoking.decision import LINGER_SECONDS

from .operators import ZONE, World, until

GONE_WITHIN = 60.0
"""Seconds; far below the two minutes after which DNS that cannot be reached is given up."""
GIVEN_UP_WITHIN = LINGER_SECONDS + 30.0
"""Where no relay can be told that a Tunnel went."""


@pytest.fixture
def served(world: World) -> tuple[World, str]:
    """A published name of namespace shop on a Tunnel in the operator's namespace."""
    host = f"shop.{world.zone}"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(host))
    world.served(world.connect(), host)
    until(lambda: host in world.zone_text())
    until(lambda: world.condition("tunnelbinding", "web", f"{world.name}-shop", "Ready")[0] == "True")
    return world, host


def namespace_gone(world: World, name: str) -> bool:
    return world.find("namespace", name) is None


def all_claims(world: World) -> list[Any]:
    return [c for c in world.cluster.get("hostnameclaims")["items"] if world.zone in c["spec"]["hostname"]]


def claims(world: World) -> list[str]:
    return [claim["spec"]["hostname"] for claim in all_claims(world)]


def revoked(world: World) -> list[Any]:
    ledger = world.find("configmap", "culvert-revocations") or {}
    return [json.loads(text) for text in ledger.get("data", {}).values()]


def children(world: World, namespace: str) -> list[str]:
    kinds = "serviceaccounts,roles,rolebindings,secrets,configmaps,deployments,poddisruptionbudgets"
    selector = "--selector=culvert.dev/tunnel=main"
    items = world.cluster.get(kinds, selector, f"--namespace={namespace}")["items"]
    return [item["kind"] for item in items]


def test_a_tunnel_deleted_in_the_foreground_takes_its_records_with_it_and_is_revoked(
    served: tuple[World, str],
) -> None:
    world, host = served
    world.cluster.kubectl(
        *("delete", "tunnel", "main", f"--namespace={world.system}", "--cascade=foreground", "--timeout=60s"),
        timeout=90,
    )
    assert host not in world.zone_text()
    until(lambda: children(world, world.system) == [])  # by the garbage collector, at its leisure
    (entry,) = revoked(world)
    assert entry["tunnel"] == f"{world.system}/main"
    assert abs(entry["notBefore"] - time.time()) < 60
    until(
        lambda: world.condition("tunnelbinding", "web", f"{world.name}-shop", "Accepted") == ("False", "TunnelNotFound")
    )


def test_a_tunnel_and_its_binding_deleted_at_once_leave_nothing(served: tuple[World, str]) -> None:
    world, host = served
    where = f"--namespace={world.system}"
    world.cluster.kubectl("delete", "tunnel", "main", where, "--wait=false")
    world.cluster.kubectl("delete", "namespace", f"{world.name}-shop", "--wait=false")
    until(lambda: world.find("tunnel", "main") is None, seconds=GONE_WITHIN)
    until(lambda: namespace_gone(world, f"{world.name}-shop"), seconds=GONE_WITHIN)
    assert host not in world.zone_text()
    until(lambda: claims(world) == [])
    world.cluster.kubectl("create", "namespace", f"{world.name}-shop")  # what the end of the test expects


def test_d22_a_name_goes_to_another_tunnel_once_the_relay_knows_that_its_tunnel_went(world: World) -> None:
    host, ear = f"shop.{world.zone}", world.ear
    ear.answers = False
    tunnel, other = world.tunnel(), world.tunnel()
    other["metadata"]["name"] = "other"
    rival = world.binding(host, team="blog")
    rival["spec"]["tunnelRef"]["name"] = "other"
    world.start()
    world.apply(tunnel, other, world.service(), world.service("blog"), world.binding(host))
    world.served(world.connect(), host)
    world.apply(rival)
    (claim,) = until(lambda: [c for c in all_claims(world) if c["spec"].get("waiting")])
    # No deletion waits for the relay, neither the Tunnel's nor the binding's.
    world.cluster.kubectl("delete", "tunnel", "main", f"--namespace={world.system}", "--timeout=20s")
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={world.name}-shop", "--timeout=20s")
    (entry,) = revoked(world)
    assert (entry["tunnel"], entry["told"]) == (f"{world.system}/main", [])
    (held,) = all_claims(world)
    assert (held["metadata"]["uid"], held["spec"]["tunnel"]) == (claim["metadata"]["uid"], f"{world.system}/main")
    where = ("tunnelbinding", "web", f"{world.name}-blog")
    assert world.condition(*where, "Accepted") == ("False", "HostnameConflict")
    ear.answers = True
    until(lambda: world.condition(*where, "Accepted")[0] == "True")
    (held,) = all_claims(world)
    assert held["spec"]["tunnel"] == f"{world.system}/other"
    assert len(ear.told) >= 1


def test_d12_a_namespace_with_a_binding_goes_and_takes_the_record_and_the_claim(served: tuple[World, str]) -> None:
    world, host = served
    world.cluster.kubectl("delete", "namespace", f"{world.name}-shop", f"--timeout={GONE_WITHIN:g}s", timeout=90)
    assert host not in world.zone_text()
    assert "_culvert" not in world.zone_text()
    assert claims(world) == []
    assert world.document()["rules"] == []
    world.cluster.kubectl("create", "namespace", f"{world.name}-shop")


def test_d12_a_namespace_with_a_tunnel_goes_though_its_zone_and_secret_go_before_it(world: World) -> None:
    """The zone is a ConfigMap of that namespace: nobody can withdraw the records, and an Event says so."""
    edge, host, shop = f"{world.name}-edge", f"shop.{world.zone}", f"{world.name}-shop"
    world.cluster.kubectl("create", "namespace", edge)
    world.allow_tunnels_in(edge)
    world.start(f"--tunnel-namespaces={world.system},{edge}")
    zone = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "zone", "namespace": edge}}
    tunnel, binding = world.with_zone(), world.binding(host)
    tunnel["metadata"]["namespace"] = edge
    tunnel["spec"]["relay"] = {"addresses": ["relay.example.net:443"]}  # which nobody can reach
    binding["spec"]["tunnelRef"]["namespace"] = edge
    world.apply(zone | {"data": {"db": ZONE.format(zone=world.zone)}}, tunnel, world.service(), binding)
    until(lambda: world.condition("tunnelbinding", "web", shop, "Accepted")[0] == "True")
    until(lambda: world.find("secret", "main-credential", edge))
    world.emptied.add(edge)
    world.cluster.kubectl("delete", "namespace", edge, f"--timeout={GONE_WITHIN:g}s", timeout=90)
    (entry,) = revoked(world)
    assert entry["tunnel"] == f"{edge}/main"
    until(lambda: world.condition("tunnelbinding", "web", shop, "Accepted") == ("False", "TunnelNotFound"))
    until(lambda: claims(world) == [], seconds=GIVEN_UP_WITHIN)
    # A binding of a Tunnel that has gone is not held up either.
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={shop}", "--timeout=30s")
    # Nor is an operator that is started without a namespace that it is to serve.
    assert world.stop() == 0
    world.start(f"--tunnel-namespaces={world.system},{edge}")


def test_the_operators_own_namespace_goes_with_live_objects_in_it_and_elsewhere(served: tuple[World, str]) -> None:
    world, host = served
    shop = f"{world.name}-shop"
    world.emptied.add(world.system)
    world.cluster.kubectl("delete", "namespace", world.system, "--wait=false")
    until(lambda: namespace_gone(world, world.system), seconds=GONE_WITHIN)
    # Nobody is left to release the binding: it was released before the operator lost its rights.
    assert "finalizers" not in world.get("tunnelbinding", "web", shop)["metadata"]
    events = world.cluster.get("events.v1.events.k8s.io", f"--namespace={shop}")["items"]
    (told,) = [e["note"] for e in events if e["reason"] == "Released"]
    assert f"{host} A" in told
    world.kill()
    world.instance = None
    world.cluster.kubectl("delete", "namespace", shop, f"--timeout={GONE_WITHIN:g}s", timeout=90)
    world.again()


def test_after_an_uninstallation_no_namespace_waits_for_an_operator_and_a_later_one_goes_on(
    served: tuple[World, str],
) -> None:
    world, host = served
    shop = f"{world.name}-shop"
    assert world.stop() == 0
    route = world.document()
    # The chart's hook, applied by somebody who renders charts without Helm: nothing is uninstalled, nothing happens.
    assert world.command("retire", "--helm-release=culvert") == 0
    assert world.get("tunnelbinding", "web", shop)["metadata"]["finalizers"]
    record = {"name": "sh.helm.release.v1.culvert.v1", "namespace": world.system}
    labels = {"owner": "helm", "name": "culvert", "status": "uninstalling"}
    world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": record | {"labels": labels}})
    assert world.command("retire", "--helm-release=culvert") == 0
    for kind, name, namespace in (("tunnel", "main", world.system), ("tunnelbinding", "web", shop)):
        assert "finalizers" not in world.get(kind, name, namespace)["metadata"], kind
    assert host in world.zone_text(), "records and routes stay as they are"
    assert world.document() == route
    events = world.cluster.get("events.v1.events.k8s.io", f"--namespace={shop}")["items"]
    (told,) = [e["note"] for e in events if e["reason"] == "Released"]
    assert f"{host} A" in told
    # An operator that comes again secures them anew, and has nothing else to do.
    before = len(world.cluster.audit())
    world.start()
    until(lambda: world.get("tunnelbinding", "web", shop)["metadata"].get("finalizers"))
    until(lambda: world.get("tunnel", "main")["metadata"].get("finalizers"))
    assert world.document() == route
    resources = {e["objectRef"]["resource"] for e in world.writes(before)}
    assert resources <= {"tunnels", "tunnelbindings", "events"}
    # And once more without it: objects and namespaces go at once.
    assert world.stop() == 0
    assert world.command("retire") == 0
    world.cluster.kubectl("delete", "namespace", shop, f"--timeout={GONE_WITHIN:g}s", timeout=90)
    world.cluster.kubectl("delete", "tunnel", "main", f"--namespace={world.system}", "--timeout=30s")
    world.cluster.kubectl("create", "namespace", shop)
    world.start()
    until(lambda: claims(world) == [], seconds=GONE_WITHIN)
