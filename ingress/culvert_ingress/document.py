"""The configuration document: what a connector serves, as versioned JSON.

Responsible for: the document's values, and reading and writing them. It is what the operator puts into the ConfigMap
(key `config.json.gz`) and what a `config.yml` compiles to. Must not know who made it.

Invariant: a Document that `loads` returned is wholly valid (hostnames in normal form, paths that compile, addresses,
certificates, distinct rule ids); `Document.loads(document.dumps()) == document`; equal documents give equal bytes.
A later key of schema 1 may only be one that is left out when it has its default: older connectors refuse what they
do not know, and so keep their last good configuration and report it.
"""

from __future__ import annotations

import enum
import json
import zlib
from dataclasses import dataclass
from typing import Any

from culvert_ingress.addresses import AddressError, join_address, split_address
from culvert_ingress.certificates import MAX_PEM, CertificateError, check_certificates
from culvert_ingress.origin_fields import OriginFieldError, check_server_name
from culvert_ingress.proxy_url import ProxyURLError, check_proxy_url
from culvert_ingress.reading import ObjectReader, ReadingError
from culvert_ingress.relay_ports import relay_ports
from culvert_ingress.rule_json import read_rule, write_rule
from culvert_ingress.rules import Rule

__all__ = ["SCHEMAS", "AddressPolicy", "ConnectorSettings", "Document", "DocumentError", "RelayTarget"]

SCHEMAS = (1, 2)
"""Schema numbers that this version reads; a connector reports them, so that an older one can be served."""

MAX_BYTES = 64 << 20
"""Bytes of a document, decompressed."""
MAX_RULES = 20_000
MAX_VERSION = 2**53 - 1
MAX_TOKEN = 16 << 20
"""Characters of a grant: it lists every hostname."""
MAX_REVOCATIONS = 1000
MAX_RELAYS = 64
MAX_SESSIONS = 64
MAX_GRACE_SECONDS = 86_400

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_HEADER = _GZIP_MAGIC + b"\x08\x00\x00\x00\x00\x00\x02\xff"  # RFC 1952: no time, no name, unknown system


class DocumentError(ValueError):
    """A document that cannot be served; the text is a sentence that names the place in it."""


class AddressPolicy(enum.StrEnum):
    """Which addresses an origin's name may resolve to."""

    CLUSTER = "cluster"  # never loopback, link-local, metadata, multicast or unspecified addresses
    ANY = "any"  # a person's own config.yml


@dataclass(frozen=True, slots=True)
class RelayTarget:
    """Where sessions are dialled: `host:port` addresses; `ca` is PEM text or None for the system's roots.

    `proxy` is the URL of the HTTP proxy that they go through; None leaves it to the environment.
    """

    addresses: tuple[str, ...]
    server_name: str | None = None
    ca: str | None = None
    proxy: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """Sessions of this connector, and the seconds that requests in flight get when it stops."""

    sessions: int = 4
    grace_period_seconds: int = 30


@dataclass(frozen=True, slots=True)
class Document:
    """One configuration. `version` grows with every change (unix milliseconds); `rules` are in matching order."""

    version: int
    tunnel: str
    relay: RelayTarget
    rules: tuple[Rule, ...]
    connector: ConnectorSettings = ConnectorSettings()
    fallback_status: int = 404
    address_policy: AddressPolicy = AddressPolicy.CLUSTER
    grant: str = ""
    revocations: tuple[str, ...] = ()
    schema: int = 1

    @classmethod
    def loads(cls, data: bytes) -> Document:
        """Reads JSON, plain or gzip. Raises DocumentError; nothing in it is accepted and ignored."""
        if data.startswith(_GZIP_MAGIC):
            data = _decompress(data)
        if len(data) > MAX_BYTES:
            raise DocumentError(f"The configuration is larger than {MAX_BYTES >> 20} MiB.")
        try:
            return _read(_parse(data))
        except ReadingError as error:
            raise DocumentError(f"The configuration cannot be served: {error}") from None

    def dumps(self) -> bytes:
        """Canonical JSON: keys sorted, no blanks, ASCII."""
        return json.dumps(_write(self), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def gzipped(self) -> bytes:
        """`dumps` as one gzip member without time, name or system in it."""
        data = self.dumps()
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
        return _GZIP_HEADER + packer.compress(data) + packer.flush() + trailer

    def hostnames(self) -> tuple[str, ...]:
        """The distinct hostnames and patterns of the rules, sorted: what this document needs a grant for, besides the
        ports of `relay_ports`."""
        return tuple(sorted({rule.hostname for rule in self.rules if rule.hostname}))

    def relay_ports(self) -> tuple[int, ...]:
        """The distinct TCP ports of the relay that rules take connections of, sorted."""
        return relay_ports(self.rules)


def _decompress(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = unpacker.decompress(data, MAX_BYTES + 1)
    except zlib.error:
        raise DocumentError("The configuration is damaged: its gzip data cannot be read.") from None
    if len(text) > MAX_BYTES:
        raise DocumentError(f"The configuration is larger than {MAX_BYTES >> 20} MiB.")
    if not unpacker.eof or unpacker.unused_data:
        raise DocumentError("The configuration is damaged: its gzip data is cut short, or more follows it.")
    return text


def _parse(data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    except ReadingError:
        raise
    except UnicodeDecodeError:
        raise ReadingError("it is not UTF-8 text.") from None
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ReadingError(f"it is not JSON{where}.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ReadingError(f"the key {key[:80]!r} stands twice in one object.")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ReadingError(f"{name} is not JSON.")


def _read(value: object) -> Document:
    reader = ObjectReader(value, "")
    schema = reader.integer("schema", low=0, high=MAX_VERSION)
    if schema not in SCHEMAS:
        known = ", ".join(map(str, SCHEMAS))
        raise ReadingError(f"its schema is {schema}, and this version of culvert reads {known}; upgrade the connector.")
    document = Document(
        schema=schema,
        version=reader.integer("version", low=0, high=MAX_VERSION),
        tunnel=reader.text("tunnel", longest=512),
        relay=_relay(reader.take("relay"), "relay"),
        connector=_connector(reader.take("connector"), "connector"),
        rules=_rules(reader),
        fallback_status=_fallback(reader.take("fallback"), "fallback"),
        address_policy=reader.choice("addressPolicy", {str(policy): policy for policy in AddressPolicy}),
        grant=reader.text("grant", longest=MAX_TOKEN, empty=True),
        revocations=reader.texts("revocations", most=MAX_REVOCATIONS, longest=64 << 10),
    )
    reader.finish()
    return document


def _relay(value: object, place: str) -> RelayTarget:
    reader = ObjectReader(value, place)
    addresses = reader.texts("addresses", most=MAX_RELAYS, longest=300)
    if not addresses:
        raise ReadingError(
            f"{reader.at('addresses')} is empty; name at least one relay, such as relay.example.com:443."
        )
    server_name = reader.optional_text("serverName", longest=255)
    authority = reader.multiline("ca", longest=MAX_PEM)
    proxy = reader.text("proxy", longest=300) if reader.has("proxy") else None
    reader.finish()
    try:
        if proxy is not None and check_proxy_url(proxy) != proxy:
            raise ReadingError(f"{place}.proxy must be in normal form: {check_proxy_url(proxy)!r}.")
        for index, address in enumerate(addresses):
            normal = join_address(*split_address(address))
            if normal != address:
                raise ReadingError(
                    f"{place}.addresses[{index}] is {address!r}, which is not in normal form; write {normal!r}."
                )
        if server_name is not None and check_server_name(server_name) != server_name:
            raise ReadingError(f"{place}.serverName must be in normal form: {check_server_name(server_name)!r}.")
        if authority is not None:
            check_certificates(authority)
    except (AddressError, OriginFieldError, CertificateError, ProxyURLError) as error:
        raise ReadingError(f"{place}: {error}") from None
    return RelayTarget(addresses, server_name, authority, proxy)


def _connector(value: object, place: str) -> ConnectorSettings:
    reader = ObjectReader(value, place)
    settings = ConnectorSettings(
        sessions=reader.integer("sessions", low=1, high=MAX_SESSIONS),
        grace_period_seconds=reader.integer("gracePeriodSeconds", low=0, high=MAX_GRACE_SECONDS),
    )
    reader.finish()
    return settings


def _rules(reader: ObjectReader) -> tuple[Rule, ...]:
    items = reader.array("rules", longest=MAX_RULES)
    rules = tuple(read_rule(item, f"rules[{index}]") for index, item in enumerate(items))
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.id in seen:
            raise ReadingError(f"rules[{index}].id is {rule.id[:80]!r}, which an earlier rule has already.")
        seen.add(rule.id)
    return rules


def _fallback(value: object, place: str) -> int:
    reader = ObjectReader(value, place)
    status = reader.integer("httpStatus", low=200, high=599)
    reader.finish()
    return status


def _write(document: Document) -> dict[str, Any]:
    return {
        "schema": document.schema,
        "version": document.version,
        "tunnel": document.tunnel,
        "relay": {
            "addresses": list(document.relay.addresses),
            "serverName": document.relay.server_name,
            "ca": document.relay.ca,
            **({} if document.relay.proxy is None else {"proxy": document.relay.proxy}),
        },
        "connector": {
            "sessions": document.connector.sessions,
            "gracePeriodSeconds": document.connector.grace_period_seconds,
        },
        "rules": [write_rule(rule) for rule in document.rules],
        "fallback": {"httpStatus": document.fallback_status},
        "addressPolicy": str(document.address_policy),
        "grant": document.grant,
        "revocations": list(document.revocations),
    }
