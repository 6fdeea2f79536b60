"""The configuration that is being served, and the order in which a new one takes its place.

Responsible for the applied document with its router and compiled targets, swapped in one assignment, and for the pure
decision what a change needs: which hostnames leave, and which rules serve while the relays still route them here.

Must not know: sessions, files, Kubernetes, streams.

Invariants: a request sees one configuration, never half of two; a hostname that is added is served before any relay is
told of it; one that is removed is served until every relay has answered that it is not routed any more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from culvert_connector.origins import hello_world
from culvert_connector.origins.targets import Target, compile_rule, own_answer, status_page
from culvert_ingress.document import Document
from culvert_ingress.matching import Router
from culvert_ingress.rules import Rule

__all__ = ["Applied", "Change", "plan_change"]

FALLBACK = "fallback"
"""The rule id under which requests are counted that no rule matched."""


class Applied:
    """A document made ready for requests. Rules are compiled when they are first matched."""

    __slots__ = ("_by_port", "_fallback", "_targets", "document", "router")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.router = Router(document)
        self._targets: dict[str, Target] = {}
        # Of two rules with one port, which only a hand-made document has, the first counts, as for hostnames.
        ports = [(rule.relay_port, rule) for rule in reversed(document.rules) if rule.relay_port is not None]
        self._by_port: dict[int, Rule] = dict(ports)
        status = document.fallback_status
        self._fallback = own_answer(FALLBACK, status, status_page(status), reason="no_rule")

    def target(self, host: str, path: bytes) -> Target:
        """What serves this normalised host and path."""
        rule = self.router.match(host, path)
        return self._fallback if rule is None else self._compiled(rule)

    def port_target(self, port: int) -> Target | None:
        """What takes connections of this TCP port of the relay; None: no rule does."""
        rule = self._by_port.get(port)
        return None if rule is None else self._compiled(rule)

    def _compiled(self, rule: Rule) -> Target:
        target = self._targets.get(rule.id)
        if target is None:
            target = compile_rule(rule, policy=self.document.address_policy.value, hello_world=hello_world.PAGE)
            self._targets[rule.id] = target
        return target

    def rule_ids(self) -> set[str]:
        """Ids of all rules, the fallback's included."""
        return {rule.id for rule in self.document.rules} | {FALLBACK}


@dataclass(frozen=True, slots=True)
class Change:
    """How to get from one document to the next.

    `first` is served before the relays hear of the change, `final` after they have answered. They are the same
    document when nothing leaves: then there is nothing to wait for.
    """

    first: Document
    final: Document

    @property
    def waits(self) -> bool:
        """Whether the relays' answers come between the two."""
        return self.first is not self.final


def plan_change(old: Document | None, new: Document) -> Change:
    """The steps from `old` (None at the start) to `new`.

    Rules of hostnames that leave stay until the end: exact names before the new rules, so that nothing new shadows
    them, wildcards behind the new rules but before those for any host, so that they shadow nothing new.
    """
    if old is None:
        return Change(new, new)
    stays, ports = set(new.hostnames()), set(new.relay_ports())
    leaving = [
        rule
        for rule in old.rules
        if (rule.hostname and rule.hostname not in stays)
        or (rule.relay_port is not None and rule.relay_port not in ports)
    ]
    if not leaving:
        return Change(new, new)
    exact = [rule for rule in leaving if not rule.hostname.startswith("*.")]
    wild = [rule for rule in leaving if rule.hostname.startswith("*.")]
    named = [rule for rule in new.rules if rule.hostname]
    anything = [rule for rule in new.rules if not rule.hostname]
    rules = _distinct([*new.rules], exact, named, wild, anything)
    return Change(dataclasses.replace(new, rules=rules), new)


def _distinct(taken: Iterable[Rule], *groups: list[Rule]) -> tuple[Rule, ...]:
    """The groups in order; a rule that stays beyond its time gives way in id to a new one of the same id."""
    ids = {rule.id for rule in taken}
    kept = set(taken)
    result: list[Rule] = []
    for rule in (rule for group in groups for rule in group):
        if rule not in kept and rule.id in ids:
            rule = dataclasses.replace(rule, id=f"{rule.id} (leaving)")
        result.append(rule)
    return tuple(result)
