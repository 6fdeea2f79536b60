"""Hostnames and hostname patterns, in the one spelling that culvert compares.

Responsible for: turning what people, files and visitors write into lower-case A-labels without a trailing dot, and
for comparing patterns with names on label boundaries. Must not know rules, tunnels or DNS lookups.

Invariant: a `Hostname` or `HostnamePattern` is ASCII, lower-case, at most 253 bytes, of labels of 1-63 letters,
digits and hyphens (RFC 1123); every `xn--` label is a valid IDNA 2008 A-label that encodes to itself; its last label
is not a number, so no spelling of an IP address gets through (WHATWG URL, "ends in a number"). Normalising twice
changes nothing.

Underscores are refused: they are legal in DNS records, but not in host names, and no public certificate authority
signs such a name, so a rule for one could never be served over HTTPS. Emoji and other symbols are refused by
IDNA 2008. Wildcards are `*.suffix`: any number of labels below the suffix, never the suffix itself.
"""

from __future__ import annotations

import functools
import re
from typing import NewType

import idna

__all__ = [
    "Hostname",
    "HostnameError",
    "HostnamePattern",
    "covers",
    "from_authority",
    "is_wildcard",
    "matches",
    "normalise",
    "normalise_pattern",
    "wildcard_suffixes",
]

Hostname = NewType("Hostname", str)
"""One name in normal form, such as `shop.example.com`."""

HostnamePattern = NewType("HostnamePattern", str)
"""A `Hostname`, or `*.` in front of one."""

MAX_NAME = 253
MAX_LABEL = 63
MAX_INPUT = 1024
"""Characters looked at before anything else happens: IDNA's mapping is not for texts of any length."""

CACHED_HOSTS = 8192
"""Spellings that `from_authority` remembers; at most 254 bytes each."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r":[0-9]*")
_SHOWN = 80


class HostnameError(ValueError):
    """A hostname that culvert cannot use; the text is a sentence that says what to write instead."""


def normalise(text: str) -> Hostname:
    """One hostname in normal form. Raises HostnameError, whose sentence quotes what was given."""
    if "*" in text:
        raise HostnameError(
            f"{_quote(text)} has a wildcard where one exact hostname is needed; write a name such as www.example.com."
        )
    return Hostname(_name(text, text))


def normalise_pattern(text: str) -> HostnamePattern:
    """An exact hostname or a `*.suffix` pattern in normal form. Raises HostnameError."""
    if "*" not in text:
        return HostnamePattern(_name(text, text))
    if text == "*":
        raise HostnameError("'*' alone would match every hostname; write a suffix with it, such as *.example.com.")
    if not text.startswith("*") or text.count("*") > 1:
        raise HostnameError(
            f"{_quote(text)} has a '*' that is not the whole first label; write *.example.com for every name below it."
        )
    if not text.startswith("*."):
        raise HostnameError(f"{_quote(text)} would cut a label in two; write *.{text[1:]} for every name below it.")
    pattern = "*." + _name(text[2:], text)
    if len(pattern) > MAX_NAME:
        raise HostnameError(f"{_quote(text)} is longer than {MAX_NAME} characters; no name below it could exist.")
    return HostnamePattern(pattern)


def is_wildcard(pattern: str) -> bool:
    """Whether a normalised pattern is of the form `*.suffix`."""
    return pattern.startswith("*.")


def matches(pattern: str, host: str) -> bool:
    """Whether a normalised pattern matches a normalised hostname; `*.a` matches `b.a` and `c.b.a`, not `a`."""
    if pattern.startswith("*."):
        return len(host) >= len(pattern) and host.endswith(pattern[1:])
    return pattern == host


def covers(pattern: str, other: str) -> bool:
    """Whether every hostname that `other` matches is matched by `pattern` (both normalised)."""
    if not other.startswith("*."):
        return matches(pattern, other)
    return pattern.startswith("*.") and ("." + other[2:]).endswith(pattern[1:])


def wildcard_suffixes(host: str) -> list[str]:
    """The suffixes of the wildcards that could match a normalised host, longest first: a.b.c -> b.c, c."""
    suffixes = []
    dot = host.find(".")
    while dot >= 0:
        suffixes.append(host[dot + 1 :])
        dot = host.find(".", dot + 1)
    return suffixes


def from_authority(host: bytes) -> Hostname | None:
    """The hostname of a request's Host without its port; None when it is not a hostname.

    For the hot path: answers come from a bounded cache, and nothing longer than a name can be gets into it.
    """
    if len(host) > MAX_NAME + 1:
        return None
    return _from_authority(host)


@functools.lru_cache(maxsize=CACHED_HOSTS)
def _from_authority(host: bytes) -> Hostname | None:
    try:
        return normalise(host.decode("ascii"))
    except (UnicodeDecodeError, HostnameError):
        return None


def _name(text: str, given: str) -> str:
    """Normal form of a name without wildcard; `given` is what the sentences quote."""
    _refuse_other_notations(text, given)
    if text.isascii():
        name = text.lower()
    else:
        try:
            name = idna.uts46_remap(text, std3_rules=False, transitional=False)
            name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in name.split("."))
        except (idna.IDNAError, UnicodeError, IndexError) as error:
            raise HostnameError(
                f"{_quote(given)} is not a valid internationalised name ({_reason(error)}); "
                "use letters, digits and hyphens of one script in each label."
            ) from None
    name = name.removesuffix(".")
    if not name:
        raise HostnameError(f"{_quote(given)} names no host; write a name such as www.example.com.")
    if len(name) > MAX_NAME:
        raise HostnameError(
            f"{_quote(given)} is longer than {MAX_NAME} characters, which DNS does not allow; shorten it."
        )
    labels = name.split(".")
    for label in labels:
        _check_label(label, given)
    if _NUMBER.fullmatch(labels[-1]):
        raise HostnameError(f"{_quote(given)} is an IP address, not a hostname; write a name such as www.example.com.")
    return name


def _refuse_other_notations(text: str, given: str) -> None:
    """URLs, ports, credentials and bracketed addresses, each with its own sentence."""
    if not text or len(text) > MAX_INPUT:
        detail = "is empty" if not text else f"is longer than {MAX_NAME} characters"
        raise HostnameError(f"The hostname {detail}; write a name such as www.example.com.")
    if "://" in text:
        raise HostnameError(
            f"{_quote(given)} has a scheme; write the hostname alone, without 'https://' and without a path."
        )
    if "@" in text:
        raise HostnameError(f"{_quote(given, hide=True)} has a user name before '@'; write the hostname alone.")
    if text.startswith("[") or text.count(":") > 1:
        raise HostnameError(f"{_quote(given)} is an IP address, not a hostname; write a name such as www.example.com.")
    if ":" in text:
        fixed = _PORT.sub("", text)
        raise HostnameError(f"{_quote(given)} has a port; rules match hostnames without it: write {_quote(fixed)}.")
    for character, what in (("/", "a path"), ("?", "a query"), ("#", "a fragment")):
        if character in text:
            raise HostnameError(f"{_quote(given)} has {what}; write the hostname alone.")


def _check_label(label: str, given: str) -> None:
    if not label:
        raise HostnameError(
            f"{_quote(given)} has an empty label (two dots in a row, or one in front); remove the extra dot."
        )
    if len(label) > MAX_LABEL:
        raise HostnameError(
            f"{_quote(given)} has a label longer than {MAX_LABEL} characters, which DNS does not allow; shorten it."
        )
    if not _LABEL.fullmatch(label):
        if "_" in label:
            raise HostnameError(
                f"{_quote(given)} has an underscore, which host names cannot have; use a hyphen instead."
            )
        if label.startswith("-") or label.endswith("-"):
            raise HostnameError(f"{_quote(given)} has a label that starts or ends with a hyphen; remove the hyphen.")
        raise HostnameError(
            f"{_quote(given)} has a character that host names cannot have; use letters, digits, hyphens and dots."
        )
    if label.startswith("xn--") and not _is_a_label(label):
        raise HostnameError(
            f"{_quote(given)} has a label with xn-- that is not valid Punycode; write the name in its own script."
        )


def _is_a_label(label: str) -> bool:
    try:
        return idna.alabel(idna.ulabel(label)).decode() == label
    except (idna.IDNAError, UnicodeError, IndexError):
        return False


def _quote(text: str, *, hide: bool = False) -> str:
    """`text` as it may stand in a sentence: short, printable, and without what may be a password."""
    if hide:
        text = "…@" + text.rpartition("@")[2]
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return repr(shown)


def _reason(error: Exception) -> str:
    return str(error)[:_SHOWN].rstrip(".") or type(error).__name__
