"""Every rule of the CRDs' schemas, on a real API server: what it refuses, with which words, and what it lets through.

One row per rule: the change that breaks it, a part of the message, and a change that satisfies it. A rule without a
row fails `test_every_rule_has_its_row`.
"""

# ruff: noqa: E501 - one row, one rule
from __future__ import annotations

import base64
import copy
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

CRDS = Path(__file__).resolve().parent.parent.parent / "crds"
KINDS = {"Tunnel": "tunnels", "TunnelBinding": "tunnelbindings", "HostnameClaim": "hostnameclaims"}

TUNNEL: dict[str, Any] = {
    "apiVersion": "culvert.dev/v1alpha1",
    "kind": "Tunnel",
    "metadata": {"name": "main", "namespace": "default"},
    "spec": {"relay": {"addresses": ["relay.example.com:443"]}, "grants": [{"hostnames": ["example.com"]}]},
}
BINDING: dict[str, Any] = {
    "apiVersion": "culvert.dev/v1alpha1",
    "kind": "TunnelBinding",
    "metadata": {"name": "shop", "namespace": "default"},
    "spec": {"rules": [{"name": "web", "hostname": "shop.example.com", "service": {"name": "web", "port": 80}}]},
}
CLAIM: dict[str, Any] = {
    "apiVersion": "culvert.dev/v1alpha1",
    "kind": "HostnameClaim",
    "metadata": {"name": "h-" + "0" * 48},
    "spec": {
        "hostname": "shop.example.com",
        "owner": {"namespace": "shop"},
        "tunnel": "culvert-system/main",
        "claimedAt": "2025-01-01T00:00:00.000Z",
    },
}
BASE = {"Tunnel": TUNNEL, "TunnelBinding": BINDING, "HostnameClaim": CLAIM}
REMOVE = object()
SERVICE = {"name": "db", "port": 5432}
MEMORY = {"memory": {}, "zones": ["example.com"]}
TSIG = {"keyName": "culvert", "secretRef": {"name": "tsig", "key": "secret"}}
RFC2136 = {"rfc2136": {"servers": ["ns1.example.com"], "tsig": TSIG}}
ZONEFILE = {"zonefile": {"configMapRef": {"name": "zone", "key": "db"}, "zone": "example.com"}}
HOSTNAME_ROWS = [
    ("https://shop.example.com", "without scheme", "shop.example.com"),
    ("shop.example.com:443", "without scheme", "SHOP.Example.com."),
    ("me@shop.example.com", "without scheme", "*.example.com"),
    ("*shop.example.com", "whole first label", "*.shop.example.com"),
    ("a.*.example.com", "whole first label", "*.a.example.com"),
    ("*", "whole first label", "*.com"),
    ("a_b.example.com", "neither underscores nor blanks", "a-b.example.com"),
    ("a b.example.com", "neither underscores nor blanks", "bücher.example.com"),
    ("192.0.2.1", "an IP address is not a hostname", "192.0.2.1.example.com"),
    ("0x7f.1", "an IP address is not a hostname", "0x7f.example"),
    ("a..example.com", "no empty label", "a.example.com"),
    (".example.com", "no empty label", "example.com"),
    (f"{'a' * 64}.example.com", "at most 63 characters", f"{'a' * 63}.example.com"),
    (f"shop.{'a' * 64}.", "at most 63 characters", f"*.{'a' * 63}.{'b' * 63}"),
    ("-shop.example.com", "with a hyphen", "a-b--c.example.com"),
    ("shop-.example.com", "with a hyphen", "xn--bcher-kva.example.com"),
    ("*.-example.com", "with a hyphen", "*.a-b.example.com"),
    ("shop.example-", "with a hyphen", "1-2.example.com"),
    ("", "at least 1 chars long", "x"),
    ("a" * 254, "Too long", "example.com"),
]


def spec(path: str) -> tuple[str | int, ...]:
    """`rules.0.name` → ("spec", "rules", 0, "name"); a leading dot starts at the object's root."""
    parts = path[1:].split(".") if path.startswith(".") else ["spec", *path.split(".")]
    return tuple(int(p) if p.isdigit() else p for p in parts)


# (kind, path, value that is refused, part of the message, value that is accepted)
ROWS: list[tuple[str, str, Any, str, Any]] = [
    ("Tunnel", ".metadata.name", "a" * 51, "at most 50 characters", "a" * 50),
    ("Tunnel", ".spec", REMOVE, "spec: Required value", TUNNEL["spec"]),
    ("Tunnel", "relay", REMOVE, "spec.relay: Required value", TUNNEL["spec"]["relay"]),
    ("Tunnel", "relay.addresses", REMOVE, "relay.addresses: Required value", ["r:1"]),
    ("Tunnel", "relay.addresses", [], "at least 1 items", ["r.example.com:443", "[2001:db8::1]:443"]),
    ("Tunnel", "relay.addresses", [f"r{i}:1" for i in range(17)], "at most 16 items", ["192.0.2.1:65535"]),
    ("Tunnel", "relay.addresses", ["r:1", "r:1"], "Duplicate value", ["r:1", "r:2"]),
    ("Tunnel", "relay.addresses", ["https://r.example.com:443"], "without a scheme", ["r.example.com:443"]),
    ("Tunnel", "relay.addresses", ["r.example.com:443/x"], "without a path", ["r.example.com.:443"]),
    ("Tunnel", "relay.addresses", ["r.example.com"], "as host:port", ["r.example.com:1"]),
    ("Tunnel", "relay.addresses", ["2001:db8::1:443"], "as host:port", ["[2001:db8::1]:443"]),
    ("Tunnel", "relay.addresses", ["r.example.com:70000"], "from 1 to 65535", ["r.example.com:65535"]),
    ("Tunnel", "relay.addresses", ["r.example.com:0"], "from 1 to 65535", ["r.example.com:1"]),
    ("Tunnel", "relay.caConfigMapRef", {}, "caConfigMapRef.name: Required value", {"name": "ca"}),
    ("Tunnel", "relay.serverName", "relay.example.com:443", "without a port", "relay.example.com"),
    ("Tunnel", "relay.proxyURL", "http://me:secret@proxy:3128", "everyone who may read this Tunnel", "http://proxy:3128"),
    ("Tunnel", "relay.proxyURL", "socks5://proxy:1080", "the URL of an HTTP proxy with its port", "http://[2001:db8::1]:3128/"),
    ("Tunnel", "relay.proxyURL", "http://proxy", "the URL of an HTTP proxy with its port", "http://192.0.2.1:8080"),
    ("Tunnel", "relay.proxyURL", "http://proxy:3128/path?x", "the URL of an HTTP proxy with its port", "HTTP://proxy.example.com.:1"),
    ("Tunnel", "connector", {"replicas": -1}, "greater than or equal to 0", {"replicas": 0}),
    ("Tunnel", "connector", {"replicas": 101}, "less than or equal to 100", {"replicas": 100}),
    ("Tunnel", "connector", {"sessions": 0}, "greater than or equal to 1", {"sessions": 64}),
    ("Tunnel", "connector", {"gracePeriodSeconds": 3601}, "less than or equal to 3600", {"gracePeriodSeconds": 0}),
    ("Tunnel", "connector", {"image": "a b"}, "has no blanks", {"image": "registry.example.com/culvert@sha256:00"}),
    ("Tunnel", "connector", {"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}, "Duplicate value", {"imagePullSecrets": [{"name": "a"}]}),
    ("Tunnel", "connector", {"resources": {"requests": {"cpu": "much"}}}, "should match", {"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": 1}}}),
    ("Tunnel", "connector", {"nodeSelector": {"a": 1}}, "must be of type string", {"nodeSelector": {"a": "1"}}),
    ("Tunnel", "connector", {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "with operator Exists has no value", {"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "value": "c", "effect": "NoSchedule"}]}),
    ("Tunnel", "connector", {"tolerations": [{"effect": "Sometimes"}]}, "Unsupported value", {"tolerations": [{"operator": "Exists"}]}),
    ("Tunnel", "connector", {"affinity": "none"}, "must be of type object", {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}}),
    ("Tunnel", "connector", {"topologySpreadConstraints": [{"maxSkew": 1}]}, "topologyKey: Required value", {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]}]}),
    ("Tunnel", "connector", {"podLabels": {"culvert.dev/tunnel": "x"}}, "culvert's own", {"podLabels": {"team": "x"}}),
    ("Tunnel", "connector", {"podLabels": {"app.kubernetes.io/name": "x"}}, "culvert's own", {"podLabels": {"app": "x"}}),
    ("Tunnel", "connector", {"podAnnotations": {"a": 1}}, "must be of type string", {"podAnnotations": {"a": "1"}}),
    ("Tunnel", "connector", {"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}, "minReplicas is more than maxReplicas", {"autoscaling": {"maxReplicas": 2}}),
    ("Tunnel", "connector", {"autoscaling": {}}, "maxReplicas: Required value", {"autoscaling": {"maxReplicas": 100, "targetCPUUtilizationPercentage": 100}}),
    ("Tunnel", "connector", {"autoscaling": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 101}}, "less than or equal to 100", {"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}),
    ("Tunnel", "connector", {"imageUpdatePolicy": "Never"}, "Unsupported value", {"imageUpdatePolicy": "Manual"}),
    ("Tunnel", "connector", {"priorityClassName": ""}, "at least 1 chars long", {"priorityClassName": "high"}),
    ("Tunnel", "connector", {"logFormat": "xml"}, "Unsupported value", {"logFormat": "text"}),
    ("Tunnel", "connector", {"logLevel": "trace"}, "Unsupported value", {"logLevel": "debug"}),
    ("Tunnel", "grants", REMOVE, "grants: Required value", TUNNEL["spec"]["grants"]),
    ("Tunnel", "grants", [], "at least 1 items", [{"hostnames": ["a.com"]}]),
    ("Tunnel", "grants.0.hostnames", [], "at least 1 items", ["*.a.com"]),
    ("Tunnel", "grants.0.maxRules", 0, "greater than or equal to 1", 5000),
    ("Tunnel", "grants.0.namespaces", {"from": "Some"}, "Unsupported value", {"from": "All"}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector"}, "a selector goes with", {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}}),
    ("Tunnel", "grants.0.namespaces", {"from": "All", "selector": {}}, "a selector goes with", {"from": "Same"}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In and NotIn need values", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}, "Exists and DoesNotExist have none", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}}),
    ("Tunnel", "grants.0", {"maxRules": 1}, "add hostnames or tcpPorts", {"tcpPorts": ["20000"]}),
    ("Tunnel", "grants.0.tcpPorts", [], "at least 1 items", ["20000"]),
    ("Tunnel", "grants.0.tcpPorts", ["0"], "a port or a range of ports", ["1", "65535"]),
    ("Tunnel", "grants.0.tcpPorts", ["65536"], "a port or a range of ports", ["1-65535"]),
    ("Tunnel", "grants.0.tcpPorts", ["20000-99999"], "a port or a range of ports", ["20000-20099"]),
    ("Tunnel", "grants.0.tcpPorts", ["20099-20000"], "not above the last", ["20000-20000"]),
    ("Tunnel", "grants.0.tcpPorts", ["a"], "a port or a range of ports", ["9-10"]),
    ("Tunnel", "fallback", {"httpStatus": 100}, "greater than or equal to 200", {"httpStatus": 503}),
    ("Tunnel", "dns", {}, "name exactly one provider", MEMORY),
    ("Tunnel", "dns", {**MEMORY, **ZONEFILE}, "name exactly one provider", ZONEFILE),
    ("Tunnel", "dns", {"memory": {}}, "needs zones", MEMORY),
    ("Tunnel", "dns", {**ZONEFILE, "zones": ["a.com"]}, "has its one zone", ZONEFILE),
    ("Tunnel", "dns", {**MEMORY, "route53": {}}, "unknown field", MEMORY),
    ("Tunnel", "dns", {**MEMORY, **RFC2136}, "name exactly one provider", RFC2136),
    ("Tunnel", "dns", {"rfc2136": {"servers": []}}, "at least 1 items", {**RFC2136, "zones": ["example.com"]}),
    ("Tunnel", "dns", {"rfc2136": {"servers": ["https://ns1"]}}, "write a server as host", {"rfc2136": {"servers": ["[2001:db8::53]:53", "ns1", "192.0.2.53:5353"]}}),
    ("Tunnel", "dns", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {**TSIG, "algorithm": "hmac-md5"}}}, "Unsupported value", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {**TSIG, "algorithm": "hmac-sha512"}}}),
    ("Tunnel", "dns", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {**TSIG, "keyName": "a b"}}}, "a key's name has letters", RFC2136),
    ("Tunnel", "dns", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {"keyName": "a"}}}, "secretRef: Required value", RFC2136),
    ("Tunnel", "dns", {**RFC2136, "cloudflare": {"apiTokenSecretRef": {"name": "s", "key": "k"}}}, "name exactly one provider", {"cloudflare": {"apiTokenSecretRef": {"name": "s", "key": "k"}, "proxied": True}}),
    ("Tunnel", "dns", {"cloudflare": {}}, "apiTokenSecretRef: Required value", RFC2136),
    ("Tunnel", "dns", {"webhook": {"url": "webhook:8888"}}, "write an http or https URL", {"webhook": {"url": "http://webhook.dns.svc:8888"}}),
    ("Tunnel", "dns", {"webhook": {"url": "file:///etc/passwd"}}, "write an http or https URL", {"webhook": {"url": "https://a.example/path"}}),
    ("Tunnel", "dns", {**MEMORY, "endpoints": {}}, "name exactly one provider", {"endpoints": {}}),
    ("Tunnel", "dns", {"endpoints": {"labels": {"a b": "c"}}}, "the names of labels", {"endpoints": {"labels": {"example.com/team": "edge", "a": ""}}}),
    ("Tunnel", "dns", {"endpoints": {"labels": {"a": "b c"}}}, "a label's value has letters", {"endpoints": {"labels": {"a": "b.c"}}}),
    ("Tunnel", "dns", {"endpoints": {"providerSpecific": {"a": 1}}}, "must be of type string", {"endpoints": {"providerSpecific": {"external-dns.alpha.kubernetes.io/cloudflare-proxied": "true"}}}),
    ("Tunnel", "dns", {"plugin": {"name": "memory"}}, "blocks of their own", {"plugin": {"name": "route53", "config": {"region": "eu"}}}),
    ("Tunnel", "dns", {"plugin": {"name": "a b"}}, "an entry point's name", {"plugin": {"name": "a", "secretRef": {"name": "s", "key": "k"}}}),
    ("Tunnel", "dns", {**MEMORY, "adopt": "Any"}, "Unsupported value", {**MEMORY, "adopt": "SameValue"}),
    ("Tunnel", "dns", {**MEMORY, "onUnavailable": "Delete"}, "Unsupported value", {**MEMORY, "onUnavailable": "Withdraw"}),
    ("Tunnel", "dns", {**MEMORY, "withdrawAfterSeconds": 29}, "greater than or equal to 30", {**MEMORY, "withdrawAfterSeconds": 30}),
    ("Tunnel", "dns", {**MEMORY, "zones": ["https://a"]}, "write the zone's name", {**MEMORY, "zones": ["example.com."]}),
    ("Tunnel", "dns", {"zonefile": {**ZONEFILE["zonefile"], "zone": "a/b"}}, "write the zone's name", ZONEFILE),
    ("Tunnel", "dns", {"zonefile": {"zone": "a.com"}}, "configMapRef: Required value", ZONEFILE),
    ("Tunnel", "dns", {"zonefile": {"zone": "a.com", "configMapRef": {"name": "a"}}}, "configMapRef.key: Required value", ZONEFILE),
    ("Tunnel", "dns", {**MEMORY, "ownerId": "a b"}, "an owner id has letters", {**MEMORY, "ownerId": "a/b-c_d.e"}),
    ("Tunnel", "dns", {**MEMORY, "policy": "all"}, "Unsupported value", {**MEMORY, "policy": "upsert-only"}),
    ("Tunnel", "dns", {**MEMORY, "ttl": 0}, "greater than or equal to 1", {**MEMORY, "ttl": 86400}),
    ("Tunnel", "dns", {**MEMORY, "target": {}}, "either a hostname or addresses", {**MEMORY, "target": {"hostname": "r.example.com"}}),
    ("Tunnel", "dns", {**MEMORY, "target": {"hostname": "a.com", "addresses": ["192.0.2.1"]}}, "either a hostname or addresses", {**MEMORY, "target": {"addresses": ["192.0.2.1"]}}),
    ("Tunnel", "dns", {**MEMORY, "target": {"hostname": "192.0.2.1"}}, "IP addresses go into addresses", {**MEMORY, "target": {"hostname": "a.com."}}),
    ("Tunnel", "dns", {**MEMORY, "target": {"addresses": ["a.com"]}}, "write an IP address", {**MEMORY, "target": {"addresses": ["2001:db8::1"]}}),
    ("Tunnel", "deletionPolicy", "Keep", "Unsupported value", "Retain"),
    ("TunnelBinding", ".metadata.name", "a" * 64, "at most 63 characters", "a" * 63),
    ("TunnelBinding", "tunnelRef", {"name": "a\nb"}, "the name of a Tunnel", {"name": "main.v2"}),
    ("TunnelBinding", "tunnelRef", {"name": "main", "namespace": "A/b"}, "the name of a namespace", {"name": "main", "namespace": "a-1"}),
    ("TunnelBinding", "rules.0.service.name", "web\nx", "the name of a Service of this namespace", "web-1"),
    ("TunnelBinding", "rules.0.service.name", "web.other", "the name of a Service of this namespace", "1web"),
    ("TunnelBinding", "tunnelRef", {}, "tunnelRef.name: Required value", {"name": "main", "namespace": "culvert-system"}),
    ("TunnelBinding", "rules", [], "at least 1 items", BINDING["spec"]["rules"]),
    ("TunnelBinding", "rules", [{"name": f"r{i}", "hostname": f"h{i}.example.com", "httpStatus": 410} for i in range(65)], "at most 64 items", [{"name": f"r{i}", "hostname": f"h{i}.example.com", "httpStatus": 410} for i in range(64)]),
    ("TunnelBinding", "rules", BINDING["spec"]["rules"] * 2, "Duplicate value", BINDING["spec"]["rules"]),
    ("TunnelBinding", "rules.0.name", "Web", "lower-case letters", "web-1"),
    ("TunnelBinding", "rules.0.hostname", REMOVE, "a rule needs a hostname", "a.example.com"),
    ("TunnelBinding", "rules.0.protocol", "UDP", "Unsupported value", "TLS"),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TLS", "service": SERVICE}, "a rule needs a hostname", {"name": "a", "protocol": "TCP", "relayPort": 20022, "service": SERVICE}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TCP", "service": SERVICE}, "a relayPort goes with", {"name": "a", "protocol": "TCP", "relayPort": 1, "service": SERVICE}),
    ("TunnelBinding", "rules.0.relayPort", 20022, "a relayPort goes with", REMOVE),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TCP", "relayPort": 0, "service": SERVICE}, "greater than or equal to 1", {"name": "a", "protocol": "TCP", "relayPort": 65535, "service": SERVICE}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TCP", "relayPort": 1, "hostname": "a.com", "service": SERVICE}, "remove hostname", {"name": "a", "protocol": "TLS", "hostname": "a.com", "service": SERVICE}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TLS", "hostname": "a.com", "httpStatus": 404}, "needs a service", {"name": "a", "hostname": "a.com", "httpStatus": 404}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TLS", "hostname": "a.com", "path": {"value": "/a"}, "service": SERVICE}, "TCP and TLS have no paths", {"name": "a", "protocol": "TLS", "hostname": "a.com", "path": {"value": "/"}, "service": SERVICE}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TLS", "hostname": "a.com", "service": {**SERVICE, "scheme": "https"}}, "remove scheme", {"name": "a", "protocol": "TLS", "hostname": "*.a.com", "service": SERVICE}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TLS", "hostname": "a.com", "service": SERVICE, "originRequest": {"httpHostHeader": "b"}}, "httpHostHeader is about HTTP", {"name": "a", "protocol": "TLS", "hostname": "a.com", "service": SERVICE, "originRequest": {"proxyProtocol": "V2"}}),
    ("TunnelBinding", "rules.0", {"name": "a", "hostname": "a.com", "httpStatus": 404, "wildcard": "Fallback"}, "wildcard is about a hostname such as", {"name": "a", "hostname": "*.a.com", "httpStatus": 404, "wildcard": "Fallback"}),
    ("TunnelBinding", "rules.0", {"name": "a", "protocol": "TCP", "relayPort": 1, "service": SERVICE, "wildcard": "Reserve"}, "wildcard is about a hostname such as", {"name": "a", "hostname": "*.a.com", "httpStatus": 404, "wildcard": "Reserve"}),
    ("TunnelBinding", "rules.0", {"name": "a", "hostname": "*.a.com", "httpStatus": 404, "wildcard": "Yield"}, "Unsupported value", {"name": "a", "protocol": "TLS", "hostname": "*.a.com", "service": SERVICE, "wildcard": "Fallback"}),
    ("TunnelBinding", "rules.0.allowedSources", [], "at least 1 items", ["0.0.0.0/0", "::/0"]),
    ("TunnelBinding", "rules.0.allowedSources", ["192.0.2.1/24"], "a network in its usual form", ["192.0.2.0/24"]),
    ("TunnelBinding", "rules.0.allowedSources", ["192.0.2.1"], "a network in its usual form", ["192.0.2.1/32"]),
    ("TunnelBinding", "rules.0.allowedSources", ["example.com"], "a network in its usual form", ["2001:db8::/32"]),
    ("TunnelBinding", "rules.0.originRequest", {"proxyProtocol": "V3"}, "Unsupported value", {"proxyProtocol": "None"}),
    ("TunnelBinding", "rules.0.path", {"value": "api"}, "starts with a slash", {"value": "/api"}),
    ("TunnelBinding", "rules.0.path", {"value": "/a?b"}, "remove the query", {"type": "RegularExpression", "value": "/a?b"}),
    ("TunnelBinding", "rules.0.path", {"value": "/a//b"}, "no empty segment", {"value": "/a/b"}),
    ("TunnelBinding", "rules.0.path", {"value": "/a/../b"}, "no empty segment", {"value": "/a/..b/"}),
    ("TunnelBinding", "rules.0.path", {"value": "/a/."}, "no empty segment", {"value": "/.well-known/x"}),
    ("TunnelBinding", "rules.0.path", {"type": "Glob", "value": "/"}, "Unsupported value", {"type": "Exact", "value": "/"}),
    ("TunnelBinding", "rules.0.path", {"type": "RegularExpression", "value": "/(a"}, "error parsing regexp", {"type": "RegularExpression", "value": "/(a)"}),
    ("TunnelBinding", "rules.0.path", {"type": "RegularExpression", "value": "(?=a)"}, "error parsing regexp", {"type": "RegularExpression", "value": "/v[0-9]+/.*"}),
    ("TunnelBinding", "rules.0.path", {"type": "RegularExpression", "value": "a" * 257}, "at most 256 characters", {"type": "RegularExpression", "value": "a" * 256}),
    ("TunnelBinding", "rules.0.service", {"name": "web"}, "port: Required value", {"name": "web", "port": 65535}),
    ("TunnelBinding", "rules.0.service.port", 0, "from 1 to 65535", 1),
    ("TunnelBinding", "rules.0.service.port", 65536, "from 1 to 65535", "http"),
    ("TunnelBinding", "rules.0.service.port", "-", "one of the Service's ports", "web-2"),
    ("TunnelBinding", "rules.0.service.port", "80", "without quotes", 80),
    ("TunnelBinding", "rules.0.service.scheme", "tcp", "Unsupported value", "https"),
    ("TunnelBinding", "rules.0.service.namespace", "other", "unknown field", REMOVE),
    ("TunnelBinding", "rules.0", {"name": "a", "hostname": "a.com"}, "either a service or an httpStatus", {"name": "a", "hostname": "a.com", "httpStatus": 410}),
    ("TunnelBinding", "rules.0.httpStatus", 200, "either a service or an httpStatus", REMOVE),
    ("TunnelBinding", "rules.0", {"name": "a", "hostname": "a.com", "httpStatus": 199}, "greater than or equal to 200", {"name": "a", "hostname": "a.com", "httpStatus": 599}),
    ("TunnelBinding", "rules.0", {"name": "a", "hostname": "a.com", "httpStatus": 410, "originRequest": {}}, "originRequest is about a service", {"name": "a", "hostname": "a.com", "httpStatus": 410}),
    ("TunnelBinding", "rules.0.originRequest", {"connectTimeout": "30"}, "a duration with units", {"connectTimeout": "1m30s"}),
    ("TunnelBinding", "rules.0.originRequest", {"connectTimeout": "0s"}, "above zero", {"connectTimeout": "0s1ms"}),
    ("TunnelBinding", "rules.0.originRequest", {"tlsTimeout": "0h0ms"}, "above zero", {"tlsTimeout": "10s"}),
    ("TunnelBinding", "rules.0.originRequest", {"tlsTimeout": "soon"}, "a duration with units", {"tlsTimeout": "5s"}),
    ("TunnelBinding", "rules.0.originRequest", {"tcpKeepAlive": "30"}, "a duration with units", {"tcpKeepAlive": "0s"}),
    ("TunnelBinding", "rules.0.originRequest", {"keepAliveTimeout": "-1s"}, "a duration with units", {"keepAliveTimeout": "1h"}),
    ("TunnelBinding", "rules.0.originRequest", {"keepAliveConnections": -1}, "greater than or equal to 0", {"keepAliveConnections": 0}),
    ("TunnelBinding", "rules.0.originRequest", {"httpHostHeader": "http://a"}, "write a host, or host:port", {"httpHostHeader": "app.internal:8080"}),
    ("TunnelBinding", "rules.0.originRequest", {"httpHostHeader": "a\r\nX-B: c"}, "write a host, or host:port", {"httpHostHeader": "[::1]:80"}),
    ("TunnelBinding", "rules.0.originRequest", {"noTLSVerify": True}, "write scheme: https", {"connectTimeout": "500ms"}),
    ("TunnelBinding", "rules.0.originRequest", {"responseTimeout": "100"}, "a duration with units", {"responseTimeout": "0s"}),
    ("TunnelBinding", "rules.0.originRequest", {"http2Origin": True}, "unknown field", {"disableChunkedEncoding": True}),
    ("HostnameClaim", ".metadata.name", "shop.example.com", "a hash of its hostname", "h-" + "f" * 48),
    ("HostnameClaim", "hostname", REMOVE, "either a hostname or a tcpPort", "a.com"),
    ("HostnameClaim", "tcpPort", 20022, "either a hostname or a tcpPort", REMOVE),
    ("HostnameClaim", "hostname", "Shop.example.com", "in lower case", "*.example.com"),
    ("HostnameClaim", "wildcard", "Yield", "Unsupported value", "Fallback"),
    ("HostnameClaim", "tunnel", "main", "namespace/name", "a/b"),
    ("HostnameClaim", "claimedAt", "yesterday", "must be of type date-time", "2025-01-01T00:00:00Z"),
    ("HostnameClaim", "owner", {}, "owner.namespace: Required value", {"namespace": "a"}),
    ("HostnameClaim", "paths", [{"type": "Glob", "value": "/", "binding": "a"}], "Unsupported value", [{"type": "Exact", "value": "/", "binding": "a"}]),
    ("HostnameClaim", "former", {"tunnel": "a/b", "keeps": "Route"}, "former.claimedAt: Required value", {"tunnel": "a/b", "claimedAt": "2025-01-01T00:00:00Z", "keeps": "Route"}),
    ("HostnameClaim", "former", {"tunnel": "b", "claimedAt": "2025-01-01T00:00:00Z", "keeps": "Route"}, "namespace/name", {"tunnel": "a/b", "claimedAt": "2025-01-01T00:00:00Z", "keeps": "Record"}),
    ("HostnameClaim", "former", {"tunnel": "a/b", "claimedAt": "2025-01-01T00:00:00Z", "keeps": "All"}, "Unsupported value", {"tunnel": "a/b", "claimedAt": "2025-01-01T00:00:00Z", "keeps": "Nothing"}),
    ("HostnameClaim", "state", "Held", "Unsupported value", "Vacant"),
    ("HostnameClaim", "waiting", [{"namespace": "a", "name": "b", "tunnel": "c/d", "since": "2025-01-01T00:00:00Z", "wildcard": "Yield"}], "Unsupported value", [{"namespace": "a", "name": "b", "tunnel": "c/d", "since": "2025-01-01T00:00:00Z", "hostname": "*.a.com", "wildcard": "Fallback"}]),
    ("HostnameClaim", "waiting", [{"namespace": "a"}], "waiting[0].name: Required value", [{"namespace": "a", "name": "b", "tunnel": "c/d", "since": "2025-01-01T00:00:00Z"}]),
    ("Tunnel", "relay.caConfigMapRef", {"name": "relay_ca"}, "the name of a ConfigMap of this namespace", {"name": "relay-ca.v2"}),
    ("Tunnel", "relay.caConfigMapRef", {"name": "ca", "key": "a b"}, "a key of the ConfigMap", {"name": "ca", "key": "CA_1.crt"}),
    ("Tunnel", "connector", {"imagePullSecrets": [{"name": "Registry"}]}, "the name of a Secret of this namespace", {"imagePullSecrets": [{"name": "registry.example.com"}]}),
    ("Tunnel", "connector", {"priorityClassName": "very high"}, "the name of a PriorityClass", {"priorityClassName": "system-cluster-critical"}),
    ("Tunnel", "connector", {"nodeSelector": {"a b": "c"}}, "the names of labels", {"nodeSelector": {"kubernetes.io/os": "linux", "a" * 63: ""}}),
    ("Tunnel", "connector", {"nodeSelector": {"a": "b/c"}}, "a label's value has letters", {"nodeSelector": {"a": "B.c_d-1"}}),
    ("Tunnel", "connector", {"nodeSelector": {"a" * 64: "b"}}, "the names of labels", {"nodeSelector": {f"{'a' * 253}/{'b' * 63}": "c"}}),
    ("Tunnel", "connector", {"tolerations": [{"key": "a/b/c"}]}, "the name of a taint", {"tolerations": [{"key": "node.kubernetes.io/unreachable"}, {"key": "", "operator": "Exists"}]}),
    ("Tunnel", "connector", {"tolerations": [{"key": "a", "value": "b c"}]}, "a taint's value has letters", {"tolerations": [{"key": "a", "value": "b.c"}, {"key": "a", "value": ""}]}),
    ("Tunnel", "connector", {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "the zone", "whenUnsatisfiable": "DoNotSchedule"}]}, "the name of a label", {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
    ("Tunnel", "connector", {"podLabels": {"-a": "b"}}, "the names of labels", {"podLabels": {"example.com/team": "edge"}}),
    ("Tunnel", "connector", {"podLabels": {"a": "b c"}}, "a label's value has letters", {"podLabels": {"a": ""}}),
    ("Tunnel", "connector", {"podAnnotations": {"a b": "c"}}, "the names of annotations", {"podAnnotations": {"example.com/note": "whatever, it says"}}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchLabels": {"a b": "c"}}}, "the names of labels", {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchLabels": {"a": "b c"}}}, "a label's value has letters", {"from": "Selector", "selector": {"matchLabels": {"a": ""}}}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}, "the name of a label", {"from": "Selector", "selector": {"matchExpressions": [{"key": "example.com/a", "operator": "Exists"}]}}),
    ("Tunnel", "grants.0.namespaces", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]}}, "should match", {"from": "Selector", "selector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b.c", ""]}]}}),
    ("Tunnel", "dns", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {**TSIG, "secretRef": {"name": "a/b", "key": "k"}}}}, "the name of a Secret of this namespace", RFC2136),
    ("Tunnel", "dns", {"rfc2136": {**RFC2136["rfc2136"], "tsig": {**TSIG, "secretRef": {"name": "a", "key": "a/b"}}}}, "a key of the Secret", RFC2136),
    ("Tunnel", "dns", {"cloudflare": {"apiTokenSecretRef": {"name": "A", "key": "k"}}}, "the name of a Secret of this namespace", {"cloudflare": {"apiTokenSecretRef": {"name": "a.b", "key": "k"}}}),
    ("Tunnel", "dns", {"cloudflare": {"apiTokenSecretRef": {"name": "s", "key": "k k"}}}, "a key of the Secret", {"cloudflare": {"apiTokenSecretRef": {"name": "s", "key": "API_TOKEN"}}}),
    ("Tunnel", "dns", {"zonefile": {"zone": "a.com", "configMapRef": {"name": "a:b", "key": "db"}}}, "the name of a ConfigMap of this namespace", ZONEFILE),
    ("Tunnel", "dns", {"zonefile": {"zone": "a.com", "configMapRef": {"name": "a", "key": "d/b"}}}, "a key of the ConfigMap", {"zonefile": {"zone": "a.com", "configMapRef": {"name": "a", "key": "db.a.com"}}}),
    ("Tunnel", "dns", {"plugin": {"name": "a", "secretRef": {"name": "s_", "key": "k"}}}, "the name of a Secret of this namespace", {"plugin": {"name": "a", "secretRef": {"name": "s", "key": "k"}}}),
    ("Tunnel", "dns", {"plugin": {"name": "a", "secretRef": {"name": "s", "key": "k:"}}}, "a key of the Secret", {"plugin": {"name": "a", "secretRef": {"name": "s", "key": "..data"}}}),
    *[("Tunnel", "grants.0.hostnames.0", bad, said, good) for bad, said, good in HOSTNAME_ROWS],
    *[("TunnelBinding", "rules.0.hostname", bad, said, good) for bad, said, good in HOSTNAME_ROWS],
]  # fmt: skip

TLS_RULE = {"name": "a", "hostname": "a.com", "service": {"name": "b", "port": 443, "scheme": "https"}}
ROWS += [
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"noTLSVerify": True, "caConfigMapRef": {"name": "ca"}}},
     "noTLSVerify accepts any certificate", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "ca"}}}),
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"originServerName": "a:443"}},
     "without a port", {**TLS_RULE, "originRequest": {"originServerName": "a.internal", "noTLSVerify": True}}),
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"caConfigMapRef": {}}},
     "caConfigMapRef.name: Required value", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "ca", "key": "x"}}}),
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "a\nb"}}},
     "the name of a ConfigMap of this namespace", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "ca.v2"}}}),
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "ca", "key": "a b"}}},
     "a key of the ConfigMap", {**TLS_RULE, "originRequest": {"caConfigMapRef": {"name": "ca", "key": "CA_1.crt"}}}),
]  # fmt: skip


def api_rule(rewrite: Any, *, path: str = "/api", kind: str = "PathPrefix") -> dict[str, Any]:
    """A rule with a path and `pathRewrite`."""
    rule = BINDING["spec"]["rules"][0]
    return {**rule, "path": {"type": kind, "value": path}, "originRequest": {"pathRewrite": rewrite}}


def setting(name: str, value: str = "v") -> dict[str, Any]:
    return {"set": [{"name": name, "value": value}]}


GOOD_EDITS = {
    "set": [{"name": "X-Team", "value": 'a\tb "c" ${d} {{ e }}'}, {"name": "Authorization", "value": "Bearer x"}],
    "add": [{"name": "Set-Cookie", "value": "a=1"}, {"name": "Set-Cookie", "value": "b=2"}],
    "remove": ["Server", "X-Powered-By"],
}
FULL_EDITS = {
    "set": [{"name": f"X-{n:062}", "value": "v" * 1024} for n in range(16)],
    "add": [{"name": f"Y-{n:062}", "value": "v" * 1024} for n in range(16)],
    "remove": [f"Z-{n:062}" for n in range(16)],
}
STREAM = {"name": "a", "protocol": "TLS", "hostname": "a.com", "service": SERVICE}
for _edits in ("requestHeaders", "responseHeaders"):
    _options = "rules.0.originRequest"
    ROWS += [
        ("TunnelBinding", _options, {_edits: {}}, "at least 1 properties", {_edits: GOOD_EDITS}),
        ("TunnelBinding", _options, {_edits: {"set": []}}, "at least 1 items", {_edits: FULL_EDITS}),
        (
            "TunnelBinding",
            _options,
            {_edits: {"set": [{"name": "A", "value": "1"}] * 2}},
            "Duplicate value",
            {_edits: setting("A")},
        ),
        (
            "TunnelBinding",
            _options,
            {_edits: {"set": [{"name": f"X-{n}", "value": "v"} for n in range(17)]}},
            "at most 16 items",
            {_edits: setting("A")},
        ),
        (
            "TunnelBinding",
            _options,
            {_edits: {"remove": ["A", "A"]}},
            "Duplicate value",
            {_edits: {"remove": ["A", "B"]}},
        ),
        (
            "TunnelBinding",
            _options,
            {_edits: {"set": [{"name": "A"}]}},
            "value: Required value",
            {_edits: {"remove": ["A"]}},
        ),
        *[
            ("TunnelBinding", _options, {_edits: edits(name)}, said, {_edits: edits(good)})
            for name, said, good in (
                ("X Team", "letters, digits and hyphens", "X-Team"),
                ("X-Team:", "letters, digits and hyphens", "X_Team"),
                ("X\r\nY", "letters, digits and hyphens", "x-team.1"),
                ("Host", "httpHostHeader; write it there", "X-Host"),
                ("content-length", "says where a message ends", "Content-Type"),
                ("Transfer-Encoding", "says where a message ends", "Content-Encoding"),
                ("Expect", "says where a message ends", "Expect-CT"),
                ("CONNECTION", "about one connection", "X-Connection"),
                ("Proxy-Authorization", "about one connection", "Authorization"),
                ("Sec-WebSocket-Key", "handshake between visitor and Service", "Sec-Fetch-Mode"),
                ("X-Forwarded-For", "in forwarding headers", "X-Forward"),
                ("X_Real_IP", "in forwarding headers", "X-Real"),
                ("Culvert-Error", "culvert writes this header", "X-Culvert"),
                ("x-request-id", "culvert writes this header", "X-Request"),
            )
            for edits in (
                setting,
                lambda name: {"add": [{"name": name, "value": "v"}]},
                lambda name: {"remove": [name]},
            )
        ],
        *[
            ("TunnelBinding", _options, {_edits: edits(bad)}, said, {_edits: edits("a b")})
            for bad, said in (
                ("a\r\nHost: b", "one line of visible ASCII"),
                ("a\0b", "one line of visible ASCII"),
                (" a", "one line of visible ASCII"),
                ("", "at least 1 chars long"),
                ("a" * 1025, "Too long"),
            )
            for edits in (lambda value: setting("A", value), lambda value: {"add": [{"name": "A", "value": value}]})
        ],
        (
            "TunnelBinding",
            "rules.0",
            {**STREAM, "originRequest": {_edits: GOOD_EDITS}},
            "are about HTTP; remove them",
            STREAM,
        ),
    ]
ROWS += [
    ("TunnelBinding", "rules.0", api_rule({}), "either stripPrefix or replacePrefix", api_rule({"stripPrefix": "/api"})),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/api", "replacePrefix": "/v2"}), "either stripPrefix or replacePrefix", api_rule({"replacePrefix": "/v2"})),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/ap"}), "stripPrefix is the beginning of the rule's path", api_rule({"stripPrefix": "/api"}, path="/api/v1")),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/api"}, path="/apis"), "stripPrefix is the beginning of the rule's path", api_rule({"stripPrefix": "/api"}, path="/api/")),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/api/"}), "whole segments without a slash at the end", api_rule({"stripPrefix": "/api"}, kind="Exact")),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/"}, path="/"), "whole segments without a slash at the end", api_rule({"replacePrefix": "/v2"}, path="/")),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/api/.."}), "whole segments without a slash at the end", api_rule({"stripPrefix": "/..api"}, path="/..api/b")),
    ("TunnelBinding", "rules.0", api_rule({"replacePrefix": "v2"}), "replacePrefix is a path", api_rule({"replacePrefix": "/"})),
    ("TunnelBinding", "rules.0", api_rule({"replacePrefix": "//evil.example"}), "replacePrefix is a path", api_rule({"replacePrefix": "/v2/x"})),
    ("TunnelBinding", "rules.0", api_rule({"replacePrefix": "/v2?a"}), "replacePrefix is a path", api_rule({"replacePrefix": "/v2%3Fa"})),
    ("TunnelBinding", "rules.0", api_rule({"replacePrefix": "/v2/"}), "ends without a slash, unless the path is Exact", api_rule({"replacePrefix": "/v2/"}, kind="Exact")),
    ("TunnelBinding", "rules.0", api_rule({"stripPrefix": "/api"}, path="/api.*", kind="RegularExpression"), "a regular expression has no prefix", api_rule({"stripPrefix": "/api"})),
    ("TunnelBinding", "rules.0", {**STREAM, "originRequest": {"pathRewrite": {"replacePrefix": "/"}}}, "are about HTTP; remove them", STREAM),
    ("TunnelBinding", "rules.0", {**STREAM, "originRequest": {"responseTimeout": "1s"}}, "are about HTTP; remove them", STREAM),
    ("TunnelBinding", "rules.0", {**STREAM, "originRequest": {"disableChunkedEncoding": True}}, "are about HTTP; remove them", STREAM),
    ("TunnelBinding", "rules.0.originRequest", {"matchSNItoHost": True}, "write scheme: https", {"disableChunkedEncoding": False}),
    ("TunnelBinding", "rules.0", {**TLS_RULE, "originRequest": {"matchSNItoHost": True, "originServerName": "a"}}, "matchSNItoHost takes the name of each request", {**TLS_RULE, "originRequest": {"matchSNItoHost": True, "noTLSVerify": True}}),
]  # fmt: skip

# Rules about a change: (kind, before, after, part of the message).
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("Tunnel", {"dns": {**MEMORY, "ownerId": "a"}}, {"dns": {**MEMORY, "ownerId": "b"}}, "ownerId cannot change"),
    ("Tunnel", {"dns": {**MEMORY, "ownerId": "a"}}, {"dns": MEMORY}, "ownerId cannot change"),
    ("Tunnel", {"dns": MEMORY}, {"dns": {**MEMORY, "ownerId": "a"}}, "ownerId cannot change"),
    ("HostnameClaim", {"hostname": "a.com"}, {"hostname": "b.com"}, "hostname cannot change"),
    ("HostnameClaim", {"hostname": None, "tcpPort": 1}, {"hostname": None, "tcpPort": 2}, "tcpPort cannot change"),
    ("HostnameClaim", {"hostname": "a.com"}, {"hostname": None, "tcpPort": 1}, "another one is another claim"),
]
ALLOWED_CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Tunnel", {"dns": {**MEMORY, "ownerId": "a"}}, {"dns": {**ZONEFILE, "ownerId": "a"}}),
    ("HostnameClaim", {"owner": {"namespace": "a"}}, {"owner": {"namespace": "b"}}),
    ("HostnameClaim", {"hostname": None, "tcpPort": 1}, {"hostname": None, "tcpPort": 1, "owner": {"namespace": "b"}}),
]


def changed(kind: str, path: str, value: Any) -> str:
    """The base object of a kind with one thing changed, as JSON."""
    item = copy.deepcopy(BASE[kind])
    *way, last = spec(path)
    place: Any = item
    for part in way:
        place = place[part] if isinstance(part, int) else place.setdefault(part, {})
    if value is REMOVE:
        place.pop(last, None)
    else:
        place[last] = value
    return json.dumps(item)


def merged(kind: str, part: dict[str, Any], name: str) -> str:
    item = copy.deepcopy(BASE[kind])
    item["spec"] |= part
    item["metadata"]["name"] = name
    return json.dumps(item)


class Asking:
    """One connection to the API server: a kubectl process per question would take minutes."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        files = {}
        for name, value in {**cluster, **user}.items():
            if name.endswith("-data"):
                files[name.removesuffix("-data")] = directory / name
                files[name.removesuffix("-data")].write_bytes(base64.b64decode(value))
            elif name in ("certificate-authority", "client-certificate", "client-key"):
                files[name] = kubeconfig.parent / value
        context = ssl.create_default_context(cafile=str(files["certificate-authority"]))
        context.load_cert_chain(files["client-certificate"], files["client-key"])
        server = urlsplit(cluster["server"])
        self.connection = http.client.HTTPSConnection(server.netloc, context=context, timeout=30)

    def create(self, manifest: str) -> str:
        """Create an object without storing it; the API server's complaint, or an empty text."""
        kind = json.loads(manifest)["kind"]
        where = "" if kind == "HostnameClaim" else "namespaces/default/"
        path = f"/apis/culvert.dev/v1alpha1/{where}{KINDS[kind]}?dryRun=All&fieldValidation=Strict"
        self.connection.request("POST", path, manifest, {"Content-Type": "application/json"})
        with self.connection.getresponse() as response:
            answer = response.read().decode()
            return "" if response.status == 201 else str(json.loads(answer).get("message", answer))


@pytest.fixture(scope="module")
def api(control_plane: Any) -> Any:
    """A control plane that serves the CRDs."""
    control_plane.kubectl("apply", "--server-side", "--filename", str(CRDS))
    for plural in KINDS.values():
        control_plane.kubectl("wait", "--for=condition=Established", f"crd/{plural}.culvert.dev", "--timeout=60s")
    return control_plane


@pytest.fixture(scope="module")
def asking(api: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """Questions to its API server."""
    made = Asking(api.kubeconfig, tmp_path_factory.mktemp("client"))
    # Established is said a moment before the first request is answered.
    deadline = time.monotonic() + 60
    for kind, base in BASE.items():
        while complaint := ask_when_served(made, json.dumps(base)):
            assert time.monotonic() < deadline, f"{kind}: {complaint}"
            time.sleep(0.2)
    yield made
    made.connection.close()


def ask_when_served(asking: Asking, manifest: str) -> str:
    try:
        return asking.create(manifest)
    except json.JSONDecodeError as error:
        return f"no JSON yet: {error}"  # 404 page not found


@pytest.mark.parametrize(
    ("kind", "path", "bad", "said", "good"), ROWS, ids=[f"{n}-{r[0]}-{r[1]}-{r[3]}" for n, r in enumerate(ROWS)]
)
def test_a_rule_refuses_with_its_words_and_lets_the_right_thing_through(
    asking: Asking, kind: str, path: str, bad: Any, said: str, good: Any
) -> None:
    assert said in asking.create(changed(kind, path, bad))
    assert asking.create(changed(kind, path, good)) == ""


@pytest.mark.parametrize(("kind", "before", "after", "said"), CHANGES)
def test_a_change_is_refused(api: Any, kind: str, before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    name = "h-" + "a" * 48
    api.kubectl("create", "--filename=-", input=merged(kind, before, name))
    try:
        refused = api.kubectl("replace", "--filename=-", input=merged(kind, after, name), check=False)
        assert refused.returncode != 0
        assert said in refused.stderr
    finally:
        api.kubectl("delete", KINDS[kind], name)


@pytest.mark.parametrize(("kind", "before", "after"), ALLOWED_CHANGES)
def test_a_change_is_allowed(api: Any, kind: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    name = "h-" + "a" * 48
    api.kubectl("create", "--filename=-", input=merged(kind, before, name))
    try:
        api.kubectl("replace", "--filename=-", input=merged(kind, after, name))
    finally:
        api.kubectl("delete", KINDS[kind], name)


def test_defaults_are_filled_in(api: Any) -> None:
    def stored(kind: str) -> Any:
        return json.loads(
            api.kubectl("create", "--dry-run=server", "-o=json", "--filename=-", input=json.dumps(BASE[kind])).stdout
        )["spec"]

    tunnel = stored("Tunnel")
    assert tunnel["connector"] == {
        "replicas": 2,
        "sessions": 4,
        "gracePeriodSeconds": 30,
        "imageUpdatePolicy": "Automatic",
        "logLevel": "info",
        "logFormat": "json",
    }
    assert tunnel["grants"] == [{"hostnames": ["example.com"], "maxRules": 200, "namespaces": {"from": "Same"}}]
    assert (tunnel["fallback"], tunnel["deletionPolicy"]) == ({"httpStatus": 404}, "Delete")
    rule = stored("TunnelBinding")["rules"][0]
    assert rule["path"] == {"type": "PathPrefix", "value": "/"}
    assert rule["service"]["scheme"] == "http"


def test_columns_and_short_names(api: Any) -> None:
    for kind in ("Tunnel", "TunnelBinding"):
        api.kubectl("apply", "--filename=-", input=json.dumps(BASE[kind]))
    try:
        tunnel = api.kubectl("get", "tun", "main").stdout.splitlines()
        assert tunnel[0].split() == ["NAME", "READY", "CONNECTORS", "SESSIONS", "BINDINGS", "AGE"]
        wide = api.kubectl("get", "tun", "main", "--output=wide").stdout.splitlines()
        assert wide[0].split()[-2:] == ["ID", "REASON"]
        assert api.kubectl("get", "tb", "shop").stdout.split()[:5] == ["NAME", "READY", "HOSTNAMES", "TUNNEL", "AGE"]
        both = api.kubectl("get", "culvert", "--output=name").stdout
        assert "tunnel.culvert.dev/main" in both
        assert "tunnelbinding.culvert.dev/shop" in both
    finally:
        api.kubectl("delete", "tun,tb", "--all")


def test_status_is_a_subresource_and_its_schema_holds(api: Any) -> None:
    condition = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2025-01-01T00:00:00Z",
        "reason": "Ready",
        "message": "Visitors reach every rule.",
    }
    api.kubectl("apply", "--filename=-", input=json.dumps({**BINDING, "status": {"conditions": [condition]}}))
    try:
        assert "status" not in api.get("tb", "shop")
        good = json.dumps({"status": {"conditions": [condition]}})
        api.kubectl("patch", "tb", "shop", "--subresource=status", "--type=merge", f"--patch={good}")
        api.kubectl("wait", "--for=condition=Ready", "tb/shop", "--timeout=5s")
        bad = json.dumps({"status": {"conditions": [{**condition, "status": "Maybe"}]}})
        refused = api.kubectl(
            "patch", "tb", "shop", "--subresource=status", "--type=merge", f"--patch={bad}", check=False
        )
        assert "Unsupported value" in refused.stderr
    finally:
        api.kubectl("delete", "tb", "shop")


def schemas() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(kind, path, schema) of every node of every CRD's schema."""

    def walk(kind: str, path: str, node: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        yield kind, path, node
        for name, inner in node.get("properties", {}).items():
            yield from walk(kind, f"{path}.{name}", inner)
        if isinstance(node.get("items"), dict):
            yield from walk(kind, f"{path}[]", node["items"])
        if isinstance(node.get("additionalProperties"), dict):
            yield from walk(kind, f"{path}{{}}", node["additionalProperties"])

    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        yield from walk(crd["spec"]["names"]["kind"], "", crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def rules() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(kind, path of the field, rule) of every `x-kubernetes-validations`."""
    for kind, path, node in schemas():
        for rule in node.get("x-kubernetes-validations", ()):
            yield kind, path, rule


def values_at(item: Any, path: str) -> list[Any]:
    """What an object has at a schema's path (`.spec.rules[].name`, `{}` for any key)."""
    found = [item]
    for step in re.findall(r"[.][^.\[{]+|\[\]|\{\}", path):
        if step == "[]":
            found = [inner for one in found if isinstance(one, list) for inner in one]
        elif step == "{}":
            found = [inner for one in found if isinstance(one, dict) for inner in one.values()]
        else:
            found = [one[step[1:]] for one in found if isinstance(one, dict) and step[1:] in one]
    return found


def test_every_rule_has_its_row() -> None:
    """By its words: quick, and without an API server. The next test asks one, and looks at the place too."""
    said = {row[3] for row in ROWS} | {row[3] for row in CHANGES} | {"error parsing regexp"}
    for kind, path, rule in rules():
        regex = "RE2" in rule["message"]
        assert regex or any(part in rule["message"] for part in said), f"{kind}{path}: {rule['message']}"


def test_every_rule_refuses_and_accepts_something_at_its_own_place(asking: Asking) -> None:
    complaints: dict[str, str] = {}
    accepted: dict[str, list[Any]] = {kind: [] for kind in BASE}
    for kind, path, bad, _, good in ROWS:
        complaints[kind] = complaints.get(kind, "") + "\n" + asking.create(changed(kind, path, bad))
        accepted[kind].append(json.loads(changed(kind, path, good)))
    for kind, _, after in ALLOWED_CHANGES:
        accepted[kind].append(json.loads(merged(kind, after, "x")))
    missing = []
    for kind, path, rule in rules():
        where = f"{kind}{path}: {rule['message']}"
        place = re.escape(path.lstrip(".") or "<nil>").replace(r"\[\]", r"\[\d+\]").replace(r"\{\}", r"\S*")
        if "oldSelf" in rule["rule"]:
            refused = any(said in rule["message"] for *_, said in CHANGES)
        elif "RE2" in rule["message"]:
            refused = "error parsing regexp" in complaints[kind]
        else:
            words = rf"{place}: Invalid value: (?:(?!: Invalid value: ).)*{re.escape(rule['message'])}"
            refused = re.search(words, complaints[kind]) is not None
        if not refused:
            missing.append(f"nothing is refused by {where}")
        if not any(values_at(item, path) for item in accepted[kind]):
            missing.append(f"nothing is accepted by {where}")
    assert not missing


FREE = {
    "TunnelBinding.spec.rules[].path.value",  # depends on the path's type: the rules are those of the path
    "Tunnel.spec.dns.endpoints.providerSpecific{}",
    "Tunnel.spec.dns.plugin.config{}",
}
"""Texts that may be anything, but for their length."""


def test_every_text_that_a_person_writes_has_a_rule_of_its_form() -> None:
    ruled = {f"{kind}{path}" for kind, path, _ in rules()}
    free = set()
    for kind, path, node in schemas():
        where = f"{kind}{path}"
        if kind == "HostnameClaim" or not path.startswith(".spec") or node.get("type") != "string":
            continue
        # What a map's values may be, the map's own rules say.
        if not {"enum", "pattern", "format"} & node.keys() and not {where, where.removesuffix("{}")} & ruled:
            free.add(where)
    assert free == FREE, "texts that may hold anything: give them a rule, or a place in FREE"


def test_every_field_says_what_it_is() -> None:
    missing = []
    for kind, path, node in schemas():
        for name, field in node.get("properties", {}).items():
            # The API server describes apiVersion, kind and metadata itself.
            if path or name not in ("apiVersion", "kind", "metadata"):
                said = field.get("description", "")
                if len(said) < 10 or not said.endswith("."):
                    missing.append(f"{kind}{path}.{name}: {said!r}")
    assert not missing


def test_explain_shows_the_fields_and_what_they_are(api: Any) -> None:
    shown = api.kubectl("explain", "tb.spec.rules.originRequest.pathRewrite").stdout
    assert "stripPrefix" in shown
    assert "Another path for the Service." in " ".join(shown.split())
    for field in ("tunnels.status.credential", "tunnels.spec.relay.proxyURL", "tb.spec.rules.wildcard"):
        assert "<no description>" not in api.kubectl("explain", field).stdout


def test_everything_that_a_stranger_writes_is_bounded() -> None:
    for kind, path, node in schemas():
        if path.startswith((".metadata", ".apiVersion", ".kind")):
            continue
        where = f"{kind}{path}"
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, where
        if node.get("x-kubernetes-int-or-string"):
            assert "maxLength" in node, where
        if node.get("type") == "array":
            assert "maxItems" in node, where
            assert "x-kubernetes-list-type" in node, where
        if "additionalProperties" in node:
            assert "maxProperties" in node, where
        assert node.get("type") != "number", where
