"""Where things lie: the sources, the cache of built programs, a cluster's state folder.

Responsible for paths only. Must not know what is in the files. Invariant: nothing outside `StateLayout.root` and the
cache is chosen here; what the node cannot help putting elsewhere is listed in `leftovers`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parent.parent
MODULES: Final = SOURCES / "modules"
MANIFESTS: Final = SOURCES / "manifests"


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_CACHE_HOME/culvert`, by default `~/.cache/culvert`."""
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    return Path(base) / "culvert"


def default_state(*, with_node: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """The state folder used when none is named; a node and a bare control plane have different ones."""
    if chosen := environ.get("CULVERT_CLUSTER_DIR"):
        return Path(chosen).absolute() if with_node else Path(chosen).absolute() / "control-plane-only"
    return cache_root(environ) / ("cluster" if with_node else "control-plane")


@dataclass(frozen=True, slots=True)
class StateLayout:
    """The files of one cluster, all below `root`."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """For people and tests: the administrator's."""
        return self.root / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.root / "audit.log"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def cni_configuration(self) -> Path:
        return self.root / "cni"

    @property
    def kubelet(self) -> Path:
        return self.root / "kubelet"

    @property
    def pod_logs(self) -> Path:
        return self.root / "pods"

    def log(self, program: str) -> Path:
        """What `program` wrote to its standard output and error."""
        return self.root / "logs" / f"{program}.log"

    def component_kubeconfig(self, component: str) -> Path:
        return self.root / f"{component}.kubeconfig"
