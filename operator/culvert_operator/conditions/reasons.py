"""Every reason that a condition of culvert can have: when it is set, and what a person does about it.

Responsible for: the one literal table, from which docs/troubleshooting.md is made and against which the planner's
conditions are checked. Must not know: how a reason is found. Invariant: (kind, type, reason) is unique, and every
condition that the planner writes is in the table.
"""

# ruff: noqa: E501 - one row, one sentence
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["Tunnel", "TunnelBinding"]


@dataclass(frozen=True, slots=True)
class Reason:
    """One row. ``warns``: entering this state is worth a Warning Event (a passing state is not)."""

    kind: Kind
    type: str
    reason: str
    when: str
    remedy: str
    warns: bool = False


_T: Kind = "Tunnel"
_B: Kind = "TunnelBinding"
_NOTHING = "Nothing to do."

REASONS: tuple[Reason, ...] = (
    Reason(_T, "Accepted", "Accepted", "The operator serves this Tunnel.",
           "Nothing to do. When the message names hostnames beyond `--allowed-hostnames`, rules for those are refused."),
    Reason(_T, "Accepted", "NamespaceNotAllowed", "Tunnels in this namespace are not served.",
           "Move the Tunnel to the operator's namespace, or have the operator started with `--tunnel-namespaces`.", True),
    Reason(_T, "Accepted", "InvalidTunnel", "The Tunnel cannot be turned into a configuration; the message says why.",
           "Change what the message names.", True),
    Reason(_T, "Accepted", "ConfigMapNotFound", "The ConfigMap or key of `relay.caConfigMapRef` is missing or holds no certificate.",
           "Create it in the Tunnel's namespace with PEM certificates (no private key). The last good configuration stays in force.", True),
    Reason(_T, "Accepted", "ConfigurationTooLarge", "The compiled configuration does not fit into one ConfigMap.",
           "Spread the bindings over several Tunnels. The last configuration that fitted stays in force.", True),
    Reason(_T, "Accepted", "ConnectorTooOld", "The Tunnel itself uses a key that a connector of an earlier version cannot read. Rules are served as ever.",
           "Upgrade the connectors (`spec.connector.image` or `imageUpdatePolicy`), or take the key out. What the message names stays as it was before, or such a connector gets no configuration where it was in force already.", True),
    Reason(_T, "Accepted", "Pending", "The Tunnel was paused before anything was looked at (status Unknown).", "See Paused."),
    Reason(_T, "CredentialsReady", "Issued", "The connectors' credential is valid.", _NOTHING),
    Reason(_T, "CredentialsReady", "RotationPending", "A new credential was asked for and written; the one before is revoked once every connector uses the new one (status True).",
           "Wait some seconds. When it lasts, the Pods that the message names cannot be asked, or still serve long requests: delete them to go on."),
    Reason(_T, "CredentialsReady", "RevocationPending", "A relay has not confirmed that older credentials are void (status True).",
           "Let the operator reach the relays' addresses; until then a copy of an older credential is accepted there, unless a connector has told them."),
    Reason(_T, "CredentialsReady", "Pending", "The credential is being issued, or nothing is done for the Tunnel (status Unknown).", "Wait some seconds; see the operator's log when it lasts."),
    Reason(_T, "CredentialsReady", "SecretConflict", "A Secret of the credential's name exists that is not this Tunnel's.",
           "Rename or delete that Secret, or rename the Tunnel. It is never overwritten.", True),
    Reason(_T, "CredentialsReady", "WriteRefused", "The API server refused to store the Secret.",
           "Do what the message says: permissions, quota or an admission policy of the namespace.", True),
    Reason(_T, "ConnectorsAvailable", "Available", "At least one connector Pod is available.", _NOTHING),
    Reason(_T, "ConnectorsAvailable", "Pending", "The Deployment has not reported yet, or nothing is done for the Tunnel.", "Wait some seconds."),
    Reason(_T, "ConnectorsAvailable", "Unavailable", "No connector Pod is available.",
           "`kubectl describe deployment <tunnel>-connector` and the Pods' logs say why: image, scheduling, quota, or a relay that refuses them.", True),
    Reason(_T, "ConnectorsAvailable", "ChildConflict", "An object of a child's name exists that is not this Tunnel's.",
           "Rename or delete the object that the message names, or rename the Tunnel. It is never overwritten.", True),
    Reason(_T, "ConnectorsAvailable", "WriteRefused", "The API server refused a child of the Tunnel.",
           "Do what the message says: permissions, quota, pod security or an admission policy of the namespace.", True),
    Reason(_T, "Connected", "Connected", "A connector holds a session that carries data.", _NOTHING),
    Reason(_T, "Connected", "Pending", "No connector has said anything about relays yet, or nothing is done for the Tunnel.", "Wait some seconds."),
    Reason(_T, "Connected", "Unreachable", "The operator could not ask any connector for 20 seconds (status Unknown); traffic and bindings that are Programmed do not depend on it.",
           "Look for a NetworkPolicy between the operator and port 20241 of the connectors: without their reports nothing new becomes Programmed, and no new record is published.", True),
    Reason(_T, "Connected", "RelayUnreachable", "No relay address could be reached.",
           "Check `relay.addresses`, DNS and outbound firewalls from the connectors' nodes.", True),
    Reason(_T, "Connected", "RelayRefused", "The relay refused the credential.",
           "Give the relay the operator's public key (`culvert keys show`, ConfigMap culvert-issuer) and the hostnames of this issuer; compare clocks.", True),
    Reason(_T, "Connected", "CertificateError", "The relay's certificate is not trusted or names another host.",
           "Set `relay.caConfigMapRef` to the relay's CA and `relay.serverName` to a name in its certificate.", True),
    Reason(_T, "Paused", "Paused", "The annotation `culvert.dev/paused` is `true`: nothing of the Tunnel is changed, whatever its objects say, but that bindings may leave it.",
           "Remove the annotation: `kubectl annotate tunnel NAME culvert.dev/paused-`."),
    Reason(_T, "Ready", "Ready", "The tunnel carries traffic.", _NOTHING),
    Reason(_T, "Ready", "Deleting", "The Tunnel is being deleted: DNS records first, then the connectors.",
           "Wait. When DNS cannot be reached for good, annotate the Tunnel with `culvert.dev/abandon-dns-records=true`."),
    Reason(_B, "Accepted", "Accepted", "Every rule, or every rule but those that the message names, is served.", _NOTHING),
    Reason(_B, "Accepted", "Pending", "The hostnames are being claimed.", "Wait some seconds."),
    Reason(_B, "Accepted", "InvalidRule", "A hostname, path, status or duration cannot be used; the message says which.",
           "Change the rule as the message says.", True),
    Reason(_B, "Accepted", "HostnameConflict", "Somebody else holds the hostname, a wildcard over it, a name below it, or this path of it.",
           "Choose another hostname or path, or wait: the first in the queue takes over when the holder leaves.", True),
    Reason(_B, "Accepted", "PortConflict", "Somebody else holds the port of the relay (`relayPort`), or this object has it twice.",
           "Choose another port, or wait: the first in the queue takes over when the holder leaves.", True),
    Reason(_B, "Accepted", "HostnameNotAllowed", "No grant of the Tunnel allows the hostname to this namespace.",
           "Ask the Tunnel's owner for a grant, and the administrator when `--allowed-hostnames` forbids it.", True),
    Reason(_B, "Accepted", "NamespaceNotAllowed", "No grant of the Tunnel names this namespace.", "Ask the Tunnel's owner for a grant.", True),
    Reason(_B, "Accepted", "TunnelNotFound", "The Tunnel does not exist, is being deleted, is not served, or none is named and there is no default.",
           "Correct `spec.tunnelRef`, or ask for the Tunnel.", True),
    Reason(_B, "Accepted", "TunnelNotWatched", "The Tunnel's namespace is none that the operator watches (status Unknown): nothing is known of the Tunnel, and no operator has taken the binding up within half a minute.",
           "Correct `spec.tunnelRef`, or have the namespace watched (`--watch-namespaces`, the chart's `operator.watchNamespaces`).", True),
    Reason(_B, "Accepted", "QuotaExceeded", "The namespace has more rules than the grant's `maxRules`, or the hostname too many paths.",
           "Remove rules, or ask the Tunnel's owner for a larger `maxRules`.", True),
    Reason(_B, "PartiallyInvalid", "AllRulesAccepted", "No rule, or every rule, is refused (see Accepted).", _NOTHING),
    Reason(_B, "PartiallyInvalid", "SomeRulesRejected", "Some rules are refused and the others are served.",
           "`status.rules` says for each refused rule why.", True),
    Reason(_B, "ResolvedRefs", "Resolved", "Every Service and ConfigMap that a rule names can be used.",
           "Nothing to do. The message names rules that do not verify the Service's certificate."),
    Reason(_B, "ResolvedRefs", "Pending", "No rule can be served, so that nothing was looked up (status Unknown).", "See Accepted."),
    Reason(_B, "ResolvedRefs", "ServiceNotFound", "A Service does not exist in the binding's namespace; its rule answers 503.",
           "Create the Service, or correct its name.", True),
    Reason(_B, "ResolvedRefs", "PortNotFound", "The Service has no such port; its rule answers 503.",
           "Use the number or name of a TCP port of the Service.", True),
    Reason(_B, "ResolvedRefs", "ServiceNotSupported", "The Service is an ExternalName, has no selector, or is headless with a named `targetPort`; its rule answers 503.",
           "Use a Service that selects Pods of this namespace (others could point anywhere); give a headless one a number as `targetPort`.", True),
    Reason(_B, "ResolvedRefs", "AddressNotAllowed", "The Service leads to addresses that connectors do not dial (loopback, link-local, metadata, multicast); its rule answers 502. "
           "A connector says so after a visitor came, and looks again every 30 s.",
           "Use a Service with an address of its own, whose endpoints are Pods.", True),
    Reason(_B, "ResolvedRefs", "ConfigMapNotFound", "The ConfigMap or key of `caConfigMapRef` is missing or holds no certificate; its rule answers 503.",
           "Create it in the binding's namespace with PEM certificates (no private key).", True),
    Reason(_B, "ResolvedRefs", "ConnectorTooOld", "A rule uses a key that a connector of an earlier version cannot read; the rule answers 503.",
           "Upgrade the Tunnel's connectors (`spec.connector.image` or `imageUpdatePolicy`), or take the key out.", True),
    Reason(_B, "Programmed", "Programmed", "Every ready connector serves the rules, and every relay that they reach accepted the hostnames.", _NOTHING),
    Reason(_B, "Programmed", "Pending", "No rule is accepted yet, or the configuration is being written.", "Wait some seconds, or see Accepted."),
    Reason(_B, "Programmed", "NoConnector", "No connector is ready.", "See the Tunnel's conditions.", True),
    Reason(_B, "Programmed", "Unreachable", "The operator cannot ask any connector (status Unknown).",
           "Look for a NetworkPolicy between the operator and port 20241 of the connectors."),
    Reason(_B, "Programmed", "NotApplied", "A ready connector or a relay has not taken the configuration yet.",
           "Wait some seconds; when it lasts, the message or the connector's log says why."),
    Reason(_B, "Programmed", "RouteRefused", "A relay refuses a hostname or TCP port.",
           "not_in_issuer: add the hostname or port (tcpPorts) to this issuer in relay.yml. held_by_another_tunnel: another Tunnel or cluster claimed it first. "
           "port_unavailable: something else on the relay's machine has the port.", True),
    Reason(_B, "DNSReady", "Published", "Every record is in the zone.", _NOTHING),
    Reason(_B, "DNSReady", "Disabled", "The Tunnel has no `dns`: no record is touched.", "Point the hostnames at the relay yourself."),
    Reason(_B, "DNSReady", "Pending", "A record is about to be written or deleted; records appear once a session serves the name.",
           "Wait some seconds, or see Programmed."),
    Reason(_B, "DNSReady", "NotOwner", "The name has a record that culvert did not write; it is left as it is.",
           "Remove that record, or use another hostname.", True),
    Reason(_B, "DNSReady", "ProviderError", "The DNS provider could not be read or written; it is tried again.",
           "Do what the message says. A deletion that can never succeed is ended by `culvert.dev/abandon-dns-records=true`.", True),
    Reason(_B, "DNSReady", "ZoneNotFound", "No zone of the provider holds the hostname.", "Add the zone to the Tunnel's `dns`, or use another hostname.", True),
    Reason(_B, "DNSReady", "InvalidName", "The name does not fit into DNS together with its ownership record.", "Use a shorter name.", True),
    Reason(_B, "DNSReady", "KeptByPolicy", "The record differs from what is wanted and `dns.policy` forbids changing it.",
           "Change the record by hand, or the policy.", True),
    Reason(_B, "DNSReady", "DeletionHeld", "Suspiciously many records would be deleted at once.",
           "Look whether that is meant; then annotate the Tunnel with `culvert.dev/allow-mass-deletion=N`, N being the number in the message: so many may go in one round.", True),
    Reason(_B, "DNSReady", "ApexNeedsAddresses", "The hostname is its zone's apex, where no CNAME can stand, and the Tunnel names no IP addresses.",
           "Set `dns.target.addresses`, or list the relay's IP addresses in `relay.addresses`.", True),
    Reason(_B, "DNSReady", "NoTarget", "The Tunnel's `relay.addresses` are names inside the cluster and it has no `dns.target`: visitors could not resolve the record.",
           "Set `dns.target.hostname` or `dns.target.addresses` to what reaches the relay from outside.", True),
    Reason(_B, "DNSReady", "Withdrawn", "No session has served the Tunnel for `dns.withdrawAfterSeconds`, and its `dns.onUnavailable` is `Withdraw`.",
           "See the Tunnel's conditions; the record returns with the first session.", True),
    Reason(_B, "Paused", "Paused", "The Tunnel is paused: nothing is done for the binding, whatever it says, but that it can be deleted or name another Tunnel. "
           "The other conditions are as they were; those of a new binding are Unknown.",
           "Ask the Tunnel's owner, or remove the annotation: `kubectl annotate tunnel NAME culvert.dev/paused-`."),
    Reason(_B, "Ready", "Ready", "Visitors reach every rule of this binding.", _NOTHING),
    Reason(_B, "Ready", "Deleting", "The binding is being deleted: DNS records first, then the route.",
           "Wait; DNSReady says what is left."),
)  # fmt: skip
"""In the order in which the conditions are shown. ``Ready`` also takes the reason of what is not True."""

EVENTS: tuple[tuple[Kind, str, str, str], ...] = (
    (
        _T,
        "Released",
        "The operator was uninstalled, or its namespace deleted, while the object was there (also on TunnelBindings).",
        "The message says what stays. Install the operator again to go on, or delete the object and what is left.",
    ),
    (
        _T,
        "RevocationUndelivered",
        "A relay could not be told that credentials are void: after `culvert.dev/rotate`, or of a Tunnel that went.",
        "Do what the message says. The operator tells it again until those credentials have expired; the ConfigMap "
        "`culvert-revocations` in its namespace lists what it tells.",
    ),
    (
        _B,
        "RecordsLeft",
        "The object went, and its DNS records could not be deleted: no Tunnel, no `dns`, or the annotation `culvert.dev/abandon-dns-records`.",
        "Delete the records that the message names by hand, with their `_culvert` ownership records.",
    ),
)
"""Reasons of Events that are no condition's: (kind, reason, when, remedy)."""

BY_NAME: dict[tuple[str, str, str], Reason] = {(r.kind, r.type, r.reason): r for r in REASONS}


def warns(kind: str, condition: str, reason: str) -> bool:
    """Whether entering this state is worth a Warning Event."""
    row = BY_NAME.get((kind, condition, reason))
    return row is not None and row.warns


def troubleshooting() -> str:
    """The table as the page docs/troubleshooting.md."""
    lines = [
        "# Troubleshooting: what conditions say",
        "",
        "<!-- Made from operator/culvert_operator/conditions/reasons.py by `python hack/docs/generate.py`. -->",
        "",
        "`kubectl describe` shows the conditions of a Tunnel or TunnelBinding. `Ready` carries the reason of the first "
        "condition that is in its way. Find the condition's type and reason here.",
    ]
    heading: tuple[str, str] | None = None
    for row in REASONS:
        if heading != (row.kind, row.type):
            heading = (row.kind, row.type)
            lines += ["", f"## {row.kind}: {row.type}", "", "| reason | when | what to do |", "|---|---|---|"]
        lines.append(f"| {row.reason} | {row.when} | {row.remedy} |")
    lines += ["", "## Events that are no condition's", "", "| kind | reason | when | what to do |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(event)} |" for event in EVENTS]
    return "\n".join(lines) + "\n"
