"""The HostnameClaim: one hostname, the namespace that holds it, and who waits for it.

Responsible for: claim ↔ raw object, the claim's name, times as text. Must not know: who should win.
Invariants: ``parse_claim(claim_body(c))`` gives ``c`` again; a claim's name follows from its hostname alone, so that
the API server's AlreadyExists arbitrates between everybody who wants the name.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from culvert_operator.api.meta import API_VERSION, Raw, integer, mapping, parse_meta, sequence, text
from culvert_operator.keys import ObjectKey
from culvert_protocol.granted import port_name, port_of

MAX_PATHS = 512
MAX_WAITING = 256
VACANT = "Vacant"
"""State of a claim whose holder has left, while those who waited for names over or under it take them in order."""
FALLBACK = "Fallback"
"""What a wildcard's rule says so that its subtree is not reserved."""


@dataclass(frozen=True, slots=True, order=True)
class ClaimPath:
    """A path of the hostname and the binding (of the owner's namespace) that it belongs to."""

    type: str
    value: str
    binding: str


@dataclass(frozen=True, slots=True)
class Waiter:
    """A binding that wants the hostname but does not have it; ``since`` as ``claimed_at``.

    ``hostname``: what it wants when that is another one, over or under the claim's; ``yields``: as a wildcard that
    leaves the names below it to others.
    """

    namespace: str
    name: str
    tunnel: ObjectKey
    since: str
    hostname: str = ""
    yields: bool = False

    @property
    def key(self) -> ObjectKey:
        """The binding that waits."""
        return ObjectKey(self.namespace, self.name)


class Keeps(StrEnum):
    """What a Tunnel goes on with, of a hostname that another one has now (:mod:`culvert_operator.succession`)."""

    ROUTE = "Route"
    RECORD = "Record"
    NOTHING = "Nothing"


@dataclass(frozen=True, slots=True)
class Former:
    """The Tunnel that had a claim before, and since when, while something of the hostname may be left with it."""

    tunnel: ObjectKey
    claimed_at: str
    keeps: Keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One HostnameClaim; that of a TCP port has ``tcp:<port>`` as its hostname.

    ``claimed_at`` is RFC 3339 in UTC with milliseconds, so that it sorts as time. ``yields``: a wildcard that leaves
    the names below it to whoever claims them. ``vacant``: nobody holds it, those who wait take what they want in order.
    """

    hostname: str
    namespace: str
    tunnel: ObjectKey
    claimed_at: str
    paths: tuple[ClaimPath, ...]
    waiting: tuple[Waiter, ...] = ()
    yields: bool = False
    former: Former | None = None
    vacant: bool = False
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    deleting: bool = False

    def since(self, tunnel: ObjectKey) -> str | None:
        """Since when a Tunnel may list the hostname in its grant; None when it may not."""
        if self.tunnel == tunnel and not self.vacant:
            return self.claimed_at
        former = self.former
        return former.claimed_at if former is not None and former.tunnel == tunnel else None


def claim_name(hostname: str) -> str:
    """The object name of a hostname's claim: a hash, for hostnames may be longer than names and hold ``*``."""
    return "h-" + hashlib.sha256(hostname.encode()).hexdigest()[:48]


def timestamp(now: float) -> str:
    """Epoch seconds → RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(moment: str) -> int:
    """RFC 3339 → epoch milliseconds; 0 for what is none."""
    try:
        return max(0, round(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000))
    except ValueError:
        return 0


def parse_claim(raw: Raw) -> Claim:
    """A HostnameClaim object."""
    meta, spec = parse_meta(raw), mapping(raw.get("spec"))
    paths = (mapping(p) for p in sequence(spec.get("paths")))
    waiting = (mapping(w) for w in sequence(spec.get("waiting")))
    return Claim(
        name=meta.name,
        uid=meta.uid,
        resource_version=meta.resource_version,
        deleting=meta.deleting,
        hostname=text(spec.get("hostname")) or (port_name(port) if (port := integer(spec.get("tcpPort"))) else ""),
        namespace=text(mapping(spec.get("owner")).get("namespace")),
        tunnel=_key(spec.get("tunnel")),
        claimed_at=text(spec.get("claimedAt")),
        paths=tuple(ClaimPath(text(p.get("type")), text(p.get("value")), text(p.get("binding"))) for p in paths),
        waiting=tuple(
            Waiter(
                text(w.get("namespace")),
                text(w.get("name")),
                _key(w.get("tunnel")),
                text(w.get("since")),
                text(w.get("hostname")),
                w.get("wildcard") == FALLBACK,
            )
            for w in waiting
        ),
        yields=spec.get("wildcard") == FALLBACK,
        former=_former(spec.get("former")),
        vacant=spec.get("state") == VACANT,
    )


def _former(value: object) -> Former | None:
    said = mapping(value)
    if not said:
        return None
    steps = {str(step): step for step in Keeps}
    return Former(
        _key(said.get("tunnel")), text(said.get("claimedAt")), steps.get(text(said.get("keeps")), Keeps.NOTHING)
    )


def _key(value: object) -> ObjectKey:
    namespace, _, name = text(value).partition("/")
    return ObjectKey(namespace, name)


def claim_body(claim: Claim) -> Raw:
    """The object to write; with uid and resourceVersion when ``claim`` was read before."""
    metadata: dict[str, object] = {
        "name": claim_name(claim.hostname),
        "labels": {"app.kubernetes.io/managed-by": "culvert"},
    }
    if claim.uid:
        metadata |= {"uid": claim.uid, "resourceVersion": claim.resource_version}
    port = port_of(claim.hostname)
    spec: dict[str, object] = {
        **({"hostname": claim.hostname} if port is None else {"tcpPort": port}),
        "owner": {"namespace": claim.namespace},
        "tunnel": str(claim.tunnel),
        "claimedAt": claim.claimed_at,
        "paths": [{"type": p.type, "value": p.value, "binding": p.binding} for p in claim.paths],
    }
    if claim.yields:
        spec["wildcard"] = FALLBACK
    if claim.vacant:
        spec["state"] = VACANT
    if claim.former is not None:
        former = claim.former
        spec["former"] = {
            "tunnel": str(former.tunnel),
            "claimedAt": former.claimed_at,
            "keeps": str(former.keeps),
        }
    if claim.waiting:
        spec["waiting"] = [
            {
                "namespace": w.namespace,
                "name": w.name,
                "tunnel": str(w.tunnel),
                "since": w.since,
                **({"hostname": w.hostname} if w.hostname else {}),
                **({"wildcard": FALLBACK} if w.yields else {}),
            }
            for w in claim.waiting
        ]
    return {"apiVersion": API_VERSION, "kind": "HostnameClaim", "metadata": metadata, "spec": spec}
