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

from culvert_operator.api.binding import Binding
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.candidates import CONFLICTS
from culvert_operator.compile import relay_of
from culvert_operator.conditions.condition import Condition
from culvert_operator.configuration import Configured, configure
from culvert_operator.credentials import renewal_at
from culvert_operator.dns.plan import DNSView, State
from culvert_operator.grants import read_grants
from culvert_operator.keys import ObjectKey
from culvert_operator.lifecycle import (
    Phase,
    gives_up,
    in_terminating_namespace,
    phase_of,
)
from culvert_operator.pause import hold
from culvert_operator.programmed import muster
from culvert_operator.records import Records, Wanted, listed_by, plan_records
from culvert_operator.register import Register
from culvert_operator.relations import tunnel_of
from culvert_operator.revoking.decision import after_rotation, lingers, lingers_until, rotation
from culvert_operator.routing import Routing, observed, route
from culvert_operator.scribe import Scribe
from culvert_operator.statuses.binding import (
    programmed_condition,
    read_proof,
)
from culvert_operator.succession import Succession, in_use_of
from culvert_operator.unseen import unseen
from culvert_operator.upkeep import Upkeep, keep_up
from culvert_operator.withdrawal import withdrawal_at
from culvert_operator.world import Plan, Snapshot

BLOCKED_RECHECK_SECONDS = 60.0
"""How soon a hostname under somebody's wildcard is looked at again: its release marks no key of ours."""
DNS_RETRY_SECONDS = 30.0
"""How soon a zone is looked at again where something is not as wanted: nobody tells us when a foreign record goes."""
DNS_RECHECK_SECONDS = 300.0
"""How soon a zone is looked at again where all is in place: a person may have edited it."""


def plan(snapshot: Snapshot) -> Plan:
    """What is to be done for the Tunnel ``snapshot.key`` and its bindings; see :mod:`culvert_operator.world`."""
    if not snapshot.options.watches(snapshot.key.namespace):
        return unseen(snapshot)
    phase = phase_of(snapshot.tunnel, snapshot.options)
    if snapshot.tunnel is not None and snapshot.tunnel.meta.paused and phase is Phase.SERVED:
        return hold(snapshot, snapshot.tunnel)
    tunnel = snapshot.tunnel if phase is not Phase.ABSENT else None
    parts = _sort(snapshot)
    register = Register(snapshot.claims.values())
    configured = Configured.read(snapshot, tunnel)
    succession = _succession(snapshot, phase, configured)
    routing = _route(snapshot, phase, tunnel, parts, configured, register, succession)
    records = _old_records(snapshot, phase, tunnel, routing, register, succession)
    upkeep, rotated, revoke = Upkeep(), None, None
    if phase is Phase.SERVED and tunnel is not None and not in_terminating_namespace(snapshot):
        configured = configure(snapshot, tunnel, routing, records, configured, register)
        upkeep = keep_up(snapshot, tunnel, configured)
        rotated = rotation(snapshot, tunnel)
        revoke = after_rotation(snapshot, tunnel, configured.subject, rotated, relay_of(snapshot, tunnel))
    fleet = muster(snapshot.reports, snapshot.unheard)
    routing = observed(routing, fleet.refused_origins)
    leaves_at = withdrawal_at(tunnel, fleet)
    proofs = {k: read_proof(r, version=configured.version) for k, r in routing.bindings.items()}
    taking = frozenset(c.hostname for c in register if c.tunnel == snapshot.key and c.former is not None)
    verdicts = {
        k: programmed_condition(r, proofs[k], fleet, version=configured.version, taking=taking)
        for k, r in routing.bindings.items()
    }
    if phase is Phase.SERVED:
        withdraw = leaves_at is not None and leaves_at <= snapshot.now
        records = _records(snapshot, phase, tunnel, routing, register, succession, verdicts, withdraw=withdraw)
    scribe = Scribe(snapshot, phase, tunnel, configured, records, rotated)
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
        revocation=revoke or scribe.revoke,
        credential=upkeep.credential,
        apply=upkeep.apply,
        delete=upkeep.delete,
        configuration=configured.issue,
        statuses=tuple(scribe.statuses),
        dns=records.changes,
        dns_figures=records.figures,
        events=tuple(scribe.events),
        finalizers_remove=tuple(scribe.removed),
        requeue_after=_requeue(
            snapshot, phase, routing, configured, records, leaves_at, scribe.waits_until, succession.until(register)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The bindings of a snapshot: those that want this Tunnel, and of them those that are to be served."""

    mine: frozenset[ObjectKey]
    active: tuple[Binding, ...]


def _sort(snapshot: Snapshot) -> _Parts:
    mine = [b for b in snapshot.bindings if tunnel_of(b, snapshot.options) == snapshot.key]
    return _Parts(frozenset(b.meta.key for b in mine), tuple(b for b in mine if not b.meta.deleting))


def _succession(snapshot: Snapshot, phase: Phase, configured: Configured) -> Succession:
    routes = configured.present if phase in (Phase.SERVED, Phase.REFUSED) else None
    return Succession(snapshot, phase is Phase.SERVED, configured.present, in_use_of(snapshot, routes))


def _route(
    snapshot: Snapshot,
    phase: Phase,
    tunnel: Tunnel | None,
    parts: _Parts,
    configured: Configured,
    register: Register,
    succession: Succession,
) -> Routing:
    served = phase is Phase.SERVED and tunnel is not None
    return route(
        snapshot,
        parts.active if served else (),
        read_grants(tunnel, snapshot.options) if served and tunnel is not None else None,
        register,
        succession=succession,
        lingers=lingers(snapshot),
        schema=configured.schema,
    )


def _old_records(
    snapshot: Snapshot,
    phase: Phase,
    tunnel: Tunnel | None,
    routing: Routing,
    register: Register,
    succession: Succession,
) -> Records:
    """Which records of names that nobody serves any more are left: their routes have to stay."""
    served = {candidate.hostname for candidate, _ in routing.served}
    listed = {p.name for binding in snapshot.bindings for p in listed_by(binding, snapshot.key)}
    if phase is Phase.SERVED and listed <= served:
        return Records(pending=routing.staying)
    return _records(snapshot, phase, tunnel, routing, register, succession, {})


def _records(
    snapshot: Snapshot,
    phase: Phase,
    tunnel: Tunnel | None,
    routing: Routing,
    register: Register,
    succession: Succession,
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
        handed_on=frozenset(succession.handed_on(register)),
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
    *others: float | None,
) -> float | None:
    """When to look again though nothing has changed: renewals, foreign claims, and zones that others write too."""
    waits = [max(0.0, at - snapshot.now) for at in (*others, lingers_until(snapshot)) if at is not None]
    if snapshot.dns is not None and phase in (Phase.SERVED, Phase.LEAVING):
        waits.append(DNS_RECHECK_SECONDS if _settled(snapshot.dns, records) else DNS_RETRY_SECONDS)
    if phase is Phase.SERVED:
        moments = [configured.renew_at] if configured.renew_at is not None else []
        if snapshot.credential is not None and not snapshot.credential.problem:
            moments.append(renewal_at(snapshot.credential, snapshot.options))
        moments += [leaves_at] if leaves_at is not None and leaves_at > snapshot.now else []
        waits += [max(1.0, moment - snapshot.now) for moment in moments]
        if any(r.reason in CONFLICTS for b in routing.bindings.values() for r in b.rejected):
            waits.append(BLOCKED_RECHECK_SECONDS)
    return min(waits, default=None)


def _settled(view: DNSView, records: Records) -> bool:
    in_place = all(v.state is State.IN_PLACE for v in records.verdicts.values())
    return view.error is None and not view.failures and not records.leaving and in_place
