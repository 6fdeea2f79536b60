"""Values of the DNS package: record sets as a zone holds them, endpoints as culvert wants them.

Responsible for: the shapes that planner, registry and providers hand one another.
Must not know: how a zone is stored, how ownership is written down.
Invariant: names are A-labels in lower case without a trailing dot; targets and values are sorted and unique, so
that equality of two values is equality of two record sets (RFC 2181, section 5: a record set has no order).
"""

from __future__ import annotations

from dataclasses import dataclass

# The types whose presence decides where a visitor of a name goes. Two owners of one name may not share them out.
ADDRESS_TYPES = frozenset({"A", "AAAA", "CNAME", "DNAME", "ALIAS", "ANAME", "HTTPS", "SVCB"})
# The types that culvert writes for a hostname (its markers are TXT).
PUBLISHED_TYPES = ("A", "AAAA", "CNAME")


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All records of one name and type. ``values`` are RFC 1035 presentation text, names with trailing dot."""

    name: str
    type: str
    ttl: int
    values: tuple[str, ...]

    def same_data(self, other: RecordSet) -> bool:
        """Whether both hold the same values, whatever the TTL."""
        return (self.name, self.type, self.values) == (other.name, other.type, other.values)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One record set that culvert wants, or one that a zone holds together with what its marker says.

    ``owner`` and ``resource`` are empty where no marker was found. ``targets`` is empty for a marker whose record
    is missing. Targets are IP addresses, or one host name without trailing dot for CNAME.
    """

    name: str
    type: str
    targets: tuple[str, ...]
    ttl: int = 300
    owner: str = ""
    resource: str = ""
    provider_specific: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        """Name and type: what identifies a record set inside a zone."""
        return self.name, self.type


def endpoint(
    name: str, kind: str, targets: tuple[str, ...], *, ttl: int = 300, owner: str = "", resource: str = ""
) -> Endpoint:
    """An endpoint in its one spelling: lower case, no trailing dots, targets sorted and unique."""
    spelled = {t.rstrip(".").lower() if kind == "CNAME" else t for t in targets}
    return Endpoint(name.rstrip(".").lower(), kind, tuple(sorted(spelled)), ttl, owner, resource)


@dataclass(frozen=True, slots=True)
class Published:
    """A record that an object's status lists: it was, or is about to be, written for ``resource``."""

    name: str
    type: str
    resource: str

    @property
    def key(self) -> tuple[str, str]:
        """Name and type, as in :attr:`Endpoint.key`."""
        return self.name, self.type
