"""Succession: how a hostname passes from one Tunnel to another without a moment in which nobody answers for it.

Responsible for: whether a claim may pass while its route and record are still there, and what each of the two Tunnels
does until nothing of the former one is left. Must not know: how claims, routes or records are written.

The claim passes first, and says in ``former`` what the Tunnel K that had it goes on with, while L, which has it now,
makes ready. L moves ``keeps`` on, K takes ``former`` out once nothing of the name is left with it::

    keeps   | K, which had it                        | L, which has it                        | L moves on when
    --------+----------------------------------------+----------------------------------------+------------------------
    Route   | serves it as before: route, its grant  | has the rule and the name in its grant | every relay has answered
            | with the older claimedAt, record       |                                        | every ready connector
    Record  | takes it out of rules and grant        | serves it; changes the record          | the record is L's, or
            |                                        |                                        | none is wanted
    Nothing | forgets the record, then ``former``    |                                        |

Both grants list the name under ``Route``, and a relay lets only the older claim serve: that is K, and L from the moment
in which K's last session presents a grant without it. So a visitor is answered by exactly one of them at any time.
The order is bound to time: after PASSING_SECONDS K lets go of what it keeps, whether L is ready or not.

It is possible only between Tunnels of one *place*: the same relays, and the same DNS provider and owner. Elsewhere a
record leads visitors to relays that L's connectors do not reach, or is one that L may not change: there K's record and
route go first, and the claim passes after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from culvert_ingress.document import Document
from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Claim, Former, Keeps, Waiter, milliseconds
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.candidates import names
from culvert_operator.compile import name_of
from culvert_operator.keys import ObjectKey
from culvert_operator.programmed import answered, muster
from culvert_operator.register import Register
from culvert_operator.relations import tunnel_of
from culvert_operator.world import Snapshot
from culvert_protocol.granted import port_of

PASSING_SECONDS = 60
"""How long the former Tunnel keeps what it had for one that does not get ready."""

_LOCAL = ("endpoints",)
"""Providers that keep records in objects of the Tunnel's namespace."""


def place(tunnel: Tunnel, installation: str) -> tuple[object, ...]:
    """What two Tunnels must have in common for a record of one to be the other's to change."""
    dns = tunnel.dns
    relays = frozenset(address.lower() for address in tunnel.relay.addresses)
    if dns is None:
        return (relays,)
    # A Secret or ConfigMap of another namespace is another one, whatever is in it.
    local = dns.secret is not None or dns.config_map is not None or dns.provider in _LOCAL
    namespace = tunnel.meta.namespace if local else ""
    owner = dns.owner_id or installation
    return (relays, owner, dns.provider, dns.settings, dns.zones, dns.secret, dns.config_map, namespace)


def in_use_of(snapshot: Snapshot, routes: Document | None) -> Callable[[str], bool]:
    """Whether a Tunnel with these ``routes`` has a route or a record of a hostname."""
    listed = {p.name for b in snapshot.bindings for p in b.published if p.tunnel == str(snapshot.key)}
    routed = {name_of(rule) for rule in routes.rules} if routes is not None else set()
    return lambda hostname: hostname in listed or hostname in routed


@dataclass(frozen=True, slots=True)
class Succession:
    """The succession as the planner of one Tunnel sees it. ``served``: the Tunnel is; ``present`` is its stored
    document; ``in_use(hostname)`` says whether a route or a record of it is left."""

    snapshot: Snapshot
    served: bool
    present: Document | None
    in_use: Callable[[str], bool]

    def passes(self, heir: ObjectKey) -> bool:
        """Whether what this Tunnel gives up can be kept until ``heir`` has taken it over."""
        found = self.snapshot.others.get(heir)
        if not self.served or found is None or found.meta.deleting or found.meta.paused:
            return False
        return self.snapshot.options.may_hold_tunnels(heir.namespace) and self._beside(heir)

    def _beside(self, other: ObjectKey) -> bool:
        """Whether another Tunnel has the same place."""
        mine, found, installation = self.snapshot.tunnel, self.snapshot.others.get(other), self.snapshot.installation
        return mine is not None and found is not None and place(mine, installation) == place(found, installation)

    def mover(self, claim: Claim, now: str) -> Waiter | None:
        """The holder that wants the hostname of another Tunnel now, whose planner may not have seen that yet."""
        for binding in sorted(self.snapshot.bindings, key=lambda b: b.meta.name):
            tunnel = tunnel_of(binding, self.snapshot.options)
            holds = any(p.binding == binding.meta.name for p in claim.paths)
            if binding.meta.namespace != claim.namespace or not holds or binding.meta.deleting:
                continue
            if tunnel != self.snapshot.key and claim.hostname in names(binding) and self.passes(tunnel):
                return Waiter(*binding.meta.key, tunnel, now)
        return None

    def keeps(self, claim: Claim) -> Keeps:
        """What this Tunnel goes on with for the one that has the claim now."""
        former = claim.former
        if former is None or former.tunnel != self.snapshot.key or not self.served:
            return Keeps.NOTHING
        # A clock that was put back must not make it for ever.
        over = abs(self.snapshot.now * 1000 - milliseconds(claim.claimed_at)) >= PASSING_SECONDS * 1000
        return Keeps.NOTHING if over else former.keeps

    def left(self, claim: Claim) -> Former | None:
        """``former`` of a claim of another Tunnel: gone, when it is this one and nothing is left with it."""
        mine = claim.former is not None and claim.former.tunnel == self.snapshot.key
        return None if mine and not (self.served and self.in_use(claim.hostname)) else claim.former

    def moved(self, claim: Claim) -> Former | None:
        """``former`` of a claim that this Tunnel has: one step on, when what it waits for has come."""
        former = claim.former
        if former is not None and former.keeps is Keeps.ROUTE and self._stands_by(claim.hostname):
            return replace(former, keeps=Keeps.RECORD)
        if former is not None and former.keeps is Keeps.RECORD and self._recorded(claim.hostname):
            return replace(former, keeps=Keeps.NOTHING)
        return former

    def _stands_by(self, hostname: str) -> bool:
        present = self.present
        if present is None or all(name_of(rule) != hostname for rule in present.rules):
            return False
        return answered(muster(self.snapshot.reports, self.snapshot.unheard), present.version)

    def _recorded(self, hostname: str) -> bool:
        tunnel, view = self.snapshot.tunnel, self.snapshot.dns
        if tunnel is None or tunnel.dns is None or port_of(hostname) is not None:
            return True
        if view is None or view.error is not None:
            return False
        listed = {e for b in self.snapshot.bindings for e in self._listed(b, hostname)}
        owner = tunnel.dns.owner_id or self.snapshot.installation
        held = {(e.type, e.resource) for z in view.zones for e in z.endpoints if (e.name, e.owner) == (hostname, owner)}
        return bool(held) and held <= listed

    def _listed(self, binding: Binding, hostname: str) -> Iterator[tuple[str, str]]:
        here = (str(self.snapshot.key), hostname)
        return ((p.type, binding.resource) for p in binding.published if (p.tunnel, p.name) == here)

    def until(self, claims: Iterable[Claim]) -> float | None:
        """Epoch seconds at which the first of what this Tunnel keeps is over."""
        since = (milliseconds(c.claimed_at) / 1000 for c in claims if self.keeps(c) is not Keeps.NOTHING)
        return min((moment + PASSING_SECONDS for moment in since), default=None)

    def kept(self, claims: Iterable[Claim]) -> Mapping[str, Keeps]:
        """The hostnames of which this Tunnel keeps something for another."""
        return {c.hostname: found for c in claims if (found := self.keeps(c)) is not Keeps.NOTHING}

    def handed_on(self, register: Register) -> Iterator[tuple[ObjectKey, str, str]]:
        """Listed records (binding, name, type) that the same binding has listed for the Tunnel which took it over.

        Both have the same resource, so that only the lists tell whose the record is now: it is not this Tunnel's any
        more to delete.
        """
        key = str(self.snapshot.key)
        for binding in self.snapshot.bindings:
            places = {(p.tunnel, p.name, p.type) for p in binding.published}
            for tunnel, name, kind in places:
                claim = register.get(name)
                if tunnel != key or claim is None or claim.tunnel == self.snapshot.key:
                    continue
                if (str(claim.tunnel), name, kind) in places and self._beside(claim.tunnel):
                    yield binding.meta.key, name, kind
