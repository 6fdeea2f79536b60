"""Connectors of several versions: the configuration is one that the oldest reads, and rules say what they miss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from culvert_ingress import document, schemas
from culvert_ingress.durations import parse
from culvert_ingress.schemas import DocumentKey, RuleKey
from culvert_operator import compile as compiling
from culvert_operator import earlier
from culvert_operator.keys import ObjectKey
from culvert_operator.reports import parse_report

MAIN, WEB = ObjectKey("culvert-system", "main"), ObjectKey("shop", "web")
LATER = {"connectTimeout": "7s"}
PRESENT_KEYS = schemas.DOCUMENT_KEYS


@pytest.fixture
def world(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Connect timeouts other than the default came with schema 2, fallbacks from 410 on with schema 3."""
    keys = (
        RuleKey("originRequest.connectTimeout", 2, lambda rule: rule.origin_request.connect_timeout != parse("30s")),
    )
    monkeypatch.setattr(schemas, "RULE_KEYS", keys)
    fallback = DocumentKey(
        "fallback",
        3,
        lambda found: found.fallback_status >= 410,
        lambda wanted, before: replace(wanted, fallback_status=before.fallback_status),
    )
    monkeypatch.setattr(schemas, "DOCUMENT_KEYS", (fallback,))
    for module in (document, compiling, earlier):
        monkeypatch.setattr(module, "SCHEMAS", (1, 2, 3))
    read: dict[str, tuple[int, ...] | None] = {}
    reports = world.reports

    def reporting(key: ObjectKey) -> dict[str, Any]:
        found = reports(key)
        for name, known in read.items():
            if name in found:
                held = {"schemas": known, "ready": True, "appliedVersion": world.document(key).version}
                found[name] = None if known is None else parse_report({**held, "sessions": SESSIONS(held)})
        return found

    world.reports = reporting
    world.reads = read
    world.service("web", "shop")
    return world


def SESSIONS(held: dict[str, Any]) -> list[dict[str, Any]]:  # noqa: N802 (one connected session)
    return [{"relay": "relay-1", "state": "connected", "probed": True, "grantVersion": held["appliedVersion"]}]


def bind(world: Any, *hostnames: str, settle: bool = True, **origin: Any) -> None:
    service = {"name": "web", "port": 80, "scheme": "http"}
    path = {"type": "PathPrefix", "value": "/"}
    rules = [
        {
            "name": f"r{i}",
            "hostname": h,
            "path": path,
            "service": service,
            **({"originRequest": origin} if not i else {}),
        }
        for i, h in enumerate(hostnames)
    ]
    world.binding("web", "shop", rules=rules)
    if settle:
        world.settle()


def all_read(world: Any, *known: int) -> None:
    world.reads.update(dict.fromkeys(("pod-0", "pod-1"), known))


def test_a_document_says_the_lowest_schema_that_has_its_keys(world: Any) -> None:
    all_read(world, 1, 2, 3)
    bind(world, "a.example.com")
    first = world.document(MAIN)
    assert first.schema == 1, "an upgraded operator changes no document"
    bind(world, "a.example.com", **LATER)
    assert world.document(MAIN).schema == 2


def test_a_rule_that_the_oldest_connector_cannot_read_answers_503_and_says_so_while_others_are_served(
    world: Any,
) -> None:
    all_read(world, 1, 2, 3)
    world.reads["pod-1"] = (1,)  # an image that is rolled out, or back
    bind(world, "a.example.com", "b.example.com", **LATER)
    found = world.document(MAIN)
    assert found.schema == 1
    by_name = {rule.hostname: rule for rule in found.rules}
    assert type(by_name["a.example.com"].service).__name__ == "UnavailableService"
    assert by_name["a.example.com"].origin_request.connect_timeout == parse("30s"), "nothing of it is half applied"
    assert type(by_name["b.example.com"].service).__name__ == "HTTPService"
    assert world.condition(WEB, "ResolvedRefs") == ("False", "ConnectorTooOld")
    assert world.condition(WEB, "Ready") == ("False", "ConnectorTooOld")
    told = {rule["name"]: rule for rule in world.status(WEB)["rules"]}
    assert told["r0"]["reason"] == "ConnectorTooOld"
    assert "originRequest.connectTimeout" in told["r0"]["message"]
    assert told["r1"]["reason"] == "Accepted"
    # The last old Pod goes: nobody has to touch the binding.
    all_read(world, 1, 2, 3)
    world.settle()
    assert world.document(MAIN).schema == 2
    assert world.condition(WEB, "Ready") == ("True", "Ready")
    # And an image that is rolled back takes back what it cannot read.
    world.reads["pod-0"] = (1,)
    world.settle()
    assert world.document(MAIN).schema == 1
    assert world.condition(WEB, "Ready") == ("False", "ConnectorTooOld")


def test_a_connector_that_cannot_be_asked_reads_what_it_was_given(world: Any) -> None:
    all_read(world, 1, 2, 3)
    bind(world, "a.example.com")
    world.reads["pod-1"] = None
    bind(world, "a.example.com", **LATER)
    assert world.condition(WEB, "ResolvedRefs") == ("False", "ConnectorTooOld")
    all_read(world, 1, 2, 3)
    world.settle()
    assert world.document(MAIN).schema == 2
    world.reads["pod-1"] = None  # for a moment: what is served stays served
    world.settle()
    assert world.document(MAIN).schema == 2
    assert world.condition(WEB, "ResolvedRefs")[0] == "True"


def test_without_any_connector_the_latest_schema_is_written(world: Any) -> None:
    world.pods = 0
    bind(world, "a.example.com", **LATER)
    assert world.document(MAIN).schema == 2


def test_a_route_that_is_kept_for_its_record_is_one_that_the_oldest_connector_reads(world: Any) -> None:
    all_read(world, 1, 2, 3)
    bind(world, "a.example.com", **LATER)
    assert world.document(MAIN).schema == 2
    world.dns_failures["a.example.com"] = "the zone cannot be written"
    world.reads["pod-0"] = (1,)
    world.intercept = lambda what: what != "dns"
    bind(world, "b.example.com", settle=False)
    for _ in range(8):
        world.step(MAIN)
    (kept, _) = sorted(world.document(MAIN).rules, key=lambda rule: rule.hostname)
    assert kept.hostname == "a.example.com"
    assert world.document(MAIN).schema == 1


def test_a_new_key_of_the_whole_tunnel_waits_for_the_oldest_connector_and_holds_up_no_rule(world: Any) -> None:
    all_read(world, 1, 2)
    bind(world, "a.example.com")
    before = world.document(MAIN)
    world.tunnel(fallback={"httpStatus": 410})
    world.settle()
    assert world.document(MAIN) == before
    assert world.condition(MAIN, "Accepted") == ("False", "ConnectorTooOld")
    assert "spec.fallback: what was in force before stays" in world.message(MAIN, "Accepted")
    # Rules come, go and use what the connectors read, as ever; so does the rest of the Tunnel.
    world.tunnel(fallback={"httpStatus": 410}, connector={"gracePeriodSeconds": 77})
    bind(world, "b.example.com", **LATER)
    found = world.document(MAIN)
    assert [rule.hostname for rule in found.rules] == ["b.example.com"]
    assert (found.schema, found.fallback_status, found.connector.grace_period_seconds) == (2, 404, 77)
    assert world.condition(WEB, "Ready") == ("True", "Ready")
    assert world.condition(MAIN, "Accepted") == ("False", "ConnectorTooOld")
    all_read(world, 1, 2, 3)
    world.settle()
    assert (world.document(MAIN).schema, world.document(MAIN).fallback_status) == (3, 410)
    assert world.condition(MAIN, "Accepted")[0] == "True"


def test_a_key_of_the_whole_tunnel_that_is_in_force_is_not_taken_from_those_that_read_it(world: Any) -> None:
    all_read(world, 1, 2, 3)
    world.tunnel(fallback={"httpStatus": 410})
    bind(world, "a.example.com")
    assert world.document(MAIN).schema == 3
    world.reads["pod-1"] = (1,)  # an image that is rolled back
    bind(world, "a.example.com", "b.example.com", **LATER)
    found = world.document(MAIN)
    assert (found.schema, found.fallback_status, len(found.rules)) == (3, 410, 2)
    assert world.condition(WEB, "ResolvedRefs")[0] == "True", "the one that reads nothing of it is not waited for"
    assert world.condition(MAIN, "Accepted") == ("False", "ConnectorTooOld")
    assert "spec.fallback: it gets no configuration" in world.message(MAIN, "Accepted")
    world.tunnel(fallback={"httpStatus": 411})
    world.settle()
    assert world.document(MAIN).fallback_status == 411, "holding it back would give that connector nothing"
    world.tunnel(fallback={"httpStatus": 404})
    world.settle()
    assert world.document(MAIN).schema == 1
    assert world.condition(MAIN, "Accepted")[0] == "True"
    assert world.condition(WEB, "ResolvedRefs") == ("False", "ConnectorTooOld")


def test_a_proxy_that_a_connector_cannot_read_holds_back_the_addresses_that_were_given_with_it(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "DOCUMENT_KEYS", PRESENT_KEYS)
    all_read(world, 1)
    bind(world, "a.example.com")
    before = world.document(MAIN).relay
    told = {"addresses": ["elsewhere.example.net:443"], "proxyURL": "http://proxy.example.com:3128"}
    world.tunnel(relay=told)
    bind(world, "b.example.com")
    found = world.document(MAIN)
    assert (found.relay, [rule.hostname for rule in found.rules]) == (before, ["b.example.com"])
    assert "spec.relay.proxyURL" in world.message(MAIN, "Accepted")
    all_read(world, 1, 2)
    world.settle()
    relay = world.document(MAIN).relay
    assert (relay.addresses, relay.proxy) == (("elsewhere.example.net:443",), "http://proxy.example.com:3128")


def test_schemas_that_nobody_knows_leave_the_first(world: Any) -> None:
    all_read(world, 9)
    bind(world, "a.example.com", **LATER)
    assert world.document(MAIN).schema == 1


def test_rows_have_numbers_that_connectors_report() -> None:
    assert {key.schema for key in (*schemas.RULE_KEYS, *schemas.DOCUMENT_KEYS)} <= set(document.SCHEMAS)
    assert document.SCHEMAS[0] == schemas.FIRST
