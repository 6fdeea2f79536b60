"""The report, its ETag, waiting for the next one, and the address that serves it."""

import asyncio
import dataclasses
import json

import aiohttp
import pytest

from culvert_connector.admin import AdminError
from culvert_connector.status import (
    RefusedHostname,
    RefusedOrigin,
    RelayProblem,
    Report,
    SessionReport,
    StatusBoard,
    etag,
)
from culvert_ingress.rules import StatusService

REPORT = Report(
    connector_id="7f1c",
    version="0.1.0",
    schemas=(1,),
    ready=True,
    draining=False,
    applied_version=7,
    config_error=None,
    key_id="key",
    credential_expires_at=1732380000,
    sessions=(SessionReport("relay-1", "10.0.0.5:443", 0, "connected", True, 7),),
    refused=(RefusedHostname("x.example.com", "relay-1", "not_in_issuer", 7),),
    refused_origins=(RefusedOrigin("shop/web/r0", "address_not_allowed", "it is a metadata address"),),
    relay_errors=(RelayProblem("10.0.0.6:443", "RelayUnreachable", "no answer"),),
)


def test_the_reports_shape_is_the_one_the_operator_reads():
    assert json.loads(REPORT.dumps()) == {
        "connectorId": "7f1c",
        "version": "0.1.0",
        "schemas": [1],
        "ready": True,
        "draining": False,
        "appliedVersion": 7,
        "configError": None,
        "keyId": "key",
        "credentialExpiresAt": 1732380000,
        "sessions": [
            {
                "relay": "relay-1",
                "address": "10.0.0.5:443",
                "slot": 0,
                "state": "connected",
                "probed": True,
                "grantVersion": 7,
            }
        ],
        "refusedHostnames": [
            {"hostname": "x.example.com", "relay": "relay-1", "reason": "not_in_issuer", "version": 7}
        ],
        "refusedOrigins": [
            {"rule": "shop/web/r0", "reason": "address_not_allowed", "message": "it is a metadata address"}
        ],
        "relayErrors": [{"address": "10.0.0.6:443", "reason": "RelayUnreachable", "message": "no answer"}],
    }


def test_equal_reports_have_equal_tags_whatever_the_order_of_their_lists():
    second = SessionReport("relay-2", "10.0.0.7:443", 1, "connected", True, 7)
    one = dataclasses.replace(REPORT, sessions=(*REPORT.sessions, second))
    other = dataclasses.replace(REPORT, sessions=(second, *REPORT.sessions))
    assert etag(one.dumps()) == etag(other.dumps())
    assert etag(one.dumps()) != etag(REPORT.dumps())
    assert etag(b"") == '"e3b0c44298fc1c149afbf4c8996fb924"'


def test_one_hostname_refused_on_many_sessions_of_a_relay_is_one_entry():
    many = dataclasses.replace(REPORT, refused=REPORT.refused * 4)
    assert many.dumps() == REPORT.dumps()


def test_a_waiter_sees_the_first_change_and_nothing_when_there_is_none():
    async def main():
        version = 1
        board = StatusBoard(lambda: dataclasses.replace(REPORT, applied_version=version))
        _, tag = board.current()
        assert await board.other_than(tag, within=0.05) is None
        waiter = asyncio.create_task(board.other_than(tag, within=5))
        await asyncio.sleep(0)
        board.changed()  # nothing that shows
        await asyncio.sleep(0)
        assert not waiter.done()
        version = 2
        board.changed()
        body, new = await waiter
        assert json.loads(body)["appliedVersion"] == 2
        assert new != tag
        assert await board.other_than(tag, within=5) == (body, new)

    asyncio.run(main())


def test_the_address_serves_status_probes_and_metrics(tools):
    async def main():
        async with tools.world() as world, aiohttp.ClientSession() as http:
            admin = await world.connector.listen(host="127.0.0.1", port=0, search=False)
            base = f"http://{admin.address}"

            async def get(path, **options):
                async with http.get(base + path, **options) as answer:
                    return answer.status, await answer.text(), answer.headers

            assert (await get("/livez"))[0] == 200
            code, text, _ = await get("/readyz")
            assert (code, text) == (503, "No configuration has been applied yet.\n")
            await world.serve(tools.rule(StatusService(204), id="the-rule"))
            await world.relay.request().complete()
            assert (await get("/readyz"))[0] == 200
            code, text, headers = await get("/v1/status")
            assert code == 200
            report = json.loads(text)
            assert report["ready"] is True
            assert report["sessions"][0]["relay"] == "relay-1"
            tag = headers["ETag"]
            assert (await get("/v1/status", headers={"If-None-Match": tag}))[0] == 304
            code, _, again = await get(f"/v1/status?etag={tag.strip(chr(34))}&wait=100ms")
            assert (code, again["ETag"]) == (304, tag)
            waiter = asyncio.create_task(get("/v1/status", params={"etag": tag, "wait": "30s"}))
            await asyncio.sleep(0.1)
            document = await world.serve(tools.rule(StatusService(204), id="the-rule"))
            code, text, headers = await waiter
            assert code == 200
            assert headers["ETag"] != tag
            await tools.until(lambda: world.connector.report().applied_version == document.version, "the version")
            assert (await get("/v1/status?wait=soon"))[0] == 400
            _, text, headers = await get("/metrics")
            assert headers["Content-Type"].startswith("text/plain")
            await tools.until(lambda: world.connector.sessions.probed, "a probe")
            lines = text.splitlines()
            assert 'culvert_connector_sessions{state="connected"} 1.0' in lines
            assert f"culvert_connector_config_version {float(document.version)}" in lines
            assert 'culvert_connector_requests_total{rule="the-rule",code_class="2xx",source="none"} 1.0' in lines
            assert any(line.startswith("culvert_credential_expiry_timestamp_seconds 1") for line in lines)
            assert world.connector._credentials.credential not in text

    tools.run(main())


def test_a_taken_port_is_an_error_unless_another_may_be_searched(tools):
    async def main():
        async with tools.world() as world:
            import socket

            with socket.socket() as taken:
                taken.bind(("127.0.0.1", 0))
                taken.listen()
                port = taken.getsockname()[1]
                with pytest.raises(AdminError, match=f"127.0.0.1:{port} cannot be listened on.*metrics"):
                    await world.connector.listen(host="127.0.0.1", port=port, search=False)

    tools.run(main())


def test_the_default_port_gives_way_to_a_free_one(tools, monkeypatch):
    from culvert_connector import admin as admin_module

    async def main():
        import socket

        async with tools.world() as world:
            with socket.socket() as taken, socket.socket() as also:
                for one in (taken, also):
                    one.bind(("127.0.0.1", 0))
                    one.listen()
                first, second = taken.getsockname()[1], also.getsockname()[1]
                monkeypatch.setattr(admin_module, "DEFAULT_PORT", first)
                monkeypatch.setattr(admin_module, "NEXT_PORTS", (second, 0))
                admin = await world.connector.listen(host="127.0.0.1", port=first, search=True)
                assert admin.port not in (0, first, second)

    tools.run(main())
