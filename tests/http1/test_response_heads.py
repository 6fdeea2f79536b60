"""Heads of origins' responses: what comes out, what is refused, and properties over hostile bytes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_http1 import (
    DEFAULT_LIMITS,
    Framing,
    HeadLimits,
    HTTPError,
    ResponseHead,
    check_fields,
    parse_response_head,
)
from culvert_http1 import response as response_module

INTERPRETED = pytest.mark.skipif(
    not str(response_module.__file__).endswith(".py"),
    reason="a compiled module keeps its expressions where no test can replace them",
)
OK = b"HTTP/1.1 200 OK"


def of(*lines: bytes, start: bytes = OK, method: bytes = b"GET") -> ResponseHead:
    parsed = parse_response_head(b"\r\n".join((start, *lines, b"", b"")), method=method)
    assert parsed is not None
    return parsed


def test_a_usual_head() -> None:
    data = OK + b"\r\nServer: x\r\nContent-Length: 12\r\nA:b\r\nConnection: keep-alive\r\nC: d\r\n\r\n"
    parsed = parse_response_head(data + b"body", method=b"GET")
    assert parsed is not None
    assert (parsed.status, parsed.minor, parsed.keep_alive, parsed.upgrade) == (200, 1, True, b"")
    assert (parsed.framing, parsed.declared, parsed.content_length) == (Framing.LENGTH, Framing.LENGTH, 12)
    assert parsed.fields == b"Server: x\r\nA:b\r\nC: d\r\n"
    assert parsed.size == len(data)


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"HTTP/1.1 100 Continue", 100),
        (b"HTTP/1.1 200", 200),
        (b"HTTP/1.1 200 ", 200),
        (b"HTTP/1.0 200 OK", 200),
        (b"HTTP/1.1 299 any\tphrase \xe9", 299),
        (b"HTTP/1.1 999 x", 999),
    ],
)
def test_status_lines(start: bytes, status: int) -> None:
    assert of(start=start).status == status


REFUSED = [
    ("status below 100, RFC 9110 15", b"HTTP/1.1 099 x\r\n\r\n"),
    ("status 000, RFC 9110 15", b"HTTP/1.1 000 x\r\n\r\n"),
    ("status of two digits, RFC 9112 4", b"HTTP/1.1 20 x\r\n\r\n"),
    ("status of four digits, RFC 9112 4", b"HTTP/1.1 1000 x\r\n\r\n"),
    ("negative status, RFC 9112 4", b"HTTP/1.1 -20 x\r\n\r\n"),
    ("no status, RFC 9112 4", b"HTTP/1.1\r\n\r\n"),
    ("two spaces, RFC 9112 4", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("version 1.2, RFC 9110 2.5", b"HTTP/1.2 200 OK\r\n\r\n"),
    ("version 2, RFC 9110 2.5", b"HTTP/2 200 OK\r\n\r\n"),
    ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("a page without a head (HTTP/0.9)", b"<html>\r\n<body>"),
    ("control byte in the phrase", b"HTTP/1.1 200 O\x01K\r\n\r\n"),
    ("lines end with LF, RFC 9112 2.2", b"HTTP/1.1 200 OK\nA: b\n\n"),
    ("CR in a value, RFC 9110 5.5", OK + b"\r\nA: b\rc\r\n\r\n"),
    ("LF in a value, RFC 9110 5.5", OK + b"\r\nA: b\nc: d\r\n\r\n"),
    ("NUL in a value, RFC 9110 5.5", OK + b"\r\nA: b\0\r\n\r\n"),
    ("obs-fold, RFC 9112 5.2", OK + b"\r\nA: b\r\n c\r\n\r\n"),
    ("space before the colon, RFC 9112 5.1", OK + b"\r\nA : b\r\n\r\n"),
    ("empty name, RFC 9110 5.1", OK + b"\r\n: b\r\n\r\n"),
    ("no colon, RFC 9112 5", OK + b"\r\nAb\r\n\r\n"),
    ("two framings, RFC 9112 6.3", OK + b"\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("two framings the other way, RFC 9112 6.3", OK + b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    ("differing lengths, RFC 9112 6.3", OK + b"\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    ("lengths that differ in spelling, RFC 9112 6.3", OK + b"\r\nContent-Length: 5\r\nContent-Length: 05\r\n\r\n"),
    ("list of lengths, RFC 9112 6.3", OK + b"\r\nContent-Length: 5, 6\r\n\r\n"),
    ("signed length, RFC 9110 8.6", OK + b"\r\nContent-Length: +5\r\n\r\n"),
    ("negative length, RFC 9110 8.6", OK + b"\r\nContent-Length: -5\r\n\r\n"),
    ("empty length, RFC 9110 8.6", OK + b"\r\nContent-Length:\r\n\r\n"),
    ("length of 2^63, RFC 9110 8.6", OK + b"\r\nContent-Length: 9223372036854775808\r\n\r\n"),
    ("length of 400 digits, RFC 9110 8.6", OK + b"\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n"),
    ("gzip before chunked, RFC 9112 6.1", OK + b"\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("gzip and chunked on two lines", OK + b"\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunked not last, RFC 9112 6.1", OK + b"\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
    ("chunked twice, RFC 9112 6.1", OK + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("identity, RFC 9112 6.1", OK + b"\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("chunked in HTTP/1.0, RFC 9112 6.1", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("Connection that is no list", OK + b"\r\nConnection: a b\r\n\r\n"),
    ("head over 32 KiB", OK + b"\r\n" + (b"A: " + b"b" * 9_000 + b"\r\n") * 4 + b"\r\n"),
    ("head over 32 KiB without an end", OK + b"\r\n" + (b"A: " + b"b" * 9_000 + b"\r\n") * 4),
    ("201 fields", OK + b"\r\n" + b"A: b\r\n" * 201 + b"\r\n"),
    ("201 fields, usual shape", OK + b"\r\n" + b"A: b\r\n" * 200 + b"Content-Length: 1\r\n\r\n"),
    ("a field over 16 KiB", OK + b"\r\nA: " + b"b" * 16_400 + b"\r\n\r\n"),
    ("a status line without an end", b"HTTP/1.1 200 " + b"x" * 2_000),
]


def feed(data: bytes, method: bytes, step: int) -> None:
    for end in range(step, len(data) + step, step):
        assert parse_response_head(data[:end], method=method, scanned=min(end, len(data)) - step) is None


@pytest.mark.parametrize(("rule", "data"), REFUSED, ids=[rule for rule, _ in REFUSED])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_b11_refused_whole_and_in_pieces(rule: str, data: bytes, method: bytes) -> None:
    with pytest.raises(HTTPError) as caught:
        parse_response_head(data, method=method)
    assert (caught.value.status, caught.value.reason, caught.value.close) == (502, "bad_response", True)
    assert caught.value.sentence.endswith(".")
    with pytest.raises(HTTPError) as again:
        feed(data, method, 1 if len(data) < 2_000 else 997)
    assert (again.value.status, again.value.sentence) == (502, caught.value.sentence)


@pytest.mark.parametrize(
    ("lines", "framing", "length"),
    [
        ((), Framing.UNTIL_CLOSE, 0),
        ((b"Content-Length: 5",), Framing.LENGTH, 5),
        ((b"content-length:0",), Framing.LENGTH, 0),
        ((b"Content-Length: 9223372036854775807",), Framing.LENGTH, 2**63 - 1),
        ((b"Content-Length: 5", b"A: b", b"Content-Length: 5"), Framing.LENGTH, 5),
        ((b"Transfer-Encoding: chunked",), Framing.CHUNKED, 0),
        ((b"TRANSFER-ENCODING:\tChunked ",), Framing.CHUNKED, 0),
    ],
)
@pytest.mark.parametrize("status", [200, 206, 404, 500, 600, 999])
def test_framing(lines: tuple[bytes, ...], framing: Framing, length: int, status: int) -> None:
    parsed = of(*lines, start=b"HTTP/1.1 %d x" % status)
    assert (parsed.framing, parsed.declared, parsed.content_length) == (framing, framing, length)
    assert parsed.keep_alive is (framing != Framing.UNTIL_CLOSE)
    assert parsed.fields == (b"A: b\r\n" if b"A: b" in lines else b"")
    head = of(*lines, start=b"HTTP/1.1 %d x" % status, method=b"HEAD")
    declared = Framing.NONE if framing == Framing.UNTIL_CLOSE else framing
    assert (head.framing, head.declared, head.content_length) == (Framing.NONE, declared, length)
    assert head.keep_alive


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"A: b"])
@pytest.mark.parametrize("status", [100, 103, 199, 204, 304])
def test_b08_responses_that_never_have_a_body(line: bytes, status: int) -> None:
    parsed = of(line, start=b"HTTP/1.1 %d x" % status)
    assert (parsed.framing, parsed.keep_alive) == (Framing.NONE, True)
    if status == 304 and line.startswith(b"C"):
        assert (parsed.declared, parsed.content_length) == (Framing.LENGTH, 5)
    elif status != 304:
        assert (parsed.declared, parsed.content_length) == (Framing.NONE, 0)


def test_b07_several_interim_heads_before_the_final_one() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        + OK
        + b"\r\nContent-Length: 0\r\n\r\n"
    )
    seen = []
    while data:
        parsed = parse_response_head(data, method=b"GET")
        assert parsed is not None
        seen.append((parsed.status, parsed.fields))
        data = data[parsed.size :]
    assert seen == [(100, b""), (103, b"Link: </a>\r\n"), (200, b"")]


@pytest.mark.parametrize(
    ("start", "connection", "persists"),
    [
        (OK, b"close", False),
        (OK, b"Close", False),
        (OK, b"Keep-Alive", True),
        (OK, b"keep-alive, close", False),
        (b"HTTP/1.0 200 OK", None, False),
        (b"HTTP/1.0 200 OK", b"keep-alive", True),
    ],
)
def test_whether_the_connection_persists(start: bytes, connection: bytes | None, persists: bool) -> None:
    lines = () if connection is None else (b"Connection: " + connection,)
    assert of(b"Content-Length: 1", *lines, start=start).keep_alive is persists
    assert of(*lines, b"Content-Length: 1", start=start).keep_alive is persists


DROPPED = [
    b"Connection: x", b"Keep-Alive: timeout=5", b"Proxy-Authenticate: Basic", b"Proxy-Connection: close", b"Proxy: x",
    b"TE: trailers", b"Trailer: X-Sum", b"Upgrade: h2,h2c", b"Culvert-Error: relay; x", b"culvert-nonce: x",
]  # fmt: skip


@pytest.mark.parametrize("line", DROPPED)
def test_fields_that_end_here(line: bytes) -> None:
    for spelled in (line, line.upper(), line.lower(), line.replace(b": ", b":")):
        for lines in ((spelled,), (b"A: b", spelled), (spelled, b"A: b"), (spelled, spelled)):
            expected = b"A: b\r\n" if b"A: b" in lines else b""
            assert of(*lines).fields == expected
            assert of(*lines, b"Content-Length: 0").fields == expected
            assert of(b"Content-Length: 0", *lines).fields == expected


def test_b09_fields_that_connection_lists_are_dropped_but_framing_is_not() -> None:
    parsed = of(b"Connection: X-A, content-length", b"Content-Length: 5", b"x-a: 1", b"X-B: 2")
    assert parsed.fields == b"X-B: 2\r\n"
    assert parsed.content_length == 5


def test_b11_order_case_and_cookies_are_kept() -> None:
    lines = b"Set-Cookie: a=1\r\nsEt-cOOkie: b=2, c\r\nHost: x\r\nA_b:\tc \r\n"
    lines += b"X-Forwarded-For: 1\r\nSet-Cookie:d\r\nZ: \xff\r\n"
    for special in (b"", b"Content-Length: 1\r\n", b"Transfer-encoding: chunked\r\n", b"Content-LENGTH: 1\r\n"):
        parsed = parse_response_head(OK + b"\r\n" + special + lines + b"\r\n", method=b"GET")
        assert parsed is not None
        assert parsed.fields == lines


def test_a_switch_of_protocols() -> None:
    start = b"HTTP/1.1 101 Switching Protocols"
    parsed = of(b"Upgrade: WebSocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x", start=start)
    assert (parsed.status, parsed.upgrade, parsed.framing) == (101, b"websocket", Framing.NONE)
    assert parsed.fields == b"Sec-WebSocket-Accept: x\r\n"
    assert of(b"Upgrade: websocket", start=start).upgrade == b""
    assert of(b"Connection: upgrade", start=start).upgrade == b""
    assert of(b"Connection: upgrade", b"Upgrade: websocket").upgrade == b""


def test_more_is_needed_until_the_last_byte() -> None:
    data = OK + b"\r\nContent-Length: 3\r\nA: b\r\n\r\n"
    for end in range(len(data)):
        assert parse_response_head(data[:end], method=b"GET") is None
        assert parse_response_head(bytearray(data[:end]), method=b"GET", scanned=max(end - 1, 0)) is None
    assert parse_response_head(bytearray(data), method=b"GET", scanned=len(data) - 1) is not None


PIECES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 304 x\r\n", b"HTTP/1.1 ", b"204", b" ", b"\r\n", b"\r", b"\n", b":", b"\0",
    b"\x01",
    b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: keep-alive\r\n", b"Connection: close, x\r\n", b"X: y\r\n", b"A_b: c\r\n", b"Upgrade: websocket\r\n",
    b"Culvert-X: 1\r\n", b"Set-Cookie: a\r\n", b"\r\n\r\n", b"\xff", b"a" * 50, b",", b"Keep-Alive: 5\r\n",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=12).map(b"".join)
begun = hostile.map(lambda rest: OK + b"\r\n" + rest + b"\r\n")
usual = st.lists(st.sampled_from([piece for piece in PIECES if piece.endswith(b"\r\n")]), max_size=7).map(
    lambda lines: OK + b"\r\n" + b"".join(lines) + b"\r\n"
)
methods = st.sampled_from([b"GET", b"HEAD", b"POST"])
SMALL = HeadLimits(head=200, fields=5, field=60)


def outcome(
    data: bytes | bytearray, method: bytes, *, limits: HeadLimits = DEFAULT_LIMITS, scanned: int = 0
) -> tuple[object, ...] | None:
    try:
        parsed = parse_response_head(data, method=method, limits=limits, scanned=scanned)
    except HTTPError as error:
        return error.status, error.reason, error.sentence
    # Compiled classes (hack/native) name their attributes otherwise.
    names = getattr(ResponseHead, "__mypyc_attrs__", None) or ResponseHead.__slots__
    return parsed and tuple(getattr(parsed, name) for name in names)


@given(
    data=hostile | begun | usual, method=methods, cuts=st.lists(st.integers(0, 200), max_size=8), small=st.booleans()
)
@settings(max_examples=100)
def test_any_split_gives_the_same(data: bytes, method: bytes, cuts: list[int], small: bool) -> None:
    limits = SMALL if small else DEFAULT_LIMITS
    whole = outcome(data, method, limits=limits)
    for ends in (sorted({min(cut, len(data)) for cut in cuts}), range(len(data))):
        scanned, result = 0, None
        for end in [*ends, len(data)]:
            result = outcome(data[:end], method, limits=limits, scanned=scanned)
            if result is not None:
                break
            scanned = end
        assert result == whole


@given(data=st.binary(max_size=200) | hostile | begun | usual, method=methods)
@settings(max_examples=100)
def test_arbitrary_bytes_raise_nothing_else_and_what_passes_is_safe(data: bytes, method: bytes) -> None:
    try:
        parsed = parse_response_head(data, method=method)
    except HTTPError as error:
        assert (error.status, error.reason) == (502, "bad_response")
        return
    if parsed is None:
        assert b"\r\n\r\n" not in data
        return
    assert check_fields(parsed.fields)
    assert 100 <= parsed.status <= 999
    if parsed.framing == Framing.UNTIL_CLOSE:
        assert not parsed.keep_alive
    if method == b"HEAD" or parsed.status in (204, 304) or parsed.status < 200:
        assert parsed.framing == Framing.NONE


@INTERPRETED
@given(data=usual | begun, method=methods)
@settings(max_examples=100)
def test_the_usual_shape_reads_as_the_general_way_does(data: bytes, method: bytes) -> None:
    fast = outcome(data, method)
    expression = response_module._USUAL
    try:
        response_module._USUAL = re.compile(rb"(?!)")  # type: ignore[misc]
        assert outcome(data, method) == fast
    finally:
        response_module._USUAL = expression  # type: ignore[misc]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b"A: b\r\n", b"a", b"\t", b"A" * 100 + b"\r\n", b": ", b"\r\n ", b"c"])
def test_no_expression_backtracks(unit: bytes) -> None:
    limits = HeadLimits(head=10**7, fields=10**7, field=10**7)
    for start in (OK + b"\r\nX: ", OK + b"\r\n", b"HTTP/1.1 200 "):
        for end in (b"\r\n\r\n", b"\0", b" x\r\n\r\n"):
            outcome(start + unit * (2**18 // len(unit)) + end, b"GET", limits=limits)
