"""Electors against a small API server: who leads when, and that writes stop with the Lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.elector import Elector
from culvert_operator.leadership.election import Terms
from culvert_operator.leadership.fence import Fence

TERMS = Terms(lease=2.0, renew=1.0, retry=0.1, look=0.05)


class Candidate:
    """An elector, its fence and a client behind it."""

    def __init__(self, server: Any, client: Client, name: str, clock: Callable[[], float] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.fence = Fence(clock or loop.time)
        self.writer = Client(server.log_in, fence=self.fence)
        self.leads = asyncio.Event()
        self.lost = asyncio.Event()
        self.told: list[bool] = []
        elector = Elector(
            client,
            self.fence,
            namespace="ns",
            name="lease",
            identity=name,
            terms=TERMS,
            clock=clock or loop.time,
            told=self.told.append,
        )
        self.task = asyncio.ensure_future(elector.run(self._lead))

    async def _lead(self) -> None:
        self.leads.set()
        self.lost.clear()
        try:
            await asyncio.Event().wait()
        finally:
            self.leads.clear()
            self.lost.set()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.writer.close()


def run(api_server: Any, scenario: Callable[[Any, Client], Awaitable[None]]) -> None:
    async def bounded() -> None:
        server = api_server()
        async with asyncio.timeout(30), server.running() as client:
            await scenario(server, client)

    asyncio.run(bounded())


def holder(server: Any) -> Any:
    return server.objects["leases", "ns", "lease"]["spec"].get("holderIdentity")


def test_one_of_two_leads_and_only_it_may_write(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        first = Candidate(server, client, "first")
        await first.leads.wait()
        second = Candidate(server, client, "second")
        before = len(server.requests)
        await server.asked(lambda requests: len([r for r in requests[before:] if r[0] == "GET"]) > 6)
        assert holder(server) == "first"
        assert not second.leads.is_set()
        await first.writer.create(kinds.CLAIM, None, {"metadata": {"name": "a"}})
        with pytest.raises(APIError) as refused:
            await second.writer.create(kinds.CLAIM, None, {"metadata": {"name": "b"}})
        assert refused.value.reason == "NotLeader"
        assert {key[2] for key in server.objects if key[0] == "hostnameclaims"} == {"a"}
        assert await second.writer.get(kinds.CLAIM, None, "a") is not None  # reading is everybody's
        await first.end()
        await second.end()

    run(api_server, scenario)


def test_a_leader_that_ends_in_good_order_gives_the_lease_back_at_once(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        first = Candidate(server, client, "first")
        await first.leads.wait()
        second = Candidate(server, client, "second")
        loop = asyncio.get_running_loop()
        started = loop.time()
        await first.end()
        await second.leads.wait()
        assert loop.time() - started < TERMS.renew  # it did not wait for the duration
        assert holder(server) == "second"
        assert first.told == [True, False]
        await second.end()
        assert holder(server) is None

    run(api_server, scenario)


def test_d24_a_leader_that_was_stopped_beyond_its_lease_is_replaced_and_its_late_write_is_refused(
    api_server: Any,
) -> None:
    async def scenario(server: Any, client: Client) -> None:
        loop = asyncio.get_running_loop()
        skipped = [0.0]
        first = Candidate(server, client, "first", lambda: loop.time() + skipped[0])
        await first.leads.wait()
        # What a stopped process looks like to itself: from one instruction to the next, a long time has passed.
        skipped[0] = 100.0
        with pytest.raises(APIError) as refused:
            await first.writer.create(kinds.CLAIM, None, {"metadata": {"name": "late"}})
        assert refused.value.reason == "NotLeader"
        assert not [key for key in server.objects if key[0] == "hostnameclaims"]
        await first.lost.wait()
        await first.end()

    run(api_server, scenario)


def test_a_leader_that_cannot_renew_stops_before_another_may_take_over(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        first = Candidate(server, client, "first")
        await first.leads.wait()
        cut_off = Client(server.log_in)
        second = Candidate(server, cut_off, "second")
        await server.asked(lambda requests: requests.count(("GET", requests[0][1])) > 3)
        await client.close()
        server.tokens.append("the first one's login no longer works")
        first_login, client._log_in = client._log_in, _refuse
        loop = asyncio.get_running_loop()
        client._access = None
        await first.lost.wait()
        lost = loop.time()
        with pytest.raises(APIError):
            await first.writer.create(kinds.CLAIM, None, {"metadata": {"name": "late"}})
        await second.leads.wait()
        assert loop.time() > lost
        client._log_in = first_login
        await first.end()
        await second.end()
        await cut_off.close()

    run(api_server, scenario)


async def _refuse() -> Any:
    raise APIError(0, "Unreachable", "no way to the API server")


def test_of_two_candidates_at_once_the_api_server_chooses_one(api_server: Any) -> None:
    async def scenario(server: Any, client: Client) -> None:
        both = [Candidate(server, client, name) for name in ("first", "second")]
        await asyncio.wait([asyncio.ensure_future(c.leads.wait()) for c in both], return_when=asyncio.FIRST_COMPLETED)
        before = len(server.requests)
        await server.asked(lambda requests: len(requests) > before + 8)
        assert [c.leads.is_set() for c in both].count(True) == 1
        for candidate in both:
            await candidate.end()

    run(api_server, scenario)
