"""What the operator may do: its RBAC rules as one table, for the chart to be checked against.

Responsible for: the list of verbs, resources and scopes that the operator's requests need, and nothing more.
Must not know: how the chart is templated.
Invariant: every request that the operator makes is allowed by a line of this table; a test on a real API server runs
the operator with exactly these rules.

Scopes: ``cluster`` (a ClusterRole bound everywhere), ``watched`` (that ClusterRole, or with ``--watch-namespaces`` a
Role in each of them and of the Tunnels'), ``tunnels`` (a Role in each of ``--tunnel-namespaces``, or the ClusterRole
when that is ``*``), ``own`` (a Role in the operator's namespace). ``names`` restricts a rule to objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["cluster", "watched", "tunnels", "own"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One RBAC rule and why it is there."""

    scope: Scope
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()


READ = ("get", "list", "watch")
CULVERT = "culvert.dev"
RBAC = "rbac.authorization.k8s.io"
LEASES = "coordination.k8s.io"

RULES: tuple[Rule, ...] = (
    Rule("watched", CULVERT, ("tunnels", "tunnelbindings"), (*READ, "patch"), "the finalizer culvert.dev/cleanup"),
    Rule("watched", CULVERT, ("tunnels/status", "tunnelbindings/status"), ("patch",), "conditions"),
    Rule("cluster", CULVERT, ("hostnameclaims",), (*READ, "create", "update", "delete"), "who holds which hostname"),
    Rule("cluster", "", ("namespaces",), ("list", "watch"), "labels that grants select, and namespaces that go"),
    Rule("watched", "", ("services",), ("list", "watch"), "ports that rules name"),
    Rule("watched", "", ("configmaps",), READ, "CA certificates that rules name (watched by metadata only)"),
    Rule("watched", "events.k8s.io", ("events",), ("create",), "transitions, for kubectl describe"),
    Rule("tunnels", "", ("pods",), ("list", "watch"), "connectors to be asked for their status"),
    Rule(
        "tunnels",
        "",
        ("serviceaccounts", "secrets", "configmaps"),
        (*READ, "create", "patch"),
        "a Tunnel's children; a zone file's ConfigMap; what the connectors' Role grants has to be held",
    ),
    Rule("tunnels", RBAC, ("roles", "rolebindings"), (*READ, "create", "patch"), "a Tunnel's children"),
    Rule("tunnels", "apps", ("deployments",), (*READ, "create", "patch"), "a Tunnel's children"),
    Rule("tunnels", "policy", ("poddisruptionbudgets",), (*READ, "create", "patch"), "a Tunnel's children"),
    Rule(
        "tunnels",
        "autoscaling",
        ("horizontalpodautoscalers",),
        (*READ, "create", "patch", "delete"),
        "a Tunnel's child, which goes when autoscaling is no longer asked for",
    ),
    Rule(
        "tunnels",
        "externaldns.k8s.io",
        ("dnsendpoints",),
        ("list", "create", "patch", "delete"),
        "records of Tunnels whose dns.endpoints hands them to external-dns",
    ),
    Rule("own", LEASES, ("leases",), ("create",), "the election of a leader"),
    Rule("own", LEASES, ("leases",), ("get", "update"), "the election of a leader", ("culvert-operator",)),
    Rule(
        "own",
        "apps",
        ("deployments",),
        ("get", "patch"),
        "stopping itself before it is uninstalled",
        ("culvert-operator",),
    ),
    Rule("own", "", ("secrets", "configmaps"), ("list",), "whether Helm is uninstalling the release, by its record"),
    Rule("own", "", ("secrets", "configmaps"), ("create",), "the issuer's key and the relay's certificate, once"),
    Rule(
        "own",
        "",
        ("secrets",),
        ("get", "patch"),
        "the issuer's key; the relay's certificate, renewed",
        ("culvert-issuer", "culvert-relay-ca", "culvert-relay-tls"),
    ),
    Rule(
        "own",
        "",
        ("configmaps",),
        ("get", "patch"),
        "the issuer's public key; the relay's CA; revocations that relays are told of",
        ("culvert-issuer", "culvert-relay-ca", "culvert-revocations"),
    ),
)


def rules(scopes: Iterable[Scope]) -> list[Mapping[str, Any]]:
    """The rules of some scopes as a (Cluster)Role's ``rules``."""
    wanted = set(scopes)
    found: list[Mapping[str, Any]] = []
    for rule in RULES:
        if rule.scope in wanted:
            made: dict[str, Any] = {
                "apiGroups": [rule.group],
                "resources": list(rule.resources),
                "verbs": list(rule.verbs),
            }
            found.append(made | ({"resourceNames": list(rule.names)} if rule.names else {}))
    return found


def allows(verb: str, group: str, resource: str, *, scopes: Iterable[Scope]) -> bool:
    """Whether some rule of these scopes allows a request, whatever its object's name."""
    wanted = set(scopes)
    return any(
        rule.scope in wanted and rule.group == group and resource in rule.resources and verb in rule.verbs
        for rule in RULES
    )
