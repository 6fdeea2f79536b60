"""Grants: who may bind what, under the operator's own limits."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_operator.api.cluster import Namespace
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.grants import Granted, NotGranted, read_grants
from culvert_operator.options import Options


def ask(hostname: str, namespace: Namespace, *entries: dict[str, Any], **options: Any) -> Granted | NotGranted:
    raw = {"metadata": {"name": "main", "namespace": "culvert-system"}, "spec": {"grants": list(entries)}}
    made = Options(namespace="culvert-system", image="x", **options)
    return read_grants(parse_tunnel(raw), made).allow(hostname, namespace)


def entry(*hostnames: str, source: str = "All", **selector: Any) -> dict[str, Any]:
    return {"namespaces": {"from": source, "selector": selector}, "hostnames": list(hostnames), "maxRules": 7}


SHOP = Namespace("shop", {"team": "shop", "tier": "gold"})


@pytest.mark.parametrize(
    ("pattern", "hostname", "allowed"),
    [
        ("example.com", "example.com", True),
        ("example.com", "a.example.com", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.a.example.com", "*.example.com", False),
        ("EXAMPLE.com.", "example.com", True),
        ("bücher.example", "xn--bcher-kva.example", True),
    ],
)
def test_d17_hostnames_are_compared_on_label_boundaries(pattern: str, hostname: str, allowed: bool) -> None:
    assert isinstance(ask(hostname, SHOP, entry(pattern)), Granted) is allowed


@pytest.mark.parametrize(
    ("source", "selector", "allowed"),
    [
        ("Same", {}, False),
        ("All", {}, True),
        ("Nobody", {}, False),
        ("Selector", {"matchLabels": {"team": "shop"}}, True),
        ("Selector", {"matchLabels": {"team": "other"}}, False),
        ("Selector", {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}]}, True),
        ("Selector", {"matchExpressions": [{"key": "none", "operator": "In", "values": ["gold"]}]}, False),
        ("Selector", {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["gold"]}]}, False),
        ("Selector", {"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["gold"]}]}, True),
        ("Selector", {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ("Selector", {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ("Selector", {"matchExpressions": [{"key": "tier", "operator": "Roughly"}]}, False),
    ],
)
def test_namespaces_are_chosen(source: str, selector: dict[str, Any], allowed: bool) -> None:
    found = ask("a.com", SHOP, entry("a.com", source=source, **selector))
    assert isinstance(found, Granted) is allowed
    if isinstance(found, NotGranted):
        assert found.reason == "NamespaceNotAllowed"


def test_same_is_the_tunnels_own_namespace() -> None:
    assert isinstance(ask("a.com", Namespace("culvert-system", {}), entry("a.com", source="Same")), Granted)


def test_the_first_entry_that_matches_both_decides() -> None:
    found = ask("b.com", SHOP, entry("a.com"), entry("b.com", source="Same"), entry("b.com"))
    assert found == Granted(2, 7)


def test_nothing_is_granted_beyond_the_operators_limits() -> None:
    limits = ("*.example.com",)
    assert isinstance(ask("a.example.com", SHOP, entry("*.example.com"), allowed_hostnames=limits), Granted)
    refused = ask("a.other.com", SHOP, entry("*.other.com"), allowed_hostnames=limits)
    assert isinstance(refused, NotGranted)
    assert "--allowed-hostnames" in refused.message


def test_patterns_beyond_the_limits_are_named() -> None:
    raw = {"spec": {"grants": [entry("*.example.com", "other.com", "*.com")]}}
    made = Options(namespace="x", image="x", allowed_hostnames=("*.example.com",))
    assert read_grants(parse_tunnel(raw), made).beyond_limits == ("*.com", "other.com")


def test_a_pattern_that_is_no_hostname_grants_nothing() -> None:
    assert isinstance(ask("a.com", SHOP, entry("*", "*a.com", "")), NotGranted)
