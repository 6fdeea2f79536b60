"""The elector: keeps a Lease for as long as it can, and leads while it does.

Responsible for: reading and writing the Lease, the deadline of the fence, starting and ending the leading.
Must not know: what a leader does, who else is a candidate.
Invariants: the fence opens once a write of the Lease was answered, until ``renew`` seconds after that write was *sent*;
others wait ``lease`` seconds from when they saw it, which is later, so that two never write at once; leading ends when
the fence closes; a leader that ends in good order gives the Lease back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.connection import LoginError
from culvert_operator.leadership.election import Move, Sighting, Terms, decide, lease, read, released
from culvert_operator.leadership.fence import Fence, boot_time

RELEASE_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Elector:
    """One candidate. ``client`` must not be behind ``fence``: it writes the Lease, and nothing else."""

    def __init__(
        self,
        client: Client,
        fence: Fence,
        *,
        namespace: str,
        name: str,
        identity: str,
        terms: Terms,
        clock: Callable[[], float] = boot_time,
        wall: Callable[[], float] = time.time,
        told: Callable[[bool], None] = lambda leading: None,
    ) -> None:
        self._client = client
        self._fence = fence
        self._namespace, self._name = namespace, name
        self._identity, self._terms = identity, terms
        self._clock, self._wall, self._told = clock, wall, told
        self._seen = Sighting(None, clock())
        self._until = 0.0

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled: wait for the Lease, lead, and when it is lost wait again. An error of ``lead`` comes out."""
        while True:
            await self._acquire()
            fields = {"lease": f"{self._namespace}/{self._name}", "identity": self._identity}
            _log.info("this operator leads", extra={"fields": fields})
            self._told(True)
            leading = asyncio.ensure_future(lead())
            keeping = asyncio.ensure_future(self._keep())
            try:
                await asyncio.wait((leading, keeping), return_when=asyncio.FIRST_COMPLETED)
                if leading.done():
                    leading.result()
                    return
                _log.warning("this operator no longer leads", extra={"fields": fields})
            finally:
                self._told(False)
                self._fence.close()
                for task in (leading, keeping):
                    task.cancel()
                await asyncio.gather(leading, keeping, return_exceptions=True)
                await self._release()

    async def _acquire(self) -> None:
        """Return once the Lease is ours."""
        while True:
            wait: float | None
            try:
                async with asyncio.timeout(self._terms.renew):
                    wait = await self._turn()
            except (APIError, LoginError, TimeoutError) as error:
                fields = {"lease": f"{self._namespace}/{self._name}", "reason": str(error) or "no answer"}
                _log.warning("the Lease cannot be read or written", extra={"fields": fields})
                wait = self._terms.retry
            if wait is None:
                return
            await asyncio.sleep(min(wait, self._terms.look))

    async def _keep(self) -> None:
        """Renew until that has not worked for too long, or somebody else holds the Lease."""
        while True:
            left = self._until - self._clock()
            if left <= 0:
                return
            await asyncio.sleep(min(self._terms.retry, left))
            try:
                async with asyncio.timeout(max(0.0, self._until - self._clock())):
                    if await self._turn() is not None:
                        return
            except TimeoutError:
                return
            except (APIError, LoginError) as error:
                fields = {"lease": f"{self._namespace}/{self._name}", "reason": str(error)}
                _log.warning("the Lease could not be renewed", extra={"fields": fields})

    async def _turn(self) -> float | None:
        """One look at the Lease and the move that follows: None when it is ours now, else seconds to wait."""
        record = read(await self._client.get(kinds.LEASE, self._namespace, self._name))
        self._seen = self._seen.again(record, self._clock())
        move, wait = decide(self._seen, identity=self._identity, now=self._clock())
        if move is Move.WAIT:
            return wait
        body = lease(
            record,
            name=self._name,
            namespace=self._namespace,
            identity=self._identity,
            terms=self._terms,
            wall=self._wall(),
        )
        sent = self._clock()
        try:
            if move is Move.CREATE:
                answer = await self._client.create(kinds.LEASE, self._namespace, body)
            else:
                answer = await self._client.replace(kinds.LEASE, self._namespace, self._name, body)
        except APIError as error:
            if error.conflict or error.status == 404:
                return self._terms.look  # somebody else was first
            raise
        self._seen = Sighting(read(answer), self._clock())
        self._until = sent + self._terms.renew
        self._fence.extend(self._until)
        return None

    async def _release(self) -> None:
        record = self._seen.record
        if record is None or record.holder != self._identity or self._clock() >= self._until:
            return
        body = released(record, name=self._name, namespace=self._namespace, wall=self._wall())
        with contextlib.suppress(APIError, LoginError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                answer = await self._client.replace(kinds.LEASE, self._namespace, self._name, body)
                self._seen = Sighting(read(answer), self._clock())
