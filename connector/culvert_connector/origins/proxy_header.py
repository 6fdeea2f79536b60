"""The PROXY protocol's header (versions 1 and 2 of the specification at haproxy.org), sent first on a connection.

Responsible for its bytes, from what OPEN says of a visitor. Pure. Must not know sockets or rules.
Invariant: an address that cannot be read becomes "unknown" (v1) or LOCAL (v2), never a made-up one. HTTP requests come
without the visitor's port and the relay's address; these are written as 0 and as the unspecified address.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from culvert_protocol.heads import Open

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_LOCAL: Final = b"\x20"
_PROXY: Final = b"\x21"
_FAMILIES: Final = {4: b"\x11", 6: b"\x21"}  # TCP over IPv4, over IPv6

_Place = tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]


def proxy_header(version: int, head: Open) -> bytes:
    """The header of `version` 1 or 2 for the visitor of a request or connection; b"" for version 0."""
    if not version:
        return b""
    places = _places(head)
    if places is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + _LOCAL + b"\x00\x00\x00"
    (source, source_port), (target, target_port) = places
    if version == 1:
        return f"PROXY TCP{source.version} {source} {target} {source_port} {target_port}\r\n".encode()
    ports = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
    body = source.packed + target.packed + ports
    return SIGNATURE + _PROXY + _FAMILIES[source.version] + len(body).to_bytes(2, "big") + body


def _places(head: Open) -> tuple[_Place, _Place] | None:
    """Where the visitor came from and to, both of one family; None when the visitor's address is not known."""
    source = _place(head.target) if not head.fields and not head.method else None
    if source is None:
        try:
            source = ipaddress.ip_address(head.address.decode("ascii")), 0
        except ValueError:
            return None
    target = _place(head.authority) if not head.method else None
    if target is None or target[0].version != source[0].version:
        unspecified = ipaddress.IPv4Address(0) if source[0].version == 4 else ipaddress.IPv6Address(0)
        target = unspecified, head.local_port
    return source, target


def _place(text: bytes) -> _Place | None:
    host, _, port = text.decode("ascii", "replace").rpartition(":")
    try:
        number = int(port)
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    return (address, number) if 0 <= number <= 65535 else None
