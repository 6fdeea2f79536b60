"""The scribe: writes down, object by object, what the planner's stages have found.

Responsible for: statuses, Events and finalizers of a Tunnel and of its bindings, each by what is still left of it.
Must not know: how anything was found. Invariant: an object that is being deleted keeps culvert's finalizer for as long
as something outside of it exists for it, and an Event says what stays behind.
"""

from __future__ import annotations

from typing import Literal

from culvert_operator.api.binding import Binding
from culvert_operator.api.meta import Meta, Raw, mapping, text
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.compile import relay_of
from culvert_operator.conditions.condition import Condition
from culvert_operator.configuration import Configured
from culvert_operator.keys import NOWHERE, ObjectKey
from culvert_operator.lifecycle import (
    Phase,
    add_finalizer,
    holders,
    remove_finalizer,
)
from culvert_operator.programmed import Fleet
from culvert_operator.records import Records, listed_by
from culvert_operator.revoking.decision import UNTOLD, Rotation, farewell, farewell_at
from culvert_operator.routing import Routing
from culvert_operator.statuses.binding import (
    Proof,
    held_status,
    leaving_status,
    released_status,
    served_status,
    unserved_status,
)
from culvert_operator.statuses.patch import status_patch, transitions
from culvert_operator.statuses.tunnel import Counts, deleting_status, refused_status, tunnel_status
from culvert_operator.world import Event, FinalizerOp, Revoke, Snapshot, StatusPatch


class Scribe:
    """Writes down, object by object, what the stages have found."""

    def __init__(
        self,
        snapshot: Snapshot,
        phase: Phase,
        tunnel: Tunnel | None,
        configured: Configured,
        records: Records,
        rotated: Rotation | None,
    ) -> None:
        self.snapshot, self.phase, self.tunnel = snapshot, phase, tunnel
        self.configured, self.records, self.rotated = configured, records, rotated
        self.revoke: Revoke | None = None
        self.waits_until: float | None = None
        self._holders: frozenset[ObjectKey] | None = None
        self.added: list[FinalizerOp] = []
        self.removed: list[FinalizerOp] = []
        self.statuses: list[StatusPatch] = []
        self.events: list[Event] = []

    def serve(self, binding: Binding, routing: Routing, proof: Proof, condition: Condition) -> None:
        """A binding that wants this Tunnel and gets it."""
        operation = add_finalizer("TunnelBinding", binding.meta)
        if operation is not None:
            self.added.append(operation)
        status = served_status(
            routing.bindings[binding.meta.key],
            self.snapshot.key,
            proof,
            self.records,
            self.snapshot.dns,
            condition,
            version=self.configured.version,
            listed=self.records.listed.get(binding.meta.key, ()),
            now=self.snapshot.now,
        )
        self._write(binding, status)

    def refuse(self, binding: Binding) -> None:
        """A binding whose Tunnel is not there, not served, or going."""
        self._abandon(binding)
        status = unserved_status(
            binding,
            self.snapshot.key,
            Condition("Accepted", "False", "TunnelNotFound", self._why_not()),
            listed=self.records.listed.get(binding.meta.key, ()),
            holds=self._holds(binding),
            now=self.snapshot.now,
        )
        self._write(binding, status)

    def hold(self, binding: Binding) -> None:
        """A binding of a paused Tunnel."""
        status = held_status(
            binding,
            self.snapshot.key,
            listed=self.records.listed.get(binding.meta.key, ()),
            holds=self._holds(binding),
            now=self.snapshot.now,
        )
        self._write(binding, status)

    def let_go(self, binding: Binding) -> None:
        """A binding of this Tunnel that is being deleted: let it go once nothing of it is left anywhere."""
        if not binding.meta.has_finalizer:
            return
        self._abandon(binding)
        left = self._holds(binding) or any(t != self.snapshot.key for t in binding.held_by)
        operation = None if left else remove_finalizer("TunnelBinding", binding.meta)
        if operation is not None:
            self.removed.append(operation)
            return
        status = leaving_status(
            binding,
            self.snapshot.key,
            self.records,
            self.snapshot.dns,
            listed=self.records.listed.get(binding.meta.key, ()),
            holds=self._holds(binding),
            now=self.snapshot.now,
        )
        self._write(binding, status)

    def release(self, binding: Binding) -> None:
        """A binding that wants another Tunnel now: what is left of it here goes."""
        self._abandon(binding)
        status = released_status(
            binding,
            self.snapshot.key,
            listed=self.records.listed.get(binding.meta.key, ()),
            holds=self._holds(binding),
        )
        self._write(binding, status)

    def report(self, tunnel: Tunnel, fleet: Fleet, routing: Routing) -> None:
        """The Tunnel itself."""
        if self.phase is Phase.LEAVING:
            self._let_tunnel_go(tunnel)
            return
        if self.phase is Phase.REFUSED:
            said = (
                f"Tunnels in the namespace {tunnel.meta.namespace} are not served; move it, or start the operator "
                f"with --tunnel-namespaces {tunnel.meta.namespace}."
            )
            why = Condition("Accepted", "False", "NamespaceNotAllowed", said)
            status = refused_status(tunnel, why, now=self.snapshot.now)
        else:
            operation = add_finalizer("Tunnel", tunnel.meta)
            if operation is not None:
                self.added.append(operation)
            served = [r for r in routing.bindings.values() if r.served]
            status = tunnel_status(
                self.snapshot,
                tunnel,
                self.configured.accepted,
                fleet,
                subject=self.configured.subject,
                version=self.configured.version,
                counts=Counts(len(served), len(routing.bindings) - len(served)),
                rotated=self.rotated,
            )
        self._patch("Tunnel", tunnel.meta, tunnel.status, status)

    def _let_tunnel_go(self, tunnel: Tunnel) -> None:
        key = self.snapshot.key
        records = sorted({p.name for b in self.snapshot.bindings for p in listed_by(b, key)})
        if not records:
            self._end(tunnel)
            return
        left = f"DNS records that are not confirmed gone: {', '.join(records[:5])}."
        view = self.snapshot.dns
        if view is not None and view.error is not None:
            left = f"{left} {view.error}"
        status = deleting_status(tunnel, left, now=self.snapshot.now)
        self._patch("Tunnel", tunnel.meta, tunnel.status, status)

    def _end(self, tunnel: Tunnel) -> None:
        """Nothing is left in DNS: its sessions end by a revocation, and once that is written down it may go."""
        self.waits_until = farewell_at(self.snapshot, tunnel)
        if self.waits_until is not None:
            return
        relay = relay_of(self.snapshot, tunnel) or self.snapshot.known_relay
        if relay is None and self.configured.present is not None:
            relay = self.configured.present.relay
        self.revoke = farewell(self.snapshot, tunnel, self.configured.subject, relay)
        operation = remove_finalizer("Tunnel", tunnel.meta) if self.revoke is None else None
        if operation is None:
            return
        self.removed.append(operation)
        if relay is None and "credential" in tunnel.status:
            said = (
                "The relay's CA has gone before the Tunnel, so that no relay could be told that its credentials are "
                f"void: one that was copied is accepted until it expires ({_expiry(tunnel)})."
            )
            self.events.append(Event("Tunnel", tunnel.meta.key, tunnel.meta.uid, "Warning", UNTOLD, said))

    def _why_not(self) -> str:
        key = self.snapshot.key
        if key == NOWHERE:
            return "spec.tunnelRef is missing and the operator has no default Tunnel; name one."
        said = {
            Phase.ABSENT: f"The Tunnel {key} does not exist.",
            Phase.REFUSED: f"The Tunnel {key} is not served by the operator; see its conditions.",
            Phase.LEAVING: f"The Tunnel {key} is being deleted.",
        }
        return said[self.phase]

    def _holds(self, binding: Binding) -> bool:
        """Whether something of the binding is left in this Tunnel, which then stands in its ``status.tunnels``."""
        if self._holders is None:
            self._holders = holders(
                self.snapshot.key,
                claims=self.snapshot.claims.values() if self.phase is not Phase.REFUSED else (),
                route=self.configured.present if self.phase is Phase.SERVED else None,
            )
        return bool(listed_by(binding, self.snapshot.key)) or binding.meta.key in self._holders

    def _abandon(self, binding: Binding) -> None:
        """An Event for records that are left behind, before the lists forget them."""
        left = self.records.abandoned.get(binding.meta.key, ())
        retained = self.tunnel is not None and self.tunnel.retains_records
        if left and not retained:
            names = ", ".join(sorted({f"{p.name} {p.type}" for p in left})[:20])
            said = f"Left in DNS, for nothing can delete them any more: {names}. Remove them by hand."
            meta = binding.meta
            self.events.append(Event("TunnelBinding", meta.key, meta.uid, "Warning", "RecordsLeft", said))

    def _write(self, binding: Binding, status: Raw) -> None:
        self._patch("TunnelBinding", binding.meta, binding.status, status)

    def _patch(self, kind: Literal["Tunnel", "TunnelBinding"], meta: Meta, stored: Raw, wanted: Raw) -> None:
        if any(op.kind == kind and op.key == meta.key for op in self.added):
            return  # securing the object changes its resourceVersion; its status comes in the next round
        patch = status_patch(kind, meta, stored, wanted)
        if patch is not None:
            self.statuses.append(patch)
            self.events.extend(transitions(kind, meta, stored, wanted))


def _expiry(tunnel: Tunnel) -> str:
    return text(mapping(tunnel.status.get("credential")).get("expiresAt")) or "an unknown time"
