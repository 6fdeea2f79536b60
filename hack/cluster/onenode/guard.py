"""A cluster that must not outlive somebody: a test run, killed however hard.

Responsible for waiting until a process ends, then taking one control plane down. Runs as a process of its own, which
carries the cluster's mark and so ends with it.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from onenode import clusters
from onenode.layout import SOURCES, StateLayout
from onenode.processes import Program, start

NAME = "guard"


def watch(root: Path, pid: int) -> None:
    """Starts the guard of the control plane in `root`: it goes when the process `pid` does."""
    command = [sys.executable, str(SOURCES / "cluster"), "guard", "--state", str(root), str(pid)]
    start(Program(NAME, command, StateLayout(root).log(NAME)), root)


def wait_and_take_down(root: Path, pid: int) -> None:
    """Returns when the process has ended and its control plane is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        pass
    else:
        try:
            select.select([descriptor], [], [])  # a pidfd is readable once its process has ended: pidfd_open(2)
        finally:
            os.close(descriptor)
    clusters.down_control_plane(root)
