"""Values that are sent to an origin as they are: Host fields, TLS server names, socket paths.

Responsible for: making sure that a rule's text cannot become another header, another host or a path that the system
refuses. Must not know where the text came from.
"""

from __future__ import annotations

from culvert_ingress.addresses import AddressError, host_name_or_ip, join_address, split_address

__all__ = ["OriginFieldError", "check_host_header", "check_server_name", "check_socket_path"]

MAX_SOCKET_PATH = 107
"""Bytes: Linux's `sun_path` with its closing NUL."""


class OriginFieldError(ValueError):
    """A value that cannot be sent; the text is a sentence that says what to write instead."""


def check_host_header(text: str) -> str:
    """A Host field value: `host` or `host:port` (RFC 9110 §7.2). Returned as it was spelled."""
    if (
        any(not character.isascii() or not character.isprintable() or character == " " for character in text)
        or not text
    ):
        raise OriginFieldError(
            f"{text[:80]!r} cannot stand in a Host header; write a host such as app.internal or app.internal:8080."
        )
    if text.count(":") > 1 and not text.startswith("["):
        raise OriginFieldError(f"{text[:80]!r} is an IPv6 address without brackets; write [{text[:80]}].")
    try:
        if text.endswith("]") or ":" not in text:
            host_name_or_ip(text)
        else:
            join_address(*split_address(text))
    except AddressError:
        raise OriginFieldError(
            f"{text[:80]!r} cannot stand in a Host header; write a host such as app.internal or app.internal:8080."
        ) from None
    return text


def check_server_name(text: str) -> str:
    """The name that an origin's certificate must have: a hostname, or an IP address in its usual form."""
    try:
        return host_name_or_ip(text)
    except AddressError as error:
        raise OriginFieldError(str(error)) from None


def check_socket_path(path: str) -> str:
    """A path of a Unix socket. Returned as it was spelled."""
    if not path:
        raise OriginFieldError("The socket path is empty; write unix:/run/app.sock.")
    if "\0" in path or not path.isprintable():
        raise OriginFieldError(f"{path[:80]!r} has a control character; write a path such as /run/app.sock.")
    if path.startswith("//"):
        raise OriginFieldError(f"{path[:80]!r} starts with two slashes; write unix:/{path.lstrip('/')[:80]}.")
    if len(path.encode()) > MAX_SOCKET_PATH:
        raise OriginFieldError(
            f"The socket path is longer than {MAX_SOCKET_PATH} bytes, the most that the system allows; shorten it."
        )
    return path
