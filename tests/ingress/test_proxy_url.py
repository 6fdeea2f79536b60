"""The proxy of relays: one spelling, and no credentials."""

from __future__ import annotations

import json

import pytest

from culvert_ingress.config_file import ConfigErrors, load
from culvert_ingress.document import Document, DocumentError, RelayTarget
from culvert_ingress.proxy_url import ProxyURLError, check_proxy_url, proxy_address


@pytest.mark.parametrize(
    ("text", "normal", "address"),
    [
        ("http://proxy:3128", "http://proxy:3128", ("proxy", 3128)),
        ("HTTP://Proxy.Example.COM.:80/", "http://proxy.example.com:80", ("proxy.example.com", 80)),
        ("http://[2001:DB8::1]:3128", "http://[2001:db8::1]:3128", ("2001:db8::1", 3128)),
    ],
)
def test_one_spelling(text: str, normal: str, address: tuple[str, int]) -> None:
    assert check_proxy_url(text) == normal
    assert proxy_address(normal) == address
    assert check_proxy_url(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "proxy:3128",
        "https://proxy:1",
        "socks5://proxy:1",
        "http://proxy",
        "http://a:1/x?y",
        "http://127.1:3128",
        "http://",
    ],
)
def test_what_is_no_proxy_says_what_to_write(text: str) -> None:
    with pytest.raises(ProxyURLError, match="write"):
        check_proxy_url(text)


@pytest.mark.parametrize("text", ["http://me:s3cret@proxy:3128", "me:s3cret@proxy", "http://s3cret@proxy:1"])
def test_d19_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ProxyURLError, match="everyone who may read this configuration") as refusal:
        check_proxy_url(text)
    assert "s3cret" not in str(refusal.value)
    with pytest.raises(ConfigErrors, match="HTTPS_PROXY") as refusals:
        load(f"relay-proxy: {text}\n" + FILE)
    assert "s3cret" not in str(refusals.value)


FILE = "tunnel: t\nrelay: relay.example.com:443\ningress: [{service: 'http_status:404'}]\n"


def test_the_files_proxy_reaches_the_document_as_a_key_of_schema_2() -> None:
    document = load(f"relay-proxy: http://Proxy:3128\n{FILE}").compile(version=1, grant="g")
    assert document.relay == RelayTarget(("relay.example.com:443",), proxy="http://proxy:3128")
    assert document.schema == 2
    assert Document.loads(document.dumps()) == document
    plain = load(FILE).compile(version=1, grant="g")
    assert plain.schema == 1
    assert b"proxy" not in plain.dumps()
    for bad in ("http://Proxy:3128", "http://a:b@proxy:1", "socks5://a:1"):
        raw = json.loads(document.dumps())
        raw["relay"]["proxy"] = bad
        with pytest.raises(DocumentError, match="proxy"):
            Document.loads(json.dumps(raw).encode())
