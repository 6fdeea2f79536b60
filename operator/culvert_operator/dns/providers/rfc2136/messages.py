"""What is said to an RFC 2136 server: one UPDATE per name, and what its answer means.

Responsible for: a change → a message whose prerequisites hold exactly when the zone is as it was read; response codes
→ results and sentences.
Must not know: sockets, keys, retries.
Invariants: every record set that a change touches has a prerequisite (its exact values, or its absence; section 2.4),
so that of two writers with one owner id the slower is refused; marker and record are in one message, which a server
carries out whole or not at all (section 3.7).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rcode
import dns.update

from culvert_operator.dns.endpoint import PUBLISHED_TYPES
from culvert_operator.dns.provider import RecordChange, Result
from culvert_operator.dns.providers.rdata import name_of, rdataset_of

# A server passes over a CNAME that would stand beside other data without a word (section 3.4.2.2). Where the name is
# in use by ourselves its absence cannot be asked for, so the types that people put there are, one by one.
COMMON_TYPES = ("A", "AAAA", "CNAME", "TXT", "MX", "NS", "SRV", "CAA", "HTTPS", "SVCB", "DNAME", "PTR", "NAPTR", "TLSA")
# An address of another writer beside ours would share out the visitors.
VISITED_TYPES = (*PUBLISHED_TYPES, "DNAME", "HTTPS", "SVCB")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a response code means: how the change ended, whether another server may do better, and a sentence."""

    result: Result
    elsewhere: bool
    sentence: str


Key = tuple[str, str]
_CHANGED = Meaning(Result.CONFLICT, False, "{name} is no longer as it was read; it is read again before the next try.")

MEANINGS: dict[dns.rcode.Rcode, Meaning] = {
    dns.rcode.NOERROR: Meaning(Result.DONE, False, ""),
    dns.rcode.YXDOMAIN: _CHANGED,
    dns.rcode.YXRRSET: _CHANGED,
    dns.rcode.NXRRSET: _CHANGED,
    dns.rcode.NXDOMAIN: _CHANGED,
    dns.rcode.REFUSED: Meaning(
        Result.FAILED, True, "{server} refuses to update {name} (REFUSED); allow updates of {zone} to the TSIG key."
    ),
    dns.rcode.NOTAUTH: Meaning(
        Result.FAILED, True, "{server} is not the primary of {zone} or does not accept the TSIG key (NOTAUTH)."
    ),
    dns.rcode.NOTZONE: Meaning(
        Result.FAILED, False, "{server} says that {name} does not lie in {zone} (NOTZONE); is it delegated?"
    ),
    dns.rcode.NOTIMP: Meaning(Result.FAILED, True, "{server} does not do dynamic updates (NOTIMP); name the primary."),
    dns.rcode.SERVFAIL: Meaning(Result.FAILED, True, "{server} failed to update {zone} (SERVFAIL); see its log."),
    dns.rcode.FORMERR: Meaning(Result.FAILED, False, "{server} does not understand the update of {name} (FORMERR)."),
}


def meaning_of(code: dns.rcode.Rcode) -> Meaning:
    """The row of a response code; one that nobody expects is a failure."""
    unknown = Meaning(Result.FAILED, False, f"{{server}} answers {dns.rcode.to_text(code)} to the update of {{name}}.")
    return MEANINGS.get(code, unknown)


class UnsayableError(ValueError):
    """A change holds a value that DNS has no form for; the text is a sentence."""


def update_message(zone: str, change: RecordChange) -> dns.update.UpdateMessage:
    """The UPDATE for one change, unsigned. Raises UnsayableError."""
    try:
        return _update_message(zone, change)
    except (dns.exception.DNSException, ValueError) as error:
        raise UnsayableError(f"{change.name} cannot be written: {error or type(error).__name__}.") from error


def _update_message(zone: str, change: RecordChange) -> dns.update.UpdateMessage:
    message = dns.update.UpdateMessage(name_of(zone))
    before = {(r.name, r.type): r for r in change.before}
    after = {(r.name, r.type): r for r in change.after}
    for record in change.before:
        message.present(name_of(record.name), rdataset_of(record, ttl=0))
    for name, kind in _absent(before.keys(), after.keys()):
        message.absent(name_of(name), kind)
    for key, record in before.items():
        if key not in after:
            message.delete(name_of(record.name), record.type)
    for record in change.after:
        message.replace(name_of(record.name), rdataset_of(record))
    return message


def _absent(before: Collection[Key], after: Collection[Key]) -> list[tuple[str, str | None]]:
    """Names (type None) and record sets that must not exist, so that nothing is written beside or over others'."""
    found: list[tuple[str, str | None]] = []
    for name in sorted({name for name, _ in after}):
        wanted = {kind for owner, kind in after if owner == name}
        known = {kind for owner, kind in before if owner == name}
        if "CNAME" in wanted and not known:
            found.append((name, None))
            continue
        barred: tuple[str, ...]
        if "CNAME" in wanted:
            barred = COMMON_TYPES if known != {"CNAME"} else ()
        else:
            barred = VISITED_TYPES if wanted & set(PUBLISHED_TYPES) else ("TXT", "CNAME")
        found += [(name, kind) for kind in barred if kind not in known]
    return found
