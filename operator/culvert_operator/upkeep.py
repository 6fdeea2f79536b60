"""Upkeep: the children of a Tunnel that have to be applied, and the credential that has to be issued.

Responsible for: comparing every child with what it should be. Must not know: what children look like.
Invariants: a child that says what it should is not applied (0 writes at rest); one that is not the Tunnel's is left
alone; the Deployment starts only when there is something to mount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_operator.api.meta import ROTATE, Raw, mapping, text, texts
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.children.access import config_map, role, role_binding, secret, service_account
from culvert_operator.children.autoscaling import KEEPER, autoscaler, hand_over
from culvert_operator.children.drift import says
from culvert_operator.children.metadata import ROTATED, at_version, digest, is_ours, with_annotation
from culvert_operator.children.workload import deployment, disruption_budget
from culvert_operator.configuration import Configured
from culvert_operator.credentials import needs_issue
from culvert_operator.keys import ChildKey
from culvert_operator.relations import child
from culvert_operator.revoking.decision import ROTATED_AT, rotated_at, until
from culvert_operator.world import Apply, ChildDelete, IssueCredential, Snapshot
from culvert_protocol.statements import LEEWAY_SECONDS


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The writes that keep a Tunnel's children as they should be."""

    credential: IssueCredential | None = None
    apply: tuple[Apply, ...] = ()
    delete: tuple[ChildDelete, ...] = ()


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
    existing = snapshot.children.get(child("Deployment", meta.name))
    scaling = tunnel.connector.autoscaling
    if configurable and (credential is not None or _usable(snapshot)):
        wanted["Deployment"] = deployment(tunnel, snapshot.options, existing)
        if scaling is not None:
            wanted["HorizontalPodAutoscaler"] = autoscaler(tunnel, scaling)
    if configured.issue is None and configured.present is not None:
        stored = mapping(snapshot.children.get(child("ConfigMap", meta.name)))
        wanted["ConfigMap"] = {**config_map(meta), "binaryData": stored.get("binaryData")}
    applied = []
    for kind, body in sorted(wanted.items(), key=lambda item: _ORDER.index(item[0])):
        key = child(kind, meta.name)
        if _due(snapshot.children, key, tunnel, body):
            fenced = at_version(body, snapshot.children.get(key))
            keeper = hand_over(existing) if kind == "Deployment" and scaling is not None else None
            if keeper is not None:
                applied.append(Apply(key, meta.namespace, keeper, KEEPER))  # the rest in the next round
            else:
                applied.append(Apply(key, meta.namespace, fenced))
    return Upkeep(credential, tuple(applied), _unwanted(snapshot, tunnel))


def _unwanted(snapshot: Snapshot, tunnel: Tunnel) -> tuple[ChildDelete, ...]:
    """An autoscaler of ours that is no longer asked for: two would be quarrelling over the number of Pods."""
    key = child("HorizontalPodAutoscaler", tunnel.meta.name)
    existing = snapshot.children.get(key)
    if tunnel.connector.autoscaling is not None or existing is None or not is_ours(existing, tunnel.meta):
        return ()
    metadata = mapping(existing.get("metadata"))
    if metadata.get("deletionTimestamp"):
        return ()
    uid, version = text(metadata.get("uid")), text(metadata.get("resourceVersion"))
    return (ChildDelete(key, tunnel.meta.namespace, uid, version),)


_ORDER = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "PodDisruptionBudget",
    "Deployment",
    "HorizontalPodAutoscaler",
)


def _due(children: Mapping[ChildKey, Raw], key: ChildKey, tunnel: Tunnel, body: Raw) -> bool:
    existing = children.get(key)
    return existing is None or (is_ours(existing, tunnel.meta) and not says(body, existing))


def _usable(snapshot: Snapshot) -> bool:
    return snapshot.credential is not None and not snapshot.credential.problem


def _rotation_is_due(template: Raw, existing: Raw | None) -> bool:
    """Whether a person asked for a new credential since the present one was issued."""
    wanted = texts(mapping(template.get("metadata")).get("annotations")).get(ROTATED)
    held = texts(mapping((existing or {}).get("metadata")).get("annotations")).get(ROTATED)
    return wanted is not None and wanted != held


def _credential(snapshot: Snapshot, tunnel: Tunnel, subject: str) -> IssueCredential | None:
    key = child("Secret", tunnel.meta.name)
    existing = snapshot.children.get(key)
    if existing is not None and not is_ours(existing, tunnel.meta):
        return None
    now = _issue_time(snapshot)
    template: Raw = secret(tunnel.meta)
    if asked := tunnel.meta.annotations.get(ROTATE, ""):
        template = with_annotation(template, ROTATED, digest({ROTATE: asked}))
    rotates = _rotation_is_due(template, existing)
    # A Tunnel that never had a credential has none to revoke.
    since = now if rotates and (existing is not None or "credential" in tunnel.status) else rotated_at(existing)
    if since and snapshot.now < until(since, snapshot.options):
        template = with_annotation(template, ROTATED_AT, str(since))
    due = rotates or needs_issue(
        snapshot.credential if existing is not None else None,
        wanted_subject=subject,
        issuer=snapshot.issuer.thumbprint,
        options=snapshot.options,
        now=snapshot.now,
    )
    # An edited Secret is written whole: its private part is not known here, and applying without it would drop it.
    if not due and existing is not None and says(template, existing):
        return None
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


def _issue_time(snapshot: Snapshot) -> int:
    """Now, but later than the credential that is replaced and not before what was revoked: both count whole seconds.

    Not further ahead than relays let clocks differ: after a clock that was wrong the present time is the better one.
    """
    now, held, revoked = int(snapshot.now), snapshot.credential, snapshot.revocation
    after = held.issued_at + 1 if held is not None and not held.problem else 0
    wanted = max(now, after, revoked.not_before if revoked is not None else 0)
    return wanted if wanted <= now + LEEWAY_SECONDS else now
