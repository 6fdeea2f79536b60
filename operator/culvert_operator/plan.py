"""The planner: one pure function from the world around a Tunnel to what has to be done in it.

Responsible for: putting the stages in order and letting each see only what it may. Must not know: anything that a
stage knows; every rule of the domain is in the module of its noun.

Invariants: level-triggered (nothing depends on which event arrived) and idempotent (the plan of the carried-out
world is empty); everything dangerous waits for a *stored* fact, not for an operation of the same plan: routes for
claims, records for the status that lists them, finalizers for what is gone. So a plan may stop after any operation.

::

    grants ─▶ candidates ─▶ claims ─▶ references ─▶ routing ─┬─▶ document, grant ─▶ configuration
    stored claims ───────────▲                               ├─▶ records ─▶ DNS changes
    connectors' reports ─────────────────▶ programmed ───────┘─▶ statuses ─▶ events
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from culvert_operator.api.binding import Binding
from culvert_operator.api.meta import Meta, Raw
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.claims import Register
from culvert_operator.compile import name_of
from culvert_operator.conditions.condition import Condition
from culvert_operator.configuration import Configured, configure
from culvert_operator.credentials import renewal_at
from culvert_operator.dns.plan import DNSView, State
from culvert_operator.grants import read_grants
from culvert_operator.keys import NOWHERE, ObjectKey
from culvert_operator.lifecycle import (
    Phase,
    add_finalizer,
    gives_up,
    holders,
    in_terminating_namespace,
    phase_of,
    remove_finalizer,
)
from culvert_operator.programmed import Fleet, muster
from culvert_operator.records import Records, Wanted, listed_by, plan_records
from culvert_operator.relations import tunnel_of
from culvert_operator.routing import Routing, route
from culvert_operator.statuses.binding import (
    Proof,
    leaving_status,
    programmed_condition,
    read_proof,
    released_status,
    served_status,
    unserved_status,
)
from culvert_operator.statuses.patch import status_patch, transitions
from culvert_operator.statuses.tunnel import Counts, deleting_status, paused_status, refused_status, tunnel_status
from culvert_operator.upkeep import Upkeep, keep_up
from culvert_operator.withdrawal import withdrawal_at
from culvert_operator.world import Event, FinalizerOp, Plan, Snapshot, StatusPatch

BLOCKED_RECHECK_SECONDS = 60.0
"""How soon a hostname under somebody's wildcard is looked at again: its release marks no key of ours."""
DNS_RETRY_SECONDS = 30.0
"""How soon a zone is looked at again where something is not as wanted: nobody tells us when a foreign record goes."""
DNS_RECHECK_SECONDS = 300.0
"""How soon a zone is looked at again where all is in place: a person may have edited it."""


def plan(snapshot: Snapshot) -> Plan:
    """What is to be done for the Tunnel ``snapshot.key`` and its bindings; see :mod:`culvert_operator.world`."""
    if snapshot.tunnel is not None and snapshot.tunnel.meta.paused and not snapshot.tunnel.meta.deleting:
        return _paused(snapshot.tunnel, snapshot)
    phase = phase_of(snapshot.tunnel, snapshot.options)
    tunnel = snapshot.tunnel if phase is not Phase.ABSENT else None
    parts = _sort(snapshot)
    register = Register(snapshot.claims.values())
    configured = Configured.read(snapshot, tunnel)
    routing = _route(snapshot, phase, tunnel, parts, configured, register)
    records = _old_records(snapshot, phase, tunnel, routing, register)
    upkeep = Upkeep()
    if phase is Phase.SERVED and tunnel is not None and not in_terminating_namespace(snapshot):
        configured = configure(snapshot, tunnel, routing, records, configured, register)
        upkeep = keep_up(snapshot, tunnel, configured)
    fleet = muster(snapshot.reports)
    leaves_at = withdrawal_at(tunnel, fleet)
    proofs = {k: read_proof(r) for k, r in routing.bindings.items()}
    verdicts = {
        k: programmed_condition(r, proofs[k], fleet, version=configured.version) for k, r in routing.bindings.items()
    }
    if phase is Phase.SERVED:
        withdraw = leaves_at is not None and leaves_at <= snapshot.now
        records = _records(snapshot, phase, tunnel, routing, register, verdicts, withdraw=withdraw)
    scribe = _Scribe(snapshot, phase, tunnel, configured, records)
    for binding in sorted(snapshot.bindings, key=lambda b: b.meta.key):
        if binding.meta.key not in parts.mine:
            scribe.release(binding)
        elif binding.meta.deleting:
            scribe.let_go(binding)
        elif phase is Phase.SERVED:
            k = binding.meta.key
            scribe.serve(binding, routing, proofs[k], verdicts[k])
        else:
            scribe.refuse(binding)
    if tunnel is not None:
        scribe.report(tunnel, fleet, routing)
    return Plan(
        finalizers_add=tuple(scribe.added),
        claims=routing.claims,
        credential=upkeep.credential,
        apply=upkeep.apply,
        delete=upkeep.delete,
        configuration=configured.issue,
        statuses=tuple(scribe.statuses),
        dns=records.changes,
        dns_figures=records.figures,
        events=tuple(scribe.events),
        finalizers_remove=tuple(scribe.removed),
        requeue_after=_requeue(snapshot, phase, routing, configured, records, leaves_at),
    )


def _paused(tunnel: Tunnel, snapshot: Snapshot) -> Plan:
    """Nothing, but saying so: whatever is there stays there, and Pods, traffic and records with it."""
    status = paused_status(tunnel, now=snapshot.now)
    patch = status_patch("Tunnel", tunnel.meta, tunnel.status, status)
    return Plan(statuses=(patch,) if patch is not None else ())


@dataclass(frozen=True, slots=True)
class _Parts:
    """The bindings of a snapshot: those that want this Tunnel, and of them those that are to be served."""

    mine: frozenset[ObjectKey]
    active: tuple[Binding, ...]


def _sort(snapshot: Snapshot) -> _Parts:
    mine = [b for b in snapshot.bindings if tunnel_of(b, snapshot.options) == snapshot.key]
    return _Parts(frozenset(b.meta.key for b in mine), tuple(b for b in mine if not b.meta.deleting))


def _route(
    snapshot: Snapshot,
    phase: Phase,
    tunnel: Tunnel | None,
    parts: _Parts,
    configured: Configured,
    register: Register,
) -> Routing:
    listed = {p.name for b in snapshot.bindings for p in listed_by(b, snapshot.key)}
    routed: set[str] = set()
    if phase in (Phase.SERVED, Phase.REFUSED) and configured.present is not None:
        routed = {name_of(rule) for rule in configured.present.rules}
    served = phase is Phase.SERVED and tunnel is not None
    return route(
        snapshot,
        parts.active if served else (),
        read_grants(tunnel, snapshot.options) if served and tunnel is not None else None,
        register,
        in_use=lambda hostname: hostname in listed or hostname in routed,
    )


def _old_records(
    snapshot: Snapshot, phase: Phase, tunnel: Tunnel | None, routing: Routing, register: Register
) -> Records:
    """Which records of names that nobody serves any more are left: their routes have to stay."""
    served = {candidate.hostname for candidate, _ in routing.served}
    listed = {p.name for binding in snapshot.bindings for p in listed_by(binding, snapshot.key)}
    if phase is Phase.SERVED and listed <= served:
        return Records(pending=routing.staying)
    return _records(snapshot, phase, tunnel, routing, register, {})


def _records(
    snapshot: Snapshot,
    phase: Phase,
    tunnel: Tunnel | None,
    routing: Routing,
    register: Register,
    verdicts: Mapping[ObjectKey, Condition],
    *,
    withdraw: bool = False,
) -> Records:
    """The Tunnel's records; without ``verdicts`` nothing new may be published, but old records are known."""
    return plan_records(
        snapshot.key,
        tunnel,
        snapshot.dns if phase is not Phase.REFUSED else None,
        installation=snapshot.installation,
        wanted=_wanted(routing, register, verdicts),
        staying=routing.staying,
        bindings=snapshot.bindings,
        give_up=gives_up(snapshot),
        withdraw=withdraw,
    )


def _wanted(routing: Routing, register: Register, verdicts: Mapping[ObjectKey, Condition]) -> list[Wanted]:
    """Every served hostname with its record's binding: the one whose path was claimed first."""
    serving: dict[str, list[Binding]] = {}
    for routed in routing.bindings.values():
        for hostname in routed.names:
            serving.setdefault(hostname, []).append(routed.binding)
    wanted = []
    for hostname, bindings in sorted(serving.items()):
        claim = register.get(hostname)
        order = {p.binding: -i for i, p in enumerate(reversed(claim.paths))} if claim is not None else {}
        holder = min(bindings, key=lambda b: (order.get(b.meta.name, 0), b.meta.name))
        ready = any((v := verdicts.get(b.meta.key)) is not None and v.status == "True" for b in bindings)
        wanted.append(Wanted(hostname, holder, ready))
    return wanted


def _requeue(
    snapshot: Snapshot,
    phase: Phase,
    routing: Routing,
    configured: Configured,
    records: Records,
    leaves_at: float | None,
) -> float | None:
    """When to look again though nothing has changed: renewals, foreign claims, and zones that others write too."""
    waits = []
    if snapshot.dns is not None and phase in (Phase.SERVED, Phase.LEAVING):
        waits.append(DNS_RECHECK_SECONDS if _settled(snapshot.dns, records) else DNS_RETRY_SECONDS)
    if phase is Phase.SERVED:
        moments = [configured.renew_at] if configured.renew_at is not None else []
        if snapshot.credential is not None and not snapshot.credential.problem:
            moments.append(renewal_at(snapshot.credential, snapshot.options))
        moments += [leaves_at] if leaves_at is not None and leaves_at > snapshot.now else []
        waits += [max(1.0, moment - snapshot.now) for moment in moments]
        if any(r.reason == "HostnameConflict" for b in routing.bindings.values() for r in b.rejected):
            waits.append(BLOCKED_RECHECK_SECONDS)
    return min(waits, default=None)


def _settled(view: DNSView, records: Records) -> bool:
    in_place = all(v.state is State.IN_PLACE for v in records.verdicts.values())
    return view.error is None and not view.failures and not records.leaving and in_place


class _Scribe:
    """Writes down, object by object, what the stages have found."""

    def __init__(
        self, snapshot: Snapshot, phase: Phase, tunnel: Tunnel | None, configured: Configured, records: Records
    ) -> None:
        self.snapshot, self.phase, self.tunnel = snapshot, phase, tunnel
        self.configured, self.records = configured, records
        self.added: list[FinalizerOp] = []
        self.removed: list[FinalizerOp] = []
        self.statuses: list[StatusPatch] = []
        self.events: list[Event] = []
        self._holders: frozenset[ObjectKey] | None = None

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
            )
        self._patch("Tunnel", tunnel.meta, tunnel.status, status)

    def _let_tunnel_go(self, tunnel: Tunnel) -> None:
        key = self.snapshot.key
        records = sorted({p.name for b in self.snapshot.bindings for p in listed_by(b, key)})
        claims = sorted(c.hostname for c in self.snapshot.claims.values() if c.tunnel == key)
        if not records and not claims:
            operation = remove_finalizer("Tunnel", tunnel.meta)
            if operation is not None:
                self.removed.append(operation)
            return
        left = (
            f"DNS records that are not confirmed gone: {', '.join(records[:5])}."
            if records
            else (f"Hostnames that are being given up: {', '.join(claims[:5])}.")
        )
        view = self.snapshot.dns
        if records and view is not None and view.error is not None:
            left = f"{left} {view.error}"
        status = deleting_status(tunnel, left, now=self.snapshot.now)
        self._patch("Tunnel", tunnel.meta, tunnel.status, status)

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
