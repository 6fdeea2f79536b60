"""The copy of a path that rules are matched against (RFC 3986 section 6.2.2).

Responsible for: one spelling for paths that an origin may take for the same. Must not know rules; the bytes that are
forwarded stay the visitor's. Invariant: `normalise_path(normalise_path(p)) == normalise_path(p)`, and the outcome has
no dot segment, no empty segment but the last, no escape of an unreserved byte, and upper-case escapes only.

What origins read differently is refused rather than guessed: an escape of the root, an encoded slash, a backslash or
NUL (raw or encoded), an incomplete escape, and a dot segment with parameters (`..;x`), which some servers resolve.
"""

import re
from typing import Final

_PLAIN: Final = re.compile(rb"(?:/(?!\.\.?(?:[/;]|\Z))[^\x00-\x20\x7f%/\\?#]++)*+/?")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_REFUSED: Final = {
    0x00: ("nul", "The path holds an encoded NUL; remove it."),
    0x2F: ("encoded_slash", "The path holds an encoded slash; write '/' or leave it out."),
    0x5C: ("backslash", "The path holds an encoded backslash; write '/' between segments."),
}


class PathError(ValueError):
    """A path that cannot be matched safely: `reason` is a token, `sentence` says what to write instead."""

    __slots__ = ("reason", "sentence")

    reason: str
    sentence: str

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence


def normalise_path(path: bytes) -> bytes:
    """`path` (a request target up to `?`) with unreserved bytes decoded once, dot segments and duplicate slashes
    resolved, slashes first (`/a//../b` is `/b`); the same object when there is nothing to do.

    Raises `PathError`; whether that matters is the caller's to say (only on hosts that have path rules).
    """
    if path and _PLAIN.fullmatch(path) is not None:
        return path
    if path[:1] != b"/":
        raise PathError("not_absolute", "The path does not begin with '/'.")
    if b"\\" in path:
        raise PathError("backslash", "The path holds a backslash; write '/' between segments.")
    if b"\0" in path:
        raise PathError("nul", "The path holds a NUL byte; remove it.")
    segments = _ESCAPE.sub(_decode, path).split(b"/")
    kept: list[bytes] = []
    last = len(segments) - 1
    for index, segment in enumerate(segments):
        if segment in (b"", b"."):
            pass
        elif segment == b"..":
            if not kept:
                raise PathError("escapes_root", "The path leads out of the root; remove the surplus '..'.")
            kept.pop()
        elif segment.startswith((b".;", b"..;")):
            raise PathError("dot_parameters", "The path holds a dot segment with parameters; remove it.")
        else:
            kept.append(segment)
            continue
        if index == last:
            kept.append(b"")
    return b"/" + b"/".join(kept)


def after_prefix(path: bytes, segments: int) -> bytes:
    """What follows the first `segments` of a path's normal form, in the bytes of `path` itself: it begins with `/`, or
    is empty, and does not lead out of them by `..`.

    `path` has a normal form with at least so many segments, which `normalise_path` has said.
    """
    depth = cut = position = 0
    for segment in path.split(b"/")[1:]:
        position += 1 + len(segment)
        plain = _ESCAPE.sub(_decode, segment)
        if plain == b"..":
            depth -= 1
        elif plain not in (b"", b"."):
            depth += 1
            if depth == segments:  # the last time counts: `/api/../api/x`
                cut = position
    return path[cut:]


def _decode(escape: re.Match[bytes]) -> bytes:
    digits: bytes | None = escape.group(1)
    if digits is None:
        raise PathError("bad_escape", "The path holds '%' without two hexadecimal digits; write '%25' for '%'.")
    byte = int(digits, 16)
    if byte in _REFUSED:
        raise PathError(*_REFUSED[byte])
    return bytes((byte,)) if byte in _UNRESERVED else b"%" + digits.upper()
