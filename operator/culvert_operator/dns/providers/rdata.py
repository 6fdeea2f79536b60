"""Record sets ↔ dnspython's rdatasets.

Responsible for: one spelling of names and values (RFC 1035 presentation text, lower-case owners, absolute targets).
Must not know: where a zone comes from, ownership.
Invariant: ``record_sets`` has one entry per name and type; what DNSSEC signing adds beside every name (RFC 4034,
section 2.5 lets it stand beside a CNAME) is left out, for it belongs to the server.
"""

from __future__ import annotations

import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.zone

from culvert_operator.dns.endpoint import RecordSet

SIGNING_TYPES = frozenset({dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3})


def text_of(name: dns.name.Name) -> str:
    """A name as record sets spell it."""
    return name.to_text(omit_final_dot=True).lower()


def record_sets(zone: dns.zone.Zone) -> dict[tuple[str, str], RecordSet]:
    """Every record set of a zone (that was read without relativizing), by name and type."""
    found: dict[tuple[str, str], RecordSet] = {}
    for name, rdataset in zone.iterate_rdatasets():
        if rdataset.rdtype in SIGNING_TYPES:
            continue
        key = (text_of(name), dns.rdatatype.to_text(rdataset.rdtype))
        values = tuple(sorted({rdata.to_text(origin=zone.origin, relativize=False) for rdata in rdataset}))
        found[key] = RecordSet(*key, rdataset.ttl, values)
    return found


def rdataset_of(one: RecordSet, *, ttl: int | None = None) -> dns.rdataset.Rdataset:
    """A record set as dnspython's, with another TTL when one is given. Raises dns.exception.DNSException."""
    return dns.rdataset.from_text(dns.rdataclass.IN, one.type, one.ttl if ttl is None else ttl, *one.values)


def name_of(text: str) -> dns.name.Name:
    """A record set's name as dnspython's. Raises dns.exception.DNSException."""
    return dns.name.from_text(text)
