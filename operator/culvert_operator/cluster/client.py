"""A small client of the Kubernetes API over aiohttp: JSON in, JSON out, errors as values of one class.

Responsible for: requests with timeouts, logging in again when refused, Status answers as :class:`APIError`, and a
watch's lines. Must not know: stores, plans, what an object means.
Invariant: nothing waits without a limit; a body or a header never reaches a log.

aiohttp instead of a generated client: the operator needs eight requests, server-side apply with its own content type,
watches that notice silence, and answers to its own writes (the generated asyncio client returns None on 201).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from culvert_operator.cluster.connection import TOKEN_SECONDS, Access
from culvert_operator.cluster.kinds import Kind
from culvert_operator.leadership.fence import Fence, NotLeader, always

REQUEST_SECONDS = 30.0
CONNECT_SECONDS = 10.0
MAX_LINE = 16 * 1024 * 1024
FIELD_MANAGER = "culvert"

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
# Asks for metadata alone, where contents are nobody's business (and megabytes).
METADATA_ONLY = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1,application/json"

Object = Mapping[str, Any]


class APIError(Exception):
    """The API server refused, or could not be asked (``status`` 0). The text is its own sentence, shortened."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @property
    def gone(self) -> bool:
        """The object (or its version in a watch) is no longer there."""
        return self.status in (404, 410)

    @property
    def conflict(self) -> bool:
        """Somebody else wrote first."""
        return self.status == 409

    @property
    def final(self) -> bool:
        """Trying the same again will be refused again, until something else changes."""
        return self.status in (400, 403, 405, 413, 415, 422)


class Client:
    """Requests to one API server. ``fence`` says until when anything but reading is allowed; ``answered`` is told the
    method (or WATCH) and the status of each answer, 0 when there was none."""

    def __init__(
        self,
        log_in: Callable[[], Awaitable[Access]],
        *,
        clock: Callable[[], float] = time.monotonic,
        fence: Fence | None = None,
        answered: Callable[[str, int], None] = lambda verb, code: None,
    ) -> None:
        self._log_in = log_in
        self._fence = fence or always()
        self._answered = answered
        self._clock = clock
        self._access: Access | None = None
        self._read_at = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ready(self, *, refused: Access | None = None) -> tuple[aiohttp.ClientSession, Access]:
        """A session with fresh credentials; ``refused`` are those that the server has just answered 401 to."""
        async with self._lock:
            stale = self._clock() - self._read_at > TOKEN_SECONDS
            if self._access is None or stale or (refused is not None and refused is self._access):
                access = await self._log_in()
                self._read_at = self._clock()
                if self._access is not None and access.server != self._access.server:
                    await self.close()
                if self._access is not None and self._access.headers == access.headers and refused is None:
                    access = self._access
                self._access = access
            if self._session is None:
                # HTTP/1.1 with one connection per watch: the limit must not starve requests.
                connector = aiohttp.TCPConnector(limit=0, ssl=self._access.tls or True)
                self._session = aiohttp.ClientSession(connector=connector)
            return self._session, self._access

    @contextlib.asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        data: bytes | None,
        limits: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        refused: Access | None = None
        verb = "WATCH" if "watch" in query else method
        for attempt in range(2):
            try:
                session, access = await self._ready(refused=refused)
                async with session.request(
                    method,
                    access.server + path,
                    params=query,
                    headers={**headers, **access.headers},
                    data=data,
                    timeout=limits,
                    proxy=access.proxy,
                    allow_redirects=False,
                ) as response:
                    self._answered(verb, response.status)
                    if response.status == 401 and attempt == 0:
                        refused = access
                        continue
                    if response.status >= 300:
                        raise await _refusal(response)
                    yield response
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._answered(verb, 0)
                said = f"{method} {path}: {error or type(error).__name__}"
                raise APIError(0, "Unreachable", said) from error

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """One request; the decoded answer. Raises APIError (reason ``NotLeader`` for a write that is fenced)."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Accept": accept} | ({"Content-Type": content_type} if data is not None else {})
        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS, connect=CONNECT_SECONDS)
        if method != "GET":
            await self._ready()  # logging in may take a while, and the fence is asked last
            try:
                left = self._fence.left()
            except NotLeader as error:
                raise APIError(0, "NotLeader", str(error)) from error
            limits = aiohttp.ClientTimeout(total=min(REQUEST_SECONDS, left), connect=CONNECT_SECONDS)
        async with self._response(
            method, path, query=query or {}, headers=headers, data=data, limits=limits
        ) as response:
            try:
                return await response.json(content_type=None)
            except ValueError as error:
                raise APIError(0, "Unreadable", f"{method} {path}: the answer is not JSON.") from error

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """One object; None when it does not exist."""
        try:
            found: Object = await self.request("GET", kind.path(namespace, name))
        except APIError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        """POST an object. 409 AlreadyExists when there is one of the name."""
        created: Object = await self.request(
            "POST", kind.path(namespace), body=body, query={"fieldManager": FIELD_MANAGER}
        )
        return created

    async def apply(self, kind: Kind, namespace: str | None, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Server-side apply with force: what we state is ours, what we do not state is left alone."""
        applied: Object = await self.request(
            "PATCH",
            kind.path(namespace, body["metadata"]["name"]),
            body=body,
            content_type=APPLY,
            query={"fieldManager": manager, "force": "true"},
        )
        return applied

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        body: object,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """A merge patch or JSON patch."""
        patched: Object = await self.request(
            "PATCH",
            kind.path(namespace, name, subresource),
            body=body,
            content_type=content_type,
            query={"fieldManager": FIELD_MANAGER},
        )
        return patched

    async def replace(self, kind: Kind, namespace: str | None, name: str, body: Object) -> Object:
        """PUT an object; the body's resourceVersion is the precondition."""
        replaced: Object = await self.request(
            "PUT", kind.path(namespace, name), body=body, query={"fieldManager": FIELD_MANAGER}
        )
        return replaced

    async def delete(
        self, kind: Kind, namespace: str | None, name: str, *, uid: str, resource_version: str | None = None
    ) -> Object:
        """DELETE with preconditions: 409 when it is another object by now. The answer is a Status or the object."""
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        deleted: Object = await self.request("DELETE", kind.path(namespace, name), body=options)
        return deleted

    async def lines(
        self, path: str, *, query: Mapping[str, str], accept: str, seconds: float, quiet: float
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a watch, until the server ends it. Raises APIError; reason ``Silent`` when nothing came for
        ``quiet`` seconds or the server did not end within ``seconds``, ``Truncated`` for a last line without an end.
        """
        limits = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS, sock_read=quiet)
        held = bytearray()
        try:
            async with self._response(
                "GET", path, query=query, headers={"Accept": accept}, data=None, limits=limits
            ) as response:
                async for chunk in response.content.iter_any():
                    held += chunk
                    if b"\n" not in chunk:
                        if len(held) > MAX_LINE:
                            raise APIError(0, "TooLong", f"GET {path}: a line of more than {MAX_LINE} bytes.")
                        continue
                    *whole, rest = bytes(held).split(b"\n")
                    held = bytearray(rest)
                    for line in whole:
                        if line.strip():
                            yield line
        except APIError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise APIError(0, "Silent", f"GET {path}: the watch fell silent.") from error
            raise
        if held.strip():
            raise APIError(0, "Truncated", f"GET {path}: the watch ended inside a line.")


async def _refusal(response: aiohttp.ClientResponse) -> APIError:
    """The error of an answer: the Status object's reason and message, or what can be told without one."""
    reason, message = response.reason or "", ""
    try:
        status = json.loads((await response.content.read(65536)).decode(errors="replace"))
        reason = str(status.get("reason") or reason)
        message = str(status.get("message") or "")
    except (ValueError, AttributeError):
        message = f"the API server answered {response.status}."
    retry_after: float | None = None
    with contextlib.suppress(ValueError):
        retry_after = min(float(response.headers.get("Retry-After", "")), 300.0)
    return APIError(response.status, reason, message[:1000], retry_after=retry_after)
