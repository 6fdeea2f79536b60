"""The status of a Tunnel.

Responsible for: its conditions and counts from children, credential and reports. Must not know: rules, DNS.
Invariant: conditions are set at first sight, and nothing in the status changes while nothing changes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from culvert_operator.api.meta import PAUSED, Raw, integer, mapping, sequence
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.children.metadata import conflict, is_ours
from culvert_operator.conditions.condition import Condition, Status, by_type, merge, moment
from culvert_operator.keys import ChildKey
from culvert_operator.programmed import Fleet
from culvert_operator.relations import child
from culvert_operator.revoking.decision import Rotation
from culvert_operator.world import Snapshot

_RELAY_REASONS = ("CertificateError", "RelayRefused", "RelayUnreachable")
"""Reasons of relay errors, the most telling first; any other counts as RelayUnreachable."""

_WAY = ("Accepted", "CredentialsReady", "ConnectorsAvailable", "Connected")


@dataclass(frozen=True, slots=True)
class Counts:
    """How many bindings the Tunnel serves and refuses."""

    accepted: int
    rejected: int


def refused_status(tunnel: Tunnel, why: Condition, *, now: float) -> Raw:
    """The status of a Tunnel that the operator does not serve: what was found while it was served stays told."""
    stored = tunnel.status if tunnel.meta.paused else _unpaused(tunnel.status)
    said = "Nothing is done for a Tunnel that is not served; see Accepted."
    conditions = [why, *_unknown(tunnel, said, (why.type,))]
    conditions.append(Condition("Ready", "False", why.reason, f"Accepted: {why.message}"))
    merged = merge(stored, conditions, generation=tunnel.meta.generation, now=now)
    order = {kind: place for place, kind in enumerate((*_WAY, "Ready"))}
    merged.sort(key=lambda condition: order.get(condition["type"], len(order)))
    return {**tunnel.status, "observedGeneration": tunnel.meta.generation, "conditions": merged}


def _unknown(tunnel: Tunnel, said: str, known: Collection[str]) -> list[Condition]:
    """Conditions that nobody has looked for yet: each is there from first sight on."""
    told = by_type(tunnel.status).keys() | known
    return [Condition(kind, "Unknown", "Pending", said) for kind in _WAY if kind not in told]


def paused_status(tunnel: Tunnel, *, now: float) -> Raw:
    """The status of a Tunnel that a person has paused: what was found stays told, as of when it was found."""
    if "Paused" in by_type(tunnel.status):
        return tunnel.status
    said = f"The annotation {PAUSED} is set: nothing of this Tunnel is changed until it is removed."
    first = _unknown(tunnel, said, ())
    if not by_type(tunnel.status):
        first.append(Condition("Ready", "Unknown", "Paused", said))
    first.append(Condition("Paused", "True", "Paused", said))
    told = merge({}, first, generation=tunnel.meta.generation, now=now)
    return {**tunnel.status, "conditions": [*sequence(tunnel.status.get("conditions")), *told]}


def _unpaused(status: Raw) -> Raw:
    kept = [c for c in sequence(status.get("conditions")) if mapping(c).get("type") != "Paused"]
    return {**status, "conditions": kept}


def deleting_status(tunnel: Tunnel, left: str, *, now: float) -> Raw:
    """The status of a Tunnel that is being deleted; ``left`` says what is still in the way."""
    condition = Condition("Ready", "False", "Deleting", left)
    merged = merge(tunnel.status, [condition], generation=tunnel.meta.generation, now=now)
    return {**tunnel.status, "conditions": merged}


def tunnel_status(
    snapshot: Snapshot,
    tunnel: Tunnel,
    accepted: Condition,
    fleet: Fleet,
    *,
    subject: str,
    version: int | None,
    counts: Counts,
    rotated: Rotation | None = None,
) -> Raw:
    """The status of a Tunnel that is served."""
    deployment = snapshot.children.get(child("Deployment", tunnel.meta.name))
    ready = integer(mapping((deployment or {}).get("status")).get("readyReplicas"))
    total = tunnel.connector.replicas
    if tunnel.connector.autoscaling is not None:
        total = integer(mapping((deployment or {}).get("spec")).get("replicas"), tunnel.connector.autoscaling.least)
    issued = _credentials(snapshot, tunnel, rotated)
    conditions = [accepted, issued, _available(snapshot, tunnel, deployment)]
    conditions.append(_connected(fleet, tunnel.status))
    conditions.append(_ready(conditions))
    status: dict[str, Any] = {
        "observedGeneration": tunnel.meta.generation,
        "id": subject,
        "connectors": {
            "ready": ready,
            "total": total,
            "text": f"{ready}/{total}",
        },
        "sessions": integer(tunnel.status.get("sessions")) if fleet.unreachable or fleet.unheard else fleet.sessions,
        "bindings": {"accepted": counts.accepted, "rejected": counts.rejected},
        "conditions": merge(_unpaused(tunnel.status), conditions, generation=tunnel.meta.generation, now=snapshot.now),
    }
    # Kept when none can be written: versions only grow, and the ConfigMap may be lost.
    if version is not None or "configVersion" in tunnel.status:
        status["configVersion"] = version if version is not None else tunnel.status["configVersion"]
    credential = snapshot.credential
    if credential is not None and not credential.problem:
        status["credential"] = {
            "keyId": credential.key_id,
            "renewedAt": moment(credential.issued_at),
            "expiresAt": moment(credential.expires_at),
        }
    return status


def _foreign(snapshot: Snapshot, tunnel: Tunnel, key: ChildKey) -> bool:
    existing = snapshot.children.get(key)
    return existing is not None and not is_ours(existing, tunnel.meta)


def _credentials(snapshot: Snapshot, tunnel: Tunnel, rotated: Rotation | None) -> Condition:
    key = child("Secret", tunnel.meta.name)
    if _foreign(snapshot, tunnel, key):
        said = conflict(key, tunnel.meta.namespace)
        return Condition("CredentialsReady", "False", "SecretConflict", said)
    if key in snapshot.failures:
        return Condition("CredentialsReady", "False", "WriteRefused", snapshot.failures[key])
    state = snapshot.credential
    if state is None or state.problem:
        said = state.problem if state else "The credential is being issued."
        return Condition("CredentialsReady", "False", "Pending", said)
    if snapshot.now >= state.expires_at:
        return Condition("CredentialsReady", "False", "Pending", "The credential has expired and is being renewed.")
    return _revoking(snapshot, rotated) or Condition(
        "CredentialsReady", "True", "Issued", "The credential is valid and renewed daily."
    )


def _revoking(snapshot: Snapshot, rotated: Rotation | None) -> Condition | None:
    """What a rotation waits for, or which relays have not heard that older credentials are void; no passing counts."""
    if rotated is not None and rotated.waits_for:
        names = ", ".join(rotated.waits_for[:5]) + (" …" if len(rotated.waits_for) > 5 else "")
        said = (
            f"The credential is valid. The one before is not revoked yet: not all sessions of {names} use the new one, "
            "or the operator cannot ask; delete a Pod to go on without it."
        )
        return Condition("CredentialsReady", "True", "RotationPending", said)
    stored = snapshot.revocation
    if stored is not None and stored.untold:
        said = (
            "The credential is valid. Not told that older ones are void, and told again and again: "
            f"{', '.join(stored.untold[:5])}; the operator's log says why."
        )
        return Condition("CredentialsReady", "True", "RevocationPending", said)
    return None


def _available(snapshot: Snapshot, tunnel: Tunnel, deployment: Raw | None) -> Condition:
    name, secret = "ConnectorsAvailable", child("Secret", tunnel.meta.name)
    for key in sorted(snapshot.children):
        if key != secret and _foreign(snapshot, tunnel, key):
            return Condition(name, "False", "ChildConflict", conflict(key, tunnel.meta.namespace))
    for key, sentence in sorted(snapshot.failures.items()):
        if key != secret:
            return Condition(name, "False", "WriteRefused", f"{key}: {sentence}")
    status = mapping((deployment or {}).get("status"))
    if integer(status.get("availableReplicas")) > 0:
        return Condition(name, "True", "Available", "Connectors are available.")
    if deployment is None or not status.get("observedGeneration"):
        return Condition(name, "Unknown", "Pending", "The Deployment has not reported yet.")
    if tunnel.connector.replicas == 0 and tunnel.connector.autoscaling is None:
        return Condition(name, "False", "Unavailable", "spec.connector.replicas is 0; raise it to carry traffic.")
    return Condition(name, "False", "Unavailable", "No connector Pod is available; describe the Deployment's Pods.")


def _connected(fleet: Fleet, status: Raw) -> Condition:
    if any(s.serving for report in fleet.reported for s in report.sessions):
        return Condition("Connected", "True", "Connected", "Connectors hold sessions that carry data.")
    stored = by_type(status).get("Connected")
    if fleet.unheard and stored is not None:
        return Condition("Connected", stored["status"], stored["reason"], stored["message"])
    if fleet.unreachable:
        said = "No connector answers the operator (port 20241 of its Pods); traffic does not depend on it."
        return Condition("Connected", "Unknown", "Unreachable", said)
    errors = [e for report in fleet.reported for e in report.errors]
    if not errors:
        return Condition("Connected", "False", "Pending", "No connector has a session yet.")
    ranked = sorted(errors, key=lambda e: (_rank(e.reason), e.address, e.message))
    worst = ranked[0]
    reason = worst.reason if worst.reason in _RELAY_REASONS else "RelayUnreachable"
    return Condition("Connected", "False", reason, f"{worst.address}: {worst.message}")


def _rank(reason: str) -> int:
    return _RELAY_REASONS.index(reason) if reason in _RELAY_REASONS else len(_RELAY_REASONS)


def _ready(conditions: list[Condition]) -> Condition:
    for condition in conditions:
        if condition.status != "True":
            status: Status = "Unknown" if condition.status == "Unknown" else "False"
            return Condition("Ready", status, condition.reason, f"{condition.type}: {condition.message}")
    return Condition("Ready", "True", "Ready", "The tunnel carries traffic.")
