"""A proxy between one operator and a real API server that records what passes, and commits one fault.

It forwards every request as it is. A write is named by its method, its path and its number among its equals, so that
a plan made from a recorded run means the same write in another run. A watch is named by the kind's plural.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

WRITES = ("POST", "PUT", "PATCH", "DELETE")
HOLD_SECONDS = 1.0
AWAY_SECONDS = 3.0
LEAVE = {"host", "content-length", "transfer-encoding", "connection", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``what`` is a member of :data:`WRITE_FAULTS` (``write`` says at which) or of :data:`WATCH_FAULTS`
    (``kind`` says on which watch, ``early`` that it is while the story begins, ``deletion`` that it swallows the first
    news of an object that is gone, not the first news)."""

    what: str
    write: tuple[str, str, int] = ("", "", 0)
    kind: str = ""
    early: bool = False
    deletion: bool = False

    def __str__(self) -> str:
        return f"{self.what} {'a deletion of ' * self.deletion}{self.kind or ' '.join(map(str, self.write))}"


# What happens to a write, and whether the API server gets to see it.
WRITE_FAULTS = {
    "crash after": True,
    "reply lost after": True,
    "500 after": True,
    "away after": True,
    "403 instead of": False,
    "409 instead of": False,
    "413 instead of": False,
    "422 instead of": False,
    "429 instead of": False,
    "500 instead of": False,
}
# What happens to a kind's watch at its first event, and (stale list) to the list after a restart.
WATCH_FAULTS = ("silent", "cut inside a line", "held back", "410 instead of", "error 500 inside", "stale list of")
# What loses the news that an object is gone: what comes next is a list in which it is not.
DELETION_FAULTS = ("silent", "cut inside a line", "410 instead of")


@dataclass(slots=True)
class Write:
    """A write that the API server answered."""

    name: tuple[str, str, int]
    status: int
    uid: str


@dataclass
class Proxy:
    """``server`` and ``tls`` lead to the API server. ``crashed`` is set when the operator behind it is to die.

    The story sets ``armed`` when faults of watches may begin, and ``ending`` when everything is about to be deleted.
    """

    server: str
    tls: ssl.SSLContext
    rename: Callable[[str], str]
    fault: Fault | None = None
    armed: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    writes: list[Write] = field(default_factory=list)
    watched: Counter[str] = field(default_factory=Counter)
    watched_late: Counter[str] = field(default_factory=Counter)
    watched_gone: Counter[str] = field(default_factory=Counter)
    claims: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    lists: dict[str, bytes] = field(default_factory=dict)
    listed: Counter[str] = field(default_factory=Counter)
    events: int = 0
    fired: bool = False
    crashed: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._dead = False
        self._watching: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Listen anew, for a new operator; an old one's connections are gone."""
        await self.stop()
        self._dead = False
        self.crashed.clear()
        connector = aiohttp.TCPConnector(limit=0, ssl=self.tls)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Cut everything off."""
        self._dead = True
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self._dead:
            raise _cut(request)
        if request.query.get("watch") == "1":
            return await self._watch(request)
        body = await request.read()
        if request.method in WRITES and not request.path.endswith("/events"):
            return await self._write(request, body)
        status, headers, data = await self._forward(request, body)
        plural = request.path.rpartition("/")[2]
        self.events += request.method == "POST"
        if request.method == "GET" and "limit" in request.query and status == 200:
            self.listed[plural] += 1
            # The list that a restarted operator would get from an API server whose cache lags.
            stale = self.fault is not None and self.fault.what == "stale list of" and self.fault.kind == plural
            if stale and self.armed.is_set() and plural in self.lists and not self.fired:
                self.fired, data = True, self.lists[plural]
            elif not self.armed.is_set():
                self.lists[plural] = data
        return web.Response(status=status, headers=headers, body=data)

    async def _forward(self, request: web.Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in LEAVE}
        async with self._session.request(
            request.method, self.server + request.path_qs, headers=headers, data=body or None
        ) as answer:
            data = await answer.read()
        if answer.status == 403:
            self.refused.append(f"{request.method} {request.path}: {data[:300]!r}")
        kept = {k: v for k, v in answer.headers.items() if k.lower() in ("content-type", "retry-after")}
        return answer.status, kept, data

    async def _write(self, request: web.Request, body: bytes) -> web.StreamResponse:
        target = request.path
        content = json.loads(body) if body else {}
        if request.method == "POST":
            target += "/" + str(content.get("metadata", {}).get("name", ""))
        if "/hostnameclaims/" in target:
            # A claim's name is a hash: by its hostname it can be told in another telling.
            folder, _, name = target.rpartition("/")
            if request.method != "DELETE":
                self.claims[name] = str(content["spec"]["hostname"])
            target = f"{folder}/{self.claims.get(name, name)}"
        pair = (request.method, self.rename(target))
        key = (*pair, self._counts[pair] + 1)
        fault = self.fault.what if self.fault and self.fault.write == key and not self.fired else ""
        if fault and not WRITE_FAULTS[fault]:
            self.fired = True
            return _status(int(fault.partition(" ")[0]))
        status, headers, data = await self._forward(request, body)
        if status < 300:
            self._counts[pair] += 1
            self.writes.append(Write(key, status, str((json.loads(data).get("metadata") or {}).get("uid", ""))))
            if fault:
                self.fired = True
                if fault == "500 after":
                    return _status(500)
                if fault == "crash after":
                    self._dead = True
                    self.crashed.set()
                if fault == "away after":
                    self.go_away(AWAY_SECONDS)
                raise _cut(request)
        return web.Response(status=status, headers=headers, body=data)

    def go_away(self, seconds: float) -> None:
        """Answer nothing for so long, and break off what is under way."""
        self._dead = True
        self.cut_watches()
        asyncio.get_running_loop().call_later(seconds, self._come_back)

    def _come_back(self) -> None:
        self._dead = False

    def cut_watches(self) -> None:
        """Break off every watch, so that each kind is listed again."""
        for transport in self._watching:
            transport.abort()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        plural = request.path.rpartition("/")[2]
        headers = {k: v for k, v in request.headers.items() if k.lower() not in LEAVE}
        url = self.server + request.path_qs
        limits = aiohttp.ClientTimeout(total=None)
        async with self._session.get(url, headers=headers, timeout=limits) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            transport = request.transport
            assert transport is not None
            self._watching.add(transport)
            try:
                await self._follow(request, response, answer, plural)
            finally:
                self._watching.discard(transport)
        return response

    async def _follow(
        self, request: web.Request, response: web.StreamResponse, answer: aiohttp.ClientResponse, plural: str
    ) -> None:
        async for line in answer.content:
            if self._dead:
                raise _cut(request)
            # Kinds without a namespace tell of other stories too.
            told = line.decode()
            mine = not line.startswith(b'{"type":"BOOKMARK"') and self.rename(told) != told
            self.watched[plural] += mine
            self.watched_late[plural] += mine and self.armed.is_set() and not self.ending.is_set()
            gone = mine and line.startswith(b'{"type":"DELETED"')
            self.watched_gone[plural] += gone and self.armed.is_set()
            fault = self.fault
            struck = fault is not None and fault.kind == plural and (gone if fault.deletion else mine)
            if struck and self.armed.is_set() and not self.fired:
                await self._spoil(request, response, line)
            else:
                await response.write(line)

    async def _spoil(self, request: web.Request, response: web.StreamResponse, line: bytes) -> None:
        assert self.fault is not None
        what, self.fired = self.fault.what, True
        if what == "silent":
            await asyncio.Event().wait()  # until the client gives up
        elif what == "cut inside a line":
            await response.write(line[: len(line) // 2])
            raise _cut(request)
        elif what == "held back":
            await asyncio.sleep(HOLD_SECONDS)
            await response.write(line)
        elif what in ("410 instead of", "error 500 inside"):
            # Time for more to happen in the gap before the operator lists again.
            await asyncio.sleep(HOLD_SECONDS)
            code = 410 if what.startswith("410") else 500
            status = {"kind": "Status", "code": code, "reason": "Expired", "message": "made by the test"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            raise _cut(request)
        else:
            # A stale list: die now, so that the next list is a restarted operator's.
            self._dead, self.fired = True, False
            self.crashed.set()
            raise _cut(request)


def _cut(request: web.Request) -> Exception:
    if request.transport is not None:
        request.transport.abort()
    return ConnectionResetError("cut by the fault")


def _status(code: int) -> web.Response:
    reason = {
        403: "Forbidden",
        409: "Conflict",
        413: "RequestEntityTooLarge",
        422: "Invalid",
        429: "TooManyRequests",
        500: "InternalError",
    }[code]
    body = {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": "made by the test"}
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(body, status=code, headers=headers)


def plans(recorded: Proxy, *, occurrences: int = 2) -> list[Fault]:
    """Every fault at every write that the recorded run made (the first ones of each name), and on every watch."""
    names = [write.name for write in recorded.writes if write.name[2] <= occurrences]
    found = [Fault(what, write=name) for name in names for what in WRITE_FAULTS]
    for kind in sorted(recorded.watched):
        if recorded.watched_late[kind]:
            found += [Fault(what, kind=kind) for what in WATCH_FAULTS]
        else:
            # Its events are all in the beginning, but for those of its end: in an older list there is nothing.
            found += [Fault(what, kind=kind, early=True) for what in WATCH_FAULTS]
        if recorded.watched_gone[kind]:
            found += [Fault(what, kind=kind, deletion=True) for what in DELETION_FAULTS]
    return found


def made(writes: list[Write]) -> Any:
    """How often each path was created, and how often deleted."""
    return (
        Counter(w.name[1] for w in writes if w.status == 201),
        Counter(w.name[1] for w in writes if w.name[0] == "DELETE"),
    )
