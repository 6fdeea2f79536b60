"""The upgrade: both texts byte for byte, any split, and one answer per mistake."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_protocol import handshake as h

VECTORS = Path(__file__).parent / "vectors"
REQUEST = (VECTORS / "session_request.http").read_bytes()
ACCEPT = (VECTORS / "session_accept.http").read_bytes()
REFUSAL = (VECTORS / "session_refusal_409.http").read_bytes()
CREDENTIAL = json.loads((VECTORS / "statements.json").read_text())["credential"]["token"]
CONNECTOR = "7b0f4a52-58f5-4a6e-8c66-9a2a35d0e001"
NONCE = "dGVzdC12ZWN0b3Itbm9uY2U"


def status(data: bytes) -> int:
    with pytest.raises(h.HandshakeError) as caught:
        h.parse_request(data)
    assert caught.value.status in h.PROBLEMS
    return caught.value.status


# --- golden vectors -----------------------------------------------------------------------------------------


def test_the_request_vector() -> None:
    assert h.build_request("relay.example.com", CREDENTIAL, CONNECTOR, 2, 7) == REQUEST
    assert h.parse_request(REQUEST) == h.SessionRequest(
        host="relay.example.com",
        credential=CREDENTIAL,
        connector_id=CONNECTOR,
        slot=2,
        generation=7,
        size=len(REQUEST),
    )


def test_the_answer_vectors() -> None:
    assert h.build_accept(NONCE, "relay-1") == ACCEPT
    assert h.parse_answer(ACCEPT + b"frames") == h.Accepted(nonce=NONCE, relay_id="relay-1", size=len(ACCEPT))
    assert h.build_refusal(409, retry_after=10) == REFUSAL
    assert h.parse_answer(REFUSAL) == h.Refused(
        status=409,
        reason="enough_sessions",
        detail="This relay has enough sessions of this connector; leave the address at rest and try the others.",
        retry_after=10,
    )


# --- properties ---------------------------------------------------------------------------------------------


@given(st.data())
def test_any_prefix_is_incomplete_and_the_whole_is_complete(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(REQUEST) - 1))
    assert h.parse_request(REQUEST[:cut]) is None
    for answer in (ACCEPT, REFUSAL):
        cut = data.draw(st.integers(0, len(answer) - 1))
        assert h.parse_answer(bytearray(answer[:cut])) is None
        assert h.parse_answer(bytearray(answer)) == h.parse_answer(answer)


@given(
    name=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}\.){0,4}[a-z0-9]{1,20}", fullmatch=True),
    credential=st.text("abcXYZ019._-", min_size=1, max_size=8192),
    connector=st.uuids().map(str),
    slot=st.integers(0, h.MAX_SLOT),
    generation=st.integers(0, h.MAX_GENERATION),
)
def test_parsing_a_built_request_gives_what_was_built(
    name: str, credential: str, connector: str, slot: int, generation: int
) -> None:
    request = h.parse_request(h.build_request(name, credential, connector, slot, generation))
    assert request is not None
    assert (request.host, request.credential) == (name, credential)
    assert (request.connector_id, request.slot, request.generation) == (connector, slot, generation)


@given(
    nonce=st.from_regex(r"[A-Za-z0-9_-]{16,64}", fullmatch=True),
    relay=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,40}", fullmatch=True),
    frames=st.binary(max_size=50),
)
def test_parsing_a_built_answer_gives_what_was_built(nonce: str, relay: str, frames: bytes) -> None:
    built = h.build_accept(nonce, relay)
    assert h.parse_answer(built + frames) == h.Accepted(nonce=nonce, relay_id=relay, size=len(built))


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda b: b + b"\r\n\r\n"))
def test_any_bytes_are_incomplete_or_refused(data: bytes) -> None:
    try:
        assert h.parse_request(data) is None
    except h.HandshakeError as error:
        assert error.status in h.PROBLEMS
    try:
        h.parse_answer(data)
        h.parse_answer(data, eof=True)
    except h.HandshakeError:
        pass


@given(st.integers(0, len(REQUEST) - 1), st.integers(0, 255))
def test_no_changed_byte_of_a_request_escapes_the_rules(at: int, byte: int) -> None:
    changed = REQUEST[:at] + bytes([byte]) + REQUEST[at + 1 :]
    try:
        request = h.parse_request(changed)
    except h.HandshakeError:
        return
    if request is not None:  # a change of letters inside a value, or of a name nobody asks for
        assert h.parse_request(
            h.build_request(request.host, request.credential, request.connector_id, request.slot, request.generation)
        )


# --- the relay's side ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"GET ", b"POST ", 405),
        (b"/session", b"/other", 404),
        (b"/session", b"/session?x", 404),
        (b"HTTP/1.1", b"HTTP/1.0", 400),
        (b"HTTP/1.1", b"HTTP/2.0", 400),
        (b"GET /", b"GET  /", 400),
        (b"Host: relay.example.com\r\n", b"", 400),
        (b"Host: relay.example.com\r\n", b"Host: a.example\r\nHost: b.example\r\n", 400),
        (b"relay.example.com", b"user@relay.example.com", 400),
        (b"relay.example.com", b"relay.example.com/x", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/2", 426),
        (b"Upgrade: culvert/1", b"Upgrade: websocket", 426),
        (b"Upgrade: culvert/1\r\n", b"", 426),
        (b"Connection: Upgrade", b"Connection: close", 426),
        (b"Bearer ", b"Basic ", 401),
        (b"Bearer ", b"Bearer", 401),
        (b"Authorization", b"X-Authorization", 401),
        (b"Authorization:", b"Authorization: Bearer a\r\nAuthorization:", 400),
        (b"Culvert-Connector: 7b0f4a52", b"Culvert-Connector: 7B0F4A52", 400),
        (b"Culvert-Session: 2.7", b"Culvert-Session: 2", 400),
        (b"Culvert-Session: 2.7", b"Culvert-Session: 02.7", 400),
        (b"Culvert-Session: 2.7", b"Culvert-Session: -2.7", 400),
        (b"Culvert-Session: 2.7", b"Culvert-Session: 1024.7", 400),
        (b"Culvert-Session: 2.7", b"Culvert-Session: 2.9007199254740992", 400),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nContent-Length: 5", 413),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nContent-Length: 0, 0", 400),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nTransfer-Encoding: chunked", 400),
        (b"Upgrade: culvert/1", b"Upgrade : culvert/1", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\r\n folded", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\nX: y", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\rX: y", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\0", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\r\nX-Name: \xc3\xa9", 400),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1" + b"\r\nX: y" * 64, 431),
        (b"Upgrade: culvert/1", b"Upgrade: culvert/1\r\nX: " + b"y" * h.MAX_HEAD, 431),
    ],
)
def test_each_mistake_has_its_status(old: bytes, new: bytes, expected: int) -> None:
    assert old in REQUEST
    assert status(REQUEST.replace(old, new, 1)) == expected


def test_bytes_before_the_answer_are_refused() -> None:
    assert status(REQUEST + b"\x00") == 400


def test_an_endless_head_is_refused_at_the_limit() -> None:
    assert h.parse_request(b"x" * (h.MAX_HEAD - 1)) is None
    assert status(b"x" * h.MAX_HEAD) == 431


def test_the_largest_credential_fits_into_the_largest_head() -> None:
    request = h.build_request("r" * 200 + ".example.com", "c" * 8192, CONNECTOR, 1023, h.MAX_GENERATION)
    parsed = h.parse_request(request)
    assert parsed is not None
    assert len(parsed.credential) == 8192
    assert status(request.replace(b"Bearer c", b"Bearer cc")) == 401


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        (b"RELAY.Example.com:7443", "relay.example.com"),
        (b"relay.example.com.", "relay.example.com"),
        (b"127.0.0.1:7443", "127.0.0.1"),
        (b"[2001:DB8::1]:7443", "2001:db8::1"),
    ],
)
def test_host_comes_without_port_case_and_trailing_dot(sent: bytes, host: str) -> None:
    request = h.parse_request(REQUEST.replace(b"Host: relay.example.com", b"Host: " + sent))
    assert request is not None
    assert request.host == host


def test_proxies_on_the_way_may_add_fields_and_change_case() -> None:
    request = REQUEST.replace(b"Upgrade: culvert/1", b"UPGRADE:  Culvert/1 \r\nVia: 1.1 proxy")
    request = request.replace(b"Connection: Upgrade", b"connection: keep-alive, UPGRADE")
    assert h.parse_request(request) is not None


def test_a_credential_is_not_shown_in_repr() -> None:
    assert CREDENTIAL not in repr(h.parse_request(REQUEST))


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(h.PROBLEMS))
def test_every_refusal_is_a_problem_document_that_a_connector_reads(code: int) -> None:
    answer = h.build_refusal(code, retry_after=30)
    head, body = answer.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 %d " % code)
    assert b"Content-Type: application/problem+json" in head
    assert b"Culvert-Error: relay; " in head
    document = json.loads(body)
    assert document["status"] == code
    assert set(document) == {"type", "title", "status", "detail"}
    parsed = h.parse_answer(answer)
    assert isinstance(parsed, h.Refused)
    assert (parsed.status, parsed.retry_after, parsed.detail) == (code, 30, document["detail"])
    assert parsed.reason == h.PROBLEMS[code].reason


def test_authentication_failures_have_one_uniform_text() -> None:
    assert h.build_refusal(401) == h.build_refusal(401)
    assert b"WWW-Authenticate: Bearer" in h.build_refusal(401)
    for code in h.PROBLEMS:
        if code != 400:
            with pytest.raises(ValueError, match="uniform"):
                h.build_refusal(code, detail="expired yesterday")


def test_a_malformed_request_is_told_what_is_wrong() -> None:
    parsed = h.parse_answer(h.build_refusal(400, detail='Host is "missing"\r\nX: y'))
    assert isinstance(parsed, h.Refused)
    assert parsed.detail == 'Host is "missing"??X: y'


def test_426_names_the_version_to_use() -> None:
    answer = h.build_refusal(426)
    assert b"\r\nUpgrade: culvert/1\r\n" in answer
    assert b"\r\nConnection: Upgrade, close\r\n" in answer


# --- the connector's side -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Upgrade: culvert/1", b"Upgrade: websocket"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"Culvert-Nonce: " + NONCE.encode(), b"Culvert-Nonce: short"),
        (b"Culvert-Nonce", b"Culvert-Other"),
        (b"Culvert-Nonce:", b"Culvert-Nonce: AAAAAAAAAAAAAAAAAAAA\r\nCulvert-Nonce:"),
        (b"Culvert-Relay: relay-1", b"Culvert-Relay: two words"),
        (b"HTTP/1.1 101", b"HTTP/1.1 1010"),
        (b"HTTP/1.1 101", b"SSH-2.0"),
    ],
)
def test_a_101_that_is_not_culverts_is_refused(old: bytes, new: bytes) -> None:
    assert old in ACCEPT
    with pytest.raises(h.HandshakeError):
        h.parse_answer(ACCEPT.replace(old, new, 1))


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: text/html\r\nContent-Length: 5\r\n\r\n<p>no",
        b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
        b"Content-Type: text/html\r\nContent-Length: 10000000\r\n\r\n<p>",
        b"Content-Length: 2, 2\r\n\r\n{}",
        b"Content-Length: 2\r\n\r\n[]",
        b'Content-Length: 22\r\n\r\n{"type":1,"detail":[] }',
        b"\r\n",
    ],
)
def test_a_proxys_refusal_counts_by_its_status_alone(body: bytes) -> None:
    answer = h.parse_answer(b"HTTP/1.1 502 Bad Gateway\r\n" + body)
    assert answer == h.Refused(status=502, reason="", detail="", retry_after=None)


def test_an_answer_cut_short() -> None:
    cut = REFUSAL[:-10]
    assert h.parse_answer(cut) is None
    ended = h.parse_answer(cut, eof=True)
    assert isinstance(ended, h.Refused)
    assert (ended.status, ended.detail, ended.retry_after) == (409, "", 10)
    with pytest.raises(h.HandshakeError, match="ended before the relay answered"):
        h.parse_answer(ACCEPT[:-1], eof=True)


def test_retry_after_is_bounded_and_a_date_is_ignored() -> None:
    for value, expected in ((b"999999999", 3600), (b"Wed, 21 Oct 2026 07:28:00 GMT", None), (b"-1", None)):
        answer = h.parse_answer(REFUSAL.replace(b"Retry-After: 10", b"Retry-After: " + value))
        assert isinstance(answer, h.Refused)
        assert answer.retry_after == expected


def test_a_long_or_hostile_detail_is_one_short_line() -> None:
    body = json.dumps({"type": "urn:culvert:problem:x\n" + "y" * 100, "detail": "\x1b[31m\n" + "z" * 1000}).encode()
    answer = h.parse_answer(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert isinstance(answer, h.Refused)
    assert answer.detail.isprintable()
    assert len(answer.detail) == 300
    assert answer.reason.isprintable()
    assert len(answer.reason) == 64


# --- building refuses what could be read differently --------------------------------------------------------


def test_builders_refuse_values_that_would_break_the_text() -> None:
    for name in ("", "a b", "relay.example.com:7443x\r\n", "a/b", "relay\r\nX: y"):
        with pytest.raises(ValueError, match="server name"):
            h.build_request(name, "c", CONNECTOR, 0, 0)
    for credential in ("", "a b", "a\r\nX: y", "c" * 8193):
        with pytest.raises(ValueError, match="compact JWS"):
            h.build_request("relay", credential, CONNECTOR, 0, 0)
    for connector, slot, generation in (("x", 0, 0), (CONNECTOR, -1, 0), (CONNECTOR, 1024, 0), (CONNECTOR, 0, -1)):
        with pytest.raises(ValueError, match="UUID"):
            h.build_request("relay", "c", connector, slot, generation)
    for nonce, relay in (("short", "relay-1"), (NONCE, "relay 1"), (NONCE + "\r\n", "relay-1")):
        with pytest.raises(ValueError, match="nonce"):
            h.build_accept(nonce, relay)


def test_an_ipv6_relay_is_named_in_brackets() -> None:
    request = h.parse_request(h.build_request("2001:db8::1", "c", CONNECTOR, 0, 0))
    assert request is not None
    assert request.host == "2001:db8::1"
