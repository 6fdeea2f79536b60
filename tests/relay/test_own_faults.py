"""A fault of the relay's own costs one request: its visitor hears of it, its neighbours notice nothing."""

from typing import Any

import pytest

from culvert_protocol.heads import Framing, ResponseHead
from culvert_relay.visitors import exchange as exchange_module
from culvert_relay.visitors.exchange import Exchange

pytestmark = pytest.mark.skipif(
    not str(exchange_module.__file__).endswith(".py"), reason="no defect can be put into a compiled module"
)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("place", ["opening", "final_head"])
def test_a_defect_before_the_answer_is_a_502_and_the_session_lives(
    play: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        with monkeypatch.context() as patch:
            patch.setattr(exchange_module, place, broken)
            response = await visitor.get("app.example.com")
            assert response.status == 502
            assert response.field("culvert-error") == "relay; relay_error"
            assert await visitor.rest() == b""
        assert world.edge.counters.failures == 1
        assert connector.closed is None
        other = await world.visitor()
        assert (await other.get("app.example.com")).status == 200
        assert not connector.session.streams

    play(scenario)


def test_a_defect_in_the_middle_of_a_response_cuts_it_and_the_session_lives(
    play: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the request")
        (request,) = connector.requests
        request.stream.send_head(ResponseHead(200, Framing.CHUNKED), b"first")
        assert (await visitor.head()).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "_on_data", broken)
            request.stream.write(b"second")
            with pytest.raises(ConnectionError):
                await visitor.rest()
        await wait_until(lambda: request.reset is not None, "the reset")
        assert connector.closed is None

    play(scenario)


def test_a_defect_while_a_head_is_read_is_a_502(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"])
        visitor = await world.visitor()
        with monkeypatch.context() as patch:
            patch.setattr("culvert_http1.repeated.parse_request_head", broken)
            assert (await visitor.get("app.example.com")).status == 502
            assert await visitor.rest() == b""
        assert connector.requests == []

    play(scenario)
