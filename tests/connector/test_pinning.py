"""Origin connections that are authenticated as somebody: nobody else's request ever travels on them."""

import asyncio
from typing import Any

import pytest

from culvert_connector.origins.pinning import take_visitor
from culvert_protocol.codes import ResetCode
from culvert_protocol.heads import Open

NTLM = b"Authorization: NTLM TlRMTVNTUAABAAAA\r\n"


def visitor(number: int) -> bytes:
    return b"Culvert-Visitor: %d\r\n" % number


def numbering(heads: list[tuple[int, str]]) -> Any:
    """An origin that answers with the number of the connection, and keeps what it heard on which."""
    count = 0

    async def handler(client: Any) -> None:
        nonlocal count
        count += 1
        mine = count
        while True:
            try:
                head = await client.head()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            heads.append((mine, head))
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % mine)

    return handler


def test_each_pinned_visitor_has_an_origin_connection_of_its_own(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            heads: list[tuple[int, str]] = []
            await world.origin(numbering(heads))

            async def ask(fields: bytes) -> bytes:
                return bytes(await world.relay.request(fields=fields).complete())

            assert await ask(b"") == b"1"
            assert await ask(visitor(7) + NTLM) == b"2"
            assert await ask(b"") == b"1"
            assert await ask(visitor(8) + NTLM) == b"3"
            for _ in range(2):
                assert await ask(visitor(7)) == b"2"
                assert await ask(visitor(8)) == b"3"
                assert await ask(b"") == b"1"
            assert all("Culvert-Visitor" not in head for _, head in heads)

    tools.run(main())


def test_without_a_number_an_authenticated_connection_is_not_kept(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            heads: list[tuple[int, str]] = []
            await world.origin(numbering(heads))
            for number, fields in enumerate((b"X: y\r\n" + NTLM, b"authorization:negotiate x\r\n", b""), start=1):
                assert await world.relay.request(fields=fields).complete() == b"%d" % number
            assert await world.relay.request().complete() == b"3"

    tools.run(main())


@pytest.mark.parametrize("line", [visitor(0), b"Culvert-Visitor: x\r\n", b"A: b\r\n" + visitor(1)])
def test_a_line_that_is_not_well_formed_is_refused(tools: Any, line: bytes) -> None:
    async def main() -> None:
        async with tools.world() as world:
            heads: list[tuple[int, str]] = []
            await world.origin(numbering(heads))
            assert (await world.relay.request(fields=line).broken())[0] == ResetCode.BAD_REQUEST
            assert heads == []

    tools.run(main())


def test_the_line_is_taken_away() -> None:
    head, number = take_visitor(Open(fields=visitor(12) + b"A: b\r\n"))
    assert (head.fields, number) == (b"A: b\r\n", 12)
    head, number = take_visitor(Open(fields=b"A: b\r\n"))
    assert (head.fields, number) == (b"A: b\r\n", None)
