"""Where the API server is and how to log in to it.

Responsible for: credentials (in-cluster service account, else KUBECONFIG) as an address, TLS settings and headers.
Must not know: requests. kopf's login functions read the files; the kubernetes client is only imported for a
kubeconfig whose user needs a plug-in (``exec``, ``auth-provider``), for it costs 60 MiB of memory.
Invariant: a token is never logged; it is read again when the API server refuses it, and at least every minute, since
projected service account tokens are replaced on disk while the process runs.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import kopf
import yaml

TOKEN_SECONDS = 60.0

_log = logging.getLogger(__name__)


class LoginError(Exception):
    """No usable credentials; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """One way in: the server's URL, TLS settings, headers (secret: never shown)."""

    server: str
    tls: ssl.SSLContext | None
    headers: dict[str, str] = field(repr=False)
    namespace: str | None = None
    proxy: str | None = None


async def log_in() -> Access:
    """Read the credentials that there are now. Raises LoginError."""
    return access(await asyncio.to_thread(credentials))


def credentials() -> kopf.ConnectionInfo:
    """The credentials that there are now, as kopf names their parts. Raises LoginError."""
    settings = kopf.OperatorSettings()
    try:
        info = None
        if not os.environ.get("KUBECONFIG"):
            info = kopf.login_with_service_account(settings=settings)
        if info is None:
            if _needs_plugin():
                info = kopf.login_via_client(logger=_log, settings=settings)
            else:
                info = kopf.login_with_kubeconfig(settings=settings)
    except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError, kopf.LoginError) as error:
        raise LoginError(f"the kubeconfig or service account cannot be read: {error!r}.") from error
    if info is None or not info.server:
        raise LoginError("no cluster is known: set KUBECONFIG, or run inside a cluster with a service account.")
    return info


def access(info: kopf.ConnectionInfo) -> Access:
    """Credentials as requests need them."""
    return Access(
        server=info.server.rstrip("/"),
        tls=_tls(info) if info.server.startswith("https:") else None,
        headers={k: v for k, v in info.as_http_headers().items() if k.lower() == "authorization"},
        namespace=info.default_namespace,
        proxy=info.proxy_url,
    )


def _needs_plugin() -> bool:
    """Whether any user of the kubeconfig logs in through a program or an auth provider."""
    for path in os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config")).split(os.pathsep):
        if path and Path(path).exists():
            document = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
            users = [item.get("user") or {} for item in document.get("users") or []]
            if any("exec" in user or "auth-provider" in user or "tokenFile" in user for user in users):
                return True
    return False


def _tls(info: kopf.ConnectionInfo) -> ssl.SSLContext:
    authority = _decoded(info.ca_data)
    context = ssl.create_default_context(
        cafile=os.fspath(info.ca_path) if info.ca_path else None,
        cadata=authority.decode() if authority else None,
    )
    if info.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _decoded(info.certificate_data), _decoded(info.private_key_data)
    if certificate and key:
        # The ssl module loads key pairs from files only.
        with tempfile.TemporaryDirectory(prefix="culvert-") as folder:
            chain, private = Path(folder, "chain.pem"), Path(folder, "key.pem")
            chain.write_bytes(certificate)
            private.touch(mode=0o600)
            private.write_bytes(key)
            context.load_cert_chain(chain, private)
    elif info.certificate_path and info.private_key_path:
        context.load_cert_chain(os.fspath(info.certificate_path), os.fspath(info.private_key_path))
    return context


def _decoded(data: str | bytes | None) -> bytes | None:
    return base64.b64decode(data) if data else None
