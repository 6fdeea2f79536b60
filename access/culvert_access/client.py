"""The far side of a connection: TLS to the relay's HTTPS port, and a WebSocket handshake for a hostname.

Responsible for dialling, for the client's half of RFC 6455 section 4.1, and for one sentence when it fails. Must not
know where the bytes come from or go to.
Invariant: the relay's certificate is verified for the hostname that is asked for, whatever address was dialled.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from culvert_http1.websocket import ACCESS_PROTOCOL, accept_for

CONNECT_SECONDS: Final = 30.0
MAX_HEAD: Final = 65_536
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3})[ \r]")
_KEEP_ALIVE: Final = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


class AccessError(Exception):
    """The far side cannot be reached; the text is a sentence with a fix."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to reach: `hostname` as in the tunnel's rule, at `host`:`port`, whose certificate `context` verifies."""

    hostname: str
    host: str
    port: int
    context: ssl.SSLContext


def context_for(authority: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or later, verified by the PEM file or the system's roots. Raises AccessError."""
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError):
        raise AccessError(f"{authority} holds no readable PEM certificate; name the relay's CA file.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which WebSocket frames may follow. Raises AccessError."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                target.host, target.port, ssl=target.context, server_hostname=target.hostname, limit=1 << 17
            )
            try:
                await _shake_hands(target, reader, writer)
            except BaseException:
                writer.transport.abort()
                raise
    except TimeoutError:
        raise AccessError(
            f"No answer from {target.host}:{target.port} within {CONNECT_SECONDS:g} s; check --relay and the network."
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise AccessError(
            f"The certificate at {target.host}:{target.port} is not valid for {target.hostname}: "
            f"{error.verify_message.rstrip('.')}; check --relay and --relay-ca."
        ) from None
    except OSError as error:
        raise AccessError(
            f"{target.host}:{target.port} cannot be reached: {error.strerror or error}; check --relay and the network."
        ) from None
    _keep_alive(writer)
    return reader, writer


async def _shake_hands(target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    key = base64.b64encode(os.urandom(16))
    authority = target.hostname if target.port == 443 else f"{target.hostname}:{target.port}"
    writer.write(
        b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
        % (authority.encode(), key, ACCESS_PROTOCOL.encode())
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise AccessError(f"{target.host}:{target.port} does not answer in HTTP; is it a relay's HTTPS port?") from None
    match = _STATUS.match(head)
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
    }
    if match is None or match[1] != b"101":
        raise AccessError(_refusal(target, match[1].decode() if match else "?", fields))
    if fields.get(b"sec-websocket-accept") != accept_for(key):
        raise AccessError(f"{target.hostname} answers with another connection's handshake; is a proxy in between?")
    if fields.get(b"sec-websocket-protocol") != ACCESS_PROTOCOL.encode():
        raise AccessError(
            f"{target.hostname} is a WebSocket of its own, not a TCP service; give it a tcp:// or ssh:// service."
        )


def _refusal(target: Target, status: str, fields: dict[bytes, bytes]) -> str:
    blame = fields.get(b"culvert-error", b"").decode("ascii", "replace")
    why = f"{status}{f' ({blame})' if blame else ''}"
    fixes = {
        "403": "this address is not among the allowed sources",
        "404": "no tunnel serves this hostname; check its spelling and that the connector runs",
        "502": "the connector cannot reach the service; check that it runs",
        "503": "no connector is connected now; try again",
    }
    return (
        f"{target.hostname} refuses: {why}: {fixes.get(status, 'check that its rule has a tcp:// or ssh:// service')}."
    )


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is None:
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in _KEEP_ALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
