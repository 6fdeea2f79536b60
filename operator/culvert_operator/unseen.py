"""Bindings that name a Tunnel in a namespace which this operator does not watch.

Responsible for: telling them so, and letting go of those that are being deleted. Must not know: anything of Tunnels.
Invariant: of what cannot be seen nothing is concluded. The Tunnel may exist and be another operator's: a binding of
which something is held anywhere, or of whose present generation somebody has spoken, is left alone, and every other one
is given time to be taken up. So two operators never write in turns.
"""

from __future__ import annotations

from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import milliseconds
from culvert_operator.api.meta import integer
from culvert_operator.conditions.condition import Condition, by_type
from culvert_operator.keys import ObjectKey
from culvert_operator.lifecycle import remove_finalizer
from culvert_operator.relations import tunnel_of
from culvert_operator.statuses.binding import unserved_status
from culvert_operator.statuses.patch import status_patch, transitions
from culvert_operator.world import Event, FinalizerOp, Plan, Snapshot, StatusPatch

UNSEEN = "TunnelNotWatched"
PATIENCE_SECONDS = 30.0
"""How long another operator has to take a binding up, or to let it go."""


def unseen(snapshot: Snapshot) -> Plan:
    """What is to be done for the bindings that want the Tunnel ``snapshot.key``, which cannot be seen."""
    statuses: list[StatusPatch] = []
    events: list[Event] = []
    removed: list[FinalizerOp] = []
    waits: list[float] = []
    claimants = _claimants(snapshot)
    wanting = [b for b in snapshot.bindings if tunnel_of(b, snapshot.options) == snapshot.key]
    for binding in sorted(wanting, key=lambda b: b.meta.key):
        held = binding.held_by or binding.published or binding.meta.key in claimants
        if held or (not binding.meta.deleting and _is_spoken_for(binding)):
            continue
        since = binding.meta.deleted or binding.meta.changed
        left = milliseconds(since) / 1000 + PATIENCE_SECONDS - snapshot.now
        if left > 0:
            waits.append(left)
        elif binding.meta.deleting:
            operation = remove_finalizer("TunnelBinding", binding.meta)
            removed += [operation] if operation is not None else []
        else:
            status = unserved_status(binding, snapshot.key, _why(snapshot), listed=(), holds=False, now=snapshot.now)
            patch = status_patch("TunnelBinding", binding.meta, binding.status, status)
            if patch is not None:
                statuses.append(patch)
                events += transitions("TunnelBinding", binding.meta, binding.status, status)
    return Plan(
        statuses=tuple(statuses),
        events=tuple(events),
        finalizers_remove=tuple(removed),
        requeue_after=min(waits, default=None),
    )


def _claimants(snapshot: Snapshot) -> frozenset[ObjectKey]:
    """The bindings that hold some hostname, of whatever Tunnel, or wait for one."""
    claims = snapshot.claims.values()
    holding = {ObjectKey(claim.namespace, path.binding) for claim in claims for path in claim.paths}
    return frozenset(holding | {waiter.key for claim in claims for waiter in claim.waiting})


def _is_spoken_for(binding: Binding) -> bool:
    """Whether somebody has said something else of this generation of the binding."""
    accepted = by_type(binding.status).get("Accepted", {})
    said = integer(accepted.get("observedGeneration")) == binding.meta.generation
    return said and accepted.get("reason") != UNSEEN


def _why(snapshot: Snapshot) -> Condition:
    said = (
        f"This operator does not watch the namespace {snapshot.key.namespace}, so that it cannot see the Tunnel "
        f"{snapshot.key}, and no other operator has taken the binding up. Name a Tunnel that it can see, or start it "
        f"with {snapshot.key.namespace} among --watch-namespaces."
    )
    return Condition("Accepted", "Unknown", UNSEEN, said)
