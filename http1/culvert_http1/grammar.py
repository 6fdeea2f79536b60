"""The bytes that HTTP/1.1 heads are made of (RFC 9110 section 5, RFC 9112 sections 2–5).

Responsible for: character classes and the expressions over whole blocks of field lines that requests, responses,
trailers and field blocks share, and for finding out why a head is malformed. Must not know what any field means.
Invariant: what the expressions let through holds no CR or LF other than the line ends, no NUL and no control byte
but HTAB, so that a block of field lines can be copied into another message as it is.

Every repetition is possessive: a match costs one pass, and a failure does not backtrack.
"""

import re
from typing import Final

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
"""One byte of a token (RFC 9110 section 5.6.2)."""
PLAIN_TOKEN: Final = rb"[!#$%&'*+\-.^`|~0-9A-Za-z]"
"""The same without `_`, which CGI-like origins cannot tell from `-`."""
TEXT: Final = rb"[\t -~\x80-\xff]"
"""One byte of a field value: visible ASCII, SP, HTAB, obs-text."""
FIELD_LINE: Final = TOKEN + rb"++:" + TEXT + rb"*+\r\n"

OPTIONS: Final = re.compile(rb"[ \t,]*+(?:" + TOKEN + rb"++[ \t]*+(?:,[ \t,]*+|\Z))*+")
"""A list of tokens, empty elements allowed (RFC 9110 section 5.6.1.2)."""

_BAD_BYTE: Final = re.compile(rb"\r[^\n]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n")
_NAME: Final = re.compile(TOKEN + rb"++")


def any_case(name: bytes) -> bytes:
    """A pattern for `name` in any case, of plain classes: cheaper than `(?i:…)`, which tests every letter twice."""
    return b"".join(
        b"[%c%c]" % (byte - 32, byte) if 0x61 <= byte <= 0x7A else re.escape(bytes((byte,))) for byte in name
    )


def _initials(names: tuple[bytes, ...]) -> bytes:
    return b"".join(sorted({name[:1] for name in names} | {name[:1].upper() for name in names}))


def _alternatives(names: tuple[bytes, ...]) -> bytes:
    by_letter: dict[bytes, list[bytes]] = {}
    for name in names:
        rest = any_case(name[1:-1]) + rb"[^:\r]*+" if name.endswith(b"*") else any_case(name[1:])
        by_letter.setdefault(name[:1], []).append(rest)
    return b"|".join(any_case(letter) + b"(?:" + b"|".join(rests) + b")" for letter, rests in by_letter.items())


def one_of(names: tuple[bytes, ...]) -> bytes:
    """A pattern for one of `names` (lower case; a trailing `*` stands for any rest) in any case.

    The first letter is tested first, so that a line that begins otherwise costs one test.
    """
    return b"(?=[" + _initials(names) + b"])(?:" + _alternatives(names) + b")"


def other_line(names: tuple[bytes, ...], byte: bytes = TOKEN) -> bytes:
    """A pattern for a field line, CRLF included, whose name is none of `names`, written as for `one_of`, and is made of
    `byte` (`TOKEN` or `PLAIN_TOKEN`). A name whose first letter is none of theirs is not compared."""
    initials = _initials(names)
    others = b"".join(
        re.escape(letter)
        for letter in (bytes((code,)) for code in range(128))
        if letter not in initials and re.fullmatch(byte, letter)
    )
    name = rb"(?:[" + others + rb"]|(?!(?:" + _alternatives(names) + rb"):)[" + initials + rb"])" + byte + rb"*+"
    return name + b":" + TEXT + rb"*+\r\n"


def bad_byte(data: bytes | bytearray, start: int, stop: int) -> tuple[int, str]:
    """Where it becomes evident, within `data[start:stop]`, that a byte stands where none may, and a sentence.

    Returns the index of the byte that makes it evident (for a lone CR that is the byte after it), or -1 and "".
    A CR at the very end is not judged yet.
    """
    match = _BAD_BYTE.search(data, start, stop)
    if match is None:
        return -1, ""
    first = data[match.start()]
    if first == 0x0D:
        return match.start() + 1, "A CR stands without LF; end every line of a head with CRLF."
    if first == 0x0A:
        return match.start(), "An LF stands without CR; end every line of a head with CRLF."
    if first == 0:
        return match.start(), "A head holds a NUL byte; remove it."
    return match.start(), "A head holds a control byte; remove it or percent-encode it."


def field_fault(line: bytes) -> str:
    """Why one field line (without its CRLF, free of bad bytes) is malformed; "" when it is well-formed."""
    if line[:1] in (b" ", b"\t"):
        return "A field value continues on the next line (obs-fold); write it on one line."
    name, colon, _ = line.partition(b":")
    if not colon:
        return "A field line has no colon; write 'Name: value'."
    if not name:
        return "A field has an empty name; write 'Name: value'."
    if name[-1:] in (b" ", b"\t"):
        return "White space stands between a field name and its colon; remove it."
    if _NAME.fullmatch(name) is None:
        return "A field name holds a byte that is not allowed in a token; use letters, digits and '-'."
    return ""


def option_list(value: bytes) -> list[bytes] | None:
    """The tokens of a list value in lower case, or None when it is not a list of tokens."""
    if OPTIONS.fullmatch(value) is None:
        return None
    return [token for token in (part.strip(b" \t").lower() for part in value.split(b",")) if token]
