"""PROXY headers as load balancers write them, whole and in pieces."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_relay.visitors.proxy_protocol import (
    MAX_HEADER,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    parse_header,
)


def version_2(family: int, body: bytes, *, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


V4 = ipaddress.IPv4Address("192.0.2.7").packed + ipaddress.IPv4Address("198.51.100.1").packed + b"\xdc\x04\x01\xbb"
V6 = ipaddress.IPv6Address("2001:db8::7").packed + ipaddress.IPv6Address("2001:db8::1").packed + b"\xdc\x04\x01\xbb"
TLV = b"\x04\x00\x04abcd"

GOOD: list[tuple[bytes, str, int]] = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7", 56324),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", "2001:db8::7", 1),
    (b"PROXY UNKNOWN\r\n", "", 0),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", 0),
    (version_2(0x11, V4), "192.0.2.7", 56324),
    (version_2(0x21, V6), "2001:db8::7", 56324),
    (version_2(0x11, V4 + TLV * 20), "192.0.2.7", 56324),
    (version_2(0x00, b"", command=0x20), "", 0),
    (version_2(0x11, V4, command=0x20), "", 0),
    (version_2(0x00, TLV), "", 0),
    (version_2(0x31, b"x" * 216), "", 0),
]

BAD: list[bytes] = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\n" + b"x" * 100,
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
    b"PROXY TCP4 192.0.2.7  198.51.100.1 56324 443\r\n",
    b"PROXY TCP4 192.0.2.700 198.51.100.1 56324 443\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 007 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 443 x\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY " + b"x" * 101,
    SIGNATURE + b"\x11\x11\x00\x00",
    SIGNATURE + b"\x22\x11\x00\x00",
    version_2(0x11, V4[:-1]),
    version_2(0x21, V4),
    version_2(0x12, V4),
    SIGNATURE + struct.pack(">BBH", 0x21, 0x11, MAX_HEADER),
    SIGNATURE[:-1] + b"X" + b"\x21\x11\x00\x00",
]


@pytest.mark.parametrize(("data", "address", "port"), GOOD, ids=range(len(GOOD)))
def test_a_header_ends_where_it_says_and_announces_the_visitor(data: bytes, address: str, port: int) -> None:
    assert parse_header(data) == (len(data), address, port)
    assert parse_header(data + b"GET / HTTP/1.1\r\n\r\n") == (len(data), address, port)
    for size in range(len(data)):
        assert parse_header(data[:size]) is None


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        parse_header(data)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=300).map(lambda tail: SIGNATURE + tail),
        st.binary(max_size=150).map(lambda tail: b"PROXY TCP4 " + tail),
        st.tuples(st.sampled_from([row[0] for row in GOOD]), st.integers(0, 60), st.binary(min_size=1, max_size=2)).map(
            lambda made: made[0][: made[1]] + made[2] + made[0][made[1] + 1 :]
        ),
    )
)
def test_b10_whatever_comes_is_a_header_or_a_refusal_and_pieces_say_the_same(data: bytes) -> None:
    def outcome(part: bytes) -> ProxyHeader | str | None:
        try:
            return parse_header(part)
        except ProxyHeaderError:
            return "refused"

    whole = outcome(data)
    if isinstance(whole, ProxyHeader):
        assert whole.size <= MAX_HEADER
        if whole.address:
            assert str(ipaddress.ip_address(whole.address)) == whole.address
        assert outcome(data[: whole.size]) == whole
        assert all(outcome(data[:size]) is None for size in range(whole.size))
    elif whole is None:
        assert all(outcome(data[:size]) is None for size in range(len(data)))
