"""The processes of one cluster: starting them, finding them again, ending them.

Responsible for finding a cluster's processes by a mark in their environment, which children (container shims)
inherit. Must not know what they do. Invariant: nothing is signalled that does not carry this cluster's mark at that
moment; a process id that the kernel gave to somebody else, or a reboot, can therefore never mislead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from onenode.refusal import Refusal

_MARK: Final = "CULVERT_CLUSTER_STATE"
_NAME: Final = "CULVERT_CLUSTER_PROGRAM"
_PROC: Final = Path("/proc")
_MISSING: Final = 1.0  # seconds; a process in the middle of execve(2) has no environment that can be read


@dataclass(frozen=True, slots=True)
class Program:
    """One long-running program: what to run, and where its output goes."""

    name: str
    arguments: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, order=True)
class Running:
    """A process that carries a cluster's mark. `program` is the name that its ancestor was started under."""

    program: str
    pid: int


def environment_of(pid: int, proc: Path = _PROC) -> dict[str, str]:
    """The environment that the process was started with; empty when it is gone, a zombie, or not ours to read."""
    try:
        raw = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in raw.decode(errors="surrogateescape").split("\0"))
    return {name: value for name, separator, value in pairs if separator}


def marked(state: Path, proc: Path = _PROC) -> tuple[Running, ...]:
    """Every live process of the cluster whose state folder is `state`."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            environment = environment_of(int(entry.name), proc)
            # Not this process: a cluster's guard carries its mark, and takes it down.
            if environment.get(_MARK) == str(state) and int(entry.name) != os.getpid():
                found.append(Running(environment.get(_NAME, "?"), int(entry.name)))
    return tuple(sorted(found))


def start(program: Program, state: Path) -> None:
    """Starts `program` in a session of its own, so that the terminal's Ctrl-C does not reach it.

    Through setsid(1), which forks and leaves: the program is nobody's child here, and no zombie once it ends.
    """
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", *program.arguments],
            cwd="/",
            env={**os.environ, **program.environment, _MARK: str(state), _NAME: program.name},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )


def kill(state: Path, *, only: Iterable[str] | None = None, timeout: float = 20.0) -> None:
    """SIGKILLs the cluster's processes (those of the programs `only`, when given) and waits until they are gone.

    A cluster that goes down is thrown away with its data: there is nothing that a gentler signal would save.
    """
    wanted = None if only is None else frozenset(only)
    deadline = time.monotonic() + timeout
    while True:
        left = [one for one in marked(state) if wanted is None or one.program in wanted]
        if not left:
            return
        for one in left:
            try:
                os.kill(one.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            listing = ", ".join(f"{one.program} ({one.pid})" for one in left)
            raise Refusal(f"These processes do not end: {listing}. They may hang in the kernel; reboot.")
        time.sleep(0.02)


def wait_for(
    condition: Callable[[], bool], *, what: str, programs: Sequence[Program], state: Path, timeout: float
) -> None:
    """Waits until `condition()`; gives up soon when one of `programs` has ended, and shows its last lines."""
    deadline = time.monotonic() + timeout
    seen = {program.name: time.monotonic() for program in programs}
    while not condition():
        now = time.monotonic()
        seen |= {one.program: now for one in marked(state)}
        for program in programs:
            if now - seen[program.name] > _MISSING:
                raise Refusal(f"{program.name} ended while waiting for {what}.\n{last_lines(program.log)}")
        if time.monotonic() > deadline:
            logs = "\n".join(last_lines(program.log, count=8) for program in programs)
            raise Refusal(f"Waited {timeout:.0f} s for {what}, in vain.\n{logs}")
        time.sleep(0.05)


def last_lines(log: Path, *, count: int = 15) -> str:
    """The end of a log, indented, under its name."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        lines = ["(no output)"]
    return f"  last lines of {log}:\n" + "\n".join(f"    {line[:400]}" for line in lines)
