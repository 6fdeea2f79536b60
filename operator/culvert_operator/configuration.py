"""The configuration of a Tunnel: what is in its ConfigMap, what should be, and whether a new one is issued.

Responsible for: the decision, and the condition Accepted of the Tunnel that comes with it. Must not know: signing.
Invariant: a problem of the Tunnel keeps what it is about as it was last in force (a missing CA and a key that a
connector cannot read: what the Tunnel itself says; too many rules: all of it); rules still come and leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from culvert_ingress.document import SCHEMAS, Document
from culvert_ingress.rules import Rule
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.children.access import config_map
from culvert_operator.children.metadata import at_version, is_ours
from culvert_operator.compile import (
    TunnelProblem,
    document,
    frame,
    grant_names,
    granted_until,
    is_current,
    name_of,
    next_version,
    present_document,
    present_grant,
    relay_target,
    retained_rules,
    served_rules,
    too_large,
)
from culvert_operator.conditions.condition import Condition
from culvert_operator.credentials import subject
from culvert_operator.earlier import TOO_OLD, Fitted, fit
from culvert_operator.grants import read_grants
from culvert_operator.records import Records
from culvert_operator.register import Register
from culvert_operator.relations import child
from culvert_operator.routing import Routing
from culvert_operator.world import GrantName, IssueConfiguration, Snapshot

ACCEPTED = Condition("Accepted", "True", "Accepted", "The Tunnel is served.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """The configuration as it is and as it will be.

    ``present`` is the stored document; ``version`` the one that holds the present rules once it is applied (None
    while none can be written); ``renew_at`` when its grant is due (epoch seconds). ``fitted`` is what the Tunnel
    itself says, as its connectors can read it; None while it cannot say it and nothing is stored. ``problem``: why not
    all of it is in force.
    """

    present: Document | None
    subject: str
    issue: IssueConfiguration | None = None
    version: int | None = None
    renew_at: float | None = None
    accepted: Condition = ACCEPTED
    fitted: Fitted | None = None
    problem: TunnelProblem | None = None

    @property
    def schema(self) -> int:
        """The schema to which rules are compiled."""
        return self.fitted.schema if self.fitted is not None else SCHEMAS[-1]

    @classmethod
    def read(cls, snapshot: Snapshot, tunnel: Tunnel | None) -> Configured:
        """What is stored. A ConfigMap that is not the Tunnel's says nothing."""
        found = snapshot.children.get(child("ConfigMap", snapshot.key.name)) if tunnel is not None else None
        ours = found if found is not None and tunnel is not None and is_ours(found, tunnel.meta) else None
        present = present_document(ours)
        fitted, problem = _fitted(snapshot, tunnel, present) if tunnel is not None else (None, None)
        return cls(
            present=present, subject=subject(snapshot.installation, snapshot.key), fitted=fitted, problem=problem
        )


def _fitted(snapshot: Snapshot, tunnel: Tunnel, present: Document | None) -> tuple[Fitted | None, TunnelProblem | None]:
    relay = relay_target(tunnel, snapshot.config_maps)
    problem = relay if isinstance(relay, TunnelProblem) else None
    if isinstance(relay, TunnelProblem):
        if present is None:
            return None, problem
        relay = present.relay
    fitted = fit(frame(tunnel, relay), snapshot.reports, present)
    if problem is None and fitted.complaint:
        problem = TunnelProblem(TOO_OLD, fitted.complaint)
    return fitted, problem


def configure(
    snapshot: Snapshot, tunnel: Tunnel, routing: Routing, records: Records, stored: Configured, register: Register
) -> Configured:
    """Decide about a new configuration for a Tunnel that is served. ``register``: the snapshot's claims."""
    present, problem = stored.present, stored.problem
    if stored.fitted is None:
        return replace(stored, accepted=_problem(problem)) if problem is not None else stored
    content, names = _content(stored.fitted, snapshot, routing, records, present, register)
    current = is_current(
        present,
        content,
        names,
        subject=stored.subject,
        issuer=snapshot.issuer,
        options=snapshot.options,
        now=snapshot.now,
    )
    if current and present is not None:
        renew = granted_until(present, snapshot.options)
        accepted = _problem(problem) if problem else _accepted(snapshot, tunnel)
        return replace(stored, version=present.version, renew_at=renew, accepted=accepted)
    beyond = too_large(content, names)
    if beyond is not None:
        return replace(stored, accepted=_problem(beyond))
    key = child("ConfigMap", tunnel.meta.name)
    existing = snapshot.children.get(key)
    accepted = _problem(problem) if problem else _accepted(snapshot, tunnel)
    if existing is not None and not is_ours(existing, tunnel.meta):
        return replace(stored, accepted=accepted)
    version = next_version(present, tunnel, snapshot.now)
    now = int(snapshot.now)
    issue = IssueConfiguration(
        child=key,
        namespace=tunnel.meta.namespace,
        template=at_version(config_map(tunnel.meta), existing),
        document=replace(content, version=version),
        subject=stored.subject,
        names=names,
        issued_at=now,
        expires_at=now + snapshot.options.credential_lifetime_seconds,
    )
    return replace(stored, issue=issue, version=version, accepted=accepted)


def reduce(snapshot: Snapshot, tunnel: Tunnel, stored: Configured, rules: tuple[Rule, ...]) -> Configured:
    """A new configuration with ``rules`` alone, of those that are stored: everything else in it stays as it is."""
    present, key = stored.present, child("ConfigMap", tunnel.meta.name)
    if present is None or rules == present.rules:
        return stored
    content = replace(present, version=0, grant="", rules=rules)
    names = grant_names(content, snapshot.claims, snapshot.key, _with_present({}, (), present))
    version = next_version(present, tunnel, snapshot.now)
    issue = IssueConfiguration(
        child=key,
        namespace=tunnel.meta.namespace,
        template=at_version(config_map(tunnel.meta), snapshot.children.get(key)),
        document=replace(content, version=version),
        subject=stored.subject,
        names=names,
        issued_at=int(snapshot.now),
        expires_at=int(snapshot.now) + snapshot.options.credential_lifetime_seconds,
    )
    return replace(stored, issue=issue, version=version)


def _content(
    fitted: Fitted,
    snapshot: Snapshot,
    routing: Routing,
    records: Records,
    present: Document | None,
    register: Register,
) -> tuple[Document, tuple[GrantName, ...]]:
    def keep(hostname: str) -> bool:
        if hostname in routing.passed:
            return True
        claim = register.get(hostname)
        return hostname in records.pending and claim is not None and claim.tunnel == snapshot.key

    served = served_rules(routing.served, schema=fitted.schema)
    # Connectors repeat revocations to every relay, so that one which forgot over a restart hears of them again.
    retained = retained_rules(present, served, keep, schema=fitted.schema)
    content = document(fitted.frame, served, retained, revocations=snapshot.repeated)
    sources = {candidate.hostname: candidate.sources for candidate, _ in routing.served if candidate.sources}
    return content, grant_names(content, snapshot.claims, snapshot.key, _with_present(sources, served, present))


def _with_present(
    sources: dict[str, tuple[str, ...]], served: Sequence[Rule], present: Document | None
) -> dict[str, tuple[str, ...]]:
    """``sources``, and those that were granted before to names that are only kept until their records are gone."""
    grant = present_grant(present) if present is not None else None
    if grant is None:
        return sources
    names = {name_of(rule) for rule in served}
    before = {n.hostname: n.allowed_sources for n in (*grant.names, *grant.tls_names) if n.allowed_sources}
    return {**{name: found for name, found in before.items() if name not in names}, **sources}


def _accepted(snapshot: Snapshot, tunnel: Tunnel) -> Condition:
    beyond = read_grants(tunnel, snapshot.options).beyond_limits
    if not beyond:
        return ACCEPTED
    said = f"The Tunnel is served, but --allowed-hostnames does not cover: {', '.join(beyond[:10])}."
    return replace(ACCEPTED, message=said)


def _problem(problem: TunnelProblem) -> Condition:
    return Condition("Accepted", "False", problem.reason, problem.message)
