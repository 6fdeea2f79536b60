"""What a tenant's rule cannot do to a connector, and what a connector never shows."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.parser import text_string_to_metric_families

from culvert_connector import metrics
from culvert_connector.origins.origins import Origins
from culvert_connector.origins.targets import OriginTarget, compile_rule
from culvert_ingress.document import AddressPolicy, Document, DocumentError, RelayTarget
from culvert_ingress.rules import HTTPService, OriginRequest, Rule, StatusService, UnavailableService
from culvert_protocol.codes import ResetCode

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_d17_a_name_that_only_ends_like_a_rules_is_not_served(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start()
            world.origins.append(origin)
            await world.serve(tools.rule(origin.service(), hostname="*.example.com"))
            assert await world.relay.request(host="a.example.com").complete() == b"ok"
            for host in ("evilexample.com", "example.com", "example.com.evil.test", "a.example.comx"):
                call = world.relay.request(host=host)
                assert (await call.answered()).status == 404
                assert call.fields()["culvert-error"] == "connector; no_rule"
            assert len(origin.clients) == 1

    tools.run(main())


class Seeker:
    """Waits for a connection."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[tuple[ResetCode, str]] = asyncio.get_running_loop().create_future()

    def on_connection(self, connection: Any) -> None:
        connection.abort()
        self.outcome.set_exception(AssertionError("a connection was made"))

    def on_no_connection(self, code: ResetCode, reason: str) -> None:
        self.outcome.set_result((code, reason))


def target(host: str) -> OriginTarget:
    rule = Rule("r", "a.example.com", None, HTTPService("http", host, 80), OriginRequest())
    found = compile_rule(rule, policy=AddressPolicy.CLUSTER.value, hello_world=b"")
    assert isinstance(found, OriginTarget)
    return found


@pytest.mark.parametrize(
    "answers",
    [["169.254.169.254"], ["::ffff:169.254.169.254", "127.0.0.1"], ["64:ff9b::a9fe:a9fe"], ["::1", "fe80::1"]],
)
def test_d18_a_name_that_leads_to_metadata_or_the_node_itself_is_not_dialled(answers: list[str]) -> None:
    async def main() -> None:
        dialled: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.create_connection = lambda *_, **place: dialled.append(place)  # type: ignore[method-assign,assignment]

        async def resolve(host: str, port: int) -> list[str]:
            return answers

        origins, seeker = Origins(resolve=resolve), Seeker()
        origins.acquire(seeker, target("web.shop.svc.cluster.local"), fresh=True, safe=True)
        assert await seeker.outcome == (ResetCode.ORIGIN_UNREACHABLE, "address_not_allowed")
        assert not dialled
        await origins.close()

    asyncio.run(main())


def test_d18_a_refused_service_is_reported_until_it_leads_elsewhere() -> None:
    async def main() -> None:
        answers = ["169.254.169.254"]
        changes: list[int] = []
        loop = asyncio.get_running_loop()

        async def connect(*_: Any, **place: Any) -> Any:
            raise ConnectionRefusedError

        loop.create_connection = connect  # type: ignore[method-assign,assignment]

        async def resolve(host: str, port: int) -> list[str]:
            return list(answers)

        origins = Origins(resolve=resolve, on_refusal=lambda: changes.append(len(origins.refusals.current())))
        for _ in range(2):
            seeker = Seeker()
            origins.acquire(seeker, target("web.test"), fresh=True, safe=True)
            await seeker.outcome
        ((rule, sentence),) = origins.refusals.current()
        assert rule == "r"
        assert "169.254.169.254" in sentence
        assert changes == [1], "the second time is no news"
        await origins.refusals.look()  # as it does by itself from time to time
        assert changes == [1]
        answers[:] = ["10.0.0.1"]
        await origins.refusals.look()
        assert changes == [1, 0]
        # A visitor who comes sooner finds it out as well, and so does a configuration in which the rule is another one.
        for forget in ("visitor", "configuration"):
            answers[:] = ["127.0.0.1"]
            seeker = Seeker()
            origins.acquire(seeker, target("web.test"), fresh=True, safe=True)
            await seeker.outcome
            assert changes.pop() == 1
            if forget == "visitor":
                answers[:] = ["10.0.0.1"]
                seeker = Seeker()
                origins.acquire(seeker, target("web.test"), fresh=True, safe=True)
                assert await seeker.outcome == (ResetCode.ORIGIN_UNREACHABLE, "connection_refused")
            else:
                origins.refusals.keep({"r": ("web.test", 80)})
                assert len(origins.refusals.current()) == 1
                origins.refusals.keep({"r": ("other.test", 80)})
            assert origins.refusals.current() == ()
        await origins.close()

    asyncio.run(main())


def test_d18_an_answer_that_changes_after_the_check_changes_nothing() -> None:
    async def main() -> None:
        dialled: list[str] = []
        asked: list[str] = []
        loop = asyncio.get_running_loop()

        async def connect(*_: Any, host: str, **place: Any) -> Any:
            dialled.append(host)
            raise ConnectionRefusedError

        loop.create_connection = connect  # type: ignore[method-assign,assignment]

        async def resolve(host: str, port: int) -> list[str]:
            asked.append(host)
            return ["10.9.9.9"] if len(asked) == 1 else ["169.254.169.254"]  # DNS rebinding

        origins = Origins(resolve=resolve)
        first = Seeker()
        origins.acquire(first, target("web.test"), fresh=True, safe=True)
        assert await first.outcome == (ResetCode.ORIGIN_UNREACHABLE, "connection_refused")
        assert (dialled, asked) == (["10.9.9.9"], ["web.test"]), "what was checked is dialled, and asked for once"
        second = Seeker()
        origins.acquire(second, target("web.test"), fresh=True, safe=True)
        assert await second.outcome == (ResetCode.ORIGIN_UNREACHABLE, "address_not_allowed")
        assert dialled == ["10.9.9.9"]
        await origins.close()

    asyncio.run(main())


def raw(**service: Any) -> bytes:
    rule = Rule("r", "a.example.com", None, HTTPService("http", "web", 80), OriginRequest())
    document = json.loads(Document(1, "t", RelayTarget(("relay.example.com:443",)), (rule,)).dumps())
    document["rules"][0]["service"].update(service)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "service",
    [
        {"scheme": "file"},
        {"scheme": "gopher"},
        {"host": "user:password@web"},
        {"host": "0x7f.1"},
        {"host": "2130706433"},
        {"host": "127.1"},
        {"host": "web/path"},
        {"host": "web:80"},
        {"host": "web\r\nx"},
        {"type": "unix", "path": "//run/x"},
    ],
)
def test_d18_a_document_with_another_notation_is_not_served(service: dict[str, Any]) -> None:
    Document.loads(raw())
    with pytest.raises(DocumentError):
        Document.loads(raw(**service))


@pytest.mark.parametrize("text", ['"', "'", "${HOME}", "{{ x }}", "\\", "</script>", 'a="b",c="d"', "%s%n", "#"])
def test_d19_texts_of_rules_stay_data_in_answers_metrics_and_status(tools: Any, text: str) -> None:
    async def main() -> None:
        async with tools.world() as world:
            rule_id = f"shop/{text}/web"
            await world.serve(tools.rule(UnavailableService(f"The Service {text} is away."), id=rule_id))
            call = world.relay.request()
            assert await call.complete() == f"503 The Service {text} is away.\n".encode()
            assert call.fields()["content-type"] == "text/plain; charset=utf-8"
            assert call.fields()["culvert-error"] == "connector; service_unavailable"
            exposition = _metrics(world.connector)
            labels = {
                sample.labels["rule"]
                for family in text_string_to_metric_families(exposition)
                for sample in family.samples
                if "rule" in sample.labels
            }
            assert rule_id in labels
            assert json.loads(world.connector.board.current()[0])["ready"] is True

    tools.run(main())


def _metrics(connector: Any) -> str:
    return metrics.exposition(connector.counters, connector._readings()).decode()


@pytest.mark.parametrize("text", ["a\nb", "a\r\nX: y", "\0", "\x1b[31m", "\u202e", "\x7f"])
def test_d19_texts_with_control_characters_are_no_configuration(text: str) -> None:
    document = json.loads(raw())
    for place in ("id", "hostname"):
        broken = json.loads(json.dumps(document))
        broken["rules"][0][place] = text
        with pytest.raises(DocumentError):
            Document.loads(json.dumps(broken).encode())
    document["rules"][0]["service"] = {"type": "unavailable", "message": text}
    with pytest.raises(DocumentError):
        Document.loads(json.dumps(document).encode())


def test_d20_keys_and_tokens_are_in_no_log_metric_status_or_answer(
    tools: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start()
            world.origins.append(origin)
            document = await world.serve(
                tools.rule(origin.service()), tools.rule(StatusService(410), hostname="b.example.com")
            )
            call = world.relay.request(fields=b"Authorization: Bearer visitors-secret-token-0123456789\r\n")
            assert await call.complete() == b"ok"
            await origin.stop()
            call = world.relay.request()
            await tools.until(lambda: call.done or call.head, "an outcome")
            # Another credential, in-band, and a relay that goes.
            fresh = world.issuer.credentials()
            world.source.sink.credentials(fresh)
            await tools.until(lambda: world.connector.sessions.in_use is not None, "a credential")
            world.relay.cut(world.relay.sessions[0])
            await world.relay.connected(1)
            connector = world.connector
            shown = [
                caplog.text,
                _metrics(connector),
                connector.board.current()[0].decode(),
                repr(call.head),
                repr(document.relay),
            ]
            shown += [repr(fresh), str(fresh), repr(connector.sessions.in_use)]
            secrets = [
                world.issuer.key.seed,
                fresh.private_key.seed,
                fresh.private_key.pem(),
                *(token.encode() for token in (fresh.credential, document.grant)),
                b"visitors-secret-token-0123456789",
            ]
            for secret in secrets:
                for form in forms(secret):
                    assert not [text[:200] for text in shown if form in text]

    tools.run(main())


def forms(secret: bytes) -> set[str]:
    """Raw, base64 in both alphabets, URL-encoded."""
    found = {base64.b64encode(secret).decode().rstrip("="), base64.urlsafe_b64encode(secret).decode().rstrip("=")}
    found.add(quote(secret, safe=""))
    if secret.isascii():
        found |= {secret.decode(), *secret.decode().split(".")[1:]}
    return {form for form in found if len(form) > 16}


@pytest.mark.parametrize(
    "hostname", ["Shop.example.com", "shop.example.com.", "bücher.example.com", "192.0.2.1", "a_b.test"]
)
def test_d34_a_document_holds_names_in_one_spelling_only(hostname: str) -> None:
    document = json.loads(raw())
    document["rules"][0]["hostname"] = hostname
    with pytest.raises(DocumentError):
        Document.loads(json.dumps(document).encode())


def test_d34_an_international_name_is_served_under_its_a_label(tools: Any) -> None:
    async def main() -> None:
        async with tools.world() as world:
            origin = await tools.Origin(tools.answering(OK)).start()
            world.origins.append(origin)
            await world.serve(tools.rule(origin.service(), hostname="xn--bcher-kva.example.com"))
            assert await world.relay.request(host="xn--bcher-kva.example.com").complete() == b"ok"
            # A relay that sends anything but the normal form gets no other host's answer.
            call = world.relay.request(host="xn--other.example.com")
            assert (await call.answered()).status == 404

    tools.run(main())
