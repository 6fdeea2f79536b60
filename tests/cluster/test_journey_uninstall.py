"""Taking culvert off a real cluster leaves what is said to stay, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .installation import Installation

# The trust of relays outside and the owner of DNS records: what a later installation goes on with. NOTES.txt says so.
STAYS = {
    "secret/culvert-issuer", "secret/culvert-relay-ca", "secret/culvert-relay-tls",
    "configmap/culvert-issuer", "configmap/culvert-relay-ca", "configmap/culvert-revocations",
}  # fmt: skip
CRDS = {
    f"customresourcedefinition.apiextensions.k8s.io/{kind}.culvert.dev"
    for kind in ("tunnels", "tunnelbindings", "hostnameclaims")
}
# The zone that the administrator brought and culvert wrote into; and the API server's own entry for a CRD's group.
NOT_OURS = {"configmap/demo-zone", "apiservice.apiregistration.k8s.io/v1alpha1.culvert.dev"}

# Named after the node, which is called culvert too, or made by these tests.
MACHINE = {"Node", "CSINode", "Lease", "Namespace"}


def names(installation: Installation, *, namespaced: bool) -> set[str]:
    """kind/name of every object with culvert in its name, its labels, its owner or its manager."""
    scope = f"--namespaced={str(namespaced).lower()}"
    listed = installation.kubectl("api-resources", "--verbs=list", scope, "--output=name").stdout.split()
    kinds = ",".join(kind for kind in listed if not kind.startswith(("events", "componentstatuses")))
    where = ("--all-namespaces",) if namespaced else ()
    items = installation.cluster.get(kinds, *where, "--show-managed-fields")["items"]
    found = set()
    for item in items:
        meta = item["metadata"]
        kept = {k: v for k, v in meta.items() if k in ("name", "labels", "ownerReferences", "finalizers")}
        managers = [field["manager"] for field in meta.get("managedFields", ())]
        if "culvert" in str(kept) + str([m for m in managers if m == "culvert"]) and item["kind"] not in MACHINE:
            group = item["apiVersion"].rpartition("/")[0]
            found.add(f"{item['kind'].lower()}{'.' + group if group else ''}/{meta['name']}")
    return found - NOT_OURS


def test_uninstalling_leaves_the_crds_and_the_trust_and_nothing_else(installation: Installation) -> None:
    before = names(installation, namespaced=True) | names(installation, namespaced=False)
    assert {"deployment.apps/main-connector", "clusterrole.rbac.authorization.k8s.io/culvert-operator"} <= before
    assert before >= STAYS - {"configmap/culvert-revocations"} | CRDS  # which the first Tunnel that goes makes
    zone_at_start = installation.zone_text()
    assert installation.first in zone_at_start
    installation.kubectl("delete", "tunnelbindings", "--all", "--all-namespaces", "--timeout=120s")
    installation.kubectl("delete", "tunnels", "--all", "--all-namespaces", "--timeout=120s")
    assert installation.first not in installation.zone_text()
    assert "_culvert" not in installation.zone_text()
    installation.logs()
    assert installation.refused() == []
    installation.installed = False  # whoever needs it after this gets a new one
    notes = installation.run_helm("get", "notes", "culvert")
    assert "culvert-issuer" in notes
    told = installation.run_helm("uninstall", "culvert", "--wait", "--timeout=120s")
    for crd in CRDS:
        assert crd.rpartition("/")[2] in told
    installation.until(lambda: names(installation, namespaced=True) == STAYS, every=1)
    assert names(installation, namespaced=False) == CRDS
    # An installation that comes again goes on with the same key: relays elsewhere trust it already.
    key = installation.get("secret", "culvert-issuer")["data"]
    installation.ensure()
    assert installation.get("secret", "culvert-issuer")["data"] == key
    assert installation.visit(installation.first).status == 200


def test_uninstalling_with_live_objects_releases_them_and_no_namespace_waits_for_ever(
    installation: Installation,
) -> None:
    connectors = installation.lives("connector")
    installation.logs()
    installation.installed = False
    installation.run_helm("uninstall", "culvert", "--wait", "--timeout=200s")
    assert installation.pods("operator") == []
    for kind, name, namespace in (("tunnel", "main", installation.system), ("tunnelbinding", "first", "shop")):
        assert "finalizers" not in installation.get(kind, name, namespace)["metadata"]
    assert installation.lives("connector") == connectors, "what a person did not delete stays"
    events = installation.cluster.get("events.v1.events.k8s.io", "--namespace=shop")["items"]
    (told,) = {e["note"] for e in events if e["reason"] == "Released"}
    assert f"{installation.first} CNAME" in told
    assert installation.first in installation.zone_text()
    installation.kubectl("delete", "namespace", "shop", "--timeout=90s")
    installation.kubectl("delete", "tunnel", "main", f"--namespace={installation.system}", "--timeout=30s")
    installation.remove()
    installation.ensure()
    assert installation.visit(installation.first).status == 200
