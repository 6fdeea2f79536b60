"""HTTP proxies on the way to a relay: which one there is for a name, and the CONNECT that opens a tunnel through it.

Responsible for reading `HTTPS_PROXY` and `NO_PROXY` as programs commonly do, and for the bytes of CONNECT (RFC 9110
section 9.3.6) and of its answer.

Must not know: sockets, TLS, relays' handshakes.

Invariants: a password is in no message and no representation; no more than MAX_ANSWER bytes of a proxy are ever held;
what follows an accepting answer belongs to the relay and is left in place.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from culvert_ingress.proxy_url import proxy_address

MAX_ANSWER: Final = 16 << 10
"""Bytes of a proxy's answer; a refusal's page behind them is not read."""
DEFAULT_PORT: Final = 3128

ENVIRONMENT: Final = "HTTPS_PROXY"

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")


class ProxyError(ValueError):
    """A setting that cannot be used, or an answer that refuses; the text is a sentence with a fix."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `authorization` is the value of Proxy-Authorization, or empty; `setting` says where it is set."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)
    setting: str = ENVIRONMENT

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """What the environment says: one proxy for relays, and the names that are reached without it."""

    https: Proxy | None = None
    exempt: tuple[str, ...] = ()

    def of(self, host: str) -> Proxy | None:
        """The proxy towards `host` (a name or IP literal), None to dial directly."""
        return None if self.https is None or _exempt(host, self.exempt) else self.https

    def resolving(self, resolve: Lookup) -> Lookup:
        """`resolve`, except for names that a proxy resolves: those are dialled as they are."""

        async def lookup(host: str, port: int) -> Sequence[str]:
            return [host] if self.of(host) is not None else await resolve(host, port)

        return lookup


DIRECT: Final = Proxies()
"""No proxy."""


def of_configuration(url: str) -> Proxies:
    """The proxy that a configuration names (`http://host:port` in normal form), for every relay."""
    return Proxies(Proxy(*proxy_address(url), setting="the relay's proxy in the configuration"))


def of_environment(environment: Mapping[str, str]) -> Proxies:
    """`HTTPS_PROXY` and `NO_PROXY`, in capitals or not (the lower-case one wins); raises ProxyError."""
    url = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or ""
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = tuple(name for item in exempt.split(",") if (name := item.strip().lower()))
    return Proxies(parse(url) if url else None, names)


def parse(url: str) -> Proxy:
    """A proxy's URL: `http://[user:password@]host[:port]`; raises ProxyError, which never repeats the URL."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("http://")
    if parts.scheme != "http" or not host or re.search(r"[\s\x00-\x1f]", host):
        raise ProxyError(
            "HTTPS_PROXY is not the URL of an HTTP proxy; write http://host:port, with user:password@ before the host "
            "when the proxy asks for it"
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port or DEFAULT_PORT, authorization)


def build_connect(proxy: Proxy, authority: str) -> bytes:
    """The request for a tunnel to `authority` (host:port)."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def parse_answer(data: bytes | bytearray, proxy: Proxy) -> int:
    """The length of a complete answer that accepts, 0 while it is incomplete; raises ProxyError for any other."""
    end = data.find(b"\r\n\r\n", 0, MAX_ANSWER)
    if end < 0:
        if len(data) >= MAX_ANSWER:
            raise ProxyError(f"the proxy {proxy} gave an answer without an end; is it an HTTP proxy?")
        return 0
    status = _STATUS.match(data)
    if status is None:
        raise ProxyError(f"the proxy {proxy} does not speak HTTP/1.1; check {proxy.setting}")
    code = int(status[1])
    if 200 <= code < 300:
        return end + 4
    other = ", or exempt the relay by NO_PROXY" if proxy.setting == ENVIRONMENT else ""
    wanted = "it wants a user and password: "
    fix = {
        407: wanted
        + (
            "write them into HTTPS_PROXY"
            if proxy.setting == ENVIRONMENT
            else "let it know the connectors by their addresses, or set HTTPS_PROXY instead"
        ),
        403: "allow CONNECT to the relay there",
    }.get(code, f"check that it may reach the relay{other}")
    raise ProxyError(f"the proxy {proxy} refused the connection with {code}; {fix}")


def _exempt(host: str, exempt: tuple[str, ...]) -> bool:
    name = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        address = None
    for item in exempt:
        if item == "*":
            return True
        if address is not None:
            try:
                if address in ipaddress.ip_network(item, strict=False):
                    return True
            except ValueError:
                continue
        else:
            suffix = item.removeprefix("*").lstrip(".")
            if name == suffix or name.endswith("." + suffix):
                return True
    return False
