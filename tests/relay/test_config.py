"""`relay.yml`: what is read, and one sentence for everything that is not understood."""

from dataclasses import fields
from pathlib import Path

import pytest

from culvert_relay import config_access, config_front
from culvert_relay.config import (
    KEYS,
    WRITTEN,
    Address,
    ConfigError,
    RelayConfig,
    config_path,
    parse_config,
    read_config,
)
from culvert_relay.config_access import Access, AccessLogConfig

GOOD = """\
id: relay-1
serverNames: ["localhost", "Relay.Example.com.", "127.0.0.1"]
listen: {http: ["127.0.0.1:8080"], https: ["[::1]:8443"], tunnel: ["127.0.0.1:7443"], admin: "127.0.0.1:9901"}
tls: {certificateDir: ./certs}
issuers:
  - {id: demo, publicKeyFile: ./keys/issuer.pub, hostnames: ["example.com", "*.EXAMPLE.com"],
     tcpPorts: ["20000-20099", 22]}
"""


def test_the_form_of_the_file(tmp_path: Path) -> None:
    config = parse_config(GOOD.encode(), folder=tmp_path)
    assert config.id == "relay-1"
    assert config.server_names == ("localhost", "relay.example.com", "127.0.0.1")
    assert config.listen.http == (Address("127.0.0.1", 8080),)
    assert config.listen.https == (Address("::1", 8443),)
    assert str(config.listen.https[0]) == "[::1]:8443"
    assert config.listen.admin == Address("127.0.0.1", 9901)
    assert config.certificate_dir == tmp_path / "certs"
    (issuer,) = config.issuers
    assert issuer.id == "demo"
    assert issuer.public_key_file == tmp_path / "keys" / "issuer.pub"
    assert issuer.hostnames == ("example.com", "*.example.com")
    assert issuer.tcp_ports == ((20000, 20099), (22, 22))
    assert config.listen.tcp == ("::1", "127.0.0.1")  # where visitors come anyway


def test_granted_tcp_ports_may_have_interfaces_of_their_own(tmp_path: Path) -> None:
    text = GOOD.replace("listen: {", 'listen: {tcp: ["0.0.0.0", "::"], ')
    assert parse_config(text.encode(), folder=tmp_path).listen.tcp == ("0.0.0.0", "::")


def test_access_log_and_tracing_are_off_unless_asked_for(tmp_path: Path) -> None:
    access = parse_config(GOOD.encode(), folder=tmp_path).access
    assert access == Access(log=None, request_ids=False, traceparents=False)
    text = GOOD + "accessLog: {output: ./a.log, query: true}\n"
    access = parse_config(text.encode(), folder=tmp_path).access
    assert access == Access(AccessLogConfig(tmp_path / "a.log", query=True), request_ids=True, traceparents=False)
    text = GOOD + "accessLog: {output: stdout}\ntracing: {requestId: false, traceparent: true}\n"
    access = parse_config(text.encode(), folder=tmp_path).access
    assert access == Access(AccessLogConfig(None, query=False), request_ids=False, traceparents=True)


def test_what_may_be_left_out(tmp_path: Path) -> None:
    config = parse_config(
        b"serverNames: [localhost]\nlisten: {http: ['127.0.0.1:0'], tunnel: [':7443']}\ntls: {certificateDir: /c}\n"
        b"issuers: [{id: a, publicKeyFile: /k, hostnames: [a.test]}]",
        folder=tmp_path,
    )
    assert config.id
    assert config.listen.admin == Address("127.0.0.1", 9901)
    assert config.listen.tunnel == (Address("", 7443),)
    assert config.certificate_dir == Path("/c")
    assert (config.drain_delay, config.grace_period) == (0, 30)


def test_every_attribute_has_the_name_that_the_file_gives_it() -> None:
    named = {WRITTEN.get(one.name, one.name) for one in fields(RelayConfig)}
    assert {key for names in named for key in names.split(" or ")} == {
        *KEYS, *config_front.KEYS, *config_access.KEYS
    }  # fmt: skip


BAD: list[tuple[str, str, str]] = [
    ("issuers:", "isuers:", "Unknown key isuers: did you mean issuers?"),
    (
        "tls:",
        "colour: red\ntls:",
        "Unknown key colour: known keys are accessLog, drainDelay, gracePeriod, httpsRedirectPort, id,",
    ),
    ("id: relay-1", "accessLog: {}", "accessLog.output is missing: write stdout, or the path of a file."),
    ("id: relay-1", "accessLog: {output: [a]}", "accessLog.output must be a path."),
    (
        "id: relay-1",
        "accessLog: {output: stdout, query: yes please}",
        "accessLog.query must be true or false, not 'yes",
    ),
    ("id: relay-1", "accessLog: {path: x}", "Unknown key path in accessLog: known keys are output, query."),
    ("id: relay-1", "tracing: {requestID: true}", "Unknown key requestID in tracing: did you mean requestId?"),
    (
        "listen: {",
        'listen: {tcp: ["127.0.0.1:80"], ',
        "listen.tcp: '127.0.0.1:80' is not an interface: write an IP address",
    ),
    ("listen: {", "listen: {tcp: [], ", "listen.tcp must be a list of interfaces for granted TCP ports"),
    ("listen: {", 'listen: {tcp: ["::", "::"], ', "listen.tcp name :: twice: keep one."),
    ("http: [", "htp: [", "Unknown key htp in listen: did you mean http?"),
    ("certificateDir:", "certDir:", "Unknown key certDir in tls: did you mean certificateDir?"),
    ("publicKeyFile:", "publickeyfile:", "Unknown key publickeyfile in issuers[1]: did you mean publicKeyFile?"),
    (
        "tls: {certificateDir: ./certs}",
        "",
        "tls.certificateDir is missing: the folder with <name>.crt and <name>.key pairs.",
    ),
    ("{certificateDir: ./certs}", "{certificateDir: 5}", "tls.certificateDir must be a path."),
    ("id: demo, ", "", "issuers[1] has no id: an issuer needs id, publicKeyFile and hostnames."),
    ("id: demo", "id: 'a b'", "issuers[1].id must be 1 to 63 letters, digits, '.', '_' or '-', not 'a b'."),
    ("id: relay-1", "id: 'a b'", "id must be 1 to 63 letters, digits, '.', '_' or '-', not 'a b'."),
    (
        "127.0.0.1:8080",
        "127.0.0.1:80800",
        "listen.http: '80800' is not a port; use a number from 1 to 65535 (0 = any free one).",
    ),
    (
        "127.0.0.1:8080",
        "127.0.0.1:http",
        "listen.http: 'http' is not a port; use a number from 1 to 65535 (0 = any free one).",
    ),
    ("127.0.0.1:8080", "8080", "listen.http must be host:port, such as 127.0.0.1:8080, not '8080'."),
    ("[::1]:8443", "::1:8443", "listen.https: write an IPv6 address in brackets, such as [::1]:8080, not '::1:8443'."),
    ("127.0.0.1:8080", "a b:8080", "listen.http: 'a b' is neither an IP address nor a host name."),
    ('["127.0.0.1:8080"]', "127.0.0.1:8080", 'listen.http must be a list of addresses, such as ["127.0.0.1:8080"].'),
    (
        "127.0.0.1:7443",
        "127.0.0.1:8080",
        "listen.tunnel 127.0.0.1:8080 and listen.http 127.0.0.1:8080 overlap: give each its own port.",
    ),
    (
        "127.0.0.1:9901",
        "0.0.0.0:8080",
        "listen.admin 0.0.0.0:8080 and listen.http 127.0.0.1:8080 overlap: give each its own port.",
    ),
    (
        '"localhost", ',
        '"*.localhost", ',
        "serverNames: '*.localhost' has a wildcard where one exact hostname is needed",
    ),
    ('"localhost", ', '"localhost", "localhost", ', "serverNames name localhost twice: keep one."),
    (
        '["localhost", "Relay.Example.com.", "127.0.0.1"]',
        "[]",
        "serverNames must be a list of the names that connectors dial, such as relay.example.com.",
    ),
    ('"*.EXAMPLE.com"', '"a.*.com"', "issuers[1].hostnames: 'a.*.com' has a '*' that is not the whole first label"),
    ('"*.EXAMPLE.com"', '"example.com"', "issuers[1].hostnames name example.com twice: keep one."),
    ("20000-20099", "20099-20000", "issuers[1].tcpPorts: '20099-20000' is not a port or a range of ports"),
    ("20000-20099", "20-30", "issuers[1].tcpPorts: the range 22-22 overlaps another one: join the two."),
    ("20000-20099", "0", "issuers[1].tcpPorts: '0' is not a port or a range of ports"),
    ("id: relay-1\n", "id: relay-1\nid: relay-2\n", "Line 2: the key id stands there twice."),
    ("id: relay-1", "id: [", "This is not YAML: "),
]


@pytest.mark.parametrize(("old", "new", "sentence"), BAD, ids=[row[2][:60] for row in BAD])
def test_what_is_refused_and_how(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD.replace(old, new, 1).encode(), folder=tmp_path)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("issuers", ["issuers: []", "issuers:", ""])
def test_without_an_issuer_nothing_starts(tmp_path: Path, issuers: str) -> None:
    text = GOOD[: GOOD.index("issuers:")] + issuers
    with pytest.raises(ConfigError, match="issuers is missing: without an issuer's public key no tunnel could"):
        parse_config(text.encode(), folder=tmp_path)


def test_doors_that_must_be_there(tmp_path: Path) -> None:
    base = (
        "serverNames: [a.test]\ntls: {certificateDir: c}\nissuers: [{id: a, publicKeyFile: k, hostnames: [a.test]}]\n"
    )
    with pytest.raises(ConfigError, match=r"listen\.tunnel is missing"):
        parse_config((base + "listen: {http: ['127.0.0.1:1']}").encode(), folder=tmp_path)
    with pytest.raises(ConfigError, match="listen needs http or https addresses"):
        parse_config((base + "listen: {tunnel: ['127.0.0.1:1']}").encode(), folder=tmp_path)
    # Connectors can dial the HTTPS door as well.
    parse_config((base + "listen: {https: ['127.0.0.1:1']}").encode(), folder=tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "42", "relay", "{1: 2}"])
def test_anything_else_is_a_sentence_too(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text.encode(), folder=tmp_path)


def test_where_the_file_is_found(tmp_path: Path) -> None:
    given = tmp_path / "a.yml"
    assert config_path(given, {"CULVERT_CONFIG": "/b.yml"}) == given
    assert config_path(None, {"CULVERT_CONFIG": "/b.yml"}) == Path("/b.yml")
    with pytest.raises(ConfigError, match=r"give --config relay\.yml, or set CULVERT_CONFIG"):
        config_path(None, {})


def test_sentences_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"relay\.yml cannot be read: No such file"):
        read_config(tmp_path / "relay.yml")
    (tmp_path / "relay.yml").write_text("colour: red")
    with pytest.raises(ConfigError, match=r"relay\.yml: Unknown key colour"):
        read_config(tmp_path / "relay.yml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not YAML"):
        parse_config(b"id: !!python/object/apply:os.system ['true']", folder=tmp_path)
