"""JSON over HTTP, as providers need it: bounded, without redirects, failures as sentences.

Responsible for: one session per provider, time and size limits, Retry-After (RFC 9110, section 10.2.3).
Must not know: any provider's API.
Invariant: no header of a request (credentials are there) is in any error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from culvert_operator.dns.provider import ProviderError

CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 60.0
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its JSON (None when it is none), and for how many seconds to stay away (0: not said)."""

    status: int
    data: Any
    retry_after: float


class JSONClient:
    """Requests of one provider to ``base`` (a URL without a trailing slash)."""

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Answer:
        """One request. Raises ProviderError when no whole answer came."""
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=TOTAL_SECONDS, connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=limits)
        data = json.dumps(body).encode() if body is not None else None
        try:
            async with self._session.request(
                method, self.base + path, params=query or {}, headers=headers, data=data, allow_redirects=False
            ) as response:
                received = await self._body(response)
                return Answer(response.status, _decoded(received), _seconds(response.headers.get("Retry-After")))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise ProviderError(f"{method} {self.base}{path} failed: {said}.") from error

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        received = bytearray()
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > MAX_BYTES:
                raise ProviderError(f"{self.base} answers with more than {MAX_BYTES} bytes; that is not read.")
        return bytes(received)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            held, self._session = self._session, None
            await held.close()


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _seconds(text: str | None) -> float:
    """A Retry-After of seconds; 0 for none, and for a date, which providers do not send."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 7 else 0.0
