"""The PROXY protocol's header, versions 1 and 2, as a load balancer in front of the relay writes it (HAProxy's
proxy-protocol.txt, sections 2.1 and 2.2).

Responsible for: where the header ends and which address it announces. Pure. Must not know sockets, or whose header is
to be believed. Invariant: the outcome does not depend on how the bytes were split; nothing but `ProxyHeaderError`
leaves `parse_header`; a header that is not refused is at most MAX_HEADER bytes.
"""

import ipaddress
import re
from typing import Final, NamedTuple

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""What version 2 begins with."""
_V1: Final = b"PROXY "
MAX_LINE: Final = 107
"""Bytes of a version 1 header with its CRLF."""
_FIXED: Final = 16
MAX_HEADER: Final = 2_048
"""Of a version 2 header with its TLVs, which are skipped; the checksum among them is not verified (section 2.2.3)."""

_LINE: Final = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) ([0-9]{1,5}) ([0-9]{1,5})\r\n"
)
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_STREAM: Final = 1
_ADDRESSES: Final = {1: (4, ipaddress.IPv4Address), 2: (16, ipaddress.IPv6Address)}
"""By address family: bytes of one address, and its type."""


class ProxyHeaderError(ValueError):
    """No PROXY header, or a malformed one; the message is a sentence."""


class ProxyHeader(NamedTuple):
    """`size` bytes of header. `address` and `port` are the visitor's; "" and 0 when the load balancer speaks for
    itself (LOCAL, as in health checks) or does not know (UNKNOWN, AF_UNSPEC)."""

    size: int
    address: str
    port: int


def parse_header(data: bytes) -> ProxyHeader | None:
    """The header that `data` begins with; None when it is incomplete. Then all of `data` belongs to it.

    Raises ProxyHeaderError as early as the bytes show it.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _version_2(data)
    if data[: len(_V1)] == _V1[: len(data)]:
        return _version_1(data)
    raise ProxyHeaderError("The connection does not begin with a PROXY header; switch it on at the load balancer.")


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            raise ProxyHeaderError(f"The PROXY line is over {MAX_LINE} bytes; see the load balancer's settings.")
        return None
    line = data[: end + 2]
    if line[6:13] in (b"UNKNOWN", b"UNKNOWN ") and line[13:14] in (b"\r", b" "):
        return ProxyHeader(end + 2, "", 0)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ProxyHeaderError("The PROXY line is malformed; see the load balancer's settings.")
    kind = ipaddress.IPv4Address if match[1] == b"TCP4" else ipaddress.IPv6Address
    ports = [int(text) if _PORT.fullmatch(text) else 65_536 for text in match.group(4, 5)]
    try:
        source, _ = (kind(text.decode("ascii")) for text in match.group(2, 3))
    except ValueError:
        raise ProxyHeaderError("The PROXY line holds no valid pair of addresses.") from None
    if max(ports) > 65_535:
        raise ProxyHeaderError("The PROXY line holds no valid pair of ports.")
    return ProxyHeader(end + 2, str(source), ports[0])


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < _FIXED:
        return None
    version, command = divmod(data[12], 16)
    if version != 2 or command > 1:
        raise ProxyHeaderError("The PROXY header is of an unknown version or command; use version 1 or 2.")
    size = _FIXED + int.from_bytes(data[14:16], "big")
    if size > MAX_HEADER:
        raise ProxyHeaderError(f"The PROXY header is over {MAX_HEADER} bytes; send fewer TLVs.")
    if len(data) < size:
        return None
    family, transport = divmod(data[13], 16)
    if not command or family not in _ADDRESSES:
        return ProxyHeader(size, "", 0)
    width, kind = _ADDRESSES[family]
    if transport != _STREAM:
        raise ProxyHeaderError("The PROXY header announces another transport than TCP.")
    if size < _FIXED + 2 * width + 4:
        raise ProxyHeaderError("The PROXY header is shorter than its addresses.")
    port = int.from_bytes(data[_FIXED + 2 * width : _FIXED + 2 * width + 2], "big")
    return ProxyHeader(size, str(kind(data[_FIXED : _FIXED + width])), port)
