"""For every folder: Hypothesis' settings, what runs in which test process, and what tests measured.

Hypothesis has no deadline, because a loaded machine is not a failure, and takes the same examples each run.
"""

from __future__ import annotations

import logging
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured (`record_property`)."""
    reports = [r for r in terminalreporter.stats.get("passed", ()) if r.when == "call" and r.user_properties]
    if reports:
        terminalreporter.section("measured")
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
