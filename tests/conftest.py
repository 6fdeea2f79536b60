"""For every folder: Hypothesis' settings, what runs in which test process, the operating system's programs, which
cases pass, what tests measured.

Hypothesis has no deadline, because a loaded machine is not a failure, and takes the same examples each run.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from culvert_transport.logs import JSONFormatter, TextFormatter

CULVERTS = (JSONFormatter, TextFormatter)

settings.register_profile("culvert", deadline=None, derandomize=True)
settings.load_profile("culvert")


PACKAGES: Final = {
    "chromium": ("chromium",),
    "curl": ("curl",),
    "faketime": ("faketime",),
    "knotd": ("knot",),
    "named": ("bind9",),
    "nginx": ("nginx-light",),
    "node": ("nodejs",),
    "pdns_server": ("pdns-server", "pdns-backend-sqlite3"),
    "promtool": ("prometheus",),
    "ssh": ("openssh-client",),
    "sshd": ("openssh-server",),
    "systemd-analyze": ("systemd",),
}
"""The Debian packages of the real clients and servers that tests run."""
ADMINISTRATION: Final = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
CLUSTER: Final = str(Path(__file__).resolve().parent.parent / "hack" / "cluster" / "cluster")
REQUIRED: Final = os.environ.get("REQUIRE_CLUSTER") == "1"


def _unavailable(why: str) -> NoReturn:
    """Skips, except in CI, where whatever the machine lacks is a failure as a missing cluster is."""
    if REQUIRED:
        pytest.fail(f"REQUIRE_CLUSTER=1 is set, but {why}")
    pytest.skip(why)


def _program(name: str) -> str:
    found = shutil.which(name, path=ADMINISTRATION)
    if found is not None:
        return found
    command = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES[name]]
    if os.environ.get("NO_INSTALL") == "1" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        _unavailable(f"{name} is not installed; on Debian, as root: {' '.join(command)}")
    with Path("/tmp/culvert-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other test processes may want the same
        # RUNLEVEL: the packages' own services must not be started on ports 22, 53 and 80.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for step in (["apt-get", "update", "-qq"], command):
            done = subprocess.run(step, env=environment, capture_output=True, text=True, check=False, timeout=240)
            if done.returncode != 0:
                _unavailable(f"{name} cannot be installed: `{' '.join(step)}` ended with {done.returncode}")
    found = shutil.which(name, path=ADMINISTRATION)
    assert found is not None, f"{PACKAGES[name][0]} was installed and has no {name}"
    return found


@pytest.fixture(scope="session")
def unavailable() -> Callable[[str], NoReturn]:
    """``unavailable(why)``: skips for want of something of the machine's, and fails in CI."""
    return _unavailable


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """``program(name)``: the path of a program of the operating system, installed when it can be."""
    return _program


@pytest.fixture(scope="session")
def built() -> Callable[[str], str]:
    """``built(name)``: the path of a program that hack/cluster builds from source; in CI it is built if need be."""

    def path(name: str) -> str:
        verb = ["build", name] if REQUIRED else ["path", name]
        done = subprocess.run([CLUSTER, *verb], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            _unavailable(f"{name} is not built; run `hack/cluster/cluster build {name}` once: {done.stderr.strip()}")
        return subprocess.run([CLUSTER, "path", name], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()

    return path


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """A command that a test calls sets up the root logger, on a standard error that is only the test's."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = [h for h in root.handlers if h in handlers or not isinstance(h.formatter, CULVERTS)]


class Processes(LoadScopeScheduling):
    """`--dist loadgroup` by file names: pytest 9.2 shows xdist 3.8 nothing of the marks that it would group by.

    Tests of the machine's one node run one after the other in one process, so that they share an installation; a
    module that wants a control plane stays in one process, so that few are started; others go where there is room.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder, _, name = nodeid.partition("::")[0].rpartition("/")
        if not folder.endswith("cluster"):
            return nodeid
        return "node" if name.startswith(("test_node", "test_journey_")) else name


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Processes | None:
    """Ours for loadgroup, xdist's own for everything else."""
    return Processes(config, log) if config.getvalue("dist") == "loadgroup" else None


CASE = re.compile(r"(?<![a-z0-9])([abcd])([0-9]{2})(?=_)|(?<![a-z0-9])([ad])([0-9])(?=_)")
"""A covered case's letter and number in a test's name; those below ten of A and D may be written with one digit."""
CASE_OF_A_ROW = re.compile(r"(?:^|-)([abcd])([0-9]{2})(?=_)")
"""The same at the beginning of a parameter: tables have rows of many cases."""
CASES = {"A": 30, "B": 13, "C": 4, "D": 35}
"""How many there are of each letter; B and C are counted by their bullets. There is no D32."""
NO_CASES = {("D", 32)}


def cases_in(nodeid: str) -> set[tuple[str, int]]:
    """The cases of docs that a test's name, or the row of a table that it is for, says it covers: (letter, number)."""
    name, _, row = nodeid.rpartition("::")[2].partition("[")
    found = {(one or other, int(number or digit)) for one, number, other, digit in CASE.findall(name)}
    found |= {(letter, int(number)) for letter, number in CASE_OF_A_ROW.findall(row)}
    return {(letter.upper(), number) for letter, number in found}


def spans(cases: set[tuple[str, int]]) -> str:
    """The numbers, those in a row as their first and last: "1-9, 11"."""
    texts: list[str] = []
    for _, group in groupby(enumerate(sorted(number for _, number in cases)), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in group]
        texts.append(f"{numbers[0]}-{numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}")
    return ", ".join(texts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases of each letter pass, which did not run, and what tests measured (`record_property`)."""
    stats = terminalreporter.stats
    passed, other = (
        {case for status in statuses for report in stats.get(status, ()) for case in cases_in(report.nodeid)}
        for statuses in (("passed",), ("failed", "error"))
    )
    if passed or other:
        terminalreporter.section("cases")
    for letter in sorted({letter for letter, _ in passed | other}):
        every = {(letter, number) for number in range(1, CASES[letter] + 1)} - NO_CASES
        groups = (("pass", every & (passed - other)), ("fail", every & other), ("did not run", every - passed - other))
        line = "; ".join(f"{len(group)} {what}: {spans(group)}" for what, group in groups if group or what == "pass")
        terminalreporter.write_line(f"{letter}: {line}")
    reports = [r for r in stats.get("passed", ()) if r.when == "call" and r.user_properties]
    if reports:
        terminalreporter.section("measured")
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
