"""The decision to revoke: after a rotation, and when a Tunnel goes.

Responsible for: from when on credentials hold, and for whether the time has come to say so. Must not know: signing,
HTTP, where a revocation is kept.
Invariants: level-triggered and idempotent (what the ledger says already is not asked for again); after a rotation
nothing is revoked before every connector that can hold a session reports the new credential, so that no request is
lost; a Tunnel lets go of its finalizer only when its revocation is in the ledger, and never waits for a relay. Its
hostnames do, for a bounded time.

Rotation in the safe order, each step resting on the stored fact of the one before::

    annotation ─▶ new Secret (says since when) ─▶ connectors report its key ─▶ ledger ─▶ configuration carries it
"""

from __future__ import annotations

from dataclasses import dataclass

from culvert_ingress.document import RelayTarget
from culvert_operator.api.claim import milliseconds
from culvert_operator.api.meta import Raw, integer, mapping, texts
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.options import Options
from culvert_operator.relations import child
from culvert_operator.world import CredentialState, Revoke, Snapshot
from culvert_protocol.statements import LEEWAY_SECONDS

ROTATED_AT = "culvert.dev/rotated-at"
"""Annotation of the credential Secret: unix seconds; credentials issued before are to be revoked."""


ENDING = "Pods that are ending"
LINGER_SECONDS = 60
"""How long hostnames of a Tunnel that went wait for relays that do not confirm its revocation. By then its Pods have
ended, whose grace is 45 s unless the Tunnel said otherwise."""
UNTOLD = "RevocationUndelivered"
"""Reason of the Event that tells of relays which did not hear of a revocation."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation that may still matter: older credentials have not expired.

    ``waits_for`` are the Pods that do not report the new credential yet, or serve what they have before they end;
    ``revoked``: the ledger says so already.
    """

    not_before: int
    waits_for: tuple[str, ...] = ()
    revoked: bool = False


def until(not_before: int, options: Options) -> int:
    """Unix seconds after which no credential that was issued before ``not_before`` can be valid."""
    return not_before + options.credential_lifetime_seconds + LEEWAY_SECONDS


def rotated_at(secret: Raw | None) -> int:
    """What the credential Secret says of its last rotation; 0: none."""
    said = texts(mapping((secret or {}).get("metadata")).get("annotations")).get(ROTATED_AT, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 12 else 0


def rotation(snapshot: Snapshot, tunnel: Tunnel) -> Rotation | None:
    """The rotation that is under way or whose revocation is still repeated."""
    not_before = rotated_at(snapshot.children.get(child("Secret", tunnel.meta.name)))
    held = snapshot.credential
    if not not_before or snapshot.now >= until(not_before, snapshot.options):
        return None
    if held is not None and not held.problem and held.issued_at < not_before:
        return None  # an annotation that somebody wrote: it would revoke the credential that is in force
    stored = snapshot.revocation
    if stored is not None and stored.not_before >= not_before:
        return Rotation(not_before, revoked=True)
    return Rotation(not_before, (*_behind(snapshot, held), *_ending(snapshot, tunnel)))


def after_rotation(
    snapshot: Snapshot, tunnel: Tunnel, subject: str, found: Rotation | None, relay: RelayTarget | None
) -> Revoke | None:
    """The revocation that a finished rotation ends with; None before, and once the ledger has it.

    While the ledger repeats one, it follows the Tunnel's relays: those that are new have to hear of it too. What a
    former Tunnel of this name left to tell its own relays is told first.
    """
    stored = snapshot.revocation
    if relay is None:
        return None
    if found is not None and not found.revoked and not found.waits_for:
        return _revoke(snapshot, tunnel, subject, found.not_before, relay)
    if stored is not None and stored.relay != relay and (stored.uid == tunnel.meta.uid or not stored.untold):
        return _revoke(snapshot, tunnel, subject, stored.not_before, relay)
    return None


def farewell(snapshot: Snapshot, tunnel: Tunnel, subject: str, relay: RelayTarget | None) -> Revoke | None:
    """The revocation of a Tunnel that is being deleted; None once the ledger has it, or when nobody can be told."""
    not_before = _end(snapshot, tunnel)
    stored = snapshot.revocation
    known = stored is not None and stored.not_before >= not_before
    if relay is None or known or not tunnel.meta.has_finalizer:
        return None
    return _revoke(snapshot, tunnel, subject, not_before, relay)


def farewell_at(snapshot: Snapshot, tunnel: Tunnel) -> float | None:
    """Epoch seconds until which a Tunnel that is being deleted waits, so that a successor's credential is younger."""
    not_before = _end(snapshot, tunnel)
    return float(not_before) if snapshot.now < not_before else None


def lingers(snapshot: Snapshot) -> bool:
    """Whether sessions of a Tunnel that goes, or that went from this name, may still serve: nobody else may have its
    hostnames yet."""
    tunnel = snapshot.tunnel
    if tunnel is not None and tunnel.meta.deleting and tunnel.meta.has_finalizer:
        return True
    return lingers_until(snapshot) is not None


def lingers_until(snapshot: Snapshot) -> float | None:
    """Epoch seconds until which relays that have not heard of the end of a Tunnel that went are waited for."""
    tunnel, stored = snapshot.tunnel, snapshot.revocation
    if stored is None or not stored.untold:
        return None
    if tunnel is not None and not tunnel.meta.deleting and stored.uid == tunnel.meta.uid:
        return None  # it has rotated, and serves on
    if abs(snapshot.now - stored.issued_at) >= LINGER_SECONDS:
        return None  # over, or written down by a clock that was wrong
    return float(stored.issued_at + LINGER_SECONDS)


def _end(snapshot: Snapshot, tunnel: Tunnel) -> int:
    """The last second of a Tunnel's credentials: none was issued after its deletion, whatever the clocks say."""
    held = snapshot.credential
    last = held.issued_at + 1 if held is not None and not held.problem else 0
    return max(milliseconds(tunnel.meta.deleted) // 1000, last)


def _behind(snapshot: Snapshot, credential: CredentialState | None) -> tuple[str, ...]:
    """Pods that may hold a session by another credential. One that reports none holds no session."""
    wanted = credential.key_id if credential is not None and not credential.problem else None
    return tuple(
        name
        for name, report in sorted(snapshot.reports.items())
        if report is None or (report.key_id and report.key_id != wanted)
    )


def _ending(snapshot: Snapshot, tunnel: Tunnel) -> tuple[str, ...]:
    """Pods of a rollout or a scale-down finish requests by whatever credential they have, and are asked no more."""
    status = mapping(mapping(snapshot.children.get(child("Deployment", tunnel.meta.name))).get("status"))
    return (ENDING,) if integer(status.get("terminatingReplicas")) else ()


def _revoke(snapshot: Snapshot, tunnel: Tunnel, subject: str, not_before: int, relay: RelayTarget) -> Revoke:
    return Revoke(
        tunnel=tunnel.meta.key,
        uid=tunnel.meta.uid,
        subject=subject,
        not_before=not_before,
        issued_at=max(int(snapshot.now), not_before),
        until=until(not_before, snapshot.options),
        relay=relay,
    )
