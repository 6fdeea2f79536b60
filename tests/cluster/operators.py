"""One test's operators against a real API server: namespaces, permissions, processes, connectors that report.

There is no kubelet: Pods stay pending until a test gives one an address, at which a small real HTTP server reports
as a connector would.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from culvert_ingress.document import SCHEMAS
from culvert_operator.cluster.permissions import rules

from .relay_ear import RelayEar

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
            "schemas": list(SCHEMAS),
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


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return int(reserved.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Instance:
    """One operator process."""

    process: subprocess.Popen[bytes]
    port: int
    name: str
    log: Path

    def fetch(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.fetch("/readyz") == "ok\n"

    def leads(self) -> bool:
        return "\nculvert_operator_leader 1.0\n" in self.fetch("/metrics")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


class World:
    """One test's namespaces, operator and zone."""

    def __init__(self, cluster: Any, name: str, folder: Path) -> None:
        self.cluster = cluster
        self.name = name
        self.ear = RelayEar()
        self.system = f"{name}-system"
        self.zone = f"{name}.example.com"
        self.log = folder / "operator.log"
        self.instance: Instance | None = None
        self.instances: list[Instance] = []
        self.connectors: list[Connector] = []
        self.emptied: set[str] = set()
        """Namespaces that the test deletes, with the operator's rights in them."""
        self._numbers = itertools.count()
        self.kubeconfig = folder / "kubeconfig"
        for namespace in (self.system, f"{name}-shop", f"{name}-blog"):
            cluster.kubectl("create", "namespace", namespace)
        self._grant()

    @property
    def user(self) -> str:
        return f"system:serviceaccount:{self.system}:{ACCOUNT}"

    def again(self) -> None:
        """After the operator's namespace was deleted: a new one, and an operator that clears up what is left."""
        for namespace in (self.system, f"{self.name}-shop", f"{self.name}-blog"):
            if self.find("namespace", namespace) is None:
                self.cluster.kubectl("create", "namespace", namespace)
        self._grant()
        self.start()

    def allow_tunnels_in(self, namespace: str) -> None:
        """What the chart grants for another namespace of `operator.tunnelNamespaces`."""
        self.apply(*self._role("culvert-operator-tunnels", rules(["tunnels"]), namespace))

    def _role(self, name: str, content: list[Any], namespace: str = "") -> list[Any]:
        """A Role of a namespace or (without) a ClusterRole, bound to the operator's account."""
        account = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.system}
        group, kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}, "Role" if namespace else "ClusterRole"
        where = {"name": name} | ({"namespace": namespace} if namespace else {})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        return [
            {**group, "kind": kind, "metadata": where, "rules": content},
            {**group, "kind": f"{kind}Binding", "metadata": where, "roleRef": reference, "subjects": [account]},
        ]

    def restrict(self, *namespaces: str) -> None:
        """Let the operator read nothing but these namespaces, as the chart does for ``operator.watchNamespaces``."""
        self.apply(*self._role(f"{self.name}-operator", rules(["cluster"])))
        for namespace in namespaces:
            self.apply(*self._role("watched", rules(["watched"]), namespace))

    def _grant(self) -> None:
        """A service account with the operator's permissions, a kubeconfig of it, and the relay's CA."""
        authority = {"metadata": {"name": "relay-ca", "namespace": self.system}, "data": {"ca.crt": self.ear.authority}}
        self.apply(
            {"apiVersion": "v1", "kind": "ConfigMap"} | authority,
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": self.system}},
            *self._role(f"{self.name}-operator", rules(["cluster", "watched"])),
            *self._role("operator", rules(["tunnels", "own"]), self.system),
        )
        config = yaml.safe_load(self.cluster.kubeconfig.read_text())
        token = self.cluster.kubectl("create", "token", ACCOUNT, f"--namespace={self.system}").stdout.strip()
        config["users"] = [{"name": "operator", "user": {"token": token}}]
        for context in config["contexts"]:
            context["context"]["user"] = "operator"
        self.kubeconfig.write_text(yaml.safe_dump(config))

    def apply(self, *objects: Any) -> None:
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def launch(self, *flags: str, kubeconfig: Path | None = None) -> Instance:
        """One more operator process, not waited for."""
        number = next(self._numbers)
        port = free_port()
        command = [
            *(sys.executable, "-m", "culvert_cli.main", "operator", "run", f"--namespace={self.system}"),
            *("--connector-image=localhost/culvert:test", f"--listen=127.0.0.1:{port}"),
            *flags,
        ]
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "CULVERT_LOG_LEVEL": "debug",
            "HOSTNAME": f"operator-{number}",
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        made = Instance(process, port, f"operator-{number}", self.log)
        self.instances.append(made)
        return made

    def command(self, name: str, *flags: str) -> int:
        """A command of `culvert operator` that ends by itself, with the operator's rights; its exit code."""
        command = [sys.executable, "-m", "culvert_cli.main", "operator", name, f"--namespace={self.system}", *flags]
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        with self.log.open("ab") as log:
            return subprocess.run(command, env=environment, stdout=log, stderr=log, timeout=90, check=False).returncode

    def start(self, *flags: str, kubeconfig: Path | None = None) -> None:
        """The operator, ready."""
        self.instance = self.launch(*flags, kubeconfig=kubeconfig)
        until(self.instance.ready)

    def fetch(self, path: str) -> str:
        return self.instance.fetch(path) if self.instance is not None else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.instance is not None
        instance, self.instance = self.instance, None
        return instance.stop(number)

    def kill(self) -> None:
        """End every process that is left, also one that is stopped."""
        for instance in self.instances:
            instance.process.kill()
            instance.process.wait()
        self.ear.close()

    def close(self) -> None:
        """Take everything away again, the operator's finalizers by the operator."""
        if self.instance is None:
            self.start()
        for kind in ("tunnelbindings", "tunnels"):
            for namespace in (self.system, f"{self.name}-shop", f"{self.name}-blog"):
                self.cluster.kubectl("delete", kind, "--all", f"--namespace={namespace}", "--timeout=60s", timeout=90)
        assert not [c for c in self.cluster.get("hostnameclaims")["items"] if self.zone in c["spec"]["hostname"]]
        self.stop()
        assert self.refused() == [], "requests that the operator's permissions do not allow"
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

    def document(self, tunnel: str = "main") -> Any:
        found = self.find("configmap", f"{tunnel}-config")
        return json.loads(gzip.decompress(base64.b64decode(found["binaryData"]["config.json.gz"]))) if found else None

    def zone_text(self) -> str:
        return str(self.get("configmap", "zone")["data"]["db"])

    def writes(self, since: int = 0) -> list[Any]:
        """The operators' successful writes (the Lease aside) in the audit log, after so many of its entries."""
        return [
            e
            for e in self.cluster.audit()[since:]
            if e["user"]["username"] == self.user and e["verb"] in WRITES and e["responseStatus"]["code"] < 300
            if "/leases" not in e["requestURI"]
        ]

    def refused(self) -> list[str]:
        """Requests of this test's operators that the API server did not allow; where a namespace has gone, or goes, the
        rights go before the objects."""
        return [
            f"{e['verb']} {e['requestURI']}: {e['responseStatus'].get('message', '')}"
            for e in self.cluster.audit()
            if e["user"]["username"] == self.user and e.get("responseStatus", {}).get("code") == 403
            if "is being terminated" not in e["responseStatus"].get("message", "")
            if e.get("objectRef", {}).get("namespace") not in self.emptied
        ]

    # What a test makes.

    def tunnel(self, **spec: Any) -> dict[str, Any]:
        content = {
            "relay": self.ear.relay("relay-ca"),
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

    def connect(self, tunnel: str = "main") -> Connector:
        """Give the Deployment's Pod an address, and a connector that listens there."""

        def pod() -> Any:
            selector = f"--selector=culvert.dev/tunnel={tunnel}"
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

    def served(self, connector: Connector, hostname: str, tunnel: str = "main") -> int:
        """Wait until the configuration holds a hostname, and let the connector report that it serves it."""
        document = until(lambda: (d := self.document(tunnel)) and hostname in {r["hostname"] for r in d["rules"]} and d)
        connector.serves(document["version"])
        return int(document["version"])


ADDRESSES: list[str] = []


def at_rest(world: World, seconds: float = 2.0) -> int:
    """Wait until the operator has written nothing for a while; the length of the audit log."""
    while True:
        before = len(world.writes())
        length = len(world.cluster.audit())
        time.sleep(seconds)
        if len(world.writes()) == before:
            return length
