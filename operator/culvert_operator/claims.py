"""Claims: who holds a hostname, who waits for it, and what one Tunnel's planner does about it.

Responsible for: from the candidates and the HostnameClaims of the cluster to the operations on claims. Which rules
they let be served, :mod:`culvert_operator.verdicts` says. Must not know: Services, DNS, connectors.

A claim belongs to a *namespace* in one Tunnel. The table of one hostname H, seen by the planner of Tunnel K:

::

    claim of H          | wanted in K by               | -> operation
    --------------------+------------------------------+----------------------------------------------------------
    none                | nobody                       | -
    none                | N; a conflicting claim       | N's bindings into its waiting, with H (HostnameConflict)
    none                | N                            | create for N, its bindings' paths; others of K wait
    K's, being deleted  | any                          | -
    K's, of N           | N; an older conflicting claim| as if nobody wanted it (of two at once the older one wins)
    K's, of N           | N (and others)               | update when paths or waiting changed
    K's, of N           | not N; first waiter is K's   | hand over to the waiter's namespace at once (record is changed)
    K's, of N           | nobody; waiter of a Tunnel L | hand over to it at once, K being ``former`` until nothing of it
                        |         of the same place    | is left with K (:mod:`culvert_operator.succession`)
    K's, of N           | nobody; ``former`` is left   | - (what the former Tunnel keeps goes first)
    K's, of N           | nobody; route or record left | - (the route and the record go first)
    K's, of N           | nobody; old sessions of K    | without paths (relays confirm the end of a K that went first)
    K's, of N           | nobody; waiter of Tunnel L   | hand over to it, paths empty (L fills them in)
    K's, of N           | nobody; waiters for others   | vacant: they claim what they want, in order; then delete
    K's, of N           | nobody                       | delete
    another Tunnel's    | N                            | N's bindings into waiting
    another Tunnel's    | nobody any more              | K's bindings out of waiting, K out of ``former``

"Conflicting" is a claim of another namespace whose pattern covers H or is covered by it: a wildcard reserves its
subtree, unless its rule says ``wildcard: Fallback``. One that reserves from now on is a new claim by its time, so that
nobody below it loses a name. Invariants: a hostname has one holder, whatever the order of events; claims age by
``claimedAt``, never by an object's age, so an old object cannot take a newer name, and what begins now is younger than
all that it could take, whatever the clocks say; a claim is only written by the Tunnel that holds it, but for the
waiting list and ``former``; nothing new is entered for an object without our finalizer, for it could vanish without a
word; who waits keeps the place when it has to wait at another claim. Ties between bindings that ask at once are broken
by age, namespace and name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from culvert_operator.api.claim import (
    MAX_PATHS,
    MAX_WAITING,
    Claim,
    ClaimPath,
    Former,
    Keeps,
    Waiter,
    claim_body,
    claim_name,
    milliseconds,
    timestamp,
)
from culvert_operator.candidates import Candidate, by_age
from culvert_operator.keys import ObjectKey
from culvert_operator.register import Register
from culvert_operator.relations import tunnels_of_claim
from culvert_operator.succession import Succession
from culvert_operator.world import ClaimCreate, ClaimDelete, ClaimOp, ClaimUpdate


def arbitrate(
    tunnel: ObjectKey,
    candidates: Sequence[Candidate],
    stored: Register,
    *,
    succession: Succession,
    lingers: bool = False,
    now: float,
) -> tuple[tuple[ClaimOp, ...], frozenset[str]]:
    """The operations on the ``stored`` claims, and the hostnames that are about to change hands inside this Tunnel.

    ``candidates`` are those of bindings that are to be served; ``succession`` says whether a route or a record of this
    Tunnel is still left for a hostname that nobody wants any more, and whether another may take over meanwhile;
    ``lingers``: sessions of a Tunnel that goes or went may still serve what it holds.
    """
    register = Register(beneath=stored)
    demands: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: by_age(c.binding)):
        demands[candidate.hostname].append(candidate)
    clerk = _Clerk(tunnel, register, succession, lingers, timestamp(now))
    clerk.line_up(demands, stored)
    concerned = {c.hostname for c in stored if c.hostname in clerk.queues or tunnel in tunnels_of_claim(c)}
    for hostname in (*demands, *sorted(concerned - demands.keys())):
        clerk.attend(hostname, demands.get(hostname, []))
    return tuple(clerk.operations), frozenset(clerk.handed_over)


def let_go(
    tunnel: ObjectKey,
    leaving: frozenset[ObjectKey],
    wants: Callable[[str, str], bool],
    stored: Register,
    *,
    succession: Succession,
    now: float,
) -> tuple[tuple[ClaimOp, ...], frozenset[str]]:
    """The operations of a paused Tunnel: the bindings that leave it give up paths and places, and others get nothing.

    ``wants(hostname, namespace)`` says whether a binding that stays still has the hostname.
    """
    clerk = _Clerk(tunnel, Register(beneath=stored), succession, False, timestamp(now), leaving)
    for claim in sorted((c for c in stored if tunnel in tunnels_of_claim(c)), key=lambda c: c.hostname):
        clerk.let_go(claim, wants)
    return tuple(clerk.operations), frozenset(clerk.handed_over)


@dataclass(slots=True)
class _Clerk:
    """``leaving``: of a paused Tunnel, the bindings that leave it; None for one that is not paused."""

    tunnel: ObjectKey
    register: Register
    succession: Succession
    lingers: bool
    now: str
    leaving: frozenset[ObjectKey] | None = None
    operations: list[ClaimOp] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)
    queues: dict[str, list[Candidate]] = field(default_factory=lambda: defaultdict(list))
    since: dict[tuple[ObjectKey, str], str] = field(default_factory=dict)

    def line_up(self, demands: dict[str, list[Candidate]], stored: Register) -> None:
        """Find the claim at which each candidate waits that cannot be served by its own hostname's, and take those who
        wait elsewhere out of ``demands``. A place is kept when somebody has to move to another claim."""
        places: dict[tuple[ObjectKey, str], set[str]] = defaultdict(set)
        for held in stored:
            for waiter in held.waiting:
                if waiter.tunnel == self.tunnel:
                    place = (waiter.key, waiter.hostname or held.hostname)
                    places[place].add(held.hostname)
                    self.since[place] = min(waiter.since, self.since.get(place, waiter.since))
        for hostname, wanted in demands.items():
            claim = stored.get(hostname)
            if claim is not None and not claim.vacant and not self._void(claim):
                continue
            for candidate in tuple(wanted):
                place = (candidate.binding.meta.key, hostname)
                blocking = self._in_the_way(candidate, stored)
                if not blocking:
                    # Its turn: the place is kept until the claim is stored.
                    for vacant in stored.vacant(hostname, yields=candidate.yields):
                        self.queues[vacant.hostname].append(candidate)
                else:
                    known = [c for c in blocking if c.hostname in places[place]]
                    self.queues[(known or blocking)[0].hostname].append(candidate)
                    wanted.remove(candidate)

    def _in_the_way(self, candidate: Candidate, stored: Register) -> list[Claim]:
        """The claims that keep a hostname which nobody has from being claimed: others' over or under it, or vacant ones
        where it is not the candidate's turn."""
        hostname, meta, yields = candidate.hostname, candidate.binding.meta, candidate.yields
        others = stored.conflicting(hostname, meta.namespace, yields=yields)

        def its_turn(vacant: Claim) -> bool:
            return any((w.key, w.tunnel, w.hostname) == (meta.key, self.tunnel, hostname) for w in stored.turns(vacant))

        return others or [c for c in stored.vacant(hostname, yields=yields) if not its_turn(c)]

    def _void(self, claim: Claim) -> bool:
        return claim.tunnel == self.tunnel and self.register.older_conflict(claim) is not None

    def attend(self, hostname: str, wanted: list[Candidate]) -> None:
        """One row of the table in the module's docstring."""
        claim = self.register.get(hostname)
        if claim is None:
            if wanted:
                self._create(hostname, wanted)
        elif claim.deleting:
            return
        elif claim.tunnel != self.tunnel:
            waiting, former = self._waiting(claim, wanted, served=None), self.succession.left(claim)
            self._write(claim, replace(claim, waiting=waiting, former=former))
        elif not claim.vacant and any(c.binding.meta.namespace == claim.namespace for c in wanted):
            paths = _paths(claim.paths, wanted, claim.namespace)
            waiting = self._waiting(claim, wanted, served=_served(paths, claim.namespace, wanted))
            yields = _yields(paths, wanted, claim.namespace)
            since = self._from_now_on(claim) if claim.yields and not yields else claim.claimed_at
            moved = self.succession.moved(claim)
            self._write(
                claim, replace(claim, paths=paths, waiting=waiting, yields=yields, claimed_at=since, former=moved)
            )
        else:
            self._vacate(claim, wanted)

    def let_go(self, claim: Claim, wants: Callable[[str, str], bool]) -> None:
        """What those who leave a paused Tunnel have of a claim."""
        assert self.leaving is not None
        waiting = self._waiting(claim, [], served=None)
        paths = tuple(p for p in claim.paths if ObjectKey(claim.namespace, p.binding) not in self.leaving)
        if claim.deleting:
            return
        if claim.tunnel != self.tunnel:
            self._write(claim, replace(claim, waiting=waiting, former=self.succession.left(claim)))
        elif not claim.vacant and (paths or not claim.paths or wants(claim.hostname, claim.namespace)):
            moved = self.succession.moved(claim)
            self._write(claim, replace(claim, paths=paths, waiting=waiting, former=moved))
        else:
            self._vacate(claim, [])

    def _create(self, hostname: str, wanted: list[Candidate]) -> None:
        wanted = [c for c in wanted if c.binding.meta.has_finalizer]
        for first in wanted:
            namespace = first.binding.meta.namespace
            yields = _yields(_paths((), wanted, namespace), wanted, namespace)
            if not self.register.conflicting(hostname, namespace, yields=yields):
                break
        else:
            return
        paths = _paths((), wanted, namespace)
        claim = Claim(
            hostname=hostname,
            namespace=namespace,
            tunnel=self.tunnel,
            claimed_at=self.now,
            paths=paths,
            yields=yields,
        )
        waiting = self._waiting(claim, wanted, served=_served(paths, namespace, wanted))
        claim = replace(claim, waiting=waiting)
        self.register.add(claim)
        self.operations.append(ClaimCreate(claim_name(hostname), claim_body(claim)))

    def _vacate(self, claim: Claim, wanted: list[Candidate]) -> None:
        """The holder has left: the first waiter takes over, or the claim goes once nothing is left of its route."""
        waiting = self._waiting(claim, wanted, served=None)
        turns = self.register.turns(replace(claim, waiting=waiting))
        heir = next((w for w in turns if not w.hostname), None)
        if not waiting and not claim.vacant and not self._void(claim):
            heir = self.succession.mover(claim, self.now)
        if claim.former is not None and (heir is None or heir.tunnel != self.tunnel):
            # One succession after the other: what the former Tunnel keeps goes first.
            done = replace(claim.former, keeps=Keeps.NOTHING)
            self._write(claim, replace(claim, paths=(), waiting=waiting, former=done))
        elif heir is not None and heir.tunnel == self.tunnel and self.leaving is None and not self.lingers:
            self.handed_over.append(claim.hostname)
            paths = _paths((), wanted, heir.namespace)
            served = _served(paths, heir.namespace, wanted)
            heirless = tuple(w for w in waiting if w.hostname or w.key not in served)
            yields = _yields(paths, wanted, heir.namespace)
            self._write(claim, replace(self._given(claim, heir, paths, heirless), yields=yields))
        elif (
            heir is not None
            and not self.lingers
            and self.succession.in_use(claim.hostname)
            and self.succession.passes(heir.tunnel)
        ):
            self.handed_over.append(claim.hostname)
            left = tuple(w for w in waiting if w != heir)
            former = Former(self.tunnel, claim.claimed_at, Keeps.ROUTE)
            self._write(claim, replace(self._given(claim, heir, (), left), former=former))
        elif self.succession.in_use(claim.hostname):
            self._write(claim, replace(claim, waiting=waiting))
        elif self.lingers:
            # No binding's deletion waits for a relay.
            self._write(claim, replace(claim, paths=(), waiting=waiting))
        elif heir is not None:
            left = tuple(w for w in waiting if w != heir)
            self._write(claim, self._given(claim, heir, (), left))
        elif waiting:
            # They take what they want of it one after the other, or wait for what else is in their way.
            self._write(claim, replace(claim, paths=(), waiting=waiting, vacant=True))
        else:
            self._delete(claim)

    def _from_now_on(self, claim: Claim) -> str:
        """The time of what begins now: later than it had before and than all that it could take a name from, even
        where another operator's clock was ahead."""
        known = [claim, *self.register.conflicting(claim.hostname, "")]
        newest = max(milliseconds(one.claimed_at) for one in known)
        return max(self.now, timestamp((newest + 1) / 1000))

    def _given(self, claim: Claim, heir: Waiter, paths: tuple[ClaimPath, ...], left: tuple[Waiter, ...]) -> Claim:
        return replace(
            claim,
            namespace=heir.namespace,
            tunnel=heir.tunnel,
            claimed_at=self._from_now_on(claim),
            paths=paths,
            waiting=left,
            yields=False,
            vacant=False,
        )

    def _waiting(
        self, claim: Claim, wanted: list[Candidate], *, served: frozenset[ObjectKey] | None
    ) -> tuple[Waiter, ...]:
        """The waiting list with this Tunnel's part brought up to date; others' entries stay as they are."""
        if self.leaving is not None:
            return tuple(w for w in claim.waiting if w.tunnel != self.tunnel or w.key not in self.leaving)
        ours: dict[tuple[ObjectKey, str], Candidate] = {}
        for candidate in (*wanted, *self.queues.get(claim.hostname, ())):
            key, hostname = candidate.binding.meta.key, candidate.hostname
            if hostname != claim.hostname or served is None or key not in served:
                ours.setdefault((key, hostname if hostname != claim.hostname else ""), candidate)
        kept = [
            w if w.tunnel != self.tunnel else replace(w, yields=ours[w.key, w.hostname].yields)
            for w in claim.waiting
            if w.tunnel != self.tunnel or (w.key, w.hostname) in ours
        ]
        known = {(w.key, w.hostname) for w in kept if w.tunnel == self.tunnel}
        new = [
            Waiter(*key, self.tunnel, self.since.get((key, c.hostname), self.now), hostname, c.yields)
            for (key, hostname), c in ours.items()
            if c.binding.meta.has_finalizer and (key, hostname) not in known
        ]
        return tuple(sorted((*kept, *new[: max(0, MAX_WAITING - len(kept))]), key=lambda w: w.since))

    def _write(self, before: Claim, after: Claim) -> None:
        if after != before:
            self.operations.append(ClaimUpdate(before.name, claim_body(after)))

    def _delete(self, claim: Claim) -> None:
        self.operations.append(ClaimDelete(claim.name, claim.uid, claim.resource_version))


def _paths(held: Sequence[ClaimPath], wanted: Iterable[Candidate], namespace: str) -> tuple[ClaimPath, ...]:
    """The paths of the holder's bindings: those held and still wanted first, then new ones that are free."""
    asked = [c for c in wanted if c.binding.meta.namespace == namespace]
    wanted_paths = {c.claim_path for c in asked}
    kept = [p for p in held if p in wanted_paths]
    taken = {(p.type, p.value) for p in kept}
    for path in (c.claim_path for c in asked if c.binding.meta.has_finalizer):
        if (path.type, path.value) not in taken and len(kept) < MAX_PATHS:
            taken.add((path.type, path.value))
            kept.append(path)
    return tuple(kept)


def _yields(paths: Sequence[ClaimPath], wanted: Iterable[Candidate], namespace: str) -> bool:
    """What the namespace's rule that has the hostname longest says of its wildcard; others have to agree with it."""
    asked = [c for c in wanted if c.binding.meta.namespace == namespace]
    first = next((c for path in paths[:1] for c in asked if c.claim_path == path), None)
    return (first or asked[0]).yields if asked else False


def _served(paths: Iterable[ClaimPath], namespace: str, wanted: Iterable[Candidate]) -> frozenset[ObjectKey]:
    """The bindings all of whose paths of this hostname are held: they need not wait."""
    held = set(paths)
    found: dict[ObjectKey, bool] = {}
    for candidate in wanted:
        key = candidate.binding.meta.key
        has = candidate.binding.meta.namespace == namespace and candidate.claim_path in held
        found[key] = found.get(key, True) and has
    return frozenset(key for key, every in found.items() if every)
