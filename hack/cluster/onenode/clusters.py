"""Bringing up a control plane, telling how a cluster is, and taking one down.

Responsible for the order in which the other modules are used. Must not hold command lines, file formats or cleaning
rules of its own. Invariant: `take_down` works from any state: half-made, killed, after a reboot, or never there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from onenode import cgroups, control_plane, identities, leftovers, locking, network, node, ports, processes, record
from onenode.api_client import ApiClient
from onenode.building import Programs
from onenode.control_plane import ControlPlane
from onenode.layout import StateLayout
from onenode.progress import Progress
from onenode.record import Kind, Record
from onenode.refusal import Refusal

PROGRAMS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "control-plane": ("etcd", "kube-apiserver", "kube-controller-manager"),
    "node": (
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
        *("containerd", "kubelet", "kube-proxy"),
    ),
}
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Status:
    """How a cluster is. `kind` is None when there is none. `ready` means: use it."""

    layout: StateLayout
    kind: Kind | None
    server: str
    programs: Mapping[str, bool]
    ready: bool

    def document(self) -> dict[str, object]:
        """For --json; an interface of hack/cluster."""
        return {
            "state": str(self.layout.root),
            "kind": self.kind,
            "ready": self.ready,
            "server": self.server,
            "kubeconfig": str(self.layout.kubeconfig),
            "auditLog": str(self.layout.audit_log),
            "logs": str(self.layout.root / "logs"),
            "nodeAddress": node.ADDRESS if self.kind == "node" else None,
            "programs": dict(self.programs),
        }


def status(layout: StateLayout) -> Status:
    """Looks at processes, then asks the API server."""
    known = read_record(layout)
    if known is None:
        return Status(layout, None, "", {}, ready=False)
    alive = {one.program for one in processes.marked(layout.root)}
    running = {name: name in alive for name in PROGRAMS[known.kind]}
    client = ApiClient(known.server, layout)
    ready = known.complete and all(running.values()) and client.is_ready()
    if ready and known.kind == "node":
        ready = client.node_is_ready(node.NAME) and client.dns_is_ready()
    return Status(layout, known.kind, known.server, running, ready=ready)


def read_record(layout: StateLayout) -> Record | None:
    """The record; one that cannot be read counts as none, so that a damaged cluster can be taken down."""
    try:
        return record.read(layout.record)
    except Refusal:
        return None


def state_lock(root: Path) -> Path:
    """Beside the folder, which itself comes and goes."""
    return root.with_name(f"{root.name}.lock")


def up_control_plane(root: Path, programs: Programs, progress: Progress) -> Status:
    """A control plane without node: unprivileged, any number of them on one machine."""
    layout = StateLayout(root)
    with locking.hold(state_lock(root), wait=True, remove=True):
        now = status(layout)
        if now.kind == "node":
            raise Refusal(f"{root} holds a whole node. Use it, or choose another folder with --state.")
        if now.ready:
            progress.say(f"already running: {now.server}")
            return now
        if root.exists():
            clear_folder(layout, progress)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _start_control_plane(layout, programs, progress)
            except Refusal as refusal:
                take_down(layout)
                if "address already in use" not in str(refusal) or attempt == _ATTEMPTS:
                    raise
                progress.say("a port was taken in the last moment; trying others")
            except BaseException:
                take_down(layout)
                raise
    raise AssertionError("unreachable")


def down_control_plane(root: Path) -> None:
    """Takes away a control plane without node; quiet when there is none."""
    with locking.hold(state_lock(root), wait=True, remove=True):
        take_down(StateLayout(root))


def clear_folder(layout: StateLayout, progress: Progress) -> None:
    """Takes away what an earlier cluster left in the folder; refuses when it is somebody else's folder."""
    if layout.root.exists() and not any(layout.root.iterdir()):
        return
    if not layout.record.exists() and not processes.marked(layout.root):
        raise Refusal(f"{layout.root} is not empty and holds no cluster. Choose another folder with --state.")
    progress.say("a cluster that is not healthy was found here (killed, or before a reboot): starting anew")
    take_down(layout)


def plan(layout: StateLayout, *, address: str, has_node: bool) -> ControlPlane:
    """Chooses free ports."""
    source = ports.random_source()
    etcd_port, peer_port = ports.choose(2, source=source)
    (api_port,) = ports.choose(1, source=source, address=address)
    return ControlPlane(layout, address, api_port, etcd_port, peer_port, has_node)


def _start_control_plane(layout: StateLayout, programs: Programs, progress: Progress) -> Status:
    plane = plan(layout, address="127.0.0.1", has_node=False)
    prepare_folder(layout)
    known = Record("control-plane", plane.server)
    record.write(known, layout.record)
    issue_identities(plane, (), programs)
    started = start_servers(plane, programs)
    await_servers(plane, started)
    record.write(replace(known, complete=True), layout.record)
    progress.say(f"Kubernetes API at {plane.server}; no node, so Pods stay Pending")
    return status(layout)


def prepare_folder(layout: StateLayout) -> None:
    layout.root.mkdir(parents=True, exist_ok=True)
    layout.root.chmod(0o700)  # keys, and etcd's data


def issue_identities(plane: ControlPlane, more: tuple[identities.Identity, ...], programs: Programs) -> None:
    """Certificates for everyone, and kubeconfigs for those who are clients."""
    layout = plane.layout
    everyone = (
        identities.ADMIN,
        identities.CONTROLLER_MANAGER,
        identities.etcd(),
        identities.api_server(("127.0.0.1", plane.address, control_plane.FIRST_SERVICE)),
        *more,
    )
    identities.issue(everyone, layout, certificates=programs["certificates"])
    identities.write_kubeconfig(identities.ADMIN, layout, layout.kubeconfig, server=plane.server)
    for one in (identities.CONTROLLER_MANAGER, *more):
        identities.write_kubeconfig(one, layout, layout.component_kubeconfig(one.name), server=plane.server)


def start_servers(plane: ControlPlane, programs: Programs) -> tuple[processes.Program, ...]:
    """etcd and the API server, at once: the latter waits for the former."""
    kubelite = programs["kubelite"]
    started = (control_plane.etcd(plane, kubelite=kubelite), control_plane.api_server(plane, kubelite=kubelite))
    for program in started:
        processes.start(program, plane.layout.root)
    return (*started, control_plane.controller_manager(plane, kubelite=kubelite))


def await_servers(plane: ControlPlane, started: tuple[processes.Program, ...]) -> None:
    """Until the API server answers; then the controller manager, until it does its work."""
    client = ApiClient(plane.server, plane.layout)
    *servers, controllers = started
    root = plane.layout.root
    processes.wait_for(client.is_ready, what="the API server", programs=servers, state=root, timeout=120)
    processes.start(controllers, root)
    processes.wait_for(client.controllers_work, what="the controller manager", programs=started, state=root, timeout=60)


def take_down(layout: StateLayout) -> None:
    """Ends and removes whatever there is of the cluster. Quiet when there is nothing."""
    known = read_record(layout)
    processes.kill(layout.root, only=("kubelet",))  # else it would restart what dies next
    is_node = known is not None and known.kind == "node"
    if is_node:
        cgroups.remove(node.CGROUP)
    processes.kill(layout.root)
    if is_node and known is not None:
        leftovers.unmount(layout.root)
        network.remove(known.sysctls)
        leftovers.remove(layout.root, known.made)
    elif layout.root.exists() and (known is not None or layout.record.exists()):
        shutil.rmtree(layout.root, ignore_errors=True)
    if layout.record.exists():
        raise Refusal(f"{layout.root} could not be removed; are you {_owner(layout.root)}?")


def _owner(path: Path) -> str:
    return "root" if path.stat().st_uid == 0 else f"user {path.stat().st_uid}, not {os.geteuid()}"
