"""The operator's own settings: what an administrator decided when the operator was started.

Responsible for: one frozen value that the pure core reads. Must not know: argparse, the environment, the cluster.
Invariant: everything here holds for the whole life of the process; whatever may change while it runs is in
:class:`culvert_operator.world.Snapshot`.
"""

from __future__ import annotations

from dataclasses import dataclass

from culvert_operator.keys import ObjectKey

ANY_NAMESPACE = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of one operator process.

    ``namespace`` is where the operator itself runs. ``tunnel_namespaces`` are the namespaces in which a Tunnel may
    stand (``("*",)`` for any); empty means only ``namespace``. ``watch_namespaces`` are those whose TunnelBindings are
    served, beside the Tunnels' own; empty means all. ``allowed_hostnames`` are the patterns (exact or
    ``*.suffix``) beyond which no Tunnel can grant anything; empty means no limit. ``default_tunnel`` is used by
    bindings without a ``tunnelRef``. ``image`` is the connectors' image when a Tunnel names none.
    ``dns_webhook_urls`` are the webhooks that a Tunnel's ``dns.webhook`` may name.
    """

    namespace: str
    image: str
    tunnel_namespaces: tuple[str, ...] = ()
    watch_namespaces: tuple[str, ...] = ()
    allowed_hostnames: tuple[str, ...] = ()
    default_tunnel: ObjectKey | None = None
    cluster_domain: str = "cluster.local"
    credential_lifetime_seconds: int = 30 * 86400
    credential_renewal_seconds: int = 86400
    image_pull_policy: str = "IfNotPresent"
    dns_webhook_urls: tuple[str, ...] = ()

    @property
    def tunnel_scopes(self) -> tuple[str | None, ...]:
        """The namespaces that are watched for Tunnels' children; ``(None,)``: every one."""
        allowed = self.tunnel_namespaces or (self.namespace,)
        return (None,) if ANY_NAMESPACE in allowed else tuple(sorted(set(allowed)))

    @property
    def scopes(self) -> tuple[str | None, ...]:
        """The namespaces that are watched for Tunnels, bindings and what they name; ``(None,)``: every one."""
        named = {name for name in self.tunnel_scopes if name is not None}
        return tuple(sorted(named | set(self.watch_namespaces))) if self.watch_namespaces else (None,)

    def watches(self, namespace: str) -> bool:
        """Whether a Tunnel in ``namespace`` can be seen; "" is that of bindings that name none.

        Of one that cannot be seen nothing may be concluded: it may well exist, and be another operator's.
        """
        return not namespace or self.scopes == (None,) or namespace in self.scopes

    def may_hold_tunnels(self, namespace: str) -> bool:
        """Whether a Tunnel in ``namespace`` is one that this operator serves."""
        allowed = self.tunnel_namespaces or (self.namespace,)
        return ANY_NAMESPACE in allowed or namespace in allowed
