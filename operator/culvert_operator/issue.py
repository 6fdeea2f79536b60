"""Issuing: what the planner asked to be signed becomes the object to apply.

Responsible for: :class:`IssueCredential` → Secret, :class:`IssueConfiguration` → ConfigMap, given the keys. Must not
know: where keys are kept, randomness (the key pair and the ``jti`` are arguments), the API server.
Invariant: the same arguments give the same object; nothing secret is in anything but the Secret's ``data``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import replace

from culvert_operator.api.meta import Raw
from culvert_operator.credentials import SECRET_KEY
from culvert_operator.world import Apply, GrantName, IssueConfiguration, IssueCredential
from culvert_protocol.credentials_file import CredentialsFile
from culvert_protocol.granted import GrantedName, GrantedPort, port_of
from culvert_protocol.keys import IssuerKey, PrivateKey
from culvert_protocol.statements import sign_credential, sign_grant

CONFIG_KEY = "config.json.gz"
MAX_CONFIG_BYTES = 1_000_000
"""Below etcd's and the API server's limits for one ConfigMap (1 MiB), with room for its metadata."""


def credential_secret(
    issue: IssueCredential, *, issuer: IssuerKey, key: PrivateKey, jti: str, issuer_id: str | None = None
) -> Apply:
    """The credential Secret. ``key`` is a new key pair and ``jti`` a new random identifier.

    ``issuer_id`` is the thumbprint of the issuer's first key when ``issuer`` is a successor of it.
    """
    credential = sign_credential(
        issuer,
        subject=issue.subject,
        public_key=key.public,
        issued_at=issue.issued_at,
        not_before=issue.not_before,
        expires_at=issue.expires_at,
        jti=jti,
        issuer_id=issuer_id,
    )
    content = CredentialsFile(
        tunnel=issue.tunnel, tunnel_id=issue.subject, credential=credential, private_key=key, grant=None
    ).dumps()
    body = {**issue.template, "data": {SECRET_KEY: _encoded(content)}}
    return Apply(issue.child, issue.namespace, body)


def config_map(issue: IssueConfiguration, *, issuer: IssuerKey, issuer_id: str | None = None) -> Apply:
    """The configuration ConfigMap. Ed25519 is deterministic: signing again gives the same bytes."""
    names, tls_names, tcp_ports = granted(issue.names)
    grant = sign_grant(
        issuer,
        subject=issue.subject,
        version=issue.document.version,
        names=names,
        tls_names=tls_names,
        tcp_ports=tcp_ports,
        issued_at=issue.issued_at,
        expires_at=issue.expires_at,
        issuer_id=issuer_id,
    )
    data = replace(issue.document, grant=grant).gzipped()
    body: Raw = {**issue.template, "binaryData": {CONFIG_KEY: _encoded(data)}}
    return Apply(issue.child, issue.namespace, body)


def granted(
    names: Iterable[GrantName],
) -> tuple[tuple[GrantedName, ...], tuple[GrantedName, ...], tuple[GrantedPort, ...]]:
    """The three lists of a grant: names served as HTTP, names passed through as TLS, and TCP ports."""
    plain: list[GrantedName] = []
    passed: list[GrantedName] = []
    ports: list[GrantedPort] = []
    for name in names:
        port = port_of(name.hostname)
        if port is not None:
            ports.append(GrantedPort(port, name.claimed_at, name.sources))
        else:
            (passed if name.passed else plain).append(GrantedName(name.hostname, name.claimed_at, name.sources))
    return tuple(plain), tuple(passed), tuple(ports)


def _encoded(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()
