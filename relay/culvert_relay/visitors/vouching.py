"""What a trusted proxy in front of the relay says about a visitor, believed and added to.

Responsible for the forwarding fields of such a request (RFC 7239; `X-Forwarded-*` as proxies in use write them) and
for which of the named addresses is the visitor's. Pure. Must not know connections or which proxies are trusted.
Invariants: the visitor's address is never one that only an untrusted party wrote: lists are read from their end, and
no further than the first address that is not a trusted proxy's. Every field is added to at most once.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final

from culvert_http1.authority import parse_authority
from culvert_http1.errors import HTTPError
from culvert_http1.request import RequestHead
from culvert_relay.visitors.opening import Forwarding

MAX_LIST: Final = 4_096
"""Bytes of a list that is still added to; a longer one begins anew, since nobody has that many proxies."""
_WRITTEN_HERE: Final = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip"}
)
_SCHEMES: Final = (b"http", b"https")
_NODE: Final = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?")


def vouched(head: RequestHead, peer: bytes, *, scheme: int, trusts: Callable[[str], bool]) -> Forwarding:
    """What origins are told about a request that the trusted proxy at `peer` sent."""
    said: dict[bytes, list[bytes]] = {}
    others = []
    for name, value in head.forwarded:
        if name in _WRITTEN_HERE:
            said.setdefault(name, []).append(value)
        else:
            others.append(b"%b: %b\r\n" % (name, value))
    proto = _one(said.get(b"x-forwarded-proto"), lambda value: value.lower() in _SCHEMES)
    proto = proto.lower() or _SCHEMES[scheme]
    host = _one(said.get(b"x-forwarded-host"), _is_authority) or head.authority
    addresses = _list(said.get(b"x-forwarded-for"))
    visitor = visitor_of(addresses, peer.decode("ascii", "replace"), trusts).encode()
    chain = b"%b, %b" % (addresses, peer) if addresses else peer
    lines = [
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\nX-Real-IP: %b\r\n"
        % (chain, proto, host, visitor)
    ]
    elements = _list(said.get(b"forwarded"))
    if elements:
        node = b'"[%b]"' % peer if b":" in peer else peer
        own = b'for=%b;host="%b";proto=%b' % (node, head.authority, _SCHEMES[scheme])
        lines.append(b"Forwarded: %b, %b\r\n" % (elements, own))
    return Forwarding(visitor, scheme=int(proto == b"https"), said=(head.authority, b"".join(lines + others)))


def visitor_of(addresses: bytes, peer: str, trusts: Callable[[str], bool]) -> str:
    """The visitor's address: of `addresses` (as `X-Forwarded-For` lists them) and then `peer`, the last that is not a
    trusted proxy's; the first one when all are. What is no address hides everything before it."""
    found = peer
    for text in reversed(addresses.decode("ascii", "replace").split(",")):
        address = node_address(text.strip())
        if not trusts(found) or address is None:
            break
        found = address
    return found


def node_address(text: str) -> str | None:
    """The IP address of one element, which may be in brackets and carry a port; None for anything else."""
    match = _NODE.fullmatch(text)
    try:
        return str(ipaddress.ip_address((match[1] or match[2]) if match else text))
    except ValueError:
        return None


def _list(values: list[bytes] | None) -> bytes:
    joined = b", ".join(value for value in values or () if value)
    return joined if len(joined) <= MAX_LIST else b""


def _one(values: list[bytes] | None, fits: Callable[[bytes], bool]) -> bytes:
    """The value when there is exactly one and it fits."""
    return values[0] if values is not None and len(values) == 1 and fits(values[0]) else b""


def _is_authority(value: bytes) -> bool:
    try:
        parse_authority(value)
    except HTTPError:
        return False
    return True
