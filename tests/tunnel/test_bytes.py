"""Bytes arrive as they were sent: bodies of every framing, flushed pieces, 1xx, bodies that must not be there, real
clients (aiohttp, curl) and a real server (nginx)."""

import asyncio
import contextlib
import hashlib
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

SIZE = (1024 if os.environ.get("CULVERT_WHOLE_NUMBERS") else 32) << 20
"""`make faults` carries a GiB each way, `make test` 32 MiB."""
BLOCK = random.Random(7).randbytes(1 << 20)
DIGEST = hashlib.sha256(BLOCK * (SIZE // len(BLOCK))).hexdigest()


def blocks() -> Iterator[bytes]:
    """SIZE bytes in uneven pieces."""
    data = memoryview(BLOCK)
    for _ in range(SIZE // len(BLOCK)):
        for start, end in ((0, 1), (1, 70_001), (70_001, 500_000), (500_000, len(BLOCK))):
            yield bytes(data[start:end])


async def download(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    if request.path == "/length":
        response.content_length = SIZE
    await response.prepare(request)
    for block in blocks():
        await response.write(block)
    await response.write_eof()
    return response


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a15_a_download_is_exact(shared: Any, framing: str) -> None:
    async def scenario() -> None:
        async with shared.origin(download), shared.browser() as browser, browser.get(f"/{framing}") as response:
            assert response.status == 200
            assert (response.content_length == SIZE) == (framing == "length")
            digest = hashlib.sha256()
            async for data in response.content.iter_any():
                digest.update(data)
            assert digest.hexdigest() == DIGEST

    asyncio.run(scenario())


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a15_an_upload_is_exact(shared: Any, framing: str) -> None:
    async def upload(request: web.Request) -> web.Response:
        assert (request.content_length == SIZE) == (framing == "length")
        digest = hashlib.sha256()
        async for data in request.content.iter_any():
            digest.update(data)
        return web.json_response({"digest": digest.hexdigest()})

    async def source() -> AsyncIterator[bytes]:
        for block in blocks():
            yield block

    async def scenario() -> None:
        headers = {"Content-Length": str(SIZE)} if framing == "length" else {}
        async with (
            shared.origin(upload),
            shared.browser() as browser,
            browser.put("/up", data=source(), headers=headers) as response,
        ):
            assert response.status == 200
            assert (await response.json())["digest"] == DIGEST

    asyncio.run(scenario())


def test_a13_a_slow_reader_holds_up_nobody_and_is_served_in_the_end(shared: Any) -> None:
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        if request.path == "/quick":
            return web.Response(text="quick")
        response = web.StreamResponse()
        response.content_length = SIZE
        await response.prepare(request)
        for block in blocks():
            await response.write(block)
            written += len(block)
        return response

    async def scenario() -> None:
        async with shared.origin(handler), shared.visitor() as slow, shared.browser() as browser:
            slow.send(b"GET /slow HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            assert (await slow.head()).field("content-length") == str(SIZE)
            await _quick_until_still(browser, lambda: written)
            # Windows and socket buffers on the way hold a part of it; without back-pressure it would be everything.
            assert written < SIZE * 3 // 4
            digest = hashlib.sha256()
            left = SIZE
            while left:
                data = await asyncio.wait_for(slow.reader.read(1 << 20), 60)
                assert data
                digest.update(data)
                left -= len(data)
            assert digest.hexdigest() == DIGEST

    asyncio.run(scenario())


def test_a14_an_origin_that_does_not_read_an_upload_stops_the_visitor(shared: Any) -> None:
    go = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/quick":
            return web.Response(text="quick")
        await go.wait()
        return web.Response(text=hashlib.sha256(await request.read()).hexdigest())

    async def scenario() -> None:
        sent = 0
        async with shared.origin(handler), shared.visitor() as visitor, shared.browser() as browser:
            visitor.send(b"PUT /stuck HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: %d\r\n\r\n" % SIZE)

            async def send() -> None:
                nonlocal sent
                for block in blocks():
                    visitor.send(block)
                    await visitor.writer.drain()
                    sent += len(block)

            sending = asyncio.create_task(send())
            await _quick_until_still(browser, lambda: sent)
            assert sent < SIZE * 3 // 4
            go.set()
            await asyncio.wait_for(sending, 60)
            assert (await visitor.response()).body.decode() == DIGEST

    asyncio.run(scenario())


async def _quick_until_still(browser: Any, amount: Callable[[], int]) -> None:
    """Rounds of quick requests, all answered, until an amount of bytes has not grown for ten of them."""
    before, still = -1, 0
    while still < 10:
        answers = await asyncio.gather(*(_text(browser, "/quick") for _ in range(10)))
        assert answers == ["quick"] * 10
        before, still = amount(), still + 1 if amount() == before else 0


async def _text(browser: Any, path: str) -> str:
    async with browser.get(path) as response:
        assert response.status == 200
        return str(await response.text())


def test_an_event_of_a_stream_arrives_before_the_next_is_made(shared: Any) -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(5):
            await response.write(f"data: {number}\n\n".encode())
            await asyncio.wait_for(seen[number].wait(), 60)  # not before the visitor has it
        return response

    seen = [asyncio.Event() for _ in range(5)]

    async def scenario() -> None:
        async with shared.origin(events), shared.browser() as browser, browser.get("/events") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            for number in range(5):
                assert await response.content.readuntil(b"\n\n") == f"data: {number}\n\n".encode()
                seen[number].set()
            assert await response.content.read() == b""

    asyncio.run(scenario())


def test_b07_100_continue_comes_from_the_origin_before_the_body_is_sent(shared: Any) -> None:
    async def echo(request: web.Request) -> web.Response:  # aiohttp sends 100 when the handler's route is found
        return web.Response(body=await request.read())

    async def scenario() -> None:
        async with shared.origin(echo), shared.visitor() as visitor:
            visitor.send(
                b"POST / HTTP/1.1\r\nHost: app.example.com\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
            )
            assert (await visitor.head()).status == 100
            visitor.send(b"hello")
            response = await visitor.response()
            assert (response.status, response.body) == (200, b"hello")
            assert (await visitor.get("/again")).status == 200

    asyncio.run(scenario())


def test_b07_100_continue_comes_from_the_connector_when_the_origin_is_silent(shared: Any) -> None:
    async def scenario() -> None:
        async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(heard.body), heard.body))

        async with shared.raw_origin(answer), shared.visitor() as visitor:
            visitor.send(
                b"PUT / HTTP/1.1\r\nHost: raw.example.com\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
            )
            assert (await visitor.head()).status == 100
            visitor.send(b"abc")
            assert (await visitor.response()).body == b"abc"

    asyncio.run(scenario())


def test_b07_an_early_final_answer_ends_an_upload_without_100_and_closes(shared: Any) -> None:
    async def scenario() -> None:
        served = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
                await reader.read(-1)  # the connector has to leave
                served.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", shared.port("raw"))
        try:
            async with shared.visitor() as visitor:
                visitor.send(
                    b"POST / HTTP/1.1\r\nHost: raw.example.com\r\nExpect: 100-continue\r\n"
                    b"Content-Length: 99999999\r\n\r\n"
                )
                response = await visitor.response()
                assert (response.status, response.body) == (413, b"big")
                assert response.field("connection") == "close"
                assert await visitor.rest() == b""
                await asyncio.wait_for(served.wait(), 60)
            async with shared.visitor() as visitor:  # the same in the middle of a body
                visitor.send(
                    b"POST / HTTP/1.1\r\nHost: raw.example.com\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 10_000
                )
                assert (await visitor.response()).status == 413
                assert await visitor.rest() == b""
        finally:
            server.close()

    asyncio.run(scenario())


def test_b07_103_reaches_the_visitor_before_the_response(shared: Any) -> None:
    go = asyncio.Event()

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n")
        await asyncio.wait_for(go.wait(), 60)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: raw.example.com\r\n\r\n")
            hints = [await visitor.head(), await visitor.head()]
            assert [(hint.status, hint.field("link")) for hint in hints] == [
                (103, "</a.css>; rel=preload"),
                (103, "</b.css>; rel=preload"),
            ]
            go.set()
            response = await visitor.response()
            assert (response.status, response.body) == (200, b"ok")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "1234"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: "x"\r\n\r\n', "1234"),
    ],
)
def test_b08_a_response_without_a_body_leaves_the_connection_in_step(
    shared: Any, method: str, head: bytes, length: str | None
) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head if heard.target == "/" else b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext")

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            response = await visitor.get("/", host="raw.example.com", method=method)
            assert response.status == int(head[9:12])
            assert response.field("content-length") == length
            assert (await visitor.get("/next", host="raw.example.com")).body == b"next"

    asyncio.run(scenario())


def test_b11_fields_of_a_response_keep_their_order_case_and_repetition_and_bodies_their_coding(shared: Any) -> None:
    gzip = bytes.fromhex("1f8b08000000000000ff4b4c4a0600c241243503000000")

    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nx-FIRST: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\n"
            b"X-Latin: caf\xe9\r\nKeep-Alive: timeout=5\r\nConnection: x-hop\r\nX-Hop: gone\r\nCulvert-Secret: no\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(gzip), gzip)
        )

    async def scenario() -> None:
        async with shared.raw_origin(answer), shared.visitor() as visitor:
            response = await visitor.get(host="raw.example.com")
            assert response.fields == [
                ("x-FIRST", "1"),
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-Encoding", "gzip"),
                ("X-Latin", "caf\xe9"),
                ("Content-Length", str(len(gzip))),
            ]
            assert response.body == gzip

    asyncio.run(scenario())


def test_b11_a_close_delimited_response_is_chunked_for_1_1_and_until_close_for_1_0(shared: Any) -> None:
    async def answer(heard: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\npart one, ")
        await writer.drain()
        writer.write(b"part two")
        writer.close()

    async def scenario() -> None:
        async with shared.raw_origin(answer):
            async with shared.visitor() as visitor:
                for _ in range(2):
                    response = await visitor.get(host="raw.example.com")
                    assert response.field("transfer-encoding") == "chunked"
                    assert response.body == b"part one, part two"
            async with shared.visitor() as visitor:
                visitor.send(b"GET / HTTP/1.0\r\nHost: raw.example.com\r\n\r\n")
                response = await visitor.response()
                assert response.field("transfer-encoding") is None
                assert response.field("connection") == "close"
                assert response.body == b"part one, part two"

    asyncio.run(scenario())


def test_a20_a_visitor_that_half_closes_still_gets_its_response(shared: Any) -> None:
    go = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        go.set()
        return web.Response(body=BLOCK)

    async def scenario() -> None:
        async with shared.origin(handler), shared.visitor() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            visitor.writer.write_eof()
            response = await visitor.response()
            assert response.body == BLOCK
            assert await visitor.rest() == b""

    asyncio.run(scenario())


def test_curl_uploads_with_expect_and_downloads_over_https(shared: Any, tmp_path: Path, program: Any) -> None:
    command = program("curl")
    (tmp_path / "big").write_bytes(BLOCK * 4)

    async def echo(request: web.Request) -> web.Response:
        assert request.headers["X-Forwarded-Proto"] == "https"
        return web.Response(body=await request.read())

    async def scenario() -> None:
        async with shared.origin(echo):
            for framing in ([], ["-H", "Transfer-Encoding: chunked"]):
                curl = await asyncio.create_subprocess_exec(
                    command, "-sS", "--fail", "--http1.1", "--max-time", "60", "--cacert", str(shared.ca), *framing,
                    "--resolve", f"app.example.com:{shared.relay.https}:127.0.0.1", "-H", "Expect: 100-continue",
                    "-T", str(tmp_path / "big"), "-o", str(tmp_path / "back"),
                    f"https://app.example.com:{shared.relay.https}/up",
                    stderr=subprocess.PIPE,
                )  # fmt: skip
                _, errors = await curl.communicate()
                assert curl.returncode == 0, errors.decode()
                assert (tmp_path / "back").read_bytes() == BLOCK * 4

    asyncio.run(scenario())


NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}
http {{
  access_log off; types {{ text/css css; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port}; root {folder}/www; keepalive_requests 3; gzip on; gzip_min_length 1; gzip_types text/css;
  }}
}}
"""


def test_nginx_serves_ranges_validators_and_gzip_through_the_tunnel(
    shared: Any, tmp_path: Path, wait_for: Any, program: Any
) -> None:
    nginx = program("nginx")
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "big").write_bytes(BLOCK)
    (tmp_path / "www" / "a.css").write_text("a{}" * 500)
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=shared.port("nginx")))
    host = {"host": "nginx.example.com"}

    async def scenario() -> None:
        await wait_for(_is_served, "nginx answers")
        async with shared.visitor() as visitor:
            whole = await visitor.get("/big", **host)
            assert whole.body == BLOCK
            etag = whole.field("etag")
            part = await visitor.get("/big", **host, extra="Range: bytes=10-19\r\n")
            assert (part.status, part.body) == (206, BLOCK[10:20])
            same = await visitor.get("/big", **host, extra=f"If-None-Match: {etag}\r\n")
            assert (same.status, same.body) == (304, b"")
            head = await visitor.get("/big", **host, method="HEAD")
            assert head.field("content-length") == str(len(BLOCK))
            coded = await visitor.get("/a.css", **host, extra="Accept-Encoding: gzip\r\n")
            assert coded.field("content-encoding") == "gzip"
            assert coded.body[:2] == b"\x1f\x8b"
            # nginx closes every third connection of its own accord: nobody notices.
            for _ in range(20):
                assert (await visitor.get("/a.css", **host)).status == 200

    async def _is_served() -> bool:
        return bool((await shared.get("/a.css", **host)).status == 200)

    process = subprocess.Popen([nginx, "-c", str(config), "-p", str(tmp_path)], stderr=subprocess.DEVNULL)
    try:
        asyncio.run(scenario())
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_a19_the_origin_hears_at_once_that_a_visitor_has_left(shared: Any) -> None:
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"tick\n")
                await asyncio.sleep(0.01)
        except (asyncio.CancelledError, ConnectionError):
            left.set()
            raise

    async def scenario() -> None:
        async with shared.origin(endless), shared.visitor() as visitor:
            visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
            await visitor.head()
            visitor.reset()
            start = time.monotonic()
            await asyncio.wait_for(left.wait(), 60)
            assert time.monotonic() - start < 10  # moments; a timeout of anything would be longer

    asyncio.run(scenario())
