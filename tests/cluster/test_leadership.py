"""Two operators as processes on a real API server: one writes, and when it goes or is stopped the other takes over."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from .operators import Instance, World, at_rest, until

# Short, so that the tests are: the relations between them are what matters.
LEASE, RENEW, RETRY = 5, 3, 1
ELECTION = (
    "--leader-elect",
    f"--leader-elect-lease-duration={LEASE}",
    f"--leader-elect-renew-deadline={RENEW}",
    f"--leader-elect-retry-period={RETRY}",
)


@pytest.fixture
def pair(world: World) -> Iterator[tuple[Instance, Instance]]:
    """A leader and one that stands by, both ready."""
    first = world.launch(*ELECTION)
    until(lambda: first.ready() and first.leads())
    second = world.launch(*ELECTION)
    until(second.ready)
    assert not second.leads()
    yield first, second
    world.instance = next(i for i in (second, first) if i.process.poll() is None)


def holder(world: World) -> str:
    return str(world.get("lease", "culvert-operator")["spec"].get("holderIdentity", ""))


LEARNT = (
    "culvert_credential_expiry_timestamp_seconds",
    "culvert_dns_names_owned",
    "culvert_dns_names_refused",
    "culvert_dns_deletions_held",
    "culvert_dns_last_success_timestamp_seconds",
)
"""What is told of a Tunnel by whoever works on it."""


def learnt(instance: Instance) -> set[str]:
    return {name for name in LEARNT if f"\n{name}{{" in instance.fetch("/metrics")}


def total(instance: Instance) -> float:
    """The writes for Tunnels that a process has made."""
    lines = instance.fetch("/metrics").splitlines()
    return float(next(line for line in lines if line.startswith("culvert_operator_writes_total ")).split()[1])


def test_a_leader_that_is_told_to_stop_hands_over_at_once_and_one_write_is_made_by_one(
    world: World, pair: tuple[Instance, Instance]
) -> None:
    first, second = pair
    world.apply(world.tunnel(), world.service(), world.binding(f"shop.{world.zone}"))
    until(lambda: world.find("deployment", "main-connector"))
    assert holder(world).startswith(first.name)
    started = time.monotonic()
    assert first.stop() == 0
    until(second.leads)
    assert time.monotonic() - started < LEASE
    host = f"next.{world.zone}"
    world.apply(world.binding(host, name="next"))
    until(lambda: host in str(world.document()))
    uris = [e["requestURI"] for e in world.writes() if e["verb"] == "patch" and e["responseStatus"]["code"] == 201]
    assert uris, "the children were applied"
    assert len(uris) == len(set(uris)), uris


def test_d24_a_leader_that_is_killed_is_replaced_within_its_lease(
    world: World, pair: tuple[Instance, Instance]
) -> None:
    first, second = pair
    first.stop(signal.SIGKILL)
    started = time.monotonic()
    until(second.leads)
    took = time.monotonic() - started
    print(f"takeover after {took:.1f} s with a lease of {LEASE} s")
    # One look at the Lease a second, and the answer to the metrics' request.
    assert took < LEASE + 2
    assert holder(world).startswith(second.name)
    world.apply(world.tunnel(), world.service(), world.binding(f"shop.{world.zone}"))
    until(lambda: world.document() and world.document()["rules"])


def test_d24_a_leader_that_was_stopped_beyond_its_lease_writes_nothing_when_it_is_resumed(
    world: World, pair: tuple[Instance, Instance]
) -> None:
    first, second = pair
    world.apply(world.with_zone(), world.service(), world.binding(f"shop.{world.zone}"))
    until(lambda: world.document() and world.document()["rules"])
    until(lambda: world.find("deployment", "main-connector"))
    at_rest(world)
    written = total(first)
    assert written > 0
    until(lambda: learnt(first) == set(LEARNT))
    assert learnt(second) == set()
    first.process.send_signal(signal.SIGSTOP)
    until(second.leads)
    # The world moves on while the first one sleeps: what it would do when it wakes up is out of date.
    world.apply(world.binding(f"moved.{world.zone}"))
    until(lambda: [r["hostname"] for r in world.document()["rules"]] == [f"moved.{world.zone}"])
    first.process.send_signal(signal.SIGCONT)
    until(lambda: "culvert_operator_leader 0.0" in first.fetch("/metrics"))
    until(first.ready)
    # Values that nobody keeps true would set off alerts, for good.
    until(lambda: learnt(first) == set())
    until(lambda: learnt(second) == set(LEARNT))
    # A mark for both: the second one acts on it, the first one only sees it.
    world.apply(world.binding(f"again.{world.zone}", name="again"))
    until(lambda: f"again.{world.zone}" in str(world.document()))
    assert holder(world).startswith(second.name)
    assert total(first) == written
    assert total(second) > 0
    assert [r["hostname"] for r in world.document()["rules"]] == [f"again.{world.zone}", f"moved.{world.zone}"]
