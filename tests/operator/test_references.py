"""References: which Services and certificates a rule may use."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_ingress.rules import HTTPService, OriginRequest, PathMatch, PathType, StatusService, UnavailableService
from culvert_operator.api.binding import parse_binding
from culvert_operator.api.cluster import Service, parse_service
from culvert_operator.candidates import Candidate
from culvert_operator.keys import ObjectKey
from culvert_operator.references import Resolved, resolve

WEB = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "type": "ClusterIP",
        "selector": {"app": "web"},
        "ports": [
            {"name": "http", "port": 80, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "https", "port": 443},
        ],
    },
}


def found(rule: dict[str, Any], *services: dict[str, Any], maps: dict[str, dict[str, str]] | None = None) -> Resolved:
    full = {"name": "r", "hostname": "a.com", **rule}
    binding = parse_binding({"metadata": {"name": "b", "namespace": "shop"}, "spec": {"rules": [full]}})
    candidate = Candidate(binding, binding.rules[0], "a.com", PathMatch(PathType.PREFIX, "/"), OriginRequest())
    parsed: list[Service] = [parse_service(s) for s in services]
    return resolve(
        candidate,
        services={s.key: s for s in parsed},
        config_maps={ObjectKey("shop", name): data for name, data in (maps or {}).items()},
        cluster_domain="cluster.local",
    )


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("http", 80), ("https", 443), (443, 443)])
def test_a_port_is_found_by_number_or_name(port: int | str, number: int) -> None:
    resolved = found({"service": {"name": "web", "port": port}}, WEB)
    assert resolved.service == HTTPService("http", "web.shop.svc.cluster.local", number)
    assert resolved.problem is None


@pytest.mark.parametrize(
    ("cluster_ip", "port", "number"),
    [
        ("None", {"port": 80, "targetPort": 8080}, 8080),
        ("None", {"port": 80}, 80),
        ("10.0.0.1", {"port": 80, "targetPort": 8080}, 80),
        ("10.0.0.1", {"port": 80, "targetPort": "web"}, 80),
    ],
)
def test_the_name_of_a_headless_service_stands_for_pods_and_their_port(
    cluster_ip: str, port: dict[str, Any], number: int
) -> None:
    service = {**WEB, "spec": {**WEB["spec"], "clusterIP": cluster_ip, "ports": [port]}}  # type: ignore[dict-item]
    resolved = found({"service": {"name": "web", "port": 80}}, service)
    assert resolved.service == HTTPService("http", "web.shop.svc.cluster.local", number)


@pytest.mark.parametrize(
    ("spec", "port", "reason"),
    [
        (None, 80, "ServiceNotFound"),
        ({}, 81, "PortNotFound"),
        ({}, "nope", "PortNotFound"),
        ({}, "", "PortNotFound"),
        ({}, 53, "PortNotFound"),
        ({}, "dns", "PortNotFound"),
        ({"type": "ExternalName", "externalName": "169.254.169.254"}, 80, "ServiceNotSupported"),
        ({"selector": {}}, 80, "ServiceNotSupported"),
        ({"selector": None}, 80, "ServiceNotSupported"),
        ({"clusterIP": "None", "ports": [{"port": 80, "targetPort": "web"}]}, 80, "ServiceNotSupported"),
    ],
)
def test_d18_what_cannot_be_used_answers_503_and_says_why(
    spec: dict[str, Any] | None, port: int | str, reason: str
) -> None:
    services = [] if spec is None else [{**WEB, "spec": {**WEB["spec"], **spec}}]  # type: ignore[dict-item]
    resolved = found({"service": {"name": "web", "port": port}}, *services)
    assert isinstance(resolved.service, UnavailableService)
    assert resolved.problem is not None
    assert resolved.problem.reason == reason
    assert "web" in resolved.problem.message


def test_a_service_of_another_namespace_is_not_found() -> None:
    other = {**WEB, "metadata": {"name": "web", "namespace": "other"}}
    assert found({"service": {"name": "web", "port": 80}}, other).problem is not None


def test_a_status_needs_no_service() -> None:
    assert found({"httpStatus": 410}).service == StatusService(410)


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ({}, "does not exist"),
        ({"ca": {"other": "x"}}, "has no key ca.crt"),
        ({"ca": {"ca.crt": "nothing"}}, "no PEM certificate"),
        ({"ca": {"ca.crt": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"}}, "private key"),
    ],
)
def test_a_ca_that_cannot_be_used_is_never_replaced_by_trust(maps: dict[str, dict[str, str]], said: str) -> None:
    rule = {
        "service": {"name": "web", "port": 443, "scheme": "https"},
        "originRequest": {"caConfigMapRef": {"name": "ca"}},
    }
    resolved = found(rule, WEB, maps=maps)
    assert isinstance(resolved.service, UnavailableService)
    assert resolved.problem is not None
    assert resolved.problem.reason == "ConfigMapNotFound"
    assert said in resolved.problem.message
