"""Verdicts: whether the claims let a rule be served.

Responsible for: stored claims → a rule is served, awaited or rejected, with a sentence. Must not know: how claims come
to be (:mod:`culvert_operator.claims`). Invariants: only stored claims count; holders are named only inside the same
namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_ingress.hostnames import covers, is_wildcard
from culvert_operator.api.claim import MAX_PATHS, Claim
from culvert_operator.candidates import Candidate, Rejected, taken
from culvert_operator.keys import ObjectKey
from culvert_operator.register import Register
from culvert_protocol.granted import port_of


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A candidate whose claim is about to be created: neither accepted nor rejected yet."""

    candidate: Candidate


Verdict = Candidate | Rejected | Awaiting


def judge(tunnel: ObjectKey, candidate: Candidate, register: Register, *, awaited: frozenset[str]) -> Verdict:
    """Whether the claims *as they are stored* let a candidate be served.

    ``register`` holds stored claims only; ``awaited`` are hostnames with an operation under way.
    """
    hostname, namespace = candidate.hostname, candidate.binding.meta.namespace
    claim = register.get(hostname)
    if claim is None:
        blocking = register.conflicting(hostname, namespace, yields=candidate.yields)
        if blocking:
            return _conflict(candidate, blocking[0])
        return Awaiting(candidate)
    if claim.vacant:
        blocking = register.conflicting(hostname, namespace, yields=candidate.yields)
        return _conflict(candidate, blocking[0]) if blocking else Awaiting(candidate)
    if claim.namespace != namespace or claim.tunnel != tunnel:
        # Handing over inside the Tunnel: the next look will find the claim with its new holder. Or the binding has come
        # from another Tunnel, which gives the name up for it.
        coming = claim.namespace == namespace and {p.binding for p in claim.paths} == {candidate.binding.meta.name}
        return Awaiting(candidate) if hostname in awaited or coming else _conflict(candidate, claim)
    older = register.older_conflict(claim)
    if older is not None:
        return _conflict(candidate, older)
    if candidate.claim_path in claim.paths:
        return candidate
    holder = next((p.binding for p in claim.paths if (p.type, p.value) == _bare(candidate)), None)
    if holder is not None:
        said = f"{namespace}/{holder} already has {hostname} with this path; choose another path."
        return Rejected(candidate.rule, hostname, taken(hostname), said)
    if len(claim.paths) >= MAX_PATHS:
        said = f"{hostname} has {MAX_PATHS} paths already; remove some, or use another hostname."
        return Rejected(candidate.rule, hostname, "QuotaExceeded", said)
    return Awaiting(candidate)


def agree(judged: Mapping[ObjectKey, tuple[Verdict, ...]], register: Register) -> dict[ObjectKey, tuple[Verdict, ...]]:
    """Rejects rules whose protocol or allowed sources differ from those of the rule that has its hostname longest.

    The relay knows hostnames, not rules: a hostname is either HTTP or TLS, and one restriction holds for all of it.
    """
    first: dict[str, Candidate] = {}
    for verdicts in judged.values():
        for candidate in verdicts:
            if isinstance(candidate, Candidate):
                known = first.setdefault(candidate.hostname, candidate)
                if _rank(candidate, register) < _rank(known, register):
                    first[candidate.hostname] = candidate

    def settled(verdict: Verdict) -> Verdict:
        winner = first[verdict.hostname] if isinstance(verdict, Candidate) else None
        if not isinstance(verdict, Candidate) or winner is None or winner.terms == verdict.terms:
            return verdict
        other = f"{winner.binding.meta.name}/{winner.rule.name}"
        said = f"{verdict.hostname} is served with other allowedSources by {other}; write the same in all its rules."
        if winner.yields != verdict.yields:
            said = f"{verdict.hostname} is served with another wildcard by {other}; write the same in all its rules."
        if winner.rule.protocol != verdict.rule.protocol:
            said = (
                f"{verdict.hostname} is served as {winner.rule.protocol} by {other}; a hostname has one protocol, so "
                "choose another hostname."
            )
        return Rejected(verdict.rule, verdict.hostname, taken(verdict.hostname), said)

    return {key: tuple(settled(verdict) for verdict in verdicts) for key, verdicts in judged.items()}


def _rank(candidate: Candidate, register: Register) -> tuple[int, str, str]:
    claim = register.get(candidate.hostname)
    paths = claim.paths if claim is not None else ()
    place = paths.index(candidate.claim_path) if candidate.claim_path in paths else len(paths)
    return place, candidate.binding.meta.name, candidate.rule.name


def _bare(candidate: Candidate) -> tuple[str, str]:
    return (str(candidate.path.type), candidate.path.value)


def _conflict(candidate: Candidate, winner: Claim) -> Rejected:
    """Who is in the way is named only inside the same namespace: names of others are not for everybody."""
    hostname, namespace = candidate.hostname, candidate.binding.meta.namespace
    if winner.namespace == namespace:
        said = f"{hostname} is held by this namespace in the Tunnel {winner.tunnel}; remove it there, or bind it there."
    elif winner.hostname == hostname:
        what = "hostname" if port_of(hostname) is None else "port"
        said = f"{hostname} is held by another namespace; choose another {what}, or wait until it is given up."
    elif is_wildcard(winner.hostname) and covers(winner.hostname, hostname):
        said = f"{hostname} lies below a wildcard that another namespace holds; choose another hostname, or wait."
    else:
        said = f"{hostname} would cover a hostname that another namespace holds; choose another hostname, or wait."
    return Rejected(candidate.rule, hostname, taken(hostname), said)
