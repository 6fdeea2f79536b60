"""Bringing up the whole node: a control plane, then container runtime, kubelet, Services, DNS.

Responsible for the order of these steps, and for there being one node on a machine. Must not hold command lines or
file formats. Invariant: the record says what the host was like before anything on the host is changed.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from onenode import (
    cgroups,
    clusters,
    control_plane,
    debian,
    identities,
    images,
    leftovers,
    locking,
    network,
    node,
    ports,
    processes,
    record,
)
from onenode.api_client import ApiClient
from onenode.building import Programs
from onenode.clusters import Status
from onenode.control_plane import ControlPlane
from onenode.layout import MANIFESTS, StateLayout
from onenode.progress import Progress
from onenode.record import Record
from onenode.refusal import Refusal

# Which state folder the machine's one node has: networks and cgroups are the machine's, not the folder's.
_MACHINE_LOCK: Final = Path("/run/culvert-node.lock")
_MACHINE_STATE: Final = Path("/run/culvert-node.state")
_UNIX_PATH_LIMIT: Final = 80  # of 108 bytes: containerd appends to its socket's path
# Process names that mean: somebody else's Kubernetes runs here.
_FOREIGN: Final = ("kubelet", "k3s", "k3s-server", "k0s", "rke2", "microk8s")


@contextmanager
def machine_lock() -> Iterator[None]:
    """Held while the machine's node comes up or goes down."""
    with locking.hold(_MACHINE_LOCK, wait=True, remove=True):
        yield


def up(root: Path, programs: Programs, progress: Progress) -> Status:
    """The machine's node, Ready, with DNS. Does nothing when it is. Needs root."""
    layout = StateLayout(root)
    with machine_lock():
        now = clusters.status(layout)
        if now.ready and now.kind == "node":
            progress.say(f"already running: {now.server}")
            return now
        if now.ready:
            raise Refusal(f"{root} holds a control plane without node; take it down, or choose another folder.")
        _make_room(layout, progress)
        try:
            return _start(layout, programs, progress)
        except BaseException:
            _down(layout)
            raise


def is_node(root: Path) -> bool:
    """Whether `root` is, or was, the folder of the machine's node (even when its record is lost)."""
    known = clusters.read_record(StateLayout(root))
    return known.kind == "node" if known is not None else _other_state() == root


def down(root: Path) -> None:
    """Takes the node away, whatever its state."""
    with machine_lock():
        _down(StateLayout(root))


def _down(layout: StateLayout) -> None:
    clusters.take_down(layout)
    if _other_state() == layout.root:
        _MACHINE_STATE.unlink(missing_ok=True)


def check_rights(root: Path) -> None:
    """Refuses early what could only fail late."""
    if os.geteuid() != 0:
        raise Refusal(
            "A node needs root (it makes containers and networks). Use sudo, or `up --control-plane-only`, "
            "which gives a real API server without one."
        )
    if len(str(root)) > _UNIX_PATH_LIMIT:
        raise Refusal(f"{root} is too long for Unix sockets; choose a folder of at most {_UNIX_PATH_LIMIT} bytes.")


def _other_state() -> Path | None:
    try:
        return Path(_MACHINE_STATE.read_text().strip())
    except FileNotFoundError:
        return None


def _make_room(layout: StateLayout, progress: Progress) -> None:
    """Takes a dead predecessor away, wherever it was; refuses beside a live one, or a foreign Kubernetes."""
    other = _other_state()
    if other is not None and other != layout.root:
        if processes.marked(other):
            raise Refusal(
                f"This machine already runs a node, in {other}. Take it down first: "
                f"hack/cluster/cluster down --state {other}"
            )
        clusters.take_down(StateLayout(other))
    if layout.root.exists():
        clusters.clear_folder(layout, progress)
    foreign = sorted(
        {comm for entry in Path("/proc").iterdir() if entry.name.isdigit() and (comm := _comm(entry)) in _FOREIGN}
    )
    if foreign:
        raise Refusal(
            f"Another Kubernetes runs on this machine ({', '.join(foreign)}). Use it with KUBECONFIG, or stop it."
        )
    network.check_free()


def _comm(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


def _start(layout: StateLayout, programs: Programs, progress: Progress) -> Status:
    clusters.prepare_folder(layout)
    # The address exists only after `prepare`, and ports can only be chosen on it then: the record comes first.
    before = Record("node", "", sysctls=network.read_sysctls(), made=leftovers.absent())
    record.write(before, layout.record)
    _MACHINE_STATE.write_text(f"{layout.root}\n")
    network.remove({})  # chains and bridges of a node whose record was lost
    network.prepare()
    cgroups.create(node.CGROUP)
    plane = clusters.plan(layout, address=node.ADDRESS, has_node=True)
    known = replace(before, server=plane.server)
    record.write(known, layout.record)
    joining = (identities.SCHEDULER, identities.PROXY, identities.kubelet(node.NAME, node.ADDRESS))
    clusters.issue_identities(plane, joining, programs)
    servers = clusters.start_servers(plane, programs)
    runtime = _start_runtime(plane, programs)
    progress.say("etcd, API server and containerd started")
    clusters.await_servers(plane, servers)
    progress.say(f"Kubernetes API at {plane.server}")
    everyone = (*servers, runtime, *_start_node(plane, programs))
    _install_dns(plane, programs)
    client = ApiClient(plane.server, layout)
    for what, condition in (
        ("the node to be Ready", lambda: client.node_is_ready(node.NAME)),
        ("the cluster's DNS", client.dns_is_ready),
    ):
        processes.wait_for(condition, what=what, programs=everyone, state=layout.root, timeout=120)
    record.write(replace(known, complete=True), layout.record)
    progress.say("node Ready, cluster DNS answers")
    return clusters.status(layout)


def _start_runtime(plane: ControlPlane, programs: Programs) -> processes.Program:
    """containerd, with the images that every node needs."""
    layout = plane.layout
    mountinfo = Path("/proc/self/mountinfo").read_text()
    # overlayfs cannot lie on itself: in a container, layers are copied instead.
    snapshotter = "native" if leftovers.file_system_of(layout.root, mountinfo) == "overlay" else "overlayfs"
    layout.cni_configuration.mkdir()
    (layout.cni_configuration / "10-culvert.conflist").write_text(node.cni_configuration(plane))
    (layout.root / "containerd.toml").write_text(
        node.containerd_configuration(plane, cni_programs=programs.folder("bridge"), snapshotter=snapshotter)
    )
    program = node.containerd(plane, programs=programs.folder("containerd"), search_path=debian.SEARCH_PATH)
    processes.start(program, layout.root)
    processes.wait_for(
        lambda: _containerd_answers(layout, programs),
        what="containerd",
        programs=(program,),
        state=layout.root,
        timeout=60,
    )
    for name, entry in ((node.PAUSE_IMAGE, "pause"), (node.DNS_IMAGE, "coredns")):
        files = {f"/{entry}": Path(programs[entry])}
        images.import_packed(name, files, [f"/{entry}"], layout, ctr=programs["ctr"])
    return program


def _containerd_answers(layout: StateLayout, programs: Programs) -> bool:
    command = [programs["ctr"], "--address", str(layout.containerd_socket), "--connect-timeout", "1s", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _start_node(plane: ControlPlane, programs: Programs) -> tuple[processes.Program, ...]:
    layout, source = plane.layout, ports.random_source()
    (kubelet_port,) = ports.choose(1, source=source, address=node.ADDRESS)
    (layout.root / "kubelet.json").write_text(
        node.kubelet_configuration(plane, port=kubelet_port, resolver=str(_resolver()))
    )
    kubenode, path = programs["kubenode"], debian.SEARCH_PATH
    started = (
        node.scheduler(plane, kubenode=kubenode),
        node.kubelet(plane, kubenode=kubenode, search_path=path),
        node.proxy(plane, kubenode=kubenode, ports=ports.choose(2, source=source), search_path=path),
    )
    for program in started:
        processes.start(program, layout.root)
    return started


def _resolver() -> Path:
    """The file with the real nameservers; in the usual one, systemd-resolved names only itself, on the loopback."""
    behind = Path("/run/systemd/resolve/resolv.conf")
    return behind if behind.exists() else Path("/etc/resolv.conf")


def _install_dns(plane: ControlPlane, programs: Programs) -> None:
    try:
        upstream = node.nameservers(_resolver().read_text())
    except OSError:
        upstream = ()
    manifest = (MANIFESTS / "coredns.yaml").read_text()
    manifest = manifest.replace("Corefile: COREFILE", f"Corefile: {_quoted(node.corefile(upstream))}")
    manifest = manifest.replace("clusterIP: DNS_SERVICE", f"clusterIP: {control_plane.DNS_SERVICE}")
    done = subprocess.run(
        [programs["kubelite"], "kubectl", f"--kubeconfig={plane.layout.kubeconfig}", "apply", "-f", "-"],
        input=manifest,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refusal(f"The cluster's DNS server could not be installed: {done.stderr.strip()}")


def _quoted(text: str) -> str:
    """A YAML double-quoted scalar; JSON's strings are a subset of them."""
    return json.dumps(text)
