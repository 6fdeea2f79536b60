"""The DNS planner: desired endpoints and a zone's actual ones in, changes and a verdict per name out.

Responsible for: deciding which names are created, changed or deleted, and why a name is left alone.
Must not know: providers, markers' names, Kubernetes, clocks.
Invariants: a record set that is not ours is in no change; one name's verdict does not depend on another's (but for
the brake on mass deletion); the same input gives the same output; what is in place is in no change.

"Ours" means: the marker's owner is our owner id. Several Tunnels may share an owner id, so *deleting* asks for
more: the record must be one that an object's status lists (``listed``), with the same resource in its marker.

::

    desired | zone holds at the name                   | listed | -> verdict      | change
    --------+------------------------------------------+--------+-----------------+-------
    yes     | nothing                                  | yes    | TO_WRITE        | create
    yes     | our marker without a record              | yes    | TO_WRITE        | create
    yes     | ours, other targets                      | yes    | TO_WRITE        | update
    yes     | ours, other TTL                          | yes    | TO_WRITE        | update
    yes     | ours, other type                         | yes    | TO_WRITE        | update
    yes     | ours, another resource                   | yes    | TO_WRITE        | update
    yes     | nothing                                  | no     | TO_LIST         | -
    yes     | ours, other targets                      | no     | TO_LIST         | -
    yes     | ours, same                               | yes    | IN_PLACE        | -
    yes     | ours, same                               | no     | IN_PLACE        | -
    yes     | an address type without a marker         | any    | NOT_OWNER       | -
    yes     | the same value without a marker          | any    | NOT_OWNER       | -
    yes     | another owner's, same value              | any    | NOT_OWNER       | -
    yes     | another owner's marker without a record  | any    | NOT_OWNER       | -
    yes     | TXT or MX beside                         | yes    | TO_WRITE        | create
    CNAME   | TXT or MX beside                         | any    | NOT_OWNER       | -
    CNAME   | the zone's SOA and NS (its apex)         | any    | APEX            | -
    yes     | the zone's SOA and NS (its apex)         | yes    | TO_WRITE        | create
    yes     | NS or DNAME above the name               | any    | NOT_OWNER       | -
    adopt   | the same value without a marker          | yes    | TO_WRITE        | update
    adopt   | the same value without a marker          | no     | TO_LIST         | -
    adopt   | another value without a marker           | any    | NOT_OWNER       | -
    adopt   | another owner's, same value              | any    | NOT_OWNER       | -
    no      | ours, same                               | yes    | TO_DELETE       | delete
    no      | ours, another resource                   | yes    | GONE            | -
    no      | ours, same                               | no     |                 | -
    no      | an address type without a marker         | yes    | GONE            | -
    no      | another owner's, same value              | yes    | GONE            | -
    no      | nothing                                  | yes    | GONE            | -
    yes     | (no zone holds the name)                 | any    | ZONE_NOT_FOUND  | -
    no      | (no zone holds the name)                 | yes    | ZONE_NOT_FOUND  | -
    yes     | (the marker's name does not fit)         | any    | INVALID         | -

"Ours, other type" is one update, never a deletion and a creation. What is ours and not listed is left when nobody
desires it: it is another Tunnel's of this owner id, or nobody's.

A listed entry that is still desired has the verdict of its endpoint; where that is a refusal, it is GONE when the
zone holds nothing of ours for it, else HELD: our record stays beside the foreign one until the person decides.
A policy turns TO_WRITE of an update into KEPT-as-it-is, and TO_DELETE into KEPT; the brake on mass deletion turns
every TO_DELETE of a round into HELD, but for names whose deletion the configuration itself asks for (``withdrawn``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address

from culvert_operator.dns.endpoint import ADDRESS_TYPES, PUBLISHED_TYPES, Endpoint, Published
from culvert_operator.dns.names import check_name, in_zone, zone_of
from culvert_operator.dns.policies import ALLOWED, Action, Policy, deletes_too_much

ALLOW_MASS_DELETION = "culvert.dev/allow-mass-deletion"
"""Annotation of a Tunnel: how many names may be deleted in one round although that looks like a mistake."""


class State(StrEnum):
    """Where a name stands after planning."""

    IN_PLACE = "InPlace"
    TO_LIST = "ToList"
    TO_WRITE = "ToWrite"
    TO_DELETE = "ToDelete"
    GONE = "Gone"
    KEPT = "Kept"
    HELD = "Held"
    NOT_OWNER = "NotOwner"
    ZONE_NOT_FOUND = "ZoneNotFound"
    INVALID = "Invalid"
    APEX = "Apex"


# The states in which a desired name is left to others, with a sentence for its owner.
REFUSED = frozenset({State.NOT_OWNER, State.ZONE_NOT_FOUND, State.INVALID, State.APEX})


@dataclass(frozen=True, slots=True)
class Verdict:
    """A name's state and a sentence for the person who asks why."""

    state: State
    message: str = ""


@dataclass(frozen=True, slots=True)
class ZoneView:
    """What one zone holds: every record set (other types as endpoints too), with what its marker says."""

    zone: str
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class DNSView:
    """A provider's zones as they were read.

    ``error`` is a sentence when reading failed: then nothing is known and nothing may be planned. ``failures`` holds
    the last failed write of a name, as a sentence. ``adjust`` gives endpoints as the provider would store them;
    ``retry_after`` is how many seconds a failed provider asked to be left alone.
    """

    zones: tuple[ZoneView, ...] = ()
    error: str | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    adjust: Callable[[Sequence[Endpoint]], Sequence[Endpoint]] = tuple
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """One name's step from ``before`` (exactly what was read) to ``after``: done whole or not at all."""

    name: str
    before: tuple[Endpoint, ...]
    after: tuple[Endpoint, ...]

    @property
    def action(self) -> Action:
        """Create, update or delete, as policies and metrics call it."""
        if not self.after:
            return Action.DELETE
        return Action.UPDATE if any(e.targets for e in self.before) else Action.CREATE


@dataclass(frozen=True, slots=True)
class ZoneChanges:
    """The changes of one zone, in order of their names."""

    zone: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class DNSPlan:
    """What to do, and what to tell: verdicts by (name, type) of what is desired, and by listed entry."""

    changes: tuple[ZoneChanges, ...] = ()
    verdicts: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)
    listed: Mapping[Published, Verdict] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """How many listed entries wait for a person to allow a mass deletion."""
        return sum(verdict.state is State.HELD for verdict in self.listed.values())


class UnknownZoneError(ValueError):
    """The view holds no reading to plan from; planning on it would take a failed read for an empty zone."""


def plan_zones(
    desired: Sequence[Endpoint],
    *,
    listed: Iterable[Published],
    view: DNSView,
    owner: str,
    policy: Policy = Policy.SYNC,
    adopt: bool = False,
    allowed_deletions: int | None = 0,
    withdrawn: Collection[str] = (),
) -> DNSPlan:
    """Plan every name that is desired or listed by a status; see the table above.

    ``desired`` holds at most one endpoint per name and type, and never CNAME beside another type; ``listed`` holds
    every record that was or may have been written and is not yet confirmed gone, wanted or not. ``adopt`` takes over
    an unmarked record set with exactly the desired targets. ``allowed_deletions`` is how many deletions a person has
    allowed in one round beyond the brake (None: any number); ``withdrawn`` names are not counted by it.
    Raises UnknownZoneError for a view with an error.
    """
    if view.error is not None:
        raise UnknownZoneError(f"DNS cannot be planned from a failed read: {view.error}")
    zones = {zone.zone: zone for zone in view.zones}
    wanted: dict[str, list[Endpoint]] = defaultdict(list)
    for one in view.adjust(desired):
        wanted[one.name].append(replace(one, owner=owner))
    entries: dict[str, list[Published]] = defaultdict(list)
    for entry in listed:
        entries[entry.name].append(entry)
    by_zone = {name: _index(zone) for name, zone in zones.items()}
    verdicts: dict[tuple[str, str], Verdict] = {}
    formers: dict[Published, Verdict] = {}
    changes: dict[str, list[Change]] = defaultdict(list)
    for name in sorted(wanted.keys() | entries.keys()):
        zone = zone_of(name, tuple(zones))
        context = _Name(name, wanted[name], entries[name], owner, policy, adopt)
        if zone is None:
            context.nowhere(tuple(zones))
        else:
            context.decide(zone, by_zone[zone])
        verdicts.update(context.verdicts)
        formers.update(context.formers)
        if context.change is not None and zone is not None:
            changes[zone].append(context.change)
    _brake(changes, formers, view, owner, allowed_deletions, frozenset(withdrawn))
    ordered = tuple(ZoneChanges(zone, tuple(found)) for zone, found in sorted(changes.items()) if found)
    return DNSPlan(ordered, verdicts, formers)


def _index(zone: ZoneView) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = defaultdict(list)
    for one in zone.endpoints:
        found[one.name].append(one)
    return found


def _brake(
    changes: dict[str, list[Change]],
    formers: dict[Published, Verdict],
    view: DNSView,
    owner: str,
    allowed: int | None,
    withdrawn: frozenset[str],
) -> None:
    doomed = {c.name for found in changes.values() for c in found if c.action is Action.DELETE} - withdrawn
    owned = len({e.name for zone in view.zones for e in zone.endpoints if e.owner == owner})
    if allowed is None or len(doomed) <= allowed or not deletes_too_much(len(doomed), owned):
        return
    for zone, found in changes.items():
        changes[zone] = [change for change in found if change.name not in doomed]
    said = (
        f"{len(doomed)} of {owned} owned names would be deleted at once, which looks like a mistake; when it is meant, "
        f"annotate the Tunnel with {ALLOW_MASS_DELETION}={len(doomed)}."
    )
    for entry, verdict in formers.items():
        if verdict.state is State.TO_DELETE and entry.name in doomed:
            formers[entry] = Verdict(State.HELD, said)


@dataclass(slots=True)
class _Name:
    """Decides one name; fills verdicts, formers and change."""

    name: str
    wanted: list[Endpoint]
    listed: list[Published]
    owner: str
    policy: Policy
    adopt: bool
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    formers: dict[Published, Verdict] = field(default_factory=dict)
    change: Change | None = None

    def nowhere(self, zones: tuple[str, ...]) -> None:
        """No zone of the provider holds the name: nothing can be written, nor seen to be gone."""
        known = ", ".join(zones) or "none"
        verdict = Verdict(State.ZONE_NOT_FOUND, f"no zone for {self.name}; the provider's zones: {known}.")
        self._all(verdict)
        self.formers = dict.fromkeys(self.listed, verdict)

    def decide(self, zone: str, index: Mapping[str, list[Endpoint]]) -> None:
        """Fill in the name's verdicts and its change, by the table."""
        actual = index.get(self.name, [])
        ours = tuple(sorted((e for e in actual if e.owner == self.owner), key=_key))
        refusal = self._refusal(zone, actual, index) if self.wanted else None
        if refusal is not None:
            self._all(refusal)
            self._release(ours)
            return
        if self.wanted:
            self._write(ours, actual)
        self._release(ours)

    def _all(self, verdict: Verdict) -> None:
        self.verdicts = {e.key: verdict for e in self.wanted}

    def _refusal(self, zone: str, actual: list[Endpoint], index: Mapping[str, list[Endpoint]]) -> Verdict | None:
        if (problem := check_name(self.name)) is not None:
            return Verdict(State.INVALID, problem)
        wants_cname = any(e.type == "CNAME" for e in self.wanted)
        if wants_cname and self.name == zone:
            said = (
                f"{self.name} is its zone's apex, where no CNAME can stand; set dns.target.addresses, or list the "
                "relay's IP addresses in relay.addresses."
            )
            return Verdict(State.APEX, said)
        targets = {e.key: e.targets for e in self.wanted}
        for found in actual:
            if found.owner == self.owner:
                continue
            if found.type not in ADDRESS_TYPES and not wants_cname:
                continue
            if self.adopt and not found.owner and targets.get(found.key) == found.targets:
                continue
            whose = f"belongs to owner {found.owner!r}" if found.owner else "has no ownership record of ours"
            return Verdict(
                State.NOT_OWNER,
                f"{self.name} already has a {found.type} record that {whose}; it is left as it is. "
                "Remove that record, or publish another name.",
            )
        parent = self.name.removeprefix("*.")
        while parent != zone and in_zone(parent, zone):
            if any(e.type in ("NS", "DNAME") for e in index.get(parent, ())):
                said = f"{parent} is delegated to other name servers; publish {self.name} there."
                return Verdict(State.NOT_OWNER, said)
            parent = parent.partition(".")[2]
        return None

    def _write(self, ours: tuple[Endpoint, ...], actual: list[Endpoint]) -> None:
        after = tuple(sorted(self.wanted, key=_key))
        adopted = tuple(e for e in actual if not e.owner and any(e.key == w.key for w in after))
        if _same(ours, after):
            self.verdicts = dict.fromkeys((e.key for e in after), Verdict(State.IN_PLACE))
            return
        change = Change(self.name, tuple(sorted((*ours, *adopted), key=_key)), after)
        listed = {(e.name, e.type, e.resource) for e in self.listed}
        if change.action not in ALLOWED[self.policy]:
            said = f"{self.name} differs from what is wanted; the policy {self.policy} does not allow changing it."
            self._all(Verdict(State.KEPT, said))
        elif any((e.name, e.type, e.resource) not in listed for e in after):
            self._all(Verdict(State.TO_LIST, f"{self.name} is about to be written."))
        else:
            self.change = change
            self._all(Verdict(State.TO_WRITE, f"{self.name} is about to be written."))

    def _release(self, ours: tuple[Endpoint, ...]) -> None:
        """Verdicts of the listed entries; a change that deletes what of ours nobody wants any more."""
        wanted = {(e.name, e.type, e.resource) for e in self.wanted}
        doomed = []
        for entry in self.listed:
            mine = [e for e in ours if e.key == entry.key and e.resource == entry.resource]
            if (entry.name, entry.type, entry.resource) in wanted:
                verdict = self.verdicts[entry.key]
                if verdict.state in REFUSED:
                    verdict = Verdict(State.HELD, verdict.message) if mine else Verdict(State.GONE)
                self.formers[entry] = verdict
            elif not mine:
                self.formers[entry] = Verdict(State.GONE)
            elif self.wanted:
                # The name itself stays wanted: its own change, now or later, takes this record set away.
                self.formers[entry] = Verdict(State.TO_DELETE, f"{entry.name} is about to be changed.")
            elif Action.DELETE not in ALLOWED[self.policy]:
                said = f"the record stays: the policy {self.policy} does not delete."
                self.formers[entry] = Verdict(State.KEPT, said)
            else:
                self.formers[entry] = Verdict(State.TO_DELETE, f"{entry.name} is about to be deleted.")
                doomed.extend(mine)
        if doomed:
            self.change = Change(self.name, tuple(sorted(doomed, key=_key)), ())


def _key(one: Endpoint) -> tuple[str, str]:
    return one.key


def _same(ours: tuple[Endpoint, ...], after: tuple[Endpoint, ...]) -> bool:
    def facts(found: tuple[Endpoint, ...]) -> list[tuple[str, str, tuple[str, ...], int, str]]:
        return [(e.name, e.type, e.targets, e.ttl, e.resource) for e in found]

    return facts(ours) == facts(after)


def split_targets(
    name: str, *, hostname: str | None, addresses: Sequence[str], ttl: int, resource: str
) -> tuple[Endpoint, ...]:
    """The endpoints that lead ``name`` to a relay: one CNAME to ``hostname``, or A and AAAA of ``addresses``."""
    if hostname is not None:
        return (Endpoint(name, "CNAME", (hostname.rstrip(".").lower(),), ttl, "", resource),)
    by_type: dict[str, set[str]] = {kind: set() for kind in PUBLISHED_TYPES if kind != "CNAME"}
    for address in addresses:
        parsed = ip_address(address)
        by_type["A" if parsed.version == 4 else "AAAA"].add(str(parsed))
    return tuple(
        Endpoint(name, kind, tuple(sorted(found)), ttl, "", resource) for kind, found in by_type.items() if found
    )
