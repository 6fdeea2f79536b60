"""Delivering one revocation to the relays of a Tunnel: a POST to every address that their names resolve to.

Responsible for: TLS as connectors do it (the Tunnel's CA and server name), proxies, and a sentence for every failure.
Must not know: when to deliver, or again.
Invariants: nothing is sent before the relay's certificate and name were verified; an address counts as told only when
everything that it resolves to has confirmed; an attempt ends within ``TIMEOUT`` seconds.
Source: RFC 7515 (the body), the protocol's ``revocation_post``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence

import aiohttp

from culvert_ingress.addresses import join_address, split_address
from culvert_ingress.document import RelayTarget
from culvert_protocol.handshake import host_field
from culvert_protocol.revocation_post import CONTENT_TYPE, REVOCATIONS_PATH

TIMEOUT = 10.0
MAX_ADDRESSES = 64
"""Of one name; more would be a mistake in DNS, not a fleet of relays."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
ProxyOf = Callable[[str], str | None]

_WHY = {
    401: "it does not accept the signature: is this installation's issuer in its relay.yml, and do the clocks agree?",
    404: "it knows no such path: is it a relay's tunnel address?",
    429: "too many attempts from here failed; it is tried again",
}


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a name, once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(place[0]) for *_, place in found))


def proxy_of_environment(host: str) -> str | None:
    """The proxy that ``HTTPS_PROXY`` and ``NO_PROXY`` name for a host."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get("https")
    return None if proxy is None or urllib.request.proxy_bypass(host) else proxy


async def deliver(
    token: str, relay: RelayTarget, *, resolve: Resolve = resolve, proxy_of: ProxyOf = proxy_of_environment
) -> Mapping[str, str]:
    """Tell every relay; for each configured address why it has not confirmed, or nothing when it has."""
    try:
        context = _context(relay.ca)
    except (ssl.SSLError, ValueError):
        return dict.fromkeys(relay.addresses, "the relay's CA certificate cannot be read.")
    limits = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(timeout=limits, cookie_jar=aiohttp.DummyCookieJar()) as session:
        told = await asyncio.gather(
            *(_tell(session, address, relay, token, context, resolve, proxy_of) for address in relay.addresses)
        )
    return dict(zip(relay.addresses, told, strict=True))


def _context(ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def _tell(
    session: aiohttp.ClientSession,
    address: str,
    relay: RelayTarget,
    token: str,
    context: ssl.SSLContext,
    resolve: Resolve,
    proxy_of: ProxyOf,
) -> str:
    host, port = split_address(address)
    name, proxy = relay.server_name or host, relay.proxy or proxy_of(host)
    try:
        async with asyncio.timeout(TIMEOUT):
            # A proxy resolves the name itself.
            places = [host] if proxy is not None else await resolve(host, port)
    except (OSError, TimeoutError) as error:
        return f"its name cannot be resolved: {error or 'no answer'}."
    posts = (
        _post(session, f"https://{join_address(place, port)}{REVOCATIONS_PATH}", name, token, context, proxy)
        for place in places[:MAX_ADDRESSES]
    )
    problems = await asyncio.gather(*posts)
    return next((problem for problem in problems if problem), "")


async def _post(
    session: aiohttp.ClientSession, url: str, name: str, token: str, context: ssl.SSLContext, proxy: str | None
) -> str:
    try:
        async with session.post(
            url,
            data=token,
            headers={"Host": host_field(name), "Content-Type": CONTENT_TYPE, "Connection": "close"},
            ssl=context,
            server_hostname=name,
            proxy=proxy,
            allow_redirects=False,
        ) as answer:
            if answer.status == 204:
                return ""
            return f"it answered {answer.status}: {_WHY.get(answer.status, 'see its log')}."
    except aiohttp.ClientConnectorCertificateError as error:
        return f"its certificate is not accepted for {name}: {error.certificate_error}."
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return f"it cannot be reached: {error or f'no answer within {TIMEOUT:g} s'}."
