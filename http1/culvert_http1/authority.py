"""The host and port that a request names (RFC 9110 section 7.2, RFC 3986 section 3.2).

Responsible for: refusing every `Host` value that two parsers could read differently. Must not know which hosts exist;
labels are not checked against IDNA, since a name that no tunnel serves is answered 404 anyway.
Invariant: equal hosts come out as equal bytes (lower case, no trailing dot, no port).
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final

from .errors import HTTPError

MAX_AUTHORITY: Final = 262
"""A name of 255 bytes, its colon and a port; also what bounds the memory of the cache below."""

_NAME: Final = re.compile(rb"([0-9A-Za-z_-]++(?:\.[0-9A-Za-z_-]++)*+)\.?(?::([1-9][0-9]{0,4}))?")
_LITERAL: Final = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::([1-9][0-9]{0,4}))?")


def parse_authority(value: bytes) -> tuple[bytes, int | None]:
    """Host in lower case without a trailing dot, and the port if one is given.

    Names, IPv4 addresses and bracketed IPv6 addresses pass; userinfo, lists, paths, empty labels, an empty or zero
    port, percent-encoding and raw UTF-8 do not. Raises `HTTPError` 400 `bad_host`.
    """
    if len(value) > MAX_AUTHORITY:
        raise HTTPError(400, "bad_host", "The host is longer than a host name can be; shorten it.")
    return _parse(value)


@lru_cache(maxsize=1024)
def _parse(value: bytes) -> tuple[bytes, int | None]:
    match = _NAME.fullmatch(value)
    if match is None:
        match = _LITERAL.fullmatch(value)
        if match is None:
            raise HTTPError(400, "bad_host", _fault(value))
        try:
            address = ipaddress.IPv6Address(match.group(1).decode("ascii"))
        except ValueError:
            raise HTTPError(400, "bad_host", "The host is not an IPv6 address; write e.g. '[2001:db8::1]'.") from None
        host = b"[" + address.compressed.encode("ascii") + b"]"
    else:
        host = match.group(1).lower()
    digits: bytes | None = match.group(2)
    if digits is None:
        return host, None
    port = int(digits)
    if port > 65535:
        raise HTTPError(400, "bad_host", "The port of the host is above 65535; use 1 to 65535.")
    return host, port


def _fault(value: bytes) -> str:
    if not value:
        return "The Host field is empty; name the host that is asked for."
    if b"@" in value:
        return "The host holds a user name; remove everything up to '@'."
    if b"," in value or b" " in value or b"\t" in value:
        return "The Host field is a list; name exactly one host."
    if b"/" in value or b"?" in value or b"#" in value or b"\\" in value:
        return "The Host field holds a path or a scheme; name the host alone."
    if max(value) > 0x7E:
        return "The host is not ASCII; write internationalised names as A-labels ('xn--…')."
    return "The host is not a host name with an optional port; write e.g. 'example.com:8443'."
