"""The election: what a candidate does next, from the Lease as it last saw it.

Responsible for: the Lease object (coordination.k8s.io/v1) ⇄ :class:`Record`, and the decision :func:`decide`.
Must not know: requests, clocks, what a leader does.

Invariants: another's Lease is taken only when this process has itself seen it unchanged for the whole of the holder's
``leaseDurationSeconds`` (the times inside are somebody else's clock and are never compared with ours); every write
carries the resourceVersion that was read, so that of two candidates one wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from culvert_operator.api.meta import Raw, integer, mapping, text

MAX_DURATION = 3600
"""Seconds; a Lease that claims to hold for longer (a person's edit) does not keep everybody out for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long a Lease holds for others (``lease``), for its holder after a renewal (``renew``), and how often a
    leader renews it and a candidate looks at it (``retry``); seconds, in this order falling."""

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0
    look: float = 1.0

    def problem(self) -> str | None:
        """Why these cannot work, as a sentence; None when they can."""
        if not 1 <= self.lease <= MAX_DURATION or self.lease != int(self.lease):
            return f"the lease duration must be a whole number of seconds from 1 to {MAX_DURATION}."
        if not 0 < self.retry < self.renew < self.lease:
            return "the retry period must be shorter than the renew deadline, and that shorter than the lease duration."
        return None


class Record(NamedTuple):
    """A Lease as it was read."""

    holder: str
    duration: float
    acquired: str
    renewed: str
    transitions: int
    uid: str
    version: str


class Move(Enum):
    """What a candidate does next."""

    CREATE = "there is no Lease: make one"
    TAKE = "it is free, or was not renewed in time"
    RENEW = "it is ours"
    WAIT = "somebody else holds it"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease (None: there is none) and since when it has looked like this, on the process's own clock."""

    record: Record | None
    since: float

    def again(self, record: Record | None, now: float) -> Sighting:
        """The Lease was looked at again."""
        return self if record == self.record else Sighting(record, now)


def decide(seen: Sighting, *, identity: str, now: float) -> tuple[Move, float]:
    """The next move, and for WAIT the seconds after which the Lease is free if nothing happens to it."""
    record = seen.record
    if record is None:
        return Move.CREATE, 0.0
    if record.holder == identity:
        return Move.RENEW, 0.0
    left = seen.since + record.duration - now
    if not record.holder or left <= 0:
        return Move.TAKE, 0.0
    return Move.WAIT, left


def read(raw: Raw | None) -> Record | None:
    """The record of a Lease object."""
    if raw is None:
        return None
    metadata, spec = mapping(raw.get("metadata")), mapping(raw.get("spec"))
    return Record(
        holder=text(spec.get("holderIdentity")),
        duration=float(min(max(integer(spec.get("leaseDurationSeconds"), 0), 0), MAX_DURATION)),
        acquired=text(spec.get("acquireTime")),
        renewed=text(spec.get("renewTime")),
        transitions=integer(spec.get("leaseTransitions"), 0),
        uid=text(metadata.get("uid")),
        version=text(metadata.get("resourceVersion")),
    )


def lease(seen: Record | None, *, name: str, namespace: str, identity: str, terms: Terms, wall: float) -> Raw:
    """The Lease that makes (or keeps) ``identity`` the holder. ``wall``: epoch seconds, for people to read."""
    now = _micro(wall)
    ours = seen is not None and seen.holder == identity
    transitions = 0 if seen is None else seen.transitions + (not ours)
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(terms.lease),
        "acquireTime": seen.acquired if seen is not None and ours and seen.acquired else now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }
    return {**_envelope(seen, name, namespace), "spec": spec}


def released(seen: Record, *, name: str, namespace: str, wall: float) -> Raw:
    """The Lease that says that nobody holds it, so that the next candidate need not wait."""
    now = _micro(wall)
    spec = {"leaseDurationSeconds": 1, "renewTime": now, "acquireTime": now, "leaseTransitions": seen.transitions}
    return {**_envelope(seen, name, namespace), "spec": spec}


def _envelope(seen: Record | None, name: str, namespace: str) -> dict[str, object]:
    metadata = {"name": name, "namespace": namespace}
    if seen is not None:
        metadata |= {"uid": seen.uid, "resourceVersion": seen.version}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}


def _micro(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
