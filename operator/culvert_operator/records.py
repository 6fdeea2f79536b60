"""Records: what a Tunnel wants to be in DNS, what is there, and what may be forgotten.

Responsible for: served hostnames → endpoints, the DNS planner's verdicts → per-object lists and conditions.
Must not know: zones' contents (:mod:`culvert_operator.dns.plan` decides there), providers.
Invariants: a record is changed only when the object's *stored* status lists it (so that a crash never loses one),
and leaves the list only when its deletion is confirmed; a hostname is published first when a session serves it and
then stays, whatever connectors do (the latch); one name's trouble is that name's only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from culvert_ingress.addresses import AddressError, split_address
from culvert_operator.api.binding import Binding
from culvert_operator.api.binding import Published as Listed
from culvert_operator.api.dns import DNSSettings
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.conditions.condition import Condition
from culvert_operator.dns.endpoint import Endpoint, Published
from culvert_operator.dns.metrics import NO_FIGURES, Figures
from culvert_operator.dns.plan import (
    ALLOW_MASS_DELETION,
    REFUSED,
    DNSPlan,
    DNSView,
    State,
    Verdict,
    ZoneChanges,
    plan_zones,
    split_targets,
)
from culvert_operator.keys import ObjectKey

DNS_READY = "DNSReady"

_SETTLED = frozenset({State.GONE, State.KEPT})
"""Verdicts of a listed entry that nobody wants any more which let it go: confirmed gone, or to stay by policy."""

_WITHDRAWN = "No session has served the tunnel for dns.withdrawAfterSeconds; the record returns with the first session."

_NO_TARGET = (
    "The Tunnel's relay.addresses are names that only this cluster resolves, and visitors ask from outside; "
    "set the Tunnel's dns.target to the relay's public name or addresses."
)

_REASONS: Mapping[State, str] = {
    State.TO_LIST: "Pending",
    State.TO_WRITE: "Pending",
    State.TO_DELETE: "Pending",
    State.HELD: "DeletionHeld",
    State.NOT_OWNER: "NotOwner",
    State.ZONE_NOT_FOUND: "ZoneNotFound",
    State.INVALID: "InvalidName",
    State.APEX: "ApexNeedsAddresses",
    State.KEPT: "KeptByPolicy",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A served hostname: the binding whose record it is, and whether it may be published now."""

    hostname: str
    binding: Binding
    publish: bool


@dataclass(frozen=True, slots=True)
class Records:
    """The outcome for one Tunnel.

    ``changes`` are to be written now; ``listed`` says for each binding which records its status has to list for this
    Tunnel; ``abandoned`` are records that are left behind for good, by binding; ``leaving`` are listed
    records that nobody wants any more and that are not confirmed gone, ``pending`` their hostnames. ``withdrawn``: no
    record is wanted while no session serves. ``aimless``: no record is new, for want of a name that visitors resolve.
    """

    changes: tuple[ZoneChanges, ...] = ()
    listed: Mapping[ObjectKey, tuple[Listed, ...]] = field(default_factory=dict)
    abandoned: Mapping[ObjectKey, tuple[Listed, ...]] = field(default_factory=dict)
    verdicts: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)
    leaving: Mapping[Published, Verdict] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    withdrawn: bool = False
    aimless: bool = False
    figures: Figures = NO_FIGURES


def listed_by(binding: Binding, tunnel: ObjectKey) -> tuple[Listed, ...]:
    """The records that a binding's stored status lists for ``tunnel``."""
    return tuple(p for p in binding.published if p.tunnel == str(tunnel))


def target(tunnel: Tunnel, settings: DNSSettings) -> tuple[str | None, tuple[str, ...]]:
    """Where records point: (hostname, ()) for a CNAME or (None, addresses) for A and AAAA.

    By default the relay's addresses: IP addresses when all of them are, else the first host name, one that is not a
    Service's if there is one.
    """
    if settings.target_hostname:
        return settings.target_hostname, ()
    if settings.target_addresses:
        return None, settings.target_addresses
    hosts = _relay_hosts(tunnel)
    names = [host for host in hosts if not _is_ip(host)]
    return (min(names, key=_is_service), ()) if names else (None, tuple(hosts))


def apex_addresses(tunnel: Tunnel, settings: DNSSettings) -> tuple[str, ...]:
    """Where a zone's apex points, at which no CNAME can stand: the IP addresses that the Tunnel names, if it does."""
    return settings.target_addresses or tuple(host for host in _relay_hosts(tunnel) if _is_ip(host))


def aimless(tunnel: Tunnel, settings: DNSSettings) -> bool:
    """Whether records would point at the name of a Service, because the Tunnel does not say at what else."""
    hostname, _ = target(tunnel, settings)
    return not settings.target_hostname and hostname is not None and _is_service(hostname)


def _is_service(host: str) -> bool:
    """Whether it is ``NAME.NAMESPACE.svc``, with or without a cluster's domain."""
    return host.split(".")[2:3] == ["svc"]


def _relay_hosts(tunnel: Tunnel) -> list[str]:
    hosts = []
    for address in tunnel.relay.addresses:
        try:
            hosts.append(split_address(address)[0])
        except AddressError:
            continue
    return hosts


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def plan_records(
    key: ObjectKey,
    tunnel: Tunnel | None,
    view: DNSView | None,
    *,
    installation: str,
    wanted: Collection[Wanted],
    staying: Collection[str],
    bindings: Iterable[Binding],
    handed_on: Collection[tuple[ObjectKey, str, str]] = (),
    give_up: bool = False,
    withdraw: bool = False,
) -> Records:
    """Plan the records of one Tunnel over the bindings' stored lists.

    ``staying`` are hostnames that are about to change hands: their records are not touched. ``handed_on`` are listed
    records (binding, name, type) that are another Tunnel's now: they are forgotten.
    Without a provider (``view`` None: no ``dns``, or no Tunnel) nothing is planned, and records of objects that go
    are left behind. A failed read keeps every list as it is, unless ``give_up``: then records of what goes are left.
    ``withdraw``: nobody has served for so long that the Tunnel wants its records gone until somebody does.
    """
    by_key = {b.meta.key: b for b in bindings}
    listed = {k: tuple(p for p in listed_by(b, key) if (k, p.name, p.type) not in handed_on) for k, b in by_key.items()}
    everything = frozenset(p.name for found in listed.values() for p in found)
    if tunnel is None or tunnel.dns is None or view is None:
        return _without_provider(tunnel, listed, by_key, key)
    deleting = {k for k, b in by_key.items() if b.meta.deleting or tunnel.meta.deleting}
    leaves_all = tunnel.retains_records or tunnel.meta.abandons_records or (give_up and view.error is not None)
    dropped = {k: listed[k] for k in deleting if listed[k] and (leaves_all or by_key[k].meta.abandons_records)}
    for k in dropped:
        listed[k] = ()
    if view.error is not None:
        return Records(listed=listed, abandoned=dropped, pending=everything)
    hostname, addresses = target(tunnel, tunnel.dns)
    apex = apex_addresses(tunnel, tunnel.dns)
    apexes = {zone.zone: apex for zone in view.zones if apex}
    endpoints = {
        w.hostname: split_targets(
            w.hostname,
            hostname=None if w.hostname in apexes else hostname,
            addresses=apexes.get(w.hostname, addresses),
            ttl=tunnel.dns.ttl,
            resource=w.binding.resource,
        )
        for w in wanted
    }
    entries = {
        Published(p.name, p.type, by_key[k].resource): (k, p)
        for k, found in listed.items()
        for p in found
        if p.name not in staying
    }
    owner = tunnel.dns.owner_id or installation
    ours = {e.name for zone in view.zones for e in zone.endpoints if e.owner == owner}
    names = {entry.name for entry in entries}
    own = {(entry.name, entry.resource) for entry in entries}
    # The latch: what a binding published stays wanted, also by the one who takes a name over.
    nowhere = aimless(tunnel, tunnel.dns)
    publish = {
        w.hostname
        for w in wanted
        if not withdraw
        if (w.publish and not nowhere)
        or (w.hostname, w.binding.resource) in own
        or (w.hostname in names and w.hostname in ours)
    }
    withdrawn = {w.hostname for w in wanted} if withdraw else set()
    desired = [e for hostname in sorted(publish) for e in endpoints[hostname]]
    outcome = plan_zones(
        desired,
        listed=entries,
        view=view,
        owner=owner,
        policy=tunnel.dns.policy,
        adopt=tunnel.dns.adopt,
        # Who deletes a Tunnel has said that all of its records are to go.
        allowed_deletions=None if tunnel.meta.deleting else _allowed(tunnel.meta.annotations),
        withdrawn=withdrawn,
    )
    kept = {(e.name, e.type, e.resource) for e in desired}
    leaving = {
        entry: _told(verdict, view.failures.get(entry.name))
        for entry, verdict in outcome.listed.items()
        if (entry.name, entry.type, entry.resource) not in kept and verdict.state not in _SETTLED
    }
    return Records(
        changes=outcome.changes,
        listed=_lists(key, outcome, listed, entries, desired, leaving, staying),
        abandoned=dropped,
        verdicts={k: _told(v, view.failures.get(k[0])) for k, v in outcome.verdicts.items()},
        leaving=leaving,
        pending=frozenset(e.name for e in leaving if e.name not in publish) | frozenset(staying),
        endpoints={h: endpoints[h] for h in publish},
        withdrawn=withdraw,
        aimless=nowhere,
        figures=Figures(
            owned=len(ours),
            refused=len({name for (name, _), v in outcome.verdicts.items() if v.state in REFUSED}),
            held=outcome.held,
        ),
    )


def _allowed(annotations: Mapping[str, str]) -> int:
    """How many deletions the Tunnel's annotation allows in one round; 0 for none, or for what is no number."""
    said = annotations.get(ALLOW_MASS_DELETION, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0


def _told(verdict: Verdict, failure: str | None) -> Verdict:
    """A verdict with the sentence of its last failed write, when it waits for being written."""
    if failure is None or verdict.state not in (State.TO_WRITE, State.TO_DELETE):
        return verdict
    return Verdict(verdict.state, failure)


def _without_provider(
    tunnel: Tunnel | None,
    listed: dict[ObjectKey, tuple[Listed, ...]],
    by_key: Mapping[ObjectKey, Binding],
    key: ObjectKey,
) -> Records:
    """Nothing can be deleted: a living object keeps its list, one that goes leaves its records behind."""
    going = {k for k, binding in by_key.items() if binding.meta.deleting or tunnel is None or tunnel.meta.deleting}
    abandoned = {k: listed[k] for k in going if listed[k]}
    return Records(listed={k: () if k in going else found for k, found in listed.items()}, abandoned=abandoned)


def _lists(
    key: ObjectKey,
    outcome: DNSPlan,
    listed: Mapping[ObjectKey, tuple[Listed, ...]],
    entries: Mapping[Published, tuple[ObjectKey, Listed]],
    desired: Iterable[Endpoint],
    leaving: Collection[Published],
    staying: Collection[str],
) -> dict[ObjectKey, tuple[Listed, ...]]:
    """What each binding's status has to list after this round."""
    after = {k: {p for p in found if p.name in staying} for k, found in listed.items()}
    for entry in leaving:
        holder, published = entries[entry]
        after[holder].add(published)
    for e in desired:
        entry = Published(e.name, e.type, e.resource)
        known = entries.get(entry)
        state = outcome.verdicts[e.key].state
        if known is None:
            if state not in REFUSED:
                after[_holder(e.resource)].add(Listed(tunnel=str(key), name=e.name, type=e.type))
        elif outcome.listed[entry].state is not State.GONE:
            after[known[0]].add(known[1])
    return {k: tuple(sorted(found, key=lambda p: (p.name, p.type))) for k, found in after.items()}


def _holder(resource: str) -> ObjectKey:
    _, namespace, name = resource.split("/", 2)
    return ObjectKey(namespace, name)


def dns_ready(
    hostnames: Collection[str],
    records: Records,
    view: DNSView | None,
    *,
    resource: str,
    was_ready: bool,
) -> tuple[Condition, dict[str, tuple[str, str]]]:
    """The condition of a binding, and for each hostname its (state, message) for ``status.rules``."""
    if view is None:
        said = "The Tunnel has no dns; no record is touched."
        return Condition(DNS_READY, "True", "Disabled", said), {}
    if view.error is not None:
        if was_ready:
            # A failed read says nothing of the records: what was published is.
            return Condition(DNS_READY, "True", "Published", _published(hostnames)), {}
        return Condition(DNS_READY, "False", "ProviderError", view.error), {}
    states = {hostname: _state(hostname, records, view) for hostname in sorted(hostnames)}
    leaving = [(e, v) for e, v in sorted(records.leaving.items(), key=lambda i: i[0].name) if e.resource == resource]
    for hostname, (reason, message) in states.items():
        if reason not in ("Published", "Pending", "Withdrawn"):
            return Condition(DNS_READY, "False", reason, message or f"{hostname} is not published."), states
    for entry, verdict in leaving:
        failed = entry.name in view.failures and verdict.state is State.TO_DELETE
        reason = "ProviderError" if failed else _REASONS[verdict.state]
        return Condition(DNS_READY, "False", reason, verdict.message), states
    if records.withdrawn and hostnames:
        return Condition(DNS_READY, "False", "Withdrawn", _WITHDRAWN), states
    waiting = [hostname for hostname, (reason, _) in states.items() if reason == "Pending"]
    if waiting or not hostnames:
        said = f"Not published yet: {', '.join(waiting[:5])}." if waiting else "No rule is served yet."
        return Condition(DNS_READY, "False", "Pending", said), states
    return Condition(DNS_READY, "True", "Published", _published(hostnames)), states


def _published(hostnames: Collection[str]) -> str:
    return f"Published: {len(hostnames)} hostname{'s' if len(hostnames) != 1 else ''}."


def _state(hostname: str, records: Records, view: DNSView) -> tuple[str, str]:
    endpoints = records.endpoints.get(hostname, ())
    if not endpoints and records.withdrawn:
        return "Withdrawn", _WITHDRAWN
    if not endpoints and records.aimless:
        return "NoTarget", _NO_TARGET
    if not endpoints:
        return "Pending", "The record appears once a session serves the name."
    for endpoint in endpoints:
        verdict = records.verdicts.get(endpoint.key)
        if verdict is None or verdict.state is State.IN_PLACE:
            continue
        if verdict.state is State.TO_WRITE and hostname in view.failures:
            return "ProviderError", view.failures[hostname]
        return _REASONS.get(verdict.state, "Pending"), verdict.message
    return "Published", ""
