"""The credentials file: all that a connector needs to be its tunnel.

Responsible for the text (JSON, schema 1) of the file that ``culvert tunnel create`` writes and of a cluster's
Secret key ``credentials.json``. Must not know files, modes or clocks: who writes it sees to mode 0600.

Invariants: credential, private key, tunnel id and grant belong together, or the file does not load; the
private key and the credential never show in ``repr`` or in an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from culvert_protocol.keys import KeyFormatError, PrivateKey, base64url_decode, base64url_encode
from culvert_protocol.statements import (
    MAX_CREDENTIAL_SIZE,
    MAX_GRANT_SIZE,
    Credential,
    Grant,
    StatementError,
    read_credential,
    read_grant,
)

SCHEMA: Final = 1
MAX_SIZE: Final = MAX_CREDENTIAL_SIZE + MAX_GRANT_SIZE + 4096  # bytes
_MAX_TUNNEL_NAME: Final = 253
_REQUIRED: Final = {"schema", "tunnel", "tunnelId", "credential", "privateKey"}
_KNOWN: Final = _REQUIRED | {"grant"}
_ANEW: Final = "make a new file with 'culvert tunnel create'"


class CredentialsFileError(ValueError):
    """A credentials file that cannot be used; the message is a sentence with a fix and holds no secret."""


@dataclass(frozen=True, slots=True)
class CredentialsFile:
    """``tunnel`` is a name for people, ``tunnel_id`` the subject of credential and grant.

    ``grant`` is None in a cluster, where it is part of the configuration.
    """

    tunnel: str
    tunnel_id: str
    credential: str = field(repr=False)
    private_key: PrivateKey
    grant: str | None = field(default=None, repr=False)

    @property
    def key_id(self) -> str:
        """Thumbprint of the private key's public half."""
        return self.private_key.public.thumbprint

    def read_credential(self) -> Credential:
        """The credential's claims, not verified: the holder has no need to, the relay does it."""
        return read_credential(self.credential)

    def read_grant(self) -> Grant | None:
        """The grant's claims, not verified."""
        return None if self.grant is None else read_grant(self.grant)

    def dumps(self) -> str:
        """The file's text, newline at the end. Secret."""
        members: dict[str, object] = {
            "schema": SCHEMA,
            "tunnel": self.tunnel,
            "tunnelId": self.tunnel_id,
            "credential": self.credential,
            "privateKey": base64url_encode(self.private_key.seed),
        }
        if self.grant is not None:
            members["grant"] = self.grant
        return json.dumps(members, indent=2, ensure_ascii=True) + "\n"

    @staticmethod
    def loads(text: str | bytes) -> CredentialsFile:
        """Reads and checks the file's text; ``CredentialsFileError`` when it cannot be used."""
        members = _members(text)
        try:
            key = PrivateKey(base64url_decode(_text(members, "privateKey")))
        except (KeyFormatError, ValueError):
            raise CredentialsFileError(
                f"'privateKey' is not an Ed25519 private key (32 bytes as base64url); {_ANEW}."
            ) from None
        grant = None if members.get("grant") is None else _text(members, "grant")
        file = CredentialsFile(
            tunnel=_text(members, "tunnel"),
            tunnel_id=_text(members, "tunnelId"),
            credential=_text(members, "credential"),
            private_key=key,
            grant=grant,
        )
        _check_agreement(file)
        return file


def _members(text: str | bytes) -> dict[str, Any]:
    if len(text) > MAX_SIZE:
        raise CredentialsFileError(f"This is not a credentials file: it has more than {MAX_SIZE} bytes.")
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        # The parser's own message may quote the text, secrets included.
        raise CredentialsFileError(f"The credentials file is not JSON; restore it, or {_ANEW}.") from None
    if not isinstance(members, dict):
        raise CredentialsFileError(f"The credentials file is not a JSON object; restore it, or {_ANEW}.")
    if members.get("AccountTag") and members.get("TunnelSecret"):
        raise CredentialsFileError(f"This is a cloudflared credentials file, which no culvert relay knows; {_ANEW}.")
    if members.get("schema") != SCHEMA or type(members["schema"]) is not int:
        raise CredentialsFileError(
            f"The credentials file's schema is not {SCHEMA}, the one this version knows; update culvert, or {_ANEW}."
        )
    if missing := sorted(_REQUIRED - members.keys()):
        raise CredentialsFileError(f"The credentials file lacks '{missing[0]}'; restore it, or {_ANEW}.")
    if unknown := sorted(members.keys() - _KNOWN):
        raise CredentialsFileError(f"The credentials file has an unknown key '{unknown[0]}'; remove it.")
    return members


def _text(members: dict[str, Any], name: str) -> str:
    value = members[name]
    if not isinstance(value, str) or not value:
        raise CredentialsFileError(f"'{name}' in the credentials file must be a text; restore it, or {_ANEW}.")
    return value


def _check_agreement(file: CredentialsFile) -> None:
    if len(file.tunnel) > _MAX_TUNNEL_NAME or not file.tunnel.isprintable():
        raise CredentialsFileError(f"'tunnel' is a name of at most {_MAX_TUNNEL_NAME} printable characters.")
    try:
        credential, grant = file.read_credential(), file.read_grant()
    except StatementError as error:
        raise CredentialsFileError(f"The credentials file cannot be used. {error}") from None
    if credential.tunnel.subject != file.tunnel_id:
        raise CredentialsFileError(f"'credential' is another tunnel's than 'tunnelId' says; {_ANEW}.")
    if credential.public_key.raw != file.private_key.public.raw:
        raise CredentialsFileError(f"'credential' was issued for another key than 'privateKey'; {_ANEW}.")
    if grant is not None and grant.tunnel != credential.tunnel:
        raise CredentialsFileError(f"'grant' is another tunnel's than 'credential'; {_ANEW}.")
