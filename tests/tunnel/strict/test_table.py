"""Every row of the table through a relay and a connector to an origin that keeps every byte it hears."""

import asyncio
from collections import Counter
from typing import Any

OWN = ("culvert-", "keep-alive", "proxy", "te", "trailer", "upgrade", "http2-settings", "content_length", "x-a")
"""Beginnings of names that no row may bring to an origin, two rows excepted."""
BRINGS = {"obs_text_passes": ["x-a"], "a_websocket_handshake_that_is_refused": ["upgrade"]}


async def ok(heard: Any, writer: asyncio.StreamWriter) -> None:
    body = heard.target[:40].encode() + heard.body
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_the_row_gets_its_answers_and_the_origin_hears_what_it_must(shared: Any, case: Any, smuggled: bytes) -> None:
    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin:
            async with shared.visitor() as visitor:
                closes = case.statuses[-1] not in (200, 204, 404)
                # Behind an error nothing is a request any more.
                visitor.send(case.wire + smuggled if closes else case.wire)
                for expected in case.statuses:
                    response = await visitor.response()
                    allowed = expected if isinstance(expected, tuple) else (expected,)
                    assert response.status in allowed, case.rfc
                    if closes and response.status >= 400:
                        assert response.blame is not None
                        assert response.blame.startswith("relay; ")
                if closes:
                    assert response.field("connection") == "close"
                if closes or response.field("connection") == "close":
                    assert await visitor.rest() == b""
            assert (await shared.get("/later", host="raw.example.com")).status == 200
            assert [heard.target for heard in origin.requests] == [*case.targets, "/later"]
            assert b"smuggled" not in bytes(origin.received).replace(smuggled, b"")
            for heard in origin.requests[:-1]:
                hops = [name for name in heard.names if name.startswith(OWN)]
                assert hops == BRINGS.get(case.name, [])

    asyncio.run(scenario())


def test_every_row_stands_there_once_and_every_bullet_about_requests_has_some(cases: Any) -> None:
    assert {case.bullet for case in cases} >= {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13}
    assert [name for name, count in Counter(case.name for case in cases).items() if count > 1] == []
    assert [wire for wire, count in Counter(case.wire for case in cases).items() if count > 1] == []


def test_b07_the_table_is_heard_the_same_byte_by_byte(shared: Any, cases: Any) -> None:
    """How the bytes are cut must not matter: every row again, in single bytes, on connections side by side.

    But for the refused handshake: what comes after its answer, and not with it, is the next request.
    """

    async def scenario() -> None:
        async with shared.raw_origin(ok) as origin:

            async def one(case: Any) -> None:
                async with shared.visitor() as visitor:
                    for byte in case.wire:
                        visitor.send(bytes((byte,)))
                        await asyncio.sleep(0)
                    for expected in case.statuses:
                        allowed = expected if isinstance(expected, tuple) else (expected,)
                        assert (await visitor.response()).status in allowed, case.name

            short = [case for case in cases if len(case.wire) < 1000 and case.name not in BRINGS]
            for start in range(0, len(short), 20):
                await asyncio.gather(*(one(case) for case in short[start : start + 20]))
            heard = Counter(heard.target for heard in origin.requests)
            assert heard == Counter(target for case in short for target in case.targets)

    asyncio.run(scenario())
