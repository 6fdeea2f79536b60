"""Who is who in the cluster: certificates and kubeconfigs.

Responsible for: the names and groups under which each program is known to the API server, so that the audit log
tells them apart, and for writing them. Cryptography is done by the program `certificates`.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onenode.layout import StateLayout
from onenode.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate for one program, as client and server."""

    name: str
    user: str
    groups: Sequence[str] = ()
    hosts: Sequence[str] = ()


ADMIN = Identity("admin", "admin", ("system:masters",))
# Real clusters give every controller a ServiceAccount of its own; here the one program may do everything, which
# starts faster, and its name in the audit log is the usual one.
CONTROLLER_MANAGER = Identity("controller-manager", "system:kube-controller-manager", ("system:masters",))
SCHEDULER = Identity("scheduler", "system:kube-scheduler")
PROXY = Identity("proxy", "system:kube-proxy")


def api_server(addresses: Sequence[str]) -> Identity:
    """The API server as a server (its addresses and in-cluster names) and as a client of kubelets and etcd."""
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    return Identity("apiserver", "kube-apiserver", ("system:masters",), ("localhost", *names, *addresses))


def etcd() -> Identity:
    return Identity("etcd", "etcd", (), ("localhost", "127.0.0.1"))


def kubelet(node: str, address: str) -> Identity:
    """A kubelet has the rights of its own node only (Node authorizer, NodeRestriction)."""
    return Identity("kubelet", f"system:node:{node}", ("system:nodes",), (node, address))


def request(identities: Sequence[Identity]) -> str:
    """What the program `certificates` reads."""
    return json.dumps(
        {
            "authority": "ca",
            "certificates": [
                {
                    "name": one.name,
                    "commonName": one.user,
                    "organizations": list(one.groups),
                    "hosts": list(one.hosts),
                }
                for one in identities
            ],
            "keys": ["service-account"],
        }
    )


def issue(identities: Sequence[Identity], layout: StateLayout, *, certificates: str) -> None:
    """Writes `ca`, `service-account` and every identity's .crt and .key below `layout.pki`."""
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    done = subprocess.run(
        [certificates, str(layout.pki)],
        input=request(identities),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refusal(f"Making the cluster's certificates failed: {done.stderr.strip()}")


def kubeconfig(identity: Identity, layout: StateLayout, *, server: str) -> str:
    """A kubeconfig that needs no other file. JSON, which is YAML."""

    def embedded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "culvert",
                "cluster": {"server": server, "certificate-authority-data": embedded(layout.pki / "ca.crt")},
            }
        ],
        "users": [
            {
                "name": identity.name,
                "user": {
                    "client-certificate-data": embedded(layout.pki / f"{identity.name}.crt"),
                    "client-key-data": embedded(layout.pki / f"{identity.name}.key"),
                },
            }
        ],
        "contexts": [{"name": "culvert", "context": {"cluster": "culvert", "user": identity.name}}],
        "current-context": "culvert",
    }
    return json.dumps(document, indent=2) + "\n"


def write_kubeconfig(identity: Identity, layout: StateLayout, path: Path, *, server: str) -> None:
    """Writes it with mode 0600 from the first byte: it holds a private key."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(kubeconfig(identity, layout, server=server))
