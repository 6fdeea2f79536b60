"""Lifecycle: in which phase a Tunnel is, what a binding still holds of it, and when an object is let go.

Responsible for: the phases, the finalizer, and the order of leaving: DNS first, then the route, then the claim, then
the finalizer; of a Tunnel that goes DNS, the revocation, the finalizer, and the claims once relays know. Must not know:
how any of these is removed.
Invariants: an object keeps our finalizer for as long as something outside it exists for it; after a
``deletionTimestamp`` no child is applied (the namespace may be going, and with it what we would write).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Literal

from culvert_ingress.document import Document
from culvert_operator.api.claim import Claim, milliseconds
from culvert_operator.api.meta import Meta
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options
from culvert_operator.world import FinalizerOp, Snapshot

GIVE_UP_SECONDS = 120
"""How long a Tunnel in a namespace that is being deleted waits for DNS that cannot be reached."""


class Phase(Enum):
    """What the operator does for a Tunnel."""

    ABSENT = "there is no such Tunnel"
    REFUSED = "it stands where the operator serves no Tunnels"
    LEAVING = "it is being deleted"
    SERVED = "it is served"


def phase_of(tunnel: Tunnel | None, options: Options) -> Phase:
    """The phase of a Tunnel."""
    if tunnel is None:
        return Phase.ABSENT
    if tunnel.meta.deleting:
        return Phase.LEAVING
    return Phase.SERVED if options.may_hold_tunnels(tunnel.meta.namespace) else Phase.REFUSED


def in_terminating_namespace(snapshot: Snapshot) -> bool:
    """Whether the Tunnel's namespace is being deleted: the API server takes nothing new there."""
    namespace = snapshot.namespaces.get(snapshot.key.namespace)
    return namespace is not None and namespace.terminating


def gives_up(snapshot: Snapshot) -> bool:
    """Whether records that cannot be reached are left behind, so that the Tunnel's namespace can go.

    The namespace's deletion takes the provider's Secret or zone with it, so that waiting longer would be for ever.
    """
    tunnel = snapshot.tunnel
    if tunnel is None or not tunnel.meta.deleting or not in_terminating_namespace(snapshot):
        return False
    return snapshot.now * 1000 >= milliseconds(tunnel.meta.deleted) + GIVE_UP_SECONDS * 1000


def holders(key: ObjectKey, *, claims: Iterable[Claim], route: Document | None) -> frozenset[ObjectKey]:
    """The bindings of which a claim, a place among those who wait, or a route is left in the Tunnel ``key``.

    ``route`` is the present configuration; None when routes go with the Tunnel itself.
    """
    found: set[ObjectKey] = set()
    for claim in claims:
        if claim.tunnel == key:
            found.update(ObjectKey(claim.namespace, path.binding) for path in claim.paths)
        found.update(waiter.key for waiter in claim.waiting if waiter.tunnel == key)
    for rule in route.rules if route is not None else ():
        namespace, _, rest = rule.id.partition("/")
        found.add(ObjectKey(namespace, rest.partition("/")[0]))
    return frozenset(found)


def add_finalizer(kind: Literal["Tunnel", "TunnelBinding"], meta: Meta) -> FinalizerOp | None:
    """The operation that secures an object, when it is needed and still possible."""
    if meta.deleting or meta.has_finalizer:
        return None
    return FinalizerOp(kind, meta.key, meta.uid, meta.finalizers)


def remove_finalizer(kind: Literal["Tunnel", "TunnelBinding"], meta: Meta) -> FinalizerOp | None:
    """The operation that lets a deleted object go."""
    if not (meta.deleting and meta.has_finalizer):
        return None
    return FinalizerOp(kind, meta.key, meta.uid, meta.finalizers)
