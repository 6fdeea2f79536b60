"""The JSON of external-dns's webhook protocol.

Responsible for: record sets ↔ its endpoints, and its media type.
Source: external-dns, docs/tutorials/webhook-provider.md and api/webhook.yaml.
Must not know: HTTP.
Invariant: ``record_set(endpoint(r)) == r`` for what culvert writes; what cannot be read is an error, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from culvert_operator.dns.endpoint import RecordSet
from culvert_operator.dns.names import txt_presentation, txt_text

MEDIA_TYPE = "application/external.dns.webhook+json;version=1"
# Their targets are host names, which external-dns spells without the trailing dot.
_NAME_TYPES = frozenset({"CNAME", "NS", "PTR", "DNAME"})
_ENDS_IN_NAME = frozenset({"MX", "SRV"})


class WireError(ValueError):
    """JSON that is not the protocol's; the text is a sentence."""


def endpoint(one: RecordSet) -> dict[str, Any]:
    """A record set as the protocol's endpoint."""
    return {
        "dnsName": one.name,
        "recordType": one.type,
        "recordTTL": one.ttl,
        "targets": list(map(_target, one.values)),
    }


def _target(value: str) -> str:
    return value.removesuffix(".") if not value.startswith('"') else value


def record_set(value: object) -> RecordSet:
    """An endpoint of the protocol as a record set. Raises WireError."""
    if not isinstance(value, Mapping):
        raise WireError("an endpoint is not an object.")
    name, kind, targets = value.get("dnsName"), value.get("recordType"), value.get("targets") or []
    ttl = value.get("recordTTL", 0)
    texts = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
    if not (isinstance(name, str) and isinstance(kind, str) and texts and isinstance(ttl, int)):
        raise WireError("an endpoint lacks dnsName, recordType or targets.")
    values = tuple(sorted({_value(kind, target) for target in targets}))
    return RecordSet(name.rstrip(".").lower(), kind.upper(), max(0, ttl), values)


def _value(kind: str, target: str) -> str:
    if kind == "TXT":
        return txt_presentation(txt_text(target) if target.startswith('"') else target)
    if kind in _NAME_TYPES or kind in _ENDS_IN_NAME:
        return target if target.endswith(".") else f"{target}."
    return target


def record_sets(value: object) -> tuple[RecordSet, ...]:
    """A list of endpoints. Several of one name and type (set identifiers) become one record set. Raises WireError."""
    if not isinstance(value, list):
        raise WireError("the answer is not a list of endpoints.")
    found: dict[tuple[str, str], RecordSet] = {}
    for one in map(record_set, value):
        key = (one.name, one.type)
        former = found.get(key)
        values = one.values if former is None else tuple(sorted({*former.values, *one.values}))
        found[key] = RecordSet(*key, one.ttl, values)
    return tuple(found.values())


def changes(value: object) -> dict[str, tuple[RecordSet, ...]]:
    """``create``, ``updateOld``, ``updateNew`` and ``delete`` of a body, in whichever case they are spelled."""
    if not isinstance(value, Mapping):
        raise WireError("the changes are not an object.")
    lowered = {str(key).lower(): found for key, found in value.items()}
    unknown = sorted(lowered.keys() - {"create", "updateold", "updatenew", "delete"})
    if unknown:
        raise WireError(f"the changes have the unknown key {unknown[0]!r}.")
    names = ("create", "updateOld", "updateNew", "delete")
    # Go writes an empty list as null.
    given = {name: lowered.get(name.lower()) for name in names}
    return {name: record_sets([] if found is None else found) for name, found in given.items()}
