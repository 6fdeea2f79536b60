"""A zone file as text: reading its record sets, and changing some of them without touching the rest.

Responsible for: RFC 1035 section 5 master files. dnspython reads them; a small scanner finds where an entry stands.
Must not know: where the text lives, what the records are for.
Invariants: bytes of entries that are not changed survive (comments, order, spacing); a new text is only returned when
dnspython reads from it exactly the record sets that were meant, and a higher serial.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.zone
import dns.zonefile

from culvert_operator.dns.endpoint import RecordSet
from culvert_operator.dns.provider import ProviderError
from culvert_operator.dns.providers.rdata import record_sets, text_of

Records = dict[tuple[str, str], RecordSet]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|;[^\n]*|[()\n]|(?:[^\s();"\\]|\\.)+|[^\S\n]+', re.DOTALL)
_TTL = re.compile(r"\d+[smhdw]?(\d+[smhdw])*\Z", re.IGNORECASE)
_CLASSES = frozenset({"IN", "CH", "HS", "ANY"})
_SERIAL_MODULUS = 2**32


def read(text: str, zone: str) -> Records:
    """Every record set of the zone by (name, type). Raises ProviderError with the line of the first mistake."""
    origin = dns.name.from_text(zone)
    try:
        parsed = dns.zone.from_text(text, origin=origin, relativize=False, check_origin=False, allow_include=False)
    except (dns.exception.DNSException, ValueError, UnicodeError) as error:
        said = (str(error) or type(error).__name__).removeprefix("<string>:").rstrip(".")
        raise ProviderError(f"the zone file of {zone} cannot be read, near line {said}.") from error
    found = record_sets(parsed)
    if (zone, "SOA") not in found:
        raise ProviderError(f"the zone file has no SOA record for {zone}: it is another zone's, or empty.")
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """One logical line: where it stands in the text, what it says. Directives have the type ``$ORIGIN`` and so on."""

    start: int
    end: int
    name: str
    type: str
    inherits: bool
    tokens: tuple[tuple[str, int], ...]


def entries(text: str, zone: str) -> tuple[Entry, ...]:
    """The entries of a zone file that :func:`read` accepts, in order."""
    origin = dns.name.from_text(zone)
    owner = origin
    found: list[Entry] = []
    for start, end, tokens, inherits in _logical_lines(text):
        words = [word for word, _ in tokens]
        if words[0].startswith("$"):
            if words[0].upper() == "$ORIGIN" and len(words) > 1:
                origin = dns.name.from_text(words[1], origin)
            found.append(Entry(start, end, "", words[0].upper(), False, tokens))
            continue
        rest = words if inherits else words[1:]
        if not inherits:
            owner = origin if words[0] == "@" else dns.name.from_text(words[0], origin)
        kind = next((w for w in rest if not _TTL.match(w) and w.upper() not in _CLASSES), "")
        found.append(Entry(start, end, text_of(owner), kind.upper(), inherits, tokens))
    return tuple(found)


def _logical_lines(text: str) -> Iterable[tuple[int, int, tuple[tuple[str, int], ...], bool]]:
    """(start, end, words with their places, whether the owner is left out) of each line with words in it."""
    start, depth, words = 0, 0, list[tuple[str, int]]()
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
        elif piece == "\n":
            if depth > 0:
                continue
            if words:
                yield start, match.end(), tuple(words), text[start].isspace()
            start, words = match.end(), []
        elif not piece.isspace() and not piece.startswith(";"):
            words.append((piece, match.start()))
    if words:
        yield start, len(text), tuple(words), text[start].isspace()


def edit(text: str, zone: str, *, remove: Collection[RecordSet], add: Collection[RecordSet]) -> str:
    """``text`` with some record sets taken out, others appended, and the serial raised by one.

    Raises ProviderError when the result would not be exactly that: a record that ``$GENERATE`` makes cannot be
    taken out, for instance.
    """
    before = read(text, zone)
    expected = dict(before)
    for record in remove:
        expected.pop((record.name, record.type), None)
    for record in add:
        expected[record.name, record.type] = record
    changed = _append(_remove(text, zone, {(r.name, r.type) for r in remove}), add)
    changed = _raise_serial(changed, zone)
    after = read(changed, zone)
    soa = (zone, "SOA")
    differing = [k for k in expected.keys() | after.keys() if k != soa and expected.get(k) != after.get(k)]
    if differing:
        name, kind = min(differing)
        raise ProviderError(
            f"the zone file of {zone} cannot be changed by culvert: {name} ({kind}) would not be as intended. "
            "Records that $GENERATE makes, or one record set with several TTLs, have to be changed by hand."
        )
    return changed


def _remove(text: str, zone: str, keys: Collection[tuple[str, str]]) -> str:
    kept: list[str] = []
    at = 0
    orphaned = False  # the entry that named the owner of the next ones has been taken out
    for entry in entries(text, zone):
        doomed = (entry.name, entry.type) in keys
        if doomed:
            kept.append(text[at : entry.start])
            at = entry.end
            orphaned = orphaned or not entry.inherits
        elif orphaned and entry.inherits:
            kept.append(text[at : entry.start] + f"{entry.name}.")
            at = entry.start
            orphaned = False
        elif entry.name and not entry.inherits:
            orphaned = False
    return "".join((*kept, text[at:]))


def _append(text: str, add: Collection[RecordSet]) -> str:
    lines = [f"{r.name}.\t{r.ttl}\tIN\t{r.type}\t{value}\n" for r in add for value in r.values]
    if lines and text and not text.endswith("\n"):
        text += "\n"
    return text + "".join(lines)


def _raise_serial(text: str, zone: str) -> str:
    for entry in entries(text, zone):
        words = [word.upper() for word, _ in entry.tokens]
        if entry.type == "SOA" and entry.name == zone and "SOA" in words:
            serial, place = entry.tokens[words.index("SOA", 0 if entry.inherits else 1) + 3]
            # RFC 1982: the next number of a circle; 0 is left out, some servers take it for "unset".
            raised = (int(serial) + 1) % _SERIAL_MODULUS or 1
            return f"{text[:place]}{raised}{text[place + len(serial) :]}"
    raise ProviderError(f"the zone file of {zone} has no SOA record for {zone}.")
