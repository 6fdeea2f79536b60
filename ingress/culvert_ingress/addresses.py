"""Hosts and `host:port` addresses that a person writes: relays, origins, listeners.

Responsible for: one spelling per address, and refusal of the notations of IP addresses that resolvers read and people
do not (`0x7f.1`, `127.1`, `2130706433`). Must not resolve anything: whether an address may be dialled is decided where
it is dialled. Invariant: an accepted host is a canonical IP address, or a lower-case name of at most 253 bytes.
"""

from __future__ import annotations

import ipaddress
import re

from culvert_ingress.hostnames import HostnameError, normalise

__all__ = ["AddressError", "host_name_or_ip", "join_address", "split_address"]

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{1,5}")


class AddressError(ValueError):
    """An address that cannot be used; the text is a sentence that says what to write instead."""


def host_name_or_ip(text: str) -> str:
    """A host that can be dialled: a canonical IP address without brackets, or a name.

    Names may have underscores here: Docker and Kubernetes networks have such hosts, and nobody else looks them up.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if (":" in bare and "/" not in bare) or _NUMBER.fullmatch(bare.removesuffix(".").rpartition(".")[2]):
        try:
            if "%" in bare:
                raise ValueError
            return str(ipaddress.ip_address(bare))
        except ValueError:
            raise AddressError(
                f"{text[:80]!r} is not an IP address in its usual form; write 127.0.0.1 or [::1], or a name."
            ) from None
    try:
        # Underscores take the place of a letter for the check only, so that every other rule still applies.
        normalise(bare.replace("_", "x"))
        return normalise(bare) if "_" not in bare else _with_underscores(bare)
    except HostnameError as error:
        raise AddressError(str(error)) from None


def split_address(text: str, *, port_zero: bool = False) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`. Raises AddressError; port 0 is for listeners only."""
    shown = repr(text[:80])
    if "://" in text or "/" in text or "@" in text:
        raise AddressError(f"{shown} is not an address; write host:port, such as relay.example.com:443.")
    host, colon, port = text.rpartition(":")
    if not colon or not host or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise AddressError(f"{shown} is not host:port; write an address such as relay.example.com:443 or [::1]:443.")
    if not _PORT.fullmatch(port) or not (0 if port_zero else 1) <= int(port) <= 65535:
        raise AddressError(f"{shown} has no port from 1 to 65535; write an address such as relay.example.com:443.")
    return host_name_or_ip(host), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_underscores(name: str) -> str:
    if not name.isascii():
        raise AddressError(f"{name[:80]!r} mixes underscores with letters outside ASCII; write it in ASCII.")
    return name.lower().removesuffix(".")
