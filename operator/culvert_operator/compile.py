"""Compiling: the rules of a Tunnel become a configuration document and what its grant has to list.

Responsible for: the document's content, what is kept of the present one, its version, and whether a new one is due.
Must not know: how it is signed or stored.
Invariants: the same world gives the same content, and the same content never gets a new version (but for the daily
renewal of its grant); versions only grow, even when the ConfigMap was lost (status remembers) or a clock went back.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from culvert_ingress.addresses import AddressError, join_address, split_address
from culvert_ingress.document import SCHEMAS, ConnectorSettings, Document, DocumentError, RelayTarget
from culvert_ingress.ordering import ordered
from culvert_ingress.origin_fields import OriginFieldError, check_server_name
from culvert_ingress.proxy_url import ProxyURLError, check_proxy_url
from culvert_ingress.relay_ports import tls_names
from culvert_ingress.rules import OriginRequest, Rule, TCPService
from culvert_ingress.schemas import needed
from culvert_operator.api.claim import Claim, claim_name, milliseconds
from culvert_operator.api.meta import Raw, mapping, text
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.candidates import Candidate, by_age
from culvert_operator.earlier import readable
from culvert_operator.issue import CONFIG_KEY, MAX_CONFIG_BYTES, granted
from culvert_operator.keys import ObjectKey
from culvert_operator.options import Options
from culvert_operator.references import Resolved, Unresolved, certificates
from culvert_operator.world import GrantName, Snapshot
from culvert_protocol.granted import port_name, port_of
from culvert_protocol.keys import PublicKey
from culvert_protocol.statements import LEEWAY_SECONDS, Grant, StatementError, read_grant, verify_grant

UNRESOLVED = "unresolved.invalid"
"""A name that no resolver knows (RFC 6761): the service of a TCP rule whose reference cannot be used."""


@dataclass(frozen=True, slots=True)
class TunnelProblem:
    """Why the Tunnel cannot be turned into a configuration, as a reason of its condition Accepted."""

    reason: str
    message: str


def relay_target(tunnel: Tunnel, config_maps: Mapping[ObjectKey, Mapping[str, str]]) -> RelayTarget | TunnelProblem:
    """Where connectors dial, in the spelling of the document."""
    try:
        addresses = tuple(dict.fromkeys(join_address(*split_address(a)) for a in tunnel.relay.addresses))
        server_name = check_server_name(tunnel.relay.server_name) if tunnel.relay.server_name else None
        proxy = check_proxy_url(tunnel.relay.proxy_url) if tunnel.relay.proxy_url else None
    except (AddressError, OriginFieldError, ProxyURLError) as error:
        return TunnelProblem("InvalidTunnel", f"spec.relay: {error}")
    if not addresses:
        return TunnelProblem("InvalidTunnel", "spec.relay.addresses is empty; name at least one relay as host:port.")
    if tunnel.relay.ca is None:
        return RelayTarget(addresses, server_name, None, proxy)
    authority = certificates(tunnel.relay.ca, tunnel.meta.namespace, config_maps)
    if isinstance(authority, Unresolved):
        return TunnelProblem(authority.reason, authority.message)
    return RelayTarget(addresses, server_name, authority, proxy)


def relay_of(snapshot: Snapshot, tunnel: Tunnel) -> RelayTarget | None:
    """Where connectors dial; None when the Tunnel cannot say so now."""
    found = relay_target(tunnel, snapshot.config_maps)
    return found if isinstance(found, RelayTarget) else None


def rule_id(candidate: Candidate) -> str:
    """The rule's name in metrics and logs: namespace/binding/rule."""
    return f"{candidate.binding.meta.namespace}/{candidate.binding.meta.name}/{candidate.rule.name}"


def served_rules(resolved: Iterable[tuple[Candidate, Resolved]], *, schema: int = SCHEMAS[-1]) -> tuple[Rule, ...]:
    """The rules of accepted candidates, in matching order, without anything that ``schema`` does not have."""
    pairs = tuple(resolved)
    bindings = {c.binding.meta.key: c.binding for c, _ in pairs}
    places = {(key, rule.name): n for key, binding in bindings.items() for n, rule in enumerate(binding.rules)}
    declared = sorted(pairs, key=lambda p: (by_age(p[0].binding), places[p[0].binding.meta.key, p[0].rule.name]))
    return ordered(readable(rule_of(c, r), schema) for c, r in declared)


def rule_of(candidate: Candidate, resolved: Resolved) -> Rule:
    """The rule that a candidate compiles to."""
    identity, service, origin = rule_id(candidate), resolved.service, resolved.origin
    if candidate.rule.protocol == "HTTP":
        return Rule(identity, candidate.hostname, candidate.path, service, origin)
    if not isinstance(service, TCPService):
        origin = OriginRequest()
        # A Service that cannot be used: nothing answers for it, so the connection is refused, and the status says why.
        service = TCPService("tls" if candidate.rule.protocol == "TLS" else "tcp", UNRESOLVED, 1)
    port = port_of(candidate.hostname)
    return Rule(identity, "" if port is not None else candidate.hostname, None, service, origin, port)


def name_of(rule: Rule) -> str:
    """What a rule of a document claims: its hostname, or ``tcp:<port>``."""
    return rule.hostname if rule.relay_port is None else port_name(rule.relay_port)


def retained_rules(
    present: Document | None, served: Sequence[Rule], keep: Callable[[str], bool], *, schema: int = SCHEMAS[-1]
) -> tuple[Rule, ...]:
    """Rules of the present document for hostnames that nobody serves any more but whose records are still there.

    DNS goes before the route does: visitors that still follow the record are answered as before. An id is changed
    only when a served rule has it now (a hostname was edited in place).
    """
    if present is None:
        return ()
    hostnames, ids = {name_of(rule) for rule in served}, {rule.id for rule in served}
    left = (readable(r, schema) for r in present.rules if name_of(r) not in hostnames and keep(name_of(r)))
    return tuple(replace(r, id=f"{r.id}~{claim_name(name_of(r))[2:14]}") if r.id in ids else r for r in left)


def frame(tunnel: Tunnel, relay: RelayTarget) -> Document:
    """The configuration but for its rules: what the Tunnel itself says. Version 0, no grant yet."""
    return Document(
        version=0,
        tunnel=str(tunnel.meta.key),
        relay=relay,
        rules=(),
        connector=ConnectorSettings(tunnel.connector.sessions, tunnel.connector.grace_seconds),
        fallback_status=tunnel.fallback_status,
    )


def document(
    frame: Document, served: Sequence[Rule], retained: Sequence[Rule], *, revocations: Sequence[str] = ()
) -> Document:
    """The content of the configuration: version 0, no grant yet."""
    content = replace(frame, rules=ordered((*served, *retained)), revocations=tuple(revocations))
    return replace(content, schema=needed(content))


def grant_names(
    content: Document, claims: Mapping[str, Claim], tunnel: ObjectKey, sources: Mapping[str, tuple[str, ...]]
) -> tuple[GrantName, ...]:
    """The names and ports of the document whose claims this Tunnel holds, or held until another Tunnel is ready, with
    the claims' times and who may come."""
    passed = set(tls_names(content.rules))
    names = (*content.hostnames(), *map(port_name, content.relay_ports()))
    held = ((hostname, claims.get(claim_name(hostname))) for hostname in names)
    return tuple(
        GrantName(hostname, milliseconds(since), hostname in passed, sources.get(hostname, ()))
        for hostname, claim in held
        if claim is not None and claim.hostname == hostname and (since := claim.since(tunnel)) is not None
    )


def present_document(config_map: Raw | None) -> Document | None:
    """The document in the ConfigMap; None when there is none that can be read."""
    encoded = text(mapping((config_map or {}).get("binaryData")).get(CONFIG_KEY))
    return _decoded(encoded) if encoded else None


@lru_cache(maxsize=1024)
def _decoded(encoded: str) -> Document | None:
    # Planning happens far more often than the configuration changes, and reading 5,000 rules takes a while. With more
    # Tunnels than places, which are worked on in turn, it would be read in every round.
    try:
        data = base64.b64decode(encoded, validate=True)
        found = Document.loads(data)
    except (binascii.Error, ValueError, DocumentError):
        return None
    return found if found.gzipped() == data else None


def next_version(present: Document | None, tunnel: Tunnel, now: float) -> int:
    """A version above every one that was given out before, in unix milliseconds when the clock allows."""
    recorded = tunnel.status.get("configVersion")
    last = max(present.version if present else 0, recorded if isinstance(recorded, int) else 0)
    return max(last + 1, int(now * 1000))


def is_current(
    present: Document | None,
    content: Document,
    names: Sequence[GrantName],
    *,
    subject: str,
    issuer: PublicKey,
    options: Options,
    now: float,
) -> bool:
    """Whether the present document says ``content``, with a grant that lists ``names`` and is not due for renewal."""
    if present is None or replace(present, version=0, grant="") != content:
        return False
    grant = _signed(present.grant, issuer)
    return (
        grant is not None
        and grant.issued_at - LEEWAY_SECONDS <= now < grant.expires_at
        and grant.tunnel.subject == subject
        and grant.version == present.version
        and granted(names) == (grant.names, grant.tls_names, grant.tcp_ports)
        and now < grant.issued_at + options.credential_renewal_seconds
    )


def granted_until(present: Document, options: Options) -> float | None:
    """Epoch seconds at which the grant of the present document is to be renewed."""
    grant = present_grant(present)
    return float(grant.issued_at + options.credential_renewal_seconds) if grant is not None else None


def present_grant(present: Document) -> Grant | None:
    """What the present document grants, whoever signed it; None when that cannot be read."""
    return _read(present.grant) if present.grant else None


# A grant of 5,000 names takes a while to be read, and a document is the same in most rounds (see _decoded).
@lru_cache(maxsize=1024)
def _read(grant: str) -> Grant | None:
    try:
        return read_grant(grant)
    except StatementError:
        return None


@lru_cache(maxsize=1024)
def _signed(grant: str, issuer: PublicKey) -> Grant | None:
    """The grant when ``issuer`` signed it, whatever the time."""
    found = _read(grant)
    try:
        return verify_grant(grant, {issuer.thumbprint: issuer}, now=found.issued_at) if found is not None else None
    except StatementError:
        return None


def packed_size(content: Document, names: Sequence[GrantName]) -> int:
    """About how many bytes the document takes with its grant, as it is stored (gzip, then base64)."""
    written = [{"hostname": n.hostname, "claimedAt": n.claimed_at, "allowedSources": n.sources} for n in names]
    listed = json.dumps(written).encode()
    grant = len(zlib.compress(base64.urlsafe_b64encode(listed)))
    return (len(content.gzipped()) + grant) * 4 // 3


def too_large(content: Document, names: Sequence[GrantName]) -> TunnelProblem | None:
    """The problem of a configuration that does not fit into one ConfigMap."""
    size = packed_size(content, names)
    if size <= MAX_CONFIG_BYTES:
        return None
    return TunnelProblem(
        "ConfigurationTooLarge",
        f"The configuration has {len(content.rules)} rules and about {size:,} bytes, a ConfigMap holds "
        f"{MAX_CONFIG_BYTES:,}; spread the bindings over several Tunnels.",
    )
