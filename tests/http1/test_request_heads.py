"""Requests that pass: what comes out of them."""

import pytest

from culvert_http1 import Framing, HeadLimits, HTTPError, RequestHead, check_fields, parse_request_head


def head(data: bytes) -> RequestHead:
    parsed = parse_request_head(data)
    assert parsed is not None
    return parsed


def of(*lines: bytes, start: bytes = b"GET / HTTP/1.1") -> RequestHead:
    return head(b"\r\n".join((start, b"Host: a.example", *lines, b"", b"")))


def test_a_usual_head() -> None:
    data = b"GET /shop?id=4?2 HTTP/1.1\r\nHost: A.example:8443\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n"
    parsed = head(data + b"GET /next")
    assert parsed.method == b"GET"
    assert (parsed.target, parsed.path) == (b"/shop?id=4?2", b"/shop")
    assert (parsed.authority, parsed.host, parsed.port) == (b"A.example:8443", b"a.example", 8443)
    assert (parsed.minor, parsed.keep_alive, parsed.upgrade) == (1, True, b"")
    assert (parsed.framing, parsed.content_length, parsed.expect_continue) == (Framing.NONE, 0, False)
    assert parsed.fields == [(b"Accept", b"*/*")]
    assert parsed.forwarded == ()
    assert parsed.size == len(data)


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        (b"EXAMPLE.com:8443", b"example.com", 8443),
        (b"example.com.", b"example.com", None),
        (b"Example.COM.:443", b"example.com", 443),
        (b"xn--bcher-kva.example", b"xn--bcher-kva.example", None),
        (b"localhost", b"localhost", None),
        (b"a_b.example", b"a_b.example", None),
        (b"192.0.2.1:65535", b"192.0.2.1", 65535),
        (b"[2001:DB8:0::1]:8080", b"[2001:db8::1]", 8080),
        (b"[::1]", b"[::1]", None),
    ],
)
def test_b05_host_in_every_accepted_spelling(value: bytes, host: bytes, port: int | None) -> None:
    for line in (b"Host: %b", b"host:%b", b"HOST: \t%b \t"):
        parsed = head(b"GET / HTTP/1.1\r\n" + line % value + b"\r\n\r\n")
        assert (parsed.authority, parsed.host, parsed.port) == (value, host, port)
        assert parsed.fields == []


def test_http_1_0_may_leave_the_host_out() -> None:
    parsed = head(b"GET / HTTP/1.0\r\n\r\n")
    assert (parsed.authority, parsed.host, parsed.port, parsed.minor) == (b"", b"", None, 0)


@pytest.mark.parametrize(
    ("target", "reduced", "path"),
    [
        (b"http://a.example/x?y", b"/x?y", b"/x"),
        (b"HTTP://A.EXAMPLE:80/x", b"/x", b"/x"),
        (b"https://a.example.:80/x", None, None),
        (b"http://a.example", b"/", b"/"),
        (b"http://a.example?y=/z", b"/?y=/z", b"/"),
    ],
)
def test_b05_absolute_form_is_reduced_when_its_authority_is_the_host(
    target: bytes, reduced: bytes | None, path: bytes | None
) -> None:
    data = b"GET " + target + b" HTTP/1.1\r\nHost: a.example\r\n\r\n"
    if reduced is None:
        with pytest.raises(HTTPError, match="different hosts"):
            parse_request_head(data)
        return
    parsed = head(data)
    assert (parsed.target, parsed.path, parsed.authority) == (reduced, path, b"a.example")


def test_b05_absolute_form_names_the_host_of_http_1_0() -> None:
    parsed = head(b"GET http://A.example:81/ HTTP/1.0\r\n\r\n")
    assert (parsed.authority, parsed.host, parsed.port) == (b"A.example:81", b"a.example", 81)


def test_b06_options_of_the_server_itself_is_flagged() -> None:
    assert of(start=b"OPTIONS * HTTP/1.1").asterisk
    assert of(start=b"OPTIONS http://a.example HTTP/1.1").asterisk
    assert not of(start=b"OPTIONS http://a.example/ HTTP/1.1").asterisk
    assert not of(start=b"OPTIONS / HTTP/1.1").asterisk


@pytest.mark.parametrize(
    "method", [b"GET", b"get", b"PROPFIND", b"TRACED", b"CONNECTED", b"M-SEARCH", b"!#$%&'*+-.^_`|~", b"M" * 32]
)
def test_b06_unknown_methods_pass(method: bytes) -> None:
    assert of(start=method + b" /x HTTP/1.1").method == method


def test_target_bytes_pass_unchanged() -> None:
    target = b"/" + bytes(c for c in range(0x21, 0x7F) if c not in b"#?") + b"%2F%zz?" + b'?/[]{}|^"<>`\\'
    parsed = of(start=b"GET " + target + b" HTTP/1.1")
    assert parsed.target == target
    assert parsed.path == target[: target.index(b"?")]


def test_b06_a_target_of_8000_bytes_passes() -> None:
    target = b"/" + b"a" * 7_999
    assert of(start=b"GET " + target + b" HTTP/1.1").target == target


def test_b06_a_head_at_every_limit_passes() -> None:
    assert of(start=b"GET /" + b"a" * 8_191 + b" HTTP/1.1").size > 8_192
    assert len(of(*[b"A: b"] * 199).fields) == 199
    assert of(b"A:" + b"b" * 16_382).fields == [(b"A", b"b" * 16_382)]
    rest = 32 * 1024 - of(b"A: ", b"B: ", b"C: ").size
    exact = of(b"A: " + b"a" * 16_000, b"B: " + b"b" * 16_000, b"C: " + b"c" * (rest - 32_000))
    assert exact.size == 32 * 1024
    with pytest.raises(HTTPError) as caught:
        of(b"A: " + b"a" * 16_000, b"B: " + b"b" * 16_000, b"C: " + b"c" * (rest - 31_999))
    assert caught.value.status == 431


def test_limits_are_the_callers() -> None:
    data = b"GET /abcdefgh HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"
    for limits, status in (
        (HeadLimits(head=40), 431),
        (HeadLimits(fields=1), 431),
        (HeadLimits(field=10), 431),
        (HeadLimits(target=8), 414),
        (HeadLimits(method=2), 501),
    ):
        with pytest.raises(HTTPError) as caught:
            parse_request_head(data, limits=limits)
        assert caught.value.status == status


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"POST", b"HEAD", b"REPORT"])
def test_b08_bodies_of_all_methods_are_framed_alike(method: bytes) -> None:
    start = method + b" / HTTP/1.1"
    by_length = of(b"Content-Length: 12", start=start)
    assert (by_length.framing, by_length.content_length, by_length.fields) == (Framing.LENGTH, 12, [])
    chunked = of(b"transfer-encoding:CHUNKED ", start=start)
    assert (chunked.framing, chunked.content_length, chunked.fields) == (Framing.CHUNKED, 0, [])
    assert of(start=start).framing == Framing.NONE


@pytest.mark.parametrize(("digits", "value"), [(b"0", 0), (b"007", 7), (b"9223372036854775807", 2**63 - 1)])
def test_b01_lengths_up_to_the_largest(digits: bytes, value: int) -> None:
    parsed = of(b"Content-Length: " + digits)
    assert (parsed.framing, parsed.content_length) == (Framing.LENGTH, value)


def test_b03_a_post_with_upgrade_keeps_its_body() -> None:
    parsed = of(b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 5", start=b"POST / HTTP/1.1")
    assert (parsed.framing, parsed.content_length, parsed.upgrade) == (Framing.LENGTH, 5, b"")
    assert parsed.fields == []


@pytest.mark.parametrize(
    ("version", "connection", "persists"),
    [
        (b"1.1", None, True),
        (b"1.1", b"close", False),
        (b"1.1", b"CLOSE", False),
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"keep-alive, close", False),
        (b"1.1", b", ,x,,", True),
        (b"1.0", None, False),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"foo, KEEP-ALIVE", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_whether_the_connection_persists(version: bytes, connection: bytes | None, persists: bool) -> None:
    lines = () if connection is None else (b"Connection: " + connection,)
    assert of(*lines, start=b"GET / HTTP/" + version).keep_alive is persists


def test_close_in_a_second_connection_field_counts() -> None:
    assert not of(b"Connection: keep-alive", b"Connection: close").keep_alive
    assert not of(b"Accept: */*", b"Connection: keep-alive", b"A: b", b"Connection: close").keep_alive


def test_b09_fields_that_connection_lists_are_dropped() -> None:
    parsed = of(b"X-Private: 1", b"Connection: x-private, Cookie", b"Cookie: a", b"X-Other: 2", b"x-PRIVATE: 3")
    assert parsed.fields == [(b"X-Other", b"2")]


def test_b09_connection_cannot_drop_host_or_framing_or_forwarding_fields() -> None:
    parsed = of(
        b"Connection: host, content-length, transfer-encoding, x-forwarded-for, expect",
        b"Content-Length: 3",
        b"X-Forwarded-For: 192.0.2.1",
        b"Expect: 100-continue",
        start=b"POST / HTTP/1.1",
    )
    assert (parsed.host, parsed.content_length) == (b"a.example", 3)
    assert parsed.forwarded == ((b"x-forwarded-for", b"192.0.2.1"),)
    assert parsed.expect_continue
    assert of(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked").framing == Framing.CHUNKED


HOP_BY_HOP = [
    b"Connection: x", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Proxy-Authorization: Basic eA==",
    b"Proxy-Anything: 1", b"Proxy: http://192.0.2.1", b"TE: trailers", b"te: gzip", b"Trailer: X-Sum", b"Upgrade: h2c",
    b"Upgrade: websocket", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
]  # fmt: skip
CULVERTS_OWN = [b"Culvert-Error: relay; x", b"culvert-nonce: 1", b"CULVERT-: 1", b"Culvert-Session: 0.1"]
UNDERSCORED = [b"X_Forwarded_For: 192.0.2.1", b"Content_Length: 9", b"_: 1", b"a_: 1", b"_a: 1", b"Host_: b"]


@pytest.mark.parametrize("line", HOP_BY_HOP + CULVERTS_OWN + UNDERSCORED)
def test_b09_b10_fields_that_end_at_the_relay(line: bytes) -> None:
    for spelled in (line, line.upper(), line.lower(), line.replace(b": ", b":")):
        for lines in ((spelled,), (b"A: b", spelled), (spelled, b"A: b"), (spelled, spelled)):
            expected = [(b"A", b"b")] if b"A: b" in lines else []
            assert of(*lines).fields == expected
            assert of(*lines, b"Content-Length: 0").fields == expected


@pytest.mark.parametrize(
    "line",
    [
        b"Upgrade-Insecure-Requests: 1", b"Hosts: x", b"Connections: x", b"T: x", b"TEA: x", b"Proxies: x",
        b"X-Proxy: x",
        b"Culverted: x", b"X-Culvert: x", b"Forwarded-For: x", b"X-Forwarded: x", b"X-Real-IPs: x",
        b"Content-Length-: x",
        b"Transfer-Encodings: chunked", b"Keep-Alives: x", b"Trailers: x", b"Expects: x", b"Cookie: Host: b; a_b=c",
    ],
)  # fmt: skip
def test_fields_with_similar_names_pass(line: bytes) -> None:
    assert of(line, b"Content-Length: 0").block == line + b"\r\n"
    assert of(line).block == line + b"\r\n"


def test_b10_forwarding_fields_are_set_apart_in_order() -> None:
    parsed = of(
        b"X-Forwarded-For: 192.0.2.1",
        b"A: b",
        b"forwarded: for=192.0.2.2",
        b"X-Real-IP:192.0.2.3",
        b"x-forwarded-proto: https",
        b"X-Forwarded-Host: b.example",
        b"X-Forwarded-For: 192.0.2.4",
        b"X-Forwarded-Prefix: /x",
    )
    assert parsed.fields == [(b"A", b"b")]
    assert parsed.forwarded == (
        (b"x-forwarded-for", b"192.0.2.1"),
        (b"forwarded", b"for=192.0.2.2"),
        (b"x-real-ip", b"192.0.2.3"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"b.example"),
        (b"x-forwarded-for", b"192.0.2.4"),
        (b"x-forwarded-prefix", b"/x"),
    )


def test_b04_order_case_white_space_and_obs_text_are_kept() -> None:
    before = b"sEt: \xff\xfe\x80\r\nB:\r\n"
    after = b"A:  two  words \t\r\nB: \ttab\there\r\nb: 3\r\n"
    for special in (b"", b"Content-Length: 0\r\n", b"cOnnection: keep-alive\r\n", b"Connection: keep-alive\r\n"):
        parsed = head(b"GET / HTTP/1.1\r\nHost: a\r\n" + before + special + after + b"\r\n")
        assert parsed.block == before + after
        assert parsed.fields == [
            (b"sEt", b"\xff\xfe\x80"), (b"B", b""), (b"A", b"two  words"), (b"B", b"tab\there"), (b"b", b"3"),
        ]  # fmt: skip


def test_b07_expectation_waits_only_with_a_body_and_http_1_1() -> None:
    start = b"POST / HTTP/1.1"
    waiting = of(b"Expect: 100-Continue", b"Content-Length: 1", b"A: b", start=start)
    assert waiting.expect_continue
    assert waiting.fields == [(b"A", b"b"), (b"Expect", b"100-continue")]
    assert of(b"Expect: 100-continue", b"Transfer-Encoding: chunked", start=start).expect_continue
    for idle in (
        of(b"Expect: 100-continue", start=start),
        of(b"Expect: 100-continue", b"Content-Length: 0", start=start),
        of(b"Expect: 100-continue", b"Content-Length: 1", start=b"POST / HTTP/1.0"),
        of(b"Expect: anything", b"Content-Length: 1", start=b"POST / HTTP/1.0"),
    ):
        assert not idle.expect_continue
        assert idle.fields == []


KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (b"Connection: Upgrade", b"Upgrade: websocket", KEY, b"Sec-WebSocket-Version: 13")


@pytest.mark.parametrize(
    "lines",
    [
        HANDSHAKE,
        (b"Connection: keep-alive, upgrade", b"upgrade: WebSocket", *HANDSHAKE[2:]),
        (b"Connection: keep-alive", *HANDSHAKE),
        (*HANDSHAKE, b"Content-Length: 0"),
        (b"Upgrade: h2c", *HANDSHAKE),
        (b"Connection: Upgrade", b"Upgrade: h2c, websocket", *HANDSHAKE[2:]),
    ],
)
def test_c03_a_websocket_handshake(lines: tuple[bytes, ...]) -> None:
    parsed = of(*lines, b"Sec-WebSocket-Protocol: chat")
    assert (parsed.upgrade, parsed.framing, parsed.keep_alive) == (b"websocket", Framing.NONE, True)
    names = [name for name, _ in parsed.fields]
    assert names == [b"Sec-WebSocket-Key", b"Sec-WebSocket-Version", b"Sec-WebSocket-Protocol"]


def replaced(index: int, *lines: bytes) -> tuple[bytes, ...]:
    return (*HANDSHAKE[:index], *lines, *HANDSHAKE[index + 1 :])


@pytest.mark.parametrize(
    ("why", "lines", "start"),
    [
        ("POST", HANDSHAKE, b"POST / HTTP/1.1"),
        ("HTTP/1.0", HANDSHAKE, b"GET / HTTP/1.0"),
        ("no Connection", replaced(0), b"GET / HTTP/1.1"),
        ("Connection without upgrade", replaced(0, b"Connection: x"), b"GET / HTTP/1.1"),
        ("Connection: keep-alive", replaced(0, b"Connection: keep-alive"), b"GET / HTTP/1.1"),
        ("no Upgrade", replaced(1), b"GET / HTTP/1.1"),
        ("h2c", replaced(1, b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"), b"GET / HTTP/1.1"),
        ("another protocol", replaced(1, b"Upgrade: websocket/2"), b"GET / HTTP/1.1"),
        ("no key", replaced(2), b"GET / HTTP/1.1"),
        ("two keys", replaced(2, KEY, KEY), b"GET / HTTP/1.1"),
        ("key of 15 bytes", replaced(2, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), b"GET / HTTP/1.1"),
        ("key with loose bits", replaced(2, KEY.replace(b"ZQ==", b"ZR==")), b"GET / HTTP/1.1"),
        ("key listed in Connection", replaced(0, b"Connection: upgrade, sec-websocket-key"), b"GET / HTTP/1.1"),
        ("no version", replaced(3), b"GET / HTTP/1.1"),
        ("version 8", replaced(3, b"Sec-WebSocket-Version: 8"), b"GET / HTTP/1.1"),
        ("two versions", (*HANDSHAKE, b"Sec-WebSocket-Version: 13"), b"GET / HTTP/1.1"),
        ("a body by length", (*HANDSHAKE, b"Content-Length: 1"), b"GET / HTTP/1.1"),
        ("a chunked body", (*HANDSHAKE, b"Transfer-Encoding: chunked"), b"GET / HTTP/1.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_c03_what_is_not_quite_a_handshake_is_an_ordinary_request(
    why: str, lines: tuple[bytes, ...], start: bytes
) -> None:
    parsed = of(*lines, start=start)
    assert parsed.upgrade == b""
    assert not {name.lower() for name, _ in parsed.fields} & {b"upgrade", b"connection", b"http2-settings"}
    if b"Content-Length: 1" in lines:
        assert (parsed.framing, parsed.content_length) == (Framing.LENGTH, 1)
    if b"Transfer-Encoding: chunked" in lines:
        assert parsed.framing == Framing.CHUNKED


def test_one_empty_line_before_the_head_is_skipped() -> None:
    plain = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
    parsed = head(b"\r\n" + plain)
    assert (parsed.method, parsed.size) == (b"GET", len(plain) + 2)


def test_more_is_needed_until_the_last_byte() -> None:
    data = b"\r\nPOST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n"
    for end in range(len(data)):
        assert parse_request_head(data[:end]) is None
        assert parse_request_head(data[:end], scanned=max(end - 1, 0)) is None
    assert parse_request_head(data, scanned=len(data) - 1) is not None


def test_b07_pipelined_heads_are_taken_one_by_one() -> None:
    data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(5))
    targets = []
    while data:
        parsed = head(data)
        targets.append(parsed.target)
        data = data[parsed.size :]
    assert targets == [b"/0", b"/1", b"/2", b"/3", b"/4"]


def test_blocks_pass_the_check_of_the_next_hop() -> None:
    assert check_fields(of(*HOP_BY_HOP, *CULVERTS_OWN, *UNDERSCORED, b"A: b").block, request=True)
