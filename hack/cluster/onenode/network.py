"""The node's network on its host: a bridge that holds its address, a few iptables rules, and taking all of it away.

Responsible for: `overlapping` and `removal` (pure), `prepare` and `remove`. Must not know of processes. Invariant:
`remove` deletes only chains that Kubernetes, its network plugins or this module name, and the rules that jump there.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from onenode import debian, node
from onenode.control_plane import SERVICE_NETWORK
from onenode.refusal import Refusal

# An empty bridge holds the node's address: some kernels have no dummy devices.
NODE_BRIDGE: Final = "k8s0"
BRIDGES: Final = (NODE_BRIDGE, node.POD_BRIDGE)
_OWN_CHAIN: Final = "CULVERT-NODE"
_CHAINS: Final = re.compile(r"^(KUBE-|CNI-|CULVERT-NODE)")
_NETWORKS: Final = (f"{node.ADDRESS}/32", node.POD_NETWORK, SERVICE_NETWORK)

# A host's first packet to a NodePort that has no Pod is tracked, untranslated, before kube-proxy rejects it: the next
# connection from the same port of the client within this time (120 s by default) never meets kube-proxy's rules.
_REJECTED_SYN_KEPT: Final = "net/netfilter/nf_conntrack_tcp_timeout_syn_sent"
# What kubelet, kube-proxy, the bridge plugin and `prepare` set; put back on the way down.
SYSCTLS: Final = (
    _REJECTED_SYN_KEPT,
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
_WANTED_SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
    _REJECTED_SYN_KEPT: "1",
}
_PROC_SYS: Final = Path("/proc/sys")


def overlapping(destinations: Iterable[str], wanted: Sequence[str] = _NETWORKS) -> tuple[str, ...]:
    """Those of the host's routes ("10.0.0.0/8", "10.1.2.3", "default") that cover part of the networks `wanted`."""
    nets = [ipaddress.ip_network(network) for network in wanted]
    clashes = []
    for destination in destinations:
        if destination == "default":
            continue
        network = ipaddress.ip_network(destination, strict=False)
        if any(network.version == net.version and network.overlaps(net) for net in nets):
            clashes.append(destination)
    return tuple(clashes)


def removal(saved: str) -> str:
    """From `iptables-save`'s output: the input of `iptables-restore --noflush` that takes our chains away.

    Rules first lose their jumps to the chains, then the chains their rules, then they go: no other order is accepted.
    """
    out: list[str] = []
    for table, lines in _tables(saved).items():
        chains = [line[1:].split()[0] for line in lines if line.startswith(":")]
        ours = [chain for chain in chains if _CHAINS.match(chain)]
        if not ours:
            continue
        rules = [line for line in lines if line.startswith("-A ")]
        jumps = [rule for rule in rules if not _CHAINS.match(rule.split()[1]) and _target(rule) in ours]
        out.append(f"*{table}")
        out += [f"-D {rule.removeprefix('-A ')}" for rule in jumps]
        out += [f"-F {chain}" for chain in ours]
        out += [f"-X {chain}" for chain in ours]
        out.append("COMMIT")
    return "".join(f"{line}\n" for line in out)


def _tables(saved: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    current: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:], [])
        elif line and not line.startswith("#"):
            current.append(line)
    return tables


def _target(rule: str) -> str:
    found = re.search(r"(?:-j|-g) (\S+)", rule)
    return found[1] if found else ""


def own_rules() -> str:
    """Input of `iptables-restore --noflush`: Pods may be forwarded to, and speak outward as the host."""
    return (
        f"*filter\n:{_OWN_CHAIN} - [0:0]\n"
        f"-A {_OWN_CHAIN} -i {node.POD_BRIDGE} -j ACCEPT\n"
        f"-A {_OWN_CHAIN} -o {node.POD_BRIDGE} -j ACCEPT\n"
        f"-I FORWARD -j {_OWN_CHAIN}\nCOMMIT\n"
        f"*nat\n:{_OWN_CHAIN} - [0:0]\n"
        f"-A {_OWN_CHAIN} -s {node.POD_NETWORK} ! -d {node.POD_NETWORK} ! -o {node.POD_BRIDGE} -j MASQUERADE\n"
        f"-A POSTROUTING -j {_OWN_CHAIN}\nCOMMIT\n"
    )


def check_free() -> None:
    """Refuses when the host already uses the node's addresses for something else."""
    answer = _run("ip", "-json", "route", "show", "table", "all")
    routes = json.loads(answer or "[]")
    clashes = overlapping(
        str(route["dst"]) for route in routes if route.get("dev") not in (*BRIDGES, "lo") and "dst" in route
    )
    if clashes:
        raise Refusal(
            f"This machine already routes {', '.join(clashes)}, and the node uses {', '.join(_NETWORKS)}. "
            "Leave that network (a VPN?) while the cluster runs, or use a cluster of your own with KUBECONFIG."
        )


def prepare() -> None:
    """The node's bridge and address, forwarding, and its own rules."""
    _run("ip", "link", "add", NODE_BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{node.ADDRESS}/32", "dev", NODE_BRIDGE)
    _run("ip", "link", "set", NODE_BRIDGE, "up")
    for name, value in _WANTED_SYSCTLS.items():
        write_sysctl(name, value)
    _run("iptables-restore", "--noflush", "--wait", stdin=own_rules())


def read_sysctls() -> dict[str, str]:
    """The present values; those that the kernel does not have are left out."""
    if not (_PROC_SYS / _REJECTED_SYN_KEPT).exists() and debian.find("modprobe") is not None:
        _run("modprobe", "nf_conntrack", tolerate=True)  # iptables would load it, too late to know what to put back
    values = {}
    for name in SYSCTLS:
        try:
            values[name] = (_PROC_SYS / name).read_text().strip()
        except OSError:
            continue
    return values


def write_sysctl(name: str, value: str) -> None:
    """Sets one, where the kernel has it. Best effort: small machines have some of them read-only."""
    try:
        (_PROC_SYS / name).write_text(value)
    except OSError:
        return


def remove(sysctls: Mapping[str, str]) -> None:
    """Takes away bridges, chains and rules, and puts back `sysctls`. Whatever is not there is passed over."""
    present = {str(link["ifname"]) for link in json.loads(_run("ip", "-json", "link", "show") or "[]")}
    for bridge in BRIDGES:
        if bridge in present:
            _run("ip", "link", "delete", bridge)
    for family in ("iptables", "ip6tables"):
        if debian.find(f"{family}-save") is None:
            continue
        saved = _run(f"{family}-save", tolerate=True)
        commands = removal(saved)
        if commands:
            _run(f"{family}-restore", "--noflush", "--wait", stdin=commands)
    for name, value in sysctls.items():
        write_sysctl(name, value)


def _run(program: str, *arguments: str, stdin: str = "", tolerate: bool = False) -> str:
    found = debian.find(program)
    if found is None:
        raise Refusal(f"{program} is missing; `hack/cluster/cluster up` says which package has it.")
    done = subprocess.run([found, *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not tolerate:
        raise Refusal(f"`{program} {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout
