"""The kinds of values that `relay.yml` holds: a mapping of known keys, numbers in a range, durations, networks, paths.

Responsible for reading one value strictly, with one sentence for anything else. Must not know which keys there are.
Invariant: what is returned is in range; nothing is rounded or guessed.
"""

import difflib
import ipaddress
import os
from pathlib import Path
from typing import Any

from culvert_ingress import durations

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(ValueError):
    """The file cannot be used; the message is one sentence that says what to change."""


def mapping(value: Any, where: str, known: set[str]) -> dict[str, Any]:
    """A mapping without unknown keys; `where` is its place in the file, or "the file"."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping with the keys {', '.join(sorted(known))}.")
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(sorted(known))}."
            place = "" if where == "the file" else f" in {where}"
            raise ConfigError(f"Unknown key {key}{place}: {hint}")
    return value


def whole_number(value: Any, where: str, *, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{where} must be a whole number from {least} to {most}, not {value!r}.")
    return value


def seconds(value: Any, where: str, *, least: float, most: float, never: bool = False) -> float:
    """A duration such as `10s`, in seconds; with `never` 0s passes as well."""
    try:
        if not isinstance(value, str):
            raise durations.DurationError(f"{value!r} is not a duration; write numbers with units, such as 30s.")
        found = durations.parse(value) / 1000
    except durations.DurationError as error:
        raise ConfigError(f"{where}: {error}") from None
    if not (least <= found <= most or (never and not found)):
        zero = ", or 0s for no limit" if never else ""
        raise ConfigError(f"{where} must be from {least:g}s to {most:g}s{zero}, not {value}.")
    return found


def networks(value: Any, where: str) -> tuple[Network, ...]:
    """A list of addresses and CIDR networks; one with host bits set is a mistake, not a network."""
    if not isinstance(value, list):
        raise ConfigError(f'{where} must be a list of addresses and networks, such as ["10.0.0.0/8"].')
    found: list[Network] = []
    for item in value:
        try:
            network = ipaddress.ip_network(item if isinstance(item, str) else "")
        except ValueError as error:
            detail = "its host bits are set" if "host bits" in str(error) else "such as 10.0.0.0/8 or 2001:db8::1"
            raise ConfigError(f"{where}: {item!r} is not an address or a CIDR network ({detail}).") from None
        if network in found:
            raise ConfigError(f"{where} name {network} twice: keep one.")
        found.append(network)
    return tuple(found)


def path(value: Any, where: str, folder: Path) -> Path:
    """A path, relative ones taken from `folder`."""
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where} must be a path.")
    return folder / Path(os.path.expanduser(value))
