"""The operator as a process against a real API server, with exactly the permissions that its table states.

There is no kubelet: Pods stay pending until a test gives one an address, at which a small real HTTP server reports
as a connector would. Each test has namespaces, hostnames and an operator of its own.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from culvert_operator.cluster.permissions import rules

CRDS = Path(__file__).resolve().parents[2] / "crds"
ACCOUNT = "culvert-operator"
WRITES = ("create", "update", "patch", "delete")
ZONE = """\
; by hand
$TTL 3600
@  IN SOA ns.{zone}. hostmaster.{zone}. 7 7200 3600 1209600 300
   IN NS ns
ns IN A 192.0.2.53
taken IN A 192.0.2.99 ; somebody else's
"""


def until(what: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Ask again and again until the answer is true; the last answer is the failure's text."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds} s"
        time.sleep(0.1)


class Connector:
    """A Pod's status address: reports what the test says, long-polls as a connector does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._moved = threading.Condition()
        self._number = 0
        self._report: dict[str, Any] = {
            "connectorId": "test",
            "version": "0.1.0",
            "schemas": [1],
            "ready": False,
            "draining": False,
            "appliedVersion": 0,
            "configError": None,
            "keyId": "",
            "credentialExpiresAt": 0,
            "sessions": [],
            "refusedHostnames": [],
            "relayErrors": [],
        }
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer((address, 20241), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get("If-None-Match")
        with self._moved:
            if known == f'"{self._number}"':
                self._moved.wait(timeout=5)
            same = known == f'"{self._number}"'
            body = b"" if same else json.dumps(self._report).encode()
            handler.send_response(304 if same else 200)
            handler.send_header("ETag", f'"{self._number}"')
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            with contextlib.suppress(OSError):  # the operator was stopped
                handler.wfile.write(body)
                handler.wfile.flush()

    def report(self, **changes: Any) -> None:
        with self._moved:
            self._report |= changes
            self._number += 1
            self._moved.notify_all()

    def serves(self, version: int, *, refused: tuple[str, ...] = ()) -> None:
        """Ready with one session, on which the relay has answered the grant of ``version``."""
        session = {
            "relay": "relay-1",
            "address": "192.0.2.1:443",
            "slot": 0,
            "state": "connected",
            "probed": True,
            "grantVersion": version,
        }
        gone = [{"hostname": h, "relay": "relay-1", "reason": "not_in_issuer", "version": version} for h in refused]
        self.report(ready=True, appliedVersion=version, sessions=[session], refusedHostnames=gone)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class World:
    """One test's namespaces, operator and zone."""

    def __init__(self, cluster: Any, name: str, folder: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.system = f"{name}-system"
        self.zone = f"{name}.example.com"
        self.log = folder / "operator.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.connectors: list[Connector] = []
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port = reserved.getsockname()[1]
        self._kubeconfig = folder / "kubeconfig"
        for namespace in (self.system, f"{name}-shop", f"{name}-blog"):
            cluster.kubectl("create", "namespace", namespace)
        self._grant()

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.system}:{ACCOUNT}"

    def _grant(self) -> None:
        """A service account with the operator's permissions, and a kubeconfig of it."""
        account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.system}

        def role(kind: str, name: str, content: list[Any], binding: str) -> list[Any]:
            group = {"apiVersion": "rbac.authorization.k8s.io/v1"}
            where = {"name": name} | ({} if kind == "ClusterRole" else {"namespace": self.system})
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
            return [
                {**group, "kind": kind, "metadata": where, "rules": content},
                {**group, "kind": binding, "metadata": where, "roleRef": reference, "subjects": [account]},
            ]

        self.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": self.system}},
            *role("ClusterRole", f"{self.name}-operator", rules(["cluster"]), "ClusterRoleBinding"),
            *role("Role", "operator", rules(["tunnels", "own"]), "RoleBinding"),
        )
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        token = self.cluster.kubectl("create", "token", ACCOUNT, f"--namespace={self.system}").stdout.strip()
        config["users"] = [{"name": "operator", "user": {"token": token}}]
        for context in config["contexts"]:
            context["context"]["user"] = "operator"
        self._kubeconfig.write_text(yaml.safe_dump(config))

    def apply(self, *objects: Any) -> None:
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def start(self, *flags: str) -> None:
        command = [
            *(sys.executable, "-m", "culvert_cli.main", "operator", "run", f"--namespace={self.system}"),
            *("--connector-image=localhost/culvert:test", f"--listen=127.0.0.1:{self.port}"),
            *flags,
        ]
        environment = {**os.environ, "KUBECONFIG": str(self._kubeconfig), "CULVERT_LOG_LEVEL": "debug"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        until(self.ready)

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return self.fetch("/readyz") == "ok\n"

    def fetch(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(timeout=30)

    def close(self) -> None:
        """Take everything away again, the operator's finalizers by the operator."""
        if self.process is None:
            self.start()
        for kind in ("tunnelbindings", "tunnels"):
            for namespace in (self.system, f"{self.name}-shop", f"{self.name}-blog"):
                self.cluster.kubectl("delete", kind, "--all", f"--namespace={namespace}", "--timeout=60s", timeout=90)
        assert not [c for c in self.cluster.get("hostnameclaims")["items"] if self.zone in c["spec"]["hostname"]]
        self.stop()
        for connector in self.connectors:
            connector.close()

    # What is there.

    def get(self, kind: str, name: str, namespace: str | None = None) -> Any:
        return self.cluster.get(kind, name, f"--namespace={namespace or self.system}")

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any:
        where = f"--namespace={namespace or self.system}"
        found = self.cluster.kubectl("get", kind, name, where, "--ignore-not-found", "--output=json").stdout
        return json.loads(found) if found.strip() else None

    def condition(self, kind: str, name: str, namespace: str, wanted: str) -> tuple[str, str]:
        found = self.find(kind, name, namespace) or {}
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == wanted:
                return condition["status"], condition["reason"]
        return "", ""

    def document(self) -> Any:
        found = self.find("configmap", "main-config")
        return json.loads(gzip.decompress(base64.b64decode(found["binaryData"]["config.json.gz"]))) if found else None

    def zone_text(self) -> str:
        return str(self.get("configmap", "zone")["data"]["db"])

    def writes(self, since: int = 0) -> list[Any]:
        """The operator's successful writes in the audit log, after so many of its entries."""
        return [
            e
            for e in self.cluster.audit()[since:]
            if e["user"]["username"] == self.user and e["verb"] in WRITES and e["responseStatus"]["code"] < 300
        ]

    # What a test makes.

    def tunnel(self, **spec: Any) -> dict[str, Any]:
        content = {
            "relay": {"addresses": ["relay.example.net:443"]},
            "connector": {"replicas": 1},
            "grants": [{"namespaces": {"from": "All"}, "hostnames": [f"*.{self.zone}"]}],
        } | spec
        metadata = {"name": "main", "namespace": self.system}
        return {"apiVersion": "culvert.dev/v1alpha1", "kind": "Tunnel", "metadata": metadata, "spec": content}

    def with_zone(self) -> dict[str, Any]:
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "zone", "namespace": self.system},
                "data": {"db": ZONE.format(zone=self.zone), "other": "left alone"},
            }
        )
        zonefile = {"configMapRef": {"name": "zone", "key": "db"}, "zone": self.zone}
        return self.tunnel(dns={"zonefile": zonefile, "target": {"addresses": ["192.0.2.80"]}})

    def binding(self, hostname: str, *, team: str = "shop", name: str = "web", path: str = "/") -> dict[str, Any]:
        namespace = f"{self.name}-{team}"
        rule = {
            "name": "web",
            "hostname": hostname,
            "path": {"type": "PathPrefix", "value": path},
            "service": {"name": "web", "port": "http"},
        }
        reference = {"name": "main", "namespace": self.system}
        return {
            "apiVersion": "culvert.dev/v1alpha1",
            "kind": "TunnelBinding",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"tunnelRef": reference, "rules": [rule]},
        }

    def service(self, team: str = "shop") -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": f"{self.name}-{team}"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
        }

    def connect(self) -> Connector:
        """Give the Deployment's Pod an address, and a connector that listens there."""

        def pod() -> Any:
            selector = "--selector=culvert.dev/tunnel=main"
            pods = self.cluster.get("pods", selector, f"--namespace={self.system}")["items"]
            return next((p for p in pods if not p.get("status", {}).get("podIP")), None)

        found = until(pod)
        connector = Connector(f"127.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.{len(ADDRESSES) + 1}")
        ADDRESSES.append(connector.address)
        self.connectors.append(connector)
        ready = {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "podIP": connector.address, "podIPs": [{"ip": connector.address}]}
        patch = json.dumps({"status": status | {"conditions": [ready]}})
        self.cluster.kubectl(
            *("patch", "pod", found["metadata"]["name"], f"--namespace={self.system}"),
            *("--subresource=status", "--type=merge", f"--patch={patch}"),
        )
        return connector

    def served(self, connector: Connector, hostname: str) -> int:
        """Wait until the configuration holds a hostname, and let the connector report that it serves it."""
        document = until(lambda: (d := self.document()) and hostname in {r["hostname"] for r in d["rules"]} and d)
        connector.serves(document["version"])
        return int(document["version"])


ADDRESSES: list[str] = []


@pytest.fixture(scope="module")
def cluster(control_plane: Any) -> Any:
    control_plane.kubectl("apply", "--filename", str(CRDS))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(CRDS))
    return control_plane


@pytest.fixture
def world(cluster: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    names = [item.name for item in request.session.items]
    made = World(cluster, f"t{names.index(request.node.name)}", tmp_path)
    try:
        yield made
        made.close()
    finally:
        if made.process is not None:
            made.process.kill()
            made.process.wait()
        print(made.log.read_text() if made.log.exists() else "")


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


def test_a_restart_over_an_unchanged_world_writes_nothing(world: World) -> None:
    host = f"shop.{world.zone}"
    world.start("--relay-service=culvert-relay-tunnel")
    world.apply(world.with_zone(), world.service(), world.binding(host))
    connector = world.connect()
    world.served(connector, host)
    until(lambda: world.condition("tunnelbinding", "web", f"{world.name}-shop", "Ready")[0] == "True")
    until(lambda: world.condition("tunnel", "main", world.system, "Ready")[0] == "True")
    settled = _at_rest(world)
    assert world.stop() == 0
    world.start("--relay-service=culvert-relay-tunnel")
    until(lambda: 'culvert_operator_reconcile_total{result="success"} 0.0' not in world.fetch("/metrics"))
    connector.report(connectorId="again")  # a round with the report in it
    _at_rest(world)
    assert [(e["verb"], e["requestURI"]) for e in world.writes(settled)] == []
    assert "culvert_operator_writes_total 0.0" in world.fetch("/metrics")
    assert "culvert_credential_expiry_timestamp_seconds{" in world.fetch("/metrics")
    assert world.fetch("/livez") == "ok\n"


def _at_rest(world: World, seconds: float = 2.0) -> int:
    """Wait until the operator has written nothing for a while; the length of the audit log."""
    while True:
        before = len(world.writes())
        length = len(world.cluster.audit())
        time.sleep(seconds)
        if len(world.writes()) == before:
            return length


def test_the_permissions_of_the_table_are_enough_and_nothing_secret_is_told(world: World) -> None:
    host = f"shop.{world.zone}"
    namespace = f"{world.name}-shop"
    world.start("--relay-service=culvert-relay-tunnel", "--relay-server-names=relay.example.net")
    world.apply(world.with_zone(), world.service(), world.binding(host))
    world.served(world.connect(), host)
    until(lambda: world.condition("tunnelbinding", "web", namespace, "Ready")[0] == "True")
    until(lambda: world.find("secret", "culvert-relay-tls"))
    refused = [
        (e["verb"], e["requestURI"], e["responseStatus"].get("message"))
        for e in world.cluster.audit()
        if e["user"]["username"] == world.user and e["responseStatus"]["code"] == 403
    ]
    assert refused == []
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


def test_the_first_namespace_keeps_a_hostname_and_the_next_takes_over(world: World) -> None:
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


def test_a_renamed_hostname_leaves_no_record_behind_even_when_the_operator_is_killed(world: World) -> None:
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


def test_a_name_that_somebody_else_holds_is_left_as_it_is(world: World) -> None:
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


def test_children_that_were_edited_or_deleted_come_back_and_foreign_fields_stay(world: World) -> None:
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
    _at_rest(world)
    for number in range(3):
        connector.report(connectorId=f"nothing new {number}")
    _at_rest(world)
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


def test_a_zone_that_cannot_be_read_deletes_nothing_and_says_why(world: World) -> None:
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
