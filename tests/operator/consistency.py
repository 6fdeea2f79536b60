"""What no world may ever look like, between any two writes: contradictions between stored objects.

Not what a world should come to (the properties say that), but what would do harm if it stood there for a moment: two
Tunnels that serve one name, a route without a claim, a record that nobody could ever remove.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from culvert_operator.api.binding import parse_binding
from culvert_operator.api.claim import claim_name, parse_claim
from culvert_operator.compile import name_of
from culvert_operator.conditions.reasons import REASONS
from culvert_operator.keys import ObjectKey

FINALIZER = "culvert.dev/cleanup"
KNOWN = {(row.kind, row.type, row.reason) for row in REASONS}
INSTALLATION = "inst"


def contradictions(world: Any) -> list[str]:
    """Sentences; none for a world that may be."""
    return [*_claims(world), *_routes(world), *_records(world), *_statuses(world), *_children(world)]


def _claims(world: Any) -> Iterator[str]:
    seen: set[str] = set()
    for name, raw in world.claims.items():
        claim = parse_claim(raw)
        if name != claim_name(claim.hostname):
            yield f"the claim {name} is not at the name of {claim.hostname}, so that another could be beside it"
        if claim.hostname in seen:
            yield f"{claim.hostname} is claimed twice"
        seen.add(claim.hostname)
        places = [(path.type, path.value) for path in claim.paths]
        if len(set(places)) != len(places):
            yield f"a path of {claim.hostname} has two holders"
        waiting = [(waiter.key, waiter.hostname or claim.hostname) for waiter in claim.waiting]
        if len(set(waiting)) != len(waiting):
            yield f"somebody waits twice for {claim.hostname}"
        held = {ObjectKey(claim.namespace, path.binding) for path in claim.paths}
        if claim.vacant and claim.paths:
            yield f"{claim.hostname} is vacant, and held by {claim.paths[0].binding}"
        for key in held | {waiter.key for waiter in claim.waiting}:
            binding = world.bindings.get(key)
            if binding is None or FINALIZER not in binding["metadata"].get("finalizers", ()):
                yield f"{claim.hostname} is held or waited for by {key}, which could go without a word"


def _routes(world: Any) -> Iterator[str]:
    claims = {claim.hostname: claim for claim in map(parse_claim, world.claims.values())}
    serving: dict[str, set[ObjectKey]] = defaultdict(set)
    for key, document in world.served():
        for rule in document.rules:
            name = name_of(rule)
            serving[name].add(key)
            if name not in claims or claims[name].since(key) is None:
                yield f"{key} serves {name} without holding its claim"
        ids = [rule.id for rule in document.rules]
        if len(set(ids)) != len(ids):
            yield f"two rules of {key} have one id"
    for name, tunnels in serving.items():
        # One stands by until the other stops: the relay lets the older claim serve.
        claim = claims.get(name)
        both = {claim.tunnel, claim.former.tunnel} if claim is not None and claim.former is not None else set()
        if len(tunnels) > 1 and not tunnels <= both:
            yield f"{name} is served by {len(tunnels)} Tunnels"


def _records(world: Any) -> Iterator[str]:
    served = {name_of(r) for key in world.tunnels if (d := world.document(key)) is not None for r in d.rules}
    listed = {p.name for b in map(parse_binding, world.bindings.values()) for p in b.published}
    for record in world.zone.values():
        if record.owner != INSTALLATION:
            continue
        if record.name not in listed:
            yield f"nobody remembers that the record {record.name} is ours"
        if record.name not in served:
            yield f"visitors are led to {record.name}, which nobody serves"


def _statuses(world: Any) -> Iterator[str]:
    for kind, store in (("Tunnel", world.tunnels), ("TunnelBinding", world.bindings)):
        for key, raw in store.items():
            conditions = raw.get("status", {}).get("conditions", [])
            types = [c["type"] for c in conditions]
            if len(set(types)) != len(types):
                yield f"{kind} {key} has a condition twice"
            for c in conditions:
                # Ready repeats the reason of what is in its way.
                known = {reason for (k, t, reason) in KNOWN if k == kind and c["type"] in (t, "Ready")}
                if c["reason"] not in known:
                    yield f"{kind} {key}: no table explains {c['type']} {c['reason']}"
            found = {c["type"]: c["status"] for c in conditions}
            if found.get("Ready") == "True" and found.get("Accepted") != "True":
                yield f"{kind} {key} is Ready and not Accepted"


def _children(world: Any) -> Iterator[str]:
    owners = {raw["metadata"]["uid"] for raw in world.tunnels.values()}
    for (namespace, child), raw in world.children.items():
        uids = {owner["uid"] for owner in raw["metadata"].get("ownerReferences", ())}
        if uids and not uids & owners:
            yield f"{child.kind} {namespace}/{child.name} has no owner"
