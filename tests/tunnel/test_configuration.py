"""A configuration that changes while visitors are served."""

import asyncio
import itertools
from typing import Any

import aiohttp
from aiohttp import web

CHANGES = 100
LOOK_OFTEN = "import culvert_connector.sources.file as file\nfile.LOOK_EVERY = 0.05"
"""The connector looks at its file once a second; a hundred changes are to take seconds all the same."""


def test_a24_a25_a_hundred_changes_under_load_disturb_no_other_host_and_no_websocket(
    tunnel: Any, wait_for: Any
) -> None:
    """Also an invalid file in between: the last good one stays, and the status says what is wrong."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path != "/ws":
            return web.Response(text=request.host)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def scenario() -> None:
        steady = {"hostname": "steady.example.com", "service": tunnel.url("app")}
        last = {"service": "http_status:404"}
        await tunnel.start(ingress=[steady, last], without=LOOK_OFTEN)
        (connector,) = tunnel.connectors
        failed: list[object] = []
        sent = 0
        stop = asyncio.Event()

        async def load(browser: Any) -> None:
            nonlocal sent
            while not stop.is_set():
                sent += 1
                try:
                    async with browser.get("/") as response:
                        if (response.status, await response.text()) != (200, "steady.example.com"):
                            failed.append(response.status)
                except aiohttp.ClientError as error:
                    failed.append(error)
                await asyncio.sleep(0.005)

        async def apply(rules: list[dict[str, Any]]) -> int:
            before = (await connector.status())["appliedVersion"]
            connector.write({**connector.config, "ingress": [*rules, last]})
            status = await connector.reports(lambda status: status["appliedVersion"] > before, "the new version")
            assert status["configError"] is None
            return int(status["appliedVersion"])

        async with (
            tunnel.origin(handler),
            tunnel.browser("steady.example.com") as browser,
            browser.ws_connect("/ws") as socket,
        ):
            loads = [asyncio.create_task(load(browser)) for _ in range(3)]
            before = (await connector.status())["sessions"]
            version = 0
            for number in range(CHANGES):
                await socket.send_str(f"before {number}")
                status = 451 if number % 3 else 410
                changing = {"hostname": "changing.example.com", "service": f"http_status:{status}"}
                newer = await apply(
                    [steady] if number % 4 == 3 else [changing, steady] if number % 2 else [steady, changing]
                )
                assert newer > version
                version = newer
                expected = 404 if number % 4 == 3 else status
                assert (await tunnel.get(host="changing.example.com")).status == expected
                assert await socket.receive_str() == f"before {number}"
                if number == CHANGES // 2:
                    for broken, word in (
                        ("ingress: [{service: 'htp://nowhere'}]", "htp"),
                        ("ingress: [\n", "YAML"),
                        (_with_typo(connector.config, steady, last), "hostnam"),
                    ):
                        connector.write(broken)
                        report = await connector.reports(
                            lambda status, word=word: word in str(status["configError"]), f"what is wrong with {word}"
                        )
                        assert report["appliedVersion"] == version
                        assert report["ready"]
                    assert (await tunnel.get(host="changing.example.com")).status == expected
            stop.set()
            await asyncio.gather(*loads)
            await socket.send_str("after")
            assert await socket.receive_str() == "after"
            assert failed == []
            assert sent > 500
            after = (await connector.status())["sessions"]
            assert [(one["slot"], one["relay"]) for one in after] == [(one["slot"], one["relay"]) for one in before]

    asyncio.run(scenario())


def _with_typo(config: dict[str, Any], *rules: dict[str, Any]) -> dict[str, Any]:
    first, *rest = rules
    return {**config, "ingress": [{"hostnam": first["hostname"], "service": first["service"]}, *rest]}


def test_a_changed_service_gets_new_requests_while_the_old_one_finishes(tunnel: Any) -> None:
    go = asyncio.Event()

    async def old(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"old, ")
        await go.wait()
        await response.write(b"to the end")
        return response

    async def new(request: web.Request) -> web.Response:
        return web.Response(text="new")

    async def scenario() -> None:
        await tunnel.start(ingress=[{"service": tunnel.url("old")}])
        (connector,) = tunnel.connectors
        async with (
            tunnel.origin(old, "old"),
            tunnel.origin(new, "new"),
            tunnel.browser() as browser,
            browser.get("/") as response,
        ):
            assert await response.content.readexactly(5) == b"old, "
            before = (await connector.status())["appliedVersion"]
            connector.write({**connector.config, "ingress": [{"service": tunnel.url("new")}]})
            await connector.reports(lambda status: status["appliedVersion"] > before, "the new version")
            assert (await tunnel.get()).body == b"new"
            go.set()
            assert await response.content.read() == b"to the end"

    asyncio.run(scenario())


def test_the_status_answers_a_waiting_reader_as_soon_as_something_changes(tunnel: Any) -> None:
    async def scenario() -> None:
        await tunnel.start()
        (connector,) = tunnel.connectors
        for _ in itertools.repeat(None):  # until the report has come to rest
            status, _, fields = await connector.fetch(connector.admin, "/v1/status")
            assert status == 200
            same, _, _ = await connector.fetch(connector.admin, f"/v1/status?wait=500ms&etag={fields['etag']}")
            if same == 304:
                break
        path = f"/v1/status?wait=50s&etag={fields['etag']}"
        waiting = asyncio.create_task(connector.fetch(connector.admin, path))
        connector.write("nonsense: true")
        changed, body, after = await asyncio.wait_for(waiting, 45)
        assert changed == 200
        assert b"nonsense" in body
        assert after["etag"] != fields["etag"]

    asyncio.run(scenario())
