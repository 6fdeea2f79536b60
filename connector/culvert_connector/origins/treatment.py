"""What a rule changes in its requests and responses: path, header fields, server name, the framing of bodies.

Responsible for compiling `originRequest` once, so that a request costs a few operations on bytes, and nothing at all
under a rule that changes nothing. Pure. Must not know streams, sockets or where a rule came from.

Invariants: a rewritten path is absolute and holds the visitor's own bytes behind the prefix; a block of fields stays
one (names and values were checked when the configuration was read); fields that end at this hop are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from culvert_http1.path import after_prefix, normalise_path
from culvert_ingress.rules import HeaderEdits, OriginRequest, PathRewrite
from culvert_protocol.heads import Open

__all__ = ["FieldEditor", "PathEditor", "Treatment", "treatment_of"]

_ROOT: Final = b"/"


class FieldEditor:
    """`HeaderEdits` over blocks of field lines: leave out, then append."""

    __slots__ = ("_added", "_dropped")

    def __init__(self, edits: HeaderEdits) -> None:
        dropped = [*edits.remove, *(name for name, _ in edits.set)]
        self._dropped = _lines_of(dropped) if dropped else None
        self._added = "".join(f"{name}: {value}\r\n" for name, value in (*edits.set, *edits.add)).encode("ascii")

    def apply(self, fields: bytes) -> bytes:
        """The block as it is passed on."""
        if self._dropped is not None:
            fields = self._dropped.sub(b"", fields)
        return fields + self._added


class PathEditor:
    """A `PathRewrite` over request targets."""

    __slots__ = ("_replacement", "_segments", "_size")

    def __init__(self, rewrite: PathRewrite) -> None:
        prefix = rewrite.prefix
        self._size = None if prefix is None else len(prefix)
        self._segments = 0 if prefix is None else prefix.count("/")
        self._replacement = rewrite.replacement.encode("ascii")

    def apply(self, target: bytes) -> bytes:
        """The target that the origin gets. Raises `culvert_http1.path.PathError` for a path without a normal form."""
        path, mark, query = target.partition(b"?")
        normal = normalise_path(path)
        if self._size is None:
            rest = b""
        elif normal is path:
            rest = path[self._size :]
        else:
            rest = after_prefix(path, self._segments)
            if rest[:2] == b"//":
                # A target that begins with two slashes is a host to some origins, and was none to this rule.
                rest = _ROOT + rest.lstrip(_ROOT)
        return (self._replacement + rest or _ROOT) + mark + query


@dataclass(frozen=True, slots=True)
class Treatment:
    """A rule's changes; None and False where it has none."""

    path: PathEditor | None = None
    request_fields: FieldEditor | None = None
    response_fields: FieldEditor | None = None
    names_host: bool = False
    collects: bool = False

    def request(self, head: Open) -> Open:
        """The head as the origin gets it. Raises PathError."""
        target, fields = head.target, head.fields
        if self.path is not None:
            target = self.path.apply(target)
        if self.request_fields is not None:
            fields = self.request_fields.apply(fields)
        return head._replace(target=target, fields=fields)


def treatment_of(options: OriginRequest, *, names_host: bool) -> Treatment | None:
    """The treatment that a rule asks for; None when it asks for none. `names_host`: whether the TLS server name may be
    another one for each request, should the rule take it from there."""
    found = Treatment(
        path=PathEditor(options.path_rewrite) if options.path_rewrite is not None else None,
        request_fields=FieldEditor(options.request_headers) if options.request_headers is not None else None,
        response_fields=FieldEditor(options.response_headers) if options.response_headers is not None else None,
        names_host=names_host and options.match_sni_to_host,
        collects=options.disable_chunked_encoding,
    )
    return None if found == Treatment() else found


def _lines_of(names: Iterable[str]) -> re.Pattern[bytes]:
    """Every line of one of these names, in any case, with its CRLF."""
    alternatives = b"|".join(re.escape(name.encode("ascii")) for name in names)
    return re.compile(rb"(?mi)^(?:" + alternatives + rb"):[^\r]*+\r\n")
