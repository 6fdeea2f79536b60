"""The in-cluster relay's certificate: kept in Secrets, its CA published in a ConfigMap, renewed in time.

Responsible for: the Secrets ``culvert-relay-ca`` (CA with its key, for the operator alone) and ``culvert-relay-tls``
(what the relay mounts), and the ConfigMap ``culvert-relay-ca`` (what connectors mount).
Must not know: how certificates are made. Invariant: what is good is left alone: a restart writes nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from culvert_operator.certificates import (
    Pair,
    authority_is_good,
    bundle,
    expires_at,
    make_authority,
    make_server,
    server_is_good,
)
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.stores import Object
from culvert_operator.issuer import LABELS, publish

AUTHORITY = "culvert-relay-ca"
SERVER = "culvert-relay-tls"


def relay_names(services: Sequence[str], namespace: str, domain: str, extra: Sequence[str]) -> tuple[str, ...]:
    """The names that connectors and visitors inside the cluster may dial a relay by, its replicas' too."""
    found = list(extra)
    for service in services:
        for suffix in (f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.{domain}"):
            found += [f"{service}{suffix}", f"*.{service}{suffix}"]
        found.append(service)
    return tuple(dict.fromkeys(found))


async def ensure_relay_certificate(client: Client, namespace: str, names: Sequence[str], *, now: float) -> float:
    """Make or renew what is missing or due; epoch seconds of the certificate's end. Raises APIError."""
    secret = await client.get(kinds.SECRET, namespace, AUTHORITY)
    authority = _pair(secret, "ca.crt", "ca.key")
    if authority is None or not authority_is_good(authority, now=now):
        authority = make_authority("culvert relay CA", now=now)
        authority = await _keep(client, namespace, AUTHORITY, "ca.crt", "ca.key", authority, secret)
    published = await client.get(kinds.CONFIG_MAP, namespace, AUTHORITY)
    held = ((published or {}).get("data") or {}).get("ca.crt", "")
    text = bundle(authority.certificate, held.encode(), now=now).decode()
    await publish(client, namespace, AUTHORITY, {"ca.crt": text})
    secret = await client.get(kinds.SECRET, namespace, SERVER)
    server = _pair(secret, "tls.crt", "tls.key")
    if server is None or not server_is_good(server, names, authority, now=now):
        server = make_server(names, authority, now=now)
        server = await _keep(client, namespace, SERVER, "tls.crt", "tls.key", server, secret)
    return expires_at(server)


async def _keep(
    client: Client, namespace: str, name: str, certificate: str, key: str, pair: Pair, found: Object | None
) -> Pair:
    """Write a pair into its Secret; what another operator wrote first is taken instead."""
    kind = "kubernetes.io/tls" if certificate == "tls.crt" else "Opaque"
    body: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": LABELS},
        "type": kind,
        "data": {
            certificate: base64.b64encode(pair.certificate).decode(),
            key: base64.b64encode(pair.key).decode(),
        },
    }
    if found is not None:
        version = found["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version, "labels": LABELS}, "data": body["data"]}
        await client.patch(kinds.SECRET, namespace, name, patch)
        return pair
    try:
        await client.create(kinds.SECRET, namespace, body)
    except APIError as error:
        first = _pair(await client.get(kinds.SECRET, namespace, name), certificate, key) if error.conflict else None
        if first is None:
            raise
        return first
    return pair


def _pair(secret: Object | None, certificate: str, key: str) -> Pair | None:
    data = (secret or {}).get("data") or {}
    try:
        return Pair(base64.b64decode(data[certificate], validate=True), base64.b64decode(data[key], validate=True))
    except (KeyError, binascii.Error):
        return None
