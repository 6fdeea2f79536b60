"""Signed text: a JSON object inside a compact JWS (RFC 7515) by an Ed25519 key (RFC 8037).

Responsible for the signature, its key, type and syntax. Must not know what the claims mean, or clocks.

Invariants: one algorithm, EdDSA, pinned; a header has exactly ``alg``, ``kid`` and ``typ``; nothing of the
payload is parsed before its signature is verified; a token has one spelling (canonical base64url), so no byte
of it can change and it still be accepted; JSON members are unique.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from culvert_protocol.keys import IssuerKey, PublicKey, base64url_decode

ALGORITHM: Final = "EdDSA"
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ"})
_MAX_HEADER: Final = 512  # characters; a real one has about 120

_JWS = PyJWS(algorithms=[ALGORITHM])

#: Every reason for which a statement is refused, with the sentence that a person reads.
REASONS: Final[Mapping[str, str]] = {
    "too_large": "The statement is larger than its kind may be.",
    "malformed": "The statement is not a compact JWS with a JSON object inside.",
    "wrong_type": "The statement is of another kind than the one asked for here.",
    "wrong_algorithm": "The statement is not signed with EdDSA, the only algorithm that culvert accepts.",
    "unknown_key": "The statement is signed by a key that is not among the known issuers' keys.",
    "bad_signature": "The statement's signature does not match its content.",
    "wrong_issuer": "The statement names an issuer that its signing key does not speak for.",
    "wrong_audience": "The statement is not meant for culvert relays.",
    "missing_claim": "The statement lacks a claim that its kind must have.",
    "bad_claim": "The statement has a claim with an impossible value.",
    "not_yet_valid": "The statement is not valid yet; check the clocks of this machine and of the issuer.",
    "expired": "The statement has expired; issue a new one ('culvert tunnel renew').",
}


class StatementError(ValueError):
    """A statement that is refused. ``reason`` is a token of ``REASONS``; the text is a sentence.

    The sentence is for the log of the one who refused; a stranger gets one uniform answer (see ``problems``).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{REASONS[reason]} {detail}".rstrip())
        self.reason = reason


def sign(key: IssuerKey, *, typ: str, claims: Mapping[str, object]) -> str:
    """The compact JWS of ``claims``: canonical JSON (sorted, no blanks, ASCII), signed by ``key``."""
    payload = json.dumps(claims, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    headers = {"typ": typ, "kid": key.public.thumbprint}
    return _JWS.encode(payload, key.cryptography_key, algorithm=ALGORITHM, headers=headers)


def verify(token: str, keys: Mapping[str, PublicKey], *, typ: str, max_size: int) -> tuple[dict[str, Any], PublicKey]:
    """The claims of ``token`` and the key of ``keys`` (by thumbprint) that signed it; ``StatementError``."""
    header = _header(token, typ=typ, max_size=max_size)
    key = keys.get(header["kid"])
    if key is None:
        raise StatementError("unknown_key")
    try:
        payload = _JWS.decode_complete(token, key.cryptography_key, algorithms=[ALGORITHM])["payload"]
    except PyJWTError:
        raise StatementError("bad_signature") from None
    return _json_object(payload), key


def read(token: str, *, typ: str, max_size: int) -> tuple[dict[str, Any], str]:
    """The claims of one's own ``token`` and its signing key's thumbprint, WITHOUT verifying the signature."""
    header = _header(token, typ=typ, max_size=max_size)
    try:
        payload = base64url_decode(token.split(".")[1])
    except ValueError:
        raise StatementError("malformed") from None
    return _json_object(payload), header["kid"]


def _header(token: str, *, typ: str, max_size: int) -> dict[str, str]:
    if len(token) > max_size:
        raise StatementError("too_large", f"It has {len(token)} characters; at most {max_size} are allowed.")
    encoded, dot, rest = token.partition(".")
    if not dot or rest.count(".") != 1 or len(encoded) > _MAX_HEADER:
        raise StatementError("malformed")
    try:
        for segment in (encoded, *rest.split(".")):
            base64url_decode(segment)
        header = _json_object(base64url_decode(encoded))
    except ValueError:
        raise StatementError("malformed") from None
    if header.get("alg") != ALGORITHM:
        raise StatementError("wrong_algorithm")
    # A header that culvert does not write ("jwk", "crit", "b64", "x5u"…) has no business in a statement.
    if header.keys() != _HEADER_MEMBERS or not all(type(value) is str for value in header.values()):
        raise StatementError("malformed", "Its header must have exactly 'alg', 'kid' and 'typ'.")
    if header["typ"] != typ:
        raise StatementError("wrong_type", f"Expected '{typ}'.")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise StatementError("malformed") from None
    if not isinstance(value, dict):
        raise StatementError("malformed")
    return value
