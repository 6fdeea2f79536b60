"""For every folder: Hypothesis' settings, what runs in which test process, which cases pass, what tests measured.

Hypothesis has no deadline, because a loaded machine is not a failure, and takes the same examples each run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from culvert_transport.logs import JSONFormatter, TextFormatter

CULVERTS = (JSONFormatter, TextFormatter)

settings.register_profile("culvert", deadline=None, derandomize=True)
settings.load_profile("culvert")


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


CASE = re.compile(r"(?<![a-z0-9])([abc])([0-9]{2})(?=_)|(?<![a-z0-9])(a)([0-9])(?=_)")
"""A covered case's letter and number in a test's name; A1 to A9 are written with one digit."""


def cases_in(nodeid: str) -> set[tuple[str, int]]:
    """The cases of docs that a test's name says it covers: (letter, number)."""
    name = nodeid.rpartition("::")[2].partition("[")[0]
    found = ((one or other, int(number or digit)) for one, number, other, digit in CASE.findall(name))
    return {(letter.upper(), number) for letter, number in found}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many cases of each letter pass, and what tests measured (`record_property`)."""
    stats = terminalreporter.stats
    passed, other = (
        {case for status in statuses for report in stats.get(status, ()) for case in cases_in(report.nodeid)}
        for statuses in (("passed",), ("failed", "error"))
    )
    if passed or other:
        terminalreporter.section("cases")
    for letter in sorted({letter for letter, _ in passed | other}):
        fine = sorted(number for one, number in passed - other if one == letter)
        line = f"{letter}: {len(fine)} pass ({', '.join(map(str, fine))})"
        broken = sorted(number for one, number in other if one == letter)
        terminalreporter.write_line(line + (f"; {len(broken)} fail: {', '.join(map(str, broken))}" if broken else ""))
    reports = [r for r in stats.get("passed", ()) if r.when == "call" and r.user_properties]
    if reports:
        terminalreporter.section("measured")
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
