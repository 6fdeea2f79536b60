"""Rules whose visitors come by TCP port or TLS server name."""

import pytest

from culvert_ingress.config_file import ConfigErrors, load
from culvert_ingress.document import Document, RelayTarget
from culvert_ingress.matching import Router
from culvert_ingress.relay_ports import relay_ports, tls_names
from culvert_ingress.rules import PathMatch, PathType, Rule, StatusService, TCPService

HEAD = "tunnel: t\nrelay: relay.example.com:443\ningress:\n"
LAST = "  - service: http_status:404\n"


def problems(rules: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(HEAD + rules + LAST)
    return [str(problem) for problem in caught.value.problems]


def test_rules_by_port_by_hostname_and_by_both_are_read_and_survive_the_document() -> None:
    config = load(
        HEAD
        + "  - {relayPort: 20022, service: 'ssh://localhost'}\n"
        + "  - {hostname: db.example.com, relayPort: 20001, service: 'tcp://db:5432'}\n"
        + "  - {hostname: '*.tls.example.com', service: 'tls://db:5432'}\n"
        + "  - {hostname: home.example.com, service: 'rdp://pc'}\n"
        + LAST
    )
    assert [rule.relay_port for rule in config.rules] == [20022, 20001, None, None, None]
    assert [rule.by_port_only for rule in config.rules] == [True, False, False, False, False]
    document = config.compile(version=1, grant="")
    assert Document.loads(document.dumps()) == document
    assert document.relay_ports() == relay_ports(document.rules) == (20001, 20022)
    assert tls_names(document.rules) == ("*.tls.example.com",)
    assert document.hostnames() == ("*.tls.example.com", "db.example.com", "home.example.com")


def test_a_document_without_ports_is_written_as_before() -> None:
    rule = Rule("one", "a.example.com", None, StatusService(404))
    document = Document(version=1, tunnel="t", relay=RelayTarget(("relay:443",)), rules=(rule,))
    assert b"relayPort" not in document.dumps()


def test_a_rule_by_port_alone_answers_no_hostname() -> None:
    config = load(HEAD + "  - {relayPort: 20022, service: 'ssh://localhost'}\n" + LAST)
    matched = Router(config).match("any.example.com", b"/")
    assert matched is not None
    assert matched.service == StatusService(404)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("{hostname: a.com, relayPort: 1, service: 'http://web'}", "relayPort is for TCP services"),
        ("{hostname: a.com, path: /x, service: 'tcp://db:1'}", "A TCP service has no paths; remove path."),
        ("{hostname: a.com, relayPort: 1, service: 'tls://db:1'}", "chosen by server name on the relay's HTTPS port"),
        ("{path: /x, relayPort: 0, service: 'tcp://db:1'}", "relayPort must be a whole number from 1 to 65535"),
        ("{hostname: a.com, relayPort: '22', service: 'tcp://db:1'}", "relayPort must be a whole number"),
    ],
)
def test_parts_that_do_not_fit_together_are_named(rule: str, sentence: str) -> None:
    found = problems(f"  - {rule}\n")
    assert len(found) == 1
    assert found[0].startswith("Rule #1: ")
    assert sentence in found[0]


def test_a_tls_service_needs_a_hostname_and_a_port_one_rule() -> None:
    with pytest.raises(ConfigErrors, match="chosen by server name; add hostname"):
        load(HEAD + "  - service: tls://db:1\n")
    rule = "  - {relayPort: 20022, service: 'ssh://localhost'}\n"
    assert problems(rule + rule) == ["Rule #2: Rule #1 has relayPort 20022 already; give each rule its own."]


def test_the_last_rule_must_still_match_everything() -> None:
    with pytest.raises(ConfigErrors, match="Rule #1: The last rule must match every request"):
        load(HEAD + "  - {relayPort: 20022, service: 'ssh://localhost'}\n")


def test_paths_and_ports_of_a_documents_rules_are_checked_too() -> None:
    rule = Rule("x", "a.com", PathMatch(PathType.EXACT, "/x"), TCPService("tcp", "db", 1))
    document = Document(version=1, tunnel="t", relay=RelayTarget(("relay:443",)), rules=(rule,))
    with pytest.raises(ValueError, match=r"rules\[0\]: A TCP service has no paths"):
        Document.loads(document.dumps())


@pytest.mark.parametrize("value", ["v1", "V3", "true", "''"])
def test_another_version_of_the_proxy_protocol_is_named(value: str) -> None:
    found = problems(f"  - {{hostname: a.com, service: 'http://a', originRequest: {{proxyProtocol: {value}}}}}\n")
    assert len(found) == 1
    assert "proxyProtocol" in found[0]


def test_the_proxy_protocol_survives_the_document() -> None:
    config = load(
        HEAD
        + "  - {hostname: a.com, service: 'http://a', originRequest: {proxyProtocol: V2}}\n"
        + "  - {hostname: b.com, service: 'http://b', originRequest: {proxyProtocol: None}}\n"
        + LAST
    )
    assert [rule.origin_request.proxy_protocol for rule in config.rules] == [2, 0, 0]
    document = config.compile(version=1, grant="")
    assert Document.loads(document.dumps()) == document
