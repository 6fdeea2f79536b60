"""The node's cgroup: everything that runs in Pods is below it, in every hierarchy.

Responsible for making it before the kubelet starts (`cgroupRoot` must exist) and for emptying and removing it. Works
with cgroup v1, v2 and both at once. Must not touch any other cgroup.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

from onenode.refusal import Refusal

_CPUSET_FILES: Final = ("cpuset.cpus", "cpuset.mems")


def hierarchies(mountinfo: str) -> tuple[Path, ...]:
    """The mount points of cgroup file systems in /proc/self/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split(" ")[4]))
    return tuple(found)


def _hierarchies() -> tuple[Path, ...]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def create(name: str) -> None:
    """Makes the cgroup `name` below the root of every hierarchy."""
    for root in _hierarchies():
        group = root / name
        try:
            group.mkdir(exist_ok=True)
            for file in _CPUSET_FILES:  # v1: a new cpuset is empty, and nothing can run in it
                if (group / "cgroup.clone_children").exists() and (root / file).exists():
                    (group / file).write_text((root / file).read_text())
        except OSError as error:
            raise Refusal(
                f"The cgroup {group} cannot be made ({error.strerror}). In a container, the node needs "
                "--privileged and its own cgroup namespace."
            ) from None


def remove(name: str, *, timeout: float = 20.0) -> None:
    """Kills whatever runs below the cgroup `name`, and removes it."""
    groups = [root / name for root in _hierarchies() if (root / name).is_dir()]
    deadline = time.monotonic() + timeout
    while pids := {pid for group in groups for pid in _members(group)}:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise Refusal(f"Processes of Pods do not end: {sorted(pids)}. They may hang in the kernel; reboot.")
        time.sleep(0.02)
    for group in groups:
        _remove_tree(group, deadline)


def _members(group: Path) -> set[int]:
    """The processes in `group` and below. Groups come and go meanwhile: os.walk passes over those that went."""
    found: set[int] = set()
    for folder, _, _ in os.walk(group):
        try:
            found.update(int(line) for line in Path(folder, "cgroup.procs").read_text().split())
        except OSError:  # went away, or is threaded
            continue
    return found - {0}


def _remove_tree(group: Path, deadline: float) -> None:
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                os.rmdir(folder)
                break
            except FileNotFoundError:
                break
            except OSError:  # busy: the kernel has not yet buried the last process
                if time.monotonic() > deadline:
                    raise Refusal(f"The cgroup {folder} stays busy; it goes with the next reboot.") from None
                time.sleep(0.02)
