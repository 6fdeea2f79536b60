"""Which programs make a control plane, with which arguments.

Responsible for turning addresses, ports and paths into command lines: pure. Must not start anything. Flags follow
the Kubernetes reference of each component; a flag that is here for a reason that its name does not tell has it next
to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from onenode.layout import MANIFESTS, StateLayout
from onenode.processes import Program

SERVICE_NETWORK: Final = "10.96.0.0/16"
FIRST_SERVICE: Final = "10.96.0.1"  # kubernetes.default.svc
DNS_SERVICE: Final = "10.96.0.10"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """One control plane. `address` is where the API server listens; `has_node` whether Pods will dial it."""

    layout: StateLayout
    address: str
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    has_node: bool

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api_port}"


def etcd(plane: ControlPlane, *, kubelite: str) -> Program:
    """etcd, on the loopback and for holders of the cluster's certificates only: it has every Secret."""
    pki = plane.layout.pki
    client, peer = f"https://127.0.0.1:{plane.etcd_port}", f"https://127.0.0.1:{plane.etcd_peer_port}"
    arguments = [
        kubelite,
        "etcd",
        f"--data-dir={plane.layout.etcd}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync=true",  # a cluster that is thrown away need not survive a power cut
        "--log-level=warn",
    ]
    for side in ("", "peer-"):
        arguments += [
            f"--{side}cert-file={pki / 'etcd.crt'}",
            f"--{side}key-file={pki / 'etcd.key'}",
            f"--{side}trusted-ca-file={pki / 'ca.crt'}",
            f"--{side}client-cert-auth=true",
        ]
    return Program("etcd", arguments, plane.layout.log("etcd"))


def api_server(plane: ControlPlane, *, kubelite: str) -> Program:
    """kube-apiserver with an audit log of every request (see manifests/audit-policy.yaml)."""
    layout, pki = plane.layout, plane.layout.pki
    arguments = [
        kubelite,
        "kube-apiserver",
        f"--etcd-servers=https://127.0.0.1:{plane.etcd_port}",
        f"--etcd-cafile={pki / 'ca.crt'}",
        f"--etcd-certfile={pki / 'apiserver.crt'}",
        f"--etcd-keyfile={pki / 'apiserver.key'}",
        f"--bind-address={plane.address}",
        f"--secure-port={plane.api_port}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--allow-privileged=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--cert-dir={layout.root / 'apiserver'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--audit-policy-file={MANIFESTS / 'audit-policy.yaml'}",
        f"--audit-log-path={layout.audit_log}",
        "--audit-log-maxsize=512",
        "--audit-log-maxbackup=1",
        "--profiling=false",
    ]
    if plane.has_node:
        arguments += [
            f"--advertise-address={plane.address}",  # Endpoints of kubernetes.default.svc: Pods must reach it
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver.crt'}",
            f"--kubelet-client-key={pki / 'apiserver.key'}",
            # Else `kubectl exec` and `logs` would resolve the node's name.
            "--kubelet-preferred-address-types=InternalIP",
        ]
    else:
        # Loopback addresses are not allowed in Endpoints, and there is no Pod that would look there.
        arguments += ["--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"]
    return Program("kube-apiserver", arguments, layout.log("kube-apiserver"))


def controller_manager(plane: ControlPlane, *, kubelite: str) -> Program:
    """kube-controller-manager: without it nothing is garbage-collected and namespaces never finish deleting."""
    layout = plane.layout
    kubeconfig = layout.component_kubeconfig("controller-manager")
    arguments = [
        kubelite,
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        # The defaults (20 a second) make the first seconds of a cluster, and of every test, slow.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]
    return Program("kube-controller-manager", arguments, layout.log("kube-controller-manager"))
