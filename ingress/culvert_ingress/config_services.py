"""The `service` of a rule in `config.yml`: cloudflared's grammar, one parser per form.

Responsible for: turning the text into a Service or a sentence. Must not know the rest of the rule. Stricter than
cloudflared where it accepts what it then ignores: paths, queries, fragments and user names in a URL, unknown schemes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from culvert_ingress.addresses import AddressError, host_name_or_ip, join_address
from culvert_ingress.origin_fields import OriginFieldError, check_socket_path
from culvert_ingress.relay_ports import TCP_DEFAULT_PORTS
from culvert_ingress.rules import (
    HelloWorldService,
    HTTPService,
    Service,
    StatusService,
    TCPService,
    UnavailableService,
    UnixService,
)

__all__ = ["ServiceError", "describe_service", "parse_service"]

HTTP_SCHEMES: Mapping[str, tuple[str, int]] = {
    "http": ("http", 80),
    "https": ("https", 443),
    "ws": ("http", 80),
    "wss": ("https", 443),
}
"""Scheme in the file -> scheme spoken to the origin, default port. WebSocket needs no scheme of its own."""

WORDS: Mapping[str, Service] = {
    "hello_world": HelloWorldService(),
    "hello-world": HelloWorldService(),
    "helloworld": HelloWorldService(),
}

REFUSED_WORDS: Mapping[str, str] = {
    "bastion": "Jump hosts are not supported yet; remove the rule.",
    "socks": "SOCKS proxies are not supported yet; remove the rule.",
    "socks-proxy": "SOCKS proxies are not supported yet; remove the rule.",
    "socks5": "SOCKS proxies are not supported yet; remove the rule.",
}

FORMS = (
    "http://, https://, ws://, wss://, unix:, unix+tls:, tcp://, ssh://, rdp://, smb://, tls://, http_status: or "
    "hello_world"
)

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>.*))?")
_PORT = re.compile(r"[0-9]{1,5}")
_STATUS = re.compile(r"[0-9]{3}")
_BARE = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}(/.*)?")


class ServiceError(ValueError):
    """A service that cannot be used; the text is a sentence that says what to write instead."""


def parse_service(text: str) -> Service:
    """The service that `text` names. Raises ServiceError."""
    if not text or len(text) > 1024 or not text.isprintable() or " " in text:
        raise ServiceError(f"The service {text[:80]!r} is not one; write a service such as http://localhost:3000.")
    if text in WORDS:
        return WORDS[text]
    if text in REFUSED_WORDS:
        raise ServiceError(REFUSED_WORDS[text])
    for prefix, parse in _PREFIXES.items():
        if text.startswith(prefix):
            return parse(text.removeprefix(prefix))
    return _url(text)


def describe_service(service: Service) -> str:
    """The service as `config.yml` would say it."""
    match service:
        case HTTPService(scheme, host, port):
            return f"{scheme}://{join_address(host, port)}"
        case TCPService(scheme, host, port):
            return f"{scheme}://{join_address(host, port)}"
        case UnixService(path, tls):
            return f"unix{'+tls' if tls else ''}:{path}"
        case StatusService(status):
            return f"http_status:{status}"
        case HelloWorldService():
            return "hello_world"
        case UnavailableService(message):
            return f"unavailable (503): {message}"


def _status(text: str) -> Service:
    if not _STATUS.fullmatch(text) or not 200 <= int(text) <= 599:
        raise ServiceError(f"{text[:40]!r} is not a status from 200 to 599; write a service such as http_status:404.")
    return StatusService(int(text))


def _unix(text: str, *, tls: bool) -> Service:
    if text.startswith("///"):  # unix:///run/app.sock, as other programs write it
        text = text[2:]
    try:
        return UnixService(check_socket_path(text), tls)
    except OriginFieldError as error:
        raise ServiceError(f"{error}") from None


_PREFIXES: Mapping[str, Callable[[str], Service]] = {
    "unix:": lambda text: _unix(text, tls=False),
    "unix+tls:": lambda text: _unix(text, tls=True),
    "http_status:": _status,
}


def _url(text: str) -> Service:
    scheme, separator, rest = text.partition("://")
    shown = repr(text[:80])
    if "@" in rest:
        raise ServiceError(
            f"The service at {rest.rpartition('@')[2][:80]!r} has an '@' in its URL, and neither user names "
            "nor paths are sent to origins; write scheme://host:port alone."
        )
    if not separator:
        hint = f"write http://{text[:80]}" if _BARE.fullmatch(text) else f"services start with {FORMS}"
        raise ServiceError(f"The service {shown} has no scheme; {hint}.")
    scheme = scheme.lower()
    if scheme not in HTTP_SCHEMES and scheme not in TCP_DEFAULT_PORTS:
        raise ServiceError(f"The service {shown} has the unknown scheme {scheme[:40]!r}; services start with {FORMS}.")
    for character, what in (("?", "a query"), ("#", "a fragment"), ("/", "a path"), ("\\", "a backslash")):
        if character in rest:
            fixed = text[: len(text) - len(rest)] + re.split(r"[/?#\\]", rest, maxsplit=1)[0]
            raise ServiceError(
                f"The service {shown} has {what}; origins get what the visitor sent: write {fixed[:80]!r}."
            )
    if scheme in TCP_DEFAULT_PORTS:
        return TCPService(scheme, *_authority(rest, shown, TCP_DEFAULT_PORTS[scheme]))
    spoken, default_port = HTTP_SCHEMES[scheme]
    return HTTPService(spoken, *_authority(rest, shown, default_port))


def _authority(text: str, shown: str, default_port: int | None) -> tuple[str, int]:
    parts = _AUTHORITY.fullmatch(text)
    if parts is None or not parts["host"]:
        raise ServiceError(
            f"The service {shown} names no host; write a service such as http://localhost:3000 or http://[::1]:3000."
        )
    port = parts["port"]
    if port is not None and (not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535):
        raise ServiceError(
            f"The service {shown} has no port from 1 to 65535; write a service such as http://localhost:3000."
        )
    if port is None:
        if default_port is None:
            raise ServiceError(f"The service {shown} names no port; write one such as tcp://localhost:5432.")
        port = str(default_port)
    try:
        return host_name_or_ip(parts["host"]), int(port)
    except AddressError as error:
        raise ServiceError(f"The host of the service cannot be used: {error}") from None
