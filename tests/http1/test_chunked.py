"""The chunked coding: bodies that pass, bodies that are refused, and independence of how bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_http1 import LAST_CHUNK, ChunkedDecoder, HeadLimits, HTTPError, encode_chunk

Outcome = tuple[bytes, bool, bytes] | tuple[int, str]


def decode(pieces: list[bytes], *, status: int = 400) -> Outcome:
    decoder, body, rest = ChunkedDecoder(status=status), [], b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
            else:
                body += decoder.feed(piece)
                rest = decoder.leftover
    except HTTPError as error:
        return error.status, error.reason
    return b"".join(body), decoder.done, rest


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


@pytest.mark.parametrize(
    ("data", "body", "leftover"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nGET /", b"hello!", b"GET /"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n", b"0123456789" * 2, b""),
        (b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n", b"hello", b""),
        (b"5;a\r\nhello\r\n0;b=c\r\n\r\n", b"hello", b""),
        (b'5;a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello", b""),
        (b"5 \t;\ta = b\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"5;\xff\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"5;" + b"x" * 255 + b"\r\nhello\r\n0;" + b"y" * 255 + b"\r\n\r\n", b"hello", b""),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", b""),
        (b"0\r\nA: b\r\nContent-Length: 9\r\n\r\nnext", b"", b"next"),
        (b"0\r\nA:\xe9\t \r\n\r\n", b"", b""),
        (b"0\r\nA:" + b"b" * 8_188 + b"\r\n\r\n", b"", b""),
    ],
)
def test_bodies_pass(data: bytes, body: bytes, leftover: bytes) -> None:
    assert decode([data]) == (body, True, leftover)
    assert decode(bytewise(data)) == (body, True, leftover)


REFUSED = [
    ("no digit", b"\r\nhello"),
    ("not hexadecimal", b"g\r\n"),
    ("sign", b"+5\r\nhello\r\n"),
    ("minus", b"-5\r\n"),
    ("0x", b"0x5\r\nhello\r\n"),
    ("underscore", b"1_0\r\n"),
    ("space before the size", b" 5\r\nhello\r\n"),
    ("space after the size", b"5 \r\nhello\r\n"),
    ("tab after the size", b"5\t\r\nhello\r\n"),
    ("digits of another script", "٥\r\nhello".encode()),
    ("17 digits", b"00000000000000005\r\nhello\r\n"),
    ("2,000 digits", b"0" * 2_000),
    ("LF after the size", b"5\nhello\r\n0\r\n\r\n"),
    ("CR after the size", b"5\rhello\r\n0\r\n\r\n"),
    ("CR CR LF after the size", b"5\r\r\nhello\r\n"),
    ("LF after the data", b"5\r\nhello\n0\r\n\r\n"),
    ("CR and another byte after the data", b"5\r\nhello\rx0\r\n\r\n"),
    ("CR after the data", b"5\r\nhello\r0\r\n\r\n"),
    ("no line end after the data", b"5\r\nhello0\r\n\r\n"),
    ("more data than the size", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("less data than the size", b"5\r\nhel\r\n0\r\n\r\n"),
    ("extension of 257 bytes", b"5;" + b"x" * 256 + b"\r\nhello\r\n"),
    ("extension without an end", b"5;" + b"x" * 300),
    ("blanks without an end", b"5" + b" " * 300),
    ("control byte in an extension", b"5;a\x01\r\nhello\r\n"),
    ("NUL in an extension", b"5;\0\r\nhello\r\n"),
    ("LF in an extension", b"5;a\nhello\r\n"),
    ("CR in an extension", b"5;a\rb\r\nhello\r\n"),
    ("extension without a semicolon", b"5a=b\r\nhello\r\n"),
    ("word after blanks", b"5 a\r\nhello\r\n"),
    ("LF at the end", b"0\r\n\n"),
    ("CR at the end", b"0\r\n\rGET"),
    ("LF after the last size", b"0\n\r\n"),
    ("trailer without a colon", b"0\r\nAb\r\n\r\n"),
    ("trailer without a name", b"0\r\n: b\r\n\r\n"),
    ("trailer with a space before its colon", b"0\r\nA : b\r\n\r\n"),
    ("folded trailer", b"0\r\nA: b\r\n c\r\n\r\n"),
    ("LF in a trailer", b"0\r\nA: b\nC: d\r\n\r\n"),
    ("CR in a trailer", b"0\r\nA: b\rC: d\r\n\r\n"),
    ("NUL in a trailer", b"0\r\nA: \0\r\n\r\n"),
    ("request instead of the end", b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
]


@pytest.mark.parametrize("data", [data for _, data in REFUSED], ids=[why for why, _ in REFUSED])
def test_b02_refused_whole_and_in_pieces(data: bytes) -> None:
    assert decode([data]) == (400, "bad_chunk")
    assert decode(bytewise(data)) == (400, "bad_chunk")
    assert decode([data], status=502) == (502, "bad_response")


@pytest.mark.parametrize(
    "data",
    [
        b"0\r\nA:" + b"b" * 8_189 + b"\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * 2_000,
        b"0\r\nA:" + b"b" * 9_000,
        b"0\r\n" + b"A" * 9_000,
    ],
    ids=["one too long", "too many", "without an end", "name without an end"],
)
def test_b02_trailers_are_bounded(data: bytes) -> None:
    assert decode([data]) == (431, "trailers_too_large")
    assert decode(bytewise(data)) == (431, "trailers_too_large")
    assert decode([data], status=502) == (502, "bad_response")


def test_limits_are_the_callers() -> None:
    with pytest.raises(HTTPError, match="extension"):
        ChunkedDecoder(limits=HeadLimits(extension=2)).feed(b"5;ab\r\n")
    with pytest.raises(HTTPError, match="trailers"):
        ChunkedDecoder(limits=HeadLimits(trailers=5)).feed(b"0\r\nA: b\r\n")


def test_a_huge_chunk_is_handed_on_as_it_comes() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"ffffffffffffffff\r\nab") == [b"ab"]
    piece = b"x" * 1000
    for _ in range(10):
        handed = decoder.feed(piece)
        assert handed == [piece]
        assert handed[0] is piece
    assert not decoder.done


def test_no_empty_pieces() -> None:
    decoder = ChunkedDecoder()
    pieces = [piece for byte in bytewise(b"3\r\nabc\r\n0\r\n\r\n") for piece in decoder.feed(byte)]
    assert pieces == [b"a", b"b", b"c"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"more") == []
    assert decoder.leftover == b"more"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    extensions=st.lists(st.sampled_from([b"", b";a=b", b" ;x"]), min_size=7, max_size=7),
    trailers=st.lists(st.sampled_from([b"A: b\r\n", b"B:\r\n"]), max_size=3), rest=st.binary(max_size=20),
    cuts=st.lists(st.integers(0, 2_000), max_size=12),
)  # fmt: skip
def test_any_split_of_a_body_gives_it_back(
    chunks: list[bytes], extensions: list[bytes], trailers: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    data = b"".join(b"%X%b\r\n%b\r\n" % (len(c), e, c) for c, e in zip(chunks, extensions, strict=False))
    data += b"0" + extensions[-1] + b"\r\n" + b"".join(trailers) + b"\r\n" + rest
    ends = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(ends)]
    assert decode(pieces) == (b"".join(chunks), True, rest)


hostile = st.lists(
    st.sampled_from(
        [b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"\r", b"\n", b"5", b"A: b\r\n", b";x", b" ", b"hello", b":", b"\0"]
    )
    | st.binary(max_size=3),
    max_size=10,
).map(b"".join)


@given(data=hostile, cuts=st.lists(st.integers(0, 80), max_size=6))
@settings(max_examples=150)
def test_any_split_of_hostile_bytes_gives_the_same(data: bytes, cuts: list[int]) -> None:
    whole = decode([data])
    ends = [0, *sorted({min(cut, len(data)) for cut in cuts}), len(data)]
    assert decode([data[begin:end] for begin, end in pairwise(ends)]) == whole
    assert decode(bytewise(data)) == whole


@given(pieces=st.lists(st.binary(max_size=100), max_size=8))
def test_decoding_undoes_encoding(pieces: list[bytes]) -> None:
    data = b"".join(map(encode_chunk, pieces)) + LAST_CHUNK
    assert decode([data]) == (b"".join(pieces), True, b"")


def test_an_empty_piece_does_not_end_the_body() -> None:
    assert encode_chunk(b"") == b""
    assert encode_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_a_twin_reads_on_from_the_same_place_and_changes_nothing() -> None:
    wire = b"5;a=b\r\nhello\r\n1a\r\n" + bytes(26) + b"\r\n0\r\nX: y\r\n\r\nnext"
    for cut in range(len(wire) - len(b"\r\nnext")):
        decoder = ChunkedDecoder()
        before = b"".join(decoder.feed(wire[:cut]))
        twin = decoder.twin()
        assert before + b"".join(twin.feed(wire[cut:])) == b"hello" + bytes(26)
        assert (twin.done, twin.leftover) == (True, b"next")
        assert not decoder.done
        assert before + b"".join(decoder.feed(wire[cut:])) == b"hello" + bytes(26)
        assert (decoder.done, decoder.leftover) == (True, b"next")
    decoder = ChunkedDecoder()
    decoder.feed(b"5;" + b"a" * 200)
    with pytest.raises(HTTPError):
        decoder.twin().feed(b"a" * 100)
