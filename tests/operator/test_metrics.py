"""What a scrape of the operator tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from culvert_operator.api.binding import parse_binding
from culvert_operator.api.claim import Claim, Waiter
from culvert_operator.api.tunnel import parse_tunnel
from culvert_operator.dns.metrics import Figures
from culvert_operator.keys import ObjectKey
from culvert_operator.metrics import Metrics


def raw(conditions: dict[str, str]) -> Any:
    listed = [{"type": name, "status": status} for name, status in conditions.items()]
    return {"metadata": {"name": "a", "namespace": "ns"}, "status": {"conditions": listed}}


def binding(**conditions: str) -> Any:
    return parse_binding(raw(conditions))


def tunnel(**conditions: str) -> Any:
    return parse_tunnel(raw(conditions))


def test_bindings_are_counted_by_condition_and_those_that_left_are_not() -> None:
    metrics = Metrics()
    waiting = tuple(Waiter("ns", name, ObjectKey("ns", "main"), "") for name in ("b", "c"))
    held = Claim(hostname="a.com", namespace="ns", tunnel=ObjectKey("ns", "main"), claimed_at="", paths=())
    metrics.holds(
        tunnels=[tunnel(Ready="Unknown"), tunnel(Ready="True", Connected="True")],
        bindings=[binding(Ready="True"), binding(Ready="False", Accepted="True"), binding(Made="up")],
        claims=[held, replace(held, hostname="b.com", waiting=waiting)],
    )
    told = metrics.exposition().decode()
    assert 'culvert_operator_bindings{condition="Ready",status="True"} 1.0' in told
    assert 'culvert_operator_bindings{condition="Ready",status="False"} 1.0' in told
    assert 'culvert_operator_bindings{condition="Accepted",status="True"} 1.0' in told
    assert "Made" not in told  # a condition of somebody else's would make as many series as they like
    assert 'culvert_operator_tunnels{condition="Ready",status="Unknown"} 1.0' in told
    assert 'culvert_operator_tunnels{condition="Connected",status="True"} 1.0' in told
    assert 'culvert_operator_tunnels{condition="Programmed",status="True"}' not in told
    assert "culvert_operator_claims 2.0" in told
    assert "culvert_operator_claims_waiting 2.0" in told
    metrics.holds(tunnels=[], bindings=[], claims=[])
    assert 'culvert_operator_bindings{condition="Ready",status="True"} 0.0' in metrics.exposition().decode()


def test_whoever_stands_by_tells_nothing_that_only_work_keeps_true() -> None:
    metrics = Metrics()

    def gauges() -> list[str]:
        return [line for line in metrics.exposition().decode().splitlines() if "_duration_seconds" not in line]

    before, main = gauges(), ObjectKey("ns", "main")
    for _ in range(2):
        metrics.credential(main, 1.0)
        metrics.relay_certificate(1.0)
        metrics.revocations(3, 2)
        metrics.dns.figures(main, Figures(1, 2, 3))
        metrics.dns.read(main, 0.1, succeeded_at=1.0)
        told = metrics.exposition().decode()
        assert 'culvert_dns_last_success_timestamp_seconds{namespace="ns",tunnel="main"} 1.0' in told
        assert 'culvert_operator_revocations{state="pending"} 2.0' in told
        metrics.stands_by()
        assert gauges() == before
    metrics.credential(main, None)  # as for any Tunnel without a credential


def test_requests_are_counted_by_verb_and_code_and_the_leader_is_told() -> None:
    metrics = Metrics()
    metrics.answered("GET", 200)
    metrics.answered("WATCH", 410)
    metrics.leads(True)
    metrics.fenced()
    told = metrics.exposition().decode()
    assert 'culvert_operator_api_requests_total{code="200",verb="GET"} 1.0' in told
    assert 'culvert_operator_api_requests_total{code="410",verb="WATCH"} 1.0' in told
    assert "culvert_operator_leader 1.0" in told
    assert "culvert_operator_fenced_writes_total 1.0" in told
