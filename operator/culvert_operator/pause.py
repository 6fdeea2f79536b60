"""Pausing: a Tunnel that a person has paused stays as it is, but for what leaves it.

Responsible for: the plan of a paused Tunnel. Bindings that are deleted, or that name another Tunnel by now, leave it
in the usual order (records, routes, claims, finalizer); nothing else of it is written but that it is paused.
Must not know: how any of that is done. Invariant: a rule of a binding that stays is what it was, whatever its object
says by now; nothing is claimed, and a name that a binding gives up goes to nobody of this Tunnel before it is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from culvert_ingress.document import Document
from culvert_ingress.rules import Rule
from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Keeps
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.claims import let_go
from culvert_operator.compile import name_of
from culvert_operator.configuration import Configured, reduce
from culvert_operator.keys import ObjectKey
from culvert_operator.lifecycle import Phase, gives_up
from culvert_operator.records import Records, Wanted, listed_by, plan_records
from culvert_operator.register import Register
from culvert_operator.relations import tunnel_of
from culvert_operator.scribe import Scribe
from culvert_operator.statuses.patch import status_patch
from culvert_operator.statuses.tunnel import paused_status
from culvert_operator.succession import Succession, in_use_of
from culvert_operator.world import Plan, Snapshot

RETRY_SECONDS = 30.0
"""How soon it is looked at again whether records of what leaves are gone."""


def hold(snapshot: Snapshot, tunnel: Tunnel) -> Plan:
    """The plan of a Tunnel that is served and paused."""
    leaving = frozenset(b.meta.key for b in snapshot.bindings if _leaves(b, snapshot))
    configured = Configured.read(snapshot, tunnel)
    register = Register(snapshot.claims.values())
    succession = Succession(snapshot, True, configured.present, in_use_of(snapshot, configured.present))
    stays = _Stays(snapshot, leaving, configured.present, register)
    claims, handed_over = let_go(snapshot.key, leaving, stays.wants, register, succession=succession, now=snapshot.now)
    records = Records(listed={b.meta.key: listed_by(b, snapshot.key) for b in snapshot.bindings})
    if leaving:
        kept = succession.kept(register)
        records = _records(snapshot, tunnel, stays, succession, frozenset(kept) | handed_over)
        passed = frozenset(name for name, keeps in kept.items() if keeps is Keeps.ROUTE)
        configured = reduce(snapshot, tunnel, configured, tuple(stays.rules(records.pending, passed)))
    scribe = Scribe(snapshot, Phase.SERVED, tunnel, configured, records, None)
    for binding in sorted(snapshot.bindings, key=lambda b: b.meta.key):
        if binding.meta.deleting:
            scribe.let_go(binding)
        elif binding.meta.key in leaving:
            scribe.release(binding)
        else:
            scribe.hold(binding)
    told = status_patch("Tunnel", tunnel.meta, tunnel.status, paused_status(tunnel, now=snapshot.now))
    return Plan(
        claims=claims,
        configuration=configured.issue,
        statuses=(*scribe.statuses, *([told] if told is not None else ())),
        dns=records.changes,
        dns_figures=records.figures,
        events=tuple(scribe.events),
        finalizers_remove=tuple(scribe.removed),
        requeue_after=RETRY_SECONDS if leaving else None,
    )


def _leaves(binding: Binding, snapshot: Snapshot) -> bool:
    return binding.meta.deleting or tunnel_of(binding, snapshot.options) != snapshot.key


@dataclass(frozen=True, slots=True)
class _Stays:
    """What stays of a paused Tunnel when the bindings ``leaving`` have left it."""

    snapshot: Snapshot
    leaving: frozenset[ObjectKey]
    present: Document | None
    register: Register

    def wants(self, hostname: str, namespace: str) -> bool:
        """Whether a binding of a namespace that stays serves a hostname."""
        return any(owner.namespace == namespace for owner in self.owners(hostname))

    def owners(self, hostname: str) -> list[ObjectKey]:
        """The bindings that stay and whose rules serve a hostname."""
        rules = self.present.rules if self.present is not None else ()
        found = {_owner(rule) for rule in rules if name_of(rule) == hostname}
        return sorted(found - self.leaving)

    def rules(self, pending: frozenset[str], passed: frozenset[str]) -> Iterator[Rule]:
        """The rules that stay; of those that leave the ones whose hostname still has to be answered for: its record is
        ``pending``, or it is ``passed`` to a Tunnel that is not ready."""
        rules = self.present.rules if self.present is not None else ()
        served = {name_of(rule) for rule in rules if _owner(rule) not in self.leaving}
        for rule in rules:
            name = name_of(rule)
            claim = self.register.get(name)
            has = claim is not None and claim.tunnel == self.snapshot.key
            needed = name in passed or (has and name in pending)
            if _owner(rule) not in self.leaving or (needed and name not in served):
                yield rule


def _owner(rule: Rule) -> ObjectKey:
    namespace, _, rest = rule.id.partition("/")
    return ObjectKey(namespace, rest.partition("/")[0])


def _records(
    snapshot: Snapshot, tunnel: Tunnel, stays: _Stays, succession: Succession, kept: frozenset[str]
) -> Records:
    """The records of what leaves: those of names that others of the same hostname still serve become theirs."""
    by_key = {b.meta.key: b for b in snapshot.bindings}
    theirs = {p.name for k in stays.leaving for p in listed_by(by_key[k], snapshot.key)}
    listed = {p.name for b in snapshot.bindings for p in listed_by(b, snapshot.key)}
    wanted = [
        Wanted(name, by_key[owner], False)
        for name in sorted(theirs)
        for owner in stays.owners(name)[:1]
        if owner in by_key
    ]
    return plan_records(
        snapshot.key,
        tunnel,
        snapshot.dns,
        installation=snapshot.installation,
        wanted=wanted,
        staying=(listed - theirs) | kept,
        bindings=snapshot.bindings,
        handed_on=frozenset(succession.handed_on(stays.register)),
        give_up=gives_up(snapshot),
    )
