"""Ed25519 keys: the issuer's, and the one a connector proves possession of.

Responsible for reading, writing and naming keys (PEM files, JWK, RFC 7638 thumbprint) and for raw
signatures. Must not know: statements, files, sockets, clocks.

Invariants: a key is Ed25519 or it does not exist (algorithms are pinned by construction, never negotiated);
a private key never shows in ``repr``; every public key knows the issuer it speaks for (``issuer_id``), so a
key trusted for one issuer cannot sign for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

#: A key file is a few hundred bytes; a public key file may hold some successors.
MAX_PEM_SIZE = 64 * 1024
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")


class KeyFormatError(ValueError):
    """A key that cannot be used; the message is a sentence that says what to do instead."""


def base64url_encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def base64url_decode(text: str) -> bytes:
    """The bytes of unpadded base64url; ``ValueError`` unless ``text`` is their one canonical spelling.

    Without that rule the unused bits of the last character could be changed in a token that still verifies.
    """
    if not _BASE64URL.match(text):
        raise ValueError("not base64url: only A-Z, a-z, 0-9, '-' and '_' are allowed, without padding")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(f"not base64url: {error}") from None
    if base64url_encode(data) != text:
        raise ValueError("not base64url: the last character carries bits that belong to no byte")
    return data


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key; ``raw`` is its 32 bytes (RFC 8032 section 5.1.5).

    ``thumbprint`` is the key's name: base64url SHA-256 of its canonical JWK (RFC 7638; members by RFC 8037
    section 2). ``issuer_id`` is the thumbprint of the first key of the issuer that this key speaks for; by
    default its own.
    """

    raw: bytes
    issuer_id: str = ""
    thumbprint: str = field(init=False, repr=False, compare=False)
    _key: Ed25519PublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
        except (ValueError, TypeError) as error:
            raise KeyFormatError(f"This is not an Ed25519 public key: {error}.") from None
        canonical = f'{{"crv":"Ed25519","kty":"OKP","x":"{base64url_encode(self.raw)}"}}'
        thumbprint = base64url_encode(hashlib.sha256(canonical.encode("ascii")).digest())
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "thumbprint", thumbprint)
        if not self.issuer_id:
            object.__setattr__(self, "issuer_id", thumbprint)

    def jwk(self) -> dict[str, str]:
        """The key as a JWK (RFC 8037 section 2)."""
        return {"crv": "Ed25519", "kty": "OKP", "x": base64url_encode(self.raw)}

    def pem(self) -> bytes:
        """SubjectPublicKeyInfo PEM, as in an ``issuer.pub`` file."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` is this key's over ``message``."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    @property
    def cryptography_key(self) -> Ed25519PublicKey:
        """The same key for a library that wants ``cryptography``'s type."""
        return self._key


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """An Ed25519 private key; ``seed`` is its 32 bytes (RFC 8032 section 5.1.5) and is never shown.

    ``public`` is its public half.
    """

    seed: bytes = field(repr=False)
    public: PublicKey = field(init=False, compare=False)
    _key: Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            key = Ed25519PrivateKey.from_private_bytes(self.seed)
        except (ValueError, TypeError):
            raise KeyFormatError("This is not an Ed25519 private key: it must have 32 bytes.") from None
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "public", PublicKey(key.public_key().public_bytes_raw()))

    def pem(self) -> bytes:
        """Unencrypted PKCS#8 PEM, as in an ``issuer.key`` file. Write it with mode 0600."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature over ``message``."""
        return self._key.sign(message)

    @property
    def cryptography_key(self) -> Ed25519PrivateKey:
        """The same key for a library that wants ``cryptography``'s type."""
        return self._key


#: The key that signs statements. Any Ed25519 key can; the name says what a parameter is for.
IssuerKey: TypeAlias = PrivateKey


def generate_key() -> PrivateKey:
    """A new key from the operating system's randomness."""
    return PrivateKey(Ed25519PrivateKey.generate().private_bytes_raw())


def generate_issuer_key() -> IssuerKey:
    """A new issuer key from the operating system's randomness."""
    return generate_key()


def load_issuer_private(pem: bytes) -> IssuerKey:
    """Reads an ``issuer.key`` file: one unencrypted PKCS#8 PEM block; ``KeyFormatError`` otherwise."""
    kinds = [block.group(1) for block in _blocks(pem)]
    if kinds == [b"PUBLIC KEY"]:
        raise KeyFormatError("This file holds a public key; give the private one, issuer.key.")
    if kinds == [b"ENCRYPTED PRIVATE KEY"]:
        raise KeyFormatError(
            "This key is protected by a passphrase; decrypt it first, for example with "
            "'openssl pkey -in issuer.key -out plain.key', and keep the result readable only by you."
        )
    if kinds != [b"PRIVATE KEY"]:
        raise KeyFormatError(
            "This file does not hold exactly one PEM block 'PRIVATE KEY'; make a key with 'culvert keys create'."
        )
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text may quote what it read: never pass it on.
        raise KeyFormatError("The PEM block does not hold a readable private key.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFormatError(
            "This is not an Ed25519 key, the only kind that culvert uses; make one with 'culvert keys create'."
        )
    return PrivateKey(key.private_bytes_raw())


def load_issuer_public(pem: bytes) -> tuple[PublicKey, ...]:
    """Reads an ``issuer.pub`` file: one or more PEM blocks 'PUBLIC KEY', the first of which names the issuer.

    All keys come back with the first one's thumbprint as ``issuer_id``: the later ones are its successors.
    ``KeyFormatError`` for anything else, a private key among it above all.
    """
    blocks = list(_blocks(pem))
    if any(b"PRIVATE" in block.group(1) for block in blocks):
        raise KeyFormatError(
            "This file holds a private key, which no relay may have; give it the public one, issuer.pub."
        )
    if not blocks or any(block.group(1) != b"PUBLIC KEY" for block in blocks):
        raise KeyFormatError(
            "This file does not hold PEM blocks 'PUBLIC KEY' only; print one with 'culvert keys show issuer.key'."
        )
    keys: list[PublicKey] = []
    for number, block in enumerate(blocks, 1):
        try:
            key = serialization.load_pem_public_key(block.group(0))
        except (ValueError, UnsupportedAlgorithm):
            raise KeyFormatError(f"PEM block {number} does not hold a readable public key.") from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFormatError(f"PEM block {number} is not an Ed25519 key, the only kind that culvert uses.")
        raw = key.public_bytes_raw()
        keys.append(PublicKey(raw, keys[0].issuer_id if keys else ""))
    return tuple(keys)


def key_set(keys: Iterable[PublicKey]) -> dict[str, PublicKey]:
    """Keys by thumbprint, as verifying wants them; ``KeyFormatError`` when one key speaks for two issuers."""
    found: dict[str, PublicKey] = {}
    for key in keys:
        other = found.setdefault(key.thumbprint, key)
        if other.issuer_id != key.issuer_id:
            raise KeyFormatError(
                f"The key {key.thumbprint} belongs to two issuers ({other.issuer_id} and {key.issuer_id}); "
                "remove it from one of their public key files."
            )
    return found


def _blocks(pem: bytes) -> Iterable[re.Match[bytes]]:
    if len(pem) > MAX_PEM_SIZE:
        raise KeyFormatError(f"This is not a key file: it has more than {MAX_PEM_SIZE} bytes.")
    return _PEM_BLOCK.finditer(pem)
