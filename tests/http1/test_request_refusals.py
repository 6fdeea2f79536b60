"""Requests that are refused: bytes, status, and the rule they break. Nothing of such a request may reach an origin."""

from typing import NamedTuple

import pytest

from culvert_http1 import HTTPError, parse_request_head


class Refusal(NamedTuple):
    """One refused head."""

    rule: str  # what the head breaks, and where that is written
    data: bytes
    status: int
    reason: str


def post(*lines: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join((b"POST /x HTTP/" + version, b"Host: a.example", *lines, b"", b""))


def get(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET / HTTP/1.1", b"Host: a.example", *lines, b"", b""))


def host(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


def first(line: bytes) -> bytes:
    return line + b"\r\nHost: a.example\r\n\r\n"


LENGTH = "Content-Length, RFC 9112 6.3"
CODING = "Transfer-Encoding, RFC 9112 6.1"
SYNTAX = "field syntax, RFC 9112 5"
BYTES = "bytes of a head, RFC 9112 2.2"
HOST = "Host, RFC 9112 3.2"
TARGET = "target, RFC 9112 3.2"
LINE = "request line, RFC 9112 3"
VERSION = "version, RFC 9110 2.5"
METHOD = "method, RFC 9110 9.3"
SIZE = "size, RFC 6585 5"

REFUSALS = [
    Refusal(f"{LENGTH}: differing duplicates", post(b"Content-Length: 5", b"Content-Length: 6"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: equal duplicates", post(b"Content-Length: 5", b"content-length: 5"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: list", post(b"Content-Length: 5, 6"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: equal list", post(b"Content-Length: 5,5"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: plus sign", post(b"Content-Length: +5"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: hexadecimal", post(b"Content-Length: 0x5"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: underscore between digits", post(b"Content-Length: 5_0"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: empty", post(b"Content-Length:"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: blank", post(b"Content-Length:  \t"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: negative", post(b"Content-Length: -1"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: fraction", post(b"Content-Length: 5.0"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: space between digits", post(b"Content-Length: 5 0"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: 2^63", post(b"Content-Length: 9223372036854775808"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: over 2^64", post(b"Content-Length: 18446744073709551617"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: 400 digits", post(b"Content-Length: " + b"0" * 399 + b"5"), 400, "bad_framing"),
    Refusal(f"{LENGTH}: digits of another script", post("Content-Length: ٥".encode()), 400, "bad_framing"),
    Refusal(f"{LENGTH}: superscript in Latin-1", post(b"Content-Length: \xb2"), 400, "bad_framing"),
    Refusal(
        f"{LENGTH}: with Transfer-Encoding",
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        400,
        "bad_framing",
    ),
    Refusal(
        f"{CODING}: with Content-Length after it",
        post(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        400,
        "bad_framing",
    ),
    Refusal(f"{CODING}: twice", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "bad_framing"),
    Refusal(f"{CODING}: chunked listed twice", post(b"Transfer-Encoding: chunked, chunked"), 501, "unknown_coding"),
    Refusal(f"{CODING}: gzip before chunked", post(b"Transfer-Encoding: gzip, chunked"), 501, "unknown_coding"),
    Refusal(f"{CODING}: chunked before gzip", post(b"Transfer-Encoding: chunked, gzip"), 501, "unknown_coding"),
    Refusal(f"{CODING}: identity", post(b"Transfer-Encoding: identity"), 501, "unknown_coding"),
    Refusal(f"{CODING}: unknown", post(b"Transfer-Encoding: xchunked"), 400, "bad_framing"),
    Refusal(f"{CODING}: quoted", post(b'Transfer-Encoding: "chunked"'), 400, "bad_framing"),
    Refusal(f"{CODING}: with a parameter", post(b"Transfer-Encoding: chunked;q=1"), 400, "bad_framing"),
    Refusal(f"{CODING}: empty", post(b"Transfer-Encoding:"), 400, "bad_framing"),
    Refusal(f"{CODING}: vertical tab before it", post(b"Transfer-Encoding: \x0bchunked"), 400, "bad_request"),
    Refusal(f"{CODING}: no-break space after it", post(b"Transfer-Encoding: chunked\xa0"), 400, "bad_framing"),
    Refusal(f"{CODING}: space before the colon", post(b"Transfer-Encoding : chunked"), 400, "bad_field"),
    Refusal(f"{CODING}: continued on the next line", post(b"Transfer-Encoding:", b" chunked"), 400, "bad_field"),
    Refusal(f"{CODING}: in HTTP/1.0", post(b"Transfer-Encoding: chunked", version=b"1.0"), 400, "bad_framing"),
    Refusal(f"{SYNTAX}: obs-fold by space", get(b"A: b", b" c"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: obs-fold by tab", get(b"A: b", b"\tc"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: fold before the first field", b"GET / HTTP/1.1\r\n Host: a.example\r\n\r\n", 400, "bad_field"),
    Refusal(f"{SYNTAX}: space before the colon", get(b"A : b"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: tab before the colon", get(b"A\t: b"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: empty name", get(b": b"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: space within a name", get(b"A B: c"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: delimiter in a name", get(b"A(b): c"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: obs-text in a name", get(b"A\xe9: c"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: no colon", get(b"Abc"), 400, "bad_field"),
    Refusal(f"{SYNTAX}: Connection that is no list of names", get(b'Connection: close, "x"'), 400, "bad_field"),
    Refusal(f"{BYTES}: CR in a value", get(b"A: b\rc"), 400, "bad_request"),
    Refusal(f"{BYTES}: CR at the end of a value", get(b"A: b\r"), 400, "bad_request"),
    Refusal(f"{BYTES}: LF in a value", get(b"A: b\nC: d"), 400, "bad_request"),
    Refusal(f"{BYTES}: lines end with LF", b"GET / HTTP/1.1\nHost: a.example\n\n", 400, "bad_request"),
    Refusal(f"{BYTES}: LF for the empty line", b"GET / HTTP/1.1\r\nHost: a.example\r\n\n", 400, "bad_request"),
    Refusal(f"{BYTES}: CR for a line end", b"GET / HTTP/1.1\rHost: a.example\r\r", 400, "bad_request"),
    Refusal(f"{BYTES}: NUL in a value", get(b"A: b\0c"), 400, "bad_request"),
    Refusal(f"{BYTES}: NUL in a name", get(b"A\0: b"), 400, "bad_request"),
    Refusal(f"{BYTES}: control byte in a value", get(b"A: b\x01c"), 400, "bad_request"),
    Refusal(f"{BYTES}: DEL in a value", get(b"A: b\x7f"), 400, "bad_request"),
    Refusal(f"{BYTES}: escape in the target", first(b"GET /\x1b HTTP/1.1"), 400, "bad_request"),
    Refusal(f"{BYTES}: a TLS ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request"),
    Refusal(f"{BYTES}: two empty lines first", b"\r\n\r\n" + get(), 400, "bad_request_line"),
    Refusal(f"{BYTES}: LF for the empty line first", b"\n" + get(), 400, "bad_request"),
    Refusal(f"{HOST}: missing", b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", 400, "bad_host"),
    Refusal(f"{HOST}: no fields at all", b"GET / HTTP/1.1\r\n\r\n", 400, "bad_host"),
    Refusal(f"{HOST}: missing with an absolute target", b"GET http://a.example/ HTTP/1.1\r\n\r\n", 400, "bad_host"),
    Refusal(f"{HOST}: twice", get(b"Host: b.example"), 400, "bad_host"),
    Refusal(f"{HOST}: twice the same", get(b"host: a.example"), 400, "bad_host"),
    Refusal(f"{HOST}: twice in HTTP/1.0", post(b"Host: b.example", version=b"1.0"), 400, "bad_host"),
    Refusal(f"{HOST}: empty", host(b""), 400, "bad_host"),
    Refusal(f"{HOST}: list", host(b"a.example, b.example"), 400, "bad_host"),
    Refusal(f"{HOST}: list without spaces", host(b"a.example,b.example"), 400, "bad_host"),
    Refusal(f"{HOST}: two words", host(b"a.example b.example"), 400, "bad_host"),
    Refusal(f"{HOST}: userinfo", host(b"user@a.example"), 400, "bad_host"),
    Refusal(f"{HOST}: userinfo with password", host(b"u:p@a.example"), 400, "bad_host"),
    Refusal(f"{HOST}: path", host(b"a.example/x"), 400, "bad_host"),
    Refusal(f"{HOST}: scheme", host(b"http://a.example"), 400, "bad_host"),
    Refusal(f"{HOST}: query", host(b"a.example?x"), 400, "bad_host"),
    Refusal(f"{HOST}: fragment", host(b"a.example#x"), 400, "bad_host"),
    Refusal(f"{HOST}: backslash", host(b"a.example\\x"), 400, "bad_host"),
    Refusal(f"{HOST}: wildcard", host(b"*.example"), 400, "bad_host"),
    Refusal(f"{HOST}: percent-encoding", host(b"a%2eexample"), 400, "bad_host"),
    Refusal(f"{HOST}: empty port", host(b"a.example:"), 400, "bad_host"),
    Refusal(f"{HOST}: port zero", host(b"a.example:0"), 400, "bad_host"),
    Refusal(f"{HOST}: port with leading zero", host(b"a.example:080"), 400, "bad_host"),
    Refusal(f"{HOST}: port of letters", host(b"a.example:http"), 400, "bad_host"),
    Refusal(f"{HOST}: negative port", host(b"a.example:-1"), 400, "bad_host"),
    Refusal(f"{HOST}: port 65536", host(b"a.example:65536"), 400, "bad_host"),
    Refusal(f"{HOST}: two ports", host(b"a.example:80:80"), 400, "bad_host"),
    Refusal(f"{HOST}: control byte", host(b"a\x01.example"), 400, "bad_request"),
    Refusal(f"{HOST}: raw UTF-8", host("bücher.example".encode()), 400, "bad_host"),
    Refusal(f"{HOST}: empty label", host(b"a..example"), 400, "bad_host"),
    Refusal(f"{HOST}: two trailing dots", host(b"a.example.."), 400, "bad_host"),
    Refusal(f"{HOST}: leading dot", host(b".example"), 400, "bad_host"),
    Refusal(f"{HOST}: bare IPv6 address", host(b"::1"), 400, "bad_host"),
    Refusal(f"{HOST}: not an IPv6 address", host(b"[:::1]"), 400, "bad_host"),
    Refusal(f"{HOST}: IPv6 zone", host(b"[fe80::1%25eth0]"), 400, "bad_host"),
    Refusal(f"{HOST}: over 262 bytes", host(b"a" * 263), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute of another host", first(b"GET http://b.example/ HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute of another port", first(b"GET http://a.example:81/ HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute https of port 80", first(b"GET https://a.example:80/ HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute with userinfo", first(b"GET http://u@a.example/ HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute without a host", first(b"GET http:///x HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: absolute with backslash", first(b"GET http://a.example\\x/ HTTP/1.1"), 400, "bad_host"),
    Refusal(f"{TARGET}: another scheme", first(b"GET ftp://a.example/ HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: a word", first(b"GET x HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: a query alone", first(b"GET ?x HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: authority form", first(b"GET a.example:80 HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: '*' for GET", first(b"GET * HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: fragment", first(b"GET /a#b HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: fragment in a query", first(b"GET /a?b#c HTTP/1.1"), 400, "bad_target"),
    Refusal(f"{TARGET}: raw UTF-8", first("GET /ü HTTP/1.1".encode()), 400, "bad_target"),
    Refusal(f"{TARGET}: space within", first(b"GET /a b HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: two spaces", first(b"GET  / HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: tab", first(b"GET\t/\tHTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: space first", first(b" GET / HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: space last", first(b"GET / HTTP/1.1 "), 400, "bad_request_line"),
    Refusal(f"{LINE}: no method", first(b"/ HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: delimiter in the method", first(b"G(T / HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: obs-text in the method", first(b"G\xe9T / HTTP/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: lower-case version", first(b"GET / http/1.1"), 400, "bad_request_line"),
    Refusal(f"{LINE}: two digits in the version", first(b"GET / HTTP/1.10"), 400, "bad_request_line"),
    Refusal(f"{LINE}: no minor version", first(b"GET / HTTP/1"), 400, "bad_request_line"),
    Refusal(f"{VERSION}: 0.9 without a version", b"GET /\r\n", 400, "bad_request_line"),
    Refusal(f"{VERSION}: 0.9", first(b"GET / HTTP/0.9"), 505, "unknown_version"),
    Refusal(f"{VERSION}: 1.2", first(b"GET / HTTP/1.2"), 505, "unknown_version"),
    Refusal(f"{VERSION}: 2.0", first(b"GET / HTTP/2.0"), 505, "unknown_version"),
    Refusal(f"{VERSION}: the HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unknown_version"),
    Refusal(f"{METHOD}: CONNECT", first(b"CONNECT a.example:443 HTTP/1.1"), 405, "method_not_allowed"),
    Refusal(f"{METHOD}: CONNECT with a path", first(b"CONNECT / HTTP/1.1"), 405, "method_not_allowed"),
    Refusal(f"{METHOD}: TRACE", first(b"TRACE / HTTP/1.1"), 405, "method_not_allowed"),
    Refusal(f"{METHOD}: TRACE of an URL", first(b"TRACE http://a.example/ HTTP/1.1"), 405, "method_not_allowed"),
    Refusal(f"{METHOD}: 33 bytes", first(b"M" * 33 + b" / HTTP/1.1"), 501, "unknown_method"),
    Refusal("expectation, RFC 9110 10.1.1: unknown", post(b"Expect: 200-ok"), 417, "unknown_expectation"),
    Refusal(
        "expectation, RFC 9110 10.1.1: another one beside it",
        post(b"Expect: 100-continue", b"Expect: x"),
        417,
        "unknown_expectation",
    ),
    Refusal(f"{SIZE}: 10 KiB target", first(b"GET /" + b"a" * 10_239 + b" HTTP/1.1"), 414, "target_too_long"),
    Refusal(f"{SIZE}: 8,193 bytes of target", first(b"GET /" + b"a" * 8_192 + b" HTTP/1.1"), 414, "target_too_long"),
    Refusal(f"{SIZE}: target without an end", b"GET /" + b"a" * 10_000, 414, "target_too_long"),
    Refusal(f"{SIZE}: one 20 KiB field", get(b"A: " + b"b" * 20_480), 431, "head_too_large"),
    Refusal(f"{SIZE}: one field of 16 KiB and a byte", get(b"A:" + b"b" * 16_383), 431, "head_too_large"),
    Refusal(
        f"{SIZE}: one long first field", b"GET / HTTP/1.1\r\nA:" + b"b" * 16_383 + b"\r\n\r\n", 431, "head_too_large"
    ),
    Refusal(f"{SIZE}: 201 fields", get(*[b"A: b"] * 200), 431, "head_too_large"),
    Refusal(f"{SIZE}: 201 fields after an empty line", b"\r\n" + get(*[b"A: b"] * 200), 431, "head_too_large"),
    Refusal(f"{SIZE}: 201 fields, usual shape", get(*[b"A:"] * 200), 431, "head_too_large"),
    Refusal(f"{SIZE}: over 32 KiB", get(*[b"A: " + b"b" * 10_000] * 4), 431, "head_too_large"),
    Refusal(f"{SIZE}: a control byte, then too long a target", b"GET /\x01" + b"a" * 10_000, 400, "bad_request"),
    Refusal(
        f"{SIZE}: too long a target, then a control byte", b"GET /" + b"a" * 10_000 + b"\1", 414, "target_too_long"
    ),
    Refusal(f"{SIZE}: a control byte, then over 32 KiB", get(b"A: \x01", *[b"A: b"] * 7_000), 400, "bad_request"),
    Refusal(f"{SIZE}: over 32 KiB, then a control byte", get(*[b"A: b"] * 7_000, b"A: \x01"), 431, "head_too_large"),
    Refusal(f"{SIZE}: over 32 KiB without an end", get(*[b"A: " + b"b" * 1_000] * 40)[:-4], 431, "head_too_large"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.rule)
def test_b01_b04_b05_b06_refused_whole(refusal: Refusal) -> None:
    with pytest.raises(HTTPError) as caught:
        parse_request_head(refusal.data)
    assert (caught.value.status, caught.value.reason) == (refusal.status, refusal.reason)
    assert caught.value.close
    assert str(caught.value) == caught.value.sentence
    assert caught.value.sentence.endswith(".")


def feed(data: bytes, step: int) -> None:
    for end in range(step, len(data) + step, step):
        assert parse_request_head(bytearray(data[:end]), scanned=min(end, len(data)) - step) is None


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.rule)
def test_refused_alike_when_it_arrives_in_pieces(refusal: Refusal) -> None:
    with pytest.raises(HTTPError) as caught:
        feed(refusal.data, 1 if len(refusal.data) < 2_000 else 997)
    assert (caught.value.status, caught.value.reason) == (refusal.status, refusal.reason)


def test_a_refusal_never_repeats_what_was_sent() -> None:
    for refusal in REFUSALS:
        with pytest.raises(HTTPError) as caught:
            parse_request_head(refusal.data.replace(b"a.example", b"secret-name.example"))
        assert "secret-name" not in caught.value.sentence


def test_refused_as_soon_as_it_shows() -> None:
    for early in (b"GET / HTTP/1.1\r\nHost: a\n", b"GET /\0", b"GET / HTTP/3.0\r\n", b"GET / HTTP/1.1\r\nA: b\rc"):
        assert parse_request_head(early[:-1]) is None
        with pytest.raises(HTTPError):
            parse_request_head(early)
