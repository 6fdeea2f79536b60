"""Certificate authorities as PEM text: checked before a rule that names them is accepted.

Responsible for: refusing private keys, truncated files and texts that hold no certificate, with sentences that never
quote the text. Must not know whom the certificates are for, and judges no dates: there is no clock here.
"""

from __future__ import annotations

import functools
import re
import warnings

from cryptography import x509

__all__ = ["CertificateError", "check_certificates"]

MAX_PEM = 1 << 20
"""Characters; a ConfigMap holds no more, and the public roots together are a quarter of it."""

_BEGIN = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----")


class CertificateError(ValueError):
    """PEM text that is not a list of certificates; the text is a sentence that says what is needed."""


@functools.lru_cache(maxsize=64)
def check_certificates(pem: str) -> str:
    """`pem` itself when it holds one or more certificates and nothing else in PEM. Raises CertificateError."""
    if len(pem) > MAX_PEM:
        raise CertificateError(
            "The certificate authority is larger than 1 MiB; give only the certificates that are needed."
        )
    kinds = _BEGIN.findall(pem)
    if any("PRIVATE KEY" in kind for kind in kinds):
        raise CertificateError(
            "The certificate authority holds a private key; give a file with certificates only, and replace that key "
            "if others could read it."
        )
    if not kinds:
        raise CertificateError(
            "The certificate authority holds no PEM certificate; give text with -----BEGIN CERTIFICATE-----."
        )
    if any(kind != "CERTIFICATE" for kind in kinds):
        raise CertificateError(
            "The certificate authority holds something other than certificates; leave only the certificates in it."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old roots with odd serial numbers are still roots
            found = len(x509.load_pem_x509_certificates(pem.encode()))
    except ValueError:
        raise CertificateError(
            "The certificate authority cannot be read as certificates; is the file complete?."
        ) from None
    if found != len(kinds):
        raise CertificateError("The certificate authority cannot be read as certificates; is the file complete?.")
    return pem
