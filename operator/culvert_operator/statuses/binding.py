"""The status of a TunnelBinding, as its present Tunnel's planner writes it.

Responsible for: a binding's conditions, rules and lists from what routing, reports and DNS say.
Must not know: how any of that was found. Invariant: conditions are set at first sight (Unknown where nothing is
known), and the same world gives the same status.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from culvert_operator.api.binding import Binding, Published
from culvert_operator.api.meta import PAUSED, Raw, integer, mapping, sequence, text
from culvert_operator.candidates import Candidate, Rejected
from culvert_operator.conditions.condition import Condition, Status, bounded, by_type, is_true, merge
from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.dns.plan import DNSView
from culvert_operator.keys import ObjectKey
from culvert_operator.programmed import PROGRAMMED, Fleet, programmed
from culvert_operator.records import DNS_READY, Records, dns_ready
from culvert_operator.references import NOT_ALLOWED
from culvert_operator.routing import Routed
from culvert_operator.verdicts import Awaiting

MAX_RULE_MESSAGE = 512
SHOWN_HOSTNAMES = 3
_WAY = ("Accepted", "PartiallyInvalid", "ResolvedRefs", PROGRAMMED, DNS_READY)


@dataclass(frozen=True, slots=True)
class Proof:
    """What the stored status proves of the present rules.

    ``version`` is the first configuration that held them (0: unknown), ``programmed`` whether the condition was True
    for them, ``published`` whether DNSReady was.
    """

    version: int
    programmed: bool
    published: bool


def read_proof(routed: Routed, *, version: int | None) -> Proof:
    """The proof in a binding's stored status; none when its generation or its served rules have changed since.

    ``version`` is the present configuration's. A later one in the status was never stored: its write was refused (it
    conflicted with an earlier write whose answer was lost), and no connector will ever report it.
    """
    status, generation = routed.binding.status, routed.binding.meta.generation
    stored = {
        (text(r.get("name")), text(r.get("hostname")))
        for r in map(mapping, sequence(status.get("rules")))
        if r.get("accepted") is True
    }
    now = {(c.rule.name, c.hostname) for c, _ in routed.served}
    if status.get("observedGeneration") != generation or stored != now or not now:
        return Proof(0, False, False)
    proven = integer(status.get("configVersion"))
    return Proof(
        0 if version is not None and proven > version else proven,
        is_true(status, PROGRAMMED, generation=generation),
        is_true(status, DNS_READY, generation=generation),
    )


def programmed_condition(
    routed: Routed, proof: Proof, fleet: Fleet, *, version: int | None, taking: Collection[str] = ()
) -> Condition:
    """Programmed; ``version`` is the configuration that holds the present rules, None while none could be written."""
    if not routed.served:
        return Condition(PROGRAMMED, "False", "Pending", "No rule is accepted yet; see Accepted.")
    needed = proof.version or version
    if needed is None:
        return Condition(PROGRAMMED, "False", "Pending", "The configuration is not written; see the Tunnel.")
    return programmed(fleet, routed.hostnames, version=needed, proven=proof.programmed, taking=taking)


def served_status(
    routed: Routed,
    key: ObjectKey,
    proof: Proof,
    records: Records,
    view: DNSView | None,
    condition: Condition,
    *,
    version: int | None,
    listed: Sequence[Published],
    now: float,
) -> Raw:
    """The status of a binding under a Tunnel that serves it; ``condition`` is its Programmed."""
    binding = routed.binding
    dns, states = dns_ready(routed.names, records, view, resource=binding.resource, was_ready=proof.published)
    if view is not None and not routed.served:
        dns = Condition(DNS_READY, "False", "Pending", "No rule is served yet.") if dns.status == "True" else dns
    elif view is not None and not routed.names and dns.reason == "Pending":
        dns = Condition(DNS_READY, "True", "Disabled", "TCP ports need no records.")
    conditions = [_accepted(routed), _partially(routed), _resolved(routed), condition, dns]
    status = {
        **_lists(binding, key, listed, holds=True),
        "observedGeneration": binding.meta.generation,
        "hostnamesText": _hostnames_text(routed),
        "rules": _rules(routed, states, records.endpoints),
        "conditions": merge(
            _resumed(binding.status),
            [*conditions, _ready(conditions)],
            generation=binding.meta.generation,
            now=now,
        ),
    }
    if routed.served and (proof.version or version):
        status["configVersion"] = proof.version or version
    return status


def unserved_status(
    binding: Binding, key: ObjectKey, why: Condition, *, listed: Sequence[Published], holds: bool, now: float
) -> Raw:
    """The status of a binding whose Tunnel does not serve it; ``why`` is its Accepted."""
    conditions = [
        why,
        Condition("PartiallyInvalid", "False", "AllRulesAccepted", "Nothing is served; see Accepted."),
        Condition("ResolvedRefs", "Unknown", "Pending", "Nothing was looked up; see Accepted."),
        Condition(PROGRAMMED, "False", "Pending", "Nothing is served; see Accepted."),
        Condition(DNS_READY, "False", "Pending", "Nothing is published; see Accepted."),
    ]
    return {
        **_lists(binding, key, listed, holds=holds),
        "observedGeneration": binding.meta.generation,
        "hostnamesText": _shown(_spelled(binding)),
        "rules": [
            {
                "name": rule.name,
                "hostname": bounded(rule.spelling, 253),
                "accepted": False,
                "reason": why.reason,
                "message": bounded(why.message, MAX_RULE_MESSAGE),
            }
            for rule in binding.rules
        ],
        "conditions": merge(
            _resumed(binding.status),
            [*conditions, _ready(conditions)],
            generation=binding.meta.generation,
            now=now,
        ),
    }


def held_status(binding: Binding, key: ObjectKey, *, listed: Sequence[Published], holds: bool, now: float) -> Raw:
    """The status of a binding whose Tunnel is paused: what was found before stays told, as of when it was found."""
    status = {**binding.status, **_lists(binding, key, listed, holds=holds)}
    if "Paused" in by_type(status):
        return status
    said = f"The Tunnel is paused (its annotation {PAUSED}): nothing is done for this object until it is resumed."
    known: dict[str, Any] = {**status, "conditions": sequence(status.get("conditions"))}
    if not known["conditions"]:
        nothing = [Condition(kind, "Unknown", "Pending", said) for kind in _WAY if kind != "PartiallyInvalid"]
        nothing.append(Condition("PartiallyInvalid", "False", "AllRulesAccepted", said))
        nothing.append(Condition("Ready", "Unknown", "Paused", said))
        first = merge({}, nothing, generation=binding.meta.generation, now=now)
        known = {
            **status,
            "observedGeneration": binding.meta.generation,
            "hostnamesText": _shown(_spelled(binding)),
            "conditions": first,
        }
    told = merge({}, [Condition("Paused", "True", "Paused", said)], generation=binding.meta.generation, now=now)
    return {**known, "conditions": [*known["conditions"], *told]}


def _resumed(status: Raw) -> Raw:
    kept = [c for c in sequence(status.get("conditions")) if mapping(c).get("type") != "Paused"]
    return {**status, "conditions": kept} if "conditions" in status else status


def _spelled(binding: Binding) -> tuple[str, ...]:
    return tuple(dict.fromkeys(bounded(rule.spelling, 253) for rule in binding.rules))


def leaving_status(
    binding: Binding,
    key: ObjectKey,
    records: Records,
    view: DNSView | None,
    *,
    listed: Sequence[Published],
    holds: bool,
    now: float,
) -> Raw:
    """The status of a binding that is being deleted: what of it is left, and what is in the way."""
    status = {**binding.status, **_lists(binding, key, listed, holds=holds)}
    if listed:
        conditions = [_withdrawing(binding, records, view, listed)]
    else:
        conditions = [Condition(DNS_READY, "False", "Pending", "No record of this object is left.")]
    conditions.append(Condition("Ready", "False", "Deleting", "The object is being deleted."))
    stored = by_type(_resumed(binding.status))
    merged = {
        c["type"]: c for c in merge(_resumed(binding.status), conditions, generation=binding.meta.generation, now=now)
    }
    status["conditions"] = [*({**stored, **merged}.values())]
    return status


def released_status(binding: Binding, key: ObjectKey, *, listed: Sequence[Published], holds: bool) -> Raw:
    """The status of a binding that belongs to another Tunnel now: only this Tunnel's part of its lists changes."""
    return {**binding.status, **_lists(binding, key, listed, holds=holds, present=False)}


def _withdrawing(binding: Binding, records: Records, view: DNSView | None, listed: Sequence[Published]) -> Condition:
    if view is not None and view.error is None:
        condition, _ = dns_ready((), records, view, resource=binding.resource, was_ready=False)
        if condition.reason != "Pending":
            return condition
    if view is not None and view.error is not None:
        return Condition(DNS_READY, "False", "ProviderError", view.error)
    names = ", ".join(dict.fromkeys(p.name for p in listed[:5]))
    return Condition(DNS_READY, "False", "Pending", f"Records that are not confirmed gone: {names}.")


def _lists(
    binding: Binding, key: ObjectKey, listed: Sequence[Published], *, holds: bool, present: bool = True
) -> dict[str, Any]:
    """``tunnels`` and ``publishedRecords`` with this Tunnel's part replaced; the present Tunnel comes first."""
    others = [str(t) for t in binding.held_by if t != key]
    mine = [str(key)] if holds else []
    foreign = [p for p in binding.published if p.tunnel != str(key)]
    return {
        "tunnels": [*mine, *others] if present else [*others, *mine],
        "publishedRecords": [{"tunnel": p.tunnel, "name": p.name, "type": p.type} for p in (*foreign, *listed)],
    }


def _accepted(routed: Routed) -> Condition:
    rejected = routed.rejected
    if rejected and len(rejected) == len(routed.verdicts):
        return Condition("Accepted", "False", rejected[0].reason, _complaint(rejected))
    if not routed.served:
        return Condition("Accepted", "Unknown", "Pending", "The hostnames are being claimed.")
    if rejected:
        return Condition("Accepted", "True", "Accepted", f"Served without: {_complaint(rejected)}")
    return Condition("Accepted", "True", "Accepted", "Every rule is accepted.")


def _complaint(rejected: Sequence[Rejected]) -> str:
    return " ".join(f"{r.rule.name}: {r.message}" for r in rejected[:3]) + (" …" if len(rejected) > 3 else "")


def _partially(routed: Routed) -> Condition:
    rejected = routed.rejected
    if rejected and len(rejected) < len(routed.verdicts):
        said = f"{len(rejected)} of {len(routed.verdicts)} rules are refused; status.rules says why."
        return Condition("PartiallyInvalid", "True", "SomeRulesRejected", said)
    return Condition("PartiallyInvalid", "False", "AllRulesAccepted", "No rule is refused beside served ones.")


def _resolved(routed: Routed) -> Condition:
    if not routed.served:
        return Condition("ResolvedRefs", "Unknown", "Pending", "No rule is served yet; see Accepted.")
    for candidate, resolved in routed.served:
        if resolved.problem is not None:
            answer = 502 if resolved.problem.reason == NOT_ALLOWED else 503
            said = f"{candidate.rule.name}: {resolved.problem.message} The rule answers {answer}."
            return Condition("ResolvedRefs", "False", resolved.problem.reason, said)
    blind = [c.rule.name for c, r in routed.served if r.origin.no_tls_verify]
    said = "Every reference can be used."
    if blind:
        said += f" The Service's certificate is not verified (noTLSVerify) by: {', '.join(blind[:10])}."
    return Condition("ResolvedRefs", "True", "Resolved", said)


def _ready(conditions: Sequence[Condition]) -> Condition:
    by_name = {c.type: c for c in conditions}
    for name in _WAY:
        condition = by_name[name]
        good = "False" if name == "PartiallyInvalid" else "True"
        if condition.status != good:
            status: Status = "Unknown" if condition.status == "Unknown" else "False"
            return Condition("Ready", status, condition.reason, f"{name}: {condition.message}")
    return Condition("Ready", "True", "Ready", "Visitors reach every rule.")


def _rules(
    routed: Routed, states: Mapping[str, tuple[str, str]], endpoints: Mapping[str, tuple[Endpoint, ...]]
) -> list[dict[str, Any]]:
    found = []
    for verdict in routed.verdicts:
        item: dict[str, Any]
        match verdict:
            case Candidate():
                problem = routed.resolved[verdict.rule.name].problem
                item = {"name": verdict.rule.name, "hostname": verdict.hostname, "accepted": True}
                item["reason"] = problem.reason if problem else "Accepted"
                item["message"] = bounded(problem.message, MAX_RULE_MESSAGE) if problem else ""
            case Awaiting(candidate):
                item = {"name": candidate.rule.name, "hostname": candidate.hostname, "accepted": False}
                item |= {"reason": "Pending", "message": "The hostname is being claimed."}
            case Rejected(rule, hostname, reason, message):
                item = {"name": rule.name, "hostname": hostname or bounded(rule.spelling, 253), "accepted": False}
                item |= {"reason": reason, "message": bounded(message, MAX_RULE_MESSAGE)}
        state = states.get(item["hostname"]) if item["accepted"] else None
        if state is not None:
            item["dns"] = {"state": state[0], "message": bounded(state[1], MAX_RULE_MESSAGE)}
            records = endpoints.get(item["hostname"], ())
            if records:
                item["dns"]["record"] = bounded("; ".join(f"{e.type} {' '.join(e.targets)}" for e in records), 512)
        found.append(item)
    return found


def _hostnames_text(routed: Routed) -> str:
    names = []
    for verdict in routed.verdicts:
        match verdict:
            case Candidate() as candidate:
                names.append(candidate.hostname)
            case Awaiting(candidate):
                names.append(candidate.hostname)
            case Rejected(rule, hostname, _, _):
                names.append(hostname or bounded(rule.spelling, 253))
    return _shown(tuple(dict.fromkeys(names)))


def _shown(names: Sequence[str]) -> str:
    shown = ",".join(names[:SHOWN_HOSTNAMES])
    return f"{shown} +{len(names) - SHOWN_HOSTNAMES}" if len(names) > SHOWN_HOSTNAMES else shown
