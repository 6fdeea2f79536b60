"""What `relay.yml` says about observing requests: `accessLog` and `tracing`.

Responsible for these keys and their defaults. Must not know how lines are written or requests marked.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from culvert_relay.config_values import ConfigError, mapping
from culvert_relay.config_values import path as path_value

KEYS: Final = frozenset({"accessLog", "tracing"})
"""Keys at the top of the file that are read here."""


@dataclass(frozen=True, slots=True)
class AccessLogConfig:
    """Where the access log goes (`path` None: standard output) and whether it shows queries."""

    path: Path | None = None
    query: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """`log` None: no access log. `request_ids`: requests get an `X-Request-Id`; `traceparents`: and a `traceparent`
    when they come without one."""

    log: AccessLogConfig | None = None
    request_ids: bool = False
    traceparents: bool = False


NOTHING: Final = Access()
"""What a file without these keys says."""


def read_access(top: dict[str, Any], folder: Path) -> Access:
    """The two sections out of the whole file; relative paths are taken from `folder`. Raises ConfigError."""
    log = _access_log(top["accessLog"], folder) if "accessLog" in top else None
    tracing = mapping(top.get("tracing", {}), "tracing", {"requestId", "traceparent"})
    return Access(
        log=log,
        request_ids=_flag(tracing, "requestId", "tracing", default=log is not None),
        traceparents=_flag(tracing, "traceparent", "tracing", default=False),
    )


def _access_log(value: Any, folder: Path) -> AccessLogConfig:
    section = mapping(value, "accessLog", {"output", "query"})
    if "output" not in section:
        raise ConfigError("accessLog.output is missing: write stdout, or the path of a file.")
    output = section["output"]
    path = None if output == "stdout" else path_value(output, "accessLog.output", folder)
    return AccessLogConfig(path, _flag(section, "query", "accessLog", default=False))


def _flag(section: dict[str, Any], key: str, where: str, *, default: bool) -> bool:
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}.{key} must be true or false, not {value!r}.")
    return value
