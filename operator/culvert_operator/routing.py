"""Routing: from bindings to the rules that a Tunnel serves, in one pass.

Responsible for: the chain candidates → claims → references, kept per binding for its status.
Must not know: documents, DNS, connectors, conditions' wording.
Invariant: what is served depends on *stored* claims only; a rule that cannot be served affects no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from culvert_ingress.rules import OriginRequest, UnavailableService
from culvert_ingress.schemas import lacking, later
from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Keeps
from culvert_operator.candidates import Candidate, Rejected, examine
from culvert_operator.claims import arbitrate
from culvert_operator.compile import rule_id, rule_of
from culvert_operator.earlier import TOO_OLD, UPGRADE
from culvert_operator.grants import Grants
from culvert_operator.keys import ObjectKey
from culvert_operator.references import NOT_ALLOWED, Resolved, Unresolved, resolve
from culvert_operator.register import Register
from culvert_operator.succession import Succession
from culvert_operator.verdicts import Awaiting, Verdict, agree, judge
from culvert_operator.world import ClaimOp, Snapshot
from culvert_protocol.granted import port_of


@dataclass(frozen=True, slots=True)
class Routed:
    """One binding's rules, in their order: each served (with what it compiles to), awaited or rejected."""

    binding: Binding
    verdicts: tuple[Verdict, ...]
    resolved: Mapping[str, Resolved]

    @property
    def served(self) -> tuple[tuple[Candidate, Resolved], ...]:
        """The rules that are served, with their references."""
        return tuple((v, self.resolved[v.rule.name]) for v in self.verdicts if isinstance(v, Candidate))

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The rules that are refused."""
        return tuple(v for v in self.verdicts if isinstance(v, Rejected))

    @property
    def awaited(self) -> bool:
        """Whether a rule's claim is still being written."""
        return any(isinstance(v, Awaiting) for v in self.verdicts)

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The distinct hostnames and ports (``tcp:<port>``) that are served, in the rules' order."""
        return tuple(dict.fromkeys(c.hostname for c, _ in self.served))

    @property
    def names(self) -> tuple[str, ...]:
        """Those that records are for: ports have none."""
        return tuple(name for name in self.hostnames if port_of(name) is None)


@dataclass(frozen=True, slots=True)
class Routing:
    """All that one Tunnel serves, and what is to be done about claims.

    ``staying`` are hostnames whose records are not touched, for they are about to change hands; ``passed`` those of
    them that another Tunnel has by now, whose route stays until it is ready.
    """

    bindings: Mapping[ObjectKey, Routed]
    claims: tuple[ClaimOp, ...]
    staying: frozenset[str]
    passed: frozenset[str] = frozenset()

    @property
    def served(self) -> tuple[tuple[Candidate, Resolved], ...]:
        """Every served rule of every binding."""
        return tuple(pair for routed in self.bindings.values() for pair in routed.served)


def route(
    snapshot: Snapshot,
    bindings: tuple[Binding, ...],
    grants: Grants | None,
    register: Register,
    *,
    succession: Succession,
    lingers: bool,
    schema: int,
) -> Routing:
    """Route ``bindings`` (those that are to be served; none without ``grants``) by the stored claims.

    A rule that needs a later ``schema`` than connectors read answers 503, as one whose Service is missing.
    """
    outcomes = examine(bindings, grants=grants, namespaces=snapshot.namespaces) if grants is not None else {}
    candidates = [o for found in outcomes.values() for o in found if isinstance(o, Candidate)]
    operations, handed_over = arbitrate(
        snapshot.key,
        candidates,
        register,
        succession=succession,
        lingers=lingers,
        now=snapshot.now,
    )
    judged = {
        binding.meta.key: tuple(
            judge(snapshot.key, outcome, register, awaited=handed_over) if isinstance(outcome, Candidate) else outcome
            for outcome in outcomes.get(binding.meta.key, ())
        )
        for binding in bindings
    }
    judged = agree(judged, register)
    routed = {}
    for binding in bindings:
        verdicts = judged[binding.meta.key]
        resolved = {
            v.rule.name: _fitted(
                v,
                resolve(
                    v,
                    services=snapshot.services,
                    config_maps=snapshot.config_maps,
                    cluster_domain=snapshot.options.cluster_domain,
                ),
                schema,
            )
            for v in verdicts
            if isinstance(v, Candidate)
        }
        routed[binding.meta.key] = Routed(binding, verdicts, resolved)
    kept = succession.kept(register)
    passed = frozenset(hostname for hostname, keeps in kept.items() if keeps is Keeps.ROUTE)
    return Routing(routed, operations, handed_over | kept.keys(), passed)


def observed(routing: Routing, refused: Mapping[str, str]) -> Routing:
    """``routing`` with what connectors say of Services: ``refused`` has the rules that they do not dial.

    Only what is told is changed; what is compiled is not, for then nobody would look again.
    """
    if not refused:
        return routing
    bindings = {}
    for key, routed in routing.bindings.items():
        resolved = dict(routed.resolved)
        for candidate, found in routed.served:
            said = refused.get(rule_id(candidate))
            if said is not None and found.problem is None:
                resolved[candidate.rule.name] = replace(found, problem=Unresolved(NOT_ALLOWED, _sentence(said)))
        bindings[key] = replace(routed, resolved=resolved)
    return replace(routing, bindings=bindings)


def _sentence(said: str) -> str:
    return f"A connector does not dial the Service: {said}" + ("" if said.endswith(".") else ".")


def _fitted(candidate: Candidate, resolved: Resolved, schema: int) -> Resolved:
    keys = lacking(rule_of(candidate, resolved), schema) if later(schema) else ()
    if not keys:
        return resolved
    said = f"{', '.join(k.key for k in keys)}: a connector of the Tunnel is too old for it; {UPGRADE}"
    return Resolved(UnavailableService(said), OriginRequest(), Unresolved(TOO_OLD, said))
