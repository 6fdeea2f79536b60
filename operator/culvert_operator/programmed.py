"""Programmed: whether the connectors serve a binding's hostnames, by their own reports.

Responsible for: connector reports → the condition Programmed of a binding, and the hostnames that are served.
Must not know: Deployments, DNS.
Invariants: the ConfigMap is no evidence, only reports are: every *ready* connector has applied the version, and
every relay that it holds a session with has answered that version's hostnames. A connector that cannot be reached is
not counted; with none left the answer is Unknown, never False. One that was not heard *yet* proves nothing and undoes
nothing: what was true stays so, and nothing becomes true.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from culvert_operator.conditions.condition import Condition
from culvert_operator.reports import ConnectorReport

PROGRAMMED = "Programmed"
PROVEN = Condition(
    PROGRAMMED, "True", "Programmed", "Every ready connector serves the rules, and every relay accepted the hostnames."
)
HELD_BY_ANOTHER = "held_by_another_tunnel"
"""The relay's word for a name that an older claim of another tunnel has."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The connectors of a Tunnel as they reported: ready ones, all that answered, and how many there are.

    ``unheard``: some of them have not been heard yet, nor been given up.
    """

    ready: tuple[ConnectorReport, ...]
    reported: tuple[ConnectorReport, ...]
    pods: int
    unheard: bool = False

    @property
    def sessions(self) -> int:
        """Sessions that carry data, over all connectors."""
        return sum(s.serving for report in self.reported for s in report.sessions)

    @property
    def refused_origins(self) -> Mapping[str, str]:
        """Rules whose service some connector does not dial, with the first one's sentence."""
        found: dict[str, str] = {}
        for report in self.reported:
            for refused in report.refused_origins:
                found.setdefault(refused.rule, refused.message)
        return found

    @property
    def unreachable(self) -> bool:
        """Whether there are connectors and none of them can be asked."""
        return self.pods > 0 and not self.reported


def muster(reports: Mapping[str, ConnectorReport | None], unheard: Collection[str] = ()) -> Fleet:
    """The fleet, in order of the Pods' names; ``unheard`` are the names of those that were not heard yet."""
    reported = tuple(report for _, report in sorted(reports.items()) if report is not None)
    ready = tuple(r for r in reported if r.ready and not r.draining)
    return Fleet(ready, reported, len(reports), bool(unheard))


def programmed(
    fleet: Fleet, hostnames: Collection[str], *, version: int, proven: bool, taking: Collection[str] = ()
) -> Condition:
    """The condition of a binding that is served under ``hostnames`` since ``version``.

    ``proven``: it was True already for this generation and these rules. Then a connector that lags behind or comes
    and goes does not undo it; a refusal, or no ready connector at all, does. ``taking``: hostnames that another
    Tunnel serves until this one is ready, at relays that refuse them to it for so long.
    """
    if fleet.unheard and proven:
        return _refusal(fleet, frozenset(hostnames), version=0, taking=taking) or PROVEN
    if fleet.unheard and fleet.reported and not fleet.ready:
        return Condition(PROGRAMMED, "Unknown", "Unreachable", "No ready connector has answered the operator yet.")
    if fleet.unreachable:
        said = f"None of {fleet.pods} connectors answers the operator; traffic does not depend on it."
        return Condition(PROGRAMMED, "Unknown", "Unreachable", said)
    if not fleet.ready:
        return Condition(PROGRAMMED, "False", "NoConnector", "No connector is ready; see the Tunnel's conditions.")
    refused = _refusal(fleet, frozenset(hostnames), version=0 if proven else version, taking=taking)
    if refused is not None and refused.reason == "RouteRefused":
        return refused
    lagging = None if proven else _lag(fleet, version)
    if lagging is not None:
        return Condition(PROGRAMMED, "False", "NotApplied", lagging)
    if fleet.unheard:
        return Condition(PROGRAMMED, "False", "NotApplied", "A ready connector has not answered the operator yet.")
    return refused or PROVEN


def answered(fleet: Fleet, version: int) -> bool:
    """Whether every ready connector has applied ``version``, and every relay that it reaches has answered it."""
    return bool(fleet.ready) and not fleet.unheard and _lag(fleet, version) is None


def _refusal(fleet: Fleet, hostnames: frozenset[str], *, version: int, taking: Collection[str]) -> Condition | None:
    passing = None
    for report in fleet.ready:
        for refused in report.refused:
            if refused.hostname not in hostnames or report.applied_version < version:
                continue
            if refused.hostname in taking and refused.reason == HELD_BY_ANOTHER:
                said = f"{refused.hostname} is being taken over: the Tunnel that had it serves it until this one can."
                passing = Condition(PROGRAMMED, "False", "NotApplied", said)
                continue
            said = f"The relay {refused.relay} refuses {refused.hostname} ({refused.reason}); see relay.yml's issuers."
            return Condition(PROGRAMMED, "False", "RouteRefused", said)
    return passing


def _lag(fleet: Fleet, version: int) -> str | None:
    """Why ``version`` is not in force everywhere; no counts that change from moment to moment."""
    for report in fleet.ready:
        if report.applied_version < version:
            if report.config_error:
                return f"A connector cannot use the configuration: {report.config_error}"
            return "A ready connector has not applied the configuration yet."
        serving = [s for s in report.sessions if s.serving]
        if not serving:
            return "A ready connector holds no session that carries data."
        behind = sorted({s.relay for s in serving if s.grant_version < version})
        if behind:
            return f"The relay {behind[0]} has not answered the hostnames yet."
    return None
