"""Two operators on a real node, as the chart has them by default: the leader is killed, and nothing is held up."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from .test_journey_interruptions import process_of

if TYPE_CHECKING:
    from .installation import Installation

LEASE = 15
"""Seconds: the chart's default."""


def holder(installation: Installation) -> str:
    """The identity of the leader: its Pod's name, and what makes this process another one than the Pod's next."""
    return str((installation.get("lease", "culvert-operator") or {}).get("spec", {}).get("holderIdentity", ""))


def serving(installation: Installation) -> int:
    """How many operators' Pods are ready and there to stay."""
    return sum(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        for pod in installation.pods("operator")
        if "deletionTimestamp" not in pod["metadata"]
    )


def test_d24_the_leading_pod_is_killed_and_the_other_one_takes_over_within_the_lease(
    installation: Installation, record_property: Any
) -> None:
    host = f"takeover.{installation.zone}"
    connectors = installation.lives("connector")
    with installation.operators(2):
        installation.until(lambda: holder(installation) and len(installation.pods("operator")) == 2)
        before = holder(installation)
        (leader,) = [p for p in installation.pods("operator") if before.startswith(p["metadata"]["name"])]
        since = len(installation.cluster.audit())
        with installation.watching(lambda: installation.visit(installation.first).status) as visits:
            os.kill(process_of(leader), signal.SIGKILL)
            started = time.monotonic()
            with installation.bound(installation.binding("takeover", host)):
                installation.until(lambda: holder(installation) not in ("", before), every=0.1)
                took = time.monotonic() - started
                record_property("the leader's Pod is killed → the other leads", f"{took:.1f} s, lease {LEASE} s")
                assert took < LEASE + 3
                installation.wait_ready("tunnelbinding/takeover", "shop")
                assert installation.visit(host).status == 200
            # A leader that is told to go hands over at once.
            second = holder(installation)
            (leader,) = [p for p in installation.pods("operator") if second.startswith(p["metadata"]["name"])]
            name, where = leader["metadata"]["name"], f"--namespace={installation.system}"
            started = time.monotonic()
            installation.kubectl("delete", "pod", name, where, "--wait=false")
            installation.until(lambda: holder(installation) not in ("", second), every=0.1)
            record_property("the leader's Pod is deleted → the other leads", f"{time.monotonic() - started:.1f} s")
            assert time.monotonic() - started < LEASE
        assert set(visits.seen) == {200}
        assert installation.lives("connector") == connectors
        made = [uri for _, verb, uri in installation.writes(since) if verb == "create" and "hostnameclaims" in uri]
        assert len(made) == 1, "one claim was made, by one of them"
        installation.until(lambda: serving(installation) == 2 == len(installation.pods("operator")))
        leading = [installation.metrics("operator", 9902, which=n) for n in range(len(installation.pods("operator")))]
        assert sum("\nculvert_operator_leader 1.0\n" in text for text in leading) == 1
