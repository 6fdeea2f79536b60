"""An operator in a world where nothing changes, and one whose API server goes away for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from culvert_operator.cluster import kinds

from .fault_proxy import made
from .fault_world import Story
from .ways import Ways

AWAY_SECONDS = 30.0


@pytest.fixture
def run(to_the_server: Ways) -> Callable[[int, Callable[[Story], Awaitable[None]]], None]:
    """A story's world, laid out and at rest, for a scenario of the test's own."""

    def once(number: int, scenario: Callable[[Story], Awaitable[None]]) -> None:
        story = Story(to_the_server, number)

        async def bounded() -> None:
            async with asyncio.timeout(200), story.living():
                await story.lay_out(story.tunnel_spec(), story.rules("old"))
                await story.rest()
                await scenario(story)
                assert story.failures + story.proxy.refused == []

        asyncio.run(bounded())

    return once


def test_d35_at_rest_nothing_is_written_while_everything_is_listed_again_twice(
    run: Callable[[int, Callable[[Story], Awaitable[None]]], None],
) -> None:
    async def scenario(story: Story) -> None:
        proxy = story.proxy
        written, events = len(proxy.writes), proxy.events
        assert written
        assert proxy.watched  # or the lists would be all that the operator has
        for _ in range(2):
            before = proxy.listed.copy()
            while not all(proxy.listed[kind] > n for kind, n in before.items()):
                proxy.cut_watches()  # again and again: one that is just being renewed is not there to be cut
                await asyncio.sleep(0.5)
            await story.rest()
        assert [write.name for write in proxy.writes[written:]] == []
        assert proxy.events == events

    run(7001, scenario)


def test_d06_an_api_server_that_is_away_for_half_a_minute_costs_no_record_and_no_route(
    run: Callable[[int, Callable[[Story], Awaitable[None]]], None],
) -> None:
    async def scenario(story: Story) -> None:
        before, written = await story.state(), len(story.proxy.writes)
        story.proxy.go_away(AWAY_SECONDS)
        away = time.monotonic() + AWAY_SECONDS
        await story.client.patch(kinds.BINDING, story.name, "first", {"spec": story.rules("new")})
        while time.monotonic() < away:
            state = await story.state()
            assert (state["zone"], state["rules"], state["claims"]) == (
                before["zone"],
                before["rules"],
                before["claims"],
            )
            await asyncio.sleep(1.0)
        await story.settled("first", "new")
        created, deleted = made(story.proxy.writes[written:])
        assert [path for path in created if "/hostnameclaims" not in path] == []
        assert [path for path in deleted if "/hostnameclaims" not in path] == []

    run(7002, scenario)
