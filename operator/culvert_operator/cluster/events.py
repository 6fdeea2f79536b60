"""Events on Tunnels and TunnelBindings, for ``kubectl describe``.

Responsible for: the object of an Event (events.k8s.io/v1). Must not know: which transitions are worth one.
Invariant: an Event that cannot be written is logged and forgotten; it never holds up work.
"""

from __future__ import annotations

import logging
import secrets
from datetime import UTC, datetime

from culvert_operator.api.meta import API_VERSION
from culvert_operator.cluster import kinds
from culvert_operator.cluster.client import APIError, Client
from culvert_operator.cluster.stores import Object
from culvert_operator.world import Event

CONTROLLER = "culvert.dev/operator"
MAX_NOTE = 1024

_log = logging.getLogger(__name__)


def event_body(event: Event, *, now: float, suffix: str, instance: str) -> Object:
    """The object of an Event. ``suffix`` makes its name unique; a note is cut at the API's 1024 bytes."""
    moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    note = event.message.encode()[:MAX_NOTE].decode(errors="ignore")
    return {
        "apiVersion": kinds.EVENT.api_version,
        "kind": "Event",
        "metadata": {"namespace": event.key.namespace, "name": f"{event.key.name[:200]}.{suffix}"},
        "eventTime": moment,
        "type": event.type,
        "reason": event.reason,
        "action": "Reconcile",
        "note": note,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": event.kind,
            "namespace": event.key.namespace,
            "name": event.key.name,
            "uid": event.uid,
        },
        "reportingController": CONTROLLER,
        "reportingInstance": instance[:128],
    }


async def post(client: Client, event: Event, *, now: float, instance: str) -> None:
    """Write one Event."""
    body = event_body(event, now=now, suffix=secrets.token_hex(8), instance=instance)
    try:
        await client.create(kinds.EVENT, event.key.namespace, body)
    except APIError as error:
        fields = {event.kind.lower(): str(event.key), "reason": event.reason, "error": str(error)}
        _log.warning("an Event could not be written", extra={"fields": fields})
