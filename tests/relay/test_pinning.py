"""Visitors who authenticate their connection: named to the connector, and kept on one session."""

from typing import Any

import pytest

from culvert_http1.authentication import authenticates_connection

NTLM = "Authorization: NTLM TlRMTVNTUAABAAAA\r\n"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (b"Authorization: NTLM abc\r\n", True),
        (b"A: b\r\nauthorization:\tnegotiate abc\r\n", True),
        (b"A: b\r\nAUTHORIZATION:Ntlm\r\n", True),
        (b"Authorization: Basic NTLM\r\n", False),
        (b"Authorization: NTLMx abc\r\n", False),
        (b"X-Authorization: NTLM abc\r\n", False),
        (b"A: Authorization: NTLM abc\r\n", False),
        (b"", False),
    ],
)
def test_which_requests_authenticate_their_connection(fields: bytes, found: bool) -> None:
    assert authenticates_connection(fields) is found


def test_a_pinned_visitor_is_named_in_all_later_requests_over_one_session(play: Any) -> None:
    async def scenario(world: Any) -> None:
        ends = [await world.connector(["app.example.com"], features=("pinning",)) for _ in range(3)]
        lines = set()
        for _ in range(4):
            visitor = await world.visitor()
            lie = "Culvert-Visitor: 1\r\n"
            assert (await visitor.get("app.example.com", extra=lie)).status == 200
            before = [len(end.requests) for end in ends]
            for extra in (NTLM, "", "Authorization: Basic x\r\n", "", "", ""):
                assert (await visitor.get("app.example.com", extra=extra)).status == 200
            served = [end.requests[count:] for end, count in zip(ends, before, strict=True)]
            (mine,) = [requests for requests in served if requests]
            assert len(mine) == 6
            (line,) = {request.head.fields.partition(b"\r\n")[0] for request in mine}
            assert line.startswith(b"Culvert-Visitor: ")
            lines.add(line)
        assert len(lines) == 4
        first = [request.head.fields for end in ends for request in end.requests]
        assert sum(b"Culvert-Visitor" in fields for fields in first) == 24

    play(scenario)


def test_a_pinned_visitor_goes_on_elsewhere_when_its_session_is_lost(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        one, other = [await world.connector(["app.example.com"], features=("pinning",)) for _ in range(2)]
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com", extra=NTLM)).status == 200
        holder, spare = (one, other) if one.requests else (other, one)
        holder.session.close("gone")
        await wait_until(lambda: len(world.relay.tunnels.sessions()) == 1, "the session's end")
        assert (await visitor.get("app.example.com")).status == 200
        assert spare.requests[-1].head.fields.startswith(b"Culvert-Visitor: ")

    play(scenario)


def test_a_connector_that_does_not_know_the_line_never_sees_it(play: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        for extra in (NTLM, ""):
            assert (await visitor.get("app.example.com", extra=extra)).status == 200
        assert all(b"Culvert-" not in request.head.fields for request in connector.requests)

    play(scenario)
