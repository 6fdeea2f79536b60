"""Certificates for the relay that runs beside the operator: a small CA and a server certificate.

Responsible for: making and judging them (X.509, ECDSA P-256). Must not know: where they are kept. Time comes in.
Invariants: a CA made here signs server certificates only (path length 0); private keys leave only as PEM to be put
into a Secret; a certificate is renewed long before it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
CA_RENEW_DAYS = 365
SERVER_DAYS = 90
SERVER_RENEW_DAYS = 30
SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority(name: str, *, now: float) -> Pair:
    """A new CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    built = (
        _builder(subject, subject, key.public_key(), now=now, days=CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(built, key)


def make_server(names: Sequence[str], authority: Pair, *, now: float) -> Pair:
    """A server certificate for DNS names (``*.`` allowed), signed by ``authority``."""
    signer = x509.load_pem_x509_certificate(authority.certificate)
    signing_key = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    built = (
        _builder(x509.Name([]), signer.subject, key.public_key(), now=now, days=SERVER_DAYS)
        # RFC 5280, 4.2.1.6: an empty subject makes the alternative names critical.
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .sign(signing_key, hashes.SHA256())
    )
    return _pair(built, key)


def authority_is_good(pair: Pair | None, *, now: float) -> bool:
    """Whether a CA can be used on: readable, its own key, and far from its end."""
    found = _load(pair)
    return found is not None and _days_left(found, now) > CA_RENEW_DAYS


def server_is_good(pair: Pair | None, names: Sequence[str], authority: Pair, *, now: float) -> bool:
    """Whether a server certificate can be used on: signed by ``authority``, for these names, far from its end."""
    found, signer = _load(pair), _load(authority)
    if found is None or signer is None or _days_left(found, now) <= SERVER_RENEW_DAYS:
        return False
    try:
        found.verify_directly_issued_by(signer)
        held = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:
        # Whatever is wrong with it, it is replaced.
        return False
    return set(held.get_values_for_type(x509.DNSName)) == set(names)


def bundle(current: bytes, published: bytes, *, now: float) -> bytes:
    """The CA to publish, and those published before that are still valid, so that a change of CA cuts nobody off."""
    kept = [x509.load_pem_x509_certificate(current)]
    try:
        kept += x509.load_pem_x509_certificates(published) if published.strip() else []
    except ValueError:
        kept = kept[:1]
    unique = {c.fingerprint(hashes.SHA256()): c for c in kept if _days_left(c, now) > 0}
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in list(unique.values())[:3])


def expires_at(pair: Pair) -> float:
    """Epoch seconds of a certificate's end."""
    return x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc.timestamp()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, now: float, days: int
) -> x509.CertificateBuilder:
    moment = datetime.fromtimestamp(now, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - SKEW)
        .not_valid_after(moment + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _load(pair: Pair | None) -> x509.Certificate | None:
    """The certificate, if it and its key are readable and belong together."""
    if pair is None:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate)
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError):
        return None
    return certificate if key.public_key() == certificate.public_key() else None


def _days_left(certificate: x509.Certificate, now: float) -> float:
    return (certificate.not_valid_after_utc.timestamp() - now) / 86400
