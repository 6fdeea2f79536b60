"""Asking the API server whether it, and what it manages, is ready.

Responsible for GETs as the administrator, with the cluster's own CA. Must not write anything, and must not know what
the answers are waited for. A server that does not answer is not an error here: it is "not yet" (None).
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from onenode.layout import StateLayout


@dataclass(frozen=True, slots=True)
class ApiClient:
    """One API server, over a new connection for each question."""

    server: str
    layout: StateLayout

    def get(self, path: str, *, timeout: float = 5.0) -> tuple[int, bytes] | None:
        """Status and body, None when nobody answers."""
        url = urlsplit(self.server)
        try:
            trust = ssl.create_default_context(cafile=str(self.layout.pki / "ca.crt"))
            trust.load_cert_chain(self.layout.pki / "admin.crt", self.layout.pki / "admin.key")
            connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout, context=trust)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None

    def document(self, path: str) -> dict[str, Any] | None:
        """The JSON object at `path`; None when it is not there (yet)."""
        answer = self.get(path)
        if answer is None or answer[0] != 200:
            return None
        document = json.loads(answer[1])
        return document if isinstance(document, dict) else None

    def is_ready(self) -> bool:
        answer = self.get("/readyz")
        return answer is not None and answer[0] == 200

    def controllers_work(self) -> bool:
        """The `default` namespace has its ServiceAccount and CA: both are made by the controller manager."""
        namespace = "/api/v1/namespaces/default"
        return (
            self.document(f"{namespace}/serviceaccounts/default") is not None
            and self.document(f"{namespace}/configmaps/kube-root-ca.crt") is not None
        )

    def node_is_ready(self, name: str) -> bool:
        node = self.document(f"/api/v1/nodes/{name}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)

    def dns_is_ready(self) -> bool:
        deployment = self.document("/apis/apps/v1/namespaces/kube-system/deployments/coredns") or {}
        return bool(deployment.get("status", {}).get("readyReplicas", 0))
