"""The chart judged by kubeconform against the schemas of a real API server, and by that server itself."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .operators import until

CHART = Path(__file__).resolve().parents[2] / "charts" / "culvert"
EVERY_VALUE = CHART.parents[1] / "tests" / "charts" / "every_value.yaml"


def settings(*values: str) -> tuple[str, ...]:
    return tuple(part for value in values for part in ("--set", value))


VALUES = {
    "operator alone": (),
    # Whose definitions are the Prometheus operator's, not the API server's.
    "every value": (
        *("--values", str(EVERY_VALUE)),
        *settings("metrics.podMonitors.enabled=false", "metrics.prometheusRule.enabled=false"),
    ),
}


@pytest.fixture(scope="module")
def schemas(control_plane: Any, helm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The API server's own OpenAPI document as one strict JSON schema per kind, as kubeconform reads them."""
    folder: Path = tmp_path_factory.mktemp("schemas")
    document = json.loads(control_plane.kubectl("get", "--raw", "/openapi/v2").stdout)
    definitions = document["definitions"]
    for name, definition in definitions.items():
        # An int-or-string is "string" in OpenAPI v2; without this a port by number would be refused.
        if definition.get("format") == "int-or-string":
            definitions[name] = {"type": ["string", "integer"]}
        elif "properties" in definition and "additionalProperties" not in definition:
            definition["additionalProperties"] = False
    used = {d["kind"] for values in VALUES.values() for d in yaml.safe_load_all(render(helm, values)) if d}
    for definition in definitions.values():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if kind["kind"] not in used:
                continue
            version = "-".join(part for part in (kind["group"].partition(".")[0], kind["version"]) if part)
            schema = {**definition, "definitions": definitions}
            (folder / f"{kind['kind'].lower()}-{version}.json").write_text(json.dumps(schema))
    return folder


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubeconform_strict_passes(values: tuple[str, ...], schemas: Path, helm: str, kubeconform: str) -> None:
    rendered = render(helm, values)
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [kubeconform, "-strict", "-summary", "-output", "json", "-schema-location", location, "-"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True, check=False, timeout=120)
    summary = json.loads(done.stdout)
    assert done.returncode == 0, summary.get("resources")
    assert summary["summary"]["invalid"] == summary["summary"]["errors"] == summary["summary"]["skipped"] == 0
    assert summary["summary"]["valid"] == len([d for d in yaml.safe_load_all(rendered) if d])


def test_kubeconform_notices_a_field_that_does_not_exist(schemas: Path, helm: str, kubeconform: str) -> None:
    rendered = render(helm, ()).replace("enableServiceLinks:", "enableServiceLinx:")
    location = f"{schemas}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"
    command = [kubeconform, "-strict", "-schema-location", location, "-"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert "enableServiceLinx" in done.stdout


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_api_server_accepts_every_object(values: tuple[str, ...], control_plane: Any, helm: str) -> None:
    for name in ("culvert-system", "edge", "shop"):
        control_plane.kubectl("create", "namespace", name, check=False)
        label = "pod-security.kubernetes.io/warn=restricted"
        control_plane.kubectl("label", "--overwrite", "namespace", name, label)
    options = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    done = control_plane.kubectl(*options, input=render(helm, values))
    # Of an object that another test has created, kubectl says that it was not applied.
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line and "last-applied" not in line]
    assert warnings == []


def render(helm: str, options: tuple[str, ...]) -> str:
    command = [helm, "template", "culvert", str(CHART), "-n", "culvert-system", "--kube-version", "1.37.2", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


LIMITS = settings("operator.allowedHostnames={*.example.com,shop.example.org}")


@pytest.fixture
def released(cluster: Any, helm: str) -> Any:
    """The chart's objects that need no node, in the cluster."""
    cluster.kubectl("create", "namespace", "culvert-system", check=False)
    wanted = ("ClusterRole", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    documents = [d for d in yaml.safe_load_all(render(helm, LIMITS)) if d and d["kind"] in wanted]
    text = yaml.safe_dump_all(documents)
    cluster.apply(text)
    yield cluster
    cluster.kubectl("delete", "--filename=-", input=text)


def tunnel(*hostnames: str, namespace: str = "culvert-system") -> dict[str, Any]:
    return {
        "apiVersion": "culvert.dev/v1alpha1",
        "kind": "Tunnel",
        "metadata": {"name": "main", "namespace": namespace},
        "spec": {"relay": {"addresses": ["r.example.com:443"]}, "grants": [{"hostnames": list(hostnames)}]},
    }


def said(cluster: Any, body: Any, *options: str, verb: str = "create") -> str:
    """What the API server says to an object that somebody would make."""
    done = cluster.kubectl(verb, "--dry-run=server", "--filename=-", *options, input=json.dumps(body), check=False)
    return str(done.stderr + done.stdout)


def test_a_second_release_is_refused_before_it_makes_anything(cluster: Any, helm: str, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        homes = {name: str(tmp_path / name) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        environment = {**os.environ, **homes, "KUBECONFIG": str(cluster.kubeconfig)}
        return subprocess.run([helm, *words], env=environment, capture_output=True, text=True, check=False, timeout=120)

    def install(name: str) -> subprocess.CompletedProcess[str]:
        options = ("--namespace", name, "--create-namespace", "--set", "crds.install=false", "--no-hooks")
        return run("install", name, str(CHART), *options)

    first = install("one")
    try:
        assert first.returncode == 0, first.stderr
        assert "A cluster has one release of it." in first.stdout
        second = install("two")
        assert second.returncode != 0
        assert "cannot be imported into the current release" in second.stderr
        assert cluster.get("deployments,roles,services", "--namespace=two")["items"] == []
    finally:
        run("uninstall", "one", "--namespace", "one", "--no-hooks", "--wait")


def test_teams_get_their_bindings_and_no_status_tunnel_or_claim(released: Any) -> None:
    released.kubectl("create", "namespace", "team", check=False)
    for role in ("view", "edit", "admin"):
        user = f"--user={role}er"
        released.kubectl("create", "rolebinding", role, f"--clusterrole={role}", user, "-n", "team", check=False)

    def may(role: str, verb: str, resource: str) -> bool:
        kind, _, part = resource.partition("/")
        below = (f"--subresource={part}",) if part else ()
        asked = ("auth", "can-i", verb, f"{kind}.culvert.dev", *below, f"--as={role}er", "--namespace=team")
        return str(released.kubectl(*asked, check=False).stdout).strip() == "yes"

    until(lambda: may("admin", "create", "tunnelbindings"))  # aggregation is a controller's work
    for role in ("view", "edit", "admin"):
        assert may(role, "get", "tunnelbindings")
        assert may(role, "patch", "tunnelbindings") is (role != "view")
        for resource in ("tunnelbindings/status", "tunnels", "hostnameclaims"):
            assert not may(role, "patch", resource), (role, resource)


def test_claims_are_the_operators_and_tunnels_stand_where_they_are_served(released: Any) -> None:
    released.kubectl("create", "namespace", "team", check=False)
    careless = ("--verb=create", "--resource=hostnameclaims,tunnels")
    released.kubectl("create", "clusterrole", "careless", *careless, check=False)
    thief, collector = (f"system:serviceaccount:kube-system:{name}" for name in ("thief", "generic-garbage-collector"))
    users = [f"--user={name}" for name in ("eve", thief, collector)]
    released.kubectl("create", "clusterrolebinding", "careless", "--clusterrole=careless", *users, check=False)
    claim = {
        "apiVersion": "culvert.dev/v1alpha1",
        "kind": "HostnameClaim",
        "metadata": {"name": "h-" + "1" * 48},
        "spec": {
            "hostname": "stolen.example.com",
            "owner": {"namespace": "team"},
            "tunnel": "culvert-system/main",
            "claimedAt": "2025-01-01T00:00:00.000Z",
        },
    }
    # A new policy takes effect when the API server's informers have seen it.
    until(lambda: "by culvert's operator only" in said(released, claim, "--as=eve"))
    assert "by culvert's operator only" in said(released, claim, f"--as={thief}")
    assert "created" in said(released, claim)  # who may do everything may repair
    assert "created" in said(released, claim, f"--as={collector}")
    elsewhere = tunnel("shop.example.com", namespace="team")
    until(lambda: "serves Tunnels in culvert-system only" in said(released, elsewhere))
    assert "created" in said(released, tunnel("shop.example.com"))


def test_grants_stay_within_the_operators_limits(released: Any) -> None:
    beyond = tunnel("example.com")
    until(lambda: "and not example.com; take it out of grants" in said(released, beyond))
    within = [
        "*.example.com",
        "*.a.example.com",
        "B.Example.COM",
        "c.example.com.",
        "shop.example.org",
        "bücher.example",
    ]
    assert "created" in said(released, tunnel(*within))
    for name in ("*.example.org", "a.shop.example.org", "*.com", "badexample.com", "*.badexample.com", "example.org."):
        told = said(released, tunnel("a.example.com", name))
        assert f"grant *.example.com, shop.example.org only, and not {name}; take it out" in told, name
    several = tunnel("a.example.com", "a.org")
    several["spec"]["grants"] += [{"tcpPorts": ["20022"]}, {"hostnames": ["b.org", "c.org"]}]
    assert "and not a.org, b.org, c.org; take it out" in said(released, several)


def test_a_tunnel_beyond_limits_that_came_later_can_be_changed_elsewhere(released: Any) -> None:
    beyond = tunnel("a.example.org")
    until(lambda: "take it out of grants" in said(released, beyond))
    binding = "validatingadmissionpolicybinding", "culvert-grants-stay-within-the-operators-limits"
    held = released.get(*binding)
    released.kubectl("delete", *binding)
    try:
        until(lambda: "created" in said(released, beyond))
        released.apply(json.dumps(beyond))
        released.apply(
            json.dumps({k: v for k, v in held.items() if k != "metadata"} | {"metadata": {"name": binding[1]}})
        )
        until(lambda: "take it out of grants" in said(released, tunnel("b.example.org"), verb="apply"))
        # As the operator does, with its finalizer.
        finalizer = '{"metadata": {"finalizers": ["culvert.dev/cleanup"]}, "spec": {"connector": {"replicas": 3}}}'
        where = ("tunnel", "main", "--namespace=culvert-system")
        released.kubectl("patch", *where, "--dry-run=server", "--type=merge", f"--patch={finalizer}")
    finally:
        released.kubectl("delete", "tunnel", "main", "--namespace=culvert-system", "--ignore-not-found")
