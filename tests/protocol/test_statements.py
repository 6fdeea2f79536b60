"""Statements: what verifies, and that nothing else does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_protocol import jws
from culvert_protocol import statements as s

VECTORS = Path(__file__).parent / "vectors"
VECTOR = json.loads((VECTORS / "statements.json").read_text())
ISSUER = s.load_issuer_private((VECTORS / "issuer.key").read_bytes())
TRUSTED = s.key_set(s.load_issuer_public((VECTORS / "issuer.pub").read_bytes()))
SUCCESSOR = s.PrivateKey(bytes([1]) * 32)
TUNNEL = s.PrivateKey(bytes([2]) * 32)
NOW = 1732377800
SUBJECT = "tunnel-1"

Verify = Callable[..., s.Credential | s.Grant | s.Revocation]
KINDS: list[tuple[str, str, Verify]] = [
    ("credential", s.CREDENTIAL_TYPE, s.verify_credential),
    ("grant", s.GRANT_TYPE, s.verify_grant),
    ("revocation", s.REVOCATION_TYPE, s.verify_revocation),
]


def credential(**changes: Any) -> str:
    claims: dict[str, Any] = {
        "subject": SUBJECT,
        "public_key": TUNNEL.public,
        "issued_at": NOW,
        "not_before": NOW,
        "expires_at": NOW + 3600,
        "jti": "j-1",
    }
    return s.sign_credential(changes.pop("issuer", ISSUER), **(claims | changes))


def grant(**changes: Any) -> str:
    claims: dict[str, Any] = {
        "subject": SUBJECT,
        "version": 1,
        "names": [s.GrantedName("app.example.com", NOW * 1000)],
        "issued_at": NOW,
        "expires_at": NOW + 3600,
    }
    return s.sign_grant(changes.pop("issuer", ISSUER), **(claims | changes))


def reason(call: Callable[[], object]) -> str:
    with pytest.raises(s.StatementError) as caught:
        call()
    assert str(caught.value).startswith(s.REASONS[caught.value.reason])
    return caught.value.reason


# --- golden vectors -----------------------------------------------------------------------------------------


def test_the_vectors_verify_and_say_what_their_claims_say() -> None:
    shown = s.verify_credential(VECTOR["credential"]["token"], TRUSTED, now=NOW)
    claims = VECTOR["credential"]["claims"]
    assert shown.tunnel == (claims["iss"], claims["sub"])
    assert (shown.issued_at, shown.not_before, shown.expires_at) == (claims["iat"], claims["nbf"], claims["exp"])
    assert shown.jti == "vector-credential-1"
    assert shown.key_id == VECTOR["keys"]["tunnel"]["thumbprint"]
    assert shown.signed_by == VECTOR["keys"]["issuer"]["thumbprint"]

    granted = s.verify_grant(VECTOR["grant"]["token"], TRUSTED, now=NOW)
    assert [(n.hostname, n.claimed_at) for n in granted.names] == [
        ("app.example.com", 1732377600000),
        ("*.example.com", 1732377600500),
    ]
    assert granted.version == 1732377600000
    by_successor = s.verify_grant(VECTOR["grantBySuccessor"]["token"], TRUSTED, now=NOW)
    assert by_successor.tunnel == granted.tunnel
    assert by_successor.signed_by == VECTOR["keys"]["successor"]["thumbprint"]

    revoked = s.verify_revocation(VECTOR["revocation"]["token"], TRUSTED, now=NOW)
    assert revoked.not_before == 1732377650
    assert revoked.revokes(shown)


def test_signing_gives_the_vectors_byte_for_byte() -> None:
    claims = VECTOR["credential"]["claims"]
    assert VECTOR["credential"]["token"] == s.sign_credential(
        ISSUER,
        subject=claims["sub"],
        public_key=TUNNEL.public,
        issued_at=claims["iat"],
        not_before=claims["nbf"],
        expires_at=claims["exp"],
        jti=claims["jti"],
    )
    claims = VECTOR["grant"]["claims"]
    names = [s.GrantedName(n["hostname"], n["claimedAt"]) for n in claims["names"]]
    for issuer, vector in ((ISSUER, "grant"), (SUCCESSOR, "grantBySuccessor")):
        assert VECTOR[vector]["token"] == s.sign_grant(
            issuer,
            subject=claims["sub"],
            version=claims["version"],
            names=names,
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            issuer_id=ISSUER.public.thumbprint,
        )
    claims = VECTOR["revocation"]["claims"]
    assert VECTOR["revocation"]["token"] == s.sign_revocation(
        ISSUER, subject=claims["sub"], not_before=claims["notBefore"], issued_at=claims["iat"]
    )


def test_a_standard_jwt_library_reads_a_credential() -> None:
    claims = jwt.decode(
        credential(), ISSUER.public.cryptography_key, ["EdDSA"], audience="culvert-relay",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )  # fmt: skip
    assert claims["sub"] == SUBJECT


# --- forgery ------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.data())
def test_changing_any_character_of_a_token_makes_it_invalid(data: st.DataObject) -> None:
    name, _, verify = data.draw(st.sampled_from(KINDS))
    token = VECTOR[name]["token"]
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(max_codepoint=0x2FF).filter(lambda c: c != token[at]))
    with pytest.raises(s.StatementError):
        verify(token[:at] + other + token[at + 1 :], TRUSTED, now=NOW)


def test_no_other_spelling_of_the_last_character_is_accepted() -> None:
    token = VECTOR["credential"]["token"]
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        if other != token[-1]:
            with pytest.raises(s.StatementError):
                s.verify_credential(token[:-1] + other, TRUSTED, now=NOW)
    with pytest.raises(s.StatementError):
        s.verify_credential(token + "=", TRUSTED, now=NOW)


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda b: b.decode("latin-1")))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    for _, _, verify in KINDS:
        assert reason(lambda v=verify: v(text, TRUSTED, now=NOW)) in s.REASONS


def test_one_kind_never_passes_as_another() -> None:
    for name, _, _ in KINDS:
        for other, _, verify in KINDS:
            if other != name:
                assert reason(lambda n=name, v=verify: v(VECTOR[n]["token"], TRUSTED, now=NOW)) == "wrong_type"


def test_an_issuer_cannot_speak_for_another() -> None:
    mallory = s.generate_issuer_key()
    keys = {**TRUSTED, mallory.public.thumbprint: mallory.public}
    for sign, verify in ((credential, s.verify_credential), (grant, s.verify_grant)):
        token = sign(issuer=mallory, issuer_id=ISSUER.public.thumbprint)
        assert reason(lambda v=verify, t=token: v(t, keys, now=NOW)) == "wrong_issuer"
    token = s.sign_revocation(
        mallory, subject=SUBJECT, not_before=NOW, issued_at=NOW, issuer_id=ISSUER.public.thumbprint
    )
    assert reason(lambda: s.verify_revocation(token, keys, now=NOW)) == "wrong_issuer"


def test_a_successor_speaks_for_the_first_key_and_not_for_itself() -> None:
    token = credential(issuer=SUCCESSOR, issuer_id=ISSUER.public.thumbprint)
    assert s.verify_credential(token, TRUSTED, now=NOW).tunnel.issuer == ISSUER.public.thumbprint
    assert reason(lambda: s.verify_credential(credential(issuer=SUCCESSOR), TRUSTED, now=NOW)) == "wrong_issuer"


def test_an_unknown_key_is_refused_before_its_claims_are_read() -> None:
    token = credential(issuer=s.generate_issuer_key())
    assert reason(lambda: s.verify_credential(token, TRUSTED, now=NOW)) == "unknown_key"


def _raw(payload: bytes | Mapping[str, Any], header: Mapping[str, Any], key: Any, algorithm: str | None) -> str:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return jwt.PyJWS().encode(body, key, algorithm=algorithm, headers=dict(header))


def test_only_eddsa_is_accepted_whatever_the_header_says() -> None:
    claims = VECTOR["credential"]["claims"]
    header = {"typ": s.CREDENTIAL_TYPE, "kid": ISSUER.public.thumbprint}
    secret = ISSUER.public.raw.ljust(32, b"\0")  # the public key as an HMAC secret: the classic confusion
    for token in (_raw(claims, header, secret, "HS256"), _raw(claims, header, None, None)):
        assert reason(lambda t=token: s.verify_credential(t, TRUSTED, now=NOW)) == "wrong_algorithm"


@pytest.mark.parametrize(
    "extra",
    [{"crit": ["b64"], "b64": True}, {"jwk": {"kty": "OKP"}}, {"x5u": "https://example.com"}, {"cty": "JWT"}],
)
def test_header_members_that_culvert_does_not_write_are_refused(extra: Mapping[str, Any]) -> None:
    header = {"typ": s.CREDENTIAL_TYPE, "kid": ISSUER.public.thumbprint, **extra}
    token = _raw(VECTOR["credential"]["claims"], header, ISSUER.cryptography_key, "EdDSA")
    # PyJWT drops a true "b64"; "crit" stays and is refused.
    assert reason(lambda: s.verify_credential(token, TRUSTED, now=NOW)) == "malformed"


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"null", b'{"iat":1,"iat":2}', b'{"iat":NaN}', b"\xff\xfe", b"[" * 3000, b'{"a":' * 1000],
)
def test_a_signed_payload_that_is_no_plain_json_object_is_refused(payload: bytes) -> None:
    header = {"typ": s.CREDENTIAL_TYPE, "kid": ISSUER.public.thumbprint}
    token = _raw(payload, header, ISSUER.cryptography_key, "EdDSA")
    assert reason(lambda: s.verify_credential(token, TRUSTED, now=NOW)) == "malformed"


# --- claims -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "typ", "verify"), KINDS)
def test_every_claim_is_mandatory(name: str, typ: str, verify: Verify) -> None:
    claims = VECTOR[name]["claims"]
    mandatory = set(claims) - {"tcpPorts"}  # as "tlsNames", which the vectors leave out
    for claim in mandatory:
        token = jws.sign(ISSUER, typ=typ, claims={k: v for k, v in claims.items() if k != claim})
        assert reason(lambda t=token: verify(t, TRUSTED, now=NOW)) == "missing_claim", claim


@pytest.mark.parametrize(("name", "typ", "verify"), KINDS)
def test_every_claim_is_checked(name: str, typ: str, verify: Verify) -> None:
    claims = VECTOR[name]["claims"]
    nonsense: list[Any] = [None, True, -1, 1.5, 2**53, [], {}, [1], "", "a b", "\n", {"jwk": {}}, [{"hostname": "a"}]]
    for claim in claims:
        for value in nonsense:
            if claim in ("names", "tcpPorts") and value == []:
                continue
            token = jws.sign(ISSUER, typ=typ, claims={**claims, claim: value})
            refused = reason(lambda t=token: verify(t, TRUSTED, now=NOW))
            assert refused == ("wrong_audience" if claim == "aud" else "bad_claim"), (claim, value)


def test_a_list_of_audiences_is_not_the_audience() -> None:
    claims = {**VECTOR["grant"]["claims"], "aud": ["culvert-relay"]}
    token = jws.sign(ISSUER, typ=s.GRANT_TYPE, claims=claims)
    assert reason(lambda: s.verify_grant(token, TRUSTED, now=NOW)) == "wrong_audience"


def test_unknown_claims_are_ignored_but_an_unknown_restriction_of_a_name_is_not() -> None:
    claims = VECTOR["grant"]["claims"]
    token = jws.sign(ISSUER, typ=s.GRANT_TYPE, claims={**claims, "note": "later"})
    assert s.verify_grant(token, TRUSTED, now=NOW).version == claims["version"]
    names = [{**claims["names"][0], "allowedMethods": ["GET"]}]
    token = jws.sign(ISSUER, typ=s.GRANT_TYPE, claims={**claims, "names": names})
    assert reason(lambda: s.verify_grant(token, TRUSTED, now=NOW)) == "bad_claim"


def test_a_grant_lists_a_name_once_and_ports_in_range() -> None:
    name = s.GrantedName("a.example.com", 1)
    assert reason(lambda: grant(names=[name, s.GrantedName("a.example.com", 2)])) == "bad_claim"
    assert reason(lambda: grant(names=[name], tls_names=[name])) == "bad_claim"
    for port in (0, 65536):
        assert reason(lambda p=port: grant(tcp_ports=[s.GrantedPort(p, 1)])) == "bad_claim"
    assert reason(lambda: grant(tcp_ports=[s.GrantedPort(20000, 1), s.GrantedPort(20000, 2)])) == "bad_claim"
    port = s.GrantedPort(20000, 5, ("192.0.2.0/24", "2001:db8::/32"))
    passed = s.GrantedName("db.example.com", 7, ("10.0.0.0/8",))
    read = s.verify_grant(grant(tcp_ports=[port], tls_names=[passed]), TRUSTED, now=NOW)
    assert (read.tcp_ports, read.tls_names) == ((port,), (passed,))


@pytest.mark.parametrize(
    "sources",
    [
        [],
        "10.0.0.0/8",
        [1],
        [""],
        ["10.0.0.1/8"],
        ["10.0.0.0"],
        ["example.com"],
        ["10.0.0.0/8", "10.0.0.0/8"],
        [f"10.0.{n}.0/24" for n in range(65)],
    ],
)
def test_a_restriction_that_cannot_be_read_refuses_the_grant(sources: Any) -> None:
    claims = VECTOR["grant"]["claims"]
    names = [{**claims["names"][0], "allowedSources": sources}]
    token = jws.sign(ISSUER, typ=s.GRANT_TYPE, claims={**claims, "names": names})
    assert reason(lambda: s.verify_grant(token, TRUSTED, now=NOW)) == "bad_claim"


def test_signing_refuses_what_no_relay_would_accept() -> None:
    assert reason(lambda: credential(subject="")) == "bad_claim"
    assert reason(lambda: credential(subject="two words")) == "bad_claim"
    assert reason(lambda: credential(expires_at=NOW)) == "bad_claim"
    assert reason(lambda: credential(issuer_id="short")) == "bad_claim"
    assert reason(lambda: grant(version=0)) == "bad_claim"
    assert reason(lambda: grant(expires_at=NOW)) == "bad_claim"
    future = {"subject": SUBJECT, "not_before": NOW + 1, "issued_at": NOW}
    assert reason(lambda: s.sign_revocation(ISSUER, **future)) == "bad_claim"


# --- sizes --------------------------------------------------------------------------------------------------


def test_sizes_are_bounded_before_anything_is_parsed() -> None:
    # The header of these names no key at all: had it been looked at, the reason would be another.
    for (_, _, verify), size in zip(
        KINDS, (s.MAX_CREDENTIAL_SIZE, s.MAX_GRANT_SIZE, s.MAX_REVOCATION_SIZE), strict=True
    ):
        assert reason(lambda v=verify, n=size: v("x" * (n + 1), TRUSTED, now=NOW)) == "too_large"
        assert reason(lambda v=verify, n=size: v("x" * n, TRUSTED, now=NOW)) == "malformed"


def test_ten_thousand_names_fit_into_a_grant_and_more_are_refused_when_signing() -> None:
    names = [s.GrantedName(f"n{i}.example.com", NOW * 1000) for i in range(10_000)]
    assert len(s.verify_grant(grant(names=names), TRUSTED, now=NOW).names) == 10_000
    names = [s.GrantedName(f"{'n' * 60}{i}.example.com", NOW * 1000) for i in range(10_000)]
    assert reason(lambda: grant(names=names)) == "too_large"


# --- time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        (NOW - 61, "not_yet_valid"),
        (NOW - 60, None),
        (NOW + 3600 + 59.9, None),
        (NOW + 3600 + 60, "expired"),
    ],
)
def test_a_statement_holds_between_its_times_give_or_take_a_minute(now: float, outcome: str | None) -> None:
    for token, verify in ((credential(), s.verify_credential), (grant(), s.verify_grant)):
        if outcome is None:
            verify(token, TRUSTED, now=now)
        else:
            assert reason(lambda v=verify, t=token: v(t, TRUSTED, now=now)) == outcome


def test_a_credential_holds_from_the_later_of_iat_and_nbf() -> None:
    token = credential(not_before=NOW + 100)
    assert reason(lambda: s.verify_credential(token, TRUSTED, now=NOW + 39)) == "not_yet_valid"
    s.verify_credential(token, TRUSTED, now=NOW + 40)


def test_a_revocation_never_expires_but_does_not_come_from_the_future() -> None:
    token = VECTOR["revocation"]["token"]
    issued = VECTOR["revocation"]["claims"]["iat"]
    s.verify_revocation(token, TRUSTED, now=issued + 10**9)
    assert reason(lambda: s.verify_revocation(token, TRUSTED, now=issued - 61)) == "not_yet_valid"


def test_a_revocation_is_about_older_credentials_of_the_same_tunnel_only() -> None:
    def read(token: str) -> s.Credential:
        return s.verify_credential(token, TRUSTED, now=NOW + 100)

    token = s.sign_revocation(ISSUER, subject=SUBJECT, not_before=NOW + 1, issued_at=NOW + 1)
    revocation = s.verify_revocation(token, TRUSTED, now=NOW + 1)
    assert revocation.revokes(read(credential()))
    assert not revocation.revokes(read(credential(issued_at=NOW + 1)))
    assert not revocation.revokes(read(credential(subject="tunnel-2")))
    other = s.generate_issuer_key()
    theirs = s.verify_credential(credential(issuer=other), {other.public.thumbprint: other.public}, now=NOW)
    assert not revocation.revokes(theirs)


# --- proof of possession ------------------------------------------------------------------------------------


def test_the_proof_vector() -> None:
    vector = VECTOR["proof"]
    nonce, name = vector["nonce"], vector["serverName"]
    assert s.proof_message(nonce=nonce, server_name=name).hex() == vector["messageHex"]
    assert s.prove(TUNNEL, nonce=nonce, server_name=name) == vector["proof"]


def test_a_proof_holds_for_its_nonce_its_names_and_its_key_only() -> None:
    shown = s.verify_credential(credential(), TRUSTED, now=NOW)
    proof = s.prove(TUNNEL, nonce="nonce-1", server_name="Relay.Example.com.")
    assert s.check_proof(shown, proof, nonce="nonce-1", server_names=["x.example.com", "relay.example.com"])
    assert not s.check_proof(shown, proof, nonce="nonce-2", server_names=["relay.example.com"])
    assert not s.check_proof(shown, proof, nonce="nonce-1", server_names=["evil.example.com"])
    assert not s.check_proof(shown, proof, nonce="nonce-1", server_names=[])
    stolen = s.prove(s.PrivateKey(bytes([3]) * 32), nonce="nonce-1", server_name="relay.example.com")
    assert not s.check_proof(shown, stolen, nonce="nonce-1", server_names=["relay.example.com"])


@given(st.text(max_size=100))
def test_any_other_text_is_no_proof(text: str) -> None:
    shown = s.read_credential(VECTOR["credential"]["token"])
    assert not s.check_proof(shown, text, nonce="nonce-1", server_names=["relay.example.com"])


@given(st.text(st.characters(max_codepoint=127), max_size=8), st.text(st.characters(max_codepoint=127), max_size=8))
def test_two_pairs_never_make_one_proof_message(nonce: str, name: str) -> None:
    try:
        message = s.proof_message(nonce=nonce, server_name=name)
    except ValueError:
        assert not nonce or not name.rstrip(".") or "\0" in nonce + name
        return
    assert message.split(b"\0") == [
        b"culvert-session-proof-v1", nonce.encode(), name.lower().removesuffix(".").encode(),
    ]  # fmt: skip


def test_reading_ones_own_statements_needs_no_key() -> None:
    own = s.read_credential(VECTOR["credential"]["token"])
    assert own == s.verify_credential(VECTOR["credential"]["token"], TRUSTED, now=NOW)
    assert s.read_grant(VECTOR["grant"]["token"]) == s.verify_grant(VECTOR["grant"]["token"], TRUSTED, now=NOW)
    assert reason(lambda: s.read_credential("a.b")) == "malformed"
