"""The configuration: its content, its grant, its version, and when a new one is due."""

from __future__ import annotations

import random
from base64 import b64decode
from dataclasses import replace
from typing import Any

import pytest

from culvert_ingress.document import Document, RelayTarget
from culvert_ingress.rules import HTTPService, PathMatch, PathType, Rule
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.compile import (
    TunnelProblem,
    is_current,
    next_version,
    relay_target,
    retained_rules,
    too_large,
)
from culvert_operator.issue import config_map
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.options import Options
from culvert_operator.world import GrantName, IssueConfiguration
from culvert_protocol.keys import PrivateKey
from culvert_protocol.statements import key_set, verify_grant

ISSUER = PrivateKey(b"\x01" * 32)
NOW = 1_764_000_000
OPTIONS = Options(namespace="x", image="x")
MAIN = ObjectKey("culvert-system", "main")


def tunnel(**relay: Any) -> Any:
    spec = {"relay": {"addresses": ["r.example.com:443"], **relay}}
    return parse_tunnel({"metadata": {"name": "main", "namespace": "culvert-system"}, "spec": spec})


def rule(name: str, hostname: str, path: str = "/") -> Rule:
    return Rule(name, hostname, PathMatch(PathType.PREFIX, path), HTTPService("http", "web.shop.svc", 80))


CONTENT = Document(
    version=0,
    tunnel="culvert-system/main",
    relay=RelayTarget(("r.example.com:443",)),
    rules=(rule("a", "a.example.com"),),
)
NAMES = (GrantName("a.example.com", 1_700_000_000_123),)


def issued(**changes: Any) -> Document:
    issue = IssueConfiguration(
        child=ChildKey("ConfigMap", "main-config"),
        namespace="culvert-system",
        template={},
        document=replace(CONTENT, version=7),
        subject="s",
        names=NAMES,
        issued_at=NOW,
        expires_at=NOW + 30 * 86_400,
    )
    body = config_map(replace(issue, **changes), issuer=ISSUER).body
    return Document.loads(b64decode(body["binaryData"]["config.json.gz"]))


def current(present: Document | None, content: Document = CONTENT, names: Any = NAMES, **more: Any) -> bool:
    asked: dict[str, Any] = {"subject": "s", "issuer": ISSUER.public, "options": OPTIONS, "now": NOW, **more}
    return is_current(present, content, names, **asked)


def test_a_relay_accepts_the_grant() -> None:
    grant = verify_grant(issued().grant, key_set([ISSUER.public]), now=NOW)
    assert [(n.hostname, n.claimed_at) for n in grant.names] == [("a.example.com", 1_700_000_000_123)]
    assert (grant.version, grant.tunnel.subject) == (7, "s")


def test_signing_again_gives_the_same_bytes() -> None:
    assert issued() == issued()


@pytest.mark.parametrize(
    ("change", "is_so"),
    [
        ({}, True),
        ({"content": replace(CONTENT, fallback_status=410)}, False),
        ({"content": replace(CONTENT, rules=())}, False),
        ({"names": ()}, False),
        ({"names": (GrantName("a.example.com", 5),)}, False),
        ({"subject": "other"}, False),
        ({"issuer": PrivateKey(b"\x03" * 32).public}, False),
        ({"now": NOW + 86_399}, True),
        ({"now": NOW + 86_400}, False),
    ],
)
def test_a_new_version_is_due_when_something_that_counts_has_changed(change: dict[str, Any], is_so: bool) -> None:
    assert current(issued(), **change) is is_so


def test_a_grant_that_was_tampered_with_is_replaced() -> None:
    present = issued()
    assert not current(replace(present, grant=present.grant[:-4] + "AAAA"))
    assert not current(replace(present, version=8))
    assert not current(None)


def test_versions_only_grow() -> None:
    recorded = parse_tunnel({"metadata": {}, "spec": {}, "status": {"configVersion": 5_000}})
    assert next_version(None, recorded, now=1) == 5_001
    assert next_version(replace(CONTENT, version=9_000), recorded, now=1) == 9_001
    assert next_version(None, recorded, now=NOW) == NOW * 1000
    assert next_version(replace(CONTENT, version=NOW * 1000), tunnel(), now=NOW) == NOW * 1000 + 1


def test_relay_settings_have_one_spelling() -> None:
    found = relay_target(
        tunnel(addresses=["R.example.com:443", "r.example.com:443"], serverName="Relay.example.com"), {}
    )
    assert found == RelayTarget(("r.example.com:443",), "relay.example.com", None)


@pytest.mark.parametrize(
    ("relay", "reason"),
    [
        ({"addresses": []}, "InvalidTunnel"),
        ({"addresses": ["http://r:1"]}, "InvalidTunnel"),
        ({"serverName": "a b"}, "InvalidTunnel"),
        ({"caConfigMapRef": {"name": "ca"}}, "ConfigMapNotFound"),
    ],
)
def test_a_relay_that_cannot_be_dialled_is_a_problem(relay: dict[str, Any], reason: str) -> None:
    found = relay_target(tunnel(**relay), {})
    assert isinstance(found, TunnelProblem)
    assert found.reason == reason


def test_rules_of_records_that_are_left_stay_as_they_were() -> None:
    present = replace(
        CONTENT, rules=(rule("x/b/web", "old.com"), rule("x/b/api", "old.com", "/api"), rule("y", "b.com"))
    )
    kept = retained_rules(present, (), lambda hostname: hostname == "old.com")
    assert kept == present.rules[:2]
    renamed = retained_rules(present, (rule("x/b/web", "new.com"),), lambda hostname: hostname == "old.com")
    assert len({r.id for r in (*renamed, rule("x/b/web", "new.com"))}) == 3
    assert all(r.id.startswith("x/b/") for r in renamed)
    again = retained_rules(replace(present, rules=renamed), (rule("x/b/web", "new.com"),), lambda hostname: True)
    assert again == renamed
    assert retained_rules(present, (rule("z", "old.com"),), lambda hostname: True) == (present.rules[2],)


def test_d26_a_configuration_that_does_not_fit_is_refused_before_it_is_written() -> None:
    chance = random.Random(1)
    names = [f"{chance.randbytes(24).hex()}.example.com" for _ in range(20_000)]
    big = replace(CONTENT, rules=tuple(rule(n, n) for n in names))
    problem = too_large(big, [GrantName(n, 1_700_000_000_000) for n in names])
    assert problem is not None
    assert problem.reason == "ConfigurationTooLarge"
    assert too_large(CONTENT, NAMES) is None
