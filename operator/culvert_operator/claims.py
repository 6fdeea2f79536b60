"""Claims: who holds a hostname, who waits for it, and what one Tunnel's planner does about it.

Responsible for: from the candidates and the HostnameClaims of the cluster to (a) the rules that may be served,
(b) the operations on claims. Must not know: Services, DNS, connectors.

A claim belongs to a *namespace* in one Tunnel. The table of one hostname H, seen by the planner of Tunnel K:

::

    claim of H          | wanted in K by               | -> operation
    --------------------+------------------------------+----------------------------------------------------------
    none                | nobody                       | -
    none                | N; a conflicting claim       | - (N's rules wait: HostnameConflict)
    none                | N                            | create for N, its bindings' paths; others of K wait
    K's, being deleted  | any                          | -
    K's, of N           | N; an older conflicting claim| delete (two wrote at once: the older claim wins)
    K's, of N           | N (and others)               | update when paths or waiting changed
    K's, of N           | not N; first waiter is K's   | hand over to the waiter's namespace at once (record is changed)
    K's, of N           | nobody; route or record left | - (the route and the record go first)
    K's, of N           | nobody; old sessions of K    | without paths (relays confirm the end of a K that went first)
    K's, of N           | nobody; waiter of Tunnel L   | hand over to it, paths empty (L fills them in)
    K's, of N           | nobody                       | delete
    another Tunnel's    | N                            | N's bindings into waiting
    another Tunnel's    | nobody any more              | K's bindings out of waiting

"Conflicting" is a claim of another namespace whose pattern covers H or is covered by it: a wildcard reserves its
subtree, unless its rule says ``wildcard: Fallback``. One that reserves from now on is a new claim by its time, so that
nobody below it loses a name. Invariants: a hostname has one holder, whatever the order of events; claims age by
``claimedAt``, never by an object's age, so an old object cannot take a newer name, and what begins now is younger than
all that it could take, whatever the clocks say; a claim is only written by the Tunnel that holds it, but for the
waiting list; nothing new is entered for an object without our finalizer, for it could vanish without a word. Ties
between bindings that ask at once are broken by age, namespace and name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from culvert_ingress.hostnames import covers, is_wildcard, wildcard_suffixes
from culvert_operator.api.claim import (
    MAX_PATHS,
    MAX_WAITING,
    Claim,
    ClaimPath,
    Waiter,
    claim_body,
    claim_name,
    milliseconds,
    timestamp,
)
from culvert_operator.candidates import Candidate, Rejected, by_age
from culvert_operator.keys import ObjectKey
from culvert_operator.world import ClaimCreate, ClaimDelete, ClaimOp, ClaimUpdate
from culvert_protocol.granted import port_of


@dataclass(frozen=True, slots=True)
class Awaiting:
    """A candidate whose claim is about to be created: neither accepted nor rejected yet."""

    candidate: Candidate


Verdict = Candidate | Rejected | Awaiting


class Register:
    """The claims of the cluster, asked by hostname and by relation; ``beneath`` is a register that this one extends.

    An extended register costs what is added to it: a plan adds the claims that it is about to create.
    """

    def __init__(self, claims: Iterable[Claim] = (), *, beneath: Register | None = None) -> None:
        self._beneath = beneath
        self._by_hostname: dict[str, Claim] = {}
        self._below: dict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            self.add(claim)

    def __iter__(self) -> Iterator[Claim]:
        if self._beneath is not None:
            yield from self._beneath
        yield from self._by_hostname.values()

    def add(self, claim: Claim) -> None:
        """Take a claim into account."""
        self._by_hostname[claim.hostname] = claim
        for suffix in wildcard_suffixes(claim.hostname.removeprefix("*.")):
            self._below[suffix].append(claim)
        if is_wildcard(claim.hostname):
            self._below[claim.hostname[2:]].append(claim)

    def get(self, hostname: str) -> Claim | None:
        """The claim of exactly this hostname."""
        found = self._by_hostname.get(hostname)
        return found if found is not None or self._beneath is None else self._beneath.get(hostname)

    def _under(self, suffix: str) -> Iterator[Claim]:
        """The claims below a suffix, its wildcard included."""
        if self._beneath is not None:
            yield from self._beneath._under(suffix)
        yield from self._below.get(suffix, ())

    def conflicting(self, hostname: str, namespace: str, *, yields: bool = False) -> list[Claim]:
        """Claims of other namespaces over or under ``hostname``, oldest first; never its own claim. ``yields``: as a
        wildcard it leaves the names under it to others."""
        found = []
        for suffix in wildcard_suffixes(hostname.removeprefix("*.")):
            above = self.get(f"*.{suffix}")
            if above is not None and not above.yields:
                found.append(above)
        if is_wildcard(hostname) and not yields:
            found += self._under(hostname[2:])
        others = {c.hostname: c for c in found if c.namespace != namespace and c.hostname != hostname}
        related = (c for c in others.values() if covers(c.hostname, hostname) or covers(hostname, c.hostname))
        return sorted(related, key=_age)

    def older_conflict(self, claim: Claim) -> Claim | None:
        """The conflicting claim that is older than ``claim``, if any: then ``claim`` is void."""
        return next((c for c in self._conflicts(claim) if _age(c) < _age(claim)), None)

    def _conflicts(self, claim: Claim) -> list[Claim]:
        return self.conflicting(claim.hostname, claim.namespace, yields=claim.yields)


def _age(claim: Claim) -> tuple[str, str]:
    return (claim.claimed_at, claim.hostname)


def arbitrate(
    tunnel: ObjectKey,
    candidates: Sequence[Candidate],
    stored: Register,
    *,
    in_use: Callable[[str], bool],
    lingers: bool = False,
    now: float,
) -> tuple[tuple[ClaimOp, ...], frozenset[str]]:
    """The operations on the ``stored`` claims, and the hostnames that are about to change hands inside this Tunnel.

    ``candidates`` are those of bindings that are to be served; ``in_use(hostname)`` says whether a route or a
    record of this Tunnel is still left for a hostname that nobody wants any more; ``lingers``: sessions of a Tunnel
    that goes or went may still serve what it holds.
    """
    register = Register(beneath=stored)
    demands: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in sorted(candidates, key=lambda c: by_age(c.binding)):
        demands[candidate.hostname].append(candidate)
    concerned = {
        c.hostname
        for c in stored
        if c.hostname not in demands and (c.tunnel == tunnel or any(w.tunnel == tunnel for w in c.waiting))
    }
    clerk = _Clerk(tunnel, register, in_use, lingers, timestamp(now))
    for hostname in (*demands, *sorted(concerned)):
        clerk.attend(hostname, demands.get(hostname, []))
    return tuple(clerk.operations), frozenset(clerk.handed_over)


@dataclass(slots=True)
class _Clerk:
    tunnel: ObjectKey
    register: Register
    in_use: Callable[[str], bool]
    lingers: bool
    now: str
    operations: list[ClaimOp] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)

    def attend(self, hostname: str, wanted: list[Candidate]) -> None:
        """One row of the table in the module's docstring."""
        claim = self.register.get(hostname)
        if claim is None:
            if wanted:
                self._create(hostname, wanted)
        elif claim.deleting:
            return
        elif claim.tunnel != self.tunnel:
            self._write(claim, replace(claim, waiting=self._waiting(claim, wanted, served=None)))
        elif self.register.older_conflict(claim) is not None:
            self._delete(claim)
        elif any(c.binding.meta.namespace == claim.namespace for c in wanted):
            paths = _paths(claim.paths, wanted, claim.namespace)
            waiting = self._waiting(claim, wanted, served=_served(paths, claim.namespace, wanted))
            yields = _yields(paths, wanted, claim.namespace)
            since = self._from_now_on(claim) if claim.yields and not yields else claim.claimed_at
            self._write(claim, replace(claim, paths=paths, waiting=waiting, yields=yields, claimed_at=since))
        else:
            self._vacate(claim, wanted)

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
        heir = next(iter(waiting), None)
        if heir is not None and heir.tunnel == self.tunnel and not self.lingers:
            self.handed_over.append(claim.hostname)
            paths = _paths((), wanted, heir.namespace)
            served = _served(paths, heir.namespace, wanted)
            heirless = tuple(w for w in waiting if w.key not in served)
            yields = _yields(paths, wanted, heir.namespace)
            self._write(claim, replace(self._given(claim, heir, paths, heirless), yields=yields))
        elif self.in_use(claim.hostname):
            self._write(claim, replace(claim, waiting=waiting))
        elif self.lingers:
            # No binding's deletion waits for a relay.
            self._write(claim, replace(claim, paths=(), waiting=waiting))
        elif heir is not None:
            left = tuple(w for w in waiting if w != heir)
            self._write(claim, self._given(claim, heir, (), left))
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
        )

    def _waiting(
        self, claim: Claim, wanted: list[Candidate], *, served: frozenset[ObjectKey] | None
    ) -> tuple[Waiter, ...]:
        """The waiting list with this Tunnel's part brought up to date; others' entries stay as they are."""
        ours: dict[ObjectKey, bool] = {}
        for candidate in wanted:
            key = candidate.binding.meta.key
            if served is None or key not in served:
                ours[key] = candidate.binding.meta.has_finalizer
        kept = [w for w in claim.waiting if w.tunnel != self.tunnel or w.key in ours]
        known = {w.key for w in kept if w.tunnel == self.tunnel}
        new = [Waiter(*key, self.tunnel, self.now) for key, secured in ours.items() if secured and key not in known]
        return (*kept, *new[: max(0, MAX_WAITING - len(kept))])

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
    if claim.namespace != namespace or claim.tunnel != tunnel:
        # Handing over inside the Tunnel: the next look will find the claim with its new holder.
        return Awaiting(candidate) if hostname in awaited else _conflict(candidate, claim)
    older = register.older_conflict(claim)
    if older is not None:
        return _conflict(candidate, older)
    if candidate.claim_path in claim.paths:
        return candidate
    holder = next((p.binding for p in claim.paths if (p.type, p.value) == _bare(candidate)), None)
    if holder is not None:
        said = f"{namespace}/{holder} already has {hostname} with this path; choose another path."
        return Rejected(candidate.rule, hostname, "HostnameConflict", said)
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
        return Rejected(verdict.rule, verdict.hostname, "HostnameConflict", said)

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
        said = f"{hostname} lies below a wildcard that another namespace holds; choose another hostname."
    else:
        said = f"{hostname} would cover a hostname that another namespace holds; choose another hostname."
    return Rejected(candidate.rule, hostname, "HostnameConflict", said)
