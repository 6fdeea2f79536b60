"""Where a request goes: to a tunnel, or to one of the relay's own answers.

Responsible for the order of the checks. Changes nothing but a counter; must not know connections.
Invariants: over TLS a request reaches only the tunnel whose certificate name its client asked for (RFC 9110 7.4); a
visitor outside a name's allowed sources never reaches a tunnel; a name that is passed through as TLS is never HTTP.
"""

from typing import TYPE_CHECKING

from culvert_relay.routing.table import Entry
from culvert_relay.routing.terms import OPEN_TO_ALL
from culvert_relay.visitors import answers
from culvert_relay.visitors.answers import Answer

if TYPE_CHECKING:
    from culvert_relay.edge import Edge


def direct(edge: "Edge", host: bytes, *, tls: int, asked_name: bytes, address: bytes) -> Entry | Answer:
    """Who serves `host`; `asked_name` is the TLS server name, b"" when there was none; `address` the visitor's."""
    table = edge.registry.table
    if tls and host in edge.own_hosts:
        return answers.NOT_FOUND
    entry = table.find(host)
    if asked_name and host != asked_name:
        other = table.find(asked_name)
        if (other.tunnel if other else None) != (entry.tunnel if entry else None):
            return answers.MISDIRECTED
    if entry is not None:
        terms = entry.terms
        if terms is OPEN_TO_ALL:
            return entry
        if terms.sources is not None and not terms.sources.allow(address):
            edge.counters.refused_sources += 1
            return answers.SOURCE_NOT_ALLOWED
        return answers.NOT_HTTP if terms.passthrough else entry
    if not host:
        return answers.NO_HOST
    return answers.NO_SESSION if edge.issuers.cover(host) else answers.UNKNOWN_HOST
