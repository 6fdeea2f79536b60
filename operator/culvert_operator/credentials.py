"""The life of a Tunnel's credential: when one is issued, and how long it holds.

Responsible for: Secret → :class:`~culvert_operator.world.CredentialState` (without anything secret), and the decision
to issue. Must not know: how a key is made or a statement signed.
Invariants: a valid credential younger than the renewal period is left alone, whatever restarts (0 writes at rest); a
Secret that is not this Tunnel's is never written.
"""

from __future__ import annotations

import base64
import binascii

from culvert_operator.api.meta import Raw, mapping, text
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options
from culvert_operator.world import CredentialState
from culvert_protocol.credentials_file import CredentialsFile, CredentialsFileError
from culvert_protocol.statements import StatementError

SECRET_KEY = "credentials.json"  # noqa: S105 - a key of a Secret, not one


def subject(installation: str, tunnel: ObjectKey) -> str:
    """The ``sub`` of a Tunnel: stable over a restore of the cluster, unlike a uid."""
    return f"{installation}:{tunnel}"


def inspect(secret: Raw | None) -> CredentialState | None:
    """What a credential Secret says of itself; None when there is none. Nothing of its private part comes out."""
    if secret is None:
        return None
    encoded = text(mapping(secret.get("data")).get(SECRET_KEY))
    if not encoded:
        return CredentialState(problem=f"The Secret has no key {SECRET_KEY}.")
    try:
        credential = CredentialsFile.loads(base64.b64decode(encoded, validate=True)).read_credential()
    except (binascii.Error, CredentialsFileError, StatementError):
        # The exception may quote what it read.
        return CredentialState(problem=f"The Secret's {SECRET_KEY} cannot be used as a credential.")
    return CredentialState(
        key_id=credential.key_id,
        subject=str(credential.tunnel.subject),
        issuer=credential.signed_by,
        issued_at=credential.issued_at,
        expires_at=credential.expires_at,
    )


def needs_issue(
    state: CredentialState | None, *, wanted_subject: str, issuer: str, options: Options, now: float
) -> bool:
    """Whether a new credential is due: none, unusable, another issuer's or subject's, or older than a day."""
    if state is None or state.problem or state.subject != wanted_subject or state.issuer != issuer:
        return True
    return now >= renewal_at(state, options)


def renewal_at(state: CredentialState, options: Options) -> float:
    """Epoch seconds at which ``state`` is to be renewed."""
    return min(float(state.issued_at + options.credential_renewal_seconds), float(state.expires_at))
