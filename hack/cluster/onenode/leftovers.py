"""What a node cannot help leaving outside its state folder, and mounts inside it.

Responsible for: folders with paths that are fixed in kubelet, containerd and CNI; mounts. Must not know of processes.
Invariant: a folder that was there before the node is kept, and only entries that are recognisably ours leave it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from onenode import node

_SHIM_SOCKETS: Final = Path("/run/containerd/s")
_CONTAINER_LOGS: Final = Path("/var/log/containers")
_CNI_RESULTS: Final = Path("/var/lib/cni/results")
FIXED_FOLDERS: Final = (
    *("/run/containerd", "/var/log/containers", "/var/log/pods", "/var/lib/cni", "/var/lib/kubelet"),
    "/run/mount",  # mount(8), which the kubelet calls
)


def absent() -> tuple[str, ...]:
    """Those of the fixed folders that do not exist now: what appears there later is the node's."""
    return tuple(folder for folder in FIXED_FOLDERS if not Path(folder).exists())


def mounts_below(root: Path, mountinfo: str) -> tuple[str, ...]:
    """Mount points below `root`, deepest first. Paths in mountinfo have octal escapes (proc(5))."""
    points = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            points.append(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4]))
    return tuple(sorted((point for point in points if point.startswith(f"{root}/")), reverse=True))


def file_system_of(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds `path` ("ext4", "overlay")."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4]
        inside = point == "/" or path == Path(point) or Path(point) in path.parents
        if inside and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind


def unmount(root: Path) -> None:
    """Unmounts everything below `root`; lazily, as its users are already gone; without notes in /run/mount."""
    for point in mounts_below(root, Path("/proc/self/mountinfo").read_text()):
        subprocess.run(["umount", "--lazy", "--no-mtab", point], capture_output=True, check=False)


def remove(root: Path, made: Iterable[str]) -> None:
    """Removes what the node with the state folder `root` left elsewhere, then `root` itself."""
    for folder in made:
        if folder in FIXED_FOLDERS:
            shutil.rmtree(folder, ignore_errors=True)
    for link in _entries(_CONTAINER_LOGS):
        if link.is_symlink() and str(link.readlink()).startswith(f"{root}/"):
            link.unlink(missing_ok=True)
    for result in _entries(_CNI_RESULTS):
        if result.name.startswith(f"{node.CNI_NETWORK}-"):
            result.unlink(missing_ok=True)
    bound = Path("/proc/net/unix").read_text()
    for socket in _entries(_SHIM_SOCKETS):
        if str(socket) not in bound:  # nobody listens: its shim is dead
            socket.unlink(missing_ok=True)
    shutil.rmtree(root, ignore_errors=True)


def _entries(folder: Path) -> tuple[Path, ...]:
    return tuple(folder.iterdir()) if folder.is_dir() else ()
