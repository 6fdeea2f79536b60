"""Addresses that a person writes: one spelling, and none of the notations that only resolvers read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress.addresses import AddressError, host_name_or_ip, join_address, split_address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", "localhost"),
        ("Web.shop.svc", "web.shop.svc"),
        ("my_app", "my_app"),
        ("My_App.", "my_app"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
    ],
)
def test_a_host_has_one_spelling(text: str, host: str) -> None:
    assert host_name_or_ip(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "0x7f.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.4.",
        "[fe80::1%eth0]",
        "[::1",
        "[]",
        "",
        "a b",
        "a_ü.b",
    ],
)
def test_d18_other_notations_are_refused(text: str) -> None:
    with pytest.raises(AddressError, match=r"\.$"):
        host_name_or_ip(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("relay.example.com:443", ("relay.example.com", 443)),
        ("[::1]:7443", ("::1", 7443)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
    ],
)
def test_host_and_port_are_taken_apart_and_put_together(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
    assert join_address(*address) == text


@pytest.mark.parametrize(
    "text",
    [
        "relay.example.com",
        "relay:",
        ":443",
        "relay:0",
        "relay:65536",
        "relay:4x",
        "::1:443",
        "https://relay:443",
        "relay:443/x",
        "u@relay:443",
    ],
)
def test_an_address_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(AddressError, match=r"relay\.example\.com:443|host:port"):
        split_address(text)


def test_port_zero_is_for_listeners() -> None:
    assert split_address("127.0.0.1:0", port_zero=True) == ("127.0.0.1", 0)


@given(st.text(max_size=20))
def test_an_accepted_host_is_in_normal_form(text: str) -> None:
    try:
        host = host_name_or_ip(text)
    except AddressError:
        return
    assert host_name_or_ip(host) == host
