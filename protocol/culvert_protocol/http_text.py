"""The little HTTP/1.1 (RFC 9112) that connectors and relays speak to each other before frames.

Responsible for splitting a head into start line and fields, strictly, within a limit. It is not the visitors'
parser (that is ``culvert_http1``) and must not know what the messages mean.

Invariants: a head is CRLF lines of visible ASCII, tabs and blanks; names are tokens; nothing longer than
``MAX_HEAD`` is ever looked at; any split of the same bytes gives the same result, because a head is read only
when it is complete.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Bytes. A credential may have 8 KiB; the rest is for everything else, fields of proxies on the way included.
MAX_HEAD: Final = 12 * 1024
MAX_FIELDS: Final = 64
_END: Final = b"\r\n\r\n"
_FIELD: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\Z")
_TEXT: Final = re.compile(rb"[\t\x20-\x7e]*\Z")


class HandshakeError(ValueError):
    """A message that breaks the rules. ``status`` is what a relay answers (``build_refusal``); the text is a
    sentence for a log, and for a 400 it may be sent to the other side.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """A start line, its fields (lower-case name to values in order), and the bytes the head took."""

    start: str
    fields: dict[str, list[str]]
    size: int

    def one(self, name: str) -> str | None:
        """The only value of a field, None when absent; ``HandshakeError`` when it is there twice."""
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise HandshakeError(400, f"The field '{name}' appears twice.")
        return values[0] if values else None

    def tokens(self, name: str) -> set[str]:
        """The lower-case members of a comma-separated field (RFC 9110 section 5.6.1)."""
        return {
            token.strip(" \t").lower()
            for value in self.fields.get(name, [])
            for token in value.split(",")
            if token.strip(" \t")
        }

    def content_length(self, *, most: int) -> int | None:
        """The declared length of the body, None when there is none; 413 above ``most``, 400 for any oddity."""
        text = self.one("content-length")
        if text is None:
            return None
        if not re.fullmatch(r"[0-9]{1,19}", text):
            raise HandshakeError(400, "Content-Length is not a number.")
        if int(text) > most:
            raise HandshakeError(413, f"The body is larger than {most} bytes.")
        return int(text)


def parse_head(data: bytes | bytearray) -> Head | None:
    """The head at the start of ``data``, None while it is incomplete; ``HandshakeError`` 400 or 431."""
    end = data.find(_END, 0, MAX_HEAD)
    if end < 0:
        if len(data) >= MAX_HEAD:
            raise HandshakeError(431, f"The head has more than {MAX_HEAD} bytes.")
        return None
    lines = bytes(data[:end]).split(b"\r\n")
    if len(lines) > MAX_FIELDS + 1:
        raise HandshakeError(431, f"The head has more than {MAX_FIELDS} fields.")
    fields: dict[str, list[str]] = {}
    for line in lines:
        if not _TEXT.match(line):
            raise HandshakeError(400, "The head has a byte that is not visible ASCII.")
    for line in lines[1:]:
        match = _FIELD.match(line.decode("ascii"))
        if match is None:
            raise HandshakeError(400, "The head has a line that is not 'Name: value'.")
        fields.setdefault(match.group(1).lower(), []).append(match.group(2))
    return Head(start=lines[0].decode("ascii"), fields=fields, size=end + len(_END))


def build_head(start: str, fields: list[tuple[str, str]]) -> bytes:
    """The bytes of a head; ``ValueError`` when a value could end its line."""
    lines = [start, *(f"{name}: {value}" for name, value in fields)]
    encoded = [line.encode("ascii") for line in lines]
    if not all(_TEXT.match(line) for line in encoded):
        raise ValueError("A start line and field values are visible ASCII.")
    return b"\r\n".join(encoded) + _END
