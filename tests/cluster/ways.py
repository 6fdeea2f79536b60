"""Ways to a control plane for tests that speak to it from their own process."""

from __future__ import annotations

import base64
import json
import ssl
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from culvert_operator.cluster.connection import Access, access, credentials
from culvert_operator.cluster.permissions import rules

ACCOUNT = "fault-operator"


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways to the API server: as the administrator, and with the operator's token."""

    server: str
    tls: ssl.SSLContext
    proxy_tls: ssl.SSLContext
    token: str

    async def administrator(self) -> Access:
        return Access(self.server, self.tls, {})


def ways(cluster: Any) -> Ways:
    """The administrator's way in, and a token of an account with all that the operator may do, everywhere."""
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": ACCOUNT}
    metadata = {"name": ACCOUNT}
    allowed = rules(["cluster", "watched", "tunnels", "own"])
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**metadata, "namespace": "default"}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": allowed},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]
    cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    token = cluster.kubectl("create", "token", ACCOUNT, "--namespace=default", "--duration=12h").stdout.strip()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KUBECONFIG", str(cluster.kubeconfig))
        administrator = access(credentials())
    there = yaml.safe_load(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(there["certificate-authority-data"]).decode()
    assert administrator.tls is not None
    return Ways(administrator.server, administrator.tls, ssl.create_default_context(cadata=authority), token)
