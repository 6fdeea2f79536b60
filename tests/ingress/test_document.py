"""The configuration document: strict reading, canonical writing, and the form that other programs rely on."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from culvert_ingress import document as document_module
from culvert_ingress.document import AddressPolicy, ConnectorSettings, Document, DocumentError, RelayTarget
from culvert_ingress.rules import (
    HeaderEdits,
    HelloWorldService,
    HTTPService,
    OriginRequest,
    PathMatch,
    PathType,
    Rule,
    StatusService,
    UnavailableService,
    UnixService,
)


def example() -> dict[str, Any]:
    """As the operator writes it, with the keys that it needs."""
    return {
        "schema": 1,
        "version": 1732380000000,
        "tunnel": "culvert-system/main",
        "relay": {"addresses": ["relay.example.com:443"], "serverName": None, "ca": None},
        "connector": {"sessions": 4, "gracePeriodSeconds": 30},
        "rules": [
            {
                "id": "shop/shop/web",
                "hostname": "shop.example.com",
                "path": {"type": "PathPrefix", "value": "/"},
                "service": {"type": "http", "scheme": "http", "host": "web.shop.svc.cluster.local", "port": 80},
                "originRequest": {
                    "connectTimeout": "30s",
                    "httpHostHeader": None,
                    "originServerName": None,
                    "noTLSVerify": False,
                    "ca": None,
                },
            }
        ],
        "fallback": {"httpStatus": 404},
        "addressPolicy": "cluster",
        "grant": "e30.e30.c2ln",
        "revocations": [],
    }


def loads(value: object) -> Document:
    return Document.loads(json.dumps(value).encode())


def changed(path: str, value: object) -> dict[str, Any]:
    """The example with one value replaced, or removed when `value` is the class `KeyError`."""
    whole: Any = example()
    at: Any = whole
    *parents, last = path.split(".")
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    if value is KeyError:
        del at[last]
    else:
        at[int(last) if last.isdigit() else last] = value
    return whole


def test_the_documented_form_is_read() -> None:
    assert loads(example()) == Document(
        version=1732380000000,
        tunnel="culvert-system/main",
        relay=RelayTarget(("relay.example.com:443",)),
        rules=(
            Rule(
                "shop/shop/web",
                "shop.example.com",
                PathMatch(PathType.PREFIX, "/"),
                HTTPService("http", "web.shop.svc.cluster.local", 80),
            ),
        ),
        grant="e30.e30.c2ln",
    )


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
NAME = st.lists(LABEL, min_size=2, max_size=3).map(".".join)
SERVICES = st.one_of(
    st.builds(
        HTTPService,
        st.sampled_from(["http", "https"]),
        st.one_of(NAME, st.sampled_from(["10.0.0.1", "::1", "my_app", "localhost"])),
        st.integers(1, 65535),
    ),
    st.builds(UnixService, st.sampled_from(["/run/app.sock", "app.sock", "/run/ü.sock"]), st.booleans()),
    st.builds(StatusService, st.integers(200, 599)),
    st.just(HelloWorldService()),
    st.builds(UnavailableService, st.sampled_from(["", 'The Service shop/web does not exist; "quotes" {{x}} ${y}'])),
)
MILLISECONDS = st.integers(0, 10**9)
EDITS = st.sampled_from(
    [
        None,
        HeaderEdits(set=(("X-Team", 'a\tb "${HOME}" {{x}}'),), remove=("Server",)),
        HeaderEdits(add=(("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"))),
    ]
)
REQUESTS = st.builds(
    OriginRequest,
    connect_timeout=MILLISECONDS,
    tls_timeout=MILLISECONDS,
    tcp_keep_alive=MILLISECONDS,
    keep_alive_connections=st.integers(0, 1000),
    keep_alive_timeout=MILLISECONDS,
    http_host_header=st.one_of(st.none(), NAME, st.just("App.internal:8080")),
    origin_server_name=st.one_of(st.none(), NAME, st.just("10.0.0.1")),
    no_tls_verify=st.booleans(),
    request_headers=EDITS,
    response_headers=EDITS,
    match_sni_to_host=st.booleans(),
    disable_chunked_encoding=st.booleans(),
)
CONDITIONS = st.one_of(
    st.none(),
    st.builds(PathMatch, st.sampled_from(PathType), st.sampled_from(["/", "/a", "/a/b.c", "/a%20b", "/a%C3%A9"])),
)
HOSTNAMES = st.one_of(st.just(""), NAME, NAME.map(lambda name: f"*.{name}"))
RULES = st.lists(
    st.builds(Rule, st.from_regex(r"[a-z/]{1,12}", fullmatch=True), HOSTNAMES, CONDITIONS, SERVICES, REQUESTS),
    max_size=5,
    unique_by=lambda rule: rule.id,
).map(tuple)
DOCUMENTS = st.builds(
    Document,
    version=st.integers(0, 2**53 - 1),
    tunnel=st.sampled_from(["main", "culvert-system/main", "ein Tunnel für alles"]),
    relay=st.builds(
        RelayTarget,
        st.lists(st.sampled_from(["relay.example.com:443", "10.0.0.1:7443", "[::1]:1"]), min_size=1).map(tuple),
        st.one_of(st.none(), NAME),
    ),
    rules=RULES,
    connector=st.builds(ConnectorSettings, st.integers(1, 64), st.integers(0, 86_400)),
    fallback_status=st.integers(200, 599),
    address_policy=st.sampled_from(AddressPolicy),
    grant=st.sampled_from(["", "e30.e30.c2ln"]),
    revocations=st.lists(st.just("e30.e30.c2ln"), max_size=2).map(tuple),
)


@given(DOCUMENTS)
def test_reading_what_was_written_gives_the_same_document(document: Document) -> None:
    assert Document.loads(document.dumps()) == document
    assert Document.loads(document.gzipped()) == document
    assert Document.loads(document.dumps()).dumps() == document.dumps()


def test_equal_documents_give_equal_bytes_and_the_archive_is_plain_gzip() -> None:
    one, other = loads(example()), loads(dict(reversed(example().items())))
    assert one.dumps() == other.dumps()
    assert one.gzipped() == other.gzipped()
    assert gzip.decompress(one.gzipped()) == one.dumps()
    assert one.dumps() == json.dumps(json.loads(one.dumps()), sort_keys=True, separators=(",", ":")).encode()


def test_the_certificate_authorities_are_kept(certificate_pem: str) -> None:
    whole = changed("rules.0.originRequest.ca", certificate_pem)
    whole["relay"]["ca"] = certificate_pem
    document = loads(whole)
    assert document.relay.ca == certificate_pem
    assert document.rules[0].origin_request.ca == certificate_pem
    assert Document.loads(document.gzipped()) == document


def test_five_thousand_rules_stay_below_what_a_configmap_holds() -> None:
    rules = tuple(
        Rule(
            f"team-{n % 97}/app-{n}/web",
            f"app-{n * 2654435761 % 2**32:x}.team-{n % 97}.example.com",
            PathMatch(PathType.PREFIX, "/"),
            HTTPService("http", f"app-{n}.team-{n % 97}.svc.cluster.local", 80),
        )
        for n in range(5000)
    )
    document = Document(version=1, tunnel="a/b", relay=RelayTarget(("r.example.com:443",)), rules=rules)
    assert len(document.gzipped()) < 300 << 10
    assert Document.loads(document.gzipped()) == document


def test_the_hostnames_are_listed_once_each() -> None:
    rules = tuple(
        Rule(f"r{n}", name, None, StatusService(200)) for n, name in enumerate(["b.com", "", "*.a.com", "b.com"])
    )
    document = Document(version=1, tunnel="a", relay=RelayTarget(("r.com:1",)), rules=rules)
    assert document.hostnames() == ("*.a.com", "b.com")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("schema", 3, "its schema is 3, and this version of culvert reads 1, 2; upgrade the connector"),
        ("schema", KeyError, "schema is missing"),
        ("schema", "1", "schema must be a whole number, not text"),
        ("schema", True, "schema must be a whole number, not true or false"),
        ("version", 1.5, "version must be a whole number"),
        ("version", 2**60, "version must be from 0 to"),
        ("tunnel", "", "tunnel must not be empty"),
        ("tunnel", "a\nb", "tunnel has a control character"),
        ("fallbacks", 1, r"fallbacks is not a key that this version knows \(the nearest is 'fallback'\)"),
        ("fallback.httpStatus", 101, "fallback.httpStatus must be from 200 to 599"),
        ("fallback.status", 404, "fallback.status is not a key"),
        ("relay", [], "relay must be an object, not a list"),
        ("relay.addresses", [], "relay.addresses is empty"),
        ("relay.addresses", ["relay.example.com"], "is not host:port"),
        ("relay.addresses", ["Relay.example.com:443"], "not in normal form; write 'relay.example.com:443'"),
        ("relay.addresses", [443], r"relay.addresses\[0\] must be text"),
        ("relay.serverName", "a b", "relay: 'a b' has a character"),
        ("relay.ca", "nothing", "relay: The certificate authority holds no PEM"),
        ("relay.port", 1, "relay.port is not a key"),
        ("connector.sessions", 0, "connector.sessions must be from 1 to 64"),
        ("connector.session", 1, "connector.session is not a key"),
        ("addressPolicy", "everything", "addressPolicy must be one of cluster, any"),
        ("grant", None, "grant must be text, not null"),
        ("revocations", [1], r"revocations\[0\] must be text"),
        ("revocations", "x", "revocations must be a list"),
        ("rules", {}, "rules must be a list, not an object"),
        ("rules.0", "x", r"rules\[0\] must be an object"),
        ("rules.0.id", "", r"rules\[0\].id must not be empty"),
        (
            "rules.0.hostname",
            "Shop.example.com",
            r"rules\[0\].hostname is 'Shop.example.com', .* write 'shop.example.com'",
        ),
        ("rules.0.hostname", "*foo.com", r"rules\[0\].hostname: .*write \*\.foo\.com"),
        ("rules.0.hostname", "127.0.0.1", "is an IP address"),
        ("rules.0.hostname", KeyError, r"rules\[0\].hostname is missing"),
        (
            "rules.0.path.type",
            "Prefix",
            r"rules\[0\].path.type must be one of Exact, PathPrefix, RegularExpression, Search",
        ),
        ("rules.0.path.value", "api", r"rules\[0\].path.value: .* write /api"),
        ("rules.0.path", {"type": "RegularExpression", "value": "("}, "is not valid RE2"),
        ("rules.0.path.flags", "i", r"rules\[0\].path.flags is not a key"),
        ("rules.0.service.type", "udp", r"rules\[0\].service.type must be one of http, unix, tcp, httpStatus"),
        ("rules.0.relayPort", 20000, r"rules\[0\]: relayPort is for TCP services; write a service such as tcp://"),
        ("rules.0.relayPort", 0, "relayPort must be from 1 to 65535"),
        ("rules.0.service", {"type": "tcp", "scheme": "udp", "host": "db", "port": 1}, "scheme must be one of"),
        ("rules.0.service", {"type": "tcp", "scheme": "tls", "host": "db", "port": 0}, "port must be from 1 to 65535"),
        ("rules.0.service.port", 0, r"rules\[0\].service.port must be from 1 to 65535"),
        ("rules.0.service.port", "80", r"rules\[0\].service.port must be a whole number, not text"),
        ("rules.0.service.host", "http://x", "has a scheme"),
        ("rules.0.service.host", "0x7f.1", "is not an IP address in its usual form"),
        ("rules.0.service.host", "127.1", "is not an IP address in its usual form"),
        ("rules.0.service.host", "[::1]", "write '::1'"),
        ("rules.0.service.scheme", "ftp", "must be one of http, https"),
        ("rules.0.service.paths", "/", r"rules\[0\].service.paths is not a key"),
        ("rules.0.service", {"type": "unix", "path": "/" + "a" * 107, "tls": False}, "longer than 107 bytes"),
        ("rules.0.service", {"type": "httpStatus", "status": 101}, "status must be from 200 to 599"),
        ("rules.0.originRequest.connectTimeout", 30, "connectTimeout must be text"),
        ("rules.0.originRequest.connectTimeout", "30", "has no unit; write 30s"),
        ("rules.0.originRequest.httpHostHeader", "a\r\nX: y", "control character"),
        ("rules.0.originRequest.httpHostHeader", "a b", "cannot stand in a Host header"),
        ("rules.0.originRequest.httpHostHeader", "user@host", "cannot stand in a Host header"),
        ("rules.0.originRequest.httpHostHeader", "::1", "write \\[::1\\]"),
        ("rules.0.originRequest.originServerName", "App.internal", "write 'app.internal'"),
        ("rules.0.originRequest.noTLSVerify", "false", "must be true or false, not text"),
        ("rules.0.originRequest.ca", "nothing", r"rules\[0\].originRequest.ca: .*no PEM"),
        ("rules.0.originRequest.keepAliveConnections", -1, "must be from 0 to"),
        ("rules.0.originRequest.pathRewrite", {"replacement": "/x"}, "needs an Exact path"),
        ("rules.0.originRequest.pathRewrite", {"prefix": "/api", "replacement": ""}, "Not every path of this rule"),
        ("rules.0.originRequest.pathRewrite", {"prefix": "", "replacement": "x"}, "start with a slash"),
        ("rules.0.originRequest.requestHeaders", {"set": [{"name": "Host", "value": "a"}]}, "httpHostHeader"),
        ("rules.0.originRequest.responseHeaders", {"remove": ["TE"]}, "responseHeaders: .*where a message ends"),
        ("rules.0.originRequest.responseHeaders", {"set": [{"name": "A", "value": 1}]}, r"set\[0\].value must be text"),
        ("rules.0.originRequest.matchSNItoHost", 1, "must be true or false"),
        ("rules.0.originRequest.noTlsVerify", True, "noTlsVerify is not a key .*nearest is 'noTLSVerify'"),
    ],
)
def test_whatever_is_not_valid_is_refused_and_the_place_is_named(path: str, value: object, sentence: str) -> None:
    with pytest.raises(DocumentError, match=sentence) as refusal:
        loads(changed(path, value))
    assert str(refusal.value).startswith("The configuration cannot be served: ")


def test_two_rules_with_one_id_are_refused() -> None:
    whole = example()
    whole["rules"].append(whole["rules"][0])
    with pytest.raises(DocumentError, match=r"rules\[1\]\.id is 'shop/shop/web', which an earlier rule has already"):
        loads(whole)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not JSON"),
        (b"{", r"is not JSON \(line 1, column 2\)"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[]", "The document must be an object, not a list"),
        (b'{"schema":1,"schema":1}', "'schema' stands twice"),
        (b'{"schema":NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"schema":' + b"1" * 5000 + b"}", "is not JSON"),
        (b"\x1f\x8bnonsense", "gzip data cannot be read"),
        (gzip.compress(b"{}", mtime=0)[:-4], "cut short"),
        (gzip.compress(b"{}", mtime=0) + b"more", "more follows it"),
    ],
)
def test_damaged_data_is_refused_with_a_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(DocumentError, match=sentence):
        Document.loads(data)


def test_an_archive_that_expands_without_end_is_stopped_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_module, "MAX_BYTES", 1 << 20)
    with pytest.raises(DocumentError, match="larger than 1 MiB"):
        Document.loads(b" " * (2 << 20))
    archive = gzip.compress(b" " * (32 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DocumentError, match="larger than 1 MiB"):
            Document.loads(archive)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
