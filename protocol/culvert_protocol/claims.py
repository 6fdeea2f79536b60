"""Reading single claims of a statement: each is there, of its type and in its range, or the statement is refused.

Responsible for the shapes that the kinds of statement share. Must not know the kinds, signatures or clocks.
Invariant: a value that comes back cannot be wrong; every refusal is a ``StatementError`` that names the claim.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from culvert_protocol.jws import StatementError
from culvert_protocol.keys import PublicKey, base64url_decode

_MAX_INTEGER: Final = 2**53 - 1  # what every JSON implementation can hold (RFC 8259 section 6)
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}\Z")
_HOSTNAME: Final = re.compile(r"[\x21-\x7e]{1,254}\Z")


def confirmation(claims: Mapping[str, Any]) -> PublicKey:
    """The key in ``cnf`` (RFC 7800 section 3.2): an Ed25519 public key as a JWK."""
    confirmed = claim(claims, "cnf")
    jwk = confirmed.get("jwk") if type(confirmed) is dict and len(confirmed) == 1 else None
    try:
        if type(jwk) is not dict or jwk.keys() != {"kty", "crv", "x"} or type(jwk["x"]) is not str:
            raise ValueError
        if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
            raise ValueError
        return PublicKey(base64url_decode(jwk["x"]))
    except ValueError:  # KeyFormatError is one
        raise StatementError("bad_claim", "'cnf' must hold one Ed25519 public key as a 'jwk'.") from None


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Any value, as long as it is there."""
    try:
        return claims[name]
    except KeyError:
        raise StatementError("missing_claim", f"'{name}' is missing.") from None


def integer(claims: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    """A whole number from ``least`` to 2^53-1; no float, no boolean."""
    value = claim(claims, name)
    if type(value) is not int or not least <= value <= _MAX_INTEGER:  # bool is an int, but not its type
        raise StatementError("bad_claim", f"'{name}' must be a whole number from {least} to 2^53-1.")
    return value


def identifier(claims: Mapping[str, Any], name: str) -> str:
    """An identifier: 1-200 characters of ``A-Za-z0-9._:/-``, the first a letter or digit."""
    value = claim(claims, name)
    if type(value) is not str or not _IDENTIFIER.match(value):
        raise StatementError("bad_claim", f"'{name}' must be 1-200 characters of A-Z a-z 0-9 . _ : / -")
    return value


def items(claims: Mapping[str, Any], name: str) -> list[Any]:
    """A list, not looked into."""
    value = claim(claims, name)
    if type(value) is not list:
        raise StatementError("bad_claim", f"'{name}' must be a list.")
    return value


def thumbprint(claims: Mapping[str, Any], name: str) -> str:
    """An RFC 7638 SHA-256 thumbprint as base64url."""
    value = claim(claims, name)
    if type(value) is not str or not _THUMBPRINT.match(value):
        raise StatementError("bad_claim", f"'{name}' must be the thumbprint of the issuer's first key.")
    return value


def hostname(claims: Mapping[str, Any], name: str) -> str:
    """A name as its issuer spelled it: A-labels, perhaps a wildcard; its grammar is not checked here."""
    value = claim(claims, name)
    if type(value) is not str or not _HOSTNAME.match(value):
        raise StatementError("bad_claim", f"'{name}' must be 1-254 visible ASCII characters (A-labels).")
    return value
