"""Delivering a revocation over HTTP."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol.handshake import PROBLEMS, HandshakeError, Refused, build_accept, build_refusal
from culvert_protocol.revocation_post import (
    Delivered,
    RevocationRequest,
    build_revocation_accepted,
    build_revocation_request,
    parse_revocation_answer,
    parse_revocation_request,
)

VECTORS = Path(__file__).parent / "vectors"
REQUEST = (VECTORS / "revocation_request.http").read_bytes()
TOKEN = json.loads((VECTORS / "statements.json").read_text())["revocation"]["token"]


def test_the_vector() -> None:
    assert build_revocation_request("relay.example.com", TOKEN) == REQUEST
    expected = RevocationRequest(host="relay.example.com", token=TOKEN, size=len(REQUEST))
    assert parse_revocation_request(REQUEST) == expected
    assert parse_revocation_request(REQUEST + b"GET / HTTP/1.1\r\n\r\n") == expected


@given(st.integers(0, len(REQUEST) - 1))
def test_any_prefix_is_incomplete(cut: int) -> None:
    assert parse_revocation_request(REQUEST[:cut]) is None


def test_a_line_end_after_the_statement_does_not_matter() -> None:
    request = parse_revocation_request(build_revocation_request("relay", TOKEN + "\n"))
    assert request is not None
    assert request.token == TOKEN


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"POST", b"GET", 405),
        (b"/revocations", b"/session", 404),
        (b"Content-Length: ", b"Content-Length: 9", 413),
        (b"Content-Length: ", b"Content-Length: -", 400),
        (b"Content-Length: ", b"X-Length: ", 400),
        (b"Connection: close", b"Transfer-Encoding: chunked", 400),
        (b"Host: ", b"X-Host: ", 400),
        (TOKEN.encode()[-2:], b"\xff\xff", 400),
    ],
)
def test_each_mistake_has_its_status(old: bytes, new: bytes, expected: int) -> None:
    with pytest.raises(HandshakeError) as caught:
        parse_revocation_request(REQUEST.replace(old, new))
    assert caught.value.status == expected
    assert expected in PROBLEMS


def test_the_sender_tells_success_from_refusal() -> None:
    accepted = build_revocation_accepted()
    assert parse_revocation_answer(accepted[:-1]) is None
    assert parse_revocation_answer(accepted) == Delivered()
    refused = parse_revocation_answer(build_refusal(401))
    assert isinstance(refused, Refused)
    assert refused.status == 401
    with pytest.raises(HandshakeError, match="switched protocols"):
        parse_revocation_answer(build_accept("A" * 22, "relay-1"))
