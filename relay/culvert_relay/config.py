"""`relay.yml`: read strictly into a value that cannot be wrong.

Responsible for the file's form: which keys there are, what they may hold, and one sentence with a fix for anything
else. Must not know sockets, sessions or certificates' contents (`issuers` and `certificates` read those files).
Invariant: a `RelayConfig` names at least one issuer and one tunnel listener, and no address twice.
"""

import ipaddress
import itertools
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from culvert_ingress.hostnames import HostnameError, normalise, normalise_pattern
from culvert_relay import config_access, config_front
from culvert_relay.config_access import NOTHING, Access
from culvert_relay.config_front import Front
from culvert_relay.config_values import ConfigError
from culvert_relay.config_values import mapping as _mapping
from culvert_relay.config_values import path as _path
from culvert_relay.config_values import seconds as _seconds

__all__ = ["Address", "ConfigError", "Front", "IssuerConfig", "Listen", "RelayConfig", "config_path", "parse_config",
           "read_config"]  # fmt: skip

CONFIG_VARIABLE: Final = "CULVERT_CONFIG"
MAX_FILE: Final = 1 << 20
KEYS: Final = frozenset({"id", "serverNames", "listen", "tls", "issuers", "stateFile", "drainDelay", "gracePeriod"})
DEFAULT_ADMIN: Final = "127.0.0.1:9901"

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: an IP literal or host name ("" = every interface) and a port (0 = any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """The addresses of each front door."""

    http: tuple[Address, ...] = ()
    https: tuple[Address, ...] = ()
    tunnel: tuple[Address, ...] = ()
    admin: Address = Address("127.0.0.1", 9901)
    tcp: tuple[str, ...] = ()
    """Interfaces (IP addresses or host names, "" = every one) on which granted TCP ports are opened."""


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """One issuer: whose grants count, and for which names (exact, or `*.` for any depth) and TCP ports."""

    id: str
    public_key_file: Path
    hostnames: tuple[str, ...]
    tcp_ports: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """Everything that `relay.yml` says, with paths resolved against the file's own folder."""

    id: str
    server_names: tuple[str, ...]
    listen: Listen
    certificate_dir: Path
    issuers: tuple[IssuerConfig, ...] = field(default=())
    front: Front = config_front.DEFAULT_FRONT
    access: Access = NOTHING
    state_file: Path | None = None
    drain_delay: float = 0.0
    """Seconds between being unready and taking nothing new, for load balancers to look elsewhere."""
    grace_period: float = 30.0
    """Seconds that requests under way then have to end."""


WRITTEN: Final[Mapping[str, str]] = {
    "server_names": "serverNames",
    "certificate_dir": "tls",
    "front": " or ".join(sorted(config_front.KEYS)),
    "access": " or ".join(sorted(config_access.KEYS)),
    "state_file": "stateFile",
    "drain_delay": "drainDelay",
    "grace_period": "gracePeriod",
}
"""The keys of the file behind each attribute of `RelayConfig`, where the two differ."""


def config_path(given: Path | None, environment: Mapping[str, str]) -> Path:
    """The file to read: the one given, else CULVERT_CONFIG's; raises ConfigError when there is neither."""
    if given is not None:
        return given
    named = environment.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    raise ConfigError(f"No configuration: give --config relay.yml, or set {CONFIG_VARIABLE} to its path.")


def read_config(path: Path) -> RelayConfig:
    """Reads and checks the file at `path`; raises ConfigError with a sentence that names the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is over 1 MiB, which no relay.yml is: check the path.")
    try:
        return parse_config(data, folder=path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(data: bytes, *, folder: Path) -> RelayConfig:
    """The value of a file's bytes; relative paths are taken from `folder`. Raises ConfigError."""
    try:
        document = yaml.load(data, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader that refuses double keys
    except yaml.YAMLError as error:
        raise ConfigError(f"This is not YAML: {' '.join(str(error).split())}.") from None
    top = _mapping(document, "the file", {*KEYS, *config_front.KEYS, *config_access.KEYS})
    if "issuers" not in top or not top["issuers"]:
        raise ConfigError(
            "issuers is missing: without an issuer's public key no tunnel could ever connect. Add "
            'issuers: [{id: demo, publicKeyFile: ./issuer.pub, hostnames: ["*.example.com"]}].'
        )
    listen = _listen(top.get("listen"))
    tls = _mapping(top.get("tls", {}), "tls", {"certificateDir"})
    if "certificateDir" not in tls:
        raise ConfigError("tls.certificateDir is missing: the folder with <name>.crt and <name>.key pairs.")
    return RelayConfig(
        id=_relay_id(top.get("id")),
        server_names=_server_names(top.get("serverNames")),
        listen=listen,
        certificate_dir=_path(tls["certificateDir"], "tls.certificateDir", folder),
        issuers=_issuers(top["issuers"], folder),
        front=config_front.read_front(top),
        access=config_access.read_access(top, folder),
        state_file=_path(top["stateFile"], "stateFile", folder) if "stateFile" in top else None,
        drain_delay=_seconds(top.get("drainDelay", "0s"), "drainDelay", least=0, most=600),
        grace_period=_seconds(top.get("gracePeriod", "30s"), "gracePeriod", least=1, most=3_600),
    )


class _StrictLoader(yaml.SafeLoader):
    """YAML without double keys: the second would silently win."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (dict, list)):
            raise ConfigError(f"Line {key_node.start_mark.line + 1}: a key must be a plain word.")
        if key in seen:
            raise ConfigError(f"Line {key_node.start_mark.line + 1}: the key {key} stands there twice.")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _relay_id(value: Any) -> str:
    if value is None:
        value = socket.gethostname()[:63].strip("-._") or "relay"
    if not isinstance(value, str) or not _ID.match(value):
        raise ConfigError(f"id must be 1 to 63 letters, digits, '.', '_' or '-', not {value!r}.")
    return value


def _server_names(value: Any) -> tuple[str, ...]:
    names = []
    for item in _strings(value, "serverNames", "the names that connectors dial, such as relay.example.com"):
        try:
            names.append(str(ipaddress.ip_address(item)))
            continue
        except ValueError:
            pass
        try:
            names.append(str(normalise(item)))
        except HostnameError as error:
            raise ConfigError(f"serverNames: {error}") from None
    return _no_repeats(names, "serverNames")


def _listen(value: Any) -> Listen:
    listen = _mapping({} if value is None else value, "listen", {"http", "https", "tunnel", "admin", "tcp"})
    doors = {}
    seen: dict[Address, str] = {}
    for door in ("http", "https", "tunnel"):
        items = listen.get(door, [])
        if not isinstance(items, list):
            raise ConfigError(f'listen.{door} must be a list of addresses, such as ["127.0.0.1:8080"].')
        doors[door] = tuple(_address(item, f"listen.{door}") for item in items)
    admin = _address(listen.get("admin", DEFAULT_ADMIN), "listen.admin")
    for door, addresses in (*doors.items(), ("admin", (admin,))):
        for address in addresses:
            for other, other_door in seen.items():
                if _overlap(address, other):
                    raise ConfigError(
                        f"listen.{door} {address} and listen.{other_door} {other} overlap: give each its own port."
                    )
            seen[address] = door
    if not doors["tunnel"] and not doors["https"]:
        raise ConfigError(
            'listen.tunnel is missing: connectors need an address to dial, such as tunnel: ["0.0.0.0:7443"].'
        )
    if not doors["http"] and not doors["https"]:
        raise ConfigError('listen needs http or https addresses for visitors, such as http: ["0.0.0.0:8080"].')
    hosts = _hosts(listen["tcp"]) if "tcp" in listen else ()
    # Where visitors come anyway, unless the file says otherwise.
    hosts = hosts or tuple(dict.fromkeys(address.host for address in (*doors["https"], *doors["http"])))
    return Listen(http=doors["http"], https=doors["https"], tunnel=doors["tunnel"], admin=admin, tcp=hosts)


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = _strings(value, "listen.tcp", 'interfaces for granted TCP ports, such as ["0.0.0.0"]')
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,253}", host) or re.fullmatch(r"[^:]*:[0-9]*", host):
            raise ConfigError(
                f"listen.tcp: {host!r} is not an interface: write an IP address or host name without a port, such as "
                "0.0.0.0 or ::."
            )
    return _no_repeats(hosts, "listen.tcp")


def _overlap(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    return one.host == other.host or {one.host, other.host} & {"", "0.0.0.0", "::"} != set()  # noqa: S104


def _address(value: Any, where: str) -> Address:
    if not isinstance(value, str) or ":" not in value:
        raise ConfigError(f"{where} must be host:port, such as 127.0.0.1:8080, not {value!r}.")
    host, _, port_text = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"{where}: write an IPv6 address in brackets, such as [::1]:8080, not {value!r}.")
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or int(port_text) > 65535:
        raise ConfigError(f"{where}: {port_text!r} is not a port; use a number from 1 to 65535 (0 = any free one).")
    if host and not re.fullmatch(r"[A-Za-z0-9.:%_-]{1,253}", host):
        raise ConfigError(f"{where}: {host!r} is neither an IP address nor a host name.")
    return Address(host, int(port_text))


def _issuers(value: Any, folder: Path) -> tuple[IssuerConfig, ...]:
    if not isinstance(value, list):
        raise ConfigError("issuers must be a list of {id, publicKeyFile, hostnames}.")
    issuers = []
    for number, item in enumerate(value, start=1):
        where = f"issuers[{number}]"
        issuer = _mapping(item, where, {"id", "publicKeyFile", "hostnames", "tcpPorts"})
        for key in ("id", "publicKeyFile", "hostnames"):
            if key not in issuer:
                raise ConfigError(f"{where} has no {key}: an issuer needs id, publicKeyFile and hostnames.")
        label = issuer["id"]
        if not isinstance(label, str) or not _ID.match(label):
            raise ConfigError(f"{where}.id must be 1 to 63 letters, digits, '.', '_' or '-', not {label!r}.")
        issuers.append(
            IssuerConfig(
                id=label,
                public_key_file=_path(issuer["publicKeyFile"], f"{where}.publicKeyFile", folder),
                hostnames=_patterns(issuer["hostnames"], f"{where}.hostnames"),
                tcp_ports=_port_ranges(issuer.get("tcpPorts", []), f"{where}.tcpPorts"),
            )
        )
    _no_repeats([issuer.id for issuer in issuers], "issuers' ids")
    return tuple(issuers)


def _patterns(value: Any, where: str) -> tuple[str, ...]:
    patterns = []
    for item in _strings(value, where, "exact names and wildcards, such as *.example.com"):
        try:
            patterns.append(str(normalise_pattern(item)))
        except HostnameError as error:
            raise ConfigError(f"{where}: {error}") from None
    return _no_repeats(patterns, where)


def _port_ranges(value: Any, where: str) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list):
        raise ConfigError(f'{where} must be a list of ports and ranges, such as ["20000-20099"].')
    ranges = []
    for item in value:
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(item))
        low = int(match[1]) if match else 0
        high = int(match[2] or match[1]) if match else 0
        if not 1 <= low <= high <= 65535:
            raise ConfigError(f'{where}: {item!r} is not a port or a range of ports such as "20000-20099".')
        ranges.append((low, high))
    ordered = sorted(ranges)
    for (_, high), (low, upper) in itertools.pairwise(ordered):
        if low <= high:
            raise ConfigError(f"{where}: the range {low}-{upper} overlaps another one: join the two.")
    return tuple(ranges)


def _strings(value: Any, where: str, what: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f"{where} must be a list of {what}.")
    return value


def _no_repeats(items: list[str], where: str) -> tuple[str, ...]:
    for item in items:
        if items.count(item) > 1:
            raise ConfigError(f"{where} name {item} twice: keep one.")
    return tuple(items)
