"""`requestHeaders` and `responseHeaders`: which fields a rule may change, and to what.

Responsible for: one table of the fields that no rule may touch, each with what to do instead, the form of names and
values, and the bounds. Must not know how a head is changed. Pure.

Invariant: edits that `check_header_edits` returned cannot change where a message ends, which connection it is for, who
the visitor is said to be, or what culvert says itself; and no field is named by two of set, add and remove.
Source: RFC 9110 sections 5.1, 5.5 and 7.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from culvert_ingress.rules import HeaderEdits

__all__ = ["MAX_EDITS", "MAX_NAME", "MAX_VALUE", "RESERVED", "HeaderEditError", "Reserved", "check_header_edits"]

MAX_EDITS: Final = 16
"""Entries of each of set, add and remove (as in the Gateway API)."""
MAX_NAME: Final = 64
MAX_VALUE: Final = 1024
"""Characters of a name and of a value."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")


class HeaderEditError(ValueError):
    """An edit that cannot be carried out; the text is a sentence that says what to write instead."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Fields (lower case; `*` is any rest) that no rule may touch, and why or what to write instead."""

    names: tuple[str, ...]
    instead: str

    @property
    def pattern(self) -> str:
        """RE2 that matches one of the names as a whole; `_` counts as `-`, which some origins read alike."""
        alternatives = "|".join(name.replace("-", "[-_]").replace("*", ".*") for name in self.names)
        return f"(?i)^({alternatives})$"


RESERVED: Final[tuple[Reserved, ...]] = (
    Reserved(("host",), "write httpHostHeader, which changes the Host that the service gets"),
    Reserved(
        ("content-length", "transfer-encoding", "trailer", "te", "expect"),
        "it says where a message ends, which follows from the message itself",
    ),
    Reserved(
        ("connection", "keep-alive", "upgrade", "http2-settings", "proxy", "proxy-*"),
        "it is about one connection, and culvert's connections are its own",
    ),
    Reserved(
        ("sec-websocket-*",), "it belongs to the handshake between visitor and service, which would fail without it"
    ),
    Reserved(
        ("forwarded", "x-forwarded-*", "x-real-ip"),
        "the relay says there who the visitor is, and services trust it",
    ),
    Reserved(("culvert-*", "x-request-id"), "culvert writes it itself"),
)
"""In the order in which they are looked for."""

_RESERVED: Final = tuple((re.compile(row.pattern), row.instead) for row in RESERVED)


def check_header_edits(edits: HeaderEdits) -> HeaderEdits | None:
    """`edits` itself, or None when it changes nothing. Raises HeaderEditError."""
    _check_count("set", edits.set)
    _check_count("add", edits.add)
    _check_count("remove", edits.remove)
    seen: dict[str, str] = {}
    for kind, names in (
        ("set", [name for name, _ in edits.set]),
        ("remove", edits.remove),
        ("add", list(dict.fromkeys(name.lower() for name, _ in edits.add))),
    ):
        for name in names:
            _check_name(name)
            earlier = seen.setdefault(name.lower(), kind)
            if earlier != kind or (kind != "add" and list(map(str.lower, names)).count(name.lower()) > 1):
                raise HeaderEditError(
                    f"The header {name!r} is named twice; name each header once, in set, add or remove."
                )
    for name, value in (*edits.set, *edits.add):
        _check_value(name, value)
    return edits if seen else None


def _check_count(kind: str, entries: Sequence[object]) -> None:
    if len(entries) > MAX_EDITS:
        raise HeaderEditError(f"{kind} has more than {MAX_EDITS} headers; remove some.")


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or _TOKEN.fullmatch(name) is None:
        raise HeaderEditError(
            f"{name[:80]!r} is not the name of a header; write at most {MAX_NAME} letters, digits and hyphens, such as "
            "X-Team."
        )
    for pattern, instead in _RESERVED:
        if pattern.match(name) is not None:
            raise HeaderEditError(f"The header {name} cannot be changed by a rule: {instead}.")


def _check_value(name: str, value: str) -> None:
    if len(value) > MAX_VALUE:
        raise HeaderEditError(f"The value of {name} is longer than {MAX_VALUE} characters; shorten it.")
    if _VALUE.fullmatch(value) is None:
        raise HeaderEditError(
            f"The value of {name} must be one line of visible ASCII, without blanks around it and not empty."
        )
