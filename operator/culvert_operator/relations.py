"""Which object concerns which Tunnel: what a watcher needs to know to mark keys dirty and to gather a snapshot.

Responsible for: pure answers to "whose work is this?" and "what has to be read for that?".
Must not know: stores, watches, what the planner decides.
Invariant: over-answering is harmless (a round of planning that writes nothing), under-answering loses a change.
"""

from __future__ import annotations

from collections.abc import Iterable

from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Claim
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.keys import NOWHERE, ChildKey, ObjectKey
from culvert_operator.options import Options

CHILD_KINDS: dict[str, str] = {
    "ServiceAccount": "{}-connector",
    "Role": "{}-connector",
    "RoleBinding": "{}-connector",
    "Secret": "{}-credential",
    "ConfigMap": "{}-config",
    "Deployment": "{}-connector",
    "PodDisruptionBudget": "{}-connector",
    "HorizontalPodAutoscaler": "{}-connector",
}
"""Kind of a Tunnel's child → its name, from the Tunnel's."""


def tunnel_of(binding: Binding, options: Options) -> ObjectKey:
    """The Tunnel that the binding wants; :data:`NOWHERE` when it names none and there is no default one."""
    return binding.tunnel_ref or options.default_tunnel or NOWHERE


def tunnels_of_binding(binding: Binding, options: Options) -> frozenset[ObjectKey]:
    """The wanted Tunnel, and every Tunnel that may still hold something of the binding."""
    published = (text.partition("/") for text in {p.tunnel for p in binding.published})
    listed = (ObjectKey(namespace, name) for namespace, _, name in published)
    return frozenset({tunnel_of(binding, options), *binding.held_by, *listed})


def tunnels_of_claim(claim: Claim) -> frozenset[ObjectKey]:
    """The Tunnel that holds the claim, the one that had it, and those that wait. On a change ask before *and* after.

    When a claim goes away or changes its holder, names *below or above* it may have become free for any Tunnel: mark
    all of them (the planner asks to be called again every minute while it has such a rule, so this is only for speed).
    """
    former = () if claim.former is None else (claim.former.tunnel,)
    return frozenset({claim.tunnel, *former, *(w.tunnel for w in claim.waiting)})


def child(kind: str, tunnel_name: str) -> ChildKey:
    """The key of one child of a Tunnel."""
    return ChildKey(kind, CHILD_KINDS[kind].format(tunnel_name))


def children(tunnel_name: str) -> tuple[ChildKey, ...]:
    """The keys of all children of a Tunnel, in its namespace."""
    return tuple(child(kind, tunnel_name) for kind in CHILD_KINDS)


def services(bindings: Iterable[Binding]) -> frozenset[ObjectKey]:
    """The Services that rules name."""
    return frozenset(
        ObjectKey(b.meta.namespace, r.service.name) for b in bindings for r in b.rules if r.service is not None
    )


def hostnames(tunnel: ObjectKey, bindings: Iterable[Binding]) -> frozenset[str]:
    """The hostnames that may have a record for the Tunnel: those of rules, as spelled, and those of stored lists."""
    found: set[str] = set()
    for binding in bindings:
        found.update(rule.hostname.rstrip(".").lower() for rule in binding.rules if rule.hostname)
        found.update(p.name for p in binding.published if p.tunnel == str(tunnel))
    return frozenset(found)


def config_maps(tunnel: Tunnel | None, bindings: Iterable[Binding]) -> frozenset[ObjectKey]:
    """The ConfigMaps (CA certificates) that the Tunnel and the rules name."""
    found = {
        ObjectKey(b.meta.namespace, r.origin.ca.name) for b in bindings for r in b.rules if r.origin.ca is not None
    }
    if tunnel is not None and tunnel.relay.ca is not None:
        found.add(ObjectKey(tunnel.meta.namespace, tunnel.relay.ca.name))
    return frozenset(found)
