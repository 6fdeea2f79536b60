"""Which address is the visitor's, and what is added to what a trusted proxy says."""

import pytest

from culvert_http1.request import parse_request_head
from culvert_relay.admission import membership
from culvert_relay.config_values import networks
from culvert_relay.visitors.vouching import MAX_LIST, node_address, visitor_of, vouched

TRUSTS = membership(networks(["10.0.0.0/8", "2001:db8:a::/48"], "here"))


@pytest.mark.parametrize(
    ("addresses", "peer", "visitor"),
    [
        (b"", "10.0.0.1", "10.0.0.1"),
        (b"192.0.2.7", "10.0.0.1", "192.0.2.7"),
        (b"6.6.6.6, 192.0.2.7", "10.0.0.1", "192.0.2.7"),
        (b"6.6.6.6, 192.0.2.7, 10.0.0.2", "10.0.0.1", "192.0.2.7"),
        (b"10.9.9.9, 10.0.0.2", "10.0.0.1", "10.9.9.9"),
        (b"6.6.6.6, unknown, 10.0.0.2", "10.0.0.1", "10.0.0.2"),
        (b"6.6.6.6, _hidden", "10.0.0.1", "10.0.0.1"),
        (b"192.0.2.7:4711,[2001:db8:a::1]:80", "10.0.0.1", "192.0.2.7"),
        (b"2001:db8::7", "10.0.0.1", "2001:db8::7"),
        (b"6.6.6.6,", "10.0.0.1", "10.0.0.1"),
        ("é, 6.6.6.6é".encode(), "10.0.0.1", "10.0.0.1"),
        (b"6.6.6.6", "192.0.2.9", "192.0.2.9"),
    ],
)
def test_b10_the_visitor_is_the_last_that_is_no_trusted_proxy(addresses: bytes, peer: str, visitor: str) -> None:
    assert visitor_of(addresses, peer, TRUSTS) == visitor


def test_an_element_is_an_address_or_nothing() -> None:
    texts = ("1.2.3.4", "1.2.3.4:5", "[::1]", "[::1]:9", "::1", "1.2.3", "[1.2.3.4", "host", "", "1.2.3.4:x", "_x")
    found = ["1.2.3.4", "1.2.3.4", "::1", "::1", "::1", *[None] * 6]
    assert [node_address(text) for text in texts] == found


def said(fields: bytes, *, scheme: int = 0, peer: bytes = b"10.0.0.1") -> tuple[bytes, list[bytes]]:
    head = parse_request_head(b"GET / HTTP/1.1\r\nHost: App.example.com\r\n" + fields + b"\r\n")
    assert head is not None
    made = vouched(head, peer, scheme=scheme, trusts=TRUSTS)
    return made.address, made.fields(head.authority).split(b"\r\n")[:-1]


def test_b10_fields_of_a_trusted_proxy_are_added_to() -> None:
    address, lines = said(
        b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.2\r\nX-Forwarded-Proto: HTTPS\r\n"
        b"X-Forwarded-Host: shop.example.com:8443\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-Prefix: /app\r\n"
        b"Forwarded: for=192.0.2.7\r\n"
    )
    assert address == b"192.0.2.7"
    assert lines == [
        b"X-Forwarded-For: 192.0.2.7, 10.0.0.2, 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: shop.example.com:8443",
        b"X-Real-IP: 192.0.2.7",
        b'Forwarded: for=192.0.2.7, for=10.0.0.1;host="App.example.com";proto=http',
        b"x-forwarded-prefix: /app",
    ]


def test_b10_what_a_trusted_proxy_does_not_say_or_says_twice_is_the_relays_own() -> None:
    own = [
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: App.example.com",
        b"X-Real-IP: 10.0.0.1",
    ]
    assert said(b"", scheme=1) == (b"10.0.0.1", own)
    twice = b"X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a b\r\n"
    assert said(twice, scheme=1)[1] == own
    assert said(b"X-Forwarded-For: " + b"1.1.1.1, " * (MAX_LIST // 9) + b"1.1.1.1\r\n", scheme=1)[1] == own
    assert said(b"Forwarded: for=a\r\n", peer=b"2001:db8:a::1")[1][-1] == (
        b'Forwarded: for=a, for="[2001:db8:a::1]";host="App.example.com";proto=http'
    )
