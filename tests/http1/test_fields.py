"""Field blocks from the other side of a session: what a hostile one may not do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_http1 import HeadLimits, check_fields, parse_request_head

REFUSED = [
    ("second response in a value", b"A: b\r\n\r\nHTTP/1.1 200 OK\r\nB: c\r\n"),
    ("empty line at the end", b"A: b\r\n\r\n"),
    ("empty line alone", b"\r\n"),
    ("no line end", b"A: b"),
    ("half a line end", b"A: b\r"),
    ("bare LF", b"A: b\nC: d\r\n"),
    ("lines end with LF", b"A: b\n"),
    ("bare CR", b"A: b\rC: d\r\n"),
    ("NUL", b"A: b\0\r\n"),
    ("control byte", b"A: b\x1b\r\n"),
    ("DEL", b"A: b\x7f\r\n"),
    ("fold", b"A: b\r\n c\r\n"),
    ("fold first", b" A: b\r\n"),
    ("space before the colon", b"A : b\r\n"),
    ("empty name", b": b\r\n"),
    ("no colon", b"Ab\r\n"),
    ("obs-text in a name", b"A\xe9: b\r\n"),
    ("Content-Length", b"A: b\r\nContent-Length: 5\r\n"),
    ("content-length, other case", b"cONTENT-lENGTH:5\r\n"),
    ("Transfer-Encoding", b"transfer-encoding: chunked\r\nA: b\r\n"),
    ("Connection", b"Connection: close\r\n"),
    ("Keep-Alive", b"Keep-Alive: timeout=5\r\n"),
    ("Proxy-Authenticate", b"Proxy-Authenticate: Basic\r\n"),
    ("Proxy", b"Proxy: x\r\n"),
    ("TE", b"TE: trailers\r\n"),
    ("Trailer", b"Trailer: A\r\n"),
    ("Upgrade", b"Upgrade: websocket\r\n"),
    ("Culvert-Error", b"Culvert-Error: relay; x\r\n"),
    ("209 fields", b"A: b\r\n" * 209),
    ("a field over 17 KiB", b"A: " + b"b" * 17_500 + b"\r\n"),
    ("over 32 KiB", (b"A: " + b"b" * 9_000 + b"\r\n") * 4),
]


@pytest.mark.parametrize("block", [block for _, block in REFUSED], ids=[why for why, _ in REFUSED])
def test_refused(block: bytes) -> None:
    assert not check_fields(block)
    assert not check_fields(block, request=True)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"A: b\r\n",
        b"Set-Cookie: a\r\nset-cookie: b\r\n",
        b"A:\r\nB: \r\nC:\t\xff\xe9 x\t\r\n",
        b"Content-Lengths: 5\r\nConnections: x\r\nT: x\r\nTea: x\r\nUpgrades: x\r\nProxies: x\r\n"
        b"X-Culvert-A: b\r\nCulvert: a\r\n",
        b"A: Content-Length: 5\r\nB: x Connection: close\r\n",
        b"A_b: c\r\n",
        b"A: b\r\n" * 200,
        (b"A:" + b"b" * 16_382 + b"\r\n"),
    ],
)
def test_accepted(block: bytes) -> None:
    for request in (False, True):
        assert check_fields(block, request=request)


@pytest.mark.parametrize("block", [b"Host: a\r\n", b"hOST:a\r\n", b"HTTP2-Settings: x\r\n"])
def test_only_requests_may_not_carry(block: bytes) -> None:
    assert check_fields(block)
    assert not check_fields(block, request=True)


def test_a_relay_may_add_its_fields_to_a_request_at_the_limits() -> None:
    head = parse_request_head(
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 197 + (b"B: " + b"c" * 15_000 + b"\r\n") * 2 + b"\r\n"
    )
    assert head is not None
    block = head.block + b"".join(b"X-Forwarded-%d: %b\r\n" % (number, b"d" * 100) for number in range(8))
    assert check_fields(block, request=True)
    assert not check_fields(block)
    assert not check_fields(block + b"X: y\r\n" * 2, request=True)
    assert not check_fields(head.block + b"X: " + b"d" * 3_000 + b"\r\n", request=True)


def test_sizes_of_a_response() -> None:
    assert check_fields(b"A: b\r\n" * 200)
    assert not check_fields(b"A: b\r\n" * 201)
    assert check_fields(b"A:" + b"b" * 16_382 + b"\r\n")
    assert not check_fields(b"A:" + b"b" * 16_383 + b"\r\n" + b"C: d\r\n")
    assert check_fields((b"A: " + b"b" * 16_379 + b"\r\n") * 2)
    assert not check_fields((b"A: " + b"b" * 16_379 + b"\r\n") * 2 + b"A:\r\n")


def test_limits_are_the_callers() -> None:
    block = b"Abc: d\r\n" * 3
    assert check_fields(block, limits=HeadLimits(fields=3, field=6, head=24))
    assert not check_fields(block, limits=HeadLimits(fields=2))
    assert not check_fields(block, limits=HeadLimits(field=5))
    assert not check_fields(block, limits=HeadLimits(field=6, head=23))


lines = st.sampled_from(
    [
        b"A: b\r\n",
        b"Content-Length: 5\r\n",
        b"te:\r\n",
        b"\r\n",
        b"\r",
        b"\n",
        b":",
        b"Host: x\r\n",
        b"x",
        b"\0",
        b" ",
        b"\xff",
    ]
)


@given(block=st.lists(lines | st.binary(max_size=3), max_size=8).map(b"".join), request=st.booleans())
@settings(max_examples=150)
def test_what_passes_is_lines_with_allowed_names(block: bytes, request: bool) -> None:
    passes = check_fields(block, request=request)
    # The same, said slowly.
    forbidden = {b"content-length", b"te"} | ({b"host"} if request else set())
    rest, slow = block, True
    while rest and slow:
        line, end, rest = rest.partition(b"\r\n")
        name, colon, value = line.partition(b":")
        slow = bool(
            end and colon and name
            and all(c in b"!#$%&'*+-.^_`|~" or 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122 for c in name)
            and all(c == 9 or 32 <= c != 127 for c in value)
            and name.lower() not in forbidden
        )  # fmt: skip
    assert passes is slow


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unit", [b"A: b\r\n", b"a", b"\t", b"c", b": ", b"proxy-", b"\r\n"])
def test_no_expression_backtracks(unit: bytes) -> None:
    for end in (b"", b"\r\n", b"\0"):
        check_fields(b"A: " + unit * (2**18 // len(unit)) + end)
        check_fields(unit * (2**18 // len(unit)) + end)
