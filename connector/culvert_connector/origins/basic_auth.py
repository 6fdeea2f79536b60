"""Basic authentication (RFC 7617) of visitors, by the connector.

Responsible for reading Authorization and for comparing it with what a rule accepts. Pure. Must not know files, rules
or streams. Invariants: passwords are here as SHA-256 digests of `user:password` alone, and are compared in constant
time; the field never reaches the origin, for which it was not meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from typing import Final

_LINE: Final = re.compile(rb"(?:^|(?<=\n))authorization:[ \t]*([^\r\n]*?)[ \t]*\r\n", re.IGNORECASE)
_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/=]{1,1024})\Z", re.IGNORECASE)
CHALLENGE: Final = b'WWW-Authenticate: Basic realm="restricted", charset="UTF-8"\r\n'


def accepts(fields: bytes, digests: Iterable[str]) -> bool:
    """Whether a field block has exactly one Authorization, Basic, with one of these (hexadecimal) digests."""
    values = _LINE.findall(fields)
    match = _BASIC.match(values[0]) if len(values) == 1 else None
    if match is None:
        return False
    try:
        given = hashlib.sha256(base64.b64decode(match[1], validate=True)).hexdigest()
    except binascii.Error:
        return False
    found = False
    for digest in digests:  # all of them, whichever fits
        found |= hmac.compare_digest(given, digest)
    return found


def without(fields: bytes) -> bytes:
    """The block without Authorization."""
    return _LINE.sub(b"", fields)
