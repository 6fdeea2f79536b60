"""`dns.endpoints` on a real API server: the objects that external-dns is given, made by the operator's own process."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .operators import World, at_rest, until

CRD = Path(__file__).with_name("dnsendpoints.yaml").read_text()
KIND = "dnsendpoints.externaldns.k8s.io"


@pytest.fixture
def definition(world: World) -> Iterator[None]:
    """The kind is there, and nobody's when the test is over."""
    world.cluster.apply(CRD)
    world.cluster.kubectl("wait", f"crd/{KIND}", "--for=condition=Established", "--timeout=30s")
    yield
    world.close()
    world.cluster.kubectl("delete", "crd", KIND, "--ignore-not-found", "--timeout=60s")


def tunnel(world: World, **block: Any) -> dict[str, Any]:
    dns = {"endpoints": block, "zones": [world.zone], "target": {"hostname": "relay.example.net"}}
    return world.tunnel(dns=dns)


def culvert(world: World, *words: str) -> str:
    """What `culvert dns` says."""
    command = [sys.executable, "-m", "culvert_cli.main", "dns", *words]
    environment = {**os.environ, "KUBECONFIG": str(world.cluster.kubeconfig)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(world: World) -> dict[str, Any]:
    """Name of the object → its endpoints, of the Tunnel's namespace."""
    items = world.cluster.get(KIND, f"--namespace={world.system}")["items"]
    return {item["metadata"]["name"]: item["spec"]["endpoints"] for item in items}


def alias(host: str, **more: Any) -> list[dict[str, Any]]:
    return [{"dnsName": host, "recordType": "CNAME", "recordTTL": 300, "targets": ["relay.example.net"], **more}]


def test_names_come_move_and_go_as_objects_and_nobody_elses_is_touched(world: World, definition: None) -> None:
    first, second, taken = (f"{name}.{world.zone}" for name in ("first", "second", "taken"))
    namespace = f"{world.name}-shop"
    theirs = {
        "apiVersion": "externaldns.k8s.io/v1alpha1",
        "kind": "DNSEndpoint",
        "metadata": {"name": "by-hand", "namespace": world.system},
        "spec": {"endpoints": [{"dnsName": taken, "recordType": "A", "targets": ["192.0.2.7"]}]},
    }
    world.start()
    world.apply(theirs, tunnel(world, labels={"team": "edge"}), world.service(), world.binding(first))
    before = world.get(KIND, "by-hand")
    connector = world.connect()
    world.served(connector, first)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True")
    assert records(world)[f"culvert.{first}"] == alias(first)
    made = world.get(KIND, f"culvert.{first}")
    assert made["metadata"]["labels"]["team"] == "edge"
    assert "ownerReferences" not in made["metadata"]  # records may outlive a Tunnel: deletionPolicy Retain
    at_rest(world)

    # Whoever reads the objects, and external-dns writes their status, gives the operator nothing to do.
    settled = len(world.cluster.audit())
    patch = json.dumps({"status": {"observedGeneration": 1}})
    world.cluster.kubectl(
        *("patch", KIND, f"culvert.{first}", f"--namespace={world.system}", "--subresource=status"),
        *("--type=merge", f"--patch={patch}"),
    )
    at_rest(world)
    assert world.writes(settled) == []

    # By hand, with the administrator's rights.
    file = world.log.with_name("dns.yml")
    file.write_text(json.dumps(tunnel(world, labels={"team": "edge"})))
    owner = base64.b64decode(world.get("secret", "culvert-issuer")["data"]["installation-id"]).decode()
    options = ["--dns", str(file), "--owner", owner, "--namespace", world.system]
    told = culvert(world, "records", *options)
    assert told.split("\t")[:2] == [first, "CNAME"]
    assert "1 name of the owner id" in culvert(world, "cleanup", *options)

    world.apply(world.binding(second))
    world.served(connector, second)
    until(lambda: f"culvert.{first}" not in records(world) and f"culvert.{second}" in records(world))
    world.apply(world.binding(taken, name="loser"))
    world.served(connector, taken)
    until(lambda: world.condition("tunnelbinding", "loser", namespace, "DNSReady") == ("False", "NotOwner"))

    world.apply(tunnel(world, labels={"team": "core"}, providerSpecific={"example.com/proxied": "true"}))
    proxied = [{"name": "example.com/proxied", "value": "true"}]
    until(lambda: records(world).get(f"culvert.{second}") == alias(second, providerSpecific=proxied))
    assert world.get(KIND, f"culvert.{second}")["metadata"]["labels"]["team"] == "core"

    world.cluster.kubectl("delete", "tunnelbindings", "--all", f"--namespace={namespace}", "--timeout=30s")
    assert list(records(world)) == ["by-hand"]
    assert world.get(KIND, "by-hand") == before
    refused = [e["requestURI"] for e in world.cluster.audit() if e["responseStatus"]["code"] == 403]
    assert [uri for uri in refused if "dnsendpoints" in uri] == []


def test_without_external_dnss_kind_the_condition_says_what_to_install(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(tunnel(world), world.service(), world.binding(host))
    world.served(world.connect(), host)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "DNSReady") == ("False", "ProviderError"))
    status = world.get("tunnelbinding", "web", namespace)["status"]
    said = next(c["message"] for c in status["conditions"] if c["type"] == "DNSReady")
    assert KIND in said
    # Traffic does not wait for DNS.
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Programmed")[0] == "True")
    world.cluster.apply(CRD)
    world.cluster.kubectl("wait", f"crd/{KIND}", "--for=condition=Established", "--timeout=30s")
    try:
        until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True", seconds=90)
        assert records(world) == {f"culvert.{host}": alias(host)}
    finally:
        world.close()
        world.cluster.kubectl("delete", "crd", KIND, "--timeout=60s")
