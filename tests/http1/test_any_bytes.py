"""Bytes at random against the codecs: no exception but theirs, no reading that depends on how the bytes are cut."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_http1.chunked import ChunkedDecoder
from culvert_http1.errors import HTTPError
from culvert_http1.fields import check_fields
from culvert_http1.request import RequestHead, parse_request_head
from culvert_http1.response import ResponseHead, parse_response_head

PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\xff",
    b":",
    b";",
    b",",
    b"=",
    b"0",
    b"5",
    b"a",
    b"F",
    b"-",
    b"+",
    b"_",
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"OPTIONS ",
    b"* ",
    b"/ ",
    b"http://a ",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"200",
    b"101",
    b"304",
    b" OK",
    b"Host: a",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"gzip",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"X-Forwarded-For: ",
    b"Culvert-Error: ",
    b"X_Y: ",
    b"\r\n\r\n",
]
heads = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=40).map(b"".join)
starts = st.sampled_from(
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: a:1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 ",
        b"GET / HTTP/1.0\r\n",
    ]
)
relaxed = settings(max_examples=300, deadline=None)


def request(data: bytes) -> Any:
    try:
        return parse_request_head(data)
    except HTTPError as error:
        return error.status, error.reason


def response(data: bytes, method: bytes) -> Any:
    try:
        return parse_response_head(data, method=method)
    except HTTPError as error:
        return error.status, error.reason


def plain(head: Any) -> Any:
    """A head as a value that can be compared."""
    if not isinstance(head, (RequestHead, ResponseHead)):
        return head
    # Compiled classes (hack/native) name their attributes otherwise.
    return [getattr(head, name) for name in getattr(head, "__mypyc_attrs__", None) or type(head).__slots__]


@relaxed
@given(starts, heads, st.integers(1, 9))
def test_b04_a_request_head_of_any_bytes_has_one_reading_or_a_refusal(start: bytes, rest: bytes, cut: int) -> None:
    data = start + rest
    whole = request(data)
    if isinstance(whole, tuple):
        assert whole[0] in (400, 405, 414, 417, 431, 501, 505)
    if isinstance(whole, RequestHead):
        assert check_fields(whole.block, request=True)
        assert whole.size <= len(data)
        assert plain(request(data[: whole.size])) == plain(whole)
        assert b"\r" not in whole.target + whole.method + whole.authority
    held, seen = bytearray(), 0
    for position in range(0, len(data), cut):
        held += data[position : position + cut]
        try:
            head = parse_request_head(held, scanned=seen)
        except HTTPError as error:
            assert (error.status, error.reason) == whole
            return
        if head is not None:
            assert plain(head) == plain(whole)
            return
        seen = len(held)
    assert whole is None


@relaxed
@given(starts, heads, st.integers(1, 9), st.sampled_from([b"GET", b"HEAD"]))
def test_b11_a_response_head_of_any_bytes_has_one_reading_or_is_a_502(
    start: bytes, rest: bytes, cut: int, method: bytes
) -> None:
    data = start + rest
    whole = response(data, method)
    if isinstance(whole, tuple):
        assert whole == (502, "bad_response")
    if isinstance(whole, ResponseHead):
        assert check_fields(whole.fields)
    held, seen = bytearray(), 0
    for position in range(0, len(data), cut):
        held += data[position : position + cut]
        try:
            head = parse_response_head(held, method=method, scanned=seen)
        except HTTPError as error:
            assert (error.status, error.reason) == whole
            return
        if head is not None:
            assert plain(head) == plain(whole)
            return
        seen = len(held)
    assert whole is None


chunk_pieces = st.lists(
    st.one_of(
        st.sampled_from(
            [b"\r\n", b"\n", b"\r", b"0", b"5", b"a", b"hello", b";", b" ", b"x=y", b"0\r\n", b"\r\n\r\n", b"T: u"]
        ),
        st.binary(max_size=4),
        st.binary(max_size=30).map(lambda body: b"%x\r\n%b\r\n" % (len(body), body)),
    ),
    max_size=20,
).map(b"".join)


@relaxed
@given(chunk_pieces, st.integers(1, 9))
def test_b02_chunks_of_any_bytes_have_one_body_or_a_refusal(data: bytes, cut: int) -> None:
    def decode(step: int) -> tuple[bytes, bool, bytes, str]:
        decoder = ChunkedDecoder()
        body = b""
        for position in range(0, len(data), step):
            try:
                body += b"".join(decoder.feed(data[position : position + step]))
            except HTTPError as error:
                return body, False, b"", error.reason
        return body, decoder.done, decoder.leftover, ""

    whole, pieces = decode(max(1, len(data))), decode(cut)
    assert pieces[1:] == whole[1:]
    # In one piece an error may come before the body ahead of it was handed out; never the other way round.
    assert pieces[0] == whole[0] or (whole[3] and pieces[0].startswith(whole[0]))
