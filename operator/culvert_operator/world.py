"""The two values around the planner: what was gathered about one Tunnel's world, and what is to be done in it.

Responsible for: the shapes of :class:`Snapshot` (gather → plan) and :class:`Plan` (plan → carry out).
Must not know: how the world is read or written, nor any rule of the domain.
Invariants: both are values; a Plan is idempotent (planning the carried-out world again gives ``Plan.is_empty``) and
every operation in it carries the precondition that fences a late writer (uid, resourceVersion, or "must not exist").

How a plan is carried out, in this order:

1. ``finalizers_add``. If a Tunnel's fails, stop and plan again later; a binding's holds up no other.
2. ``claims``. If any was written, gather and plan again *before anything else* (AlreadyExists and 409 count as
   written: another one won, the next snapshot shows it). If all failed otherwise, go on: other names must not wait.
3. ``revocation`` (into the ledger, of which relays are then told), ``credential``, ``configuration``, ``apply`` (an
   :class:`Apply` each, or made into one by :func:`culvert_operator.issue.credential_secret` /
   :func:`~culvert_operator.issue.config_map`, which need the issuer's private key); then ``delete``.
4. ``statuses``, ``dns`` (only changes whose names the *gathered* statuses list already), ``events``,
   ``finalizers_remove``.

After anything was written, gather and plan again; a round that wrote nothing ends the work until something changes
or ``requeue_after`` has passed. Reads must show the process's own writes (put the API server's answer into the
store). A write that failed for good (403, 413, 422) goes into ``Snapshot.failures`` of the next rounds, until a write
of that child succeeds or is no longer planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from culvert_ingress.document import Document, RelayTarget
from culvert_operator.api.binding import Binding
from culvert_operator.api.claim import Claim
from culvert_operator.api.cluster import Namespace, Service
from culvert_operator.api.meta import Raw
from culvert_operator.api.tunnel import Tunnel
from culvert_operator.dns.metrics import NO_FIGURES, Figures
from culvert_operator.dns.plan import DNSView, ZoneChanges
from culvert_operator.keys import ChildKey, ObjectKey
from culvert_operator.options import Options
from culvert_operator.reports import ConnectorReport
from culvert_protocol.keys import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialState:
    """What the Tunnel's credential Secret holds, without anything secret; see :mod:`culvert_operator.credentials`.

    ``problem`` is a sentence when the Secret is ours but its content is not a usable credential. Times are epoch
    seconds. ``issuer`` is the thumbprint of the key that signed it (the JWT's ``kid``).
    """

    key_id: str = ""
    subject: str = ""
    issuer: str = ""
    issued_at: int = 0
    expires_at: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RevocationState:
    """What the ledger says of the Tunnel: credentials issued before ``not_before`` (epoch seconds) are void.

    ``token`` is the signed statement; ``untold`` are those of the relay's addresses that have not confirmed it.
    ``uid`` is that of the Tunnel that it was made for: this one, or one of the same name before it. ``issued_at`` is
    when it was written down.
    """

    not_before: int
    token: str = field(repr=False)
    relay: RelayTarget
    untold: tuple[str, ...] = ()
    uid: str = ""
    issued_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that planning one Tunnel may look at. The mappings are never written to.

    ``key``        the Tunnel's key; :data:`culvert_operator.keys.NOWHERE` for bindings that name none.
    ``tunnel``     None when no such object exists (its bindings and claims are then planned nevertheless).
    ``bindings``   every TunnelBinding for which :func:`culvert_operator.relations.tunnels_of_binding` holds ``key``.
    ``namespaces`` at least those of the Tunnel and the bindings, by name.
    ``services``   at least those that the bindings' rules name, by namespace/name; absent means: does not exist.
    ``config_maps`` ``data`` of those that :func:`culvert_operator.relations.config_maps` lists; absent: not found.
    ``others``     the other Tunnels that are known.
    ``claims``     *all* HostnameClaims of the cluster, by object name.
    ``children``   the raw objects of the Tunnel's namespace at the names of
                   :func:`culvert_operator.relations.children`; absent: does not exist. Leave out the Secret's ``data``.
    ``credential`` :func:`culvert_operator.credentials.inspect` of that Secret; None when it does not exist.
    ``reports``    by Pod name, for every Pod of the Deployment that is not being deleted and that reported or that its
                   kubelet calls ready; None: not reachable.
    ``unheard``    those Pods of ``reports`` that were not heard yet, nor given up: their None is no evidence.
    ``dns``        what the provider holds now; None when the Tunnel has no ``dns`` (or does not exist). A read that
                   failed is a view with ``error``.
    ``issuer``     the issuer's present public key (its ``issuer_id`` is the issuer's first key's thumbprint).
    ``failures``   sentences of writes of children that were refused for good.
    ``revocation`` what the ledger says of this Tunnel's subject; None when it says nothing, or nothing any more.
    ``repeated`` the statements, of this and other Tunnels, that its connectors repeat to its relays.
    ``known_relay`` where this process last saw the Tunnel's connectors dial, for when its CA has gone before it.
    ``now``        wall clock, epoch seconds.
    """

    key: ObjectKey
    tunnel: Tunnel | None
    bindings: tuple[Binding, ...]
    namespaces: Mapping[str, Namespace]
    services: Mapping[ObjectKey, Service]
    config_maps: Mapping[ObjectKey, Mapping[str, str]]
    claims: Mapping[str, Claim]
    children: Mapping[ChildKey, Raw]
    credential: CredentialState | None
    reports: Mapping[str, ConnectorReport | None]
    dns: DNSView | None
    installation: str
    issuer: PublicKey
    options: Options
    now: float
    failures: Mapping[ChildKey, str] = field(default_factory=dict)
    revocation: RevocationState | None = None
    repeated: tuple[str, ...] = ()
    known_relay: RelayTarget | None = None
    unheard: frozenset[str] = frozenset()
    others: Mapping[ObjectKey, Tunnel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FinalizerOp:
    """Add or remove ``culvert.dev/cleanup`` by JSON patch, tested against ``uid`` (and the list as it was read).

    ``finalizers`` is the list as gathered: the patch tests it too, so that nobody else's finalizer is lost.
    """

    kind: Literal["Tunnel", "TunnelBinding"]
    key: ObjectKey
    uid: str
    finalizers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClaimCreate:
    """POST a HostnameClaim. AlreadyExists means that somebody else was first."""

    name: str
    body: Raw


@dataclass(frozen=True, slots=True)
class ClaimUpdate:
    """PUT a HostnameClaim; ``body`` carries uid and resourceVersion."""

    name: str
    body: Raw


@dataclass(frozen=True, slots=True)
class ClaimDelete:
    """DELETE a HostnameClaim with preconditions uid and resourceVersion."""

    name: str
    uid: str
    resource_version: str


ClaimOp = ClaimCreate | ClaimUpdate | ClaimDelete


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of ``body`` (owned fields only) as the field manager ``manager``, force.

    ``body["metadata"]["resourceVersion"]`` is set when the object existed (409: gather again).
    """

    key: ChildKey
    namespace: str
    body: Raw = field(repr=False)  # a Secret's is secret
    manager: str = "culvert"


@dataclass(frozen=True, slots=True)
class ChildDelete:
    """DELETE a child that is no longer wanted, with preconditions uid and resourceVersion."""

    key: ChildKey
    namespace: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueCredential:
    """A credential to be made: a new Ed25519 key pair, a signed JWT, and the Secret ``child`` that holds both.

    ``template`` is the Secret to apply without its ``data``; see :func:`culvert_operator.issue.credential_secret`.
    """

    child: ChildKey
    namespace: str
    template: Raw
    tunnel: str
    subject: str
    issued_at: int
    not_before: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class GrantName:
    """A hostname (or ``tcp:<port>``) that a grant lists, with the epoch milliseconds of its claim.

    ``passed``: as a TLS name; ``sources``: the networks whose visitors may come, none: all.
    """

    hostname: str
    claimed_at: int
    passed: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueConfiguration:
    """A new configuration: ``document`` with an empty grant, and what its grant has to say.

    ``template`` is the ConfigMap to apply without its ``binaryData``; see :func:`culvert_operator.issue.config_map`.
    """

    child: ChildKey
    namespace: str
    template: Raw
    document: Document
    subject: str
    names: tuple[GrantName, ...]
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Credentials of ``subject`` issued before ``not_before`` are to be void: into the ledger, and to every relay.

    Times are epoch seconds; after ``until`` no older credential can be valid, and the ledger forgets it.
    """

    tunnel: ObjectKey
    uid: str
    subject: str
    not_before: int
    issued_at: int
    until: int
    relay: RelayTarget


@dataclass(frozen=True, slots=True)
class StatusPatch:
    """JSON merge patch of the status subresource; carries uid and resourceVersion, so that a stale one answers 409."""

    kind: Literal["Tunnel", "TunnelBinding"]
    key: ObjectKey
    patch: Raw


@dataclass(frozen=True, slots=True)
class Event:
    """A transition worth an Event on the object. ``reason`` is a condition reason or one of the events' table."""

    kind: Literal["Tunnel", "TunnelBinding"]
    key: ObjectKey
    uid: str
    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done; see the module's docstring for the order."""

    finalizers_add: tuple[FinalizerOp, ...] = ()
    claims: tuple[ClaimOp, ...] = ()
    revocation: Revoke | None = None
    credential: IssueCredential | None = None
    apply: tuple[Apply, ...] = ()
    delete: tuple[ChildDelete, ...] = ()
    configuration: IssueConfiguration | None = None
    statuses: tuple[StatusPatch, ...] = ()
    dns: tuple[ZoneChanges, ...] = ()
    events: tuple[Event, ...] = ()
    finalizers_remove: tuple[FinalizerOp, ...] = ()
    requeue_after: float | None = None
    dns_figures: Figures = NO_FIGURES

    @property
    def children(self) -> frozenset[ChildKey]:
        """The children that are to be written."""
        asked = (self.credential, self.configuration)
        return frozenset({a.key for a in self.apply} | {one.child for one in asked if one is not None})

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be written (``requeue_after`` writes nothing)."""
        return not (
            self.finalizers_add
            or self.claims
            or self.revocation
            or self.credential
            or self.apply
            or self.delete
            or self.configuration
            or self.statuses
            or self.dns
            or self.events
            or self.finalizers_remove
        )
