"""The register: the claims of the cluster, asked by hostname and by what stands in whose way.

Responsible for: which claims conflict, and which of two is older. Must not know: candidates, Tunnels' planners.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from culvert_ingress.hostnames import covers, is_wildcard, wildcard_suffixes
from culvert_operator.api.claim import Claim, Waiter


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
        """Claims of other namespaces over or under ``hostname``, oldest first; never its own claim, nor vacant ones.
        ``yields``: as a wildcard it leaves the names under it to others."""
        related = self._related(hostname, yields=yields)
        return sorted((c for c in related if c.namespace != namespace and not c.vacant), key=_age)

    def vacant(self, hostname: str, *, yields: bool = False) -> list[Claim]:
        """Vacant claims over or under ``hostname``, oldest first."""
        return sorted((c for c in self._related(hostname, yields=yields) if c.vacant), key=_age)

    def _related(self, hostname: str, *, yields: bool) -> Iterator[Claim]:
        found = []
        for suffix in wildcard_suffixes(hostname.removeprefix("*.")):
            above = self.get(f"*.{suffix}")
            if above is not None and not above.yields:
                found.append(above)
        if is_wildcard(hostname) and not yields:
            found += self._under(hostname[2:])
        others = {c.hostname: c for c in found if c.hostname != hostname}
        return (c for c in others.values() if covers(c.hostname, hostname) or covers(hostname, c.hostname))

    def turns(self, claim: Claim) -> tuple[Waiter, ...]:
        """Of those who wait at ``claim`` the ones who may have what they want once its holder has left.

        In their order; one in whose way another claim stands holds up nobody, and waits there.
        """
        found: list[Waiter] = []
        for waiter in claim.waiting:
            wanted = waiter.hostname or claim.hostname
            blocked = self.conflicting(wanted, waiter.namespace, yields=waiter.yields)
            held = self.get(wanted) if waiter.hostname else None
            if (held is not None and not held.vacant) or any(c.hostname != claim.hostname for c in blocked):
                continue
            if not any(_clash(claim.hostname, first, waiter) for first in found):
                found.append(waiter)
        return tuple(found)

    def older_conflict(self, claim: Claim) -> Claim | None:
        """The conflicting claim that is older than ``claim``, if any: then ``claim`` is void."""
        return next((c for c in self._conflicts(claim) if _age(c) < _age(claim)), None)

    def _conflicts(self, claim: Claim) -> list[Claim]:
        return self.conflicting(claim.hostname, claim.namespace, yields=claim.yields)


def _clash(hostname: str, one: Waiter, other: Waiter) -> bool:
    """Whether two who wait at the claim of ``hostname`` cannot both have what they want."""
    a, b = one.hostname or hostname, other.hostname or hostname
    if one.namespace == other.namespace:
        return False
    return a == b or (covers(a, b) and not one.yields) or (covers(b, a) and not other.yields)


def _age(claim: Claim) -> tuple[str, str]:
    return (claim.claimed_at, claim.hostname)
