"""Command lines and configuration of the cluster's programs, and the record of a cluster."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest
import yaml
from onenode import control_plane, identities, node, ports, record
from onenode.control_plane import ControlPlane
from onenode.layout import MANIFESTS, StateLayout, cache_root, default_state
from onenode.refusal import Refusal


def plane(*, has_node: bool) -> ControlPlane:
    return ControlPlane(StateLayout(Path("/state")), node.ADDRESS if has_node else "127.0.0.1", 1, 2, 3, has_node)


def flags(program: control_plane.Program) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in program.arguments)}


@pytest.mark.parametrize("has_node", [True, False])
def test_etcd_is_on_the_loopback_and_only_for_holders_of_certificates(has_node: bool) -> None:
    given = flags(control_plane.etcd(plane(has_node=has_node), kubelite="k"))
    for name in ("--listen-client-urls", "--listen-peer-urls"):
        assert given[name].startswith("https://127.0.0.1:")
    assert given["--client-cert-auth"] == given["--peer-client-cert-auth"] == "true"


def test_the_api_server_writes_the_audit_log_that_status_names() -> None:
    given = flags(control_plane.api_server(plane(has_node=False), kubelite="k"))
    assert given["--audit-log-path"] == str(StateLayout(Path("/state")).audit_log)
    assert Path(given["--audit-policy-file"]).is_file()


@pytest.mark.parametrize("has_node", [True, False])
def test_the_api_server_never_listens_on_every_address(has_node: bool) -> None:
    given = flags(control_plane.api_server(plane(has_node=has_node), kubelite="k"))
    assert given["--bind-address"] in ("127.0.0.1", node.ADDRESS)


def test_the_audit_policy_sees_every_write_and_no_body() -> None:
    policy = yaml.safe_load((MANIFESTS / "audit-policy.yaml").read_text())
    assert policy["omitStages"] == ["RequestReceived"]
    unseen = [rule for rule in policy["rules"] if rule["level"] == "None"]
    assert all(set(rule) == {"level", "nonResourceURLs"} for rule in unseen)  # no object escapes
    assert {rule["level"] for rule in policy["rules"]} == {"None", "Metadata"}
    assert policy["rules"][-1] == {"level": "Metadata"}
    writes = {"create", "update", "patch", "delete", "deletecollection"}
    assert any(set(rule.get("verbs", ())) == writes for rule in policy["rules"])


def test_programs_are_told_apart_by_their_user() -> None:
    everyone = (
        *(identities.ADMIN, identities.CONTROLLER_MANAGER, identities.SCHEDULER, identities.PROXY),
        *(identities.kubelet("n", "10.0.0.1"), identities.api_server(()), identities.etcd()),
    )
    assert len({one.user for one in everyone}) == len({one.name for one in everyone}) == len(everyone)


def test_a_kubelet_has_the_rights_of_its_node_only() -> None:
    kubelet = identities.kubelet("n", "10.0.0.1")
    assert (kubelet.user, tuple(kubelet.groups)) == ("system:node:n", ("system:nodes",))


def test_the_kubelets_configuration_keeps_to_the_state_folder() -> None:
    text = node.kubelet_configuration(plane(has_node=True), port=1, resolver="/etc/resolv.conf")
    paths = [value for value in json.loads(text).values() if isinstance(value, str) and value.startswith("/")]
    outside = {path for path in paths if not path.startswith("/state/")}
    assert outside == {"/etc/resolv.conf", f"/{node.CGROUP}"}


def test_pods_are_not_sent_to_nameservers_that_only_the_host_reaches() -> None:
    resolver = "# x\nnameserver 127.0.0.53\nnameserver ::1\nsearch a.b\nnameserver 192.0.2.1\nnameserver nonsense\n"
    assert node.nameservers(resolver) == ("192.0.2.1",)
    assert "forward . 192.0.2.1\n" in node.corefile(("192.0.2.1",))
    assert "forward" not in node.corefile(())


def test_chosen_ports_are_free_different_and_not_those_of_outgoing_connections() -> None:
    chosen = ports.choose(20, source=random.Random(7))
    assert len(set(chosen)) == 20
    assert all(ports.FIRST <= port <= ports.LAST < 30_000 for port in chosen)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert not ports.is_free(taken.getsockname()[1], "127.0.0.1")


def test_a_port_in_use_is_passed_over() -> None:
    first = ports.choose(1, source=random.Random(11))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first[0]))
        assert ports.choose(1, source=random.Random(11)) != first


def test_a_record_survives_the_way_to_disk_and_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state" / "cluster.json"
    assert record.read(path) is None
    written = record.Record("node", "https://x", sysctls={"vm/overcommit_memory": "0"}, made=("/run/containerd",))
    record.write(written, path)
    assert record.read(path) == written
    path.write_text(json.dumps({"schema": 2}))
    with pytest.raises(Refusal, match="another version"):
        record.read(path)
    path.write_text("{")
    with pytest.raises(Refusal, match="damaged"):
        record.read(path)


def test_folders_follow_the_environment() -> None:
    assert cache_root({"XDG_CACHE_HOME": "/c", "HOME": "/h"}) == Path("/c/culvert")
    assert cache_root({"HOME": "/h"}) == Path("/h/.cache/culvert")
    assert default_state(with_node=True, environ={"CULVERT_CLUSTER_DIR": "/s"}) == Path("/s")
    assert default_state(with_node=False, environ={"HOME": "/h"}) == Path("/h/.cache/culvert/control-plane")
