"""Names of records and of their markers, and the text of a marker.

Responsible for: where the marker of a record lives, what it says (external-dns's TXT content, so that both can
work in one zone), and whether a name fits into DNS *together with its marker* before anything is written.
Must not know: zones' contents, providers.
Invariant: ``parse_marker(marker_text(o, r)) == (o, r)``; ``record_of_marker(marker_name(n, t)) == (n, t)``.

A marker lives at ``<type>._culvert.<name>``: a label of its own in front of the name, so that the marker never
shares a name with the record (a CNAME allows no neighbours, RFC 1034 section 3.6.2), stays inside the zone for an
apex too, and never makes a label longer. ``*`` is written ``_wildcard``, for a ``*`` inside a name means nothing.
"""

from __future__ import annotations

import re

from culvert_operator.dns.endpoint import PUBLISHED_TYPES

MARKER_LABEL = "_culvert"
WILDCARD_LABEL = "_wildcard"
MAX_NAME = 253
MAX_LABEL = 63
MAX_TXT_STRING = 255

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\Z")
_OWNER = re.compile(r"[A-Za-z0-9._/-]{1,100}\Z")


def check_name(name: str) -> str | None:
    """A sentence that says why ``name`` cannot be published, or None when it and its markers fit into DNS."""
    bare = name.removeprefix("*.")
    if not bare or "*" in bare:
        return f"{name!r} is not a record name: write a host name or '*.' and a host name."
    for label in bare.split("."):
        if len(label) > MAX_LABEL:
            return f"the label {label[:20]!r}… of {name!r} has {len(label)} bytes; DNS allows {MAX_LABEL}."
        if not _LABEL.match(label):
            return f"the label {label!r} of {name!r} is not a host name's: use letters, digits and hyphens."
    longest = max(len(marker_name(name, record_type)) for record_type in PUBLISHED_TYPES)
    if longest > MAX_NAME:
        return (
            f"{name!r} is too long to be published: its ownership record would have {longest} bytes, DNS allows "
            f"{MAX_NAME}. Use a name that is {longest - MAX_NAME} bytes shorter."
        )
    return None


def check_owner(owner: str) -> str | None:
    """A sentence that says why ``owner`` cannot be an owner id, or None."""
    if _OWNER.match(owner):
        return None
    return "an owner id has 1 to 100 letters, digits, '.', '_', '/' or '-'."


def marker_name(name: str, record_type: str) -> str:
    """Where the marker of ``name``'s record set of ``record_type`` lives."""
    if name.startswith("*."):
        name = f"{WILDCARD_LABEL}.{name[2:]}"
    return f"{record_type.lower()}.{MARKER_LABEL}.{name}"


def record_of_marker(name: str) -> tuple[str, str] | None:
    """``(name, type)`` of the record whose marker lives at ``name``; None when ``name`` is no marker's."""
    head, _, rest = name.partition(".")
    label, _, target = rest.partition(".")
    if label != MARKER_LABEL or head.upper() not in PUBLISHED_TYPES or not target:
        return None
    if target.startswith(f"{WILDCARD_LABEL}."):
        target = f"*.{target[len(WILDCARD_LABEL) + 1 :]}"
    return target, head.upper()


def marker_text(owner: str, resource: str) -> str:
    """A marker's content, as external-dns writes it."""
    return f"heritage=external-dns,external-dns/owner={owner},external-dns/resource={resource}"


def parse_marker(text: str) -> tuple[str, str] | None:
    """``(owner, resource)`` of a marker's content; None when the text is not one.

    Quotes around the whole text are tolerated: some of external-dns's providers write them.
    """
    parts = text.strip().strip('"').split(",")
    if parts[0] != "heritage=external-dns":
        return None
    said = dict(part.partition("=")[::2] for part in parts[1:])
    return said.get("external-dns/owner", ""), said.get("external-dns/resource", "")


def txt_presentation(text: str) -> str:
    """``text`` as the presentation form of one TXT record, in strings of at most 255 bytes (RFC 1035, 3.3.14)."""
    data = text.encode()
    pieces = [data[at : at + MAX_TXT_STRING] for at in range(0, len(data), MAX_TXT_STRING)] or [b""]
    return " ".join(f'"{_escape(piece)}"' for piece in pieces)


def _escape(piece: bytes) -> str:
    return "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 0x20 <= byte < 0x7F else f"\\{byte:03d}" for byte in piece
    )


_TXT_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_TXT_ESCAPE = re.compile(rb"\\(\d{3}|.)", re.DOTALL)


def txt_text(presentation: str) -> str:
    """The text of a TXT record's presentation form, its strings joined; bytes that are not UTF-8 are replaced."""
    joined = "".join(quoted or bare for quoted, bare in _TXT_STRING.findall(presentation))

    def unescape(match: re.Match[bytes]) -> bytes:
        escaped = match.group(1)
        return bytes([int(escaped) & 0xFF]) if len(escaped) == 3 else escaped

    return _TXT_ESCAPE.sub(unescape, joined.encode()).decode(errors="replace")


def in_zone(name: str, zone: str) -> bool:
    """Whether ``name`` is ``zone``'s apex or lies below it (compared label by label)."""
    return name == zone or name.endswith(f".{zone}")


def zone_of(name: str, zones: tuple[str, ...]) -> str | None:
    """The zone with the longest name that holds ``name``, or None."""
    fitting = [zone for zone in zones if in_zone(name.removeprefix("*."), zone)]
    return max(fitting, key=len, default=None)
