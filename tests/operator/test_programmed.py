"""Programmed: only what connectors report counts."""

from __future__ import annotations

from typing import Any

import pytest

from culvert_operator.programmed import muster, programmed
from culvert_operator.reports import parse_report


def report(version: int = 5, *, granted: int | None = None, **more: Any) -> Any:
    session = {"relay": "relay-1", "state": "connected", "probed": True, "grantVersion": granted or version}
    return parse_report({"ready": True, "appliedVersion": version, "sessions": [session], **more})


def verdict(*reports: Any, proven: bool = False, unheard: tuple[str, ...] = ()) -> tuple[str, str]:
    fleet = muster({f"pod-{i}": r for i, r in enumerate(reports)}, unheard)
    found = programmed(fleet, ["a.com"], version=5, proven=proven)
    return found.status, found.reason


REFUSED = [{"hostname": "a.com", "relay": "relay-1", "reason": "not_in_issuer"}]


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([report()], ("True", "Programmed")),
        ([report(6)], ("True", "Programmed")),
        ([report(), report(4)], ("False", "NotApplied")),
        ([report(5, granted=4)], ("False", "NotApplied")),
        ([report(sessions=[])], ("False", "NotApplied")),
        ([report(4, configError="cannot be served")], ("False", "NotApplied")),
        ([report(refusedHostnames=REFUSED)], ("False", "RouteRefused")),
        ([report(4, refusedHostnames=REFUSED)], ("False", "NotApplied")),
        ([report(refusedHostnames=[{**REFUSED[0], "hostname": "b.com"}])], ("True", "Programmed")),
        ([report(), report(4, draining=True)], ("True", "Programmed")),
        ([report(), report(4, ready=False)], ("True", "Programmed")),
        ([report(), None], ("True", "Programmed")),
        ([None, None], ("Unknown", "Unreachable")),
        ([report(ready=False), None], ("False", "NoConnector")),
        ([], ("False", "NoConnector")),
    ],
)
def test_every_ready_connector_and_every_relay_counts(reports: list[Any], expected: tuple[str, str]) -> None:
    assert verdict(*reports) == expected


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([report(4)], ("True", "Programmed")),
        ([report(sessions=[])], ("True", "Programmed")),
        ([report(4, refusedHostnames=REFUSED)], ("False", "RouteRefused")),
        ([report(ready=False)], ("False", "NoConnector")),
    ],
)
def test_what_was_proven_is_undone_by_a_refusal_or_by_nobody_being_there(
    reports: list[Any], expected: tuple[str, str]
) -> None:
    assert verdict(*reports, proven=True) == expected


def test_a_session_that_was_not_probed_proves_nothing() -> None:
    session = {"relay": "relay-1", "state": "connected", "probed": False, "grantVersion": 5}
    assert verdict(report(sessions=[session])) == ("False", "NotApplied")


@pytest.mark.parametrize(
    ("reports", "proven", "expected"),
    [
        ([None], True, ("True", "Programmed")),
        ([None, report(ready=False)], True, ("True", "Programmed")),
        ([None, report(refusedHostnames=REFUSED)], True, ("False", "RouteRefused")),
        ([None], False, ("Unknown", "Unreachable")),
        ([None, report(ready=False)], False, ("Unknown", "Unreachable")),
        ([None, report()], False, ("False", "NotApplied")),
        ([None, report(4)], False, ("False", "NotApplied")),
    ],
)
def test_one_that_was_not_heard_yet_proves_nothing_and_undoes_nothing(
    reports: list[Any], proven: bool, expected: tuple[str, str]
) -> None:
    assert verdict(*reports, proven=proven, unheard=("pod-0",)) == expected
