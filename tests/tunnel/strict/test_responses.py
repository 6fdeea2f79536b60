"""What an origin may answer, and what its visitor then reads: one table, over one kept-alive connection a row.

Each row is answered to `/row` of a raw origin; the visitor then asks for `/next` on the same connection, which must get
its own answer whatever the row was.
"""

import asyncio
from typing import Any, NamedTuple

import pytest

BIG = b"x" * 70_000


class Row(NamedTuple):
    """`method` of the request, bytes of its answer (`fin`: the origin closes behind them), what the visitor reads."""

    bullet: int
    name: str
    method: str
    answer: bytes
    status: int
    body: bytes = b""
    fin: bool = False


def row(bullet: int, name: str, head: bytes, status: int = 200, body: bytes = b"", **more: Any) -> Row:
    return Row(bullet, name, more.pop("method", "GET"), b"HTTP/1.1 " + head, status, body, more.pop("fin", False))


ROWS = [
    row(8, "head_with_a_length", b"200 OK\r\nContent-Length: 5\r\n\r\n", method="HEAD"),
    row(8, "head_with_chunked", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", method="HEAD"),
    row(8, "head_with_a_body_all_the_same", b"200 OK\r\nContent-Length: 5\r\n\r\nhello", method="HEAD"),
    row(8, "204_with_a_length", b"204 No Content\r\nContent-Length: 5\r\n\r\n", 204),
    row(8, "204_with_a_body", b"204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204),
    row(8, "304_with_a_length", b"304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304),
    row(8, "304_with_a_body", b"304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", 304),
    row(
        8,
        "bytes_behind_a_body",
        b"200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        200,
        b"ok",
    ),
    row(
        8,
        "bytes_behind_the_last_chunk",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        200,
        b"ok",
    ),
    row(11, "chunked", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n", 200, b"ok"),
    row(11, "until_close", b"200 OK\r\n\r\n" + BIG, 200, BIG, fin=True),
    row(11, "equal_lengths", b"200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    row(11, "no_reason", b"200\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
    row(11, "an_unknown_status", b"799 Odd\r\nContent-Length: 2\r\n\r\nok", 799, b"ok"),
    row(11, "differing_lengths", b"200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 502),
    row(11, "a_list_of_lengths", b"200 OK\r\nContent-Length: 2, 2\r\n\r\nok", 502),
    row(11, "a_signed_length", b"200 OK\r\nContent-Length: +2\r\n\r\nok", 502),
    row(11, "two_framings", b"200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502),
    row(11, "an_unknown_coding", b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 502),
    row(11, "a_bare_cr", b"200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "a_bare_lf", b"200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "a_nul", b"200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "a_folded_field", b"200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "a_status_below_100", b"099 Odd\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "a_status_of_four_digits", b"2000 OK\r\nContent-Length: 0\r\n\r\n", 502),
    row(11, "no_status", b"OK\r\nContent-Length: 0\r\n\r\n", 502),
    row(
        11,
        "a_switch_that_nobody_asked_for",
        b"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        502,
    ),
    row(11, "too_many_early_heads", b"103 Early Hints\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, 502),
    row(11, "a_head_without_end", b"200 OK\r\n" + b"X: yyyyyyyy\r\n" * 4000, 502),
]


@pytest.mark.parametrize("answered", ROWS, ids=[f"b{one.bullet:02d}_{one.name}" for one in ROWS])
def test_b11_an_answer_is_read_as_it_stands_or_is_a_502_and_the_next_one_is_its_own(shared: Any, answered: Row) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        if heard.target == "/row":
            writer.write(answered.answer)
            if answered.fin:
                writer.close()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor(limit=1 << 20) as visitor:
            response = await visitor.get("/row", host="raw.example.com", method=answered.method)
            while response.status < 200:
                response = await visitor.response(method=answered.method)
            assert (response.status, response.body if answered.status != 502 else b"") == (
                answered.status,
                answered.body,
            )
            if answered.status == 502:
                assert response.blame is not None
                assert response.blame.startswith("origin; ")
            if response.field("connection") != "close":
                following = await visitor.get("/next", host="raw.example.com")
                assert (following.status, following.body) == (200, b"next")
        async with shared.raw_origin(answer):
            later = await shared.get("/later", host="raw.example.com")
            assert (later.status, later.body) == (200, b"next")

    asyncio.run(scenario())
