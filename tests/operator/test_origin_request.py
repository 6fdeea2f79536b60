"""`originRequest` of a binding's rule: what becomes of every key, to the document that connectors are given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from culvert_ingress.document import Document
from culvert_ingress.rules import HeaderEdits, OriginRequest, PathRewrite
from culvert_operator.keys import ObjectKey

MAIN, WEB = ObjectKey("culvert-system", "main"), ObjectKey("shop", "web")
HTTPS = {"name": "web", "port": 443, "scheme": "https"}
EVERYTHING = {
    "responseTimeout": "5m",
    "matchSNItoHost": True,
    "disableChunkedEncoding": True,
    "pathRewrite": {"replacePrefix": "/v2"},
    "requestHeaders": {"set": [{"name": "X-Team", "value": "shop"}], "remove": ["Cookie"]},
    "responseHeaders": {"add": [{"name": "Set-Cookie", "value": "a=1"}, {"name": "Set-Cookie", "value": "b=2"}]},
}


@pytest.fixture
def world(world: Any) -> Any:
    world.service("web", "shop", port=443)
    return world


def bind(world: Any, **rule: Any) -> None:
    full = {
        "name": "web",
        "hostname": "a.example.com",
        "path": {"type": "PathPrefix", "value": "/api"},
        "service": HTTPS,
    }
    world.binding("web", "shop", rules=[{**full, **rule}])
    world.settle()


def test_every_key_reaches_the_document(world: Any) -> None:
    bind(world, originRequest=EVERYTHING)
    assert world.condition(WEB, "Ready") == ("True", "Ready")
    document = world.document(MAIN)
    assert document.schema == 2
    assert Document.loads(document.dumps()) == document
    assert document.rules[0].origin_request == OriginRequest(
        response_timeout=300_000,
        match_sni_to_host=True,
        disable_chunked_encoding=True,
        path_rewrite=PathRewrite("/api", "/v2"),
        request_headers=HeaderEdits(set=(("X-Team", "shop"),), remove=("Cookie",)),
        response_headers=HeaderEdits(add=(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))),
    )
    bind(world)
    assert world.document(MAIN).rules[0].origin_request == OriginRequest(), "reverting restores"
    assert world.document(MAIN).schema == 1


@pytest.mark.parametrize("key", [key for key in EVERYTHING if key != "responseTimeout"])
def test_a_connector_that_does_not_know_a_key_is_not_given_it(world: Any, key: str) -> None:
    reports = world.reports

    def old(tunnel: ObjectKey) -> dict[str, Any]:
        return {name: _schema_one(report) for name, report in reports(tunnel).items()}

    world.reports = old
    bind(world, originRequest={key: EVERYTHING[key]})
    document = world.document(MAIN)
    assert document.schema == 1
    assert document.rules[0].origin_request == OriginRequest()
    assert f'"{key}":' not in document.dumps().decode()
    assert world.condition(WEB, "ResolvedRefs") == ("False", "ConnectorTooOld")
    assert f"originRequest.{key}" in world.status(WEB)["rules"][0]["message"]


def _schema_one(report: Any) -> Any:
    return None if report is None else replace(report, schemas=(1,))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        # What the API server has refused already; an object stored before its rule existed is refused here.
        ({"originRequest": {"pathRewrite": {}}}, "either stripPrefix or replacePrefix"),
        ({"originRequest": {"pathRewrite": {"stripPrefix": "/other"}}}, "begins with the segments '/other'"),
        ({"originRequest": {"pathRewrite": {"replacePrefix": "/a%2fb"}}}, "encoded slash"),
        ({"originRequest": {"pathRewrite": {"replacePrefix": "/a\r\nX: y"}}}, "percent-encoded"),
        (
            {
                "path": {"type": "RegularExpression", "value": "/a"},
                "originRequest": {"pathRewrite": {"stripPrefix": "/a"}},
            },
            "begins with the segments",
        ),
        ({"originRequest": {"requestHeaders": {"remove": ["Host"]}}}, "requestHeaders: .*httpHostHeader"),
        ({"originRequest": {"responseHeaders": {"remove": ["A", "a"]}}}, "responseHeaders: .*named twice"),
        ({"originRequest": {"requestHeaders": {"set": [{"name": "A", "value": "b\nc"}]}}}, "one line"),
        ({"originRequest": {"matchSNItoHost": True, "originServerName": "a"}}, "remove it, or originServerName"),
        ({"originRequest": {"responseTimeout": "soon"}}, "duration"),
        (
            {"protocol": "TLS", "path": None, "service": {"name": "web", "port": 443}, "originRequest": EVERYTHING},
            "no paths|remove them from a TCP or TLS rule",
        ),
    ],
)
def test_what_cannot_be_carried_out_rejects_the_rule_with_a_sentence(
    world: Any, rule: dict[str, Any], said: str
) -> None:
    if rule.get("path", "") is None:
        rule = {**rule, "path": {"type": "PathPrefix", "value": "/"}, "originRequest": {"disableChunkedEncoding": True}}
    bind(world, **rule)
    [status] = world.status(WEB)["rules"]
    assert (status["accepted"], status["reason"]) == (False, "InvalidRule")
    assert re.search(said, status["message"])


def test_the_relays_proxy_reaches_the_document_and_not_connectors_that_do_not_know_it(world: Any) -> None:
    bind(world)
    relay = {"addresses": ["relay.example.net:443"], "proxyURL": "http://Proxy.example.com:3128/"}
    world.tunnel(relay=relay)
    world.settle()
    assert world.document(MAIN).relay.proxy == "http://proxy.example.com:3128"
    assert world.document(MAIN).schema == 2
    world.tunnel(relay={"addresses": ["relay.example.net:443"]})
    world.settle()
    assert world.document(MAIN).relay.proxy is None
    before = world.document(MAIN)
    reports = world.reports
    world.reports = lambda tunnel: {name: _schema_one(report) for name, report in reports(tunnel).items()}
    world.tunnel(relay=relay)
    world.settle()
    assert world.document(MAIN) == before
    assert world.condition(MAIN, "Accepted") == ("False", "ConnectorTooOld")
    assert "relay.proxyURL" in world.message(MAIN, "Accepted")


@pytest.mark.parametrize("url", ["http://me:s3cret@proxy:3128", "socks5://proxy:1080"])
def test_d19_a_proxy_with_credentials_is_no_tunnel_and_they_are_not_repeated(world: Any, url: str) -> None:
    world.tunnel(relay={"addresses": ["relay.example.net:443"], "proxyURL": url})
    world.settle()
    assert world.condition(MAIN, "Accepted") == ("False", "InvalidTunnel")
    assert "spec.relay: " in world.message(MAIN, "Accepted")
    assert "s3cret" not in str(world.status(MAIN))
