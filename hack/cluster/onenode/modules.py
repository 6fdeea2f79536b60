"""Which programs are built from which Go modules, and the key under which they are cached.

Responsible for: the table `GO_MODULES` and `cache_key`. Must not run anything. Invariant: everything that can change
a built program's bytes (go.mod, go.sum, the sources here, flags, platform) is in its key; so a folder of the cache
never has to be rebuilt, and changing one module rebuilds no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from onenode.refusal import Refusal

KUBERNETES: Final = "v1.37.2"

# helm and kubectl read the server's version; without these flags a built API server reports v0.0.0.
_KUBERNETES_VERSION_FLAGS: Final = " ".join(
    f"-X {variable}={value}"
    for variable, value in (
        ("k8s.io/component-base/version.gitVersion", KUBERNETES),
        ("k8s.io/component-base/version.gitMajor", KUBERNETES.removeprefix("v").split(".")[0]),
        ("k8s.io/component-base/version.gitMinor", KUBERNETES.split(".")[1]),
        ("k8s.io/client-go/pkg/version.gitVersion", KUBERNETES),
    )
)


@dataclass(frozen=True, slots=True)
class GoModule:
    """One folder of hack/cluster/modules: a go.mod, and programs (file name → Go package) built from it."""

    name: str
    programs: Mapping[str, str]
    tags: tuple[str, ...] = ()
    linker_flags: str = "-s -w"
    about: str = ""
    needed_for: frozenset[str] = field(default=frozenset())


_CNI: Final = "github.com/containernetworking/plugins/plugins"
_CONTAINERD: Final = "github.com/containerd/containerd/v2/cmd"

_TABLE: Final = (
    GoModule(
        "localtools",
        {"certificates": "./certificates", "pause": "./pause"},
        about="this project's own: certificates for the cluster, the Pods' pause process",
        needed_for=frozenset({"control-plane", "node"}),
    ),
    GoModule(
        "controlplane",
        {"kubelite": "."},
        linker_flags=f"-s -w {_KUBERNETES_VERSION_FLAGS}",
        about="etcd, kube-apiserver, kube-controller-manager and kubectl in one binary",
        needed_for=frozenset({"control-plane", "node"}),
    ),
    GoModule(
        "node",
        {"kubenode": "."},
        linker_flags=f"-s -w {_KUBERNETES_VERSION_FLAGS}",
        about="kubelet, kube-proxy and kube-scheduler in one binary",
        needed_for=frozenset({"node"}),
    ),
    GoModule(
        "containerd",
        {name: f"{_CONTAINERD}/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
        tags=("no_btrfs", "no_devmapper", "no_zfs"),
        about="the container runtime",
        needed_for=frozenset({"node"}),
    ),
    GoModule(
        "cni",
        {
            path.rpartition("/")[2]: f"{_CNI}/{path}"
            for path in ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap")
        },
        about="the Pods' network plugins",
        needed_for=frozenset({"node"}),
    ),
    GoModule("coredns", {"coredns": "."}, about="the cluster's DNS server", needed_for=frozenset({"node"})),
    GoModule(
        "helm",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        linker_flags="-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
        about="installs charts",
    ),
    GoModule(
        "kubeconform",
        {"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
        about="checks manifests against schemas",
    ),
    GoModule("kwok", {"kwok": "sigs.k8s.io/kwok/cmd/kwok"}, about="pretends to be many nodes"),
)
GO_MODULES: Final[Mapping[str, GoModule]] = MappingProxyType({module.name: module for module in _TABLE})


def needed_for(purpose: str) -> tuple[GoModule, ...]:
    """The modules of "control-plane" or "node", in the order in which they are best built."""
    return tuple(module for module in GO_MODULES.values() if purpose in module.needed_for)


def named(names: Iterable[str]) -> tuple[GoModule, ...]:
    """The modules called `names`. Raises `Refusal` for a name that is none."""
    wanted = []
    for name in names:
        if name not in GO_MODULES:
            raise Refusal(f'There is nothing called "{name}" to build. Choose from: {", ".join(GO_MODULES)}.')
        wanted.append(GO_MODULES[name])
    return tuple(wanted)


def build_flags(module: GoModule) -> tuple[str, ...]:
    """The arguments of `go build` that shape the result. -trimpath: no path of this machine in the binary."""
    tags = ("-tags", ",".join(module.tags)) if module.tags else ()
    return ("-trimpath", "-buildvcs=false", "-mod=readonly", *tags, "-ldflags", module.linker_flags)


def sources(module: GoModule, modules_folder: Path) -> dict[str, bytes]:
    """The module's own files, by path below its folder: go.mod, go.sum and every .go file."""
    folder = modules_folder / module.name
    files = sorted(p for p in folder.rglob("*") if p.name in ("go.mod", "go.sum") or p.suffix == ".go")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def cache_key(module: GoModule, files: Mapping[str, bytes], *, platform: str) -> str:
    """A name for the built programs: NAME-HASH. Same inputs, same name; any other input, another name."""
    digest = hashlib.sha256()
    parts: list[bytes] = [platform.encode(), *(flag.encode() for flag in build_flags(module))]
    for program, package in sorted(module.programs.items()):
        parts += [program.encode(), package.encode()]
    for path, content in sorted(files.items()):
        parts += [path.encode(), content]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)  # length first: no two lists of parts collide
    return f"{module.name}-{digest.hexdigest()[:16]}"
