"""Path conditions: checking what people write, and turning it into a test over a request's normalised path.

Responsible for: the forms of a path value that can match at all, whole-segment prefixes, and RE2 expressions with a
bound on their memory. Must not know hosts or rules. The request's path arrives in normal form (percent-decoded once
for unreserved characters, hexadecimal digits of the other escapes in upper case, dot segments and duplicate slashes
resolved, without a query), so a value in any other form could never match and is refused with the form to write.

Invariant: for a checked PathMatch `compile_path` cannot fail, and its test runs in time linear in the path.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable

import re2

from culvert_ingress.rules import PathMatch, PathType

__all__ = ["PathValueError", "check_path", "compile_path"]

MAX_EXPRESSION = 256
"""Characters of a regular expression."""
MAX_VALUE = 1024
"""Characters of an Exact or PathPrefix value (as in the Gateway API)."""
EXPRESSION_MEMORY = 64 << 10
"""Bytes that one compiled expression may use, its automaton's cache included; beyond it RE2 runs slower, not larger."""

PathTest = Callable[[bytes], object]
"""Truthy when a normalised path satisfies the condition."""

_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ENCODED_BY_BROWSERS = ' "<>`{}'
_PARAMETERS = re.compile(r"/\.\.?;")
_AMBIGUOUS = {0x00: "a NUL", 0x2F: "an encoded slash", 0x5C: "an encoded backslash"}


class PathValueError(ValueError):
    """A path value that could never match or be compiled; the text is a sentence with what to write instead."""


def check_path(path: PathMatch) -> PathMatch:
    """`path` itself when it is in a form that can match. Raises PathValueError."""
    if path.type in (PathType.REGEX, PathType.SEARCH):
        _check_expression(path.value)
    else:
        _check_literal(path.value)
    return path


def compile_path(path: PathMatch | None) -> PathTest | None:
    """The test for a checked path; None when every path satisfies it."""
    if path is None:
        return None
    match path.type:
        case PathType.EXACT:
            return functools.partial(operator.eq, path.value.encode())
        case PathType.PREFIX:
            prefix = path.value.rstrip("/").encode()
            return _prefix_test(prefix) if prefix else None
        case PathType.REGEX:
            return _expression(path.value).match  # type: ignore[no-any-return]
        case PathType.SEARCH:
            return _expression(path.value).search  # type: ignore[no-any-return]


def _prefix_test(prefix: bytes) -> PathTest:
    below = prefix + b"/"
    return lambda path: path.startswith(below) or path == prefix


def _check_literal(value: str) -> None:
    shown = repr(value[:80])
    if not value.startswith("/"):
        raise PathValueError(f"The path {shown} does not start with a slash; write /{value[:80].lstrip('/')}.")
    if len(value) > MAX_VALUE:
        raise PathValueError(f"The path {shown}… is longer than {MAX_VALUE} characters; shorten it.")
    for character, what in (("?", "a query"), ("#", "a fragment")):
        if character in value:
            raise PathValueError(f"The path {shown} has {what}; rules match the path alone: remove it.")
    if "\\" in value:
        raise PathValueError(f"The path {shown} has a backslash, and such requests are refused; write '/' instead.")
    if not value.isascii() or not value.isprintable() or any(character in value for character in _ENCODED_BY_BROWSERS):
        encoded = "".join(_percent(character) for character in value[:80])
        raise PathValueError(f"The path {shown} has characters that browsers send percent-encoded; write {encoded!r}.")
    if _ESCAPE.search(value):
        raise PathValueError(
            f"The path {shown} has a '%' that no two hexadecimal digits follow; write %25 for '%' itself."
        )
    for escape in _ESCAPED.finditer(value):
        byte = int(escape.group(1), 16)
        if byte in _AMBIGUOUS:
            raise PathValueError(f"The path {shown} has {_AMBIGUOUS[byte]}, and such requests are refused; remove it.")
        if byte in _UNRESERVED:
            raise PathValueError(
                f"The path {shown} encodes {chr(byte)!r} needlessly; write {chr(byte)!r} instead of {escape.group()}."
            )
        if escape.group(1) != escape.group(1).upper():
            raise PathValueError(f"The path {shown} has an escape in lower case; write {escape.group().upper()}.")
    segments = value.split("/")[1:]
    if _PARAMETERS.search(value):
        raise PathValueError(
            f"The path {shown} has a dot segment with parameters, and such requests are refused; remove it."
        )
    if "" in segments[:-1] or "." in segments or ".." in segments:
        raise PathValueError(
            f"The path {shown} has '//', '/./' or '/../', which requests are cleaned of; write it without."
        )


def _check_expression(value: str) -> None:
    shown = repr(value[:80])
    if not value:
        raise PathValueError("The path expression is empty; leave the path out to match every path.")
    if len(value) > MAX_EXPRESSION:
        raise PathValueError(
            f"The path expression {shown}… is longer than {MAX_EXPRESSION} characters; split it over several rules."
        )
    if not value.isascii() or not value.isprintable():
        raise PathValueError(
            f"The path expression {shown} has characters that browsers send percent-encoded; write them as %XX."
        )
    try:
        _expression(value)
    except re2.error as error:
        raise PathValueError(
            f"The path expression {shown} is not valid RE2 ({_reason(error)}); {_advice(value)}."
        ) from None


@functools.lru_cache(maxsize=1024)
def _expression(value: str) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = EXPRESSION_MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    return re2.compile(value.encode("ascii"), options)


def _percent(character: str) -> str:
    if character.isascii() and character.isprintable() and character not in _ENCODED_BY_BROWSERS:
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _reason(error: Exception) -> str:
    detail = error.args[0] if error.args else ""
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else str(detail)
    return text.partition(":")[0][:80]


def _advice(value: str) -> str:
    if "(?=" in value or "(?!" in value or "(?<" in value:
        return "RE2 has no look-ahead or look-behind: write the expression without it"
    if "{" in value:
        return "use fewer or smaller repetitions"
    return "see https://github.com/google/re2/wiki/Syntax for what it knows"
