"""What a node runs: programs, arguments and configuration files.

Responsible for turning a `ControlPlane` and paths into texts and command lines: pure. Must not start or write
anything. Several settings keep the node off its host: cgroups below one of its own, no eviction for the host's disks,
every path inside the state folder.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from typing import Final

from onenode.control_plane import DNS_SERVICE, ControlPlane
from onenode.processes import Program

NAME: Final = "culvert"
ADDRESS: Final = "10.240.0.1"  # the node's, on a bridge of its own
POD_NETWORK: Final = "10.244.0.0/24"
POD_BRIDGE: Final = "cni-k8s"
CNI_NETWORK: Final = "culvert-pods"
CGROUP: Final = "culvert-node"
PAUSE_IMAGE: Final = "localhost/pause:1"
DNS_IMAGE: Final = "localhost/coredns:1"


def cni_configuration(plane: ControlPlane) -> str:
    """CNI network configuration list: a bridge, and hostPorts. Traffic outward is the node's business (network.py)."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": CNI_NETWORK,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": POD_BRIDGE,
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,  # a Pod may reach itself through its own Service
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(plane.layout.root / "ipam"),
                        "ranges": [[{"subnet": POD_NETWORK}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        indent=2,
    )


def containerd_configuration(plane: ControlPlane, *, cni_programs: str, snapshotter: str) -> str:
    """containerd's config.toml."""
    root = plane.layout.root
    return f"""\
version = 3
root = "{root}/containerd"
state = "{root}/containerd-run"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]  # both write outside

[grpc]
  address = "{plane.layout.containerd_socket}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE (small virtual machines) runc cannot lower a score and dies with "can't get final child's
  # PID from pipe: EOF".
  restrict_oom_score_adj = true
  # Not in /run/netns, so that nothing stays there.
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{cni_programs}"]
    conf_dir = "{plane.layout.cni_configuration}"
"""


def kubelet_configuration(plane: ControlPlane, *, port: int, resolver: str) -> str:
    """KubeletConfiguration, as JSON (which is YAML)."""
    layout = plane.layout
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": ADDRESS,
            "port": port,
            "healthzPort": 0,
            "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
            "tlsCertFile": str(layout.pki / "kubelet.crt"),
            "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [DNS_SERVICE],
            "clusterDomain": "cluster.local",
            "resolvConf": resolver,
            "podLogsDir": str(layout.pod_logs),
            "volumePluginDir": str(layout.root / "volume-plugins"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "evictionHard": {},
            "localStorageCapacityIsolation": False,
            "imageGCHighThresholdPercent": 100,  # images were loaded, not pulled: nobody could bring them back
            "podPidsLimit": -1,
            # Mounted ConfigMaps follow within seconds (default: up to a minute).
            "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "5s",
        },
        indent=2,
    )


def containerd(plane: ControlPlane, *, programs: str, search_path: str) -> Program:
    """containerd. It finds its shim and runc on PATH."""
    return Program(
        "containerd",
        [f"{programs}/containerd", "--config", str(plane.layout.root / "containerd.toml")],
        plane.layout.log("containerd"),
        {"PATH": f"{programs}:{search_path}"},
    )


def kubelet(plane: ControlPlane, *, kubenode: str, search_path: str) -> Program:
    layout = plane.layout
    arguments = [
        kubenode,
        "kubelet",
        f"--config={layout.root / 'kubelet.json'}",
        f"--kubeconfig={layout.component_kubeconfig('kubelet')}",
        f"--hostname-override={NAME}",
        f"--node-ip={ADDRESS}",
        f"--root-dir={layout.kubelet}",
        f"--cert-dir={layout.kubelet / 'pki'}",
    ]
    return Program("kubelet", arguments, layout.log("kubelet"), {"PATH": search_path})


def scheduler(plane: ControlPlane, *, kubenode: str) -> Program:
    layout = plane.layout
    arguments = [
        kubenode,
        "kube-scheduler",
        f"--kubeconfig={layout.component_kubeconfig('scheduler')}",
        "--secure-port=0",
        "--leader-elect=false",
    ]
    return Program("kube-scheduler", arguments, layout.log("kube-scheduler"))


def proxy(plane: ControlPlane, *, kubenode: str, ports: Sequence[int], search_path: str) -> Program:
    """kube-proxy. `ports`: for its health and its metrics, on the loopback."""
    layout = plane.layout
    health, metrics = ports
    arguments = [
        kubenode,
        "kube-proxy",
        f"--kubeconfig={layout.component_kubeconfig('proxy')}",
        f"--hostname-override={NAME}",
        f"--cluster-cidr={POD_NETWORK}",
        "--proxy-mode=iptables",
        f"--healthz-bind-address=127.0.0.1:{health}",
        f"--metrics-bind-address=127.0.0.1:{metrics}",
        # 0: leave the host's connection tracking limits as they are (and often not writable).
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]
    return Program("kube-proxy", arguments, layout.log("kube-proxy"), {"PATH": search_path})


def nameservers(resolver: str) -> tuple[str, ...]:
    """The addresses in a resolv.conf that Pods can reach as well: those of the loopback mean the host's own."""
    found = []
    for line in resolver.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if not address.is_loopback:
                found.append(str(address))
    return tuple(found)


def corefile(upstream: Sequence[str]) -> str:
    """The cluster's DNS. Servers of other zones come from the optional ConfigMap `coredns-custom`, key NAME.server."""
    forward = f"    forward . {' '.join(upstream[:3])}\n" if upstream else ""
    return (
        ".:53 {\n    errors\n    health\n    ready\n"
        "    kubernetes cluster.local in-addr.arpa ip6.arpa {\n      ttl 5\n    }\n"
        f"{forward}"
        "    cache 5\n    loadbalance\n    reload 2s\n}\n"
        "import /etc/coredns/custom/*.server\n"
    )
