"""Rules before anybody asks who holds their hostname: spelled one way, or rejected alone and with a sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from culvert_ingress.rules import PathMatch, PathType
from culvert_operator.api.binding import Binding, parse_binding
from culvert_operator.api.cluster import Namespace
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.candidates import Candidate, Outcome, Rejected, examine
from culvert_operator.grants import Grants, read_grants
from culvert_operator.options import Options

OPTIONS = Options(namespace="culvert-system", image="x")


def grants(*entries: dict[str, Any], options: Options = OPTIONS) -> Grants:
    found = entries or ({"namespaces": {"from": "All"}, "hostnames": ["example.com", "*.example.com"]},)
    raw = {"metadata": {"name": "main", "namespace": "culvert-system"}, "spec": {"grants": list(found)}}
    return read_grants(parse_tunnel(raw), options)


def binding(*rules: dict[str, Any], name: str = "shop", namespace: str = "shop", created: str = "1") -> Binding:
    meta = {"name": name, "namespace": namespace, "creationTimestamp": created}
    full = [{"name": f"r{i}", "service": {"name": "web", "port": 80}, **rule} for i, rule in enumerate(rules)]
    return parse_binding({"metadata": meta, "spec": {"rules": full}})


def outcome(rule: dict[str, Any], allowed: Grants | None = None) -> Outcome:
    one = binding(rule)
    return examine([one], grants=allowed or grants(), namespaces={"shop": Namespace("shop", {})})[one.meta.key][0]


@pytest.mark.parametrize("spelling", ["Shop.Example.COM", "shop.example.com.", "shop.example.com"])
def test_d34_hostnames_have_one_spelling(spelling: str) -> None:
    found = outcome({"hostname": spelling})
    assert isinstance(found, Candidate)
    assert found.hostname == "shop.example.com"


def test_international_names_become_a_labels() -> None:
    found = outcome({"hostname": "Bücher.example.com"})
    assert isinstance(found, Candidate)
    assert found.hostname == "xn--bcher-kva.example.com"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"hostname": "a_b.example.com"}, "underscore"),
        ({"hostname": "192.0.2.1"}, "IP address"),
        ({"hostname": "*foo.example.com"}, "wildcard|label"),
        ({"hostname": "http://a.example.com"}, "scheme"),
        ({"hostname": "a.example.com:80"}, "port"),
        ({"hostname": "a" * 64 + ".example.com"}, "63"),
        ({"hostname": "☃.example.com"}, "internationalised|valid"),
        ({"hostname": "a.example.com", "path": {"type": "Glob", "value": "/"}}, "not known"),
        ({"hostname": "a.example.com", "path": {"type": "Exact", "value": "x"}}, "slash"),
        ({"hostname": "a.example.com", "path": {"type": "RegularExpression", "value": "("}}, "RE2"),
        ({"hostname": "a.example.com", "path": {"type": "PathPrefix", "value": "/a%2Fb"}}, "encoded slash"),
        ({"hostname": "a.example.com", "service": None}, "either"),
        ({"hostname": "a.example.com", "httpStatus": 200}, "either"),
        ({"hostname": "a.example.com", "service": None, "httpStatus": 100}, "final status"),
        ({"hostname": "a.example.com", "service": {"name": "a", "port": 1, "scheme": "file"}}, "http or https"),
        ({"hostname": "a.example.com", "originRequest": {"connectTimeout": "soon"}}, "duration"),
        ({"hostname": "a.example.com", "originRequest": {"connectTimeout": "0s"}}, "leaves no time"),
        ({"hostname": "a.example.com", "originRequest": {"tlsTimeout": "0h0ms"}}, "leaves no time"),
        ({"hostname": "a.example.com", "originRequest": {"httpHostHeader": "a\r\nb: c"}}, "Host header"),
        ({"hostname": "a.example.com", "originRequest": {"originServerName": "a b"}}, "a b"),
    ],
)
def test_a_bad_rule_is_rejected_with_a_sentence(rule: dict[str, Any], said: str) -> None:
    found = outcome(rule)
    assert isinstance(found, Rejected)
    assert found.reason == "InvalidRule"
    assert re.search(said, found.message)


def test_a_prefix_with_and_without_slash_is_one_path() -> None:
    for value in ("/api", "/api/", "/api//"):
        found = outcome({"hostname": "a.example.com", "path": {"value": value}})
        assert isinstance(found, Candidate)
        assert found.path == PathMatch(PathType.PREFIX, "/api")


def test_origin_settings_are_read() -> None:
    found = outcome(
        {
            "hostname": "a.example.com",
            "service": {"name": "a", "port": 443, "scheme": "https"},
            "originRequest": {
                "connectTimeout": "1m30s",
                "httpHostHeader": "app.internal:8080",
                "originServerName": "app.internal",
                "noTLSVerify": True,
            },
        }
    )
    assert isinstance(found, Candidate)
    assert found.origin.connect_timeout == 90_000
    assert found.origin.http_host_header == "app.internal:8080"
    assert found.origin.origin_server_name == "app.internal"
    assert found.origin.no_tls_verify is True


def test_d17_a_name_that_only_ends_like_a_granted_one_is_not_allowed() -> None:
    found = outcome({"hostname": "evilexample.com"})
    assert isinstance(found, Rejected)
    assert found.reason == "HostnameNotAllowed"


def test_the_quota_counts_a_namespaces_rules_oldest_object_first() -> None:
    entry = {"namespaces": {"from": "All"}, "hostnames": ["*.example.com"], "maxRules": 2}
    young = binding({"hostname": "a.example.com"}, name="a-young", created="2")
    old = binding({"hostname": "b.example.com"}, {"hostname": "c.example.com"}, name="z-old", created="1")
    elsewhere = binding({"hostname": "d.example.com"}, namespace="other", created="3")
    for order in ([young, old, elsewhere], [elsewhere, old, young]):
        found = examine(order, grants=grants(entry), namespaces={})
        assert [type(o).__name__ for o in found[old.meta.key]] == ["Candidate", "Candidate"]
        assert [type(o).__name__ for o in found[elsewhere.meta.key]] == ["Candidate"]
        refused = found[young.meta.key][0]
        assert isinstance(refused, Rejected)
        assert refused.reason == "QuotaExceeded"


@pytest.mark.parametrize("text", ['"', "\n", "${x}", "{{ x }}", "'; DROP", "\u202e", "\x00"])
def test_d19_no_string_of_a_rule_becomes_anything_but_data(text: str) -> None:
    found = outcome({"hostname": f"a{text}.example.com"})
    assert isinstance(found, Rejected)
    header = outcome({"hostname": "a.example.com", "originRequest": {"httpHostHeader": text}})
    assert isinstance(header, Rejected)
