"""Properties of request heads over generated and hostile bytes."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_http1 import DEFAULT_LIMITS, Framing, HeadLimits, HTTPError, RequestHead, check_fields, parse_request_head
from culvert_http1 import request as request_module
from culvert_http1.repeated import RequestHeads

INTERPRETED = pytest.mark.skipif(
    not str(request_module.__file__).endswith(".py"),
    reason="a compiled module keeps its expressions where no test can replace them",
)
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPECIAL = re.compile(
    rb"connection|content-length|culvert-.*|expect|forwarded|host|http2-settings|keep-alive|proxy|proxy-.*|te|trailer"
    rb"|transfer-encoding|upgrade|x-forwarded-.*|x-real-ip|.*_.*",
    re.IGNORECASE | re.DOTALL,
)
SMALL = HeadLimits(head=300, fields=6, field=60, target=40, method=10)

methods = st.sampled_from([b"GET", b"POST", b"OPTIONS", b"x-y"]) | st.text(TOKEN, min_size=1, max_size=20).map(
    str.encode
)
names = st.text(TOKEN, min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=30).map(
    lambda raw: bytes(c for c in raw if c == 9 or 32 <= c < 127 or c > 127).strip(b" \t")
)
targets = st.text([chr(c) for c in range(0x21, 0x7F) if chr(c) != "#"], max_size=40).map(
    lambda text: b"/" + text.encode()
)
hosts = st.from_regex(r"[A-Za-z0-9-]{1,10}(\.[A-Za-z0-9-]{1,10}){0,3}", fullmatch=True).map(str.encode)
blanks = st.sampled_from([b"", b" ", b"\t", b"  \t "])

# Pieces of which hostile heads are made: near misses are far likelier than among random bytes.
PIECES = [
    b"GET ", b"/ ", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\0", b"\x01",
    b"\x7f",
    b"Host: a.example\r\n", b"Host: a@b\r\n", b"host:b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: keep-alive\r\n",
    b"Connection: close, x\r\n", b"X: y\r\n", b"A_b: c\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n",
    b"Culvert-X: 1\r\n", b"X-Forwarded-For: 1\r\n", b"GET / HTTP/1.1\r\nHost: a.example\r\n", b"\r\n\r\n",
    b"POST http://a.example/x?y HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"\xff", b"chunked", b"a" * 50, b"#", b",",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=14).map(b"".join)
begun = hostile.map(lambda rest: b"GET / HTTP/1.1\r\nHost: a.example\r\n" + rest + b"\r\n")
usual = st.lists(st.sampled_from([piece for piece in PIECES if piece.endswith(b"\r\n")]), max_size=6).map(
    lambda lines: b"GET /x HTTP/1.1\r\nHost: a.example\r\n" + b"".join(lines) + b"\r\n"
)


def outcome(data: bytes | bytearray, *, limits: HeadLimits = DEFAULT_LIMITS, scanned: int = 0) -> object:
    """Everything that can be told of a parse, comparable."""
    try:
        parsed = parse_request_head(data, limits=limits, scanned=scanned)
    except HTTPError as error:
        return error.status, error.reason, error.sentence
    return parsed and values_of(parsed)


def values_of(parsed: RequestHead) -> dict[str, object]:
    # Compiled classes (hack/native) name their attributes otherwise. `usual` tells which expression matched.
    names = getattr(RequestHead, "__mypyc_attrs__", None) or RequestHead.__slots__
    return {name: getattr(parsed, name) for name in names if name != "usual"}


def in_pieces(data: bytes, cuts: list[int], limits: HeadLimits) -> object:
    scanned = 0
    for end in [*sorted({min(cut, len(data)) for cut in cuts}), len(data)]:
        result = outcome(bytearray(data[:end]), limits=limits, scanned=scanned)
        if result is not None:
            return result
        scanned = end
    return None


@given(
    method=methods, target=targets, host=hosts, minor=st.sampled_from([0, 1]), port=st.none() | st.integers(1, 65535),
    fields=st.lists(st.tuples(names, blanks, values, blanks), max_size=12),
    body=st.none() | st.integers(0, 2**63 - 1) | st.just("chunked"), at=st.integers(0, 12), rest=st.binary(max_size=20),
)  # fmt: skip
def test_a_generated_head_parses_to_what_generated_it(
    method: bytes, target: bytes, host: bytes, minor: int, port: int | None,
    fields: list[tuple[bytes, bytes, bytes, bytes]], body: int | str | None, at: int, rest: bytes,
) -> None:  # fmt: skip
    if method in (b"CONNECT", b"TRACE") or (minor == 0 and body == "chunked"):
        return
    kept = [field for field in fields if not SPECIAL.fullmatch(field[0])]
    lines = [name + b":" + before + value + after for name, before, value, after in kept]
    block = b"".join(line + b"\r\n" for line in lines)
    authority = host if port is None else host + b":%d" % port
    extra = [b"Host: " + authority]
    if body == "chunked":
        extra.append(b"Transfer-Encoding: chunked")
    elif body is not None:
        extra.append(b"Content-Length: %s" % str(body).encode())
    lines[at:at] = extra
    data = b"%b %b HTTP/1.%d\r\n" % (method, target, minor) + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    parsed = parse_request_head(data + rest)
    assert parsed is not None
    assert (parsed.method, parsed.target, parsed.minor) == (method, target, minor)
    assert parsed.path == target.split(b"?")[0]
    assert (parsed.authority, parsed.host, parsed.port) == (authority, host.lower(), port)
    assert parsed.framing == (
        Framing.NONE if body is None else Framing.CHUNKED if body == "chunked" else Framing.LENGTH
    )
    assert parsed.content_length == (body if isinstance(body, int) else 0)
    assert parsed.block == block
    assert parsed.fields == [(name, value) for name, _, value, _ in kept]
    assert parsed.size == len(data)


@given(data=hostile | begun | usual, cuts=st.lists(st.integers(0, 300), max_size=8), small=st.booleans())
@settings(max_examples=150)
def test_any_split_gives_the_same(data: bytes, cuts: list[int], small: bool) -> None:
    limits = SMALL if small else DEFAULT_LIMITS
    whole = outcome(data, limits=limits)
    assert in_pieces(data, cuts, limits) == whole
    assert in_pieces(data, list(range(len(data))), limits) == whole


@given(data=st.binary(max_size=200) | hostile | begun | usual)
@settings(max_examples=150)
def test_arbitrary_bytes_raise_nothing_else_and_what_passes_is_safe(data: bytes) -> None:
    try:
        parsed = parse_request_head(data)
    except HTTPError as error:
        assert 400 <= error.status <= 505
        assert re.fullmatch(r"[a-z0-9_]{1,64}", error.reason)
        return
    if parsed is None:
        assert b"\r\n\r\n" not in data.removeprefix(b"\r\n")
        return
    assert check_fields(parsed.block, request=True)
    assert not re.search(rb"[\x00-\x20\x7f-\xff]", parsed.target + parsed.authority + parsed.method)
    assert parsed.target == b"*" or parsed.target.startswith(b"/")
    assert parsed.host or not parsed.minor
    assert not (parsed.framing != Framing.LENGTH and parsed.content_length)
    for name, _ in parsed.fields:
        assert name.lower() == b"expect" or not SPECIAL.fullmatch(name)


@INTERPRETED
@given(data=usual | begun)
@settings(max_examples=150)
def test_the_usual_shape_reads_as_the_general_way_does(data: bytes) -> None:
    fast = outcome(data)
    general = request_module._USUAL
    try:
        request_module._USUAL = re.compile(rb"(?!)")  # type: ignore[misc]
        assert outcome(data) == fast
    finally:
        request_module._USUAL = general  # type: ignore[misc]


LINES = (
    b"GET / HTTP/1.1\r\nX: HTTP/1.1\r\n", b"GET / \r\n",    b"GET / HTTP/1.1\r\n",
    b"GET /x?y HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"HEAD /x HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n", b"GET  / HTTP/1.1\r\n", b"GET /\x01 HTTP/1.1\r\n", b"CONNECT / HTTP/1.1\r\n",
    b"TRACE / HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n", b"GET http://a.example/ HTTP/1.1\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"get / HTTP/1.1\r\n", b"GET /#x HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nX: y\r\n", b"GET / HTTP/1.1\r\nX: y\r\n\r\n",
    b"GET /" + b"a" * 40 + b" HTTP/1.1\r\n", b"",
)  # fmt: skip
RESTS = (
    b"Host: a.example\r\n\r\n", b"host: b.example:81\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
    b"Host: a.example\r\nConnection: close\r\n\r\n", b"Host: a.example\r\nContent-Length: 3\r\n\r\n",
    b"Host: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    b"Host: a.example\r\nX-Forwarded-For: 1\r\n\r\n", b"Host: a.example\r\nA_b: c\r\n\r\n",
    b"Host: a.example\r\n\r\n\r\n",
    b"\r\n", b"Host: a.example\r\n", b"Host: a.example\r\nCookie: " + b"c" * 3000 + b"\r\n\r\n",
)  # fmt: skip


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, SMALL], ids=["default", "small"])
@pytest.mark.parametrize("rest", RESTS)
def test_what_is_remembered_of_a_connection_changes_no_head(rest: bytes, limits: HeadLimits) -> None:
    for first, second, other in itertools.product(LINES, LINES, (rest, RESTS[0])):
        connection = RequestHeads(limits)
        for data in (first + rest, second + other, first + rest):
            try:
                parsed = connection.read(data)
            except HTTPError as error:
                assert outcome(data, limits=limits) == (error.status, error.reason, error.sentence)
            else:
                assert outcome(data, limits=limits) == (parsed and values_of(parsed))


def test_a_head_that_is_the_same_or_differs_in_its_first_line_only_is_not_read_again() -> None:
    connection = RequestHeads(DEFAULT_LIMITS)
    rest = b" HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n"
    first = connection.read(b"GET /a" + rest)
    assert first is not None
    assert connection.read(b"GET /a" + rest) is first
    second = connection.read(b"GET /b" + rest)
    assert second is not None
    assert (second.target, second.path) == (b"/b", b"/b")
    assert second.block is first.block
    assert first.marked(b"X: y\r\n").block == b"X: y\r\n"
    assert first.block == b"Accept: */*\r\n"


def test_a_head_of_any_shape_is_not_read_again_when_it_is_the_same() -> None:
    connection = RequestHeads(DEFAULT_LIMITS)
    rest = b" HTTP/1.1\r\nAccept: */*\r\nConnection: close\r\nHost: a.example\r\n\r\n"
    first = connection.read(b"GET /a" + rest)
    assert first is not None
    assert not first.usual
    assert connection.read(b"GET /a" + rest) is first
    other = connection.read(b"PUT /a" + rest)
    assert other is not None
    assert other.method == b"PUT"


def test_the_usual_shape_is_met_by_browsers_and_tools() -> None:
    for lines in (
        b"Host: a.example\r\nUser-Agent: curl/8\r\nAccept: */*\r\n",
        b"Host: a.example\r\nConnection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nCookie: a_b=c\r\n",
        b"Host: a.example\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\nPriority: u=0\r\n",
        b"host: a.example\r\nuser-agent: x\r\n",
    ):
        assert request_module._USUAL.match(b"GET /x?y HTTP/1.1\r\n" + lines + b"\r\n")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "unit",
    [b"A: b\r\n", b"a", b"\t", b"A" * 100 + b"\r\n", b": ", b"\r\n ", b"_", b"c", b"a.", b"Connection"],
)
def test_no_expression_backtracks(unit: bytes) -> None:
    # Linear, this takes milliseconds; quadratic, over an hour: the timeout needs no clock to tell them apart.
    limits = HeadLimits(head=10**7, fields=10**7, field=10**7, target=10**7)
    for start in (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: ",
    ):
        for end in (b"\r\n\r\n", b"\0", b" x\r\n\r\n"):
            outcome(start + unit * (2**18 // len(unit)) + end, limits=limits)


class Counting:
    """An expression that counts its uses."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self.pattern = pattern
        self.uses = 0

    def match(self, data: bytes | bytearray) -> re.Match[bytes] | None:
        self.uses += 1
        return self.pattern.match(data)


@INTERPRETED
def test_a_head_that_arrives_byte_by_byte_is_not_read_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, general = Counting(request_module._USUAL), Counting(request_module._HEAD)
    monkeypatch.setattr(request_module, "_USUAL", usual)
    monkeypatch.setattr(request_module, "_HEAD", general)
    data = b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n" + b"A: b\r\n" * 150 + b"\r\n"
    buffer = bytearray()
    for byte in data[:-1]:
        buffer.append(byte)
        assert parse_request_head(buffer, scanned=len(buffer) - 1) is None
    assert parse_request_head(data, scanned=len(data) - 1) is not None
    assert (usual.uses, general.uses) == (2, 2)
