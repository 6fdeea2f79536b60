"""The installation's issuer key: made once, kept in a Secret, its public half published in a ConfigMap.

Responsible for: that Secret and that ConfigMap. Must not know: what is signed.
Invariants: two operators that start at once end with one key (the API server's AlreadyExists decides); an existing
key is never replaced, whatever is wrong with it; a start over what is in place writes nothing.

The Secret holds ``issuer.key`` (PKCS#8 PEM) and ``installation-id``. Somebody who brings an own key may add
``issuer.pub`` with several PEM blocks: the first names the issuer, later ones are its successors.
"""

from __future__ import annotations

import base64
import binascii
import logging
import uuid
from dataclasses import dataclass, field

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.stores import Object, uid_of, version_of
from culvert_protocol.keys import (
    IssuerKey,
    KeyFormatError,
    PublicKey,
    generate_issuer_key,
    load_issuer_private,
    load_issuer_public,
)

PRIVATE = "issuer.key"
PUBLIC = "issuer.pub"
INSTALLATION = "installation-id"
PUBLISHED = "culvert-issuer"
LABELS = {"app.kubernetes.io/name": "culvert-operator", "app.kubernetes.io/managed-by": "culvert"}

_log = logging.getLogger(__name__)


class IssuerError(Exception):
    """The issuer's Secret cannot be used; the text says why and what to do, and holds nothing secret."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """The key that signs, under which name, and the installation that it signs for."""

    key: IssuerKey = field(repr=False)
    issuer_id: str
    installation: str
    public_pem: str

    @property
    def public(self) -> PublicKey:
        """The present key's public half, which knows the issuer that it speaks for."""
        return PublicKey(self.key.public.raw, self.issuer_id)


async def ensure_issuer(client: Client, namespace: str, name: str) -> Issuer:
    """Read the issuer's Secret, make it if there is none, publish the public key. Raises APIError, IssuerError."""
    secret = await client.get(kinds.SECRET, namespace, name)
    if secret is None:
        secret = await _create(client, namespace, name)
    if not (secret.get("data") or {}).get(INSTALLATION):
        secret = await _name_installation(client, namespace, name, secret)
    issuer = read_issuer(secret)
    await publish(client, namespace, PUBLISHED, {PUBLIC: issuer.public_pem})
    return issuer


def read_issuer(secret: Object) -> Issuer:
    """The issuer that a Secret holds. Raises IssuerError."""
    where = f"the Secret {secret['metadata']['namespace']}/{secret['metadata']['name']}"
    try:
        data = {k: base64.b64decode(v, validate=True) for k, v in (secret.get("data") or {}).items()}
        if PRIVATE not in data:
            raise IssuerError(f"{where} has no key {PRIVATE}: put an Ed25519 key there ('culvert keys create').")
        key = load_issuer_private(data[PRIVATE])
        keys = load_issuer_public(data[PUBLIC]) if PUBLIC in data else (key.public,)
        installation = data[INSTALLATION].decode("ascii")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise IssuerError(f"{where} cannot be decoded.") from error
    except KeyFormatError as error:
        raise IssuerError(f"{where} cannot be used: {error}") from error
    if key.public.thumbprint not in {k.thumbprint for k in keys}:
        raise IssuerError(f"{where}: {PUBLIC} does not list the public half of {PRIVATE}; add it as the last block.")
    public = (data.get(PUBLIC) or key.public.pem()).decode("ascii")
    return Issuer(key, keys[0].thumbprint, installation, public)


async def _create(client: Client, namespace: str, name: str) -> Object:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "type": "Opaque",
        "data": {
            PRIVATE: base64.b64encode(generate_issuer_key().pem()).decode(),
            INSTALLATION: base64.b64encode(str(uuid.uuid4()).encode()).decode(),
        },
    }
    try:
        made = await client.create(kinds.SECRET, namespace, body)
    except APIError as error:
        if not error.conflict:
            raise
        found = await client.get(kinds.SECRET, namespace, name)
        if found is None:
            raise
        return found
    _log.info("made the issuer's key", extra={"fields": {"secret": f"{namespace}/{name}"}})
    return made


async def _name_installation(client: Client, namespace: str, name: str, secret: Object) -> Object:
    """A Secret that somebody brought gets an installation id; whoever comes second reads the first one's."""
    identity = base64.b64encode(str(uuid.uuid4()).encode()).decode()
    body = {
        "metadata": {"uid": uid_of(secret), "resourceVersion": version_of(secret)},
        "data": {INSTALLATION: identity},
    }
    try:
        return await client.patch(kinds.SECRET, namespace, name, body)
    except APIError as error:
        found = await client.get(kinds.SECRET, namespace, name) if error.conflict else None
        if found is None or not (found.get("data") or {}).get(INSTALLATION):
            raise
        return found


async def publish(client: Client, namespace: str, name: str, data: dict[str, str]) -> None:
    """Make the ConfigMap say ``data``; nothing is written when it does."""
    found = await client.get(kinds.CONFIG_MAP, namespace, name)
    held = (found or {}).get("data") or {}
    if all(held.get(key) == value for key, value in data.items()):
        return
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "data": data,
    }
    await client.apply(kinds.CONFIG_MAP, namespace, body)
