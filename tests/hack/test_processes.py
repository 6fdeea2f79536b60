"""A cluster's processes are found by their mark, and only they are ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from onenode import processes
from onenode.processes import Program
from onenode.refusal import Refusal

STAYS = "import time; print('up', flush=True); time.sleep(600)"
HAS_A_CHILD = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    "time.sleep(600)"
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    processes.kill(tmp_path / "state")


def program(state: Path, name: str, code: str) -> Program:
    return Program(name, [sys.executable, "-c", code], state / "logs" / f"{name}.log")


def names(state: Path) -> list[str]:
    return [one.program for one in processes.marked(state)]


def until_running(state: Path, *expected: str) -> None:
    deadline = time.monotonic() + 10
    while names(state) != sorted(expected):
        assert time.monotonic() < deadline, f"running: {names(state)}, expected: {expected}"
        time.sleep(0.02)


def test_started_programs_are_found_under_their_name_and_ended(state: Path) -> None:
    processes.start(program(state, "etcd", STAYS), state)
    processes.start(program(state, "kubelet", STAYS), state)
    until_running(state, "etcd", "kubelet")
    processes.kill(state, only=("kubelet",))
    assert names(state) == ["etcd"]
    processes.kill(state)
    assert names(state) == []


def test_children_are_ended_too(state: Path) -> None:
    processes.start(program(state, "containerd", HAS_A_CHILD), state)
    until_running(state, "containerd", "containerd")
    processes.kill(state)
    assert names(state) == []


def test_processes_of_another_cluster_live_on(state: Path, tmp_path: Path) -> None:
    other = tmp_path / "state-2"  # its path begins like the first one's
    processes.start(program(state, "etcd", STAYS), state)
    processes.start(program(other, "etcd", STAYS), other)
    try:
        until_running(state, "etcd")
        until_running(other, "etcd")
        processes.kill(state)
        assert names(other) == ["etcd"]
    finally:
        processes.kill(other)


def test_a_process_without_the_mark_is_never_signalled_whatever_its_arguments(state: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STAYS, str(state)], stdout=subprocess.PIPE) as bystander:
        assert bystander.stdout is not None
        assert bystander.stdout.readline() == b"up\n"
        processes.kill(state)
        assert bystander.poll() is None
        bystander.kill()


def test_waiting_ends_at_once_when_the_program_ends_and_shows_its_last_words(state: Path) -> None:
    failing = program(state, "etcd", "import sys; sys.exit('bind: address already in use')")
    processes.start(failing, state)
    began = time.monotonic()
    with pytest.raises(Refusal, match=r"(?s)etcd ended while waiting for nothing.*address already in use"):
        processes.wait_for(lambda: False, what="nothing", programs=(failing,), state=state, timeout=30)
    assert time.monotonic() - began < 20


def test_a_program_that_cannot_be_seen_for_a_moment_has_not_ended(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = program(state, "etcd", STAYS)
    looks: list[int] = []

    def marked(root: Path) -> tuple[processes.Running, ...]:
        looks.append(1)
        return () if len(looks) < 3 else (processes.Running("etcd", 1),)

    monkeypatch.setattr(processes, "marked", marked)
    processes.wait_for(lambda: len(looks) > 4, what="etcd", programs=(starting,), state=state, timeout=30)


def test_waiting_gives_up_after_its_timeout(state: Path) -> None:
    silent = program(state, "kubelet", STAYS)
    processes.start(silent, state)
    until_running(state, "kubelet")
    with pytest.raises(Refusal, match="in vain"):
        processes.wait_for(lambda: False, what="the node", programs=(silent,), state=state, timeout=0.1)


def test_a_process_that_is_gone_has_no_environment() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(timeout=10)
    assert processes.environment_of(done.pid) == {}
