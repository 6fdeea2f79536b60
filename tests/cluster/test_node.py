"""The whole node: Pods really run, talk, resolve names, and are held to Pod Security Standards."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

if TYPE_CHECKING:
    from .conftest import Cluster

# A Pod that forwards DNS questions to its own /etc/resolv.conf: what it answers, Pods can resolve.
RESOLVER = """
apiVersion: v1
kind: ConfigMap
metadata: {name: resolver}
data:
  Corefile: |
    .:5353 {
      log
      forward . /etc/resolv.conf
    }
---
apiVersion: v1
kind: Pod
metadata: {name: resolver, labels: {app: resolver}}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
  terminationGracePeriodSeconds: 0
  containers:
    - name: resolver
      image: localhost/coredns:1
      imagePullPolicy: Never
      args: [-conf, /etc/resolver/Corefile]
      readinessProbe: {tcpSocket: {port: 5353}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: corefile, mountPath: /etc/resolver}]
  volumes: [{name: corefile, configMap: {name: resolver}}]
---
apiVersion: v1
kind: Service
metadata: {name: resolver}
spec:
  type: NodePort
  selector: {app: resolver}
  ports: [{name: dns, port: 53, targetPort: 5353, protocol: TCP}]
"""
ROOT_POD = """
apiVersion: v1
kind: Pod
metadata: {name: careless}
spec: {containers: [{name: c, image: localhost/coredns:1, imagePullPolicy: Never}]}
"""


@pytest.fixture(scope="module")
def namespace(node: Cluster) -> Iterator[str]:
    name = f"node-test-{uuid.uuid4().hex[:8]}"
    node.kubectl("create", "namespace", name)
    node.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield name
    finally:
        node.kubectl("delete", "namespace", name, "--wait", "--timeout=60s", timeout=90)


@pytest.fixture(scope="module")
def resolver(node: Cluster, namespace: str) -> str:
    """The address of a Pod that runs under PSS restricted."""
    node.kubectl("apply", "-n", namespace, "-f", "-", input=RESOLVER)
    node.kubectl("wait", "-n", namespace, "pod/resolver", "--for=condition=Ready", "--timeout=60s", timeout=90)
    return str(node.get("pod", "resolver", "-n", namespace)["status"]["podIP"])


def ask(name: str, address: str, port: int) -> list[str]:
    """The A records of `name`, asked of `address` over TCP."""
    question, deadline = dns.message.make_query(name, "A"), time.monotonic() + 30
    while True:
        try:
            answer = dns.query.tcp(question, address, port=port, timeout=5)
            break
        except (ConnectionRefusedError, EOFError, dns.exception.Timeout):
            # kube-proxy has not heard of the Service's Pod yet, or not even of the Service; a resolver that has just
            # begun may hang up.
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert answer.rcode() == dns.rcode.NOERROR
    return [record.address for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for record in rrset]


def test_the_node_is_ready(node: Cluster) -> None:
    (only,) = node.get("nodes")["items"]
    conditions = {one["type"]: one["status"] for one in only["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert only["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.")


def test_pods_resolve_services_through_the_cluster_dns(node: Cluster, namespace: str, resolver: str) -> None:
    service = node.get("service", "resolver", "-n", namespace)["spec"]["clusterIP"]
    assert ask(f"resolver.{namespace}.svc.cluster.local.", resolver, 5353) == [service]


def test_a_service_answers_on_its_cluster_address_and_its_node_port(
    node: Cluster, namespace: str, resolver: str
) -> None:
    service = node.get("service", "resolver", "-n", namespace)["spec"]
    expected = [node.get("service", "kubernetes", "-n", "default")["spec"]["clusterIP"]]
    node_port = service["ports"][0]["nodePort"]
    assert node.node_address is not None
    for address, port in ((service["clusterIP"], 53), (node.node_address, node_port), ("127.0.0.1", node_port)):
        assert ask("kubernetes.default.svc.cluster.local.", address, port) == expected


def test_exec_and_logs_reach_the_pod(node: Cluster, namespace: str, resolver: str) -> None:
    told = node.kubectl("exec", "-n", namespace, "resolver", "--", "/coredns", "-version").stdout
    assert told.startswith("CoreDNS-")
    assert "plugin/forward" not in told
    ask("kubernetes.default.svc.cluster.local.", resolver, 5353)
    assert "kubernetes.default.svc.cluster.local." in node.kubectl("logs", "-n", namespace, "resolver").stdout


def test_a_pod_that_is_not_restricted_is_refused(node: Cluster, namespace: str) -> None:
    done = node.kubectl("apply", "-n", namespace, "-f", "-", input=ROOT_POD, check=False)
    assert done.returncode != 0
    assert 'violates PodSecurity "restricted:latest"' in done.stderr


def test_the_api_server_is_not_on_other_addresses(node: Cluster) -> None:
    port = int(node.server.rpartition(":")[2])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
