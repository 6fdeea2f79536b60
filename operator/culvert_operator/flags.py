"""The operator's command line: flags, their environment variables, and the settings that they make.

Responsible for: ``culvert operator run``'s arguments → :class:`Settings`. Must not know: how an operator runs (it
imports nothing that needs the ``operator`` extra, so that the command line can always be built).
Invariant: what cannot work is refused here, with a sentence, before anything is started.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from culvert_ingress.hostnames import HostnameError, normalise_pattern
from culvert_operator.keys import ObjectKey
from culvert_operator.leadership.election import Terms
from culvert_operator.options import ANY_NAMESPACE, Options

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
ISSUER_SECRET = "culvert-issuer"  # noqa: S105 (a Secret's name)
LISTEN = "0.0.0.0:9902"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one operator process is started with.

    ``options`` is what the planner may know. ``listen`` is ``(host, port)`` for probes and metrics. ``relay_services``
    are Services of the own namespace in front of the in-cluster relay: with any, the operator makes the relay's
    certificate for their names and ``relay_server_names``. ``election`` are the terms of the leader's election; None:
    this process is the only operator. ``watch_seconds`` is how long the API server is asked to keep a watch (no flag:
    shorter ones only cost; see :mod:`culvert_operator.cluster.watch`).
    """

    options: Options
    listen: tuple[str, int] = ("0.0.0.0", 9902)  # noqa: S104 (a Pod's probes come from outside of it)
    issuer_secret: str = ISSUER_SECRET
    relay_services: tuple[str, ...] = ()
    relay_server_names: tuple[str, ...] = ()
    election: Terms | None = None
    watch_seconds: float = 55.0
    log_level: str = "info"
    log_format: str = "text"


class SettingsError(ValueError):
    """Flags that cannot work; the text is a sentence with what to write instead."""


Names = Callable[[str, str, str], None]


def _lists(parser: argparse.ArgumentParser) -> Names:
    """Adds a flag with a comma-separated list, which may be repeated."""

    def names(flag: str, metavar: str, text: str) -> None:
        parser.add_argument(flag, action="append", default=None, metavar=f"{metavar}[,{metavar}…]", help=text)

    return names


def add_realm(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which objects are an operator's, so that one that goes lets go of its own only."""
    names = _lists(parser)
    parser.add_argument(
        "--namespace",
        metavar="NS",
        help="where the operator lives (environment: POD_NAMESPACE, CULVERT_NAMESPACE; default: the Pod's)",
    )
    names("--tunnel-namespaces", "NS", "namespaces that may have Tunnels, * for all (default: the operator's own)")
    names("--watch-namespaces", "NS", "namespaces whose TunnelBindings are served, beside the Tunnels' (default: all)")
    parser.add_argument("--default-tunnel", metavar="NS/NAME", help="the Tunnel of bindings that name none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``culvert operator run``."""
    names = _lists(parser)
    add_realm(parser)
    parser.add_argument(
        "--connector-image", metavar="IMAGE", help="image of connectors (environment: CULVERT_IMAGE; required)"
    )
    parser.add_argument(
        "--connector-image-pull-policy",
        choices=PULL_POLICIES,
        default="IfNotPresent",
        help="of connectors (default: %(default)s)",
    )
    names("--allowed-hostnames", "HOST", "names beyond which no Tunnel can grant anything (default: no limit)")
    names("--dns-webhook-urls", "URL", "webhooks that a Tunnel's dns.webhook may name (default: none)")
    parser.add_argument(
        "--cluster-domain", metavar="DOMAIN", default="cluster.local", help="of Services' names (default: %(default)s)"
    )
    parser.add_argument(
        "--issuer-secret",
        metavar="NAME",
        default=ISSUER_SECRET,
        help="the Secret with the issuer's key, made when there is none (default: %(default)s)",
    )
    names("--relay-service", "NAME", "Services of the relay in this cluster; makes its certificate")
    names("--relay-server-names", "HOST", "further names for that certificate")
    parser.add_argument(
        "--leader-elect", action="store_true", help="several operators: only the one that holds the Lease writes"
    )
    terms = Terms()
    for flag, default, text in (
        ("lease-duration", terms.lease, "after which a leader that is silent is replaced"),
        ("renew-deadline", terms.renew, "after which a leader that cannot renew its Lease stops writing"),
        ("retry-period", terms.retry, "between a leader's renewals"),
    ):
        parser.add_argument(
            f"--leader-elect-{flag}",
            metavar="SECONDS",
            type=float,
            default=default,
            help=f"{text} (default: %(default)g)",
        )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", default=LISTEN, help="for probes and metrics (default: %(default)s)"
    )


def realm(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Options:
    """The flags of :func:`add_realm` as options of an operator that makes no connector. Raises SettingsError."""
    try:
        default = ObjectKey.parse(arguments.default_tunnel) if arguments.default_tunnel else None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    namespaces = _listed(arguments.tunnel_namespaces)
    if ANY_NAMESPACE in namespaces and len(namespaces) > 1:
        raise SettingsError("--tunnel-namespaces: write * alone, or namespaces without it.")
    watched = _listed(arguments.watch_namespaces)
    if watched and ANY_NAMESPACE in (*watched, *namespaces):
        raise SettingsError("--watch-namespaces: write namespaces, here and in --tunnel-namespaces, or leave it out.")
    return Options(
        namespace=namespace_of(arguments.namespace, environment),
        image="",
        tunnel_namespaces=namespaces,
        watch_namespaces=watched,
        default_tunnel=default,
    )


def from_args(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """Parsed flags and the environment as settings. Raises SettingsError."""
    try:
        allowed = tuple(str(normalise_pattern(name)) for name in _listed(arguments.allowed_hostnames))
    except HostnameError as error:
        raise SettingsError(str(error)) from None
    image = arguments.connector_image or environment.get("CULVERT_IMAGE", "")
    if not image:
        raise SettingsError("The operator needs --connector-image (or CULVERT_IMAGE), the image of connectors.")
    return Settings(
        options=replace(
            realm(arguments, environment),
            image=image,
            allowed_hostnames=allowed,
            cluster_domain=arguments.cluster_domain,
            image_pull_policy=arguments.connector_image_pull_policy,
            dns_webhook_urls=_listed(arguments.dns_webhook_urls),
        ),
        listen=_address(arguments.listen),
        issuer_secret=arguments.issuer_secret,
        relay_services=_listed(arguments.relay_service),
        relay_server_names=_listed(arguments.relay_server_names),
        election=_election(arguments) if arguments.leader_elect else None,
        log_level=environment.get("CULVERT_LOG_LEVEL", "info"),
        log_format=environment.get("CULVERT_LOG_FORMAT", "text"),
    )


def _election(arguments: argparse.Namespace) -> Terms:
    retry = arguments.leader_elect_retry_period
    terms = Terms(
        lease=arguments.leader_elect_lease_duration,
        renew=arguments.leader_elect_renew_deadline,
        retry=retry,
        look=min(Terms().look, retry),
    )
    if said := terms.problem():
        raise SettingsError(f"--leader-elect: {said}")
    return terms


def _listed(values: Sequence[str] | None) -> tuple[str, ...]:
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def namespace_of(given: str | None, environment: Mapping[str, str]) -> str:
    """Where the operator lives: by its flag, the environment, or the Pod's own. Raises SettingsError."""
    if namespace := given or environment.get("POD_NAMESPACE") or environment.get("CULVERT_NAMESPACE"):
        return namespace
    try:
        return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        said = "Outside a cluster the operator needs --namespace, where its issuer's key is kept."
        raise SettingsError(said) from None


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"--listen: {text!r} is not HOST:PORT; write for instance {LISTEN}.")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104
