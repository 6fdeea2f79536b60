"""For every folder: Hypothesis' settings, what runs in which test process, which cases pass, what tests measured.

Hypothesis has no deadline, because a loaded machine is not a failure, and takes the same examples each run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from itertools import groupby
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
