"""The credentials file: round trip, agreement of its parts, and no secret in any text but its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from culvert_protocol import statements as s
from culvert_protocol.credentials_file import MAX_SIZE, CredentialsFile, CredentialsFileError
from culvert_protocol.keys import base64url_decode, base64url_encode

VECTOR = json.loads((Path(__file__).parent / "vectors" / "statements.json").read_text())
SEED = VECTOR["keys"]["tunnel"]["seed"]
CONTENT: dict[str, Any] = {
    "schema": 1,
    "tunnel": "home",
    "tunnelId": VECTOR["credential"]["claims"]["sub"],
    "credential": VECTOR["credential"]["token"],
    "privateKey": SEED,
    "grant": VECTOR["grant"]["token"],
}


def load(**changes: Any) -> CredentialsFile:
    members = {**CONTENT, **changes}
    return CredentialsFile.loads(json.dumps({k: v for k, v in members.items() if v is not ...}))


def test_the_file_is_the_one_that_the_protocol_document_shows() -> None:
    file = load()
    assert file.tunnel == "home"
    assert file.tunnel_id == CONTENT["tunnelId"]
    assert file.private_key.seed == base64url_decode(SEED)
    assert file.key_id == file.read_credential().key_id == VECTOR["keys"]["tunnel"]["thumbprint"]
    granted = file.read_grant()
    assert granted is not None
    assert granted.version == VECTOR["grant"]["claims"]["version"]
    assert json.loads(file.dumps()) == CONTENT
    assert CredentialsFile.loads(file.dumps().encode()) == file


def test_in_a_cluster_there_is_no_grant() -> None:
    file = load(grant=...)
    assert file.grant is None
    assert file.read_grant() is None
    assert "grant" not in json.loads(file.dumps())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 2}, "schema is not 1"),
        ({"schema": True}, "schema is not 1"),
        ({"schema": ...}, "schema is not 1"),
        ({"privateKey": ...}, "lacks 'privateKey'"),
        ({"tunnelId": ...}, "lacks 'tunnelId'"),
        ({"tunnelSecret": "x"}, "unknown key 'tunnelSecret'"),
        ({"tunnel": 5}, "'tunnel' in the credentials file must be a text"),
        ({"tunnel": "a\nb"}, "printable"),
        ({"tunnelId": "another"}, "another tunnel's than 'tunnelId'"),
        ({"privateKey": base64url_encode(bytes([9]) * 32)}, "another key than 'privateKey'"),
        ({"privateKey": "AgIC"}, "not an Ed25519 private key"),
        ({"privateKey": SEED + "="}, "not an Ed25519 private key"),
        ({"credential": "nonsense"}, "cannot be used"),
        ({"credential": CONTENT["grant"]}, "cannot be used"),
        ({"grant": CONTENT["credential"]}, "cannot be used"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CredentialsFileError, match=sentence) as caught:
        load(**changes)
    assert SEED not in str(caught.value)
    assert CONTENT["credential"] not in str(caught.value)


def test_a_grant_of_another_tunnel_is_refused() -> None:
    other = s.sign_grant(
        s.generate_issuer_key(), subject=CONTENT["tunnelId"], version=1, names=[], issued_at=1, expires_at=2
    )
    with pytest.raises(CredentialsFileError, match="'grant' is another tunnel's"):
        load(grant=other)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not JSON"),
        (f'{{"privateKey": "{SEED}"', "not JSON"),
        ("[" * 50_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"AccountTag": "a", "TunnelSecret": "b", "TunnelID": "c"}', "cloudflared credentials file"),
        ("x" * (MAX_SIZE + 1), "more than"),
    ],
)
def test_other_files_are_refused_without_quoting_them(text: str | bytes, sentence: str) -> None:
    with pytest.raises(CredentialsFileError, match=sentence) as caught:
        CredentialsFile.loads(text)
    assert SEED not in str(caught.value)
    error = caught.value
    # A JSON error's own text and document hold what was read: a traceback must not show it.
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


def test_neither_key_nor_credential_shows_in_repr() -> None:
    shown = repr(load())
    for secret in (SEED, CONTENT["credential"], repr(base64url_decode(SEED))):
        assert secret not in shown
