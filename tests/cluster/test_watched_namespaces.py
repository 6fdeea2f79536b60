"""An operator that may read a few namespaces only, with no more than the permissions for them."""

from __future__ import annotations

import pytest

from .operators import World, at_rest, until

OURS = ["culvert.dev/cleanup"]


def test_bindings_of_watched_namespaces_are_served_and_nothing_of_others_is_read(world: World) -> None:
    shop, blog = f"{world.name}-shop", f"{world.name}-blog"
    world.restrict(world.system, shop)
    world.start(f"--watch-namespaces={shop}")
    world.apply(world.with_zone(), world.service("shop"), world.service("blog"))
    host, unseen = f"shop.{world.zone}", f"blog.{world.zone}"
    strayed = world.binding(f"strayed.{world.zone}", name="strayed")
    strayed["spec"]["tunnelRef"]["namespace"] = blog
    world.apply(world.binding(unseen, team="blog"), world.binding(host), strayed)
    world.served(world.connect(), host)
    until(lambda: world.condition("tunnelbinding", "web", shop, "Ready")[0] == "True")
    at_rest(world)
    assert "status" not in world.get("tunnelbinding", "web", blog)
    assert unseen not in {rule["hostname"] for rule in world.document()["rules"]}
    asked = [e for e in world.cluster.audit() if e["user"]["username"] == world.user]
    assert not [e["requestURI"] for e in asked if e["responseStatus"]["code"] == 403]
    bindings = [e["objectRef"] for e in asked if e.get("objectRef", {}).get("resource") == "tunnelbindings"]
    assert {asked_for.get("namespace") for asked_for in bindings} == {world.system, shop}
    # A Service of a watched namespace that goes is seen all the same.
    world.cluster.kubectl("delete", "service", "web", f"--namespace={shop}")
    until(lambda: world.condition("tunnelbinding", "web", shop, "ResolvedRefs")[1] == "ServiceNotFound")
    world.cluster.kubectl("delete", "tunnelbinding", "web", f"--namespace={blog}", "--timeout=20s")
    # Nobody takes up the binding whose Tunnel would stand where nothing is read: it says so, and holds nothing.
    told = ("Unknown", "TunnelNotWatched")
    until(lambda: world.condition("tunnelbinding", "strayed", shop, "Accepted") == told, seconds=60)
    at_rest(world)
    assert world.condition("tunnelbinding", "strayed", shop, "Ready") == told
    world.cluster.kubectl("delete", "tunnelbinding", "strayed", f"--namespace={shop}", "--timeout=20s")


@pytest.fixture
def shops(world: World) -> World:
    """An operator that watches one namespace, with a binding there, and a binding of another operator's elsewhere."""
    shop, blog = f"{world.name}-shop", f"{world.name}-blog"
    world.restrict(world.system, shop)
    world.start(f"--watch-namespaces={shop}")
    theirs = world.binding(f"blog.{world.zone}", team="blog")
    theirs["metadata"]["finalizers"] = OURS
    world.apply(world.with_zone(), world.service("shop"), world.binding(f"shop.{world.zone}"), theirs)
    for kind, name, namespace in (("tunnel", "main", world.system), ("tunnelbinding", "web", shop)):
        until(lambda k=kind, n=name, s=namespace: world.get(k, n, s)["metadata"].get("finalizers") == OURS)
    yield world
    release = '[{"op": "remove", "path": "/metadata/finalizers"}]'
    world.cluster.kubectl("patch", "tunnelbinding", "web", f"--namespace={blog}", "--type=json", f"--patch={release}")


def test_uninstalling_an_operator_of_a_few_namespaces_releases_what_it_watched_and_nothing_else(shops: World) -> None:
    world = shops
    shop, blog = f"{world.name}-shop", f"{world.name}-blog"
    assert world.stop() == 0
    gone = f"{world.name}-gone"  # a namespace that takes the rights in it along
    world.emptied.add(gone)
    assert world.command("retire", f"--watch-namespaces={shop},{gone}") == 0
    assert "finalizers" not in world.get("tunnel", "main")["metadata"]
    assert "finalizers" not in world.get("tunnelbinding", "web", shop)["metadata"]
    assert world.get("tunnelbinding", "web", blog)["metadata"]["finalizers"] == OURS
    assert world.refused() == []
    world.start(f"--watch-namespaces={shop}")


def test_the_namespace_of_an_operator_of_a_few_namespaces_goes_and_what_it_watched_is_released(shops: World) -> None:
    world = shops
    shop, blog = f"{world.name}-shop", f"{world.name}-blog"
    world.emptied.add(world.system)
    world.cluster.kubectl("delete", "namespace", world.system, "--timeout=60s", timeout=90)
    assert "finalizers" not in world.get("tunnelbinding", "web", shop)["metadata"]
    assert world.get("tunnelbinding", "web", blog)["metadata"]["finalizers"] == OURS
    world.kill()
    world.instance = None
    world.again()
