"""``spec.dns`` of a Tunnel as the planner and the providers' makers see it.

Responsible for: the raw block → :class:`DNSSettings`, with the schema's defaults. Must not know: providers' meaning
of their settings, Secrets' contents.
Invariant: never raises; nothing secret is in here, only the names of Secrets' keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from culvert_operator.api.meta import Raw, integer, mapping, sequence, text, texts
from culvert_operator.dns.policies import Policy

DEFAULT_TTL = 300
DEFAULT_WITHDRAW_SECONDS = 600


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One key of a ConfigMap or Secret of the same namespace."""

    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DNSSettings:
    """``spec.dns``.

    ``provider`` is the entry point's name and ``settings`` what it is told. ``secret`` and ``config_map`` are what
    the provider block refers to. ``owner_id`` is empty for the installation's id; ``target_*`` are empty for the
    relay's addresses. ``withdraw_after`` is None unless records are withdrawn that long (seconds) without sessions.
    """

    provider: str
    settings: tuple[tuple[str, str], ...] = ()
    secret: KeyRef | None = None
    config_map: KeyRef | None = None
    owner_id: str = ""
    policy: Policy = Policy.SYNC
    ttl: int = DEFAULT_TTL
    target_hostname: str = ""
    target_addresses: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    adopt: bool = False
    withdraw_after: int | None = None


def key_ref(value: object, default_key: str) -> KeyRef | None:
    """A ``{name, key}`` reference, None when absent."""
    ref = mapping(value)
    name = text(ref.get("name"))
    return KeyRef(name, text(ref.get("key")) or default_key) if name else None


def parse_dns(spec: Raw) -> DNSSettings:
    """The ``dns`` block of a Tunnel."""
    target = mapping(spec.get("target"))
    policies = {str(p): p for p in Policy}
    withdraws = spec.get("onUnavailable") == "Withdraw"
    block = next((name for name in BLOCKS if isinstance(spec.get(name), Mapping)), "memory")
    provider, settings, secret, config_map = BLOCKS[block](mapping(spec.get(block)))
    zone = text(mapping(spec.get("zonefile")).get("zone"))
    return DNSSettings(
        provider=provider,
        settings=tuple(sorted((k, v) for k, v in settings.items() if v)),
        secret=secret,
        config_map=config_map,
        owner_id=text(spec.get("ownerId")),
        policy=policies.get(text(spec.get("policy")), Policy.SYNC),
        ttl=integer(spec.get("ttl"), DEFAULT_TTL),
        target_hostname=text(target.get("hostname")),
        target_addresses=_strings(target.get("addresses")),
        zones=(zone,) if zone else _strings(spec.get("zones")),
        adopt=spec.get("adopt") == "SameValue",
        withdraw_after=integer(spec.get("withdrawAfterSeconds"), DEFAULT_WITHDRAW_SECONDS) if withdraws else None,
    )


def _strings(value: object) -> tuple[str, ...]:
    return tuple(v for v in sequence(value) if isinstance(v, str))


_Parts = tuple[str, dict[str, str], KeyRef | None, KeyRef | None]


def _rfc2136(block: Raw) -> _Parts:
    tsig = mapping(block.get("tsig"))
    settings = {
        "servers": ",".join(_strings(block.get("servers"))),
        "tsig-key-name": text(tsig.get("keyName")),
        "tsig-algorithm": text(tsig.get("algorithm")),
    }
    return "rfc2136", settings, key_ref(tsig.get("secretRef"), "secret"), None


def _cloudflare(block: Raw) -> _Parts:
    settings = {"proxied": "true" if block.get("proxied") is True else ""}
    return "cloudflare", settings, key_ref(block.get("apiTokenSecretRef"), "token"), None


def _webhook(block: Raw) -> _Parts:
    return "webhook", {"url": text(block.get("url"))}, None, None


def _endpoints(block: Raw) -> _Parts:
    named = {"labels": block.get("labels"), "provider-specific": block.get("providerSpecific")}
    settings = {key: json.dumps(found, sort_keys=True) for key, value in named.items() if (found := texts(value))}
    return "endpoints", settings, None, None


def _zonefile(block: Raw) -> _Parts:
    return "zonefile", {}, None, key_ref(block.get("configMapRef"), "zone")


def _memory(block: Raw) -> _Parts:
    return "memory", {}, None, None


def _plugin(block: Raw) -> _Parts:
    # culvert's own providers are not reached this way: their settings are checked in blocks of their own.
    name = text(block.get("name"))
    name = "" if name in BLOCKS else name
    return name, texts(block.get("config")), key_ref(block.get("secretRef"), "secret"), None


BLOCKS = {
    "rfc2136": _rfc2136,
    "cloudflare": _cloudflare,
    "webhook": _webhook,
    "endpoints": _endpoints,
    "zonefile": _zonefile,
    "memory": _memory,
    "plugin": _plugin,
}
"""Provider block → what it says: (entry point, settings, Secret, ConfigMap)."""
