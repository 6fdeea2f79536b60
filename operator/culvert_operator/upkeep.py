"""Upkeep: the children of a Tunnel that have to be applied, and the credential that has to be issued.

Responsible for: comparing every child with what it should be. Must not know: what children look like.
Invariants: a child that says what it should is not applied (0 writes at rest); one that is not the Tunnel's is left
alone; the Deployment starts only when there is something to mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_operator.api.meta import Raw, mapping
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.children.access import config_map, role, role_binding, secret, service_account
from culvert_operator.children.drift import says
from culvert_operator.children.metadata import at_version, is_ours
from culvert_operator.children.workload import deployment, disruption_budget
from culvert_operator.configuration import Configured
from culvert_operator.credentials import needs_issue
from culvert_operator.keys import ChildKey
from culvert_operator.relations import child
from culvert_operator.world import Apply, IssueCredential, Snapshot


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The writes that keep a Tunnel's children as they should be."""

    credential: IssueCredential | None = None
    apply: tuple[Apply, ...] = ()


def keep_up(snapshot: Snapshot, tunnel: Tunnel, configured: Configured) -> Upkeep:
    """The upkeep of a Tunnel that is served."""
    credential = _credential(snapshot, tunnel, configured.subject)
    meta = tunnel.meta
    wanted: dict[str, Raw] = {
        "ServiceAccount": service_account(meta),
        "Role": role(meta),
        "RoleBinding": role_binding(meta),
        "PodDisruptionBudget": disruption_budget(tunnel),
    }
    configurable = configured.issue is not None or configured.present is not None
    if configurable and (credential is not None or _usable(snapshot)):
        wanted["Deployment"] = deployment(tunnel, snapshot.options)
    if configured.issue is None and configured.present is not None:
        stored = mapping(snapshot.children.get(child("ConfigMap", meta.name)))
        wanted["ConfigMap"] = {**config_map(meta), "binaryData": stored.get("binaryData")}
    applied = []
    for kind, body in sorted(wanted.items(), key=lambda item: _ORDER.index(item[0])):
        key = child(kind, meta.name)
        if _due(snapshot.children, key, tunnel, body):
            fenced = at_version(body, snapshot.children.get(key))
            applied.append(Apply(key, meta.namespace, fenced))
    return Upkeep(credential, tuple(applied))


_ORDER = ("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "PodDisruptionBudget", "Deployment")


def _due(children: Mapping[ChildKey, Raw], key: ChildKey, tunnel: Tunnel, body: Raw) -> bool:
    existing = children.get(key)
    return existing is None or (is_ours(existing, tunnel.meta) and not says(body, existing))


def _usable(snapshot: Snapshot) -> bool:
    return snapshot.credential is not None and not snapshot.credential.problem


def _credential(snapshot: Snapshot, tunnel: Tunnel, subject: str) -> IssueCredential | None:
    key, template = child("Secret", tunnel.meta.name), secret(tunnel.meta)
    existing = snapshot.children.get(key)
    if existing is not None and not is_ours(existing, tunnel.meta):
        return None
    due = needs_issue(
        snapshot.credential if existing is not None else None,
        wanted_subject=subject,
        issuer=snapshot.issuer.thumbprint,
        options=snapshot.options,
        now=snapshot.now,
    )
    # An edited Secret is written whole: its private part is not known here, and applying without it would drop it.
    if not due and existing is not None and says(template, existing):
        return None
    now = int(snapshot.now)
    return IssueCredential(
        child=key,
        namespace=tunnel.meta.namespace,
        template=at_version(template, existing),
        tunnel=str(tunnel.meta.key),
        subject=subject,
        issued_at=now,
        not_before=now,
        expires_at=now + snapshot.options.credential_lifetime_seconds,
    )
