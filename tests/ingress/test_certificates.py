"""Certificate authorities: certificates, nothing else, and never quoted in a sentence."""

from __future__ import annotations

import pytest

from culvert_ingress.certificates import CertificateError, check_certificates


def test_one_or_more_certificates_are_taken_as_they_are(certificate_pem: str) -> None:
    assert check_certificates(certificate_pem) == certificate_pem
    bundle = f"# a comment\n{certificate_pem}\n{certificate_pem}"
    assert check_certificates(bundle) == bundle


def test_a_private_key_is_refused_without_repeating_it(certificate_pem: str, private_key_pem: str) -> None:
    with pytest.raises(CertificateError, match="holds a private key") as refusal:
        check_certificates(certificate_pem + private_key_pem)
    assert private_key_pem.splitlines()[1] not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN NOTHING"])
def test_a_text_without_certificates_is_refused(text: str) -> None:
    with pytest.raises(CertificateError, match="no PEM certificate"):
        check_certificates(text)


def test_a_truncated_or_foreign_text_is_refused(certificate_pem: str) -> None:
    lines = certificate_pem.splitlines(keepends=True)
    for damaged in ("".join(lines[:-1]), "".join(lines[:1] + lines[2:]), certificate_pem + "".join(lines[:2])):
        with pytest.raises(CertificateError, match="is the file complete"):
            check_certificates(damaged)
    with pytest.raises(CertificateError, match="something other than certificates"):
        check_certificates(certificate_pem + "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(CertificateError, match="larger than 1 MiB"):
        check_certificates(certificate_pem + "\n" * (1 << 20))
