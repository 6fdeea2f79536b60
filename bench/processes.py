"""Processes that a benchmark starts: their CPU time, their ports, their end."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of the processes so far (utime + stime of /proc/PID/stat)."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def resident_kib(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def children(pid: int) -> list[int]:
    """The direct children of a process, nginx's workers for instance."""
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Started:
    """Processes started for a benchmark, ended in reverse order on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, *command: str) -> int:
        """Starts a program with its output in the folder; returns its pid."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        self._running.append(process)
        return process.pid

    def end(self, pid: int, *, kill: bool = False) -> None:
        """Ends one process now, and waits until it is gone."""
        (process,) = [one for one in self._running if one.pid == pid]
        self._running.remove(process)
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait(timeout=30)

    def log(self, name: str) -> str:
        """What a program has printed so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")


def wait_until_ok(url: str, host: str, *, seconds: float = 20) -> bytes:
    """The first 200's body; raises TimeoutError when none comes."""
    end = time.monotonic() + seconds
    last = ""
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=2) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, OSError) as error:
            last = str(error)
            time.sleep(0.05)
    raise TimeoutError(f"{url} did not answer 200 within {seconds:g} s: {last}")
