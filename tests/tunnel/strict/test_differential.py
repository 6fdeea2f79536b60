"""Origins of different make behind one tunnel: what the relay lets through, all of them hear alike.

Four servers (aiohttp, uvicorn with h11, nginx, Node's own) log each request that they believe to have heard. For every
row of the table, and for mutations of them, an origin must hear exactly the requests that the relay answered in its
name, and each answer must belong to its request: none more, none less, none shifted.
"""

import asyncio
import contextlib
import random
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NODE = """
const http = require("http"), fs = require("fs");
http.createServer((request, response) => {
  fs.appendFileSync("heard.log", request.headers["x-number"] + " " + request.method + "\\n");
  request.resume();
  request.on("end", () => {
    const body = "number " + request.headers["x-number"];
    response.writeHead(200, {"Content-Length": body.length, "X-Number": String(request.headers["x-number"])});
    response.end(body);
  });
}).listen(PORT, "127.0.0.1");
"""
UVICORN = """
import asyncio, h11, uvicorn
async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("http alone")
    number = dict(scope["headers"]).get(b"x-number", b"undefined")
    with open("heard.log", "ab") as log:
        log.write(number + b" " + scope["method"].encode() + b"\\n")
    while (await receive()).get("more_body"):
        pass
    body = b"number " + number
    fields = [(b"content-length", b"%d" % len(body)), (b"x-number", number)]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})
uvicorn.run(app, host="127.0.0.1", port=PORT, http="h11", ws="none", lifespan="off", log_level="warning")
"""
AIOHTTP = """
from aiohttp import web
async def handler(request):
    number = request.headers.get("X-Number", "undefined")
    with open("heard.log", "a") as log:
        log.write(f"{number} {request.method}\\n")
    await request.read()
    return web.Response(text=f"number {number}", headers={"X-Number": number})
app = web.Application()
app.router.add_route("*", "/{tail:.*}", handler)
web.run_app(app, host="127.0.0.1", port=PORT, print=None, access_log=None)
"""
NGINX = """
daemon off; master_process off; pid FOLDER/nginx.pid; error_log FOLDER/error.log; events {}
http {
  access_log off; client_body_temp_path FOLDER/b; proxy_temp_path FOLDER/p; fastcgi_temp_path FOLDER/f;
  uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s; large_client_header_buffers 8 64k; client_max_body_size 0;
  map $http_x_number $number { "" undefined; default $http_x_number; }
  log_format heard "$number $request_method";
  server {
    listen 127.0.0.1:PORT;
    access_log FOLDER/heard.log heard;
    location / { add_header X-Number $number; return 200 "number $number"; }
  }
}
"""


def command(make: str, folder: Path, port: int, program: Callable[[str], str]) -> list[str]:
    """How an origin of this make is started; its program's text or configuration is written into the folder."""
    name, text = TEXTS[make]
    (folder / name).write_text(textwrap.dedent(text).replace("PORT", str(port)).replace("FOLDER", str(folder)))
    if make == "nginx":
        return [program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / name)]
    return [program("node") if make == "node" else sys.executable, name]


TEXTS = {
    "aiohttp": ("with_aiohttp.py", AIOHTTP),
    "uvicorn": ("with_h11.py", UVICORN),
    "nginx": ("nginx.conf", NGINX),
    "node": ("node.js", NODE),
}
"""Each make's file."""


class Origin:
    """A server process and the log of what it believes to have heard."""

    def __init__(self, folder: Path, port: int, arguments: list[str]) -> None:
        self.port = port
        self.path = folder / "heard.log"
        self.errors = folder / "output.log"
        with self.errors.open("wb") as log:
            self.process = subprocess.Popen(arguments, cwd=folder, stdout=log, stderr=log)

    def heard(self) -> list[str]:
        """The number of every request, in order."""
        return [line.split(" ")[0] for line in self.path.read_text().splitlines()] if self.path.exists() else []

    async def listens(self) -> bool:
        assert self.process.poll() is None, self.errors.read_text()
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False


@pytest.fixture(params=list(TEXTS))
def origin(request: pytest.FixtureRequest, shared: Any, tmp_path: Path, program: Any) -> Iterator[Origin]:
    """One make of origin behind raw.example.com."""
    port = shared.port("raw")
    made = Origin(tmp_path, port, command(request.param, tmp_path, port, program))
    try:
        yield made
    finally:
        made.process.terminate()
        try:
            made.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait(timeout=20)


def numbered(wire: bytes, number: int) -> bytes:
    """The same bytes with a number at the beginning of the first head's fields."""
    line, end, rest = wire.partition(b"\r\n")
    return line + end + b"X-Number: %d\r\n" % number + rest if end and line.strip() else wire


@contextlib.asynccontextmanager
async def connection(shared: Any) -> AsyncIterator[Any]:
    async with shared.visitor(limit=1 << 20) as visitor:
        yield visitor


async def tell(shared: Any, wire: bytes) -> list[tuple[int, str | None, str | None]]:
    """Sends bytes and closes the sending side; (status, X-Number, Culvert-Error) of every final response."""
    answers = []
    async with connection(shared) as visitor:
        visitor.send(wire)
        visitor.writer.write_eof()
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ValueError):
            while True:
                response = await visitor.response()
                if response.status < 200:
                    continue
                answers.append((response.status, response.field("x-number"), response.blame))
    return answers


def answered_by_origin(answers: list[tuple[int, str | None, str | None]]) -> int:
    return sum(blame is None and status not in (204,) for status, _, blame in answers)


async def agree(shared: Any, origin: Origin, wires: list[bytes], smuggled: bytes, wait_for: Callable[..., Any]) -> None:
    """Sends each of `wires` on a connection of its own, and compares both ends afterwards."""
    await wait_for(origin.listens, "the origin listens")
    trouble = []
    for number, wire in enumerate(wires, start=1):
        before = len(origin.heard())
        answers = await tell(shared, numbered(wire, number))
        heard = origin.heard()[before:]
        said = [field for status, field, blame in answers if blame is None and status == 200 and field is not None]
        # The origin may have refused what it could not read (without a log line); it must not have heard more than
        # was answered in its name, but for one last request whose body the visitor broke off or misframed.
        cut = not answers or answers[-1][2] in (None, "relay; bad_chunk", "relay; trailers_too_large")
        broken_off = cut and len(heard) == answered_by_origin(answers) + 1 and not wire.endswith(smuggled)
        if len(heard) > answered_by_origin(answers) and not broken_off:
            trouble.append(f"{wire!r}: the origin heard {heard}, the relay answered {answers}")
        if said != heard[: len(said)]:
            trouble.append(f"{wire!r}: answers {answers} do not belong to {heard}")
        if any(one not in (str(number), "undefined") for one in heard):
            trouble.append(f"{wire!r}: the origin heard {heard}, which is another connection's")
    assert not trouble, "\n".join(trouble[:10])
    # And the tunnel is as it was: the next request gets its own answer.
    response = await shared.get("/last", host="raw.example.com")
    assert (response.status, response.body) == (200, b"number undefined")


def test_b01_every_row_is_heard_alike_by_origins_of_every_make(
    shared: Any, origin: Origin, cases: Any, smuggled: bytes, wait_for: Callable[..., Any]
) -> None:
    wires = [case.wire if case.targets else case.wire + smuggled for case in cases]
    asyncio.run(agree(shared, origin, wires, smuggled, wait_for))


PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b"\x0b", b":", b";", b",", b"0", b"5", b"-", b"+", b"chunked", b"\xff",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.1",
    b"Connection: close\r\n", b"X: ", b"GET /b HTTP/1.1\r\nHost: raw.example.com\r\n\r\n",
]  # fmt: skip
"""What a mutation puts in: the bytes on which parsers differ."""


def mutate(wire: bytes, dice: random.Random) -> bytes:
    """One to three small changes."""
    for _ in range(dice.randint(1, 3)):
        place = dice.randrange(len(wire) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            wire = wire[:place] + dice.choice(PIECES) + wire[place:]
        elif kind == 1:
            wire = wire[:place] + wire[place + dice.randint(1, 4) :]
        elif kind == 2:
            wire = wire[:place] + bytes((dice.randrange(256),)) + wire[place + 1 :]
        else:
            other = place + dice.randint(1, 40)
            wire = wire[:other] + wire[place:other] + wire[other:]
    return wire


@pytest.mark.parametrize("seed", [1])
def test_b04_mutations_of_the_table_are_heard_alike(
    shared: Any, origin: Origin, cases: Any, smuggled: bytes, wait_for: Callable[..., Any], seed: int
) -> None:
    dice = random.Random(seed)
    rows = [case.wire for case in cases if len(case.wire) < 1000]
    wires = [mutate(dice.choice(rows), dice) + dice.choice((b"", smuggled)) for _ in range(120)]
    asyncio.run(agree(shared, origin, wires, smuggled, wait_for))
