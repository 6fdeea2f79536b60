"""The kinds of objects that the operator reads or writes, and their paths.

Responsible for: one table from kind to group, version and plural. Must not know: clients, stores, what objects hold.
Invariant: every request to the API server is for a kind of this table; the RBAC table is checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind as the API server names it. ``group`` is empty for the core group."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As ``apiVersion`` of an object."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The path of a collection (cluster-wide without ``namespace``), an object or its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


TUNNEL = Kind("Tunnel", "culvert.dev", "v1alpha1", "tunnels")
BINDING = Kind("TunnelBinding", "culvert.dev", "v1alpha1", "tunnelbindings")
CLAIM = Kind("HostnameClaim", "culvert.dev", "v1alpha1", "hostnameclaims", namespaced=False)
NAMESPACE = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SECRET = Kind("Secret", "", "v1", "secrets")
SERVICE_ACCOUNT = Kind("ServiceAccount", "", "v1", "serviceaccounts")
ROLE = Kind("Role", "rbac.authorization.k8s.io", "v1", "roles")
ROLE_BINDING = Kind("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings")
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers")
POD = Kind("Pod", "", "v1", "pods")
EVENT = Kind("Event", "events.k8s.io", "v1", "events")
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
DNS_ENDPOINT = Kind("DNSEndpoint", "externaldns.k8s.io", "v1alpha1", "dnsendpoints")
"""external-dns's; its definition is not culvert's and may be missing."""

ALL = (
    TUNNEL,
    BINDING,
    CLAIM,
    NAMESPACE,
    SERVICE,
    CONFIG_MAP,
    SECRET,
    SERVICE_ACCOUNT,
    ROLE,
    ROLE_BINDING,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    AUTOSCALER,
    POD,
    EVENT,
    LEASE,
    DNS_ENDPOINT,
)
BY_NAME = {kind.name: kind for kind in ALL}

# What a Tunnel owns; all of it carries the label below.
CHILDREN = (SERVICE_ACCOUNT, ROLE, ROLE_BINDING, SECRET, CONFIG_MAP, DEPLOYMENT, DISRUPTION_BUDGET, AUTOSCALER)
MANAGED = "app.kubernetes.io/managed-by=culvert"
TUNNEL_LABEL = "culvert.dev/tunnel"
