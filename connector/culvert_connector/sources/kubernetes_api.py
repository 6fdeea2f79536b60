"""List and watch of single named objects over the Kubernetes API, with aiohttp and nothing else.

Responsible for one watch: list by `metadata.name`, watch from the list's resourceVersion, list again whenever that
breaks (410, an ERROR event, silence, an end, a truncated line), with backoff. And for the Pod's own credentials, which
the kubelet replaces while the Pod runs.

Must not know: what the objects mean.

Invariants: what the caller saw last is at most one watch behind the API server, or older than WATCH_SECONDS; the
token is read from its file for every request; answers are bounded in size.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from culvert_connector.dialling.backoff import Failures

log = logging.getLogger(__name__)

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_SECONDS: Final = 240
"""The server is asked to end a watch after this; twice as long without a byte means that the connection is dead."""
LIST_TIMEOUT: Final = 15.0
MAX_OBJECT: Final = 4 << 20
"""Bytes of one answer or watch event; the API server itself stores no object over about 1.5 MiB."""


@dataclass(frozen=True, slots=True)
class APIServer:
    """Where the API server is, and where the Pod's token and its CA are mounted."""

    url: str
    token_file: Path
    ca_file: Path | None

    @classmethod
    def of_pod(cls, environment: Mapping[str, str], *, folder: Path = SERVICE_ACCOUNT) -> APIServer | None:
        """The API server of the Pod this runs in; None outside a Pod."""
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            return None
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", folder / "token", folder / "ca.crt")


class WatchError(Exception):
    """A list or watch that failed; the text says how. `expired`: only the resourceVersion was too old."""

    def __init__(self, sentence: str, *, expired: bool = False) -> None:
        super().__init__(sentence)
        self.expired = expired


class ObjectWatch:
    """Follows one object. `on_object` gets it whenever it is seen, None when it does not exist;
    `on_state` a sentence when the API cannot be read, None when it can again."""

    def __init__(
        self,
        server: APIServer,
        *,
        kind: str,
        namespace: str,
        name: str,
        on_object: Callable[[Mapping[str, Any] | None], None],
        on_state: Callable[[str | None], None],
        random: Callable[[], float],
    ) -> None:
        self._server = server
        self._url = f"{server.url}/api/v1/namespaces/{namespace}/{kind}"
        self._what = f"{kind}/{name}"
        self._selector = f"metadata.name={name}"
        self._on_object = on_object
        self._on_state = on_state
        self._random = random

    async def run(self) -> None:
        """Lists and watches until cancelled."""
        context: ssl.SSLContext | bool = True
        if self._server.ca_file is not None:
            context = ssl.create_default_context(cafile=str(self._server.ca_file))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS * 2)
        connector = aiohttp.TCPConnector(ssl=context, limit=2)
        failures = Failures()
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            while True:
                try:
                    version = await self._list(http)
                    self._on_state(None)
                    failures = Failures()
                    while True:
                        version = await self._watch(http, version)
                except WatchError as error:
                    if error.expired:
                        await asyncio.sleep(0.1 * self._random())
                        continue
                    sentence = str(error)
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    sentence = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                failures = failures.after(lived=None, needed=0.0)
                self._on_state(f"{self._what} cannot be followed at the API server: {sentence}")
                await asyncio.sleep(failures.delay(self._random()))

    async def _list(self, http: aiohttp.ClientSession) -> str:
        async with asyncio.timeout(LIST_TIMEOUT):
            async with http.get(self._url, params={"fieldSelector": self._selector}, headers=self._headers()) as answer:
                _check(answer.status)
                body = await answer.content.read(MAX_OBJECT + 1)
                while not answer.content.at_eof() and len(body) <= MAX_OBJECT:
                    body += await answer.content.read(MAX_OBJECT + 1 - len(body))
        if len(body) > MAX_OBJECT:
            raise WatchError(f"its answer is over {MAX_OBJECT} bytes")
        value = _mapping(json.loads(body))
        items = value.get("items") or []
        self._on_object(_mapping(items[0]) if items else None)
        return _version(value)

    async def _watch(self, http: aiohttp.ClientSession, version: str) -> str:
        """One watch request; returns the version to go on from when the server ended it in good order."""
        params = {
            "fieldSelector": self._selector,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with http.get(self._url, params=params, headers=self._headers()) as answer:
            _check(answer.status)
            async for line in _lines(answer.content):
                event = _mapping(json.loads(line))
                kind, item = event.get("type"), _mapping(event.get("object") or {})
                if kind == "ERROR":
                    code = item.get("code")
                    raise WatchError(f"the watch ended with {code}", expired=code == 410)
                if kind in ("ADDED", "MODIFIED"):
                    self._on_object(item)
                elif kind == "DELETED":
                    self._on_object(None)
                version = _version(item)
        return version

    def _headers(self) -> dict[str, str]:
        try:
            token = self._server.token_file.read_text().strip()
        except OSError as error:
            raise WatchError(f"the Pod's token {self._server.token_file} cannot be read ({error.strerror})") from None
        return {"Authorization": f"Bearer {token}", "Accept": "application/json"}


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to MAX_OBJECT; a last line without its end is an error, for it was cut."""
    parts: list[bytes] = []
    size = 0
    async for chunk in stream.iter_any():
        rest = chunk
        while (end := rest.find(b"\n")) >= 0:
            parts.append(rest[:end])
            yield b"".join(parts)
            parts, size, rest = [], 0, rest[end + 1 :]
        if rest:
            parts.append(rest)
            size += len(rest)
            if size > MAX_OBJECT:
                raise WatchError(f"an event is over {MAX_OBJECT} bytes")
    if parts:
        raise WatchError("the watch was cut in the middle of an event")


def _check(status: int) -> None:
    if status == 410:
        raise WatchError("the version is gone", expired=True)
    if status == 403:
        raise WatchError("403: the connector's Role does not allow get, list and watch of it by name")
    if status != 200:
        raise WatchError(f"the API server answered {status}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise WatchError("its answer is not an object")
    return value


def _version(value: Mapping[str, Any]) -> str:
    metadata = value.get("metadata")
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version:
        raise WatchError("its answer has no resourceVersion")
    return version
