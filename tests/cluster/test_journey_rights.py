"""What culvert may do on a real cluster, that it needs no more, and that it tells no secret."""

from __future__ import annotations

import base64
import gzip
import json
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .installation import Installation

CONNECTOR_MAY = [
    (verb, f"{kind}/{name}")
    for verb in ("get", "list", "watch")
    for kind, name in (("configmaps", "main-config"), ("secrets", "main-credential"))
]
CONNECTOR_MAY_NOT = [
    ("get", "secrets/culvert-issuer"), ("get", "secrets/culvert-relay-tls"), ("list", "secrets"),
    ("watch", "secrets"), ("list", "configmaps"), ("get", "configmaps/culvert-issuer"),
    ("update", "secrets/main-credential"), ("patch", "configmaps/main-config"), ("delete", "secrets/main-credential"),
    ("create", "secrets"), ("get", "pods"), ("create", "pods"), ("create", "pods/exec"), ("create", "events"),
    ("get", "tunnels.culvert.dev/main"), ("list", "tunnelbindings.culvert.dev"), ("get", "services"),
    ("create", "serviceaccounts/token"), ("impersonate", "users"), ("escalate", "roles.rbac.authorization.k8s.io"),
]  # fmt: skip
OPERATOR_MAY_NOT = [
    ("list", "secrets", "shop"), ("get", "secrets/anything", "kube-system"), ("create", "pods", "culvert-system"),
    ("create", "pods/exec", "culvert-system"), ("delete", "secrets", "culvert-system"), ("patch", "services", "shop"),
    ("delete", "tunnelbindings.culvert.dev", "shop"), ("create", "clusterroles.rbac.authorization.k8s.io", ""),
    ("escalate", "roles.rbac.authorization.k8s.io", "culvert-system"), ("impersonate", "users", ""),
    ("bind", "roles.rbac.authorization.k8s.io", "culvert-system"), ("patch", "deployments.apps", "shop"),
]  # fmt: skip


def allowed(installation: Installation, account: str, verb: str, what: str, namespace: str) -> bool:
    """What the API server's authorizer says of a request of a ServiceAccount of culvert's namespace."""
    user = f"--as=system:serviceaccount:{installation.system}:{account}"
    where = f"--namespace={namespace}" if namespace else "--all-namespaces"
    kind, _, part = what.partition("/")
    question = (kind, f"--subresource={part}") if part in ("exec", "token") else (what,)
    done = installation.kubectl("auth", "can-i", verb, *question, user, where, check=False)
    answer = done.stdout.strip()
    assert answer in ("yes", "no"), done.stderr
    return answer == "yes"


def test_a_connector_may_read_its_configuration_and_credential_and_nothing_else(installation: Installation) -> None:
    def may(verb: str, what: str, namespace: str = installation.system) -> bool:
        return allowed(installation, "main-connector", verb, what, namespace)

    assert [(verb, what) for verb, what in CONNECTOR_MAY if not may(verb, what)] == []
    assert [(verb, what) for verb, what in CONNECTOR_MAY_NOT if may(verb, what)] == []
    assert not may("get", "configmaps/main-config", "shop")


def test_the_operator_may_not_do_what_it_never_does(installation: Installation) -> None:
    found = [asked for asked in OPERATOR_MAY_NOT if allowed(installation, "culvert-operator", *asked)]
    assert found == []
    # The questions are answered at all.
    assert allowed(installation, "culvert-operator", "patch", "tunnels.culvert.dev", "shop")


@pytest.mark.parametrize("account", ["default", "culvert-relay"])
def test_the_relay_has_no_rights_and_no_token(installation: Installation, account: str) -> None:
    for question in (("get", "configmaps/culvert-issuer"), ("list", "secrets"), ("get", "tunnels.culvert.dev")):
        assert not allowed(installation, account, *question, installation.system)
    for pod in installation.pods("relay"):
        assert "kube-api-access" not in json.dumps(pod["spec"]["volumes"])


def test_nothing_that_culvert_asked_for_was_forbidden(installation: Installation) -> None:
    asked = {
        (e["user"]["username"].rpartition(":")[2], e["verb"])
        for e in installation.audit()
        if e["user"]["username"].startswith(f"system:serviceaccount:{installation.system}:")
    }
    # It was culvert that asked: the log holds the requests among which none was refused.
    assert {("culvert-operator", "watch"), ("main-connector", "watch")} <= asked
    assert installation.refused() == []
    logs = installation.logs()
    assert {name.rpartition(" ")[0].rsplit("-", 2)[0] for name in logs} >= {"culvert-operator", "main-connector"}
    told = [line for text in logs.values() for line in text.splitlines() if "forbidden" in line.lower()]
    assert told == []


def test_the_relay_refuses_by_itself_what_its_issuer_may_not_have_and_the_binding_says_so(
    installation: Installation,
) -> None:
    """The platform team granted a name that the relay does not give to this cluster."""
    host, where = "shop.elsewhere.example.net", f"--namespace={installation.system}"
    main = installation.get("tunnel", "main")
    spec = {k: v for k, v in main["spec"].items() if k != "dns"}
    spec |= {"connector": {"replicas": 1}, "grants": [{"namespaces": {"from": "All"}, "hostnames": [host]}]}
    metadata = {"name": "beyond", "namespace": installation.system}
    binding = installation.binding("beyond", host)
    binding["spec"]["tunnelRef"]["name"] = "beyond"
    installation.apply({"apiVersion": main["apiVersion"], "kind": "Tunnel", "metadata": metadata, "spec": spec})
    try:
        with installation.bound(binding):
            installation.until(
                lambda: installation.condition("tunnelbinding", "beyond", "shop", "Programmed")[1] == "RouteRefused"
            )
            _, _, told = installation.condition("tunnelbinding", "beyond", "shop", "Programmed")
            assert host in told
            assert "not_in_issuer" in told
            assert installation.condition("tunnelbinding", "beyond", "shop", "Accepted")[0] == "True"
            assert installation.visit(host).status == 404
    finally:
        installation.kubectl("delete", "tunnel", "beyond", where, "--timeout=60s")


def spellings(secret: bytes) -> set[str]:
    """Ways in which a text may show up: as it is, URL-encoded, in hex, in JSON, in base64 at each alignment."""
    found = {secret.hex()}
    if secret.isascii():
        text = secret.decode()
        found |= {text, urllib.parse.quote(text, safe=""), json.dumps(text)[1:-1]}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):
            # The first and last characters depend on what stands around; the middle does not.
            found.add(encode(b"\0" * shift + secret).decode().rstrip("=")[4 if shift else 0 : -2])
    return found


def secrets_of(installation: Installation) -> dict[str, bytes]:
    """Everything that must stay inside its Secret."""

    def data(name: str) -> dict[str, bytes]:
        return {k: base64.b64decode(v) for k, v in installation.get("secret", name)["data"].items()}

    def key(pem: bytes) -> bytes:
        lines = [line for line in pem.splitlines() if line and not line.startswith(b"-----")]
        return max(lines, key=len)

    credential = json.loads(data("main-credential")["credentials.json"])
    private = credential["privateKey"]
    _, payload, signature = credential["credential"].split(".")
    issuer = base64.b64decode(b"".join(data("culvert-issuer")["issuer.key"].splitlines()[1:-1]))
    return {
        "the connectors' private key": base64.urlsafe_b64decode(private + "=" * (-len(private) % 4)),
        "the connectors' private key as text": private.encode(),
        "the credential": credential["credential"].encode(),
        "the credential's payload": payload.encode(),
        "the credential's signature": signature.encode(),
        "the issuer's private key": issuer[-32:],
        "the relay's private key": key(data("culvert-relay-tls")["tls.key"]),
        "the relay CA's private key": key(data("culvert-relay-ca")["ca.key"]),
        "the visitors' private key": key(data("visitors-tls")["tls.key"]),
    }


def told_by(installation: Installation) -> dict[str, str]:
    """Everything that people other than a Secret's readers get to see."""
    told = {f"log of {name}": text for name, text in installation.logs().items()}
    for kinds in (
        "events", "events.v1.events.k8s.io", "configmaps", "pods", "deployments,replicasets,statefulsets",
        "services,serviceaccounts", "roles,rolebindings", "tunnels,tunnelbindings", "hostnameclaims",
    ):  # fmt: skip
        told[kinds] = installation.kubectl("get", kinds, "--all-namespaces", "--output=json").stdout
    for item in json.loads(told["configmaps"])["items"]:
        for entry, value in item.get("binaryData", {}).items():
            told[f"configmap {item['metadata']['name']} {entry}"] = gzip.decompress(base64.b64decode(value)).decode()
    for component, port in (("relay", 9901), ("operator", 9902), ("connector", 20241)):
        told[f"metrics of the {component}"] = installation.metrics(component, port)
    for component, port, path in (("connector", 20241, "v1/status"), ("relay", 9901, "v1/sessions")):
        name = installation.pods(component)[0]["metadata"]["name"]
        uri = f"/api/v1/namespaces/{installation.system}/pods/{name}:{port}/proxy/{path}"
        told[f"{path} of the {component}"] = installation.kubectl("get", "--raw", uri).stdout
    told["helm manifest"] = installation.run_helm("get", "manifest", "culvert")
    told["audit log"] = "\n".join(json.dumps(event) for event in installation.audit())
    return told


def test_d20_no_secret_is_told_in_any_spelling(installation: Installation) -> None:
    installation.wait_ready("tunnel/main", installation.system)
    secrets, told = secrets_of(installation), told_by(installation)
    found = [
        (name, place)
        for name, secret in secrets.items()
        for spelling in spellings(secret)
        for place, text in told.items()
        if spelling in text
    ]
    assert found == []
    # The search finds what is there: the public key in the ConfigMap, also in base64, and the grant for connectors.
    public = installation.get("configmap", "culvert-issuer")["data"]["issuer.pub"].splitlines()[1].encode()
    assert [place for place, text in told.items() if any(s in text for s in spellings(public))] == ["configmaps"]
    hidden: Any = {"log": "…" + base64.b64encode(b"xy" + secrets["the credential"] + b"z").decode() + "…"}
    assert any(s in hidden["log"] for s in spellings(secrets["the credential"]))
    raw = secrets["the connectors' private key"]
    assert any(s in base64.b64encode(b"x" + raw + b"yz").decode() for s in spellings(raw))


def test_a_connectors_pod_carries_names_only(installation: Installation) -> None:
    pod: Any = installation.pods("connector")[0]
    (container,) = pod["spec"]["containers"]
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert values == {
        "CULVERT_NAMESPACE": installation.system,
        "CULVERT_CONFIGMAP": "main-config",
        "CULVERT_SECRET": "main-credential",
        "CULVERT_LOG_LEVEL": "info",
        "CULVERT_LOG_FORMAT": "json",
    }
    modes = [v["secret"]["defaultMode"] for v in pod["spec"]["volumes"] if "secret" in v]
    assert modes == [0o440]
