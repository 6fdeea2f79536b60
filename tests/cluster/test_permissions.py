"""Every right that the operator is given is one that it uses, by the API server's own log."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from culvert_operator.certificates import make_authority
from culvert_operator.cluster.permissions import CULVERT, RULES
from culvert_protocol.keys import generate_issuer_key

from .fault_proxy import Fault
from .fault_world import Story
from .operators import World, until
from .relay_ear import RelayEar
from .test_leadership import ELECTION
from .ways import ACCOUNT, Ways

DNS_ENDPOINTS = Path(__file__).with_name("dnsendpoints.yaml").read_text()
API = "/apis/culvert.dev/v1alpha1"
CONFLICTS = (
    ("POST", f"{API}/hostnameclaims/old.NAME.example.com", 1),
    ("PATCH", f"{API}/namespaces/NAME/tunnels/main", 1),
    ("PATCH", f"{API}/namespaces/NAME/tunnelbindings/first", 1),
)
"""Writes that meet somebody else's: what the operator reads again then, it reads at no other time."""

WIDE = ("cluster", "watched")
"""Scopes of rules for objects that are not in an operator's own or a Tunnel's namespace."""
Right = tuple[str, str, str, str]
"""(scope, group, resource, verb)"""

pytestmark = pytest.mark.timeout(600)


def granted() -> set[Right]:
    return {
        (rule.scope, rule.group, resource, verb) for rule in RULES for resource in rule.resources for verb in rule.verbs
    }


def used(events: list[Any], users: set[str], own: set[str]) -> set[Right]:
    """The rights that requests of ``users`` needed; ``own`` are the namespaces of operators."""
    found: set[Right] = set()
    for event in events:
        code, thing = event.get("responseStatus", {}).get("code", 0), event.get("objectRef", {})
        if event["user"]["username"] not in users or not thing or code == 403:
            continue
        group = thing.get("apiGroup", "")
        resource = "/".join(filter(None, (thing["resource"], thing.get("subresource"))))
        narrow = thing.get("namespace") in own and group != CULVERT
        scopes = ("tunnels", "own") if narrow else WIDE
        # An apply that makes the object needs `create` too.
        verbs = [event["verb"], *(["create"] if event["verb"] == "patch" and code == 201 else [])]
        found |= {(scope, group, resource, verb) for scope in scopes for verb in verbs}
        if group == "events.k8s.io":
            found |= {(scope, group, resource, verb) for scope in WIDE for verb in verbs}
    return found


def request(right: Right) -> Any:
    """An entry of the audit log that needs a right."""
    scope, group, resource, verb = right
    kind, _, part = resource.partition("/")
    thing = {"apiGroup": group, "resource": kind, "namespace": "elsewhere" if scope in WIDE else "system"}
    return {
        "user": {"username": "it"},
        "verb": "patch" if verb == "create" else verb,
        "objectRef": thing | ({"subresource": part} if part else {}),
        "responseStatus": {"code": 201 if verb == "create" else 200},
    }


@pytest.mark.parametrize("left_out", sorted(granted()), ids=" ".join)
def test_a_right_without_a_request_in_the_log_is_noticed(left_out: Right) -> None:
    scope, *asked = left_out
    events = [
        request(right) for right in granted() if right[1:] != tuple(asked) or (right[0] in WIDE) != (scope in WIDE)
    ]
    if asked[-1] == "patch":  # an apply that makes an object is a patch too
        events = [e for e in events if e["verb"] != "patch" or e["objectRef"] != request(left_out)["objectRef"]]
    unused = granted() - used(events, {"it"}, {"system"})
    assert left_out in unused
    assert {right[1:3] for right in unused} == {left_out[1:3]}
    assert granted() - used([*map(request, granted())], {"it"}, {"system"}) == set()


def busy_life(world: World) -> None:
    """A life in which everything happens once."""
    key = base64.b64encode(generate_issuer_key().pem()).decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "culvert-issuer", "namespace": world.system}}
    world.apply({**secret, "data": {"issuer.key": key}})  # brought by a person: the operator adds its installation's id
    first, second = f"a.{world.zone}", f"b.{world.zone}"
    shop = f"{world.name}-shop"
    world.start(*ELECTION, "--relay-service=culvert-relay-tunnel")
    tunnel = world.with_zone()
    scaled = {"connector": {"replicas": 1, "autoscaling": {"maxReplicas": 3}}}
    world.apply(tunnel | {"spec": tunnel["spec"] | scaled}, world.service(), world.binding(first))
    authority = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": shop}}
    world.apply({**authority, "data": {"ca.crt": make_authority("it", now=time.time()).certificate.decode()}})
    with_ca = world.binding(f"c.{world.zone}", name="ca")
    with_ca["spec"]["rules"][0]["service"]["scheme"] = "https"
    with_ca["spec"]["rules"][0] |= {"originRequest": {"caConfigMapRef": {"name": "ca"}}}
    world.apply(with_ca)
    until(lambda: world.find("horizontalpodautoscaler", "main-connector"))
    connector = world.connect()
    world.served(connector, first)
    until(lambda: world.condition("tunnelbinding", "web", shop, "Ready")[0] == "True")
    world.apply(tunnel)
    until(lambda: world.find("horizontalpodautoscaler", "main-connector") is None)
    world.apply(world.binding(first, name="again", path="/more"))  # one more path of a claim
    until(lambda: world.condition("tunnelbinding", "again", shop, "Accepted")[0] == "True")
    world.apply(world.binding(second))
    world.served(connector, second)
    until(lambda: second in world.zone_text())
    for name in ("again", "ca", "web"):
        world.cluster.kubectl("delete", "tunnelbinding", name, f"--namespace={shop}", "--timeout=60s", timeout=90)
    for number in range(2):  # the first revocation makes the ledger, the second one changes it
        world.cluster.kubectl("delete", "tunnel", "main", f"--namespace={world.system}", "--timeout=60s", timeout=90)
        if not number:
            world.apply(world.tunnel())
            until(lambda: world.find("secret", "main-credential"))
    hand_over(world, first)
    assert world.stop() == 0
    retire(world)
    world.start("--relay-service=culvert-relay-tunnel", "--relay-server-names=relay.example.net")

    def renewed() -> Any:
        names = json.dumps(world.cluster.audit()[-200:])
        return "culvert-relay-tls" in names and [
            e
            for e in world.cluster.audit()
            if e["user"]["username"] == world.user and e["verb"] == "patch" and "culvert-relay-tls" in e["requestURI"]
        ]

    until(renewed)


def hand_over(world: World, host: str) -> None:
    """Records as DNSEndpoint objects: made, changed and deleted."""
    world.cluster.apply(DNS_ENDPOINTS)
    kind = "dnsendpoints.externaldns.k8s.io"
    world.cluster.kubectl("wait", f"crd/{kind}", "--for=condition=Established", "--timeout=30s")

    def tunnel(team: str) -> dict[str, Any]:
        endpoints = {"labels": {"team": team}}
        return world.tunnel(
            dns={"endpoints": endpoints, "zones": [world.zone], "target": {"hostname": "r.example.net"}}
        )

    # The former Tunnel's Deployment goes by garbage collection, with its Pods.
    until(lambda: world.find("deployment", "main-connector") is None, seconds=120)
    world.apply(tunnel("edge"), world.binding(host))
    world.served(world.connect(), host)
    until(lambda: world.find(kind, f"culvert.{host}"))
    world.apply(tunnel("core"))
    until(lambda: world.get(kind, f"culvert.{host}")["metadata"]["labels"]["team"] == "core")
    shop = f"--namespace={world.name}-shop"
    world.cluster.kubectl("delete", "tunnelbinding", "web", shop, "--timeout=60s", timeout=90)
    world.cluster.kubectl("delete", "tunnel", "main", f"--namespace={world.system}", "--timeout=60s", timeout=90)
    world.cluster.kubectl("delete", "crd", kind, "--timeout=60s", timeout=90)


def retire(world: World) -> None:
    """`culvert operator retire` beside a Deployment, as there is one when a chart is uninstalled."""
    pod = {"metadata": {"labels": {"app": "operator"}}, "spec": {"containers": [{"name": "it", "image": "none"}]}}
    metadata = {"name": "culvert-operator", "namespace": world.system}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "operator"}}, "template": pod}
    world.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    until(lambda: world.get("deployment", "culvert-operator").get("status", {}).get("replicas"))
    assert world.command("retire") == 0
    assert world.get("deployment", "culvert-operator")["spec"]["replicas"] == 0


@pytest.fixture
def conflicts(to_the_server: Ways) -> list[Story]:
    """Stories in which a write is answered with 409."""
    numbers = itertools.count(900)
    told = []
    ear = RelayEar()
    try:
        for write in CONFLICTS:
            story = Story(to_the_server, next(numbers), Fault("409 instead of", write, early=True), ear=ear)
            asyncio.run(story.tell())
            told.append(story)
    finally:
        ear.close()
    return told


def test_every_right_that_is_granted_is_used(
    world: World, conflicts: list[Story], record_property: Callable[[str, object], None]
) -> None:
    for story in conflicts:
        assert story.proxy.fired, story.fault
        assert (story.failures, story.proxy.refused) == ([], [])
    busy_life(world)
    users = {world.user, f"system:serviceaccount:default:{ACCOUNT}"}
    own = {world.system, *(story.name for story in conflicts)}
    needed = used(world.cluster.audit(), users, own)
    unused = sorted(granted() - needed)
    record_property("rights of the operator", f"{len(granted())} granted, {len(granted()) - len(unused)} used")
    assert unused == [], "rights that the operator never needs: take them out of permissions.py"
    # The log is read rightly: what is not granted was not used.
    wide = {right[1:] for right in granted() if right[0] in WIDE}
    assert {right[1:] for right in needed if right[0] in WIDE} <= wide
