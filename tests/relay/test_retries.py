"""Requests that a session fails before any response: sent again where that is safe, answered where it is not."""

from typing import Any

import pytest

from culvert_protocol.codes import ResetCode
from culvert_relay.visitors.retries import MAX_ATTEMPTS_REFUSED, MAX_RETAINED, may_retry

REQUEST = b"%b /x HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: %d\r\n\r\n%b"


def resetting(code: int, reason: str = "") -> Any:
    return lambda request: request.stream.reset(code, reason)


async def two_connectors(world: Any, bad: Any, good: Any = None) -> tuple[Any, Any]:
    """One connector that fails requests, and one that serves them; the failing one is always asked first."""
    options = {} if good is None else {"handler": good}
    first = await world.connector(["app.example.com"], handler=bad)
    second = await world.connector(["app.example.com"], **options)
    # The bad one comes first in the pool, and 0.0 picks the first two in order.
    world.edge.random = lambda: 0.0
    return first, second


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_refused_request_goes_to_another_connector_whatever_its_method(play: Any, method: bytes) -> None:
    async def scenario(world: Any) -> None:
        bad, good = await two_connectors(world, resetting(ResetCode.REFUSED))
        visitor = await world.visitor()
        visitor.send(REQUEST % (method, 4, b"body"))
        response = await visitor.response()
        assert (response.status, response.body) == (200, method + b" /x body")
        assert (len(bad.requests), len(good.requests)) == (1, 1)
        assert (bad.requests[0].head.attempt, good.requests[0].head.attempt) == (0, 1)
        assert world.edge.counters.retries == 1

    play(scenario)


def test_a_request_that_everybody_refuses_ends_with_503(play: Any) -> None:
    async def scenario(world: Any) -> None:
        ends = [await world.connector(["app.example.com"], handler=resetting(ResetCode.REFUSED)) for _ in range(6)]
        visitor = await world.visitor()
        response = await visitor.get("app.example.com")
        assert (response.status, response.field("culvert-error")) == (503, "connector; refused")
        assert response.field("retry-after") is not None
        assert sum(len(end.requests) for end in ends) == MAX_ATTEMPTS_REFUSED

    play(scenario)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        (ResetCode.ORIGIN_UNREACHABLE, 502, "origin; origin_unreachable"),
        (ResetCode.ORIGIN_TIMEOUT, 504, "origin; origin_timeout"),
        (ResetCode.ORIGIN_PROTOCOL, 502, "origin; origin_protocol"),
        (ResetCode.UNAVAILABLE, 503, "connector; unavailable"),
        (ResetCode.INTERNAL, 502, "connector; internal"),
        (ResetCode.BAD_REQUEST, 400, "connector; bad_request"),
        (ResetCode.CANCEL, 502, "session; cancelled"),
        (ResetCode.NO_ERROR, 502, "session; no_response"),
        (777, 502, "session; reset"),
    ],
)
def test_each_reset_has_its_answer(play: Any, code: int, status: int, error: str) -> None:
    async def scenario(world: Any) -> None:
        await world.connector(["app.example.com"], handler=resetting(code))
        visitor = await world.visitor()
        visitor.send(REQUEST % (b"POST", 0, b""))
        response = await visitor.response()
        assert (response.status, response.field("culvert-error")) == (status, error)
        assert response.field("cache-control") == "no-store"
        # The connection lives on.
        visitor.send(REQUEST % (b"POST", 0, b""))
        assert (await visitor.response()).status == status

    play(scenario)


def test_a_connectors_own_reason_is_passed_on_only_as_a_token(play: Any) -> None:
    reasons = ["rule_is_broken", "evil\r\nX: y", "Not A Token"]

    async def scenario(world: Any) -> None:
        await world.connector(
            ["app.example.com"], handler=lambda request: request.stream.reset(ResetCode.UNAVAILABLE, reasons.pop(0))
        )
        visitor = await world.visitor()
        for expected in ("connector; rule_is_broken", "connector; unavailable", "connector; unavailable"):
            assert (await visitor.get("app.example.com")).field("culvert-error") == expected

    play(scenario)


@pytest.mark.parametrize(("method", "delivered"), [(b"GET", 2), (b"POST", 1)])
def test_a_lost_session_is_survived_by_safe_methods_only(play: Any, method: bytes, delivered: int) -> None:
    async def scenario(world: Any) -> None:
        bad, good = await two_connectors(world, lambda request: request.connector.link._transport.abort())
        visitor = await world.visitor()
        visitor.send(REQUEST % (method, 0, b""))
        response = await visitor.response()
        if delivered == 2:
            assert response.status == 200
        else:
            assert (response.status, response.field("culvert-error")) == (502, "session; session_lost")
        assert len(bad.requests) + len(good.requests) == delivered

    play(scenario)


def test_a_safe_request_is_sent_twice_at_most(play: Any) -> None:
    async def scenario(world: Any) -> None:
        ends = [
            await world.connector(["app.example.com"], handler=resetting(ResetCode.ORIGIN_UNREACHABLE))
            for _ in range(3)
        ]
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com")).status == 502
        assert sum(len(end.requests) for end in ends) == 2

    play(scenario)


def test_a_request_is_not_sent_again_to_the_siblings_of_a_lost_session_while_others_are_there(play: Any) -> None:
    async def scenario(world: Any) -> None:
        name = "00000000-0000-4000-8000-aaaaaaaaaaaa"

        def die(request: Any) -> None:
            request.connector.link._transport.abort()

        doomed = [
            await world.connector(["app.example.com"], connector=name, slot=slot, handler=die) for slot in range(4)
        ]
        good = await world.connector(["app.example.com"])
        world.edge.random = lambda: 0.0
        visitor = await world.visitor()
        assert (await visitor.get("app.example.com")).status == 200
        assert sum(len(end.requests) for end in doomed) == 1
        assert len(good.requests) == 1

    play(scenario)


@pytest.mark.parametrize(("size", "again"), [(MAX_RETAINED, True), (MAX_RETAINED + 1, False)])
def test_a_body_is_kept_for_sending_again_up_to_64_kib(play: Any, size: int, again: bool) -> None:
    def refuse_at_the_end(request: Any) -> None:
        if request.fin:
            request.stream.reset(ResetCode.REFUSED)

    async def scenario(world: Any) -> None:
        _, good = await two_connectors(world, refuse_at_the_end)
        visitor = await world.visitor()
        visitor.send(REQUEST % (b"PUT", size, b"z" * size))
        response = await visitor.response()
        assert response.status == (200 if again else 503)
        assert [len(request.body) for request in good.requests] == ([size] if again else [])

    play(scenario)


def test_the_rest_of_a_body_follows_a_request_that_was_sent_again(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        bad, good = await two_connectors(world, lambda request: None)
        visitor = await world.visitor()
        visitor.send(b"PUT /x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await wait_until(lambda: bool(bad.requests) and bad.requests[0].body == b"abc", "the first part")
        bad.requests[0].stream.reset(ResetCode.REFUSED)
        await wait_until(lambda: bool(good.requests) and good.requests[0].body == b"abc", "the first part elsewhere")
        visitor.send(b"3\r\ndef\r\n0\r\n\r\n")
        assert (await visitor.response()).body == b"PUT /x abcdef"

    play(scenario)


def test_nothing_is_sent_again_after_the_first_sign_of_a_response(play: Any, wait_until: Any) -> None:
    from culvert_protocol.heads import ResponseHead

    def early_then_gone(request: Any) -> None:
        request.stream.send_head(ResponseHead(103))
        request.stream.reset(ResetCode.REFUSED)

    async def scenario(world: Any) -> None:
        _, good = await two_connectors(world, early_then_gone)
        visitor = await world.visitor()
        visitor.send(b"GET /x HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        assert (await visitor.head()).status == 103
        assert (await visitor.response()).status == 503
        assert not good.requests

    play(scenario)


def test_sessions_that_are_full_are_passed_over_and_named_when_all_are(play: Any, wait_until: Any) -> None:
    async def scenario(world: Any) -> None:
        connector = await world.connector(["app.example.com"], handler=lambda request: None)
        (session,) = world.relay.tunnels.sessions()
        session.stream_limit = 1
        first, second = await world.visitor(), await world.visitor()
        first.send(b"GET / HTTP/1.1\r\nHost: app.example.com\r\n\r\n")
        await wait_until(lambda: bool(connector.requests), "the first request")
        response = await second.get("app.example.com")
        assert (response.status, response.field("culvert-error")) == (503, "relay; sessions_busy")

    play(scenario)


@pytest.mark.parametrize("code", list(ResetCode))
def test_an_unsafe_method_is_sent_again_only_when_refused(code: ResetCode) -> None:
    assert may_retry(code, method=b"POST", attempts=1) == (code is ResetCode.REFUSED)
    assert not may_retry(code, method=b"GET", attempts=MAX_ATTEMPTS_REFUSED)
