"""Keys: PEM files, thumbprints, and refusing everything that is not one Ed25519 key."""

import contextlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.keys import (
    MAX_PEM_SIZE,
    KeyFormatError,
    PrivateKey,
    PublicKey,
    base64url_decode,
    base64url_encode,
    generate_issuer_key,
    key_set,
    load_issuer_private,
    load_issuer_public,
)

VECTORS = Path(__file__).parent / "vectors"
KEYS = json.loads((VECTORS / "statements.json").read_text())["keys"]


@pytest.mark.parametrize("name", sorted(KEYS))
def test_public_key_and_thumbprint_follow_from_the_seed_as_in_the_vectors(name: str) -> None:
    key = PrivateKey(base64url_decode(KEYS[name]["seed"]))
    assert base64url_encode(key.public.raw) == KEYS[name]["public"]
    assert key.public.thumbprint == KEYS[name]["thumbprint"]


def test_key_files_of_another_program_are_read_and_written_the_same() -> None:
    private_pem = (VECTORS / "issuer.key").read_bytes()
    key = load_issuer_private(private_pem)
    assert key.public.thumbprint == KEYS["issuer"]["thumbprint"]
    assert key.pem() == private_pem
    assert (VECTORS / "issuer.pub").read_bytes().startswith(key.public.pem())


def test_every_key_of_a_public_key_file_speaks_for_the_first() -> None:
    first, successor = load_issuer_public((VECTORS / "issuer.pub").read_bytes())
    assert first.thumbprint == first.issuer_id == successor.issuer_id == KEYS["issuer"]["thumbprint"]
    assert successor.thumbprint == KEYS["successor"]["thumbprint"]


def test_text_around_pem_blocks_is_a_comment() -> None:
    key = generate_issuer_key()
    (read,) = load_issuer_public(b"# our issuer, 2026\n" + key.public.pem() + b"\n")
    assert read == key.public


def test_a_key_for_two_issuers_is_refused_but_listed_twice_is_fine() -> None:
    one, two = generate_issuer_key().public, generate_issuer_key().public
    assert key_set([one, two, one]) == {one.thumbprint: one, two.thumbprint: two}
    with pytest.raises(KeyFormatError, match="belongs to two issuers"):
        key_set([one, two, PublicKey(two.raw, one.issuer_id)])


def _pem_of(private: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> tuple[bytes, bytes]:
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.mark.parametrize("other", [ec.generate_private_key(ec.SECP256R1()), ed448.Ed448PrivateKey.generate()])
def test_other_kinds_of_key_are_refused(other: ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey) -> None:
    private, public = _pem_of(other)
    with pytest.raises(KeyFormatError, match="not an Ed25519 key"):
        load_issuer_private(private)
    with pytest.raises(KeyFormatError, match="not an Ed25519 key"):
        load_issuer_public(public)


def test_each_wrong_file_is_told_apart() -> None:
    key = generate_issuer_key()
    encrypted = key.cryptography_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    refused = [
        (load_issuer_private, key.public.pem(), "holds a public key"),
        (load_issuer_private, encrypted, "passphrase"),
        (load_issuer_private, b"", "exactly one PEM block"),
        (load_issuer_private, key.pem() + key.pem(), "exactly one PEM block"),
        (load_issuer_private, key.pem().replace(b"MC4C", b"MC4D"), "readable private key"),
        (load_issuer_public, key.pem(), "holds a private key"),
        (load_issuer_public, key.public.pem() + key.pem(), "holds a private key"),
        (load_issuer_public, b"hello", "PEM blocks 'PUBLIC KEY' only"),
        (load_issuer_public, key.public.pem().replace(b"MCow", b"MCox"), "readable public key"),
        (load_issuer_public, b"x" * (MAX_PEM_SIZE + 1), "more than"),
    ]
    for load, text, sentence in refused:
        with pytest.raises(KeyFormatError, match=sentence):
            load(text)


def test_a_private_key_does_not_show_itself() -> None:
    key = generate_issuer_key()
    shown = f"{key!r} {key}"
    assert base64url_encode(key.seed) not in shown
    assert repr(key.seed) not in shown
    assert key.seed.hex() not in shown


@given(st.binary(max_size=80))
def test_base64url_round_trips_and_has_one_spelling(data: bytes) -> None:
    text = base64url_encode(data)
    assert base64url_decode(text) == data
    last = text[-1:] or "A"
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ ":
        if other != last:
            with contextlib.suppress(ValueError):
                assert base64url_decode(text[:-1] + other) != data


@pytest.mark.parametrize("raw", [b"", b"x" * 31, b"x" * 33])
def test_a_key_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(KeyFormatError):
        PublicKey(raw)
    with pytest.raises(KeyFormatError):
        PrivateKey(raw)
