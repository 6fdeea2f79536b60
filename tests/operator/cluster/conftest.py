"""A small real API server for tests: objects in memory, lists in pages, watches with a history, and faults on order.

It answers as the Kubernetes API documents it for the requests that culvert makes; whether it does so rightly, the
tests in tests/cluster find out against a real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from culvert_operator.cluster.client import Client
from culvert_operator.cluster.connection import Access
from culvert_operator.cluster.kinds import ALL, Kind

Object = dict[str, Any]
Key = tuple[str, str, str]


@dataclass
class APIServer:
    """State and faults. ``faults`` apply to the next watches, in order; ``refusals`` to the next other requests."""

    objects: dict[Key, Object] = field(default_factory=dict)
    history: list[tuple[int, str, str, Object]] = field(default_factory=list)
    version: int = 100
    compacted: int = 0
    faults: deque[str] = field(default_factory=deque)
    refusals: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=lambda: ["first"])
    before_list_answer: Callable[[], object] | None = None
    page_limit: int = 500
    url: str = ""

    def __post_init__(self) -> None:
        self.moved = asyncio.Condition()

    # What a test does to the world, as other clients would.

    async def put(self, kind: Kind, name: str, namespace: str = "", **content: Any) -> Object:
        key = (kind.plural, namespace, name)
        old = self.objects.get(key)
        metadata = {"name": name, "uid": old["metadata"]["uid"] if old else f"uid-{self.version + 1}"}
        if namespace:
            metadata["namespace"] = namespace
        labels = content.pop("labels", (old or {}).get("metadata", {}).get("labels"))
        if labels:
            metadata["labels"] = labels
        raw = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **content}
        await self.store(key, raw)
        return raw

    async def store(self, key: Key, raw: Object) -> None:
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = raw
        await self._happened(kind, key[0], raw)

    async def remove(self, kind: Kind, name: str, namespace: str = "") -> None:
        raw = self.objects.pop((kind.plural, namespace, name))
        self.version += 1
        gone = {**raw, "metadata": {**raw["metadata"], "resourceVersion": str(self.version)}}
        await self._happened("DELETED", kind.plural, gone)

    async def _happened(self, kind: str, plural: str, raw: Object) -> None:
        self.history.append((self.version, kind, plural, json.loads(json.dumps(raw))))
        async with self.moved:
            self.moved.notify_all()

    def compact(self) -> None:
        """Forget the history: a watch from an older version gets 410."""
        self.compacted = self.version
        self.history.clear()

    async def asked(self, what: Callable[[list[tuple[str, str]]], bool], seconds: float = 10.0) -> None:
        """Wait until the requests so far satisfy ``what``."""
        async with asyncio.timeout(seconds), self.moved:
            await self.moved.wait_for(lambda: what(self.requests))

    # What it answers.

    async def handle(self, request: web.Request) -> web.StreamResponse:
        kind, namespace, name = _parse(request.path)
        watch = request.query.get("watch") == "1"
        self.requests.append(("WATCH" if watch else request.method, request.path))
        async with self.moved:
            self.moved.notify_all()
        if request.headers.get("Authorization") != f"Bearer {self.tokens[-1]}":
            return _status(401, "Unauthorized", "who are you?")
        if watch:
            return await self._watch(request, kind, namespace)
        if self.refusals:
            code, headers = self.refusals.popleft()
            return _status(code, "Refused", f"refused with {code}", headers)
        if request.method == "GET" and not name:
            return self._list(request, kind, namespace)
        key = (kind.plural, namespace if kind.namespaced else "", name)
        body = json.loads(await request.read() or b"{}")
        return await getattr(self, f"_{request.method.lower()}")(request, key, body)

    def _list(self, request: web.Request, kind: Kind, namespace: str) -> web.Response:
        start = int(request.query.get("continue", "0"))
        limit = min(int(request.query.get("limit", "500")), self.page_limit)
        found = [
            {"metadata": raw["metadata"]} | {k: v for k, v in raw.items() if k not in ("apiVersion", "kind")}
            for key, raw in sorted(self.objects.items())
            if key[0] == kind.plural and namespace in ("", key[1]) and _selected(raw, request)
        ]
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        answer = json.dumps({"kind": f"{kind.name}List", "metadata": metadata, "items": found[start : start + limit]})
        if self.before_list_answer is not None:
            self.before_list_answer()
        return web.Response(text=answer, content_type="application/json")

    async def _watch(self, request: web.Request, kind: Kind, namespace: str) -> web.StreamResponse:
        fault = self.faults.popleft() if self.faults else ""
        since = int(request.query["resourceVersion"])
        if fault == "410" or since < self.compacted:
            return _status(410, "Expired", "too old resource version")
        if fault.isdigit():
            return _status(int(fault), "Broken", f"watch refused with {fault}")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if fault == "close":
            return response
        if fault == "garbage":
            await response.write(b"not json\n")
            return response
        if fault.startswith("error"):
            status = {"kind": "Status", "code": int(fault.removeprefix("error")), "message": "in the stream"}
            await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
            return response
        if fault == "silence":
            await asyncio.Event().wait()
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query["timeoutSeconds"])
        while True:
            due = [h for h in self.history if h[0] > since and h[2] == kind.plural]
            for version, what, _, raw in due:
                since = version
                if namespace not in ("", raw["metadata"].get("namespace", "")) or not _selected(raw, request):
                    continue
                line = json.dumps({"type": what, "object": raw}).encode() + b"\n"
                if fault == "truncate":
                    await response.write(line[:-10])
                    return response
                await response.write(line * (2 if fault == "twice" else 1))
            if fault == "bookmark" and since < self.version:
                since = self.version
                mark = {"kind": kind.name, "metadata": {"resourceVersion": str(since)}}
                await response.write(json.dumps({"type": "BOOKMARK", "object": mark}).encode() + b"\n")
            try:
                async with asyncio.timeout_at(end), self.moved:
                    await self.moved.wait_for(lambda s=since: self.version > s)
            except TimeoutError:
                return response

    async def _get(self, request: web.Request, key: Key, body: Object) -> web.Response:
        raw = self.objects.get(key)
        return web.json_response(raw) if raw is not None else _status(404, "NotFound", f"{key[2]} not found")

    async def _post(self, request: web.Request, key: Key, body: Object) -> web.Response:
        key = (key[0], key[1], body["metadata"]["name"])
        if key in self.objects:
            return _status(409, "AlreadyExists", f"{key[2]} already exists")
        body["metadata"]["uid"] = f"uid-{self.version + 1}"
        if key[1]:
            body["metadata"]["namespace"] = key[1]
        await self.store(key, body)
        return web.json_response(body, status=201)

    async def _patch(self, request: web.Request, key: Key, body: Any) -> web.Response:
        old = self.objects.get(key)
        if request.content_type == "application/apply-patch+yaml" and old is None:
            return await self._post(request, key, body)
        if old is None:
            return _status(404, "NotFound", f"{key[2]} not found")
        if request.content_type == "application/json-patch+json":
            new = json.loads(json.dumps(old))
            for op in body:
                *path, last = op["path"].strip("/").split("/")
                where = new
                for part in path:
                    where = where[part]
                if op["op"] == "test" and where.get(last) != op["value"]:
                    return _status(422, "Invalid", "the server rejected our request due to an error in our request")
                if op["op"] == "add":
                    where[last] = op["value"]
        else:
            wanted = body.get("metadata", {})
            for name in ("uid", "resourceVersion"):
                if wanted.get(name, old["metadata"][name]) != old["metadata"][name]:
                    return _status(409, "Conflict", "the object has been modified")
            new = _merged(old, body)
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            del self.objects[key]
            return web.json_response(new)
        if _content(new) == _content(old):
            return web.json_response(old)
        await self.store(key, new)
        return web.json_response(new)

    async def _put(self, request: web.Request, key: Key, body: Object) -> web.Response:
        old = self.objects.get(key)
        if old is None:
            return _status(404, "NotFound", f"{key[2]} not found")
        if body["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "the object has been modified")
        await self.store(key, body)
        return web.json_response(body)

    async def _delete(self, request: web.Request, key: Key, body: Object) -> web.Response:
        old = self.objects.get(key)
        if old is None:
            return _status(404, "NotFound", f"{key[2]} not found")
        for name, value in body.get("preconditions", {}).items():
            if old["metadata"][name] != value:
                return _status(409, "Conflict", "the precondition failed")
        kind = next(k for k in ALL if k.plural == key[0])
        await self.remove(kind, key[2], key[1])
        return web.json_response({"kind": "Status", "status": "Success"})

    async def log_in(self) -> Access:
        """Credentials as a kubeconfig would give them: the newest token."""
        return Access(self.url, None, {"Authorization": f"Bearer {self.tokens[-1]}"})

    @contextlib.asynccontextmanager
    async def running(self, *, port: int = 0) -> AsyncIterator[Client]:
        """Serve on a free port; a client of it."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        client = Client(self.log_in)
        try:
            yield client
        finally:
            await client.close()
            await runner.cleanup()


def _parse(path: str) -> tuple[Kind, str, str]:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    kind = next(k for k in ALL if k.plural == parts[0])
    return kind, namespace, parts[1] if len(parts) > 1 else ""


def _selected(raw: Object, request: web.Request) -> bool:
    labels = raw["metadata"].get("labels") or {}
    for term in filter(None, request.query.get("labelSelector", "").split(",")):
        name, equals, value = term.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    merged = dict(old)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(old.get(key), value)
    return merged


def _content(raw: Object) -> Object:
    return {**raw, "metadata": {k: v for k, v in raw["metadata"].items() if k != "resourceVersion"}}


def _status(code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "code": code, "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


@pytest.fixture
def api_server() -> type[APIServer]:
    """The class: make one inside the test's event loop."""
    return APIServer
