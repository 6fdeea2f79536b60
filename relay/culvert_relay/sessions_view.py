"""`/v1/sessions` and the metrics' readings: what the relay says about itself.

Responsible for turning live state into plain values. Must not change anything. Invariant: no credential, grant,
nonce or key ever appears here; a key is named by its thumbprint.
"""

import asyncio
from collections import Counter

from culvert_relay.certificates import CertificateStore
from culvert_relay.metrics import Readings
from culvert_relay.tunnels.session import TunnelSession
from culvert_relay.tunnels.tunnels import Tunnels


def sessions_view(tunnels: Tunnels) -> dict[str, object]:
    """Every proven session, and every hostname with the tunnel that holds it."""
    edge = tunnels.edge
    table = edge.registry.table
    hostnames = []
    for name in sorted(table.names()):
        entry = table.entry(name)
        if entry is not None and entry.tunnel is not None:
            hostnames.append(
                {
                    "hostname": name,
                    "tunnel": entry.tunnel.subject,
                    "issuer": entry.tunnel.issuer,
                    "claims": len(entry.claims),
                }
            )
    return {
        "relay": edge.relay_id,
        "draining": edge.draining,
        "sessions": [_session(session) for session in tunnels.sessions()],
        "hostnames": hostnames,
    }


def readings(
    tunnels: Tunnels, certificates: CertificateStore, *, certificate_problems: int, access_log_dropped: int
) -> Readings:
    """What the metrics show of this moment."""
    edge = tunnels.edge
    sessions = tunnels.sessions()
    streams: dict[tuple[str, ...], int] = {}
    for session in sessions:
        labels = session.tally.labels
        streams[labels] = streams.get(labels, 0) + len(session.streams)
    return Readings(
        sessions=Counter(map(_state, sessions)),
        tunnels=edge.registry.tunnels,
        hostnames=len(edge.registry.table),
        streams=streams,
        visitors=len(edge.visitors),
        queued_bytes=sum(session.link.queued for session in sessions),
        draining=edge.draining,
        credential_expiry=min((session.credential.expires_at for session in sessions), default=None),
        certificate_expiry={stem: pair.not_after for stem, pair in certificates.pairs.items()},
        certificate_problems=certificate_problems,
        access_log_dropped=access_log_dropped,
        tasks=len(asyncio.all_tasks(edge.loop)),
    )


def _state(session: TunnelSession) -> str:
    if session.session.draining:
        return "draining"
    if session.pool is None:
        return "idle"
    return "serving" if session.probe.passed else "stuck"


def _session(session: TunnelSession) -> dict[str, object]:
    return {
        "tunnel": session.tunnel.subject,
        "issuer": session.tunnel.issuer,
        "connector": session.connector,
        "slot": session.slot,
        "generation": session.generation,
        "peer": session.peer,
        "software": session.software[:128],
        "openedAt": int(session.opened_at),
        "credentialExpiresAt": session.credential.expires_at,
        "keyId": session.credential.key_id,
        "grantVersion": session.grant_version,
        "usable": session.usable,
        "probed": session.probe.passed,
        "draining": session.session.draining,
        "streams": len(session.streams),
        "queuedBytes": session.link.queued,
        "roundTripSeconds": session.link.round_trip,
    }
