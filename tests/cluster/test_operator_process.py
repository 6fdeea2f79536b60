"""The operator as a process against a real API server, with exactly the permissions that its table states.

Each test has namespaces, hostnames and an operator of its own.
"""

from __future__ import annotations

import base64
import json
import signal

from .operators import ZONE, World, at_rest, until


def test_from_two_objects_to_a_published_name_and_back(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(host))
    for kind, name in [
        ("serviceaccount", "main-connector"),
        ("role", "main-connector"),
        ("rolebinding", "main-connector"),
        ("secret", "main-credential"),
        ("configmap", "main-config"),
        ("deployment", "main-connector"),
        ("poddisruptionbudget", "main-connector"),
    ]:
        child = until(lambda kind=kind, name=name: world.find(kind, name))
        assert child["metadata"]["ownerReferences"][0]["kind"] == "Tunnel", kind
    document = until(lambda: (d := world.document()) and d["rules"] and d)
    assert [r["hostname"] for r in document["rules"]] == [host]
    assert document["rules"][0]["service"]["host"] == f"web.{namespace}.svc.cluster.local"

    connector = world.connect()
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Programmed") == ("False", "NoConnector"))
    # The configuration being there is no evidence; a connector that has not applied it, neither.
    connector.serves(document["version"] - 1)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Programmed") == ("False", "NotApplied"))
    assert host.split(".")[0] not in world.zone_text()
    world.served(connector, host)
    world.cluster.kubectl(
        *("wait", "tunnelbinding/web", f"--namespace={namespace}", "--for=condition=Ready", "--timeout=30s")
    )
    world.cluster.kubectl("wait", "tunnel/main", f"--namespace={world.system}", "--for=condition=Connected")
    text = world.zone_text()
    assert f"{host}.\t300\tIN\tA\t192.0.2.80\n" in text
    assert f"tunnelbinding/{namespace}/web" in text
    assert text.startswith(ZONE.format(zone=world.zone).partition(" 7 ")[0])
    assert world.get("configmap", "zone")["data"]["other"] == "left alone"

    started = len(world.cluster.audit())
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={namespace}", "--timeout=30s")
    assert host not in world.zone_text()
    assert world.document()["rules"] == []
    order = [(e["objectRef"]["resource"], e["objectRef"]["name"]) for e in world.writes(started)]
    # DNS first, then the route, then the claim and the finalizer.
    assert order.index(("configmaps", "zone")) < order.index(("configmaps", "main-config"))
    assert order.index(("configmaps", "main-config")) < max(
        i for i, (kind, name) in enumerate(order) if (kind, name) == ("tunnelbindings", "web")
    )


def test_d35_a_restart_over_an_unchanged_world_writes_nothing(world: World) -> None:
    host = f"shop.{world.zone}"
    world.start("--relay-service=culvert-relay-tunnel")
    world.apply(world.with_zone(), world.service(), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", f"{world.name}-shop", "Ready")[0] == "True")
    until(lambda: world.condition("tunnel", "main", world.system, "Ready")[0] == "True")
    settled = at_rest(world)
    assert world.stop() == 0
    world.start("--relay-service=culvert-relay-tunnel")
    until(lambda: 'culvert_operator_reconcile_total{result="success"} 0.0' not in world.fetch("/metrics"))
    connector.report(connectorId="again")  # a round with the report in it
    at_rest(world)
    assert [(e["verb"], e["requestURI"]) for e in world.writes(settled)] == []
    assert "culvert_operator_writes_total 0.0" in world.fetch("/metrics")
    assert "culvert_credential_expiry_timestamp_seconds{" in world.fetch("/metrics")
    assert world.fetch("/livez") == "ok\n"


def test_the_permissions_of_the_table_are_enough_and_nothing_secret_is_told(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start("--relay-service=culvert-relay-tunnel", "--relay-server-names=relay.example.net")
    world.apply(world.with_zone(), world.service(), world.binding(host))
    world.served(world.connect(), host)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True")
    until(lambda: world.find("secret", "culvert-relay-tls"))
    assert world.refused() == []
    told = world.log.read_text() + world.fetch("/metrics")
    told += json.dumps(world.cluster.get("events", f"--namespace={namespace}"))
    told += json.dumps(world.cluster.get("events", f"--namespace={world.system}"))
    told += json.dumps(world.get("tunnel", "main")) + json.dumps(world.get("deployment", "main-connector"))
    for name in ("culvert-issuer", "main-credential", "culvert-relay-tls", "culvert-relay-ca"):
        for key, value in world.get("secret", name)["data"].items():
            if key in ("installation-id", "ca.crt", "tls.crt"):
                continue
            raw = base64.b64decode(value).decode()
            pieces = [value, raw, *[line for line in raw.splitlines() if len(line) > 40 and "-----" not in line]]
            if key == "credentials.json":
                content = json.loads(raw)
                pieces = [value, content["privateKey"], content["credential"]]
            assert not [p for p in pieces if p in told], (name, key)


def test_d14_the_first_namespace_keeps_a_hostname_and_the_next_takes_over(world: World) -> None:
    host = f"both.{world.zone}"
    world.start()
    world.apply(world.with_zone(), world.service(), world.service("blog"), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", f"{world.name}-shop", "Ready")[0] == "True")
    world.apply(world.binding(host.upper(), team="blog"))
    until(
        lambda: (
            world.condition("tunnelbinding", "web", f"{world.name}-blog", "Accepted") == ("False", "HostnameConflict")
        )
    )
    loser = world.get("tunnelbinding", "web", f"{world.name}-blog")
    assert f"{world.name}-shop" not in json.dumps(loser["status"])
    assert [r["service"]["host"].split(".")[1] for r in world.document()["rules"]] == [f"{world.name}-shop"]
    world.cluster.kubectl(
        *("delete", "tunnelbinding", "web", f"--namespace={world.name}-shop", "--timeout=30s", "--wait=false")
    )
    until(lambda: [r["service"]["host"].split(".")[1] for r in world.document()["rules"]] == [f"{world.name}-blog"])
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", f"{world.name}-blog", "Ready")[0] == "True")
    until(lambda: world.find("tunnelbinding", "web", f"{world.name}-shop") is None)
    assert f"tunnelbinding/{world.name}-blog/web" in world.zone_text()
    assert f"tunnelbinding/{world.name}-shop/web" not in world.zone_text()


def test_d14_a_hostname_passes_to_a_binding_of_another_tunnel_by_one_change_in_dns(world: World) -> None:
    host = f"passes.{world.zone}"
    first, second = world.with_zone(), world.with_zone()
    second["metadata"]["name"] = "second"
    heir = world.binding(host, team="blog")
    heir["spec"]["tunnelRef"]["name"] = "second"
    teams = [f"{world.name}-{team}" for team in ("shop", "blog")]

    def routed(tunnel: str) -> bool:
        found = world.document(tunnel)
        return found is not None and host in {rule["hostname"] for rule in found["rules"]}

    world.start()
    world.apply(first, second, world.service(), world.service("blog"), world.binding(host))
    mine, theirs = world.connect(), world.connect("second")
    theirs.serves(until(lambda: world.document("second"))["version"])
    world.served(mine, host)
    until(lambda: world.condition("tunnelbinding", "web", teams[0], "Ready")[0] == "True")
    world.apply(heir)
    until(lambda: world.condition("tunnelbinding", "web", teams[1], "Accepted") == ("False", "HostnameConflict"))
    before = len(world.cluster.audit())
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={teams[0]}", "--wait=false")
    # The heir has the claim and the rule; the former Tunnel serves until the relays have answered the heir.
    until(lambda: routed("second"))
    assert routed("main")
    assert f"tunnelbinding/{teams[0]}/web" in world.zone_text()
    world.served(theirs, host, "second")
    until(lambda: not routed("main"))
    mine.serves(world.document()["version"])
    until(lambda: world.condition("tunnelbinding", "web", teams[1], "Ready")[0] == "True")
    until(lambda: world.find("tunnelbinding", "web", teams[0]) is None)
    assert f"tunnelbinding/{teams[1]}/web" in world.zone_text()
    zone = [e for e in world.writes(before) if e["requestURI"].partition("?")[0].endswith("/configmaps/zone")]
    assert [e["verb"] for e in zone] == ["patch"], "the record is changed once, not deleted and created"
    (claim,) = [c for c in world.cluster.get("hostnameclaims")["items"] if c["spec"]["hostname"] == host]
    assert (claim["spec"]["tunnel"], claim["spec"].get("former")) == (f"{world.system}/second", None)


def test_d13_a_renamed_hostname_leaves_no_record_behind_even_when_the_operator_is_killed(world: World) -> None:
    old, new = f"old.{world.zone}", f"new.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(old))
    connector = world.connect()
    world.served(connector, old)
    until(lambda: old in world.zone_text())
    world.apply(world.binding(new))
    until(lambda: new in json.dumps(world.document()))
    world.stop(signal.SIGKILL)
    world.start()
    world.served(connector, new)
    until(lambda: new in world.zone_text() and old not in world.zone_text())
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True")
    records = world.get("tunnelbinding", "web", namespace)["status"]["publishedRecords"]
    assert {r["name"] for r in records} == {new}


def test_d09_a_name_that_somebody_else_holds_is_left_as_it_is(world: World) -> None:
    taken, free = f"taken.{world.zone}", f"free.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(taken), world.binding(free, name="other"))
    connector = world.connect()
    world.served(connector, taken)
    world.served(connector, free)
    until(lambda: world.condition("tunnelbinding", "other", namespace, "DNSReady")[0] == "True")
    until(lambda: world.condition("tunnelbinding", "web", namespace, "DNSReady") == ("False", "NotOwner"))
    assert "taken IN A 192.0.2.99 ; somebody else's\n" in world.zone_text()
    assert "_culvert.taken" not in world.zone_text()


def test_d27_children_that_were_edited_or_deleted_come_back_and_foreign_fields_stay(world: World) -> None:
    world.start()
    world.apply(world.tunnel(), world.service(), world.binding(f"shop.{world.zone}"))
    until(lambda: world.find("deployment", "main-connector"))
    until(lambda: world.condition("tunnel", "main", world.system, "Accepted")[0] == "True")
    patch = {
        "metadata": {"annotations": {"example.com/mine": "kept"}},
        "spec": {"template": {"metadata": {"annotations": {"sidecar": "kept"}}}, "replicas": 5},
    }
    world.cluster.kubectl(
        *("patch", "deployment", "main-connector", f"--namespace={world.system}", f"--patch={json.dumps(patch)}")
    )
    restored = until(lambda: (d := world.get("deployment", "main-connector"))["spec"]["replicas"] == 1 and d)
    assert restored["metadata"]["annotations"]["example.com/mine"] == "kept"
    assert restored["spec"]["template"]["metadata"]["annotations"]["sidecar"] == "kept"
    before = world.get("role", "main-connector")["metadata"]["uid"]
    world.cluster.kubectl("delete", "role", "main-connector", f"--namespace={world.system}")
    until(lambda: (r := world.find("role", "main-connector")) and r["metadata"]["uid"] != before)


def test_a_foreign_secret_at_the_credentials_name_is_not_touched(world: World) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "main-credential", "namespace": world.system},
        "data": {"mine": base64.b64encode(b"precious").decode()},
    }
    world.apply(foreign)
    world.start()
    world.apply(world.tunnel())
    until(lambda: world.condition("tunnel", "main", world.system, "CredentialsReady") == ("False", "SecretConflict"))
    kept = world.get("secret", "main-credential")
    assert kept["data"] == foreign["data"]
    assert "ownerReferences" not in kept["metadata"]


def test_events_tell_of_transitions_once(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.tunnel(), world.service(), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True")
    at_rest(world)
    for number in range(3):
        connector.report(connectorId=f"nothing new {number}")
    at_rest(world)
    events = world.cluster.get("events.v1.events.k8s.io", f"--namespace={namespace}")["items"]
    mine = [(e["regarding"]["name"], e["reason"], e["note"]) for e in events]
    assert [reason for _, reason, _ in mine].count("Ready") == 1
    assert len(mine) == len(set(mine)), mine


def test_deleting_the_tunnel_first_releases_its_bindings_and_the_record(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: host in world.zone_text())
    world.cluster.kubectl("delete", "tunnel", "main", f"--namespace={world.system}", "--timeout=60s", timeout=90)
    assert host not in world.zone_text()
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Accepted") == ("False", "TunnelNotFound"))


def test_d30_a_zone_that_cannot_be_read_deletes_nothing_and_says_why(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start()
    world.apply(world.with_zone(), world.service(), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "DNSReady")[0] == "True")
    good = world.zone_text()
    broken = json.dumps({"data": {"db": good + "broken A not-an-address\n"}})
    world.cluster.kubectl("patch", "configmap", "zone", f"--namespace={world.system}", f"--patch={broken}")
    other = f"other.{world.zone}"
    world.apply(world.binding(other, name="other"))
    world.served(connector, other)
    until(lambda: world.condition("tunnelbinding", "other", namespace, "DNSReady") == ("False", "ProviderError"))
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={namespace}", "--wait=false")
    # It is not gone before its record is known to be; what was published says nothing else meanwhile.
    until(lambda: world.condition("tunnelbinding", "web", namespace, "DNSReady") == ("False", "ProviderError"))
    assert world.zone_text() == good + "broken A not-an-address\n"
    assert {r["name"] for r in world.get("tunnelbinding", "web", namespace)["status"]["publishedRecords"]} == {host}
    mended = json.dumps({"data": {"db": good}})
    world.cluster.kubectl("patch", "configmap", "zone", f"--namespace={world.system}", f"--patch={mended}")
    until(lambda: world.condition("tunnelbinding", "other", namespace, "DNSReady")[0] == "True")
    until(lambda: world.find("tunnelbinding", "web", namespace) is None)
    assert host not in world.zone_text()
    assert "ns IN A 192.0.2.53\n" in world.zone_text()
