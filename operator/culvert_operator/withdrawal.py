"""Withdrawal: when a Tunnel's records are to go because nobody serves it.

Responsible for: the moment that ``dns.onUnavailable: Withdraw`` asks for. Must not know: records, providers.
Invariant: only connectors' own word counts. That they cannot be asked (``Connected`` Unknown) is no evidence, and the
time runs anew afterwards. Since when nobody serves is a *stored* fact (the condition's transition), so that a restart
neither shortens nor prolongs it.
"""

from __future__ import annotations

from datetime import datetime

from culvert_operator.api.meta import text
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.conditions.condition import by_type
from culvert_operator.programmed import Fleet

CONNECTED = "Connected"


def withdrawal_at(tunnel: Tunnel | None, fleet: Fleet) -> float | None:
    """Epoch seconds from which the Tunnel's records are to be gone; None while it is served, or keeps them."""
    if tunnel is None or tunnel.dns is None or tunnel.dns.withdraw_after is None:
        return None
    if fleet.unreachable or fleet.unheard or any(s.serving for report in fleet.reported for s in report.sessions):
        return None
    stored = by_type(tunnel.status).get(CONNECTED, {})
    if stored.get("status") != "False":
        return None  # it is about to be written; this is asked again then
    try:
        since = datetime.fromisoformat(text(stored.get("lastTransitionTime"))).timestamp()
    except ValueError:
        return None
    return since + tunnel.dns.withdraw_after
