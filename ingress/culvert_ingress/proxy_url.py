"""The URL of an HTTP proxy on the way to relays.

Responsible for: one spelling, `http://host:port`, and for the sentence when somebody writes credentials into it: the
URL stands in an object, a file and a ConfigMap that many may read. Must not know how a proxy is spoken to.
"""

from __future__ import annotations

from culvert_ingress.addresses import AddressError, join_address, split_address

__all__ = ["ProxyURLError", "check_proxy_url", "proxy_address"]

_SCHEME = "http://"


class ProxyURLError(ValueError):
    """A URL that cannot be used; the text is a sentence that never repeats what stood before an `@`."""


def check_proxy_url(text: str) -> str:
    """The URL in normal form. Raises ProxyURLError."""
    if "@" in text:
        raise ProxyURLError(
            "The proxy's URL has a user name in it, and everyone who may read this configuration could use it; write "
            "http://host:port, and let the proxy know the connectors by their addresses."
        )
    if not text.lower().startswith(_SCHEME):
        raise ProxyURLError(
            f"{text[:80]!r} is not the URL of an HTTP proxy; write one such as http://proxy.example.com:3128."
        )
    try:
        address = join_address(*split_address(text[len(_SCHEME) :].removesuffix("/")))
    except AddressError as error:
        raise ProxyURLError(f"The proxy's URL: {error}") from None
    return _SCHEME + address


def proxy_address(url: str) -> tuple[str, int]:
    """Host and port of a URL in normal form."""
    return split_address(url.removeprefix(_SCHEME))
