"""Properties of the planner over random histories: what people do, in any order, with crashes in between."""

from __future__ import annotations

import contextlib
import copy
import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from culvert_ingress.hostnames import HostnameError, covers, normalise_pattern
from culvert_operator import relations
from culvert_operator.api.claim import parse_claim
from culvert_operator.dns.endpoint import Endpoint
from culvert_operator.keys import ObjectKey
from culvert_operator.plan import plan
from culvert_operator.world import ClaimCreate, ClaimDelete, ClaimUpdate

from .consistency import contradictions

HOSTS = ["a.example.com", "b.example.com", "A.Example.com.", "*.example.com", "*.b.example.com", "x.b.example.com"]
SHOWN = [*HOSTS, "a.example.com/api", "a.example.com/api/", "bad_host.example.com", "other.test"]
NAMESPACES = ["alpha", "beta"]
NAMES = ["one", "two"]
TUNNELS = ["main", "second"]
DNS = {
    "memory": {},
    "zones": ["example.com"],
    "policy": "sync",
    "ttl": 300,
    "target": {"hostname": "relay.example.net"},
}
FOREIGN_CHILDREN = [
    ("culvert-system", relations.child("Role", "main")),
    ("culvert-system", relations.child("PodDisruptionBudget", "second")),
]
FOREIGN = Endpoint("b.example.com", "A", ("192.0.2.9",), 60)

binding_steps = st.tuples(
    st.just("bind"),
    st.sampled_from(NAMESPACES),
    st.sampled_from(NAMES),
    st.sampled_from(TUNNELS),
    st.lists(st.sampled_from(SHOWN), min_size=1, max_size=3),
    st.sampled_from(["", "", "Reserve", "Fallback"]),
)
steps = st.one_of(
    *[binding_steps] * 4,
    *[st.tuples(st.just("unbind"), st.integers(0, 3))] * 2,
    st.tuples(st.just("round"), st.integers(0, 3)),
    st.tuples(st.just("crash"), st.integers(0, 8)),
    *[st.tuples(st.just("settle"))] * 4,  # most faults need something that was there before
    st.tuples(st.just("dns"), st.booleans()),
    st.tuples(st.just("connectors"), st.sampled_from(["obey", "lag", "silent"])),
    st.tuples(st.just("relays"), st.booleans()),
    st.tuples(st.just("drop tunnel"), st.sampled_from(TUNNELS)),
    st.tuples(st.just("make tunnel"), st.sampled_from(TUNNELS)),
    st.tuples(st.just("later"), st.integers(1, 90_000)),
    st.tuples(st.just("rotate"), st.sampled_from(TUNNELS), st.sampled_from(["a", "b"])),
    st.tuples(st.just("pause"), st.sampled_from(TUNNELS), st.booleans()),
)


def act(world: Any, step: tuple[Any, ...]) -> None:
    match step:
        case ("bind", namespace, name, tunnel, hosts, wildcard):
            key = ObjectKey(namespace, name)
            if key not in world.bindings or "deletionTimestamp" not in world.bindings[key]["metadata"]:
                world.binding(name, namespace, *hosts, tunnel=ObjectKey("culvert-system", tunnel), wildcard=wildcard)
        case ("unbind", number):
            if world.bindings:
                world.delete(sorted(world.bindings)[number % len(world.bindings)])
        case ("round", count):
            for _ in range(count):
                for key in world.tunnel_keys():
                    world.step(key)
        case ("crash", writes):
            left, watching = iter(range(writes)), world.intercept
            world.intercept = lambda what: watching(what) and next(left, None) is not None
            for key in world.tunnel_keys():
                world.step(key)
            world.intercept = watching
        case ("settle",):
            world.dns_error, world.frozen = None, None
            world.settle()
        case ("dns", works):
            world.dns_error = None if works else "the zone cannot be read"
        case ("rotate", name, value):
            tunnel = world.tunnels.get(ObjectKey("culvert-system", name))
            if tunnel is not None:
                tunnel["metadata"].setdefault("annotations", {})["culvert.dev/rotate"] = value
                world._touch(tunnel)
        case ("pause", name, paused):
            pause(world, name, paused=paused)
        case ("connectors", how):
            world.frozen = {
                "obey": None,
                "lag": {"ready": True, "appliedVersion": 1, "sessions": []},
                "silent": {"unlike": "a report"},
            }[how]
        case ("relays", True):
            world.hear()
        case ("relays", False):
            world.untold = ("relay.example.net:443",)
        case ("drop tunnel", name):
            if ObjectKey("culvert-system", name) in world.tunnels:
                world.delete(ObjectKey("culvert-system", name))
        case ("make tunnel", name):
            if ObjectKey("culvert-system", name) not in world.tunnels:
                world.tunnel(name, dns=DNS)
        case ("later", seconds):
            world.now += seconds


def pause(world: Any, name: str, *, paused: bool) -> None:
    tunnel = world.tunnels.get(ObjectKey("culvert-system", name))
    if tunnel is not None:
        tunnel["metadata"].setdefault("annotations", {})["culvert.dev/paused"] = str(paused).lower()
        world._touch(tunnel)


def listed_names(world: Any) -> set[str]:
    return {p["name"] for b in world.bindings.values() for p in b.get("status", {}).get("publishedRecords", ())}


def live(world: Any, history: list[tuple[Any, ...]], *, foreign: bool) -> Any:
    """Carry out a history, heal everything, and let the world come to rest. Before each write of the operator's, and
    so after each, nothing contradicts anything else, and what is somebody else's is as it was."""
    world.tunnel("main", dns=DNS)
    world.tunnel("second", dns=DNS)
    theirs = {where: foreign_child(where[1].kind, where[1].name) for where in FOREIGN_CHILDREN if foreign}
    world.children.update(copy.deepcopy(theirs))
    if foreign:
        world.zone[FOREIGN.key] = FOREIGN

    def look(what: str) -> bool:
        assert contradictions(world) == [], f"before {what}"
        assert {where: world.children.get(where) for where in theirs} == theirs
        if foreign:
            assert world.zone[FOREIGN.key] == FOREIGN
        return True

    world.intercept = look
    for step in history:
        act(world, step)
        in_force_or_void(world)
        look("the next step")
    world.dns_error, world.frozen = None, None
    world.hear()
    if any(step[0] == "pause" for step in history):
        world.settle()
        # Paused or not: what has been deleted has gone.
        assert not [k for k, b in world.bindings.items() if "deletionTimestamp" in b["metadata"]]
        for name in TUNNELS:
            pause(world, name, paused=False)
    world.settle()
    world.now += 2  # a Tunnel that goes waits for the second after its newest credential
    world.settle()
    look("the end")
    return world


def in_force_or_void(world: Any) -> None:
    """No credential that is in use is revoked, and every one of a Tunnel that the operator let go is."""
    for name in TUNNELS:
        key = ObjectKey("culvert-system", name)
        held, revoked = world.snapshot(key).credential, world.revoked(key)
        if (
            key in world.tunnels
            and held is not None
            and revoked is not None
            and "deletionTimestamp" not in (world.tunnels[key]["metadata"])
        ):
            assert held.issued_at >= revoked.not_before
        if key not in world.tunnels and key in world.let_go:
            assert revoked is not None
            assert revoked.not_before > world.last_issued.get(key, 0)


def foreign_child(kind: str, name: str) -> dict[str, Any]:
    """What somebody else keeps at a name that a child of ours would have."""
    metadata = {"name": name, "uid": f"theirs-{kind}", "resourceVersion": "1", "labels": {"team": "x"}}
    return {"kind": kind, "metadata": metadata, "spec": {"mine": True}}


def wishes(world: Any) -> dict[str, set[tuple[ObjectKey, str]]]:
    """Hostname → the (binding, rule) pairs that want it by a rule that may be, in a Tunnel that there is."""
    found: dict[str, set[tuple[ObjectKey, str]]] = {}
    for key, raw in world.bindings.items():
        if ObjectKey("culvert-system", raw["spec"]["tunnelRef"]["name"]) in world.tunnels:
            for rule in raw["spec"]["rules"]:
                with contextlib.suppress(HostnameError):
                    name = normalise_pattern(rule["hostname"])
                    if covers("*.example.com", name):
                        found.setdefault(name, set()).add((key, rule["name"]))
    return found


@settings(max_examples=150, deadline=None)
@given(history=st.lists(steps, min_size=3, max_size=14), foreign=st.booleans())
def test_any_history_comes_to_rest_in_the_state_that_the_objects_ask_for(
    simulate: Any, history: list[tuple[Any, ...]], foreign: bool
) -> None:
    world = live(simulate(), history, foreign=foreign)

    assert not [k for k, b in world.bindings.items() if "deletionTimestamp" in b["metadata"]]
    assert not [k for k, t in world.tunnels.items() if "deletionTimestamp" in t["metadata"]]
    claims = {c["spec"]["hostname"]: c["spec"] for c in world.claims.values()}
    routed: dict[str, set[str]] = {}
    for key in world.tunnels:
        document = world.document(key)
        for rule in document.rules if document else ():
            namespace = rule.id.split("/")[0]
            assert claims[rule.hostname]["owner"]["namespace"] == namespace
            assert claims[rule.hostname]["tunnel"] == str(key)
            routed.setdefault(rule.hostname, set()).add(str(key))
    # Each hostname has one Tunnel, nobody holds what another namespace's wildcard reserves, and nothing is hoarded.
    assert all(len(tunnels) == 1 for tunnels in routed.values())
    for one in claims.values():
        for other in claims.values():
            if one["owner"] != other["owner"]:
                yields = one.get("wildcard") == "Fallback"
                assert yields or not covers(one["hostname"], other["hostname"])
    assert set(claims) == set(routed)
    assert not [hostname for hostname, one in claims.items() if "former" in one]
    # Of those who want a name one namespace has it; nobody has it only where somebody has what lies under or over it.
    for name, wanted in wishes(world).items():
        accepted = {
            key
            for key, rule in wanted
            for said in world.status(key)["rules"]
            if said["name"] == rule and said["accepted"]
        }
        if name in claims:
            assert {key.namespace for key in accepted} == {claims[name]["owner"]["namespace"]}
        else:
            assert not accepted
            rivals = {one for one in claims if covers(one, name) or covers(name, one)}
            assert rivals
            assert {key.namespace for key, _ in wanted} != {claims[one]["owner"]["namespace"] for one in rivals}
    published = {e.name for e in world.zone.values() if e.owner == "inst"}
    blocked = {FOREIGN.name} if foreign else set()
    assert published == set(routed) - blocked
    if foreign:
        assert world.zone[FOREIGN.key] == FOREIGN
    assert listed_names(world) == published
    for key, binding in world.bindings.items():
        tunnel = binding["spec"]["tunnelRef"]["name"]
        if ObjectKey("culvert-system", tunnel) in world.tunnels:
            assert binding["status"]["tunnels"] == [f"culvert-system/{tunnel}"]
            assert world.condition(key, "Accepted")[0] in ("True", "False")
        else:
            assert world.condition(key, "Accepted") == ("False", "TunnelNotFound")


@settings(max_examples=40, deadline=None)
@given(history=st.lists(steps, max_size=10), seed=st.integers(0, 2**16))
def test_a_plan_does_not_depend_on_the_order_in_which_objects_are_listed(
    simulate: Any, history: list[tuple[Any, ...]], seed: int
) -> None:
    world = simulate()
    world.tunnel("main", dns=DNS)
    world.tunnel("second", dns=DNS)
    for step in history:
        act(world, step)
    chance = random.Random(seed)
    for key in world.tunnel_keys():
        snapshot = world.snapshot(key)
        shuffled = replace(
            snapshot,
            bindings=tuple(chance.sample(snapshot.bindings, len(snapshot.bindings))),
            claims=dict(chance.sample(list(snapshot.claims.items()), len(snapshot.claims))),
            services=dict(reversed(snapshot.services.items())),
            children=dict(reversed(snapshot.children.items())),
        )
        assert plan(shuffled) == plan(snapshot)


@settings(max_examples=40, deadline=None)
@given(history=st.lists(steps, max_size=10), pause=st.integers(0, 3600))
def test_a_restart_over_a_world_at_rest_writes_nothing(
    simulate: Any, history: list[tuple[Any, ...]], pause: int
) -> None:
    world = live(simulate(), history, foreign=False)
    world.now += pause
    fresh = [world.plan(key) for key in world.tunnel_keys()]
    renewals = [p for p in fresh if p.credential is not None or p.configuration is not None]
    if not renewals:
        assert all(p.is_empty for p in fresh)


@settings(max_examples=40, deadline=None)
@given(history=st.lists(steps, max_size=12))
def test_nothing_is_planned_for_objects_of_others(simulate: Any, history: list[tuple[Any, ...]]) -> None:
    world = simulate()
    world.tunnel("main", dns=DNS)
    world.tunnel("second", dns=DNS)
    world.children.update({where: foreign_child(where[1].kind, where[1].name) for where in FOREIGN_CHILDREN})
    world.zone[FOREIGN.key] = FOREIGN
    # Each Tunnel holds a name that the other one's binding waits for.
    for namespace, name, tunnel, hosts in CONTEST:
        act(world, ("bind", namespace, name, tunnel, hosts, ""))
        world.settle()
    for step in history:
        act(world, step)
        for key in world.tunnel_keys():
            assert trespasses(world, key) == []


CONTEST = [
    ("alpha", "one", "main", ["a.example.com"]),
    ("beta", "one", "second", ["x.b.example.com", "a.example.com"]),
    ("alpha", "one", "main", ["a.example.com", "x.b.example.com"]),
]


def trespasses(world: Any, key: ObjectKey) -> list[str]:
    """What the plan of a Tunnel would do to objects that are not its own."""
    planned, snapshot = world.plan(key), world.snapshot(key)
    uids = {("TunnelBinding", b.meta.key): b.meta.uid for b in snapshot.bindings}
    if snapshot.tunnel is not None:
        uids["Tunnel", key] = snapshot.tunnel.meta.uid
    wants = {b.meta.key for b in snapshot.bindings if relations.tunnel_of(b, snapshot.options) == key}
    found = [f"the claim {op.name}" for op in planned.claims if takes(op, key, snapshot.claims)]
    for op in (*planned.finalizers_add, *planned.finalizers_remove):
        if uids.get((op.kind, op.key)) != op.uid or (op.kind == "TunnelBinding" and op.key not in wants):
            found.append(f"the finalizer of {op.key}")
    for event in planned.events:
        if uids.get((event.kind, event.key)) != event.uid:
            found.append(f"an Event on {event.key}")
    for status in planned.statuses:
        mine = status.kind == "Tunnel" or status.key in wants
        # A binding that wants another Tunnel only hears what is left of it in this one.
        if (status.kind, status.key) not in uids or not (mine or status.patch["status"].keys() <= LEFT):
            found.append(f"the status of {status.key}")
    children = {(key.namespace, child) for child in relations.children(key.name)} - set(FOREIGN_CHILDREN)
    written = [(a.namespace, a.key) for a in (*planned.apply, *planned.delete)]
    written += [(one.namespace, one.child) for one in (planned.credential, planned.configuration) if one is not None]
    found += [f"the child {where}" for where in written if where not in children]
    listed = {p.name for b in snapshot.bindings for p in b.published if p.tunnel == str(key)}
    for change in (change for zone in planned.dns for change in zone.changes):
        if change.name not in listed or any(record.owner != "inst" for record in change.before):
            found.append(f"the record {change.name}")
    return found


LEFT = {"tunnels", "publishedRecords"}


def takes(op: Any, key: ObjectKey, claims: Any) -> bool:
    """Whether an operation on a claim is not this Tunnel's to do."""
    stored = claims.get(op.name)
    if isinstance(op, ClaimCreate):
        return stored is not None or parse_claim(op.body).tunnel != key
    if stored.tunnel == key:
        return isinstance(op, ClaimUpdate) and parse_claim(op.body).hostname != stored.hostname
    if isinstance(op, ClaimDelete):
        return True
    after = parse_claim(op.body)
    others = [[w for w in claim.waiting if w.tunnel != key] for claim in (stored, after)]
    return replace(after, waiting=()) != replace(stored, waiting=()) or others[0] != others[1]
