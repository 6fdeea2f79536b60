"""`config.yml`: what is read, every mistake at once with the number of its rule, and what it compiles to."""

from __future__ import annotations

import pytest

from culvert_ingress.config_file import ConfigErrors, ConfigFile, load
from culvert_ingress.config_keys import ORIGIN_REQUEST, RULE, TABLES, TOP_LEVEL, Key, Verdict
from culvert_ingress.config_rules import RuleFiles
from culvert_ingress.document import AddressPolicy, ConnectorSettings, Document, RelayTarget
from culvert_ingress.rules import HTTPService, OriginRequest, PathMatch, PathType, Rule, StatusService

FOUR_LINES = """
tunnel: my-tunnel
credentials-file: ./my-tunnel.json
relay: localhost:7443
ingress: [{service: http://localhost:3000}]
"""


def config(rules: str = "- service: http_status:404", top: str = "") -> str:
    indented = "\n".join(f"  {line}" for line in rules.strip("\n").splitlines())
    return f"tunnel: t\nrelay: relay.example.com:443\n{top}\ningress:\n{indented}\n"


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as refusal:
        load(text)
    assert all(problem.message.endswith(".") for problem in refusal.value.problems)
    return [str(problem) for problem in refusal.value.problems]


def test_four_lines_are_a_whole_configuration() -> None:
    assert load(FOUR_LINES) == ConfigFile(
        rules=(Rule("rule-1", "", None, HTTPService("http", "localhost", 3000)),),
        files=(RuleFiles(),),
        tunnel="my-tunnel",
        credentials_file="./my-tunnel.json",
        relay=("localhost:7443",),
    )


def test_every_honoured_key_has_its_effect(certificate_pem: str) -> None:
    text = """
tunnel: my-tunnel
credentials-file: /etc/culvert/t.json
relay: [Relay-1.example.com:443, "[::1]:7443", relay-1.example.com:443]
relay-ca: /etc/culvert/relay.pem
relay-server-name: Relay.example.com
metrics: 0.0.0.0:9000
grace-period: 1m0.5s
ha-connections: 2
originRequest:
  connectTimeout: 5s
  caPool: /a.pem
  httpHostHeader: default.internal
ingress:
  - hostname: App.Example.com.
    path: ^/api/
    service: https://localhost:8443
    originRequest:
      tlsTimeout: 1s
      tcpKeepAlive: 0s
      keepAliveConnections: 3
      keepAliveTimeout: 1m
      httpHostHeader: app.internal:81
      originServerName: App.internal
      caPool: /b.pem
      noTLSVerify: true
  - hostname: "*.example.com"
    service: http://localhost:1
  - hostname: "*"
    service: http_status:404
    originRequest: {caPool: "", httpHostHeader: ""}
"""
    found = load(text)
    assert found.warnings == ()
    assert found.ca_paths == ("/a.pem", "/b.pem")
    assert (found.credentials_file, found.metrics) == ("/etc/culvert/t.json", "0.0.0.0:9000")
    other = certificate_pem + "\n"
    document = found.compile(
        version=7,
        grant="g",
        relay_ca=certificate_pem,
        ca_texts={"/a.pem": certificate_pem, "/b.pem": other},
        revocations=["r"],
    )
    defaults = OriginRequest(connect_timeout=5000, http_host_header="default.internal", ca=certificate_pem)
    special = OriginRequest(
        connect_timeout=5000,
        tls_timeout=1000,
        tcp_keep_alive=0,
        keep_alive_connections=3,
        keep_alive_timeout=60_000,
        http_host_header="app.internal:81",
        origin_server_name="app.internal",
        no_tls_verify=True,
        ca=other,
    )
    assert document == Document(
        version=7,
        tunnel="my-tunnel",
        relay=RelayTarget(("relay-1.example.com:443", "[::1]:7443"), "relay.example.com", certificate_pem),
        connector=ConnectorSettings(2, 61),
        rules=(
            Rule(
                "rule-1",
                "app.example.com",
                PathMatch(PathType.SEARCH, "^/api/"),
                HTTPService("https", "localhost", 8443),
                special,
            ),
            Rule("rule-2", "*.example.com", None, HTTPService("http", "localhost", 1), defaults),
            Rule("rule-3", "", None, StatusService(404), OriginRequest(connect_timeout=5000)),
        ),
        address_policy=AddressPolicy.ANY,
        grant="g",
        revocations=("r",),
    )
    assert Document.loads(document.gzipped()) == document


def test_all_problems_are_named_at_once_each_with_its_rule() -> None:
    text = """
tunel: t
relay: relay.example.com
warp-routing: {enabled: true}
ingress:
  - hostname: a.com:443
    service: udp://localhost:22
  - hostname: "*foo.com"
    path: "("
    service: http://localhost:3000/base?x=1
  - hostnam: c.com
    service: localhost:80
  - hostname: d.com
"""
    found = problems(text)
    assert [line.partition(":")[0] for line in found] == [
        "'tunel' is not a known key (the nearest is 'tunnel').",
        "warp-routing is not supported",
        "relay",
        "Rule #1",
        "Rule #1",
        "Rule #2",
        "Rule #2",
        "Rule #2",
        "Rule #3",
        "Rule #3",
        "Rule #4",
    ]
    assert "Rule #3: 'hostnam' is not a known key (the nearest is 'hostname')." in found
    assert "Rule #4: The rule has no service; add one such as 'service: http://localhost:3000'." in found


NOT_CATCH_ALL = (
    "The last rule must match every request, without hostname and path; add '- service: http_status:404' after it."
)
CATCH_ALL_TOO_EARLY = (
    "It matches every request, so that the rules after it never could; "
    "give it a hostname or a path, or make it the last."
)
SHADOWED = (
    "It can never match, because rule #1 takes every request that it would; move it in front of rule #1, or remove it."
)


def written(*rules: str) -> str:
    """Rules of which only hostname and path matter."""
    return config("\n".join(f"- {{{rule}{', ' if rule else ''}service: hello_world}}" for rule in rules))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["hostname: a.com"], f"Rule #1: {NOT_CATCH_ALL}"),
        (["path: /x"], f"Rule #1: {NOT_CATCH_ALL}"),
        (["", "hostname: a.com", ""], f"Rule #1: {CATCH_ALL_TOO_EARLY}"),
        (["hostname: '*'", ""], f"Rule #1: {CATCH_ALL_TOO_EARLY}"),
        (["hostname: '*.a.com'", "hostname: b.a.com, path: /x", ""], f"Rule #2: {SHADOWED}"),
        (["hostname: a.com", "hostname: A.com.", ""], f"Rule #2: {SHADOWED}"),
        (["path: /x", "hostname: a.com, path: /x", ""], f"Rule #2: {SHADOWED}"),
        (["hostname: '*.a.com'", "hostname: '*.b.a.com'", ""], f"Rule #2: {SHADOWED}"),
        (["hostname: '*.a.com'", "hostname: c.b.a.com", ""], f"Rule #2: {SHADOWED}"),
    ],
)
def test_the_catch_all_is_the_last_rule_and_no_rule_is_shadowed(rules: list[str], expected: str) -> None:
    assert problems(written(*rules)) == [expected]


@pytest.mark.parametrize(
    "rules",
    [
        ["hostname: b.a.com", "hostname: '*.a.com'", ""],
        ["hostname: '*.a.com'", "hostname: a.com", ""],
        ["hostname: '*.a.com'", "hostname: evila.com", ""],
        ["hostname: a.com, path: /x", "hostname: a.com, path: /y", ""],
        ["hostname: a.com, path: /x", "path: /x", ""],
    ],
)
def test_rules_that_only_overlap_are_not_shadowed(rules: list[str]) -> None:
    assert len(load(written(*rules)).rules) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The file is empty"),
        ("- a", "The file must be keys with values, not a list"),
        ("tunnel: t", "The file has no ingress rules; add an 'ingress' list"),
        ("tunnel: t\ningress: []", "The file has no ingress rules"),
        ("tunnel: t\ningress: {service: hello_world}", "something other than a list of rules"),
        (config("- hello_world"), "Rule #1: The rule must be keys with values, not text"),
        (config("- {service: 404}"), "Rule #1: service must be text; put the value in quotes"),
        (config("- {service: [hello_world]}"), "Rule #1: service must be text, not a list"),
        (
            config("- {hostname: 1.5, service: hello_world}\n- service: hello_world"),
            "Rule #1: hostname must be text; put",
        ),
        (
            config("- {hostname: 127.0.0.1, service: hello_world}\n- service: hello_world"),
            "Rule #1: hostname: '127.0.0.1' is an IP",
        ),
        (
            config("- {path: [a], service: hello_world}\n- service: hello_world"),
            "Rule #1: path must be text, not a list",
        ),
        (config('- {path: "a{1001}", service: hello_world}\n- service: hello_world'), "Rule #1: path: .*not valid RE2"),
        (
            config("- {service: hello_world, originRequest: 5}"),
            "Rule #1: originRequest must be keys with values, not a number",
        ),
        (
            config("- {service: hello_world, originRequest: {connectTimeout: 30}}"),
            "Rule #1: originRequest.connectTimeout .* as 30s",
        ),
        (config("- {service: hello_world, originRequest: {connectTimeout: 0s}}"), "Rule #1: .* longer than 0s"),
        (
            config("- {service: hello_world, originRequest: {tlsTimeout: 5d}}"),
            "Rule #1: originRequest.tlsTimeout: '5d' is not a",
        ),
        (config("- {service: hello_world, originRequest: {tlsTimeout: 25h}}"), "tlsTimeout is longer than 24h"),
        (
            config("- {service: hello_world, originRequest: {noTLSVerify: yes}}"),
            "noTLSVerify must be true or false, not text",
        ),
        (config("- {service: hello_world, originRequest: {keepAliveConnections: -1}}"), "whole number from 0 to"),
        (config("- {service: hello_world, originRequest: {httpHostHeader: a b}}"), "cannot stand in a Host header"),
        (
            config("- {service: hello_world, originRequest: {originServerName: 0x1}}"),
            "originServerName must be text|not an IP",
        ),
        (
            config("- {service: hello_world, noTLSVerify: true}"),
            "Rule #1: 'noTLSVerify' .* it belongs under originRequest",
        ),
        (
            config("- {service: hello_world, originrequest: {}}"),
            "Rule #1: 'originrequest' .*nearest is 'originRequest'",
        ),
        (config(top="originRequest: {noTlsVerify: true}"), "'originRequest.noTlsVerify' .*nearest is 'noTLSVerify'"),
        (config(top="service: hello_world"), "'service' is not a known key here; it belongs under ingress"),
        (config(top="tunnel: u"), "Line 3: the key 'tunnel' stands twice"),
        (config(top="grace-period: 30"), "grace-period must be a duration with its unit; write it as 30s"),
        (config(top="ha-connections: 0"), "ha-connections must be a whole number from 1 to 64"),
        (config(top="ha-connections: true"), "ha-connections must be a whole number"),
        (config(top="credentials-file:"), "credentials-file must be text, not null; write a value, or remove"),
        (config(top='credentials-file: "a\\nb"'), "credentials-file must be one line"),
        (config(top="relay-server-name: a b"), "relay-server-name: 'a b' has a character"),
        (FOUR_LINES.replace("localhost:7443", "localhost"), "relay: 'localhost' is not host:port"),
        (FOUR_LINES.replace("localhost:7443", "[a:1, 5]"), "relay: each address must be text"),
        (FOUR_LINES.replace("localhost:7443", "[]"), "relay must be an address such as"),
        (FOUR_LINES.replace("localhost:7443", "[" + "a:1, " * 65 + "]"), "relay has more than 64 addresses"),
        (FOUR_LINES.replace("my-tunnel\n", "1\n"), "tunnel must be text; put the value in quotes"),
        (FOUR_LINES.replace("my-tunnel\n", "x" * 254 + "\n"), "tunnel must be one line of at most 253"),
    ],
)
def test_a_mistake_is_a_sentence_that_says_what_to_do(text: str, sentence: str) -> None:
    with pytest.raises(ConfigErrors, match=sentence):
        load(text)


def _value(key: Key) -> str:
    return "[x]" if not key.inert else "enabled-in-some-way"


@pytest.mark.parametrize("name", [name for name, key in TOP_LEVEL.items() if key.verdict is Verdict.REFUSED])
def test_every_refused_key_of_the_file_is_an_error_that_says_what_to_do(name: str) -> None:
    key = TOP_LEVEL[name]
    assert problems(config(top=f"{name}: {_value(key)}")) == [f"{name} is not supported: {key.text}."]


@pytest.mark.parametrize("name", [name for name, key in ORIGIN_REQUEST.items() if key.verdict is Verdict.REFUSED])
def test_every_refused_key_of_an_origin_is_an_error_in_the_file_and_in_a_rule(name: str) -> None:
    key = ORIGIN_REQUEST[name]
    message = f"originRequest.{name} is not supported: {key.text}."
    assert problems(config(top=f"originRequest: {{{name}: {_value(key)}}}")) == [message]
    assert problems(config(f"- {{service: hello_world, originRequest: {{{name}: {_value(key)}}}}}")) == [
        f"Rule #1: {message}"
    ]


@pytest.mark.parametrize("name", [name for name, key in TOP_LEVEL.items() if key.verdict is Verdict.HARMLESS])
def test_every_harmless_key_is_a_warning_that_says_why(name: str) -> None:
    assert load(config(top=f"{name}: whatever")).warnings == (f"{name} has no effect: {TOP_LEVEL[name].text}.",)


def test_a_value_that_switches_a_refused_thing_off_is_accepted() -> None:
    text = config(
        "- {service: hello_world, originRequest: {http2Origin: false, proxyType: '', bastionMode: false, ipRules: []}}",
        top="warp-routing: {enabled: false}\nproxy-dns: false",
    )
    assert load(text).warnings == ()
    assert problems(config(top="proxy-dns: 0")) != []


def test_the_tables_keep_their_promises() -> None:
    for table in TABLES.values():
        for name, key in table.items():
            assert name.strip()
            assert key.text
            assert not key.text.endswith(".")
            assert key.verdict is Verdict.REFUSED or not key.inert
    assert RULE["rewrite"].verdict is Verdict.REFUSED
    harmless = {"protocol", "loglevel", "no-autoupdate", "edge-ip-version"}
    assert all(TOP_LEVEL[name].verdict is Verdict.HARMLESS for name in harmless)


@pytest.mark.parametrize("form", ["'localhost:'", "20241", "nonsense", "':20241'"])
def test_other_forms_of_metrics_are_a_warning_and_the_default(form: str) -> None:
    found = load(config(top=f"metrics: {form}"))
    assert found.metrics == "127.0.0.1:20241"
    assert found.warnings == (f"metrics: {form.strip(chr(39))!r} is not host:port; 127.0.0.1:20241 is used instead.",)


def test_a_hostname_in_its_own_script_is_an_a_label() -> None:
    assert load(config("- {hostname: '*.Bücher.example', service: hello_world}\n- service: hello_world")).rules[
        0
    ].hostname == ("*.xn--bcher-kva.example")


def test_compiling_needs_a_tunnel_a_relay_and_the_files_that_are_named(
    certificate_pem: str, private_key_pem: str
) -> None:
    text = """
relay-ca: ./relay.pem
ingress:
  - {hostname: a.com, service: hello_world, originRequest: {caPool: ./a.pem}}
  - {service: hello_world, originRequest: {caPool: ./b.pem}}
"""
    with pytest.raises(ConfigErrors) as refusal:
        load(text).compile(version=1, grant="", ca_texts={"./b.pem": private_key_pem})
    assert [str(problem).partition(";")[0] for problem in refusal.value.problems] == [
        "The file names no tunnel",
        "The file names no relay",
        "relay-ca: './relay.pem' has not been read",
        "Rule #1: caPool: './a.pem' has not been read",
        "Rule #2: caPool: './b.pem': The certificate authority holds a private key",
    ]
    with pytest.raises(ConfigErrors, match="relay-ca: The certificate authority holds no PEM"):
        load(FOUR_LINES).compile(version=1, grant="", relay_ca="nothing")


def test_the_name_given_at_the_start_wins_over_the_file() -> None:
    assert load(FOUR_LINES).compile(version=1, grant="", tunnel="other").tunnel == "other"


def test_five_thousand_rules_are_read() -> None:
    rules = "\n".join(f"- {{hostname: h{n}.example.com, service: 'http://localhost:{n + 1}'}}" for n in range(5000))
    found = load(config(f"{rules}\n- service: http_status:404"))
    assert len(found.rules) == 5001
    assert found.rules[4999] == Rule("rule-5000", "h4999.example.com", None, HTTPService("http", "localhost", 5000))
