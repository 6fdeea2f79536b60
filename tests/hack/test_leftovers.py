"""Mounts and file systems, read from /proc/self/mountinfo; cgroup hierarchies likewise."""

from __future__ import annotations

from pathlib import Path

from onenode import cgroups, leftovers

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
40 22 0:40 / /srv/state/kubelet/pods/a/volumes/token rw - tmpfs tmpfs rw
41 22 0:41 / /srv/state/with\\040space rw - overlay overlay rw
42 22 0:42 / /srv/state-of-another rw - tmpfs tmpfs rw
43 40 0:43 / /srv/state/kubelet/pods/a/volumes/token/deeper rw - tmpfs tmpfs rw
"""


def test_mounts_below_the_state_folder_come_deepest_first_and_no_others() -> None:
    assert leftovers.mounts_below(Path("/srv/state"), MOUNTINFO) == (
        "/srv/state/with space",
        "/srv/state/kubelet/pods/a/volumes/token/deeper",
        "/srv/state/kubelet/pods/a/volumes/token",
    )


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount() -> None:
    assert leftovers.file_system_of(Path("/srv/other"), MOUNTINFO) == "ext4"
    assert leftovers.file_system_of(Path("/srv/state-of-another"), MOUNTINFO) == "tmpfs"
    assert leftovers.file_system_of(Path("/srv/state-of"), MOUNTINFO) == "ext4"


def test_cgroups_of_both_versions_are_found() -> None:
    assert cgroups.hierarchies(MOUNTINFO) == (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified"))


def test_only_recognisable_entries_leave_folders_that_were_there_before(tmp_path: Path) -> None:
    root = tmp_path / "state"
    root.mkdir()
    bystander = tmp_path / "bystander"
    bystander.mkdir()
    leftovers.remove(root, made=(str(bystander), "/"))
    assert not root.exists()
    assert bystander.exists()
