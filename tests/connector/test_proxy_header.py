"""The PROXY protocol's bytes, from the specification's own examples and layout."""

import pytest

from culvert_connector.origins.proxy_header import SIGNATURE, proxy_header
from culvert_protocol.heads import Kind, Open


def tcp(source: bytes, target: bytes) -> Open:
    address = source.rpartition(b":")[0].strip(b"[]")
    return Open(kind=Kind.TCP, local_port=20022, address=address, authority=target, target=source)


def test_version_1_is_one_line() -> None:
    assert proxy_header(1, tcp(b"192.0.2.7:51234", b"198.51.100.1:20022")) == (
        b"PROXY TCP4 192.0.2.7 198.51.100.1 51234 20022\r\n"
    )
    assert proxy_header(1, tcp(b"[2001:db8::7]:51234", b"[2001:db8::1]:443")) == (
        b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"
    )


def test_version_2_is_binary() -> None:
    assert proxy_header(2, tcp(b"192.0.2.7:51234", b"198.51.100.1:20022")) == SIGNATURE + bytes.fromhex(
        "2111000c" + "c0000207" + "c6336401" + "c822" + "4e36"
    )
    six = proxy_header(2, tcp(b"[2001:db8::7]:1", b"[2001:db8::1]:2"))
    assert six[:16] == SIGNATURE + bytes.fromhex("21210024")
    assert (len(six), six[-4:]) == (16 + 36, b"\x00\x01\x00\x02")


def test_a_request_comes_without_the_visitors_port_and_the_relays_address() -> None:
    head = Open(method=b"GET", address=b"192.0.2.7", local_port=443, authority=b"10.0.0.9:80", target=b"/", fields=b"")
    assert proxy_header(1, head) == b"PROXY TCP4 192.0.2.7 0.0.0.0 0 443\r\n"
    assert proxy_header(1, head._replace(address=b"2001:db8::7")) == b"PROXY TCP6 2001:db8::7 :: 0 443\r\n"


@pytest.mark.parametrize("address", [b"", b"unknown", b"1.2.3", b"\xff", b"1.2.3.4 5.6.7.8", b"1.2.3.4\r\nX"])
def test_an_address_that_cannot_be_read_is_unknown(address: bytes) -> None:
    head = Open(method=b"GET", address=address, target=b"/")
    assert proxy_header(1, head) == b"PROXY UNKNOWN\r\n"
    assert proxy_header(2, head) == SIGNATURE + b"\x20\x00\x00\x00"


def test_families_are_never_mixed_and_version_0_is_nothing() -> None:
    head = tcp(b"192.0.2.7:51234", b"[2001:db8::1]:443")
    assert proxy_header(1, head) == b"PROXY TCP4 192.0.2.7 0.0.0.0 51234 20022\r\n"
    assert proxy_header(0, head) == b""
