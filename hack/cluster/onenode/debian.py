"""Programs of the operating system that the node needs, and the Debian packages that carry them.

Responsible for naming what is missing and, as root with apt-get, installing it. `NO_INSTALL=1` in the environment
forbids the latter. Must not know what the programs are used for beyond a word of explanation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from onenode.progress import Progress
from onenode.refusal import Refusal

# Programs of administration lie in folders that an ordinary user's PATH lacks.
SEARCH_PATH: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, and the Debian package that has it."""

    program: str
    package: str
    use: str


NODE: Final = (
    Tool("runc", "runc", "starts containers"),
    Tool("iptables", "iptables", "Services and NodePorts"),
    Tool("conntrack", "conntrack", "kube-proxy forgets connections of Pods that are gone"),
    Tool("ip", "iproute2", "the node's bridges"),
)
IMAGE: Final = (
    Tool("buildah", "buildah", "builds the image where no Docker runs"),
    Tool("runc", "runc", "runs the Dockerfile's commands"),
)
STAND_IN_BASE: Final = (Tool("debootstrap", "debootstrap", "makes a base image where none can be pulled"),)


def find(program: str) -> str | None:
    """The program's path, None when it is not installed."""
    return shutil.which(program, path=SEARCH_PATH)


def missing(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    return tuple(tool for tool in tools if find(tool.program) is None)


def require(tools: Iterable[Tool], progress: Progress, *, environ: Mapping[str, str] = os.environ) -> None:
    """Installs what is missing, or raises `Refusal` that names the packages."""
    absent = missing(tools)
    if not absent:
        return
    packages = sorted({tool.package for tool in absent})
    uses = ", ".join(f"{tool.program} ({tool.use})" for tool in absent)
    command = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if environ.get("NO_INSTALL") == "1":
        raise Refusal(f"Missing: {uses}. NO_INSTALL=1 is set, so install it yourself: {command}")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Refusal(f"Missing: {uses}. On Debian, as root: {command}")
    progress.say(f"missing: {uses}; installing the Debian packages {' '.join(packages)}")
    # --no-install-recommends: buildah recommends whole desktops of tools that nothing here calls.
    for step in (["apt-get", "update", "-qq"], command.split()):
        done = subprocess.run(
            step,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-15:])
            raise Refusal(f"`{' '.join(step)}` failed:\n{tail}\nInstall {', '.join(packages)} yourself.")
    still = missing(tools)
    if still:
        raise Refusal(
            f"Installed {', '.join(packages)}, and yet these programs are not there: "
            f"{', '.join(tool.program for tool in still)}."
        )
