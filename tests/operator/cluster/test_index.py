"""References the other way round: the same answers after any history as from the objects alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_operator.api.binding import parse_binding
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.cluster import kinds
from culvert_operator.cluster.index import Index
from culvert_operator.cluster.world import World
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options

OPTIONS = Options(namespace="sys", image="x", default_tunnel=ObjectKey("sys", "main"))
TUNNELS = ["main", "other"]


def binding(namespace: str, name: str, tunnel: str, hosts: list[str], service: str, former: list[str]) -> Any:
    rule = {"service": {"name": service, "port": 80}, "originRequest": {"caConfigMapRef": {"name": f"ca-{service}"}}}
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "tunnelRef": {"name": tunnel, "namespace": "sys"} if tunnel else {},
            "rules": [{"name": f"r{i}", "hostname": host, **rule} for i, host in enumerate(hosts)],
        },
        "status": {"tunnels": [f"sys/{name}" for name in former]},
    }


def tunnel(name: str, ca: str, zone: str) -> Any:
    dns = {"zonefile": {"configMapRef": {"name": zone, "key": "db"}, "zone": "example.com"}} if zone else None
    relay = {"addresses": ["r:1"], **({"caConfigMapRef": {"name": ca}} if ca else {})}
    return {
        "metadata": {"namespace": "sys", "name": name},
        "spec": {"relay": relay, **({"dns": dns | {"target": {"addresses": ["192.0.2.1"]}}} if dns else {})},
    }


bindings = st.builds(
    binding,
    st.sampled_from(["a", "b", "sys"]),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["", *TUNNELS, "missing"]),
    st.lists(st.sampled_from(["x.example.com", "*.example.com"]), max_size=2),
    st.sampled_from(["web", "db"]),
    st.lists(st.sampled_from(TUNNELS), max_size=2),
)
tunnels = st.builds(
    tunnel, st.sampled_from(TUNNELS), st.sampled_from(["", "ca-web", "relay-ca"]), st.sampled_from(["", "zone"])
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("binding"), bindings, st.booleans()), st.tuples(st.just("tunnel"), tunnels, st.booleans())
    ),
    max_size=16,
)


def feed(index: Index, kind: str, raw: Any, gone: bool) -> None:
    key = ObjectKey(raw["metadata"]["namespace"], raw["metadata"]["name"])
    if kind == "binding":
        index.on_binding(key, None if gone else parse_binding(raw))
    else:
        index.on_tunnel(key, None if gone else parse_tunnel(raw))


def answers(index: Index) -> Any:
    names = ["a", "b", "sys", "web", "db", "ca-web", "ca-db", "relay-ca", "zone"]
    keys = [ObjectKey(namespace, name) for namespace in ("a", "b", "sys") for name in (*TUNNELS, *names, "missing")]
    return {
        "bindings": {key: index.bindings(key) for key in keys},
        "tunnels": set(index.tunnels()),
        "services": {key: index.of_service(key) for key in keys},
        "config maps": {key: index.of_config_map(key) for key in keys},
        "namespaces": {name: index.of_namespace(name) for name in names},
        "wildcards": index.with_wildcards,
        "named": index.config_maps,
    }


@settings(max_examples=150, deadline=None)
@given(history=steps)
def test_after_any_history_the_answers_are_those_of_the_objects_that_are_left(history: list[Any]) -> None:
    lived, left = Index(OPTIONS), {}
    for kind, raw, gone in history:
        feed(lived, kind, raw, gone)
        left[kind, raw["metadata"]["namespace"], raw["metadata"]["name"]] = (kind, raw, gone)
    fresh = Index(OPTIONS)
    for kind, raw, gone in left.values():
        if not gone:
            feed(fresh, kind, raw, False)
    assert answers(lived) == answers(fresh)


def test_what_everybody_has_left_takes_no_room() -> None:
    index = Index(OPTIONS)
    one = binding("a", "one", "main", ["*.example.com"], "web", ["other"])
    feed(index, "binding", one, False)
    feed(index, "tunnel", tunnel("main", "relay-ca", "zone"), False)
    assert len(index.bindings(ObjectKey("sys", "main"))) == 1
    feed(index, "binding", one, True)
    feed(index, "tunnel", tunnel("main", "relay-ca", "zone"), True)
    for held in vars(index).values():
        inner = held.sets if hasattr(held, "sets") else held
        assert inner is OPTIONS or not inner


def claim(hostname: str, owner: str, held_by: str, version: int) -> Any:
    return {
        "metadata": {"name": f"h-{hostname}", "uid": hostname, "resourceVersion": str(version)},
        "spec": {"hostname": hostname, "owner": {"namespace": owner}, "tunnel": held_by, "claimedAt": "x"},
    }


def test_claims_of_a_tunnel_that_cannot_be_seen_are_no_work_and_only_bindings_that_name_it_are_looked_at() -> None:
    seen: list[ObjectKey] = []
    world = World(Options(namespace="sys", image="x", watch_namespaces=("a",)), seen.append)
    foreign = binding("a", "one", "main", ["x.example.com"], "web", [])
    foreign["spec"]["tunnelRef"]["namespace"] = "else"
    for scope in ("a", "sys"):
        world.bindings.replace([foreign] if scope == "a" else [], began=0, scope=scope)
    assert seen == [ObjectKey("else", "main")]
    seen.clear()
    world.claims.event("ADDED", claim("x.example.com", "a", "third/main", 10))
    world.claims.event("DELETED", claim("x.example.com", "a", "third/main", 11))
    world.claims.event("ADDED", claim("x.example.com", "a", "third/main", 12))
    assert seen == []
    world.claims.event("ADDED", claim("y.example.com", "a", "sys/main", 13))
    assert seen == [ObjectKey("sys", "main")]
    assert world.all_keys() == {ObjectKey("else", "main"), ObjectKey("sys", "main")}


@pytest.mark.parametrize(
    ("gone", "marked"),
    [("shop.example.com", {"main", "wide"}), ("*.example.com", {"main", "wide", "narrow"})],
    ids=["a name", "a wildcard"],
)
def test_a_claim_that_goes_marks_its_tunnel_and_those_that_it_may_have_been_in_the_way_of(
    gone: str, marked: set[str]
) -> None:
    seen: list[ObjectKey] = []
    world = World(Options(namespace="sys", image="x"), seen.append)
    spread = {"main": "shop.example.com", "wide": "*.example.org", "narrow": "one.example.org"}
    made = [binding("a", name, name, [host], "web", []) for name, host in spread.items()]
    for number, raw in enumerate(made, 1):
        raw["metadata"] |= {"uid": raw["metadata"]["name"], "resourceVersion": str(number)}
    world.store(kinds.BINDING.name).replace(made, began=0)
    world.claims.event("ADDED", claim(gone, "a", "sys/main", 10))
    seen.clear()
    world.claims.event("DELETED", claim(gone, "a", "sys/main", 11))
    assert {key.name for key in seen} == marked
