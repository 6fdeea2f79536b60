"""The server name in a ClientHello: of a real TLS client, cut anywhere, and of nonsense."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_relay.streams.client_hello import LIMIT, Hello, read_hello


def client_hello(name: str | None) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


HELLO = client_hello("Db.Example.COM")


def records(message: bytes, size: int) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def test_the_name_of_a_real_client_in_lower_case() -> None:
    assert read_hello(HELLO) == Hello(b"db.example.com")
    assert read_hello(client_hello(None)) == Hello(b"")
    assert read_hello(HELLO + b"more") == Hello(b"db.example.com")


def test_every_cut_needs_more() -> None:
    for size in range(1, len(HELLO)):
        assert read_hello(HELLO[:size]) is None, size


@given(st.integers(1, 200))
def test_one_message_may_come_in_several_records(size: int) -> None:
    wire = records(HELLO[5:], size)
    assert read_hello(wire) == Hello(b"db.example.com")
    assert read_hello(wire[:-1]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x80\x2e\x01",  # SSLv2
        b"\x15\x03\x01\x00\x02\x02\x28",  # an alert
        b"\x16\x02\x01\x00\x05",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a ServerHello
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",  # a message over the limit
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",  # an empty ClientHello
    ],
)
def test_what_is_no_client_hello_is_said_to_be_none(data: bytes) -> None:
    assert read_hello(data) is False


def test_a_client_hello_over_the_limit_is_not_waited_for() -> None:
    assert read_hello(records(b"\x01\x00\x3f\xff" + bytes(LIMIT), 16_000)[:LIMIT]) is False


@given(st.binary(max_size=300), st.integers(0, 600), st.integers(0, 255))
def test_no_bytes_raise_anything(noise: bytes, at: int, value: int) -> None:
    changed = bytearray(HELLO)
    changed[at % len(changed)] = value
    for data in (noise, b"\x16\x03\x01" + noise, bytes(changed), bytes(changed[:at])):
        read_hello(data)
