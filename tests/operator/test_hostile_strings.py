"""Strings that want to be more than data, in every field; secrets where they must not be; every spelling of a name."""

from __future__ import annotations

import base64
import copy
import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from culvert_operator.issue import credential_secret
from culvert_operator.keys import ObjectKey
from culvert_operator.metrics import Metrics
from culvert_protocol.keys import PrivateKey

MAIN, SHOP, OK = ObjectKey("culvert-system", "main"), ObjectKey("shop", "shop"), ObjectKey("calm", "calm")
HOSTILE = (
    '"',
    "'",
    "a\nb: c",
    "a\r\nX-Injected: 1",
    "${HOME}",
    "$(HOME)",
    "{{ .Values.x }}",
    "`id`; $(id)",
    "\0",
    "\u202e",
    "%s%n{}",
    "</script>",
    "../../etc/passwd",
)
FULL_RULE: dict[str, Any] = {
    "name": "web",
    "protocol": "HTTP",
    "hostname": "shop.example.com",
    "allowedSources": ["192.0.2.0/24"],
    "path": {"type": "PathPrefix", "value": "/api"},
    "service": {"name": "web", "port": "http", "scheme": "https"},
    "originRequest": {
        "connectTimeout": "1s",
        "tlsTimeout": "1s",
        "tcpKeepAlive": "1s",
        "keepAliveTimeout": "1s",
        "responseTimeout": "1s",
        "httpHostHeader": "in.test",
        "originServerName": "in.test",
        "proxyProtocol": "V1",
        "caConfigMapRef": {"name": "ca", "key": "ca.crt"},
        "pathRewrite": {"stripPrefix": "/api"},
        "requestHeaders": {
            "set": [{"name": "X-A", "value": "a"}],
            "add": [{"name": "X-B", "value": "b"}],
            "remove": ["X-C"],
        },
        "responseHeaders": {"set": [{"name": "X-A", "value": "a"}]},
    },
}
FULL_TUNNEL: dict[str, Any] = {
    "relay": {"addresses": ["r.example.net:443"], "serverName": "r.example.net", "proxyURL": "http://proxy:3128"},
    "grants": [
        {"namespaces": {"from": "All"}, "hostnames": ["example.com", "*.example.com"], "tcpPorts": ["1-9"]},
    ],
    "connector": {
        "image": "culvert:1",
        "nodeSelector": {"a": "b"},
        "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}],
        "podLabels": {"team": "a"},
        "podAnnotations": {"note": "a"},
        "priorityClassName": "high",
        "logLevel": "info",
        "logFormat": "json",
    },
}


def strings(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The place of every string in a JSON value."""
    if isinstance(value, str):
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from strings(inner, (*path, key))


def put(value: Any, path: tuple[str | int, ...], text: str) -> Any:
    whole = copy.deepcopy(value)
    at = whole
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = text
    return whole


@pytest.fixture
def busy(simulate: Any) -> Any:
    """A Tunnel, a calm binding that must not be touched, and the Service of another one."""
    world = simulate()
    world.tunnel()
    world.binding("calm", "calm", "calm.example.com")
    world.service("web", "shop")
    world.settle()
    return world


def deployment(world: Any) -> Any:
    [found] = [item for (_, key), item in world.children.items() if key.kind == "Deployment"]
    return found


def said(world: Any, key: ObjectKey) -> list[str]:
    status = world.status(key)
    return [c["message"] for c in status["conditions"]] + [r["message"] for r in status.get("rules", ())]


@pytest.mark.parametrize("path", list(strings(FULL_RULE)), ids=lambda path: ".".join(map(str, path)))
def test_d19_no_string_of_a_binding_is_more_than_data(busy: Any, path: tuple[str | int, ...]) -> None:
    pods = deployment(busy)["spec"]
    calm = [rule for rule in busy.document(MAIN).rules if rule.hostname == "calm.example.com"]
    for text in HOSTILE:
        busy.binding("shop", "shop", rules=[put(FULL_RULE, path, text)])
        busy.settle()
        document = busy.document(MAIN)
        assert document is not None
        assert json.loads(document.dumps())
        assert [rule for rule in document.rules if rule.hostname == "calm.example.com"] == calm
        assert busy.condition(OK, "Ready") == ("True", "Ready")
        assert deployment(busy)["spec"] == pods, "bindings are no part of a Pod's template"
        assert all(message.isprintable() for message in said(busy, SHOP))
        for rule in document.rules:
            edits = rule.origin_request.request_headers
            for name, value in (*edits.set, *edits.add) if edits is not None else ():
                assert value.isprintable()
                assert name.isprintable()


@pytest.mark.parametrize("path", list(strings(FULL_TUNNEL)), ids=lambda path: ".".join(map(str, path)))
def test_d19_no_string_of_a_tunnel_reaches_an_argument_or_the_environment(
    simulate: Any, path: tuple[str | int, ...]
) -> None:
    for text in HOSTILE:
        world = simulate()
        world.tunnel(**put(FULL_TUNNEL, path, text))
        world.settle()
        assert all(message.isprintable() for message in said(world, MAIN))
        for container in [c for (_, k), d in world.children.items() if k.kind == "Deployment" for c in _containers(d)]:
            spoken = json.dumps([container.get("command"), container.get("args"), container.get("env")])
            # logLevel and logFormat are enumerations that the API server holds people to.
            assert path[-1] in ("logLevel", "logFormat") or json.dumps(text)[1:-1] not in spoken or text in ("'", '"')


def _containers(item: dict[str, Any]) -> list[dict[str, Any]]:
    spec = item["spec"]["template"]["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def test_d20_secrets_are_nowhere_but_in_their_secret(simulate: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = simulate()
    world.tunnel()
    world.binding("shop", "shop", "shop.example.com", "evilexample.com")
    world.settle()
    world.tunnels[MAIN]["metadata"]["annotations"] = {"culvert.dev/rotate": "1"}
    world.settle()
    secrets = [world.issuer.seed, world.issuer.pem()]
    shown: list[str] = [caplog.text, repr(world.events), repr(world.history), Metrics().exposition().decode()]
    for (_, key), item in world.children.items():
        if key.kind == "Secret":
            secrets += [base64.b64decode(value) for value in item["data"].values()]
            shown.append(json.dumps({k: v for k, v in item.items() if k != "data"}))
        else:
            shown.append(json.dumps(item))
    shown += [json.dumps(item) for store in (world.tunnels, world.bindings, world.claims) for item in store.values()]
    shown.append(repr([world.plan(key) for key in world.tunnel_keys()]))
    document = world.document(MAIN)
    assert document is not None
    shown.append(document.dumps().decode())
    assert len(secrets) > 2, "the Secret was found"
    for secret in secrets:
        for form in forms(secret):
            assert not [text[:80] for text in shown if form in text]


def test_d20_the_write_of_a_secret_does_not_show_it_where_it_is_told_of(simulate: Any) -> None:
    """A plan's operations stand in tracebacks and in messages of exceptions."""
    world = simulate()
    world.tunnel()
    wanted = world.plan(MAIN).credential
    write = credential_secret(wanted, issuer=world.issuer, key=PrivateKey(b"\x07" * 32), jti="j")
    secrets = [base64.b64decode(value) for value in write.body["data"].values()]
    assert secrets
    for secret in secrets:
        assert not [form for form in forms(secret) if form in repr(write)]


def forms(secret: bytes) -> set[str]:
    """A secret as it may be found: raw, base64 (both alphabets, without padding) and URL-encoded, its parts too."""
    found = {base64.b64encode(secret).decode().rstrip("="), base64.urlsafe_b64encode(secret).decode().rstrip("=")}
    try:
        text = secret.decode()
        parts = [text, *(value for value in _values(text) if len(value) > 30)]
        for part in parts:
            found |= {part, quote(part, safe=""), base64.b64encode(part.encode()).decode().rstrip("=")}
    except UnicodeDecodeError:
        found.add(quote(secret, safe=""))
    return {form for form in found if len(form) > 20}


def _values(text: str) -> list[str]:
    """The private strings inside a JSON file; a subject and a public key are no secrets."""
    try:
        value = json.loads(text)
    except ValueError:
        return []
    found: list[str] = []
    for path in strings(value):
        at = value
        for step in path:
            at = at[step]
        if path[-1] in ("d", "k", "credential", "private_key", "key"):
            found.append(at)
    return found


@pytest.mark.parametrize(
    "spellings",
    [
        ("Bücher.example.com", "BÜCHER.example.com.", "xn--bcher-kva.example.com", "Xn--Bcher-Kva.Example.com"),
        ("bu\u0308cher.example.com", "bücher.example.com"),
        ("例え.example.com", "xn--r8jz45g.example.com"),
        ("SHOP.example.com", "shop.example.com.", "ｓｈｏｐ.example.com"),
    ],
)
def test_d34_a_name_is_one_in_every_spelling(simulate: Any, spellings: tuple[str, ...]) -> None:
    world = simulate()
    world.tunnel()
    first = world.binding("first", "alpha", spellings[0])
    world.settle()
    assert world.condition(first, "Ready") == ("True", "Ready")
    [name] = world.document(MAIN).hostnames()
    assert name.isascii()
    for number, spelling in enumerate(spellings):
        other = world.binding(f"other-{number}", "beta", spelling)
        world.settle()
        assert world.condition(other, "Accepted") == ("False", "HostnameConflict")
        assert world.document(MAIN).hostnames() == (name,)
    assert world.status(first)["rules"][0]["hostname"] == name


@pytest.mark.parametrize(
    ("hostname", "words"),
    [
        ("☃.example.com", "☃"),
        ("🙂.example.com", "🙂"),
        ("a" * 64 + ".example.com", "63"),
        (".".join(["a" * 60] * 4) + ".example.com", "253"),
        ("192.0.2.1", "IP address"),
        ("[2001:db8::1]", "write"),
        ("0x7f.1", "IP address"),
        ("a_b.example.com", "underscore"),
        ("a.example.com:80", "port"),
        ("20022", "IP address"),
        ("-a.example.com", "hyphen"),
        ("*.*.example.com", "whole first label"),
    ],
)
def test_d34_what_is_no_name_is_refused_with_a_sentence(simulate: Any, hostname: str, words: str) -> None:
    world = simulate()
    world.tunnel()
    key = world.binding("shop", "shop", hostname)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "InvalidRule")
    assert words in world.status(key)["rules"][0]["message"]
    assert not world.claims


@pytest.mark.parametrize("hostname", ["evilexample.com", "example.com.evil.test", "*.evilexample.com", "xexample.com"])
def test_d17_a_name_beside_a_granted_one_is_neither_claimed_nor_served(simulate: Any, hostname: str) -> None:
    world = simulate()
    world.tunnel()
    key = world.binding("shop", "shop", hostname)
    world.settle()
    assert world.condition(key, "Accepted") == ("False", "HostnameNotAllowed")
    assert not world.claims
    assert world.document(MAIN).rules == ()


@pytest.mark.parametrize("scheme", ["file", "gopher", "unix", "ftp", ""])
def test_d18_a_service_is_spoken_to_in_http_alone(simulate: Any, scheme: str) -> None:
    world = simulate()
    world.tunnel()
    world.service("web", "shop")
    rule = {"name": "a", "hostname": "a.example.com", "service": {"name": "web", "port": 80, "scheme": scheme}}
    key = world.binding("shop", "shop", rules=[rule])
    world.settle()
    if scheme:
        assert world.condition(key, "Accepted") == ("False", "InvalidRule")
    else:
        assert world.document(MAIN).rules[0].service.scheme == "http", "the schema's default"


@pytest.mark.parametrize(
    "name", ["169.254.169.254", "metadata.google.internal", "user@web", "http://web", "web.other", "../web", "web:80"]
)
def test_d18_a_service_is_a_name_of_its_own_namespace_and_no_address(simulate: Any, name: str) -> None:
    world = simulate()
    world.tunnel()
    world.service("web", "shop")
    rule = {"name": "a", "hostname": "a.example.com", "service": {"name": name, "port": 80}}
    key = world.binding("shop", "shop", rules=[rule])
    world.settle()
    assert world.condition(key, "ResolvedRefs") == ("False", "ServiceNotFound")
    [served] = world.document(MAIN).rules
    assert type(served.service).__name__ == "UnavailableService", "503, never an address"
