"""Connectors of an earlier version: which schema they read, and what they are given of what needs a later one.

Responsible for: the decision, for rules and for what the Tunnel itself says. Must not know: which key came with which
schema (:mod:`culvert_ingress.schemas`), nor how a document is made.
Invariants: a rule that cannot be read answers 503 and affects no other; a key of the Tunnel that cannot be read stays
as it is in force and holds up no rule; what is in force is never taken from connectors that can read it for the sake
of one that cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from culvert_ingress.document import SCHEMAS, Document
from culvert_ingress.rules import Rule, TCPService, UnavailableService
from culvert_ingress.schemas import DocumentKey, document_lacks, lacking, needed
from culvert_operator.reports import ConnectorReport

TOO_OLD = "ConnectorTooOld"
"""Reason of a rule, or a Tunnel, that uses what a connector of an earlier version cannot read."""
UPGRADE = "upgrade the connectors: spec.connector.image, or imageUpdatePolicy, of the Tunnel."


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a Tunnel itself says, as its connectors are given it: ``frame`` has no rules.

    ``schema`` is the one to which rules are compiled. Of the keys that some connector cannot read ``held`` are as they
    were before, and ``used`` are in force.
    """

    frame: Document
    schema: int
    held: tuple[DocumentKey, ...] = ()
    used: tuple[DocumentKey, ...] = ()

    @property
    def complaint(self) -> str:
        """Sentences about what cannot be read; empty when everything can be."""
        said = []
        if self.held:
            said.append(f"A connector is too old for {_named(self.held)}: what was in force before stays.")
        if self.used:
            said.append(f"A connector is too old for {_named(self.used)}: it gets no configuration.")
        return " ".join((*said, f"{UPGRADE[0].upper()}{UPGRADE[1:]}")) if said else ""


def _named(keys: tuple[DocumentKey, ...]) -> str:
    return ", ".join(f"spec.{key.key}" for key in keys)


def fit(wanted: Document, reports: Mapping[str, ConnectorReport | None], present: Document | None) -> Fitted:
    """Fit what a Tunnel says (a document without rules) to the connectors that are there.

    A key that is new stays as it is in the ``present`` document, for as long as such a connector is there. One that is
    used there already stays in use: connectors that read it go on, and one that cannot (an image that was rolled back)
    gets no configuration, so that its Pod is not ready and the rollout stops. So rules need not be compiled for it.
    """
    oldest = readable_schema(reports, present)
    frame, held, used = wanted, [], []
    for key in document_lacks(wanted, oldest):
        before = key.kept(frame, present) if present is not None else frame
        if key.uses(before):
            used.append(key)
        else:
            frame = before
            held.append(key)
    return Fitted(frame, max(oldest, needed(frame)), tuple(held), tuple(used))


def readable_schema(reports: Mapping[str, ConnectorReport | None], present: Document | None) -> int:
    """The latest schema that every connector reads.

    One that cannot be asked reads what it was given. With none at all it is the latest that there is: connectors will
    be of this version, or report that they are not.
    """
    given = SCHEMAS if present is None else tuple(s for s in SCHEMAS if s <= present.schema)
    read = set(SCHEMAS)
    for report in reports.values():
        read &= set(report.schemas) if report is not None else set(given)
    return max(read, default=SCHEMAS[0])


def readable(rule: Rule, schema: int) -> Rule:
    """A rule as connectors of this schema can read it: one that they cannot carry out answers 503."""
    keys = lacking(rule, schema)
    if not keys:
        return rule
    told = isinstance(rule.service, TCPService | UnavailableService)
    service = rule.service if told else UnavailableService(TOO_OLD)
    return Rule(rule.id, rule.hostname, rule.path, service, relay_port=rule.relay_port)
