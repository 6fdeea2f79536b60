"""The chart as helm renders it; tests/cluster/test_chart.py has it judged by a real API server."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from culvert_operator.children.metadata import labels
from culvert_operator.flags import add_arguments, add_realm, from_args, realm
from culvert_operator.leadership.election import Terms
from culvert_relay.config import parse_config

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "culvert"
RELAY = ("relay.enabled=true", "relay.hostnames={*.example.com}")

Render = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def helm(built: Callable[[str], str]) -> str:
    return shutil.which("helm") or built("helm")


@pytest.fixture(scope="module")
def render(helm: str) -> Render:
    def template(*settings: str, namespace: str = "culvert-system") -> subprocess.CompletedProcess[str]:
        options = [part for setting in settings for part in ("--set", setting)]
        command = [helm, "template", "culvert", str(CHART), "-n", namespace, "--kube-version", "1.37.2", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return template


@pytest.fixture(scope="module")
def install(helm: str) -> Render:
    """As helm would install it, with the notes that a person reads after it."""

    def dry_run(*settings: str, namespace: str = "culvert-system") -> subprocess.CompletedProcess[str]:
        options = [part for setting in settings for part in ("--set", setting)]
        command = [helm, "install", "culvert", str(CHART), "-n", namespace, "--dry-run=client", *options]
        environment = {**os.environ, "KUBECONFIG": os.devnull}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return dry_run


def objects(done: subprocess.CompletedProcess[str]) -> dict[tuple[str, str], dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    documents = [d for d in yaml.safe_load_all(done.stdout) if d]
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


def test_the_charts_copies_of_crds_and_permissions_are_fresh() -> None:
    command = [sys.executable, str(REPOSITORY / "hack" / "chart" / "sync.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_values_there_is_an_operator_and_no_relay(render: Render) -> None:
    rendered = objects(render())
    assert ("Deployment", "culvert-operator") in rendered
    operator = rendered["Deployment", "culvert-operator"]["spec"]
    assert (operator["replicas"], operator["strategy"]["type"]) == (2, "RollingUpdate")
    assert "--leader-elect" in operator["template"]["spec"]["containers"][0]["args"]
    assert ("PodDisruptionBudget", "culvert-operator") in rendered
    assert not [key for key in rendered if "relay" in key[1]]
    assert {n for k, n in rendered if k == "CustomResourceDefinition"} == {
        "tunnels.culvert.dev",
        "tunnelbindings.culvert.dev",
        "hostnameclaims.culvert.dev",
    }


USABLE_FROM = {
    31: {"isIP", "isCIDR", "cidr", "masked"},
    30: {"allowed", "check", "group", "resource"},  # of admission policies, which are v1 since then
    25: {
        *("all", "contains", "endsWith", "exists", "exists_one", "filter", "getHost", "getScheme", "has", "int"),
        *("isURL", "join", "lastIndexOf", "lowerAscii", "map", "matches", "size", "split", "startsWith", "string"),
        *("substring", "type", "url"),
    },
}
"""CEL's functions by the minor version of Kubernetes whose API server takes them in new rules: one after the version
that brought them (k8s.io/apiserver/pkg/cel/environment)."""


def test_the_oldest_kubernetes_that_is_let_in_knows_every_function_of_the_rules(render: Render) -> None:
    def expressions(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            for key, value in node.items():
                if isinstance(value, str) and key in ("rule", "expression", "messageExpression"):
                    yield value
                else:
                    yield from expressions(value)
        elif isinstance(node, list):
            for value in node:
                yield from expressions(value)

    used: set[str] = set()
    for made in objects(render("operator.allowedHostnames={a.example}")).values():
        for text in expressions(made):
            used |= set(re.findall(r"([A-Za-z_]+)\(", re.sub(r"'(\\.|[^'])*'", "", text)))
    since = {name: minor for minor, names in USABLE_FROM.items() for name in names}
    assert used == since.keys(), "add the function, and since when new rules may have it"
    oldest = yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
    assert oldest == f">=1.{max(since.values())}.0-0"


def test_crds_are_kept_on_uninstall_unless_told_otherwise(render: Render) -> None:
    name = ("CustomResourceDefinition", "tunnels.culvert.dev")
    kept = objects(render())[name]["metadata"]["annotations"]
    assert kept["helm.sh/resource-policy"] == "keep"
    assert "helm.sh/resource-policy" not in objects(render("crds.keep=false"))[name]["metadata"].get("annotations", {})
    assert name not in objects(render("crds.install=false"))


def test_the_relay_trusts_the_operators_key_and_has_its_certificate(render: Render) -> None:
    rendered = objects(render(*RELAY, "relay.tls.secretNames={shop-tls}"))
    config = yaml.safe_load(rendered["ConfigMap", "culvert-relay"]["data"]["relay.yml"])
    assert config["issuers"] == [
        {"id": "cluster", "publicKeyFile": "/etc/culvert/issuer/issuer.pub", "hostnames": ["*.example.com"]}
    ]
    assert "culvert-relay-tunnel.culvert-system.svc.cluster.local" in config["serverNames"]
    volumes = {v["name"]: v for v in rendered["StatefulSet", "culvert-relay"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["issuer"]["configMap"]["name"] == "culvert-issuer"
    secrets = [s["secret"]["name"] for s in volumes["certificates"]["projected"]["sources"]]
    assert secrets == ["culvert-relay-tls", "shop-tls"]
    arguments = rendered["Deployment", "culvert-operator"]["spec"]["template"]["spec"]["containers"][0]["args"]
    names = next(a for a in arguments if a.startswith("--relay-server-names="))
    assert names.removeprefix("--relay-server-names=").split(",") == config["serverNames"]


def test_the_relays_configuration_is_one_that_the_relay_accepts(render: Render, tmp_path: Path) -> None:
    text = objects(render(*RELAY))["ConfigMap", "culvert-relay"]["data"]["relay.yml"]
    assert parse_config(text.encode(), folder=tmp_path).issuers[0].hostnames == ("*.example.com",)


def test_further_keys_of_relay_yml_are_read_by_the_relay(render: Render, tmp_path: Path) -> None:
    values = (
        "relay.config.limits.connections=7",
        "relay.config.accessLog.output=stdout",
        "relay.gracePeriodSeconds=90",
    )
    text = objects(render(*RELAY, *values))["ConfigMap", "culvert-relay"]["data"]["relay.yml"]
    config = parse_config(text.encode(), folder=tmp_path)
    assert (config.front.limits.connections, config.grace_period) == (7, 90)
    assert config.access.log is not None
    pod = objects(render(*RELAY, *values))["StatefulSet", "culvert-relay"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 90
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert str(config.state_file.parent) in mounts if config.state_file else False


def test_a_change_of_what_a_relay_serves_restarts_none_and_any_other_does(render: Render) -> None:
    def template(*values: str) -> Any:
        return objects(render(*RELAY, *values))["StatefulSet", "culvert-relay"]["spec"]["template"]

    assert template() == template("relay.hostnames={a.example.com}") == template("relay.tcpPorts={20022}")
    assert template() != template("relay.config.timeouts.idle=9s")


def test_an_upgrade_restarts_no_relay_that_has_a_tag_of_its_own(render: Render) -> None:
    def images(*values: str) -> list[str]:
        found = objects(render(*RELAY, "image.repository=r.example/culvert", *values))
        pods = (found[key]["spec"]["template"]["spec"] for key in (
            ("StatefulSet", "culvert-relay"), ("Deployment", "culvert-operator")))  # fmt: skip
        return [pod["containers"][0]["image"].removeprefix("r.example/culvert:") for pod in pods]

    assert images("image.tag=v2") == ["v2", "v2"]
    assert images("image.tag=v2", "relay.imageTag=v1") == ["v1", "v2"]
    (version,) = {*images("image.tag=")}
    assert version == yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]


def test_visitors_addresses_are_kept_where_a_service_can(render: Render) -> None:
    def service(*values: str) -> Any:
        return objects(render(*RELAY, *values))["Service", "culvert-relay"]["spec"]

    assert "externalTrafficPolicy" not in service()  # the API server refuses it for a ClusterIP
    assert service("relay.service.type=LoadBalancer")["externalTrafficPolicy"] == "Local"
    balanced = ("relay.service.type=LoadBalancer", "relay.service.loadBalancerSourceRanges={192.0.2.0/24}")
    assert service(*balanced)["loadBalancerSourceRanges"] == ["192.0.2.0/24"]


def test_prometheus_is_told_where_every_role_answers(render: Render) -> None:
    wanted = ("metrics.podMonitors.enabled=true", "metrics.podMonitors.labels.release=monitoring")
    assert not [kind for kind, _ in objects(render(*RELAY)) if kind in ("PodMonitor", "PrometheusRule")]
    made = objects(render(*RELAY, *wanted, "operator.tunnelNamespaces={a,b}"))
    for role, workload in (("operator", "Deployment"), ("relay", "StatefulSet")):
        monitor = made["PodMonitor", f"culvert-{role}"]
        pods = made[workload, f"culvert-{role}"]["spec"]["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in {port["name"] for port in pods["spec"]["containers"][0]["ports"]}
        assert monitor["metadata"]["labels"]["release"] == "monitoring"
    connectors = made["PodMonitor", "culvert-connector"]["spec"]
    assert connectors["selector"]["matchLabels"].items() <= labels("main").items()
    assert connectors["namespaceSelector"] == {"matchNames": ["a", "b"]}
    everywhere = objects(render(*wanted, "operator.tunnelNamespaces={*}"))
    assert everywhere["PodMonitor", "culvert-connector"]["spec"]["namespaceSelector"] == {"any": True}
    assert ("PodMonitor", "culvert-relay") not in everywhere


def test_alerts_are_ones_that_prometheus_reads_and_ask_metrics_that_there_are(
    render: Render, program: Callable[[str], str]
) -> None:
    file = CHART / "alerts.yaml"
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rendered = objects(render("metrics.prometheusRule.enabled=true"))["PrometheusRule", "culvert"]
    assert rendered["spec"] == yaml.safe_load(file.read_text())
    known = set(re.findall(r"^\| `(culvert_[a-z_]+)`", (REPOSITORY / "docs" / "metrics.md").read_text(), re.MULTILINE))
    for rule in rendered["spec"]["groups"][0]["rules"]:
        asked = set(re.findall(r"culvert_[a-z_]+", rule["expr"]))
        assert asked
        assert asked <= known, rule["alert"]
        assert {"summary", "description"} == rule["annotations"].keys()


@pytest.mark.parametrize(
    ("leaders", "told"),
    [((0, 1), False), ((0, 0), True), ((), True)],
    ids=["one leads", "none leads", "none runs"],
)
def test_operators_without_a_leader_and_no_operators_at_all_are_told(
    program: Callable[[str], str], tmp_path: Path, leaders: tuple[int, ...], told: bool
) -> None:
    (rule,) = [
        rule
        for rule in yaml.safe_load((CHART / "alerts.yaml").read_text())["groups"][0]["rules"]
        if rule["alert"] == "CulvertOperatorLeaderless"
    ]
    fired = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
    case = {
        "interval": "1m",
        "input_series": [
            {"series": f'culvert_operator_leader{{instance="{number}"}}', "values": f"{value}+0x10"}
            for number, value in enumerate(leaders)
        ],
        "alert_rule_test": [{"alertname": rule["alert"], "eval_time": "6m", "exp_alerts": [fired] if told else []}],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(CHART / "alerts.yaml")], "tests": [case]}))
    command = [program("promtool"), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_granted_tcp_ports_are_the_issuers_and_the_services(render: Render, tmp_path: Path) -> None:
    made = objects(render(*RELAY, "relay.tcpPorts={20022,20023}"))
    config = parse_config(made["ConfigMap", "culvert-relay"]["data"]["relay.yml"].encode(), folder=tmp_path)
    assert config.issuers[0].tcp_ports == ((20022, 20022), (20023, 20023))
    assert config.listen.tcp == ("0.0.0.0",)
    ports = {port["name"]: port["port"] for port in made["Service", "culvert-relay"]["spec"]["ports"]}
    assert ports == {"http": 80, "https": 443, "tcp-20022": 20022, "tcp-20023": 20023}


def test_the_operators_arguments_are_ones_that_the_operator_accepts(render: Render) -> None:
    values = (
        "operator.tunnelNamespaces={a,b}",
        "operator.watchNamespaces={c}",
        "operator.allowedHostnames={*.example.com}",
    )
    rendered = objects(render(*RELAY, *values, "operator.defaultTunnel=a/main", "issuer.existingSecret=mine"))
    arguments = rendered["Deployment", "culvert-operator"]["spec"]["template"]["spec"]["containers"][0]["args"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert arguments[:2] == ["operator", "run"]
    settings = from_args(parser.parse_args(arguments[2:]), {"POD_NAMESPACE": "culvert-system"})
    assert settings.options.tunnel_namespaces == ("a", "b")
    assert settings.options.watch_namespaces == ("c",)
    assert settings.options.allowed_hostnames == ("*.example.com",)
    assert str(settings.options.default_tunnel) == "a/main"
    assert settings.issuer_secret == "mine"
    assert settings.relay_services == ("culvert-relay-tunnel",)
    assert settings.election == Terms(lease=15, renew=10, retry=2)


def test_a_cluster_with_a_domain_of_its_own_has_no_name_below_the_usual_one(render: Render, install: Render) -> None:
    wanted = (*RELAY, "operator.clusterDomain=corp.example")
    done = render(*wanted, "crds.install=false")
    assert "cluster.local" not in done.stdout
    rendered = objects(done)
    config = yaml.safe_load(rendered["ConfigMap", "culvert-relay"]["data"]["relay.yml"])
    assert "culvert-relay-tunnel.culvert-system.svc.corp.example" in config["serverNames"]
    arguments = rendered["Deployment", "culvert-operator"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--cluster-domain=corp.example" in arguments
    assert '["culvert-relay-tunnel.culvert-system.svc.corp.example:7443"]' in install(*wanted).stdout


def test_what_lets_go_of_objects_on_uninstall_is_told_which_are_the_operators(render: Render) -> None:
    values = ("operator.tunnelNamespaces={a,b}", "operator.watchNamespaces={c}", "operator.defaultTunnel=a/main")
    for given in ((), values):
        rendered = objects(render(*given))
        (hook,) = rendered["Job", "culvert-uninstall"]["spec"]["template"]["spec"]["containers"]
        operator = rendered["Deployment", "culvert-operator"]["spec"]["template"]["spec"]["containers"][0]
        assert hook["args"][:3] == ["operator", "retire", "--helm-release=culvert"]
        parser, whole = argparse.ArgumentParser(), argparse.ArgumentParser()
        add_realm(parser)
        add_arguments(whole)
        environment = {"POD_NAMESPACE": "culvert-system"}
        released = realm(parser.parse_args(hook["args"][3:]), environment)
        served = from_args(whole.parse_args(operator["args"][2:]), environment).options
        assert replace(released, image=served.image) == served


def test_one_operator_without_election_goes_before_the_next_one_comes(render: Render) -> None:
    rendered = objects(render("operator.replicas=1", "operator.leaderElection.enabled=false"))
    operator = rendered["Deployment", "culvert-operator"]["spec"]
    assert (operator["replicas"], operator["strategy"]) == (1, {"type": "Recreate"})
    assert not [a for a in operator["template"]["spec"]["containers"][0]["args"] if "leader" in a]
    assert ("PodDisruptionBudget", "culvert-operator") not in rendered


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_every_pod_meets_pod_security_restricted_and_writes_nothing(render: Render, kind: str) -> None:
    pods = [o["spec"]["template"]["spec"] for (k, _), o in objects(render(*RELAY)).items() if k == kind]
    assert pods
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"]["cpu"]


def test_watched_namespaces_are_all_that_the_operator_may_read(render: Render) -> None:
    settings = ("operator.watchNamespaces={a,b}", "operator.tunnelNamespaces={b,c}")
    documents = [d for d in yaml.safe_load_all(render(*settings).stdout) if d]
    roles = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("Role", "culvert-operator-watched")]
    bound = [d for d in documents if (d["kind"], d["metadata"]["name"]) == ("RoleBinding", "culvert-operator-watched")]
    assert [d["metadata"]["namespace"] for d in roles] == [d["metadata"]["namespace"] for d in bound] == ["a", "b", "c"]
    assert any("tunnelbindings" in rule["resources"] for rule in roles[0]["rules"])
    for restricted, there in ((settings, False), ((), True)):
        rules = objects(render(*restricted))["ClusterRole", "culvert-operator"]["rules"]
        assert any({"services", "tunnelbindings"} & set(rule["resources"]) for rule in rules) is there


def test_tunnel_namespaces_get_a_role_each_and_star_none(render: Render) -> None:
    def namespaces(*settings: str) -> list[str]:
        documents = [d for d in yaml.safe_load_all(render(*settings).stdout) if d]
        wanted = ("Role", "culvert-operator-tunnels")
        return [d["metadata"]["namespace"] for d in documents if (d["kind"], d["metadata"]["name"]) == wanted]

    assert namespaces() == ["culvert-system"]
    assert namespaces("operator.tunnelNamespaces={a,b}") == ["a", "b"]
    assert namespaces("operator.tunnelNamespaces={*}") == []
    rules = objects(render("operator.tunnelNamespaces={*}"))["ClusterRole", "culvert-operator"]["rules"]
    assert any("deployments" in r["resources"] for r in rules)
    rules = objects(render())["ClusterRole", "culvert-operator"]["rules"]
    assert not any(r["resources"] in (["secrets"], ["deployments"]) for r in rules)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("operator.watchNamespaces={a}", "operator.tunnelNamespaces={*}"), "name the namespaces of Tunnels"),
        (("relay.enabled=true",), "relay.hostnames is empty"),
        ((*RELAY, "relay.tcpPorts={8443}"), "tcpPorts"),
        ((*RELAY, "relay.tcpPorts={22}"), "tcpPorts"),
        (("relay.replica=2",), "replica"),
        ((*RELAY, "relay.service.type=Ingress"), "service/type"),
        (("operator.allowedHostnames={Example.com}",), "allowedHostnames"),
        ((*RELAY, "relay.config.listen.http={:80}"), "listen"),
        ((*RELAY, "relay.config.accessLog.output=/var/log/a"), "output"),
        (("metrics.podMonitors.interval=often",), "interval"),
        (("image.pullPolicy=Sometimes",), "pullPolicy"),
        (("operator.extraEnv[0].name=POD_NAMESPACE", "operator.extraEnv[0].value=else"), "extraEnv"),
        (("operator.clusterDomain=Corp_Example",), "clusterDomain"),
        ((*RELAY, "relay.imageTag=a tag"), "imageTag"),
        (("operator.leaderElection.enabled=false",), "operator.leaderElection.enabled"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(render: Render, settings: tuple[str, ...], problem: str) -> None:
    done = render(*settings)
    assert done.returncode != 0
    assert problem in done.stderr.replace(".", "/") or problem in done.stderr
