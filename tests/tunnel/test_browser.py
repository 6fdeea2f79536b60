"""A real browser at the relay's HTTPS port: one page that does what pages do, and tells the origin what it saw."""

import asyncio
import hashlib
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

BIG = random.Random(11).randbytes(5 << 20)
WAIT = 120.0
PAGE = """<!doctype html><meta charset="utf-8"><title>culvert</title><script>
const hex = async data => [...new Uint8Array(await crypto.subtle.digest("SHA-256", data))]
  .map(byte => byte.toString(16).padStart(2, "0")).join("");
const checks = {
  async secure() { return [isSecureContext, location.protocol]; },
  async download() { return hex(await (await fetch("/big")).arrayBuffer()); },
  async upload() {
    const data = await (await fetch("/big")).arrayBuffer();
    return (await fetch("/hash", {method: "POST", body: new Blob([data])})).text();
  },
  async parallel() {
    const answers = await Promise.all([...Array(60).keys()].map(n => fetch("/number?n=" + n).then(r => r.text())));
    return answers.every((text, n) => text === "number " + n);
  },
  async range() {
    const answer = await fetch("/big", {headers: {Range: "bytes=1000-1999"}});
    return [answer.status, answer.headers.get("Content-Range"), await hex(await answer.arrayBuffer())];
  },
  async cookies() { await fetch("/cookies"); return document.cookie.split("; ").sort(); },
  async streamed() {
    const reader = (await fetch("/parts")).body.getReader();
    const first = new TextDecoder().decode((await reader.read()).value);
    await fetch("/go-on", {method: "POST"});
    let rest = "";
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return [first, rest];
      rest += new TextDecoder().decode(value);
    }
  },
  async aborted() {
    const abort = new AbortController();
    const answer = await fetch("/endless", {signal: abort.signal});
    await answer.body.getReader().read();
    abort.abort();
    return (await fetch("/was-aborted")).text();
  },
  events: () => new Promise((resolve, reject) => {
    const seen = [], source = new EventSource("/events");
    source.onmessage = event => {
      seen.push([event.lastEventId, event.data]);
      if (seen.length === 4) { source.close(); resolve(seen); }
    };
    setTimeout(() => reject(new Error("events so far: " + JSON.stringify(seen))), 60000);
  }),
  socket: () => new Promise((resolve, reject) => {
    const seen = [], socket = new WebSocket(`wss://${location.host}/socket`, ["chat"]);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { socket.send("text \\u{1F44B}"); socket.send(new Uint8Array(100000).fill(7)); };
    socket.onmessage = event => {
      seen.push(typeof event.data === "string" ? event.data : event.data.byteLength);
      if (seen.length === 2) socket.close(4001, "enough");
    };
    socket.onclose = event => resolve([socket.protocol, ...seen, event.code, event.wasClean]);
    socket.onerror = () => reject(new Error("the WebSocket failed"));
  }),
  async elsewhere() {
    const answer = await fetch("/missing");
    return [answer.status, answer.headers.get("Culvert-Error")];
  },
};
(async () => {
  const results = {};
  for (const [name, check] of Object.entries(checks)) {
    try { results[name] = await check(); } catch (error) { results[name] = "failed: " + error; }
  }
  await fetch("/report", {method: "POST", body: JSON.stringify(results)});
})();
</script>"""


class Origin:
    """What the page talks to, and the report that it sends in the end."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.aborted = asyncio.Event()
        self.report: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.closed_with: int | None = None
        self.connects = 0
        self.routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/": self._page, "/big": self._big, "/hash": self._hash, "/number": self._number, "/cookies": self._cookies,
            "/parts": self._parts, "/go-on": self._go_on, "/endless": self._endless, "/was-aborted": self._was_aborted,
            "/events": self._events, "/socket": self._socket, "/report": self._report,
        }  # fmt: skip

    async def serve(self, request: web.Request) -> web.StreamResponse:
        route = self.routes.get(request.path)
        return await route(request) if route is not None else web.Response(status=404)

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def _big(self, request: web.Request) -> web.Response:
        part = request.http_range
        if part.start is None:
            return web.Response(body=BIG)
        said = {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{len(BIG)}"}
        return web.Response(status=206, body=BIG[part], headers=said)

    async def _hash(self, request: web.Request) -> web.Response:
        return web.Response(text=hashlib.sha256(await request.read()).hexdigest())

    async def _number(self, request: web.Request) -> web.Response:
        return web.Response(text=f"number {request.query['n']}")

    async def _cookies(self, request: web.Request) -> web.Response:
        answer = web.Response()
        answer.set_cookie("a", "1", secure=True)
        answer.set_cookie("b", "2", samesite="Lax")
        return answer

    async def _parts(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first")
        await self.go_on.wait()  # which the page only says once it has the first part
        await answer.write(b"second")
        return answer

    async def _go_on(self, request: web.Request) -> web.Response:
        self.go_on.set()
        return web.Response()

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x" * 10_000)
                await asyncio.sleep(0.01)
        except (OSError, asyncio.CancelledError):
            self.aborted.set()
            raise

    async def _was_aborted(self, request: web.Request) -> web.Response:
        await self.aborted.wait()
        return web.Response(text="yes")

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Two events and an end, so that the browser comes back with the last one's number."""
        self.connects += 1
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await answer.prepare(request)
        last = int(request.headers.get("Last-Event-ID", "0"))
        for number in (last + 1, last + 2):
            await answer.write(f"retry: 10\nid: {number}\ndata: connection {self.connects}\n\n".encode())
        return answer

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["chat"], autoclose=False)
        await socket.prepare(request)
        while (message := await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        self.closed_with = message.data
        await socket.close(code=4002)
        return socket

    async def _report(self, request: web.Request) -> web.Response:
        self.report.set_result(json.loads(await request.text()))
        return web.Response()


def command(program: str, folder: Path, *, host: str, port: int) -> list[str]:
    """Chromium without a window, which finds the relay under the host's name and nothing else."""
    return [
        program, "--headless=new", *(["--no-sandbox"] if os.geteuid() == 0 else []), "--disable-gpu",
        "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--ignore-certificate-errors", f"--user-data-dir={folder}",
        f"--host-resolver-rules=MAP {host} 127.0.0.1, MAP * ~NOTFOUND", f"https://{host}:{port}/",
    ]  # fmt: skip


@pytest.fixture
def chromium(program: Callable[[str], str]) -> str:
    return program("chromium")


def test_a_page_in_a_real_browser_does_what_pages_do(shared: Any, tmp_path: Path, chromium: str) -> None:
    async def scenario() -> None:
        origin = Origin()
        async with shared.origin(origin.serve):
            with (tmp_path / "chromium.log").open("wb") as log:
                browser = await asyncio.create_subprocess_exec(
                    *command(chromium, tmp_path / "profile", host=shared.host, port=shared.relay.https),
                    stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            try:
                seen = await asyncio.wait_for(origin.report, WAIT)
            finally:
                os.killpg(browser.pid, signal.SIGKILL)  # its helpers too
                await browser.wait()
        assert seen == {
            "secure": [True, "https:"],
            "download": hashlib.sha256(BIG).hexdigest(),
            "upload": hashlib.sha256(BIG).hexdigest(),
            "parallel": True,
            "range": [206, f"bytes 1000-1999/{len(BIG)}", hashlib.sha256(BIG[1000:2000]).hexdigest()],
            "cookies": ["a=1", "b=2"],
            "streamed": ["first", "second"],
            "aborted": "yes",
            "events": [["1", "connection 1"], ["2", "connection 1"], ["3", "connection 2"], ["4", "connection 2"]],
            "socket": ["chat", "text \N{WAVING HAND SIGN}", 100_000, 4002, True],
            "elsewhere": [404, None],
        }
        assert origin.closed_with == 4001

    asyncio.run(scenario())
