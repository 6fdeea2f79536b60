"""Polls of connectors, against a small real status server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from aiohttp import web

from culvert_operator.cluster.stores import Held
from culvert_operator.connectors import MAX_BYTES, Connectors, target_of, tunnel_of_pod
from culvert_operator.keys import ObjectKey
from culvert_operator.reports import ConnectorReport

TUNNEL = ObjectKey("ns", "main")


def pod(
    name: str = "p1", *, port: int = 20241, ip: str = "127.0.0.1", uid: str = "", ready: bool = True, **changes: Any
) -> dict[str, Any]:
    metadata = {
        "namespace": "ns",
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "labels": {"culvert.dev/tunnel": "main"},
    }
    spec = {"containers": [{"ports": [{"name": "status", "containerPort": port}]}]}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": "Running", "podIP": ip, "conditions": conditions}
    made: dict[str, Any] = {"metadata": metadata, "spec": spec, "status": status}
    for path, value in changes.items():
        where, _, key = path.partition("_")
        made[where][key] = value
    return made


def held(raw: dict[str, Any]) -> Held[Any]:
    return Held(raw, raw)


class Status:
    """A connector's status address: long polls, entity tags, and whatever a test orders."""

    def __init__(self) -> None:
        self.report: Any = {"ready": True, "appliedVersion": 1}
        self.number = 0
        self.asked = 0
        self.broken: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.moved = asyncio.Condition()
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        async with self.moved:
            self.moved.notify_all()
            if self.broken is not None:
                return await self.broken(request)
            known = request.headers.get("If-None-Match")
            if known == f'"{self.number}"':
                assert request.query["wait"] == "30s"
                assert request.query["etag"] == known
                await self.moved.wait_for(lambda: known != f'"{self.number}"')
            return web.json_response(self.report, headers={"ETag": f'"{self.number}"'})

    async def change(self, **report: Any) -> None:
        async with self.moved:
            self.report = {"ready": True, "appliedVersion": 1} | report
            self.number += 1
            self.moved.notify_all()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Status]:
        app = web.Application()
        app.router.add_get("/v1/status", self.handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


class Marks:
    """Counts marks, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[ObjectKey] = []
        self.event = asyncio.Event()

    def __call__(self, key: ObjectKey) -> None:
        self.seen.append(key)
        self.event.set()

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(15):
            while not await condition():
                self.event.clear()
                await self.event.wait()


def present(connectors: Connectors) -> Mapping[str, ConnectorReport | None]:
    reports = connectors.reports(TUNNEL)
    assert reports is not None, "a connector that was heard once is not waited for again"
    return reports


async def heard(connectors: Connectors, marks: Marks) -> Mapping[str, ConnectorReport | None]:
    """The reports, once every Pod was heard: the mark that says so must come."""

    async def whole() -> bool:
        return connectors.reports(TUNNEL) is not None

    await marks.until(whole)
    return present(connectors)


def run(scenario: Callable[[Status, Connectors, Marks], Awaitable[None]], **options: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), Status().running() as status:
            marks = Marks()
            connectors = Connectors(marks, **options)
            try:
                await scenario(status, connectors, marks)
            finally:
                await connectors.close()

    asyncio.run(bounded())


def test_the_first_answer_is_waited_for_and_each_change_marks_the_tunnel() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod(port=status.port)))
        report = (await heard(connectors, marks))["p1"]
        assert report is not None
        assert report.applied_version == 1
        before = len(marks.seen)
        await status.change(appliedVersion=2)

        async def applied() -> bool:
            found = present(connectors)["p1"]
            return found is not None and found.applied_version == 2

        await marks.until(applied)
        assert marks.seen[before:] == [TUNNEL]

    run(scenario)


def test_a_report_that_says_the_same_marks_nothing() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod(port=status.port)))
        await heard(connectors, marks)
        before = len(marks.seen)
        asked = status.asked
        await status.change()
        async with status.moved:
            await status.moved.wait_for(lambda: status.asked > asked)
        assert marks.seen[before:] == []

    run(scenario)


def test_a_pod_that_refuses_connections_is_none_without_holding_up_the_others() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod("dead", port=1)))
        connectors.on_pod(None, held(pod("alive", port=status.port)))
        connectors.on_pod(None, held(pod("pending", ip="", ready=False)))
        reports = await heard(connectors, marks)
        assert reports["dead"] is None
        assert reports["alive"] is not None

    run(scenario)


def test_a_pod_that_is_only_starting_is_not_missed_until_its_kubelet_calls_it_ready() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        pending, starting = pod(ip="", ready=False), pod(port=1, ready=False)
        connectors.on_pod(None, held(pending))
        assert await heard(connectors, marks) == {}
        connectors.on_pod(held(pending), held(starting))
        assert await heard(connectors, marks) == {}
        before = len(marks.seen)
        connectors.on_pod(held(starting), held(pod(port=1)))
        assert marks.seen[before:] == [TUNNEL]
        assert await heard(connectors, marks) == {"p1": None}

    run(scenario)


def test_a_pod_that_is_not_ready_is_heard_all_the_same() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod(port=status.port, ready=False)))
        assert (await heard(connectors, marks))["p1"] is not None

    run(scenario)


async def _not_json(request: web.Request) -> web.Response:
    return web.Response(text="<html>")


async def _not_a_report(request: web.Request) -> web.Response:
    return web.json_response(["a", "list"])


async def _redirect(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})


async def _error(request: web.Request) -> web.Response:
    return web.Response(status=500)


async def _too_long(request: web.Request) -> web.Response:
    return web.Response(body=b" " * MAX_BYTES + b'{"ready": true}', content_type="application/json")


@pytest.mark.parametrize("broken", [_not_json, _not_a_report, _redirect, _error, _too_long])
def test_whatever_else_a_connector_answers_is_no_report_and_it_is_asked_again(broken: Any) -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        status.broken = broken
        connectors.on_pod(None, held(pod(port=status.port)))
        assert await heard(connectors, marks) == {"p1": None}
        status.broken = None

        async def answered() -> bool:
            return present(connectors)["p1"] is not None

        await marks.until(answered)

    run(scenario)


def test_a_question_that_was_not_answered_for_long_is_no_evidence_before_others_failed_too() -> None:
    now = [0.0]

    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod(port=status.port)))
        await heard(connectors, marks)
        before = len(marks.seen)
        # A long poll is broken off: the last answer is 40 s old by then.
        now[0] = 40.0
        status.broken = _error
        await status.change()
        async with status.moved:
            asked = status.asked
            await status.moved.wait_for(lambda: status.asked > asked)
            status.broken = None
            await status.moved.wait_for(lambda: status.asked > asked + 1)
        assert present(connectors)["p1"] is not None
        assert marks.seen[before:] == []

    run(scenario, clock=lambda: now[0])


def test_a_short_silence_keeps_the_last_report_and_a_long_one_does_not() -> None:
    now = [0.0]

    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        connectors.on_pod(None, held(pod(port=status.port)))
        await heard(connectors, marks)
        status.broken = _error
        await status.change()
        asked = status.asked
        async with status.moved:
            await status.moved.wait_for(lambda: status.asked > asked + 1)
        assert present(connectors)["p1"] is not None
        now[0] = 60.0

        async def lost() -> bool:
            return present(connectors)["p1"] is None

        await marks.until(lost)

    run(scenario, clock=lambda: now[0])


def test_one_that_is_ready_and_slow_to_answer_the_first_question_is_waited_for() -> None:
    now = [0.0]

    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        never = asyncio.Event()

        async def silent(request: web.Request) -> web.StreamResponse:
            status.moved.release()  # let the next question in
            try:
                await never.wait()
            finally:
                await status.moved.acquire()
            raise AssertionError

        status.broken = silent
        connectors.on_pod(None, held(pod(port=status.port)))
        async with status.moved:
            await status.moved.wait_for(lambda: status.asked > 3)
        assert connectors.reports(TUNNEL) is None
        assert connectors.unheard(TUNNEL) == {"p1"}
        now[0] = 60.0
        assert await heard(connectors, marks) == {"p1": None}
        assert connectors.unheard(TUNNEL) == frozenset()

    run(scenario, clock=lambda: now[0], first_seconds=0.05, hold=60.0)


def test_the_tunnels_work_goes_on_without_one_that_is_slow_to_answer_the_first_question() -> None:
    """A NetworkPolicy between operator and connectors: packets are dropped, and each question takes its whole time."""

    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        never = asyncio.Event()

        async def silent(request: web.Request) -> web.StreamResponse:
            status.moved.release()
            try:
                await never.wait()
            finally:
                await status.moved.acquire()
            return web.json_response(status.report)

        status.broken = silent
        before = pod(ip="")
        connectors.on_pod(None, held(before))
        connectors.on_pod(held(before), held(pod(port=status.port)))
        marks.seen.clear()
        assert connectors.reports(TUNNEL) is None
        assert await heard(connectors, marks) == {"p1": None}
        assert marks.seen == [TUNNEL]
        assert connectors.unheard(TUNNEL) == {"p1"}
        never.set()

        async def answered() -> bool:
            return present(connectors)["p1"] is not None

        await marks.until(answered)
        assert connectors.unheard(TUNNEL) == frozenset()

    run(scenario, hold=0.05)


def test_a_pod_that_goes_or_is_being_deleted_is_forgotten() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        first = pod(port=status.port)
        connectors.on_pod(None, held(first))
        assert list(await heard(connectors, marks)) == ["p1"]
        leaving = pod(port=status.port, metadata_deletionTimestamp="2026-01-01T00:00:00Z")
        connectors.on_pod(held(first), held(leaving))
        assert await heard(connectors, marks) == {}
        connectors.on_pod(held(leaving), None)
        connectors.on_pod(None, held(pod("p2", port=status.port)))
        connectors.on_pod(held(pod("p2", port=status.port)), None)
        assert await heard(connectors, marks) == {}
        assert not connectors._polls
        assert not connectors._pods

    run(scenario)


def test_a_pod_recreated_under_its_name_is_asked_anew() -> None:
    async def scenario(status: Status, connectors: Connectors, marks: Marks) -> None:
        old = pod(port=status.port)
        connectors.on_pod(None, held(old))
        await heard(connectors, marks)
        new = pod(port=1, uid="another")
        connectors.on_pod(held(old), held(new))
        assert await heard(connectors, marks) == {"p1": None}
        assert list(connectors._polls) == ["another"]

    run(scenario)


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:20241/v1/status"),
        ({"ip": "2001:db8::1"}, "http://[2001:db8::1]:20241/v1/status"),
        ({"ip": ""}, None),
        ({"ip": "evil.example.com/#"}, None),
        ({"status_phase": "Failed"}, None),
        ({"metadata_labels": {}}, None),
        ({"spec_containers": [{"ports": [{"name": "status", "containerPort": 9}]}]}, "http://127.0.0.1:9/v1/status"),
        ({"spec_containers": []}, "http://127.0.0.1:20241/v1/status"),
    ],
)
def test_where_a_pod_is_asked(changes: dict[str, Any], url: str | None) -> None:
    target = target_of(pod(**changes))
    assert (target.url if target else None) == url


def test_pods_of_other_things_belong_to_no_tunnel() -> None:
    assert tunnel_of_pod(pod(metadata_labels={"app": "x"})) is None
    assert tunnel_of_pod(json.loads("{}")) is None
    assert tunnel_of_pod(pod()) == TUNNEL
