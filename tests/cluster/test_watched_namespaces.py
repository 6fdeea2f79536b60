"""An operator that may read a few namespaces only, with no more than the permissions for them."""

from __future__ import annotations

from .operators import World, at_rest, until


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
