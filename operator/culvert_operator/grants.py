"""Grants: which namespaces may bind which hostnames to a Tunnel.

Responsible for: the Tunnel's ``grants`` and the operator's own limits as a yes or no. Must not know: rules, claims.
Invariant: nothing is granted that ``--allowed-hostnames`` does not cover, whatever the Tunnel says; patterns are
compared on label boundaries after normalising both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from culvert_ingress.hostnames import HostnameError, HostnamePattern, covers, normalise_pattern
from culvert_operator.api.cluster import Namespace
from culvert_operator.api.tunnel import Grant, LabelRequirement, Tunnel
from culvert_operator.options import Options


@dataclass(frozen=True, slots=True)
class Granted:
    """The grant entry (by its index in the Tunnel) that allows a hostname, and its quota."""

    index: int
    max_rules: int


@dataclass(frozen=True, slots=True)
class NotGranted:
    """Why a hostname is not allowed, as a reason of the condition Accepted."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Grants:
    """A Tunnel's grants, ready to be asked."""

    tunnel_namespace: str
    entries: tuple[tuple[Grant, tuple[HostnamePattern, ...]], ...]
    limits: tuple[HostnamePattern, ...] | None
    beyond_limits: tuple[str, ...]

    def allow_port(self, port: int, namespace: Namespace) -> Granted | NotGranted:
        """The same for a TCP port of the relay."""
        open_entries = self._open_to(namespace)
        if isinstance(open_entries, NotGranted):
            return open_entries
        for index, grant, _ in open_entries:
            if any(low <= port <= high for low, high in grant.tcp_ports):
                return Granted(index, grant.max_rules)
        return NotGranted(
            "HostnameNotAllowed",
            f"No grant of the Tunnel allows the port {port} to the namespace {namespace.name} (grants.tcpPorts); "
            "ask the Tunnel's owner.",
        )

    def _open_to(self, namespace: Namespace) -> list[tuple[int, Grant, tuple[HostnamePattern, ...]]] | NotGranted:
        open_entries = [
            (index, grant, patterns)
            for index, (grant, patterns) in enumerate(self.entries)
            if matches_namespace(grant, namespace, same=self.tunnel_namespace)
        ]
        return open_entries or NotGranted(
            "NamespaceNotAllowed",
            f"No grant of the Tunnel names the namespace {namespace.name}; ask the Tunnel's owner for one.",
        )

    def allow(self, hostname: str, namespace: Namespace) -> Granted | NotGranted:
        """Whether ``namespace`` may bind the normalised ``hostname``: the first entry that matches both decides."""
        open_entries = self._open_to(namespace)
        if isinstance(open_entries, NotGranted):
            return open_entries
        for index, grant, patterns in open_entries:
            if any(covers(pattern, hostname) for pattern in patterns):
                if self.limits is not None and not any(covers(limit, hostname) for limit in self.limits):
                    return NotGranted(
                        "HostnameNotAllowed",
                        f"{hostname} is beyond the operator's --allowed-hostnames; ask the administrator.",
                    )
                return Granted(index, grant.max_rules)
        return NotGranted(
            "HostnameNotAllowed",
            f"No grant of the Tunnel allows {hostname} to the namespace {namespace.name}; ask the Tunnel's owner.",
        )


def matches_namespace(grant: Grant, namespace: Namespace, *, same: str) -> bool:
    """Whether a grant entry names ``namespace``; ``same`` is the Tunnel's own."""
    match grant.source:
        case "Same":
            return namespace.name == same
        case "All":
            return True
        case "Selector":
            labels = namespace.labels
            return all(labels.get(k) == v for k, v in grant.match_labels.items()) and all(
                _satisfied(e, labels.get(e.key)) for e in grant.match_expressions
            )
        case _:
            return False


def _satisfied(requirement: LabelRequirement, value: str | None) -> bool:
    # As metav1.LabelSelector defines it: NotIn also holds for objects without the label.
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


def read_grants(tunnel: Tunnel, options: Options) -> Grants:
    """The grants of a Tunnel under the operator's limits. Patterns that are no hostnames grant nothing."""
    limits = _patterns(options.allowed_hostnames) if options.allowed_hostnames else None
    entries = tuple((grant, _patterns(grant.hostnames)) for grant in tunnel.grants)
    beyond = {
        pattern
        for _, patterns in entries
        for pattern in patterns
        if limits is not None and not any(covers(limit, pattern) for limit in limits)
    }
    return Grants(tunnel.meta.namespace, entries, limits, tuple(sorted(beyond)))


def _patterns(texts: Iterable[str]) -> tuple[HostnamePattern, ...]:
    found = []
    for text in texts:
        try:
            found.append(normalise_pattern(text))
        except HostnameError:
            continue
    return tuple(found)
