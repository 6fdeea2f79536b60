"""Keeping a store true: list, then watch, for as long as the process lives.

Responsible for: when to list again and when to go on watching, with backoff. Must not know: what the objects mean.

Invariants: no failure of a watch ends the process; whatever could have hidden a change leads to a new list, which
replaces the store. After any of these no change stays unseen longer than about 90 seconds:

====================================  ==========================================================
the watch                             what follows
====================================  ==========================================================
ends as the server was asked to       watch on from the last version that was seen
410 (as a status or as an ERROR)      list at once; further ones in a row back off
ERROR with another code, e.g. 500     list, with backoff
a line that is cut off or no JSON     list, with backoff
no byte for about 70 seconds          list, with backoff
connection refused, 403, 429, 5xx     list, with backoff (Retry-After is honoured)
====================================  ==========================================================

Bookmarks move the version on, so that the next watch of a quiet kind does not start from an expired one. Each watch is
asked for about a minute: silence cannot be told from peace any earlier, since bookmarks come once a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

from culvert_operator.backoff import Backoff
from culvert_operator.cluster.client import JSON, METADATA_ONLY, APIError, Client
from culvert_operator.cluster.stores import Object, Store

PAGE = 500
WATCH_SECONDS = 55
GRACE = 15.0
PATIENCE = 1.3
"""A watch without a byte for so many times the seconds that the server was asked for has fallen silent."""

GONE_SECONDS = 10.0
"""How often a namespace that is not there is looked at again: it may be made anew, with the operator's rights."""

_log = logging.getLogger(__name__)


class Reflector:
    """Lists and watches one kind in one scope into one store."""

    def __init__(
        self,
        client: Client,
        store: Store[Any],
        *,
        namespace: str | None = None,
        selector: str = "",
        metadata_only: bool = False,
        watch_seconds: float = WATCH_SECONDS,
        quiet: float = WATCH_SECONDS * PATIENCE,
        backoff: Backoff | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._store = store
        self._namespace = namespace
        self._path = store.kind.path(namespace)
        self._query = {"labelSelector": selector} if selector else {}
        self._metadata_only = metadata_only
        self._watch_seconds = watch_seconds
        self._quiet = quiet
        self._backoff = backoff or Backoff(first=0.5, most=30.0, random=random.random)
        self._sleep = sleep
        self._gone = gone

    async def run(self) -> None:
        """Forever; cancel to stop."""
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                version = await self._watch(version)
                self._backoff.reset()
            except APIError as error:
                version = None
                if error.status == 403 and self._gone():
                    # The rights went with the namespace, and so did what was in it.
                    self._store.replace((), began=self._store.begin_list(), scope=self._namespace)
                    await self._sleep(GONE_SECONDS)
                else:
                    await self._wait(error)
            except Exception:
                # A bug in parsing or in a listener must not end the watch of a kind for good, nor spin.
                _log.exception("watching failed", extra={"fields": {"path": self._path}})
                version = None
                await self._sleep(self._backoff.next())

    async def _wait(self, error: APIError) -> None:
        delay = max(self._backoff.next(), error.retry_after or 0.0)
        if error.status == 410 and self._backoff.count == 1:
            delay = 0.0
        elif error.status != 410:
            _log.warning(
                "the watch is lost, listing again",
                extra={"fields": {"path": self._path, "reason": error.reason, "delay": round(delay, 2)}},
            )
        await self._sleep(delay)

    async def _list(self) -> str:
        began = self._store.begin_list()
        items: list[Object] = []
        query = {**self._query, "limit": str(PAGE)}
        accept = METADATA_ONLY.format(list="List") if self._metadata_only else JSON
        while True:
            page = await self._client.request("GET", self._path, query=query, accept=accept)
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise APIError(0, "Unreadable", f"GET {self._path}: the answer is not a list.")
            # A list leaves out of its items what it says once; a watch and a GET do not.
            named = {"apiVersion": self._store.kind.api_version, "kind": self._store.kind.name}
            items.extend(named | item for item in page["items"])
            following = page["metadata"].get("continue")
            if not following:
                break
            query["continue"] = following
        self._store.replace(items, began=began, scope=self._namespace)
        return str(page["metadata"].get("resourceVersion", ""))

    async def _watch(self, version: str) -> str:
        """Follow until the server ends the watch as asked; the last version seen."""
        query = {
            **self._query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, round(self._watch_seconds))),
        }
        accept = METADATA_ONLY.format(list="") if self._metadata_only else JSON
        lines = self._client.lines(
            self._path, query=query, accept=accept, seconds=self._watch_seconds + GRACE, quiet=self._quiet
        )
        seen = 0
        async with contextlib.aclosing(lines):
            async for line in lines:
                kind, found = _event(line, self._path)
                if kind == "ERROR":
                    code = found.get("code")
                    raise APIError(
                        code if isinstance(code, int) else 0, "InStream", str(found.get("message", ""))[:200]
                    )
                if kind in ("ADDED", "MODIFIED", "DELETED"):
                    self._store.event(kind, found)
                elif kind != "BOOKMARK":
                    raise APIError(0, "Unreadable", f"GET {self._path}: an event of the unknown type {kind[:40]!r}.")
                version = str((found.get("metadata") or {}).get("resourceVersion") or version)
                seen += 1
                if seen == 1:
                    self._backoff.reset()
        if not seen:
            # A server that ends every watch at once must not be asked in a tight loop.
            await self._sleep(min(1.0, self._backoff.first))
        return version


def _event(line: bytes, path: str) -> tuple[str, dict[str, Any]]:
    try:
        decoded = json.loads(line)
    except ValueError as error:
        raise APIError(0, "Truncated", f"GET {path}: a line of the watch is not JSON.") from error
    if not isinstance(decoded, dict) or not isinstance(decoded.get("object"), dict):
        raise APIError(0, "Unreadable", f"GET {path}: a line of the watch is not an event.")
    return str(decoded.get("type", "")), decoded["object"]
