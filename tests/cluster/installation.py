"""culvert installed on the machine's real node, as a person would: what the journey tests share.

Responsible for: helm install and everything that must stand around it (namespaces under Pod Security "restricted", a
sample application, a CoreDNS that serves the zone), what the cluster says of it, and taking all of it away. Must not
know: what any test expects. Invariant: `remove` leaves the node as `ensure` found it.

The sample application and the name server are the demo's manifests, under other names and ports, so that what people
see in the demo is what is tested.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import string
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..certificates import self_signed
from .visitors import Visitors, Watching, until

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / "hack" / "demo"
CHART = REPOSITORY / "charts" / "culvert"
IMAGE = "localhost/culvert:dev"
ARCHIVE = REPOSITORY / ".demo" / "culvert.tar"
SYSTEM = "culvert-system"
TEAMS = ("shop", "blog")
ZONE = "journey.example.com"
# In the part of the NodePort range that Kubernetes does not give away by itself; the demo has others.
HTTP_PORT, HTTPS_PORT, DNS_PORT = 30070, 30071, 30072
CRDS = ("tunnels.culvert.dev", "tunnelbindings.culvert.dev", "hostnameclaims.culvert.dev")
OURS = f"system:serviceaccount:{SYSTEM}:"
OPERATOR = f"{OURS}culvert-operator"
WRITES = ("create", "update", "patch", "delete", "deletecollection")
MADE_BY = "culvert-tests"


@dataclass
class Installation(Visitors):
    """culvert on a node. `cluster` is the `Cluster` of conftest.py."""

    cluster: Any
    helm: str
    folder: Path
    installed: bool = False
    audited_from: int = 0
    first_ready: float = 0.0
    _logs: dict[str, str] = field(default_factory=dict)

    system = SYSTEM
    zone = ZONE
    operator = OPERATOR
    until = staticmethod(until)
    watching = Watching
    first = f"first.{ZONE}"
    """The hostname of the binding that every installation has from its beginning: `first` of namespace shop."""

    # --- coming and going

    def ensure(self) -> None:
        """Install, unless it is there."""
        if not self.installed:
            self.audited_from = len(self.cluster.audit())
            self.installed = True
            self._namespaces()
            self._certificate()
            self._release()
            self._surroundings()
            self._tunnel()

    def _namespaces(self) -> None:
        for name in (SYSTEM, *TEAMS):
            labels = {"pod-security.kubernetes.io/enforce": "restricted", "made-by": MADE_BY}
            self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    def _certificate(self) -> None:
        certificate, key = (pem.decode() for pem in self_signed([f"*.{ZONE}"], days=7))
        self.authority.write_text(certificate)
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/tls",
                "metadata": {"name": "visitors-tls", "namespace": SYSTEM},
                "stringData": {"tls.crt": certificate, "tls.key": key},
            }
        )

    @contextlib.contextmanager
    def operators(self, replicas: int) -> Iterator[None]:
        """So many operators, with the chart's own election, for the duration of a block."""
        self._release({"replicas": replicas, "leaderElection": {"enabled": True}})
        try:
            self._rolled_out("deployment/culvert-operator")
            yield
        finally:
            self.logs()
            self._release()
            self._rolled_out("deployment/culvert-operator")
            self.until(lambda: len(self.pods("operator")) == 1)

    def _rolled_out(self, what: str) -> None:
        self.kubectl("rollout", "status", what, f"--namespace={SYSTEM}", "--timeout=200s")

    def upgrade(self, image: str) -> None:
        """helm upgrade to an image of the same repository, the relay's left as it is, until its operator works."""
        self.logs()
        self._release(image=image)
        self._rolled_out("deployment/culvert-operator")

    def _release(self, operator: Any = None, *, image: str = IMAGE) -> None:
        service = {"type": "NodePort", "httpNodePort": HTTP_PORT, "httpsNodePort": HTTPS_PORT}
        values = {
            "image": {"repository": image.rpartition(":")[0], "tag": image.rpartition(":")[2]},
            # One, so that its lives can be told apart; `operators` makes it more.
            "operator": {"logLevel": "debug", **(operator or {"replicas": 1, "leaderElection": {"enabled": False}})},
            "relay": {
                "enabled": True,
                "imageTag": IMAGE.rpartition(":")[2],
                "hostnames": [f"*.{ZONE}"],
                "tls": {"secretNames": ["visitors-tls"]},
                "service": service,
                "gracePeriodSeconds": 5,
            },
        }
        file = self.folder / "values.json"
        file.write_text(json.dumps(values))
        self.run_helm("upgrade", "--install", "culvert", str(CHART), f"--values={file}")

    def run_helm(self, *arguments: str) -> str:
        """helm in the operator's namespace; its output."""
        command = [self.helm, f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={SYSTEM}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _surroundings(self) -> None:
        program = (DEMO / "app.py").read_text()
        for team in TEAMS:
            metadata = {"name": "web-app", "namespace": team}
            self.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"app.py": program}},
                *_manifest("app.yaml", team),
            )
        self.apply(*_manifest("dns.yaml", "shop"))
        for namespace, what in (
            (SYSTEM, "deployment/culvert-operator"),
            (SYSTEM, "statefulset/culvert-relay"),
            (SYSTEM, "deployment/demo-dns"),
            *((team, "deployment/web") for team in TEAMS),
        ):
            self.kubectl("rollout", "status", what, f"--namespace={namespace}", "--timeout=240s")

    def _tunnel(self) -> None:
        relay = {
            "addresses": [f"culvert-relay-tunnel.{SYSTEM}.svc.cluster.local:7443"],
            "caConfigMapRef": {"name": "culvert-relay-ca", "key": "ca.crt"},
        }
        zonefile = {"configMapRef": {"name": "demo-zone", "key": f"{ZONE}.zone"}, "zone": ZONE}
        started = time.monotonic()
        self.apply(
            {
                "apiVersion": "culvert.dev/v1alpha1",
                "kind": "Tunnel",
                "metadata": {"name": "main", "namespace": SYSTEM},
                "spec": {
                    "relay": relay,
                    "connector": {"replicas": 2, "gracePeriodSeconds": 20},
                    "grants": [{"namespaces": {"from": "All"}, "hostnames": [f"*.{ZONE}"]}],
                    "dns": {"ttl": 5, "target": {"hostname": f"relay.{ZONE}"}, "zonefile": zonefile},
                },
            },
            self.binding("first", self.first),
        )
        self.wait_ready("tunnel/main", SYSTEM)
        self.wait_ready("tunnelbinding/first", "shop")
        self.first_ready = time.monotonic() - started

    def remove(self) -> None:
        """Take everything away, in the order that leaves no DNS record behind; whatever is stuck is let go."""
        self.installed = False
        if self.kubectl("get", "crd", CRDS[0], "--ignore-not-found", "--output=name").stdout:
            for kind in ("tunnelbindings", "tunnels"):
                self.kubectl("delete", kind, "--all", "--all-namespaces", "--timeout=60s", check=False)
                for name, namespace in self._left(kind):
                    patch = '--patch={"metadata":{"finalizers":null}}'
                    self.kubectl("patch", kind, name, f"--namespace={namespace}", "--type=merge", patch, check=False)
        with contextlib.suppress(AssertionError):
            # Nothing is left to be released, and a broken image must not leave anything behind.
            self.run_helm("uninstall", "culvert", "--ignore-not-found", "--no-hooks")
        self.kubectl("delete", "namespace", f"--selector=made-by={MADE_BY}", "--timeout=150s")
        self.kubectl("delete", "crd", *CRDS, "--ignore-not-found", "--timeout=60s")

    def _left(self, kind: str) -> list[tuple[str, str]]:
        items = self.cluster.get(kind, "--all-namespaces")["items"]
        return [(o["metadata"]["name"], o["metadata"]["namespace"]) for o in items]

    # --- the cluster's side

    def kubectl(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """kubectl as the administrator, with time."""
        done: subprocess.CompletedProcess[str] = self.cluster.kubectl(
            *arguments, check=check, **{"timeout": 300} | options
        )
        return done

    def apply(self, *objects: Any) -> None:
        """kubectl apply of objects, all in one."""
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def get(self, kind: str, name: str, namespace: str = SYSTEM) -> Any:
        """One object, or None."""
        arguments = ("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
        found = self.kubectl(*arguments).stdout
        return json.loads(found) if found.strip() else None

    def binding(
        self, name: str, hostname: str, *, team: str = "shop", service: str = "web", port: int | str = "http"
    ) -> dict[str, Any]:
        """A TunnelBinding of one rule."""
        rule = {"name": "web", "hostname": hostname, "service": {"name": service, "port": port}}
        return {
            "apiVersion": "culvert.dev/v1alpha1",
            "kind": "TunnelBinding",
            "metadata": {"name": name, "namespace": team},
            "spec": {"tunnelRef": {"name": "main", "namespace": SYSTEM}, "rules": [rule]},
        }

    def wait_ready(self, what: str, namespace: str, *, condition: str = "Ready") -> None:
        """`kubectl wait` for a condition."""
        self.kubectl("wait", f"--for=condition={condition}", what, f"--namespace={namespace}", "--timeout=240s")

    def condition(self, kind: str, name: str, namespace: str, wanted: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition; empty while it is not there."""
        found = self.get(kind, name, namespace) or {}
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == wanted:
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    @contextlib.contextmanager
    def bound(self, *bindings: Any) -> Iterator[None]:
        """Bindings for the duration of a block; afterwards they are gone, and what was made for them."""
        self.apply(*bindings)
        try:
            yield
        finally:
            for one in bindings:
                where = f"--namespace={one['metadata']['namespace']}"
                options = ("--ignore-not-found", "--timeout=120s")
                self.kubectl("delete", "tunnelbinding", one["metadata"]["name"], where, *options)

    def pods(self, component: str) -> list[Any]:
        """The Pods of a component of culvert, by name; of connectors those of the Tunnel `main`."""
        instance = "main" if component == "connector" else "culvert"
        selector = f"--selector=app.kubernetes.io/component={component},app.kubernetes.io/instance={instance}"
        found = self.cluster.get("pods", f"--namespace={SYSTEM}", selector)["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def application(self, team: str) -> set[str]:
        """The names of the sample application's Pods."""
        found = self.cluster.get("pods", f"--namespace={team}", "--selector=app=web")["items"]
        return {str(pod["metadata"]["name"]) for pod in found}

    def lives(self, component: str) -> list[tuple[str, int]]:
        """(uid, restarts) of every Pod of a component: equal only when none was replaced or restarted.

        Pods that are ending are left out: an earlier test's may still be.
        """
        return [
            (pod["metadata"]["uid"], sum(c["restartCount"] for c in pod["status"].get("containerStatuses", ())))
            for pod in self.pods(component)
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def pods_of_system(self) -> list[Any]:
        """Every Pod beside the operator."""
        return list(self.cluster.get("pods", f"--namespace={SYSTEM}")["items"])

    def metrics(self, component: str, port: int, *, which: int = 0) -> str:
        """What a Pod of a component exposes, through the API server's proxy."""
        name = self.pods(component)[which]["metadata"]["name"]
        return self.kubectl("get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{name}:{port}/proxy/metrics").stdout

    def document(self) -> Any:
        """The configuration that connectors are given."""
        found = self.get("configmap", "main-config")
        return json.loads(gzip.decompress(base64.b64decode(found["binaryData"]["config.json.gz"])))

    def zone_text(self) -> str:
        """The zone as the operator keeps it."""
        return str(self.get("configmap", "demo-zone")["data"][f"{ZONE}.zone"])

    def claims(self) -> dict[str, str]:
        """Hostname → the namespace that holds it."""
        items = self.cluster.get("hostnameclaims")["items"]
        return {claim["spec"]["hostname"]: claim["spec"]["owner"]["namespace"] for claim in items}

    def logs(self) -> dict[str, str]:
        """The logs of culvert's containers so far, those of Pods that have gone since the last call included."""
        for component in ("operator", "relay", "connector"):
            for pod in self.pods(component):
                name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
                told = self.kubectl("logs", name, f"--namespace={SYSTEM}", "--all-containers", check=False)
                if told.returncode == 0:
                    self._logs[f"{name} {uid}"] = told.stdout
        return dict(self._logs)

    def audit(self, since: int | None = None) -> list[Any]:
        """The API server's audit log since an entry, else since the installation."""
        events: list[Any] = self.cluster.audit()
        return events[self.audited_from if since is None else since :]

    def refused(self) -> list[str]:
        """Requests of culvert's ServiceAccounts that the API server did not allow."""
        return [
            f"{e['user']['username']} {e['verb']} {e['requestURI']}: {e['responseStatus'].get('message', '')}"
            for e in self.audit()
            if e["user"]["username"].startswith(OURS) and e.get("responseStatus", {}).get("code") == 403
        ]

    def writes(self, since: int) -> list[tuple[str, str, str]]:
        """(user, verb, URI) of every write that culvert's ServiceAccounts tried after so many audit entries."""
        return [
            (e["user"]["username"].removeprefix(OURS), e["verb"], e["requestURI"])
            for e in self.audit(since)
            if e["user"]["username"].startswith(OURS) and e["verb"] in WRITES
        ]

    def at_rest(self, *, quiet: float = 3.0) -> int:
        """Wait until culvert has written nothing for a while; the audit log's length at that moment."""
        while True:
            length = len(self.cluster.audit())
            time.sleep(quiet)  # nothing happening cannot be waited for otherwise
            if not self.writes(length):
                return length

    def what_matters(self) -> str:
        """What tells why a test failed."""
        parts = []
        for arguments in (
            ("get", "pods", "--all-namespaces", "--output=wide"),
            ("get", "deployments,replicasets", f"--namespace={SYSTEM}", "--output=wide"),
            ("get", "tunnels,tunnelbindings", "--all-namespaces", "--output=yaml"),
            ("get", "events", f"--namespace={SYSTEM}", "--sort-by=.metadata.creationTimestamp"),
        ):
            parts.append(f"$ kubectl {' '.join(arguments)}\n{self.kubectl(*arguments, check=False).stdout[-8000:]}")
        parts += [f"{name}\n{text[-6000:]}" for name, text in self.logs().items()]
        return "\n".join(parts)


def _manifest(name: str, team: str) -> list[Any]:
    """A manifest of the demo with this suite's names and ports."""
    text = (DEMO / "manifests" / name).read_text()
    text = string.Template(text).safe_substitute(IMAGE=IMAGE, COREDNS_IMAGE="localhost/coredns:1")
    text = text.replace("demo.example.com", ZONE).replace("nodePort: 30053", f"nodePort: {DNS_PORT}")
    return list(yaml.safe_load_all(text.replace("namespace: shop", f"namespace: {team}")))


def installation_on(cluster: Any, helm: str, folder: Path) -> Installation:
    """culvert on a node, not installed yet; `folder` is for files of its own."""
    return Installation(
        authority=folder / "visitors.crt",
        http_port=HTTP_PORT,
        https_port=HTTPS_PORT,
        dns_port=DNS_PORT,
        relay_name=f"relay.{ZONE}",
        cluster=cluster,
        helm=helm,
        folder=folder,
    )


def build_image() -> str:
    """Build the image, if anything changed since the last time; what went wrong, or nothing."""
    command = [str(REPOSITORY / "hack" / "image" / "build"), "--tag", IMAGE, "--archive", str(ARCHIVE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr[-3000:]


def in_the_way(cluster: Any) -> str:
    """Why nothing can be installed here: somebody's namespaces; those of an earlier test run are not in the way."""
    for name in (SYSTEM, *TEAMS):
        found = cluster.kubectl("get", "namespace", name, "--ignore-not-found", "--output=json").stdout
        if found.strip() and json.loads(found)["metadata"].get("labels", {}).get("made-by") != MADE_BY:
            return (
                f"the node's namespace {name} is somebody else's (a demo that was kept?): take it away with "
                f"`helm uninstall culvert -n {SYSTEM}` and `kubectl delete namespace {SYSTEM} shop`"
            )
    return ""


def is_left_over(cluster: Any) -> bool:
    """Whether an earlier test run, killed before its end, left something."""
    return bool(cluster.kubectl("get", "namespace", f"--selector=made-by={MADE_BY}", "--output=name").stdout.strip())
