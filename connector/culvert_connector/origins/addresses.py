"""Which IP addresses an origin may have, and the resolution that dials what was checked.

Responsible for the policy named in the configuration document: `cluster` refuses loopback, link-local (with it the
cloud metadata service), multicast, unspecified, reserved and broadcast addresses in every notation, because a rule
there is written by a tenant; `any` is for a person's own config.yml, where localhost is what the tool is for.

Must not know: rules, HTTP, pools.

Invariant: the addresses returned are the ones to connect to. Nothing resolves the name a second time, so an answer
that changes between check and dial (DNS rebinding) has nothing to change.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

CLUSTER: Final = "cluster"
ANY: Final = "any"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_ADDRESSES: Final = 8
"""Addresses of one name that a dial tries."""

METADATA: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local; 169.254.169.254 on most clouds, 169.254.170.2 for ECS tasks
        "fd00:ec2::/32",  # EC2's metadata service over IPv6
        "fd20:ce::254/128",  # Google's
        "100.100.100.200/32",  # Alibaba's
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle's former one
    )
)
_TRANSLATED: Final = tuple(
    ipaddress.IPv6Network(network) for network in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")
)
"""IPv6 ranges whose last 32 bits are an IPv4 address (RFC 6052, RFC 8215, RFC 4291 2.5.5.1, RFC 2765)."""


class AddressRefused(Exception):
    """Every address of a name is refused by the policy; the text is a sentence with the reason."""


def embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 one (mapped, 6to4, Teredo's server aside, NAT64); else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address not in (ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")):
        for network in _TRANSLATED:
            if address in network:
                return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def refusal(text: str, *, policy: str) -> str | None:
    """Why `text` (an IP address, with or without a zone) may not be dialled; None when it may."""
    if policy == ANY:
        return None
    try:
        address = embedded(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return "not an IP address"
    for reason, wrong in (
        ("the unspecified address", address.is_unspecified or (address.version == 4 and int(address) < 1 << 24)),
        ("a loopback address", address.is_loopback),
        ("a cloud metadata or link-local address", any(address in network for network in METADATA)),
        ("a link-local address", address.is_link_local),
        ("a multicast address", address.is_multicast),
        ("a reserved address", address.is_reserved),
    ):
        if wrong:
            return reason
    return None


def allowed(addresses: Sequence[str], *, policy: str, host: str) -> list[str]:
    """The addresses that may be dialled, in order; raises AddressRefused when that leaves none."""
    good: list[str] = []
    reasons: list[str] = []
    for address in addresses:
        reason = refusal(address, policy=policy)
        if reason is None:
            good.append(address)
        else:
            reasons.append(f"{address} is {reason}")
    if not good:
        why = "; ".join(reasons[:3]) or "it has no address"
        raise AddressRefused(
            f"the address of {host} is not allowed here: {why}; point the rule at a Service's own address"
        )
    return good[:MAX_ADDRESSES]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` as the system resolves it; an IP literal is its own address. Raises OSError."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))
